"""Images as they might come from elsewhere: noise, blur, a mark that means nothing, a mark that went with a class.

Shifts: training never sees them. A run that is asked for it keeps the measure of its task on each, as `auc@noise`: the
drop from `auc` says how far the setup depends on what a scanner or a clinic happens to do.

A confounder: the setup is trained once more on images where a mark goes with some classes (as a ruler goes with
lesions that somebody worried about), and judged where the mark goes with the same classes, is absent, and goes with
the others. The drops say how far the setup took the mark for the finding (after Juodelyte et al., 2024, "Source
matters: source dataset impact on model robustness in medical imaging").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from metamed.dataset import Images

NOISE = 0.1  # standard deviation, as a share of the range of pixels
BLUR = 1 / 48  # standard deviation, as a share of the image's side
MARK = 1 / 6  # side of the mark, as a share of the image's shorter side
RATE = 0.9  # of the images of a class that the mark goes with, how many carry it; of the other classes the rest do


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


def mark(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A white mark in a corner of a random half of the images, whatever their class, as a tag or a ruler would be."""
    return _drawn(x, rng.permutation(len(x)) < len(x) // 2, np.ones(len(x)))


def _drawn(x: np.ndarray, chosen: np.ndarray, white: np.ndarray) -> np.ndarray:
    """A copy of images (n, C, H, W), those `chosen` (n,) with a square as bright as `white` (n,) at the upper right."""
    side, x = max(1, round(MARK * min(x.shape[-2:]))), x.copy()
    x[chosen, :, :side, -side:] = white[chosen, None, None, None]
    return x


SHIFTS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "noise": noise, "blur": blur, "mark": mark,
}  # fmt: skip


def shifted(images: np.ndarray, how: str, *, seed: int = 0) -> np.ndarray:
    """Images (n, C, s, s), uint8 or float in 0-1, changed by one of `SHIFTS`; of the same type and range."""
    small = images.dtype == np.uint8
    x = images.astype(np.float32) / (255 if small else 1)
    x = np.clip(SHIFTS[how](x, np.random.default_rng(seed)), 0, 1)
    return (x * 255).round().astype(np.uint8) if small else x.astype(np.float32)


class Marked:
    """Images (n, C, H, W) of which those that are `chosen`, bool (n,), carry the mark; drawn when they are read."""

    def __init__(self, images: Images, chosen: np.ndarray):
        self._images, self._chosen = images, chosen
        self.shape, self.dtype, self.sizes = images.shape, images.dtype, images.sizes

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int | slice) -> np.ndarray:
        found, chosen = self._images[index], self._chosen[index]
        return self._read(found, chosen) if isinstance(index, slice) else self._read(found[None], chosen[None])[0]

    def chunks(self, size: int = 256) -> Iterator[tuple[slice, np.ndarray]]:
        for part, images in self._images.chunks(size):
            yield part, self._read(images, self._chosen[part])

    def _read(self, images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """White is the most that whole numbers can hold; of floats, whose range is their own, the image's maximum."""
        whole = np.issubdtype(self.dtype, np.integer)
        white = np.full(len(images), np.iinfo(self.dtype).max) if whole else images.max(axis=(1, 2, 3))
        return _drawn(images, chosen, white)


def marks(target: np.ndarray, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Which images carry the mark, bool (n,): `confounded`, it goes with every second class (1, 3, ...) at `RATE`, to
    train on and to judge by; `unconfounded`, none; `reversed`, it goes with the other classes as often.

    target: class of each image (n,), or 0/1 (n, K), of which the first label counts.
    """
    with_mark = (target if target.ndim == 1 else target[:, 0]) % 2 == 1
    chosen = np.random.default_rng(seed).random(len(target)) < np.where(with_mark, RATE, 1 - RATE)
    return {"confounded": chosen, "unconfounded": np.zeros_like(chosen), "reversed": ~chosen}
