"""The commands that train, predict with what was trained, and hand it on."""

import os
from pathlib import Path
from typing import Any

from metamed.cli import given
from metamed.cli import options as o
from metamed.cli.options import Common, option
from metamed.errors import MetamedError

FROM = option(str | None, "--from", "Make this stored run again, exactly, and compare.", show_default=False)
FILE = option(str | None, "--dataset", "File or folder with the images.", show_default=False)
KEEP = option(bool, "--keep", "Keep the weights: `predict`, `export` and --as-source need them.")
ROBUST = option(bool, "--robust", "Also evaluate with noise, blur, marks; learns once more, a mark with classes.")
EXECUTOR = option(str, "--executor", "local | dask:ADDRESS | slurm[:OPTION=VALUE,...]: where the runs are made.")
RUN = option(str, "--run", "Id of a run whose weights were kept, or its first 8 digits.", show_default=False)
TRIALS = option(int, "--trials", "Trials in all, those of earlier calls included.", min=1)
STARTS = option(int, "--top", "Recommended setups that the search is made of and starts from.", min=1)
FROM_SCRATCH = option(bool, "--from-scratch", "The same search without trying the recommended setups first.")
TABLE = option(Path | None, "--to", "Write the table to this file instead of stdout.")
INSTANCES = option(Path | None, "--instances", "Of bags: write the score of each instance to this file.")
MODEL = option(Path, "--to", "model.onnx or model.safetensors.", show_default=False)
INPUT = option(str, "--input", "What the ONNX model takes: uint8 images, or float ones in 0-1.")


def run(
    common: Common, dataset: FILE = None, rank: o.RANK = None, from_: FROM = None, method: o.METHOD = None,
    set: o.SET = None, source: o.SOURCE = None, recipe: o.RECIPE = None, as_source: o.AS_SOURCE = None,
    keep: KEEP = False, robust: ROBUST = False, device: o.DEVICE = None, images: o.IMAGES = None,
    labels: o.LABELS = None, group: o.GROUP = None, kind: o.KIND = None, download: o.DOWNLOAD = False,
):  # fmt: skip
    """Train and evaluate one setup on a dataset, and keep the run in the store."""
    if sum(choice is not None for choice in (rank, from_, method)) != 1:
        raise MetamedError("say what to run: --rank N, as `metamed recommend` ranks, --from RUN, or --method NAME")
    if download:
        common.need_network("--download")
    options: dict[str, Any] = {"download": download, "robust": robust, "keep_weights": keep or as_source is not None,
                               "progress": common.progress, "find": given.at_hand}  # fmt: skip
    options |= {"device": device} if device else {}
    keys = (images, labels, group, kind)
    if from_:
        done = _again(common, from_, dataset, keys, options)
    else:
        if dataset is None:
            raise MetamedError("--dataset FILE is missing: what to train on")
        chosen = method and _setup(method, set or [], source or [], recipe)
        done = _new(common, given.read(dataset, *keys), chosen, rank, options)
    if as_source:
        from metamed.sources import as_source as name_it

        common.say(f"kept as source {name_it(done, as_source, common.own()).name}")


def _setup(method: str, settings: list, sources: list, recipe: str | None):
    from metamed.records import Setup

    return Setup(method, dict(map(given.setting, settings)), recipe, tuple(sources))


def _new(common: Common, data, setup, rank: int | None, options: dict):
    """Run a setup, or the one that is ranked there; then the result beside what was predicted."""
    from metamed.experiments import make_task, run_setup

    mine = common.own()
    if rank:
        setup, candidate, protocol = _ranked(data, common, rank)
    given.bring_sources([setup], common, mine)
    done = run_setup(setup, make_task(data), data, mine, seed=common.seed, **options)
    _show(done, setup)
    if rank:
        print(beside(done, candidate, mine.get(done.task).measure, protocol))
    return done


def _ranked(data, common: Common, rank: int) -> tuple:
    from metamed.recommend import recommend

    answer = recommend(data, common.evidence(), top=rank, seed=common.seed)
    if len(answer.ranking) < rank:
        raise MetamedError(f"--rank {rank}: only {len(answer.ranking)} setups are ranked")
    candidate = answer.ranking[rank - 1]
    return candidate.setup, candidate, answer.explanation.get("procedure", "")


