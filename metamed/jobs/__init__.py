"""What a worker does: one run, from a job that holds all it needs to a result that holds all that came of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from metamed import machine, training
from metamed.dataset import Dataset, Split
from metamed.errors import MetamedError, NotApplicable
from metamed.measures import evaluate, get_measure
from metamed.methods import Domain, Method, get_method
from metamed.records import Run, Scalar, Setup, Source, Task


@dataclass(frozen=True)
class Job:
    """All that a worker needs for one run, and nothing of the store: it can travel to another process or machine.

    weights: the file of each source. features: frozen features of the whole dataset for each source, where known.
    partner: what the first source learned from, for recipes that learn it beside the target. precision: fp32 or bf16;
    auto takes the faster one. robust: also evaluate on shifted test images (`robustness`).
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
    precision: str = "auto"
    robust: bool = False

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


@dataclass(frozen=True)
class Outcome:
    """What one fold gave: predictions for its validation and its test part, as the kind's measures take them.

    answer: gives a module from images to predictions, for whoever asks about other images. kept: further arrays that
    are kept beside the predictions, one entry along axis 0 for whatever they describe. features: frozen features that
    were not known before.
    """

    validation: np.ndarray
    test: np.ndarray
    answer: Callable
    environment: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    features: dict[str, np.ndarray] = field(default_factory=dict)
    kept: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Way:
    """How runs of one kind of task are made; `WAY` of the module of `metamed.jobs` that is called like the kind.

    run(job, split, progress): trains and predicts one fold. truth(dataset, samples): what the predictions of these
    samples are measured against. pack(prediction): as it is kept, compact. robustness(job, split, outcome): measures on
    shifted test images, None where a kind has none. space, defaults: what training adds to the flows of this kind.
    """

    run: Callable[[Job, Split, Callable | None], Outcome]
    truth: Callable[[Dataset, np.ndarray], np.ndarray]
    pack: Callable[[np.ndarray], np.ndarray]
    robustness: Callable[[Job, Split, Outcome], dict[str, float]] | None = None
    space: dict[str, Domain] = field(default_factory=lambda: training.SPACE)
    defaults: dict[str, Scalar] = field(default_factory=lambda: training.DEFAULTS)


def way_of(kind: str) -> Way:
    """How runs of a kind are made. Raises NotApplicable for a kind that nothing can be trained for."""
    if find_spec(f"metamed.jobs.{kind}") is None:
        raise NotApplicable(f"nothing can be trained for {kind} tasks")
    return import_module(f"metamed.jobs.{kind}").WAY


def perform(job: Job, progress: Callable | None = None) -> Result:
    """Do one job, fold by fold. A failure while training is a result too: a run with its error."""
    import torch

    if job.threads:
        torch.set_num_threads(job.threads)
    device = training.pick_device(job.device)
    meter, environment = machine.Meter(device), machine.environment(device)
    try:
        outcomes, seconds = _outcomes(job, progress), meter.seconds
        evaluations = _evaluations(job, outcomes)
    except (RuntimeError, ValueError, ArithmeticError, MemoryError) as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0][:128]
        return Result(replace(job.run, seconds=meter.seconds, environment=environment | meter.read(), error=text), {})
    for name in outcomes[0].environment:
        environment[name] = " ".join(dict.fromkeys(outcome.environment[name] for outcome in outcomes))
    run = replace(job.run, evaluations=evaluations, seconds=seconds, environment=environment | meter.read())
    features = {key: values for outcome in outcomes for key, values in outcome.features.items()}
    return Result(run, {"predictions.npz": _predictions(job, outcomes)} | outcomes[0].artifacts, features)


def _outcomes(job: Job, progress: Callable | None) -> list[Outcome]:
    """Each fold in turn; frozen features that one fold computed are known to the next."""
    if job.keep_weights and len(job.task.folds) > 1:
        raise MetamedError(f"a run of {len(job.task.folds)} folds has no one model to keep. Keep that of a holdout")
    outcomes: list[Outcome] = []
    for split in job.task.folds:
        outcomes.append(way_of(job.task.kind).run(job, split, progress))
        job = replace(job, features=job.features | outcomes[-1].features)
    return outcomes


