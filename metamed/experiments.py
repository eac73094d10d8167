"""Experiments: run a setup on a task, make a source of a run, run a whole suite and resume it."""

from __future__ import annotations

import io
import platform
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np

from metamed import training
from metamed.dataset import Dataset
from metamed.errors import MetamedError
from metamed.measures import evaluate, get_measure
from metamed.methods import Plan, Shape, checked, get_method
from metamed.records import Run, Setup, Source, Task
from metamed.sources import encode, features_key, find_weights, load_source
from metamed.store import Store
from metamed.tasks import make_task

# ---- one run


@dataclass(frozen=True)
class Job:
    """All that a worker needs for one run, and nothing of the store: it can travel to another process or machine.

    weights: the file of each source. features: frozen features of the whole dataset for each source, where known.
    partner: what the first source learned from, for recipes that learn it beside the target.
    """

    setup: Setup
    task: Task
    dataset: Dataset
    seed: int = 0
    sources: tuple[Source, ...] = ()
    weights: tuple[Path, ...] = ()
    features: dict[str, np.ndarray] = field(default_factory=dict)
    device: str = "auto"
    threads: int | None = None
    keep_weights: bool = False
    partner: Dataset | None = None

    @property
    def versions(self) -> tuple[int, ...]:
        names = [n for n in (self.setup.method, self.setup.recipe) if n]
        return (*(get_method(n).version for n in names), training.VERSION)

    @property
    def run(self) -> Run:
        """The run that this job will make, without results: its id is known beforehand, so a suite can be resumed."""
        hashes = tuple(source.sha256 for source in self.sources)
        return Run(self.task.id, self.setup.id, self.seed, self.versions, {}, 0.0, {}, hashes)


@dataclass(frozen=True)
class Result:
    """What a worker brings home: the run, its files, and frozen features that were not known before."""

    run: Run
    artifacts: dict[str, bytes]
    features: dict[str, np.ndarray] = field(default_factory=dict)


def perform(job: Job, progress: Callable | None = None) -> Result:
    """Do one job. A failure while training is a result too: a run with its error."""
    import torch

    if job.threads:
        torch.set_num_threads(job.threads)
    device = training.pick_device(job.device)
    start = _seconds(device)
    environment = _environment(device)
    try:
        outcome = (_probe if _is_probe(job.setup) else _train)(job, progress)
    except (RuntimeError, ValueError, ArithmeticError, MemoryError) as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0][:128]
        return Result(replace(job.run, seconds=_seconds(device) - start, environment=environment, error=text), {})
    run = replace(
        job.run,
        evaluations=_evaluations(job, outcome),
        seconds=_seconds(device) - start,
        environment=environment | outcome.environment,
    )
    return Result(run, {"predictions.npz": _predictions(job, outcome)} | outcome.artifacts, outcome.features)


def _seconds(device) -> float:
    """Compute spent so far: core-seconds on a CPU, whatever else the machine is doing; wall seconds on a GPU."""
    return time.process_time() if device.type == "cpu" else time.perf_counter()


def _environment(device) -> dict[str, str]:
    import torch

    import metamed

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": device.type,
        "hardware": name,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "metamed": metamed.__version__,
    }


@dataclass(frozen=True)
class _Outcome:
    """Predicted probabilities of the validation and the test part, with what came along."""

    validation: np.ndarray
    test: np.ndarray
    environment: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    features: dict[str, np.ndarray] = field(default_factory=dict)


def _evaluations(job: Job, outcome: _Outcome) -> dict[str, tuple[float, ...]]:
    """Every measure on the test part, and the task's own on the validation part as `validation_<measure>`."""
    split, target = job.task.folds[0], job.dataset.target
    values = evaluate(job.task.kind, target[list(split.test)], outcome.test)
    chosen = get_measure(job.task.measure)(target[list(split.validation)], outcome.validation)
    if np.isfinite(chosen):
        values[f"validation_{job.task.measure}"] = chosen
    return {name: (value,) for name, value in values.items()}


def _predictions(job: Job, outcome: _Outcome) -> bytes:
    """validation, test: float16 probabilities; *_index: the samples that they belong to."""
    split, file = job.task.folds[0], io.BytesIO()
    np.savez_compressed(
        file,
        validation=outcome.validation.astype(np.float16),
        test=outcome.test.astype(np.float16),
        validation_index=np.array(split.validation),
        test_index=np.array(split.test),
    )
    return file.getvalue()