def beside(done, candidate, measure: str, protocol: str) -> str:
    """How a result compares with the score and the interval that were predicted, in one line."""
    score = done.score(measure)
    if candidate.score != candidate.score:
        return f"predicted: an order, but no {measure}; the run reached {score:.3f}"
    where = "inside" if candidate.low <= score <= candidate.high else "outside"
    return (f"predicted {measure} {candidate.score:.3f} ({candidate.low:.3f} to {candidate.high:.3f}; {protocol}): the "
            f"run reached {score:.3f}, {score - candidate.score:+.3f}, {where} the interval")  # fmt: skip


def _again(common: Common, id: str, dataset: str | None, keys: tuple, options: dict):
    """Make a stored run again and say whether it came out the same."""
    from metamed.experiments import repeat, run_of

    evidence, mine = common.evidence(), common.own()
    before = run_of(id, evidence)
    setup, name = evidence.get(before.setup), evidence.get(before.task).dataset
    folder = os.environ.get("METAMED_DATA")
    if dataset is None and not folder:
        raise MetamedError(f"run {id} was made on {name}: give it with --dataset FILE, or its folder in METAMED_DATA")
    data = given.read(dataset or str(given.in_folder(name, Path(folder))), *keys)
    given.bring_sources([setup], common, mine)
    found = repeat(before, data, mine, evidence, **options)
    _show(found.again, setup)
    for note in found.notes:
        print(f"note: {note}")
    if found.differences:
        for measure, (then, now) in found.differences.items():
            print(f"{measure}: {now:.6f}, stored {then:.6f}: differs by {now - then:+.6f}")
    elif not before.error:
        print(f"equal to the stored run {before.id[:12]} in all {len(before.evaluations)} scores")
    return found.again


def _show(done, setup) -> None:
    if done.error:
        raise MetamedError(f"{setup.label} failed: {done.error} (kept in the store as run {done.id[:12]})")
    print(f"run {done.id[:12]}  {setup.label}  {done.seconds:.0f} s")
    print(given.columns([(name, f"{done.score(name):.4f}") for name in done.evaluations]))


# ---- suites


def bench_run(
    common: Common, suite: str, data: o.DATA, device: o.DEVICE = None, workers: o.WORKERS = 1,
    executor: EXECUTOR = "local",
):  # fmt: skip
    """Run what is missing of a suite, by name or from a file; a run that is stored is skipped."""
    from metamed.executors import executor_at
    from metamed.experiments import run_suite

    def tell(done, job) -> None:
        score = done.error or f"{job.task.measure} {done.score(job.task.measure):.3f}"
        common.say(f"{job.task.dataset}  {job.setup.label}  seed {done.seed}: {score}")

    chosen, find, mine = given.suite(suite, data, common)
    with executor_at(executor, workers, mine.path.with_name(mine.path.name + ".slurm")) as (place, at_once):
        threads = None if place is None else 1
        done = run_suite(chosen, mine, find, device=device or "auto", executor=place, workers=at_once, threads=threads,
                         report=tell)  # fmt: skip
    print(f"{chosen.name}: {len(done)} new runs, {sum(r.error is not None for r in done)} of them failed")


def bench_status(common: Common, suite: str, data: o.DATA):
    """Say how many runs of a suite are stored and how many are missing."""
    from metamed.experiments import planned

    chosen, find, mine = given.suite(suite, data, common)
    stored = [mine.has(job.run.id) for job in planned(chosen, mine, find)]
    print(f"{chosen.name}: {sum(stored)} of {len(stored)} runs stored, {len(stored) - sum(stored)} missing")


def tune(
    common: Common, dataset: o.DATASET, trials: TRIALS = 30, top: STARTS = 3, from_scratch: FROM_SCRATCH = False,
    device: o.DEVICE = None, images: o.IMAGES = None, labels: o.LABELS = None, group: o.GROUP = None,
    kind: o.KIND = None,
):  # fmt: skip
    """Search for better settings, beginning with the recommended setups; called again, it goes on where it stopped."""
    from metamed.tuning import tune as search

    def tell(trial) -> None:
        score = trial.state if trial.score is None else f"{trial.score:.4f}"
        common.say(f"trial {trial.number}: validation {score}  {trial.setup}")

    data, mine = given.read(dataset, images, labels, group, kind), common.own()
    options = {"evidence": common.evidence(), "seed": common.seed, "device": device or "auto"}
    found = search(data, mine, trials=trials, top=top, from_scratch=from_scratch, report=tell, **options)
    ended = [trial.state for trial in found.trials]
    states = ", ".join(f"{ended.count(state)} {state}" for state in dict.fromkeys(ended))
    measure = found.task.measure
    print(f"{len(ended)} trials ({states}) in {mine.path}.tuning; best by validation {measure}:")
    _show(found.run, found.setup)


