"""Networks that embed images learn from triplets: the nearer of two images is the one that people called closer."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from metamed.errors import NotApplicable
from metamed.judged import Judged
from metamed.methods import Assessed, Plan
from metamed.training import Fitted, Model, logits_of, pixel_statistics, seed_everything, warm_up
from metamed.training.assessed import Lesson, triplet_loss
from metamed.training.loop import learn, release, set_training
from metamed.training.precision import choose_precision, pick_device


def fit(
    plan: Plan,
    images: np.ndarray,
    said: Judged,
    validation: tuple[np.ndarray, np.ndarray],
    *,
    setting: dict,
    normalise: tuple | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    progress: Callable[[int, int, float], None] | None = None,
) -> Fitted:
    """Train `plan.module`, images -> embeddings B x E, on the triplets of `said`, keeping the epoch with the least loss
    on `validation`: images, and triplets (m, 3) of their positions.

    images: those of `said.index`, (n, C, s, s). setting: values for every name of `training.SPACE`; a batch is so many
    triplets. normalise: (mean, sd); from the images if None. Stops early as `loop.learn` does. Raises NotApplicable for
    recipes that learn something else beside.
    """
    if plan.partner or plan.assessed:
        raise NotApplicable("a recipe that learns something beside its target does not fit a triplet network")
    on, generator = pick_device(device), seed_everything(seed)
    model = Model(plan.module, *(normalise or pixel_statistics(images))).to(on, memory_format=torch.channels_last)
    lesson = Lesson(Assessed(plan.module, None), said, images, model, setting)
    release(plan, math.inf)
    set_training(model)
    if precision == "auto":
        precision = choose_precision(model, lesson.images[: setting["batch_size"]], on)
    if plan.warm_up:
        warm_up(plan.warm_up, model, lesson.images, setting, precision, generator)

    def validation_loss() -> float:
        embedding = torch.from_numpy(logits_of(model, validation[0]))
        return float(triplet_loss(*embedding[torch.from_numpy(validation[1]).T]))

    losses = learn(
        model, plan, setting, len(said), lesson.loss, validation_loss,
        generator=generator, device=on, precision=precision, progress=progress,
    )  # fmt: skip
    return Fitted(model, losses, precision)
