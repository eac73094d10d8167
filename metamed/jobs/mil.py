"""Runs of multiple instance tasks: networks and estimators of bags, on features, on images, or on frozen features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metamed import training
from metamed.dataset import ArrayImages, Dataset, Split
from metamed.errors import MetamedError, NotApplicable
from metamed.jobs import Job, Outcome, Way, is_frozen, own, setting_of, side_of, weights_file
from metamed.methods import Method, Plan, Shape, get_method
from metamed.records import Setup, Source
from metamed.sources import encode, features_key, load_source
from metamed.training import mil

ESTIMATOR_FILE = "estimator.safetensors"


def run(job: Job, split: Split, progress: Callable | None) -> Outcome:
    """Train and predict one fold; predictions are probabilities (n, K), and instances of test bags are scored."""
    if job.dataset.multi_label:
        raise NotApplicable(f"{job.dataset.name}: bags with several labels each are not learned here")
    method = get_method(job.setup.method)
    bags, new = bags_of(job.setup, job.dataset, job.sources, job.weights, job.features, job.device)
    training.seed_everything(job.seed)
    net = method.build(shape_of(bags.shape, job.dataset.n_classes), **own(job.setup, method.name))
    if method.estimator:
        if len(bags.shape) > 1:
            raise MetamedError(f"{method.name} learns from features, not from images: give it a source that makes them")
        answer, parts, environment = *_fit(net, bags, job.dataset.target, split), {"precision": "fp32"}
        kept = {ESTIMATOR_FILE: mil.arrays_bytes(answer.state())} if job.keep_weights else {}
    else:
        answer, parts, environment = _learn(job, net, method, bags, split, progress)
        kept = {weights_file(): training.weights_bytes(answer)} if job.keep_weights else {}
    return Outcome(*parts, lambda: answer, environment, kept, new, scores_of(answer, bags, np.array(split.test)))


def truth(dataset: Dataset, samples: np.ndarray) -> np.ndarray:
    """The bags' classes, int (n,)."""
    return dataset.target[samples]


def pack(prediction: np.ndarray) -> np.ndarray:
    return prediction.astype(np.float16)


WAY = Way(run, truth, pack, space=mil.SPACE, defaults=mil.DEFAULTS)


def shape_of(instance: tuple[int, ...], n_classes: int) -> Shape:
    """What a network has to fit, for instances of this shape; grey images are repeated to three channels."""
    channels = 3 if len(instance) == 3 and instance[0] == 1 else instance[0]
    return Shape(channels, instance[1:], n_classes)


def bags_of(
    setup: Setup, dataset: Dataset, sources: Sequence[Source], weights: Sequence[Path], known: Mapping[str, np.ndarray],
    device: str,
) -> tuple[mil.Bags, dict[str, np.ndarray]]:  # fmt: skip
    """The bags of a dataset as the setup's method takes them, and frozen features that were not known before.

    Features of several sources stand side by side.
    """
    size, images = setting_of(setup)["image_size"], dataset.images
    if len(images.shape) == 2:
        if sources:
            raise MetamedError(f"{dataset.name} holds features already: a source has no images to look at")
        return mil.Bags.of(dataset), {}
    if not is_frozen(setup):
        return mil.Bags.of(dataset, side_of(setup, *images.shape[2:4])), {}
    paths = {features_key(s, size): (s, path) for s, path in zip(sources, weights, strict=True)}
    new = {key: encode(dataset, *paths[key], size, device) for key in paths if key not in known}
    features = np.concatenate([{**known, **new}[key] for key in paths], axis=1).astype(np.float32)
    return mil.Bags(ArrayImages(features), dataset.bags), new


def _fit(estimator: Any, bags: mil.Bags, y: np.ndarray, split: Split) -> tuple[Any, list[np.ndarray]]:
    """The estimator that learned from training and validation part, and probabilities of validation and test part.

    It has no epochs to choose by the validation part: what answers there learned without it, and then learns anew with
    it to answer the test part.
    """
    train, validation, test = (np.array(part) for part in (split.train, split.validation, split.test))

    def answers(learned: np.ndarray, asked: np.ndarray) -> np.ndarray:
        return np.exp(estimator.fit([bags[i] for i in learned], y[learned]).predict([bags[i] for i in asked]))

    return estimator, [answers(train, validation), answers(np.sort(np.append(train, validation)), test)]


def _learn(
    job: Job, net: Any, method: Method, bags: mil.Bags, split: Split, progress: Callable | None
) -> tuple[mil.BagModel, list[np.ndarray], dict[str, str]]:
    """The trained network, probabilities of validation and test part, and how it was trained."""
    train, validation = np.array(split.train), np.array(split.validation)
    plan, normalise = _plan(job, net, method, bags)
    model, losses, precision = mil.fit(
        plan, bags, job.dataset.target, train, validation, setting=setting_of(job.setup), normalise=normalise,
        seed=job.seed, device=job.device, precision=job.precision, progress=progress,
    )  # fmt: skip
    parts = [training.probabilities(mil.logits_of(model, bags, part)) for part in (validation, np.array(split.test))]
    return model, parts, {"precision": precision, "epochs": str(len(losses))}


def _plan(job: Job, net: Any, method: Method, bags: mil.Bags) -> tuple[Plan, tuple | None]:
    """All weights learn; by a recipe, those that it says of a network that starts from its source."""
    if job.setup.recipe is None:
        return Plan(net, ((list(net.parameters()), 1.0, 0),)), None
    if len(job.sources) != 1:
        raise MetamedError(f"recipe '{job.setup.recipe}' starts from one source, not {len(job.sources)}")
    normalise = load_source(net.encoder, job.sources[0], job.weights[0])
    recipe, shape = get_method(job.setup.recipe), shape_of(bags.shape, job.dataset.n_classes)
    return recipe.build(net, job.setup.sources, shape, **own(job.setup, recipe.name)), normalise


def scores_of(answer: Any, bags: mil.Bags, which: np.ndarray) -> dict[str, np.ndarray]:
    """How much the instances of some bags speak for a finding: `instance`, their places among all, `instance_score`."""
    scores = [mil.instance_scores(answer, bags[i]) for i in which]
    return {"instance": np.concatenate([bags.members(i) for i in which]).astype(np.int32),
            "instance_score": np.clip(np.concatenate(scores), -6e4, 6e4).astype(np.float16)}  # fmt: skip
