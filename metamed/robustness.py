"""Test images as they might come from elsewhere: with noise, out of focus, with a mark that means nothing.

Training never sees them. A run that is asked for it keeps the measure of its task on each, as `auc@noise`: the drop
from `auc` says how far the setup depends on what a scanner or a clinic happens to do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

NOISE = 0.1  # standard deviation, as a share of the range of pixels
BLUR = 1 / 48  # standard deviation, as a share of the image's side
MARK = 1 / 6  # side of the mark, as a share of the image's side


def noise(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise on every pixel and channel."""
    return x + NOISE * rng.standard_normal(x.shape, np.float32)


def blur(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A Gaussian blur."""
    sd = BLUR * x.shape[-1]
    reach = max(1, round(3 * sd))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sd) ** 2)
    for axis in (-2, -1):
        around = [(0, 0)] * x.ndim
        around[axis] = (reach, reach)
        padded, n = np.pad(x, around, mode="edge"), x.shape[axis]
        x = sum(w * padded.take(range(i, i + n), axis) for i, w in enumerate(weights / weights.sum()))
    return x


def confounder(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A white mark in a corner of a random half of the images, whatever their class, as a tag or a ruler would be."""
    side, x = max(1, round(MARK * x.shape[-1])), x.copy()
    x[rng.permutation(len(x))[: len(x) // 2], :, :side, -side:] = 1.0
    return x


SHIFTS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "noise": noise, "blur": blur, "confounder": confounder,
}  # fmt: skip


def shifted(images: np.ndarray, how: str, *, seed: int = 0) -> np.ndarray:
    """Images (n, C, s, s), uint8 or float in 0-1, changed by one of `SHIFTS`; of the same type and range."""
    small = images.dtype == np.uint8
    x = images.astype(np.float32) / (255 if small else 1)
    x = np.clip(SHIFTS[how](x, np.random.default_rng(seed)), 0, 1)
    return (x * 255).round().astype(np.uint8) if small else x.astype(np.float32)
