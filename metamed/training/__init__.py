"""The one torch loop: fit a network by a plan, and predict with it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from metamed.errors import MetamedError
from metamed.judged import Judged
from metamed.methods import Choice, Float, Int, Partner, Plan, WarmUp, parameters
from metamed.training.assessed import Lesson
from metamed.training.images import augmented, load_images, pixel_statistics
from metamed.training.loop import batches, descend, learn, optimiser_of, release, set_training
from metamed.training.precision import autocast, choose_precision, pick_device
from metamed.training.soup import averaged, soup
from metamed.training.weights import (
    PREPROCESSING,
    Frozen,
    Model,
    load_encoder,
    pad_as_tensorflow,
    preprocessing_of,
    read_weights,
    sha256,
    weights_bytes,
)

__all__ = [
    "DEFAULTS", "LOSSES", "PREPROCESSING", "SPACE", "VERSION", "Fitted", "Frozen", "Model", "averaged",
    "choose_precision", "fit", "learn", "load_encoder", "load_images", "logits_of", "pad_as_tensorflow", "pick_device",
    "pixel_statistics", "preprocessing_of", "probabilities", "read_weights", "seed_everything", "sha256", "soup",
    "warm_up", "weights_bytes",
]  # fmt: skip

VERSION = 1  # raised by hand whenever the same setup and seed would train to another result


def settings(
    *,
    learning_rate: Annotated[float, Float(1e-5, 1e-1, log=True)] = 1e-3,
    epochs: Annotated[int, Int(1, 300)] = 15,
    batch_size: Annotated[int, Choice(8, 16, 32, 64, 128)] = 32,
    weight_decay: Annotated[float, Float(1e-6, 1.0, log=True)] = 1e-2,
    augment: Annotated[str, Choice("none", "shift", "flip", "flip+shift")] = "flip+shift",
    image_size: Annotated[int, Choice(28, 32, 48, 64, 96, 128, 160, 224, 256, 384, 512)] = 64,
):
    """What training adds to every flow's search space (AdamW with one warm-up and cosine decay).

    image_size: pixels per side that images are resized to. Training from scratch never enlarges images; networks that
    come from a source get the resolution asked for, since they expect details of a certain size.
    """


SPACE, DEFAULTS = parameters(settings)
LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "classification": F.cross_entropy,
    "multi-label": lambda logits, y: F.binary_cross_entropy_with_logits(logits, y.float()),
}


@dataclass(frozen=True)
class Fitted:
    """A trained model, the validation loss after every epoch, and the precision that it was trained in."""

    model: Model
    losses: tuple[float, ...]
    precision: str


def seed_everything(seed: int) -> torch.Generator:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def fit(
    plan: Plan,
    x: np.ndarray,
    y: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray],
    *,
    setting: dict,
    loss: str = "classification",
    normalise: tuple | None = None,
    unlabelled: np.ndarray | None = None,
    partner: tuple[np.ndarray, np.ndarray] | None = None,
    assessed: tuple[np.ndarray, Judged] | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    progress: Callable[[int, int, float], None] | None = None,
) -> Fitted:
    """Train `plan.module` on images x (n, C, s, s) with targets y, keeping the epoch with the least validation loss.

    setting: values for every name of `SPACE`. normalise: (mean, sd); from x if None. progress(epoch, epochs, loss).
    unlabelled: images like x for the plan's warm-up (x if None). partner: images and targets of the plan's partner.
    assessed: images, and what people said of them, where the plan learns it.
    Stops early, and raises FloatingPointError, as `loop.learn` does.
    """
    on, generator = pick_device(device), seed_everything(seed)
    model = Model(plan.module, *(normalise or pixel_statistics(x))).to(on, memory_format=torch.channels_last)
    sides = [] if plan.partner is None else [_Beside(plan.partner, partner, model, setting["augment"])]
    lesson = None if plan.assessed is None else Lesson(plan.assessed, assessed[1], assessed[0], model, setting)
    sides += [lesson] if lesson and plan.assessed.weight else []
    plan = replace(plan, groups=(*plan.groups, *((side.own, 1.0, 0) for side in sides)))
    images, targets = _on(x, on), _on(y, on)
    release(plan, math.inf)
    set_training(model)
    if precision == "auto":
        precision = choose_precision(model, images[: setting["batch_size"]], on)
    if plan.warm_up:
        warm_up(plan.warm_up, model, _on(x if unlabelled is None else unlabelled, on), setting, precision, generator)
    if lesson:
        lesson.before(precision, generator)

    def batch_loss(batch: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        logits = model(augmented(images[batch], setting["augment"], generator))
        return LOSSES[loss](logits.float(), targets[batch]) + sum(s.beside(len(batch), generator) for s in sides)

    def validation_loss() -> float:
        x, y = validation
        return float(LOSSES[loss](torch.from_numpy(logits_of(model, x)), torch.from_numpy(y)))

    losses = learn(
        model, plan, setting, len(x), batch_loss, validation_loss,
        generator=generator, device=on, precision=precision, progress=progress,
    )  # fmt: skip
    return Fitted(model, losses, precision)


def _on(values: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(values).to(device)


def warm_up(
    first: WarmUp, model: Model, images: torch.Tensor, setting: dict, precision: str, generator: torch.Generator
) -> None:
    """Pass unlabelled images through the objective; where it has a loss, all of its parameters lower it."""
    objective = first.objective.to(images.device, memory_format=torch.channels_last)
    objective.requires_grad_(True).train()
    optimiser = optimiser_of(((objective.parameters(), first.factor, 0),), setting)
    for _ in range(first.epochs):
        for batch in batches(len(images), setting["batch_size"], generator):
            with autocast(images.device, precision):
                value = objective(model.scaled(images[batch]))
            if value is not None:
                descend(optimiser, value)


class _Beside:
    """The partner's part in every step: its weighted loss on as many of its images, drawn at random.

    own: the parameters that it does not share with the target's network.
    """

    def __init__(self, partner: Partner, data: tuple[np.ndarray, np.ndarray] | None, model: Model, augment: str):
        if data is None:
            raise MetamedError(f"co-training needs the images and targets of '{partner.source}'")
        x, y = data
        self.images, self.targets = _on(x, model.mean.device), _on(y, model.mean.device)
        self.kind, n_classes = ("multi-label", y.shape[1]) if y.ndim == 2 else ("classification", int(y.max()) + 1)
        self.model = Model(partner.module(n_classes), model.mean, model.sd)
        self.model.to(model.mean.device, memory_format=torch.channels_last)
        shared = {id(p) for p in model.parameters()}
        self.own = [p for p in self.model.parameters() if id(p) not in shared]
        self.weight, self.augment = partner.weight, augment

    def beside(self, n: int, generator: torch.Generator) -> torch.Tensor:
        batch = torch.randint(len(self.images), (n,), generator=generator).to(self.images.device)
        logits = self.model(augmented(self.images[batch], self.augment, generator))
        return self.weight * LOSSES[self.kind](logits.float(), self.targets[batch])


@torch.no_grad()
def logits_of(model: nn.Module, x: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """What `model` answers for images x, float32 (n, ...), batch by batch."""
    model.eval()
    on = next(iter(model.state_dict().values())).device
    parts = [
        model(torch.from_numpy(np.ascontiguousarray(x[i : i + batch_size])).to(on)).float().cpu().numpy()
        for i in range(0, len(x), batch_size)
    ]
    return np.concatenate(parts)


def probabilities(logits: np.ndarray, loss: str = "classification") -> np.ndarray:
    """Softmax over classes, or a sigmoid for each label if multi-label."""
    if loss == "multi-label":
        return 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