def _is_probe(setup: Setup) -> bool:
    return setup.method.startswith("probe.")


def _setting(setup: Setup) -> dict:
    return training.DEFAULTS | {k: v for k, v in setup.hyperparameters.items() if k in training.SPACE}


def _own(setup: Setup, name: str) -> dict:
    return {k: v for k, v in setup.hyperparameters.items() if k in get_method(name).space}


def _side(job: Job) -> int:
    """Pixels per side: what is asked for, but images are enlarged only for networks that come from a source."""
    asked, own = _setting(job.setup)["image_size"], max(job.dataset.images.shape[2:])
    return asked if job.setup.sources else min(asked, own)


def _shape(job: Job, channels: int, side: int) -> Shape:
    return Shape(channels, (side, side), job.dataset.n_classes)


def _train(job: Job, progress: Callable | None) -> _Outcome:
    """Train a network, from scratch or by a recipe from one source."""
    setting, split, data = _setting(job.setup), job.task.folds[0], job.dataset
    loss = "multi-label" if data.multi_label else "classification"
    x, v, t = (
        training.load_images(data.images, np.array(i), _side(job)) for i in (split.train, split.validation, split.test)
    )
    training.seed_everything(job.seed)
    shape = _shape(job, 3 if x.shape[1] == 1 else x.shape[1], x.shape[-1])
    net = get_method(job.setup.method).build(shape, **_own(job.setup, job.setup.method))
    plan, normalise = _plan(job, net, shape)
    y = data.target
    fitted = training.fit(
        plan,
        x,
        y[list(split.train)],
        (v, y[list(split.validation)]),
        setting=setting,
        loss=loss,
        normalise=normalise,
        unlabelled=_unlabelled(job) if plan.warm_up else None,
        partner=_partner(job, len(x)) if plan.partner else None,
        seed=job.seed,
        device=job.device,
        progress=progress,
    )
    answers = [training.probabilities(training.logits_of(fitted.model, part), loss) for part in (v, t)]
    kept = {"weights.safetensors": training.weights_bytes(fitted.model)} if job.keep_weights else {}
    environment = {"precision": fitted.precision, "epochs": str(len(fitted.losses))}
    return _Outcome(*answers, environment, kept)


UNLABELLED = 1000  # images at the most that a warm-up passes through, so that it costs no more than the training


def _unlabelled(job: Job) -> np.ndarray:
    """Images that may be looked at without their labels: all but those of the test part and of its groups."""
    data, test = job.dataset, np.array(job.task.folds[0].test)
    allowed = np.setdiff1d(np.arange(len(data.images)), test)
    if data.groups is not None:
        allowed = allowed[~np.isin(data.groups[allowed], data.groups[test])]
    return training.load_images(data.images, _some(allowed, UNLABELLED, job.seed), _side(job))


def _partner(job: Job, n: int) -> tuple[np.ndarray, np.ndarray] | None:
    """As many labelled images of the partner as training will draw beside `n` of the target's, and their targets."""
    if job.partner is None:
        return None
    chosen = _some(job.partner.labelled, n * _setting(job.setup)["epochs"], job.seed)
    return training.load_images(job.partner.images, chosen, _side(job)), job.partner.target[chosen]


def _some(indices: np.ndarray, n: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).permutation(indices)[:n])


def _plan(job: Job, net, shape: Shape):
    """The recipe's plan for a network that holds its source's weights, and the source's pixel normalisation."""
    if job.setup.recipe is None:
        return Plan(net, ((list(net.parameters()), 1.0, 0),)), None
    if len(job.sources) != 1:
        raise MetamedError(f"recipe '{job.setup.recipe}' starts from one source, not {len(job.sources)}")
    mean, sd = load_source(net.encoder, job.sources[0], job.weights[0])
    recipe = get_method(job.setup.recipe)
    return recipe.build(net, job.setup.sources, shape, **_own(job.setup, recipe.name)), (mean, sd)


