"""The fingerprint of a volume that nnU-Net plans by: its filled nonzero region, the box around it, the foreground's
intensities (Isensee et al. 2021, arXiv 1904.08128)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metamed.errors import MetamedError
from metamed.metafeatures import kernels

SAMPLES, SEED = 10_000, 1234  # nnU-Net's own
PERCENTILES = (0.5, 50.0, 99.5)


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """region: nonzero voxels, holes filled, bool (D, H, W). box: slices around it, the whole volume if it is empty.
    relative_size: share of the volume within the box. intensities: of the foreground of each channel (C, 6), its mean,
    least, largest, and the percentiles 0.5, 50, 99.5, NaN without foreground. samples: (C, `SAMPLES`) of its values."""

    region: np.ndarray
    box: tuple[slice, slice, slice]
    relative_size: float
    intensities: np.ndarray
    samples: np.ndarray


def fingerprint(image: np.ndarray, mask: np.ndarray, samples: int = SAMPLES, seed: int = SEED) -> Fingerprint:
    """Of a volume (C, D, H, W) with integer labels (D, H, W), 0 the background; MetamedError where they do not fit."""
    if image.ndim != 4 or image.shape[1:] != mask.shape:
        raise MetamedError(f"a volume of shape {image.shape} with a mask of {mask.shape}: expected C,D,H,W and D,H,W")
    nonzero = image[0] != 0
    for channel in image[1:]:
        nonzero |= channel != 0
    region = fill_holes(nonzero)
    box = _box(nonzero)  # filling holes moves no border
    inside = np.flatnonzero(mask[box] > 0)
    values = [np.ascontiguousarray(channel[box]).ravel()[inside] for channel in image]
    share = float(np.prod([s.stop - s.start for s in box]) / mask.size)
    return Fingerprint(region, box, share, np.array([_summary(v) for v in values]), _drawn(values, samples, seed))


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """A bool volume (D, H, W) with all that its faces cannot reach through empty voxels, as scipy.ndimage has it."""
    empty = np.ascontiguousarray(~mask).view(np.uint8)
    outside = np.zeros_like(empty)
    for axis in range(3):
        for face in (0, -1):
            np.moveaxis(outside, axis, 0)[face] = np.moveaxis(empty, axis, 0)[face]
    if kernels.COMPILED is None:
        _reach(empty, outside)
    else:
        kernels.COMPILED.reach(empty, outside, empty.shape)
    return outside == 0


def _reach(empty: np.ndarray, outside: np.ndarray) -> None:
    """What is empty and connected joins what is outside: sweeps along each axis, there and back, until none does."""
    before = -1
    while before != (before := int(outside.sum())):
        for axis in range(3):
            e, o = np.moveaxis(empty, axis, 0), np.moveaxis(outside, axis, 0)
            for k in range(1, len(e)):
                o[k] |= o[k - 1] & e[k]
            for k in range(len(e) - 2, -1, -1):
                o[k] |= o[k + 1] & e[k]


def _box(nonzero: np.ndarray) -> tuple[slice, ...]:
    plane = nonzero.any(axis=0)
    found = [np.flatnonzero(occupied) for occupied in (nonzero.any(axis=(1, 2)), plane.any(axis=1), plane.any(axis=0))]
    whole = zip(found, nonzero.shape, strict=True)
    return tuple(slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, size) for at, size in whole)


def _summary(values: np.ndarray) -> np.ndarray:
    """Mean, least, largest, percentiles."""
    if len(values) == 0:
        return np.full(3 + len(PERCENTILES), np.nan)
    return np.array([values.mean(dtype=np.float64), values.min(), values.max(), *np.percentile(values, PERCENTILES)])


def _drawn(values: list[np.ndarray], samples: int, seed: int) -> np.ndarray:
    """Foreground values drawn with replacement, channel after channel, by nnU-Net's generator."""
    rng = np.random.RandomState(seed)
    return np.array([rng.choice(v, samples, replace=True) if len(v) else np.full(samples, np.nan) for v in values])
