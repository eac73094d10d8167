"""What a worker does: one run, from a job that holds all it needs to a result that holds all that came of it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from metamed import machine, training
from metamed.dataset import Dataset
from metamed.ensembles import mixed, weigh
from metamed.errors import MetamedError
from metamed.measures import evaluate, get_measure
from metamed.methods import Plan, Shape, get_method
from metamed.records import Run, Setup, Source, Task
from metamed.robustness import SHIFTS, shifted
from metamed.sources import encode, features_key, frozen, load_source
from metamed.training.answers import NetworkAnswer, ProbeAnswer


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


def perform(job: Job, progress: Callable | None = None) -> Result:
    """Do one job. A failure while training is a result too: a run with its error."""
    import torch

    if job.threads:
        torch.set_num_threads(job.threads)
    device = training.pick_device(job.device)
    meter, environment = machine.Meter(device), machine.environment(device)
    try:
        outcome = (_probe if is_probe(job.setup) else _train)(job, progress)
        seconds = meter.seconds
        evaluations = _evaluations(job, outcome)
    except (RuntimeError, ValueError, ArithmeticError, MemoryError) as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0][:128]
        return Result(replace(job.run, seconds=meter.seconds, environment=environment | meter.read(), error=text), {})
    environment |= outcome.environment | meter.read()
    run = replace(job.run, evaluations=evaluations, seconds=seconds, environment=environment)
    return Result(run, {"predictions.npz": _predictions(job, outcome)} | outcome.artifacts, outcome.features)


@dataclass(frozen=True)
class _Outcome:
    """Predicted probabilities of the validation and the test part, with what came along.

    answer: gives a module from images to such probabilities, for whoever asks about other images.
    """

    validation: np.ndarray
    test: np.ndarray
    answer: Callable
    environment: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    features: dict[str, np.ndarray] = field(default_factory=dict)


def _evaluations(job: Job, outcome: _Outcome) -> dict[str, tuple[float, ...]]:
    """Every measure on the test part; the task's own on the validation part as `validation_<measure>`, and on shifted
    test images as `<measure>@<shift>` where that was asked for."""
    split, target = job.task.folds[0], job.dataset.target
    values = evaluate(job.task.kind, target[list(split.test)], outcome.test)
    chosen = get_measure(job.task.measure)(target[list(split.validation)], outcome.validation)
    values[f"validation_{job.task.measure}"] = chosen
    values |= _robustness(job, outcome.answer()) if job.robust else {}
    return {name: (value,) for name, value in values.items() if np.isfinite(value)}


def _robustness(job: Job, answer) -> dict[str, float]:
    """The task's measure on test images with noise, blur and a meaningless mark."""
    test = np.array(job.task.folds[0].test)
    images = training.load_images(job.dataset.images, test, _side(job))
    truth, measure = job.dataset.target[test], get_measure(job.task.measure)
    answers = {how: training.logits_of(answer, shifted(images, how, seed=job.seed)) for how in SHIFTS}
    return {f"{measure.name}@{how}": measure(truth, said) for how, said in answers.items()}


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


def is_probe(setup: Setup) -> bool:
    """Is it a quick classifier on frozen features?"""
    return setup.method.startswith("probe.")


def setting_of(setup: Setup) -> dict:
    """What training is told: a setup's values for the names of `training.SPACE`, its defaults where it has none."""
    return training.DEFAULTS | {k: v for k, v in setup.hyperparameters.items() if k in training.SPACE}


def own(setup: Setup, name: str) -> dict:
    """The hyperparameters of a setup that are those of its method or of its recipe."""
    return {k: v for k, v in setup.hyperparameters.items() if k in get_method(name).space}


def side_of(setup: Setup, height: int, width: int) -> int:
    """Pixels per side: what is asked for, but images are enlarged only for networks that come from a source."""
    asked = setting_of(setup)["image_size"]
    return asked if setup.sources else min(asked, max(height, width))


def _side(job: Job) -> int:
    return side_of(job.setup, *job.dataset.images.shape[2:4])


def _shape(job: Job, channels: int, side: int) -> Shape:
    return Shape(channels, (side, side), job.dataset.n_classes)


def _train(job: Job, progress: Callable | None) -> _Outcome:
    """Train a network, from scratch or by a recipe from its source; one from each if there are several."""
    if len(job.sources) > 1:
        return _train_each(job, progress)
    images = _images(job)
    fitted = _fit(job, images, progress)
    kept = {weights_file(): training.weights_bytes(fitted.model)} if job.keep_weights else {}
    environment = {"precision": fitted.precision, "epochs": str(len(fitted.losses))}
    answer = partial(_network_answer, job, [fitted.model])
    return _Outcome(*_answers(job, fitted.model, images), answer, environment, kept)