def _probe(job: Job, progress: Callable | None) -> _Outcome:
    """Fit a quick classifier on frozen features; those of several sources stand side by side."""
    if not job.sources:
        raise MetamedError(f"{job.setup.method} needs a source whose features it probes")
    known = dict(job.features)
    size = _setting(job.setup)["image_size"]
    for source, path in zip(job.sources, job.weights, strict=True):
        key = features_key(source, size)
        if key not in known:
            known[key] = encode(job.dataset, source, path, size, job.device)
    x = np.concatenate([known[features_key(s, size)] for s in job.sources], axis=1).astype(np.float32)
    split, y = job.task.folds[0], job.dataset.target
    training.seed_everything(job.seed)
    probe = get_method(job.setup.method).build(_shape(job, x.shape[1], size), **_own(job.setup, job.setup.method))
    probe.fit(x[list(split.train)], y[list(split.train)], None)
    answers = [np.exp(probe.predict(x[list(part)])) for part in (split.validation, split.test)]
    return _Outcome(*answers, {"precision": "fp32"}, {}, {k: v for k, v in known.items() if k not in job.features})


# ---- with a store


def make_job(
    setup: Setup,
    task: Task,
    dataset: Dataset,
    store: Store,
    *,
    seed: int = 0,
    download: bool = False,
    find: Callable[[str], Dataset] | None = None,
    **options,
) -> Job:
    """A job with its sources found; options are those of `Job`. Raises for unknown names and values before any work.

    find: gives a dataset by its name, for recipes that learn from a source's images too.
    """
    extra = {"image_size": training.SPACE["image_size"]} if _is_probe(setup) else training.SPACE
    setup = checked(setup, extra, training.DEFAULTS)
    sources = tuple(store.source(name) for name in setup.sources)
    weights = tuple(find_weights(source, store, download=download) for source in sources)
    keys = [features_key(s, _setting(setup)["image_size"]) for s in sources] if _is_probe(setup) else []
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
    device: str = "auto",
    download: bool = False,
    keep_weights: bool = False,
    find: Callable[[str], Dataset] | None = None,
    progress: Callable | None = None,
) -> Run:
    """Run one setup once, keep the run with its predictions in the store, and return it. A failed run is kept too."""
    options = {"download": download, "device": device, "keep_weights": keep_weights, "find": find}
    job = make_job(setup, task, dataset, store, seed=seed, **options)
    return _keep(perform(job, progress), job, store)


# ---- suites


@dataclass(frozen=True)
class Suite:
    """An experiment as data: every setup on every dataset at every size, on every split, with every seed.

    datasets: names, found by whoever runs the suite. splits: seeds of the tasks; each draws another test part and
    another training part. Runs go setup by setup, each on all datasets with all seeds: an interrupted suite leaves
    evidence in balance over datasets. So put the cheap and the important setups first.
    """

    name: str
    datasets: tuple[str, ...]
    setups: tuple[Setup, ...]
    seeds: tuple[int, ...] = (0,)
    sizes: tuple[int | None, ...] = (None,)
    procedure: str | None = None
    splits: tuple[int, ...] = (0,)
    keep_weights: bool = False


def pending(suite: Suite, store: Store, find: Callable[[str], Dataset], **options) -> Iterator[Job]:
    """The jobs of a suite that the store does not hold yet, in order. `find` gives a dataset by its name."""
    datasets = {name: find(name) for name in suite.datasets}
    tasks = {}  # by what they use: sizes beyond what a dataset has repeat one another, and the last of them is kept
    for split, size, dataset in product(suite.splits, suite.sizes, datasets.values()):
        task = make_task(dataset, procedure=suite.procedure, size=size, seed=split)
        tasks[dataset.digest, task.folds] = dataset, task
    options |= {"find": find, "keep_weights": suite.keep_weights}
    for setup, seed, (dataset, task) in product(suite.setups, suite.seeds, tasks.values()):
        job = make_job(setup, task, dataset, store, seed=seed, **options)
        if not _learned_from(job) and not store.has(job.run.id):
            yield job


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

    executor: anything like concurrent.futures (processes, Dask, submitit); None runs here. Workers return records,
    the caller alone writes. workers: how many jobs may be under way at once.
    """
    done: list[Run] = []
    under_way: dict[Future, Job] = {}

    def keep(result: Result, job: Job) -> None:
        done.append(_keep(result, job, store))
        if report:
            report(done[-1], job)

    for job in pending(suite, store, find, device=device, threads=threads):
        if executor is None:
            keep(perform(job), job)
            continue
        under_way[executor.submit(perform, job)] = job
        if len(under_way) >= workers:
            _collect(under_way, keep)
    while under_way:
        _collect(under_way, keep)
    return done


def _collect(under_way: dict[Future, Job], keep: Callable[[Result, Job], None]) -> None:
    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
        keep(future.result(), under_way.pop(future))
