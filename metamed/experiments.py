"""Experiments: run a setup on a task and keep the run, or run a whole suite and resume it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from itertools import product

from metamed import training
from metamed.dataset import Dataset
from metamed.errors import MetamedError, UnknownName
from metamed.executors import spread, worker_died
from metamed.jobs import Job, Result, is_frozen, perform, setting_of, settings_of
from metamed.methods import checked, get_method
from metamed.records import Run, Setup, Source, Task
from metamed.sources import features_key, find_weights
from metamed.store import Store
from metamed.tasks import make_task


def make_job(
    setup: Setup,
    task: Task,
    dataset: Dataset,
    store: Store,
    *,
    seed: int = 0,
    download: bool = False,
    find: Callable[[str], Dataset] | None = None,
    sources: tuple[Source, ...] | None = None,
    **options,
) -> Job:
    """A job with its sources found; options are those of `Job`. Raises for unknown names and values before any work.

    find: gives a dataset by its name, for recipes that learn from a source's images too. sources: those that the setup
    names; the store's latest ones of these names if None.
    """
    setup = checked(setup, *settings_of(setup))
    sources = tuple(store.source(name) for name in setup.sources) if sources is None else sources
    weights = tuple(find_weights(source, store, download=download) for source in sources)
    keys = [features_key(s, setting_of(setup)["image_size"]) for s in sources] if is_frozen(setup) else []
    known = {k: f for k in keys if (f := store.features(k, dataset.digest)) is not None}
    if setup.recipe and get_method(setup.recipe).partner:
        options["partner"] = _images_of(setup, sources, find)
    return Job(setup, task, dataset, seed, sources, weights, known, **options)


def _images_of(setup: Setup, sources: tuple[Source, ...], find: Callable[[str], Dataset] | None) -> Dataset:
    if find is None or not sources or not sources[0].corpus:
        raise MetamedError(
            f"recipe '{setup.recipe}' also learns from the images of {' + '.join(setup.sources) or 'a source'}, which "
            "are not at hand. Pass find=, and a source that was trained on a dataset"
        )
    return find(sources[0].corpus[0])


def _keep(result: Result, job: Job, store: Store) -> Run:
    for record in (job.dataset, job.task, job.setup, *job.sources):
        store.add(record)
    for key, values in result.features.items():
        store.add_features(key, job.dataset.digest, values)
    store.add(result.run, artifacts=result.artifacts)
    return result.run


def run_setup(
    setup: Setup,
    task: Task,
    dataset: Dataset,
    store: Store,
    *,
    seed: int = 0,
    download: bool = False,
    find: Callable[[str], Dataset] | None = None,
    progress: Callable | None = None,
    **options,
) -> Run:
    """Run one setup once, keep the run with its predictions in the store, and return it. A failed run is kept too.

    options: those of `Job`, such as device, keep_weights, robust.
    """
    job = make_job(setup, task, dataset, store, seed=seed, download=download, find=find, **options)
    return _keep(perform(job, progress), job, store)


# ---- stored runs again


@dataclass(frozen=True)
class Repetition:
    """A stored run and the same run made again. notes: what is not the same any more, one line each."""

    before: Run
    again: Run
    notes: tuple[str, ...]

    @property
    def differences(self) -> dict[str, tuple[float, float]]:
        """Measures that came out otherwise: (before, again). Stored evidence is rounded to 6 digits."""
        both = {m: (self.before.score(m), self.again.score(m)) for m in self.before.evaluations}
        return {m: (a, b) for m, (a, b) in both.items() if not abs(a - b) <= EQUAL * max(1.0, abs(a))}


EQUAL = 1e-5  # what two scores may differ by and still be called equal


def repeat(run: Run, dataset: Dataset, store: Store, evidence: Store | None = None, *, progress: Callable | None = None,
           keep_weights: bool = False, **options) -> Repetition:  # fmt: skip
    """Make a stored run again, with its task, setup, seed, weights, threads and precision, and compare.

    evidence: the store that knows the run (`store` if None); the new one is kept in `store`. options: those of
    `make_job`. Raises MetamedError where the dataset is not the one that the run was made on.
    """
    evidence = evidence or store
    setup, task = evidence.get(run.setup), evidence.get(run.task)
    if task.digest != dataset.digest:
        raise MetamedError(
            f"{dataset.name} is not what run {run.id[:12]} was made on: {task.dataset} has digest {task.digest[:12]}, "
            f"this one {dataset.digest[:12]}. Give that dataset, read in the same way"
        )
    known, then = run.environment, sources_of(run, setup, evidence)
    sources = tuple(_as_it_is_here(source, evidence) for source in then)
    as_then = {name: known[name] for name in ("precision", "device") if name in known}
    as_then |= {"threads": int(known["threads"])} if "threads" in known else {}
    asked = any("@" in measure for measure in run.evaluations)
    options = as_then | options | {"keep_weights": keep_weights, "robust": asked or options.get("robust", False)}
    job = make_job(setup, task, dataset, evidence, seed=run.seed, sources=sources, **options)
    again = _keep(perform(job, progress), job, store)
    return Repetition(run, again, (*_changes(run, again, setup, job.setup), *_other_weights(then, sources)))


def run_of(id: str, store: Store) -> Run:
    """A run by its id, or by the first 8 or more digits of it."""
    run = store.get(id)
    if not isinstance(run, Run):
        raise MetamedError(f"{id} is a {type(run).__name__.lower()}, not a run. `metamed list runs` shows them")
    return run


def sources_of(run: Run, setup: Setup, store: Store) -> tuple[Source, ...]:
    """The very sources that a run started from: by name and by the hash of their weights."""
    known = {(source.name, source.sha256): source for source in store.records("source")}
    for name, sha256 in zip(setup.sources, run.weights, strict=True):
        if (name, sha256) not in known:
            raise MetamedError(f"run {run.id[:12]} started from weights '{name}' with sha256 {sha256[:12]}, which are "
                               "not known here. `metamed store merge` brings them")  # fmt: skip
    return tuple(known[pair] for pair in zip(setup.sources, run.weights, strict=True))


def _as_it_is_here(source: Source, store: Store) -> Source:
    """A source, with the hash of its weights as they were learned here: other processors round differently."""
    kind, _, origin = source.origin.partition(":")
    if kind != "train":
        return source
    try:
        return replace(source, sha256=training.sha256(store.artifact(origin, "weights.safetensors")))
    except UnknownName:
        way = f"`metamed run --from {origin[:12]} --keep` learns them again"
        raise MetamedError(f"the weights of '{source.name}' are not at hand. {way}") from None


def _other_weights(then: Iterable[Source], now: Iterable[Source]) -> Iterator[str]:
    for a, b in zip(then, now, strict=True):
        if a.sha256 != b.sha256:
            yield f"weights of {a.name}: sha256 {a.sha256[:12]} then, learned again as {b.sha256[:12]} now"


def _changes(before: Run, again: Run, setup: Setup, now: Setup) -> Iterator[str]:
    if before.error:
        yield f"the stored run had failed: {before.error}"
    if before.versions != again.versions:
        yield f"methods have changed since: versions {before.versions} then, {again.versions} now"
    if setup.id != now.id:
        yield f"defaults have changed since: {setup.label} then, {now.label} now"
    for fact in ("hardware", "torch", "threads", "precision"):
        then, today = before.environment.get(fact), again.environment.get(fact)
        if then and today and then != today and not again.environment.get("system", "").endswith(then):
            yield f"{fact}: {then} then, {today} now"  # of early runs the hardware is the architecture alone


# ---- suites


@dataclass(frozen=True)
class Suite:
    """An experiment as data: every setup on every dataset at every size, on every split, with every seed.

    datasets: names, found by whoever runs the suite. splits: seeds of the tasks; each draws another test part and
    another training part. Runs go setup by setup, each on all datasets with all seeds: an interrupted suite leaves
    evidence in balance over datasets. So put the cheap and the important setups first. robust: also evaluate on shifted
    test images.
    """

    name: str
    datasets: tuple[str, ...]
    setups: tuple[Setup, ...]
    seeds: tuple[int, ...] = (0,)
    sizes: tuple[int | None, ...] = (None,)
    procedure: str | None = None
    splits: tuple[int, ...] = (0,)
    keep_weights: bool = False
    robust: bool = False


def planned(suite: Suite, store: Store, find: Callable[[str], Dataset], **options) -> Iterator[Job]:
    """All jobs of a suite, each once, in order. `find` gives a dataset by its name."""
    datasets = {name: find(name) for name in suite.datasets}
    tasks = {}  # by what they use: sizes beyond what a dataset has repeat one another, and the last of them is kept
    for split, size, dataset in product(suite.splits, suite.sizes, datasets.values()):
        task = make_task(dataset, procedure=suite.procedure, size=size, seed=split)
        tasks[dataset.digest, task.folds] = dataset, task
    options |= {"find": find, "keep_weights": suite.keep_weights, "robust": suite.robust}
    given = set()
    for setup, seed, (dataset, task) in product(suite.setups, suite.seeds, tasks.values()):
        job = make_job(setup, task, dataset, store, seed=seed, **options)
        if not _learned_from(job) and job.run.id not in given:
            given.add(job.run.id)  # two setups that differ in a default alone are one
            yield job


def pending(suite: Suite, store: Store, find: Callable[[str], Dataset], **options) -> Iterator[Job]:
    """The jobs of a suite that the store does not hold yet, in order."""
    return (job for job in planned(suite, store, find, **options) if not store.has(job.run.id))


def _learned_from(job: Job) -> bool:
    """Did a source learn from the target's own family? Then it knows test images: no transfer, and no evidence."""
    return any({job.dataset.name, job.dataset.family} & set(source.corpus) for source in job.sources)


def run_suite(
    suite: Suite,
    store: Store,
    find: Callable[[str], Dataset],
    *,
    device: str = "auto",
    executor: Executor | None = None,
    workers: int = 1,
    threads: int | None = None,
    report: Callable[[Run, Job], None] | None = None,
) -> list[Run]:
    """Run what is missing of a suite; return the new runs. Interrupted, it goes on where it stopped.

    executor: anything like concurrent.futures (`executors.executor_at`: processes, Dask, Slurm); None runs here.
    Workers return records, the caller alone writes. workers: how many jobs may be under way at once.
    """
    done: list[Run] = []
    jobs = pending(suite, store, find, device=device, threads=threads)
    for job, future in spread(perform, jobs, executor, workers) if executor else ((j, None) for j in jobs):
        done.append(_keep(_result(future, job) if future else perform(job), job, store))
        if report:
            report(done[-1], job)
    return done


def _result(future: Future, job: Job) -> Result:
    """What came of a job elsewhere; a run with its error where it took two workers with it, one after the other."""
    if worker_died(error := future.exception()):
        text = f"{type(error).__name__}: its worker died, twice (out of memory, or killed)"
        return Result(replace(job.run, error=text), {})
    return future.result()