def _train_each(job: Job, progress: Callable | None) -> _Outcome:
    """One network from every source, and what they say together as weighed on the validation part."""
    recipe = get_method(job.setup.recipe)
    if not recipe.several:
        raise MetamedError(
            f"recipe '{recipe.name}' starts from one source, not {len(job.sources)}. For several: ensemble"
        )
    images, models = _images(job), {}
    for source, path in zip(job.sources, job.weights, strict=True):
        one = replace(job.setup, sources=(source.name,))
        fitted = _fit(replace(job, setup=one, sources=(source,), weights=(path,)), images, progress)
        models[source.name] = fitted.model
    truth, measure = job.dataset.target[list(job.task.folds[0].validation)], get_measure(job.task.measure)
    how = (recipe.defaults | own(job.setup, recipe.name))["combine"]
    if how == "soup":
        sign = 1 if measure.higher else -1
        model, members = training.soup(models, lambda m: sign * measure(truth, _answers(job, m, images)[0]), images[0])
        weights, answers = dict.fromkeys(members, 1 / len(members)), _answers(job, model, images)
        models = {"": model}
    else:
        each = {name: _answers(job, model, images) for name, model in models.items()}
        weights = weigh(how, {name: a[0] for name, a in each.items()}, truth, measure)
        answers = [mixed({name: a[part] for name, a in each.items()}, weights) for part in (0, 1)]
    text = " ".join(f"{name}={weight:.4f}" for name, weight in weights.items())
    shares = {name: weights[name] for name in models if name in weights} or {"": 1.0}
    answer = partial(_network_answer, job, [models[name] for name in shares], list(shares.values()))
    kept = {weights_file(name): training.weights_bytes(models[name]) for name in shares} if job.keep_weights else {}
    kept |= {"ensemble.json": json.dumps(shares).encode()} if kept else {}
    return _Outcome(*answers, answer, {"precision": fitted.precision, "ensemble": text}, kept)


def weights_file(member: str = "") -> str:
    """In which file of a run the weights of its network lie; of an ensemble, those of the one from that source."""
    return f"weights{f'-{member}' if member else ''}.safetensors"


def _network_answer(job: Job, models: list, weights: Sequence[float] = (1.0,)) -> NetworkAnswer:
    return NetworkAnswer(models, weights, multi_label=job.dataset.multi_label)


def _images(job: Job) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The task's training, validation and test images as the network takes them."""
    split = job.task.folds[0]
    parts = (split.train, split.validation, split.test)
    return tuple(training.load_images(job.dataset.images, np.array(i), _side(job)) for i in parts)


def _loss(job: Job) -> str:
    return "multi-label" if job.dataset.multi_label else "classification"


def _answers(job: Job, model, images: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """Probabilities of the validation and the test part."""
    return [training.probabilities(training.logits_of(model, part), _loss(job)) for part in images[1:]]


def _fit(job: Job, images: tuple[np.ndarray, ...], progress: Callable | None) -> training.Fitted:
    """A network trained on the first part of the images, the best epoch chosen on the second."""
    x, v, _ = images
    split, y = job.task.folds[0], job.dataset.target
    training.seed_everything(job.seed)
    shape = _shape(job, 3 if x.shape[1] == 1 else x.shape[1], x.shape[-1])
    net = get_method(job.setup.method).build(shape, **own(job.setup, job.setup.method))
    plan, normalise = _plan(job, net, shape)
    return training.fit(
        plan,
        x,
        y[list(split.train)],
        (v, y[list(split.validation)]),
        setting=setting_of(job.setup),
        loss=_loss(job),
        normalise=normalise,
        unlabelled=_unlabelled(job) if plan.warm_up else None,
        partner=_partner(job, len(x)) if plan.partner else None,
        seed=job.seed,
        device=job.device,
        precision=job.precision,
        progress=progress,
    )


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
    chosen = _some(job.partner.labelled, n * setting_of(job.setup)["epochs"], job.seed)
    return training.load_images(job.partner.images, chosen, _side(job)), job.partner.target[chosen]


def _some(indices: np.ndarray, n: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).permutation(indices)[:n])


def _plan(job: Job, net, shape: Shape):
    """The recipe's plan for a network that holds its source's weights, and the source's pixel normalisation."""
    if job.setup.recipe is None:
        return Plan(net, ((list(net.parameters()), 1.0, 0),)), None
    if not job.sources:
        raise MetamedError(f"recipe '{job.setup.recipe}' needs a source to start from")
    mean, sd = load_source(net.encoder, job.sources[0], job.weights[0])
    recipe = get_method(job.setup.recipe)
    return recipe.build(net, job.setup.sources, shape, **own(job.setup, recipe.name)), (mean, sd)


def _probe(job: Job, progress: Callable | None) -> _Outcome:
    """Fit a quick classifier on frozen features; those of several sources stand side by side."""
    from metamed.flows.heads import head_of

    if not job.sources:
        raise MetamedError(f"{job.setup.method} needs a source whose features it probes")
    known = dict(job.features)
    size = setting_of(job.setup)["image_size"]
    for source, path in zip(job.sources, job.weights, strict=True):
        key = features_key(source, size)
        if key not in known:
            known[key] = encode(job.dataset, source, path, size, job.device)
    x = np.concatenate([known[features_key(s, size)] for s in job.sources], axis=1).astype(np.float32)
    split, y = job.task.folds[0], job.dataset.target
    training.seed_everything(job.seed)
    probe = get_method(job.setup.method).build(_shape(job, x.shape[1], size), **own(job.setup, job.setup.method))
    probe.fit(x[list(split.train)], y[list(split.train)], None)
    answers = [np.exp(probe.predict(x[list(part)])) for part in (split.validation, split.test)]
    new = {k: v for k, v in known.items() if k not in job.features}
    kept = {"probe.safetensors": training.weights_bytes(head_of(probe))} if job.keep_weights else {}
    return _Outcome(*answers, lambda: _probe_answer(job, head_of(probe)), {"precision": "fp32"}, kept, new)


def _probe_answer(job: Job, head) -> ProbeAnswer:
    channels, size = job.dataset.images.shape[1], setting_of(job.setup)["image_size"]
    encoders = [frozen(s, p, channels, size, job.device) for s, p in zip(job.sources, job.weights, strict=True)]
    return ProbeAnswer(encoders, head.to(training.pick_device(job.device)))
