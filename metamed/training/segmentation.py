"""How segmenters are trained: losses of pixels, whole images or patches of them, and the ways of the one loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from metamed import training
from metamed.methods import Choice, Plan, parameters
from metamed.training.images import augmented
from metamed.training.loop import learn, release, set_training
from metamed.training.precision import choose_precision, pick_device
from metamed.training.weights import Model

FOCUS = 2.0  # exponent of the focal loss
MISSED = 0.7  # what a missed pixel weighs in the Tversky loss, a false one 1 - MISSED
ON_FOREGROUND = 1 / 3  # of patches, those that lie around a pixel of the foreground (Isensee et al., 2021)


def settings(
    *,
    loss: Annotated[str, Choice("ce+dice", "ce", "dice", "focal", "tversky")] = "ce+dice",
    class_weights: Annotated[str, Choice("none", "balanced")] = "none",
    view: Annotated[str, Choice("whole", "patch")] = "whole",
    test_flips: Annotated[bool, Choice(False, True)] = False,
):
    """What training adds to segmenters beside what it adds to all.

    loss: cross-entropy and soft Dice, one of them, focal (Lin et al., 2017) or Tversky (Salehi et al., 2017).
    class_weights: balanced weighs each class by one over the root of its share of the pixels.
    view: whole images, resized to image_size, or patches of so many pixels a side at the images' own resolution.
    test_flips: average the answers to an image and to its mirror image.
    """


_OWN, _OWN_DEFAULTS = parameters(settings)
SPACE = training.SPACE | _OWN
DEFAULTS = training.DEFAULTS | {"batch_size": 8} | _OWN_DEFAULTS  # few images, each with many pixels


# ---- losses: logits B x K x H x W, classes B x H x W, a weight for each class -> a number


def cross_entropy(logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, target, weights)


def focal(logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Cross-entropy that counts a pixel the less the surer its true class is."""
    log_p = F.log_softmax(logits, 1).gather(1, target[:, None])[:, 0]
    scale = weights[target]
    return (scale * (1 - log_p.exp()) ** FOCUS * -log_p).sum() / scale.sum()


def tversky(
    logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor, missed: float = MISSED
) -> torch.Tensor:
    """One minus common over common plus weighed errors, of probabilities, over the batch; mean over the foreground."""
    p, true = logits.softmax(1), F.one_hot(target, logits.shape[1]).movedim(-1, 1)
    hit, said, there = (v.sum((0, 2, 3)) for v in (p * true, p, true))
    share = (hit + 1) / (hit + missed * (there - hit) + (1 - missed) * (said - hit) + 1)
    counts = weights.clone()
    counts[0] = 0
    return ((1 - share) * counts).sum() / counts.sum()


def dice(logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """One minus soft Dice (Milletari et al., 2016): Tversky with both errors weighed alike."""
    return tversky(logits, target, weights, 0.5)


LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "ce+dice": lambda *of: cross_entropy(*of) + dice(*of),
    "ce": cross_entropy,
    "dice": dice,
    "focal": focal,
    "tversky": tversky,
}


def weights_of(masks: np.ndarray, n_classes: int, how: str) -> torch.Tensor:
    """A weight for each class, mean 1; classes that never occur weigh as much as the rarest that does."""
    if how == "none":
        return torch.ones(n_classes)
    share = np.bincount(masks.ravel(), minlength=n_classes) / masks.size
    weights = 1 / np.sqrt(np.maximum(share, share[share > 0].min()))
    return torch.from_numpy((weights / weights.mean()).astype(np.float32))


# ---- patches


