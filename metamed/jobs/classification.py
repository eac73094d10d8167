"""Runs of classification tasks: networks from scratch or by a recipe, and probes of frozen features."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from metamed import training
from metamed.dataset import ArrayImages, Dataset, Split
from metamed.ensembles import mixed, weigh
from metamed.errors import MetamedError
from metamed.jobs import Job, Outcome, Way, is_probe, own, setting_of, side_of, weights_file
from metamed.judged import Judged, judged
from metamed.measures import get_measure
from metamed.methods import Believed, Plan, Shape, get_method
from metamed.robustness import SHIFTS, Marked, marks, shifted
from metamed.sources import batch_on, features_of, frozen, load_source
from metamed.training.answers import NetworkAnswer, ProbeAnswer


def run(job: Job, split: Split, progress: Callable | None) -> Outcome:
    """Train and predict one fold; predictions are probabilities (n, K), of each label if multi-label."""
    return _probe(job, split) if is_probe(job.setup) else _train(job, split, progress)


def truth(dataset: Dataset, samples: np.ndarray) -> np.ndarray:
    """The samples' classes, int (n,), or labels, 0/1 (n, K)."""
    return dataset.target[samples]


def pack(prediction: np.ndarray) -> np.ndarray:
    return prediction.astype(np.float16)


def robustness(job: Job, split: Split, outcome: Outcome) -> dict[str, float]:
    """The task's measure on test images with noise, blur and a meaningless mark; and that of the same setup trained
    again where a mark goes with classes, on test images where it does so, is absent, or goes with the others."""
    test = np.array(split.test)
    images = training.load_images(job.dataset.images, test, _side(job))
    shifts = {how: shifted(images, how, seed=job.seed) for how in SHIFTS}
    chosen = marks(job.dataset.target, seed=job.seed)
    marked = replace(job.dataset, images=Marked(job.dataset.images, chosen["confounded"]))
    again = run(replace(job, dataset=marked, features={}, keep_weights=False), split, None)
    with_marks = {how: Marked(ArrayImages(images), which[test])[:] for how, which in chosen.items()}
    right, measure = truth(job.dataset, test), get_measure(job.task.measure)
    batch = batch_on(training.pick_device(job.device))
    return {
        f"{measure.name}@{how}": measure(right, training.logits_of(answer, x, batch))
        for answer, seen in ((outcome.answer(), shifts), (again.answer(), with_marks))
        for how, x in seen.items()
    }


WAY = Way(run, truth, pack, robustness)


def _side(job: Job) -> int:
    return side_of(job.setup, *job.dataset.images.shape[2:4])


def _shape(job: Job, channels: int, side: int) -> Shape:
    return Shape(channels, (side, side), job.dataset.n_classes)


def _train(job: Job, split: Split, progress: Callable | None) -> Outcome:
    """Train a network, from scratch or by a recipe from its source; one from each if there are several."""
    if len(job.sources) > 1:
        return _train_each(job, split, progress)
    images = _images(job, split)
    fitted = _fit(job, split, images, progress)
    kept = {weights_file(): training.weights_bytes(fitted.model)} if job.keep_weights else {}
    environment = {"precision": fitted.precision, "epochs": str(len(fitted.losses))}
    answer = partial(_network_answer, job, [fitted.model])
    return Outcome(*_answers(job, fitted.model, images), answer, environment, kept)


def _train_each(job: Job, split: Split, progress: Callable | None) -> Outcome:
    """One network from every source, and what they say together as weighed on the validation part."""
    recipe = get_method(job.setup.recipe)
    if not recipe.several:
        raise MetamedError(
            f"recipe '{recipe.name}' starts from one source, not {len(job.sources)}. For several: ensemble"
        )
    images, models = _images(job, split), {}
    for source, path in zip(job.sources, job.weights, strict=True):
        one = replace(job.setup, sources=(source.name,))
        fitted = _fit(replace(job, setup=one, sources=(source,), weights=(path,)), split, images, progress)
        models[source.name] = fitted.model
    measure, right = get_measure(job.task.measure), truth(job.dataset, np.array(split.validation))
    how = (recipe.defaults | own(job.setup, recipe.name))["combine"]
    if how == "soup":
        sign = 1 if measure.higher else -1
        model, members = training.soup(models, lambda m: sign * measure(right, _answers(job, m, images)[0]), images[0])
        weights, answers = dict.fromkeys(members, 1 / len(members)), _answers(job, model, images)
        models = {"": model}
    else:
        each = {name: _answers(job, model, images) for name, model in models.items()}
        weights = weigh(how, {name: a[0] for name, a in each.items()}, right, measure)
        answers = [mixed({name: a[part] for name, a in each.items()}, weights) for part in (0, 1)]
    text = " ".join(f"{name}={weight:.4f}" for name, weight in weights.items())
    shares = {name: weights[name] for name in models if name in weights} or {"": 1.0}
    answer = partial(_network_answer, job, [models[name] for name in shares], list(shares.values()))
    kept = {weights_file(name): training.weights_bytes(models[name]) for name in shares} if job.keep_weights else {}
    kept |= {"ensemble.json": json.dumps(shares).encode()} if kept else {}
    return Outcome(*answers, answer, {"precision": fitted.precision, "ensemble": text}, kept)


def _network_answer(job: Job, models: list, weights: Sequence[float] = (1.0,)) -> NetworkAnswer:
    return NetworkAnswer(models, weights, multi_label=job.dataset.multi_label)