def _evaluations(job: Job, outcomes: Sequence[Outcome]) -> dict[str, tuple[float, ...]]:
    """Every measure that is defined on each fold, one value a fold."""
    folds = [_measured(job, *pair) for pair in zip(job.task.folds, outcomes, strict=True)]
    return {name: values for name in folds[0]
            if np.isfinite(values := tuple(fold.get(name, np.nan) for fold in folds)).all()}  # fmt: skip


def _measured(job: Job, split: Split, outcome: Outcome) -> dict[str, float]:
    """Measures on the test part; the task's own on the validation part as `validation_<measure>`, and on shifted test
    images as `<measure>@<shift>` where that was asked for."""
    way, spacing = way_of(job.task.kind), job.dataset.card.spacing
    measure = get_measure(job.task.measure).spaced(spacing)
    validation, test = (way.truth(job.dataset, np.array(part)) for part in (split.validation, split.test))
    values = evaluate(job.task.kind, test, outcome.test, spacing)
    values[f"validation_{measure.name}"] = measure(validation, outcome.validation)
    if job.robust and way.robustness is None:
        raise MetamedError(f"no shifts of images are known for {job.task.kind} tasks. Run without --robust")
    return values | (way.robustness(job, split, outcome) if job.robust else {})


def _predictions(job: Job, outcomes: Sequence[Outcome]) -> bytes:
    """validation, test: the predictions; *_index: the samples that they belong to; *_fold where there are several."""
    pack, file = way_of(job.task.kind).pack, io.BytesIO()
    arrays = {name: np.concatenate([o.kept[name] for o in outcomes]) for name in outcomes[0].kept}
    for part in ("validation", "test"):
        samples = [np.array(getattr(split, part)) for split in job.task.folds]
        arrays[part] = np.concatenate([pack(getattr(outcome, part)) for outcome in outcomes])
        arrays[f"{part}_index"] = np.concatenate(samples)
        if len(outcomes) > 1:
            arrays[f"{part}_fold"] = np.repeat(np.arange(len(samples)), [len(s) for s in samples]).astype(np.int16)
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def is_probe(setup: Setup) -> bool:
    """Is it a quick classifier on frozen features?"""
    return setup.method.startswith("probe.")


def is_frozen(setup: Setup) -> bool:
    """Does it look at its sources' frozen features, which are computed once?"""
    return bool(setup.sources) and setup.recipe is None


def settings_of(setup: Setup, method: Method | None = None) -> tuple[dict[str, Domain], dict[str, Scalar]]:
    """Space and defaults of what training adds to a setup's method: of a probe or another estimator, the size of the
    images alone.

    method: the setup's, where it is known already.
    """
    method = method or get_method(setup.method)
    way = way_of(method.kind)
    names = ["image_size"] if is_probe(setup) or method.estimator else list(way.space)
    return {name: way.space[name] for name in names}, {name: way.defaults[name] for name in names}


def setting_of(setup: Setup) -> dict:
    """What training is told: a setup's values for the names of its training's space, the defaults where it has none."""
    defaults = way_of(get_method(setup.method).kind).defaults
    return defaults | {k: v for k, v in setup.hyperparameters.items() if k in defaults}


def own(setup: Setup, name: str) -> dict:
    """The hyperparameters of a setup that are those of its method or of its recipe."""
    return {k: v for k, v in setup.hyperparameters.items() if k in get_method(name).space}


def side_of(setup: Setup, height: int, width: int) -> int:
    """Pixels per side: what is asked for, but images are enlarged only for networks that come from a source."""
    asked = setting_of(setup)["image_size"]
    return asked if setup.sources else min(asked, max(height, width))


def weights_file(member: str = "") -> str:
    """In which file of a run the weights of its network lie; of an ensemble, those of the one from that source."""
    return f"weights{f'-{member}' if member else ''}.safetensors"