def padded(images: np.ndarray, side: int) -> np.ndarray:
    """Images (..., H, W) of at least `side` pixels a side, their edges repeated where they were smaller."""
    short = [max(side - size, 0) for size in images.shape[-2:]]
    widths = [(0, 0)] * (images.ndim - 2) + [(less // 2, less - less // 2) for less in short]
    return np.pad(images, widths, mode="edge") if any(short) else images


def cut(
    images: torch.Tensor, masks: torch.Tensor, side: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """From each image and its mask the same random patch; a third of them around a random pixel of the foreground."""
    patches = []
    for image, mask in zip(images, masks, strict=True):
        room = torch.tensor(mask.shape) - side
        place = (torch.rand(2, generator=generator) * (room + 1)).long()
        if torch.rand((), generator=generator) < ON_FOREGROUND and len(there := mask.flatten().nonzero()):
            pixel = int(there[int(torch.rand((), generator=generator) * len(there))])
            centre = torch.tensor(divmod(pixel, mask.shape[1])) - side // 2
            place = torch.minimum(centre.clamp_min(0), room)
        rows, columns = (slice(int(start), int(start) + side) for start in place)
        patches.append((image[:, rows, columns], mask[rows, columns]))
    return tuple(torch.stack(part) for part in zip(*patches, strict=True))


# ---- training


Pair = tuple[np.ndarray, np.ndarray]  # images (n, C, H, W), uint8 or float in 0-1, and their masks (n, H, W), uint8


def fit(
    plan: Plan,
    known: Pair,
    validation: Pair,
    *,
    setting: dict,
    side: int,
    n_classes: int,
    normalise: tuple | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    progress: Callable[[int, int, float], None] | None = None,
) -> training.Fitted:
    """Train `plan.module` to segment, keeping the epoch with the least validation loss.

    Images and masks are of `side` pixels where they are looked at as a whole, of any size (at least that) where in
    patches. setting: values for every name of `SPACE`. normalise: (mean, sd); from the images if None. A module with
    `fit(images, masks)` is fitted by it, at once.
    """
    on, generator = pick_device(device), training.seed_everything(seed)
    model = Model(plan.module, *(normalise or training.pixel_statistics(known[0]))).to(on)
    if hasattr(plan.module, "fit"):
        return _at_once(model, known, on)
    model = model.to(memory_format=torch.channels_last)
    images, masks = (torch.from_numpy(part).to(on) for part in known)
    held = _held(validation, setting, side, seed)
    weights, loss = weights_of(known[1], n_classes, setting["class_weights"]).to(on), LOSSES[setting["loss"]]
    release(plan, math.inf)
    set_training(model)
    if precision == "auto":
        precision = choose_precision(model, images[: setting["batch_size"], :, :side, :side], on)

    def batch_loss(batch: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        x, y = images[batch], masks[batch]
        if setting["view"] == "patch":
            x, y = cut(x, y, side, generator)
        x, y = _augmented(x, y, setting["augment"], generator)
        return loss(model(x).float(), y, weights)

    losses = learn(
        model, plan, setting, len(images), batch_loss, lambda: _mean_loss(model, held, loss, weights),
        generator=generator, device=on, precision=precision, progress=progress,
    )  # fmt: skip
    return training.Fitted(model, losses, precision)


def _at_once(model: Model, known: Pair, on: torch.device) -> training.Fitted:
    images, masks = (torch.from_numpy(part).to(on) for part in known)
    with torch.no_grad():
        model.net.fit(model.scaled(images), masks.long())
    return training.Fitted(model.eval(), (), "fp32")


def _held(validation: Pair, setting: dict, side: int, seed: int) -> Pair:
    """What validation looks at: whole images, or the same two patches of each in every epoch."""
    if setting["view"] == "whole":
        return validation
    generator = torch.Generator().manual_seed(seed)
    twice = [torch.from_numpy(np.repeat(part, 2, axis=0)) for part in validation]
    return tuple(part.numpy() for part in cut(*twice, side, generator))


def _augmented(
    x: torch.Tensor, y: torch.Tensor, how: str, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and masks, changed together."""
    both = augmented(torch.cat([x, y[:, None].to(x.dtype)], dim=1), how, generator)
    return both[:, :-1], both[:, -1].long()


@torch.no_grad()
def _mean_loss(model: nn.Module, held: Pair, loss: Callable, weights: torch.Tensor, batch: int = 32) -> float:
    model.eval()
    total = 0.0
    for start in range(0, len(held[0]), batch):
        x, y = (torch.from_numpy(part[start : start + batch]).to(weights.device) for part in held)
        total += float(loss(model(x).float(), y.long(), weights)) * len(x)
    return total / len(held[0])