def _images(job: Job, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The task's training, validation and test images as the network takes them."""
    parts = (split.train, split.validation, split.test)
    return tuple(training.load_images(job.dataset.images, np.array(i), _side(job)) for i in parts)


def _loss(job: Job) -> str:
    return "multi-label" if job.dataset.multi_label else "classification"


def _answers(job: Job, model, images: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """Probabilities of the validation and the test part."""
    return [training.probabilities(training.logits_of(model, part), _loss(job)) for part in images[1:]]


def _fit(job: Job, split: Split, images: tuple[np.ndarray, ...], progress: Callable | None) -> training.Fitted:
    """A network trained on the first part of the images, the best epoch chosen on the second."""
    x, v, _ = images
    y = job.dataset.target
    training.seed_everything(job.seed)
    shape = _shape(job, 3 if x.shape[1] == 1 else x.shape[1], x.shape[-1])
    net = get_method(job.setup.method).build(shape, **own(job.setup, job.setup.method))
    plan, normalise = plan_of(job, net, shape)
    return training.fit(
        plan,
        x,
        y[list(split.train)],
        (v, y[list(split.validation)]),
        setting=setting_of(job.setup),
        loss=_loss(job),
        normalise=normalise,
        unlabelled=_unlabelled(job, split) if plan.warm_up else None,
        partner=_partner(job, len(x)) if plan.partner else None,
        assessed=_assessed(job, split, plan.assessed.believed) if plan.assessed else None,
        seed=job.seed,
        device=job.device,
        precision=job.precision,
        progress=progress,
    )


UNLABELLED = 1000  # images at the most that a warm-up passes through, so that it costs no more than the training


def _unlabelled(job: Job, split: Split) -> np.ndarray:
    chosen = _some(outside_test(job.dataset, split), UNLABELLED, job.seed)
    return training.load_images(job.dataset.images, chosen, _side(job))


def outside_test(data: Dataset, split: Split) -> np.ndarray:
    """Images that may be looked at without their labels: all but those of the test part and of its groups."""
    test = np.array(split.test)
    allowed = np.setdiff1d(np.arange(len(data.images)), test)
    return allowed if data.groups is None else allowed[~np.isin(data.groups[allowed], data.groups[test])]


def _judged(job: Job, split: Split, believed: Believed) -> Judged:
    """What people said of images outside the test part, where labels of the training part may be known."""
    labels = None
    if not job.dataset.multi_label:
        labels = np.full(job.dataset.n_samples, -1)
        labels[list(split.train)] = job.dataset.target[list(split.train)]
    return judged(job.dataset, outside_test(job.dataset, split), believed, labels)


def _assessed(job: Job, split: Split, believed: Believed) -> tuple[np.ndarray, Judged]:
    said = _judged(job, split, believed)
    return training.load_images(job.dataset.images, said.index, _side(job)), said


def _partner(job: Job, n: int) -> tuple[np.ndarray, np.ndarray] | None:
    """As many labelled images of the partner as training will draw beside `n` of the target's, and their targets."""
    if job.partner is None:
        return None
    chosen = _some(job.partner.labelled, n * setting_of(job.setup)["epochs"], job.seed)
    return training.load_images(job.partner.images, chosen, _side(job)), job.partner.target[chosen]


def _some(indices: np.ndarray, n: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).permutation(indices)[:n])


def plan_of(job: Job, net, shape: Shape) -> tuple[Plan, tuple | None]:
    """The recipe's plan for a network that holds its source's weights, and the source's pixel normalisation."""
    if job.setup.recipe is None:
        return Plan(net, ((list(net.parameters()), 1.0, 0),)), None
    recipe = get_method(job.setup.recipe)
    if not job.sources and not recipe.assessed:
        raise MetamedError(f"recipe '{job.setup.recipe}' needs a source to start from")
    normalise = load_source(net.encoder, job.sources[0], job.weights[0]) if job.sources else None
    return recipe.build(net, job.setup.sources, shape, **own(job.setup, recipe.name)), normalise


def _probe(job: Job, split: Split) -> Outcome:
    """Fit a quick classifier on frozen features; those of several sources stand side by side."""
    from metamed.flows.heads import head_of

    if not job.sources:
        raise MetamedError(f"{job.setup.method} needs a source whose features it probes")
    size = setting_of(job.setup)["image_size"]
    x, new = features_of(job.dataset, job.sources, job.weights, size, job.features, job.device)
    y = job.dataset.target
    training.seed_everything(job.seed)
    probe = get_method(job.setup.method).build(_shape(job, x.shape[1], size), **own(job.setup, job.setup.method))
    if get_method(job.setup.method).assessed:
        said = _judged(job, split, probe.believed)
        probe.assessed(x[said.index], said)
    probe.fit(x[list(split.train)], y[list(split.train)], None)
    answers = [np.exp(probe.predict(x[list(part)])) for part in (split.validation, split.test)]
    kept = {"probe.safetensors": training.weights_bytes(head_of(probe))} if job.keep_weights else {}
    return Outcome(*answers, lambda: _probe_answer(job, head_of(probe)), {"precision": "fp32"}, kept, new)


def _probe_answer(job: Job, head) -> ProbeAnswer:
    channels, size = job.dataset.images.shape[1], setting_of(job.setup)["image_size"]
    encoders = [frozen(s, p, channels, size, job.device) for s, p in zip(job.sources, job.weights, strict=True)]
    return ProbeAnswer(encoders, head.to(training.pick_device(job.device)))