# ---- what was trained


def predict(
    common: Common, run: RUN, dataset: o.DATASET, to: TABLE = None, instances: INSTANCES = None,
    device: o.DEVICE = None, images: o.IMAGES = None, download: o.DOWNLOAD = False,
):  # fmt: skip
    """Say of new images, or bags, what a kept run makes of them: a table (CSV) of class probabilities and predicted
    classes; of a run that segments each class's share of the pixels, or the masks (--to masks.npz); of one that
    learned from triplets coordinates."""
    from metamed.embedding_prediction import EmbeddingPredictor
    from metamed.experiments import run_of
    from metamed.prediction import Predictor

    if download:
        common.need_network("--download")
    evidence, options = common.evidence(), {"device": device or "auto", "download": download}
    kind = evidence.get(run_of(run, evidence).task).kind
    if kind == "mil":
        _predict_bags(common, run, given.read(dataset, images), to, instances, evidence, options)
        return
    if instances:
        raise MetamedError(f"--instances: run {run} did not learn from bags")
    if kind == "segmentation":
        _predict_masks(common, run, given.read(dataset, images), to, evidence, options)
        return
    predictor = (EmbeddingPredictor if kind == "similarity" else Predictor).of(run, evidence, **options)
    data = given.read(dataset, images)
    answers = predictor(data.images)
    if remark := predictor.remark(data.images):
        common.say(remark)
    _write(predictor.as_csv(answers), to, f"{len(answers)} predictions", common)


def _predict_bags(common: Common, run: str, data, to: Path | None, instances: Path | None, evidence, options) -> None:
    from metamed.bag_prediction import BagPredictor, instances_as_csv

    predictor = BagPredictor.of(run, evidence, **options)
    answers, scores = predictor(data)
    _write(predictor.as_csv(answers), to, f"predictions for {len(answers)} bags", common)
    if instances:
        _write(instances_as_csv(data, scores), instances, f"scores of {len(scores)} instances", common)


def _predict_masks(common: Common, run: str, data, to: Path | None, evidence, options) -> None:
    from metamed.mask_prediction import MaskPredictor

    predictor = MaskPredictor.of(run, evidence, **options)
    masks = predictor(data.images)
    if remark := predictor.remark(data.images):
        common.say(remark)
    if to and to.suffix != ".csv":
        predictor.write(masks, to)
        common.say(f"{len(masks)} masks written to {to}")
        return
    _write(predictor.as_csv(masks), to, f"areas in {len(masks)} masks", common)


def _write(table: str, to: Path | None, what: str, common: Common) -> None:
    if to:
        to.write_text(table, encoding="utf-8")
        common.say(f"{what} written to {to}")
    else:
        print(table, end="")


def export(common: Common, run: RUN, to: MODEL, input: INPUT = "uint8"):
    """Write the model of a kept run to a file for other programs, preprocessing included."""
    from metamed.bag_prediction import BagPredictor
    from metamed.experiments import run_of
    from metamed.mask_prediction import MaskPredictor
    from metamed.prediction import Predictor

    evidence = common.evidence()
    kind = evidence.get(run_of(run, evidence).task).kind
    predictor = {"segmentation": MaskPredictor, "mil": BagPredictor}.get(kind, Predictor).of(run, evidence)
    predictor.export(to, input)
    classes = ", ".join(predictor.classes)
    if kind == "mil":
        bags = f"bags n x instances x {' x '.join(map(str, predictor.instance))}"
        common.say(f"{to}: {bags} and their mask -> probabilities of {classes}, and scores of the instances")
        return
    size = f"{predictor.facts.n_channels} x {predictor.side} x {predictor.side}"
    common.say(f"{to}: images n x {size} -> probabilities of {classes}")
