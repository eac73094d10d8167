"""Runs of segmentation tasks: whole images or patches of them, from scratch or from a source's encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from metamed import training
from metamed.dataset import Dataset, Split
from metamed.errors import NotApplicable
from metamed.jobs import Job, Outcome, Way, own, setting_of, side_of, weights_file
from metamed.measures import get_measure
from metamed.measures.masks import sides_of
from metamed.methods import Plan, Shape, get_method
from metamed.robustness import SHIFTS, shifted
from metamed.sources import load_source
from metamed.training import segmentation
from metamed.training.images import load_masks, native_images, native_masks
from metamed.training.tiles import MaskAnswer, segment


def run(job: Job, split: Split, progress: Callable | None) -> Outcome:
    """Train and predict one fold; predictions are classes of pixels, uint8 (n, H, W), at the images' own size."""
    if len(job.dataset.images.shape) != 4:
        found = tuple(job.dataset.images.shape[1:])
        raise NotApplicable(f"{job.dataset.name}: images are {found}; volumes are segmented slice by slice. "
                            "`metamed.readers.volumes.slices` makes slices of them")  # fmt: skip
    setting, side = setting_of(job.setup), _side(job)
    parts = [_pair(job.dataset, part, side, setting["view"]) for part in (split.train, split.validation)]
    training.seed_everything(job.seed)
    channels = parts[0][0].shape[1]
    shape = Shape(3 if channels == 1 else channels, (side, side), job.dataset.n_classes)
    plan, normalise = _plan(job, shape)
    fitted = segmentation.fit(
        plan, *parts, setting=setting, side=side, n_classes=shape.n_classes, normalise=normalise, seed=job.seed,
        device=job.device, precision=job.precision, progress=progress,
    )  # fmt: skip
    answer = MaskAnswer(fitted.model, setting["test_flips"]).eval()
    said = [segment(answer, job.dataset.images, part, side, setting["view"]) for part in (split.validation, split.test)]
    kept = {weights_file(): training.weights_bytes(fitted.model)} if job.keep_weights else {}
    environment = {"precision": fitted.precision, "epochs": str(len(fitted.losses)), "distances": _unit(job.dataset)}
    return Outcome(*said, lambda: answer, environment, kept)


def truth(dataset: Dataset, samples: np.ndarray) -> np.ndarray:
    """The samples' masks, int (n, H, W)."""
    return native_masks(dataset.masks, samples)


def pack(prediction: np.ndarray) -> np.ndarray:
    """Classes in a byte a pixel: masks are mostly flat, and compress to little."""
    return prediction.astype(np.uint8)


def robustness(job: Job, split: Split, outcome: Outcome) -> dict[str, float]:
    """The task's measure on test images, at the size that is trained on, with noise, blur and a meaningless mark."""
    test, side, shape = np.array(split.test), _side(job), job.dataset.images.shape[2:]
    widths = np.array(sides_of(job.dataset.card.spacing, 2) or (1, 1)) * shape / side  # of the smaller image's pixels
    measure = get_measure(job.task.measure).spaced(widths)
    images, masks = _pair(job.dataset, split.test, side, "whole")
    answers = {how: training.logits_of(outcome.answer(), shifted(images, how, seed=job.seed)) for how in SHIFTS}
    return {f"{measure.name}@{how}": measure(masks, p.argmax(axis=1)) for how, p in answers.items() if len(test)}


def _unit(dataset: Dataset) -> str:
    """What distances of outlines are measured in."""
    widths = sides_of(dataset.card.spacing, 2)
    return "mm, pixels of " + " x ".join(f"{width:g}" for width in widths) if widths else "pixels"


WAY = Way(run, truth, pack, robustness, segmentation.SPACE, segmentation.DEFAULTS)


def _side(job: Job) -> int:
    return side_of(job.setup, *job.dataset.images.shape[2:4])


def _pair(dataset: Dataset, samples: Sequence[int], side: int, view: str) -> segmentation.Pair:
    """Images and masks of these samples: of `side` pixels, or as they are for patches of that size."""
    index = np.array(samples)
    if view == "whole":
        return training.load_images(dataset.images, index, side), load_masks(dataset.masks, index, side)
    images, masks = native_images(dataset.images, index), native_masks(dataset.masks, index).astype(np.uint8)
    return segmentation.padded(images, side), segmentation.padded(masks, side)


def _plan(job: Job, shape: Shape) -> tuple[Plan, tuple | None]:
    """The network with the plan by which it learns, and the pixel normalisation of the source that it sees with."""
    setup = job.setup
    net = get_method(setup.method).build(shape, **own(setup, setup.method))
    if setup.recipe is None:
        return Plan(net, ((list(net.parameters()), 1.0, 0),)), None
    if len(job.sources) != 1 or not hasattr(net, "encoder"):
        what = f"{setup.method} has no encoder" if job.sources else "no source was named"
        what = f"{len(job.sources)} sources were named" if len(job.sources) > 1 else what
        raise NotApplicable(f"recipe '{setup.recipe}' gives one source's weights to a segmenter's encoder; {what}. "
                            "Try --method unet_encoder with one --source")  # fmt: skip
    normalise = load_source(net.encoder, job.sources[0], job.weights[0])
    recipe = get_method(setup.recipe)
    plan = recipe.build(net, setup.sources, shape, **own(setup, recipe.name))
    if any(getattr(plan, more, None) is not None for more in ("warm_up", "partner", "assessed")):
        raise NotApplicable(f"recipe '{recipe.name}' learns more than a target's masks, which is known for "
                            "classification alone. Take finetune, freeze, gradual or discriminative")  # fmt: skip
    return plan, normalise
