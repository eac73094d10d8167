"""The sums over pixels in numpy: what pixels.c computes, for where it could not be built, and to test it against.

Everything is computed per image and element by element, in single precision, and summed in double precision.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from metamed.dataset import shrink

HALF = 0.500483  # rounds up from here: luma comes in thousandths, whose ties a plain .5 would leave to float noise
LEVELS = 32  # of the co-occurrence matrices
STEPS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, 3), (2, 2), (3, 0), (2, -2))  # distances 1 and 3 in four directions
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
THUMBNAIL = 16  # side of a thumbnail


class Rings(NamedTuple):
    """Rings of frequencies: a Hann window (H, W) before the transform, the coefficients sorted by ring, their weights,
    where rings start, and of each ring its size (of weights) and its radius."""

    window: np.ndarray
    order: np.ndarray
    weight: np.ndarray
    starts: np.ndarray
    size: np.ndarray
    radius: np.ndarray


def measure(images: np.ndarray, low: float, step: float, rings: Rings) -> tuple[dict, dict[str, np.ndarray]]:
    """(sums by the names of kernels.SUMS, tables) of images (n, C, H, W) uint8, uint16 or float32, H and W at least 4.

    low: the value of black; step: what a 255th of the way to white adds. Levels lie in 0-255,000, so that those of
    8-bit images are whole numbers.
    """
    planes = (images.astype(np.float32) - np.float32(low)) / np.float32(step)
    level = _levels(planes)
    code = np.clip(level * np.float32(0.001) + np.float32(HALF), 0, 255).astype(np.uint8)
    sums = _moments(level) | _differences(level) | (_colour(planes) if planes.shape[1] == 3 else {})
    return sums, {
        "pairs": _cooccurrence(code >> 3),
        "quantiles": _quantiles(level),
        "histogram": _counts(code, 256),
        "patterns": _counts(local_patterns(code), 10),
        "thumbnail": shrink(level.astype(np.float64), THUMBNAIL, THUMBNAIL),
        "cells": shrink(level.astype(np.float64), THUMBNAIL, THUMBNAIL + 1),
        "power": _power(_windowed(level, rings.window), rings),
    }


def _levels(planes: np.ndarray) -> np.ndarray:
    channels = planes.shape[1]
    weights = np.float32((299, 587, 114)) if channels == 3 else np.full(channels, 1000 / channels, np.float32)
    level = planes[:, 0] * weights[0]
    for channel in range(1, channels):
        level += planes[:, channel] * weights[channel]
    return level


def _sum(values: np.ndarray) -> np.ndarray:
    """Sum over everything but the first axis, per image, in double precision."""
    return values.reshape(len(values), -1).sum(axis=1, dtype=np.float64)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sum of a * b per image, in double precision."""
    return _sum(np.multiply(a, b, dtype=np.float64))


def _counts(codes: np.ndarray, n_codes: int) -> np.ndarray:
    """How often each code 0 .. n_codes - 1 occurs in each image, (n, n_codes)."""
    n = len(codes)
    flat = codes.reshape(n, -1) + (np.arange(n) * n_codes)[:, None]
    return np.bincount(flat.ravel(), minlength=n * n_codes).reshape(n, n_codes)


def _moments(level: np.ndarray) -> dict[str, np.ndarray]:
    mean = _sum(level) / level[0].size
    z = level - mean[:, None, None]
    square = z * z
    neighbours = _sum(z[:, 1:] * z[:, :-1]) + _sum(z[:, :, 1:] * z[:, :, :-1])
    flat = level.reshape(len(level), -1)
    return {"mean": mean, "second": _sum(square), "third": _sum(square * z), "fourth": _sum(square * square),
            "lowest": flat.min(axis=1).astype(np.float64), "highest": flat.max(axis=1).astype(np.float64),
            "neighbours": neighbours}  # fmt: skip


def _quantiles(level: np.ndarray) -> np.ndarray:
    """Quantiles between the two nearest pixels, as numpy.percentile."""
    ordered = np.sort(level.reshape(len(level), -1), axis=1).astype(np.float64)
    place = np.array(QUANTILES) * (ordered.shape[1] - 1)
    below = place.astype(int)
    above = np.minimum(below + 1, ordered.shape[1] - 1)
    return ordered[:, below] + (ordered[:, above] - ordered[:, below]) * (place - below)


def _colour(planes: np.ndarray) -> dict[str, np.ndarray]:
    names = "red", "green", "blue"
    channels = dict(zip(names, planes.transpose(1, 0, 2, 3), strict=True))
    largest, smallest = planes.max(axis=1), planes.min(axis=1)
    sums = {"saturation": _sum((largest - smallest) / np.where(largest > 0, largest, 1))}
    for name, plane in channels.items():
        wide = plane.astype(np.float64)
        sums |= {name: _sum(wide), f"{name}_square": _sum(wide * wide), f"{name}_cube": _sum(wide * wide * wide)}
    for a, b in (("red", "green"), ("red", "blue"), ("green", "blue")):
        sums[f"{a}_{b}"] = _product(channels[a], channels[b])
    return sums


@lru_cache(maxsize=1)
def _cell_weights() -> np.ndarray:
    """Columns that turn a flat matrix of pairs (a, b) into the sums of `pairs`, but for the squares."""
    a, b = np.indices((LEVELS, LEVELS)).reshape(2, -1).astype(np.float64)
    d = a - b
    return np.stack([d * d, abs(d), 1 / (1 + d * d), a + b, a * a + b * b], axis=1)


def _cooccurrence(coarse: np.ndarray) -> np.ndarray:
    """Sums over the pairs of each offset, (n, 8, 6): squared and absolute difference, 1 / (1 + square), squares of the
    symmetric matrix, a + b, a^2 + b^2."""
    n, height, width = coarse.shape
    coarse = coarse.astype(np.int32)
    first = coarse * LEVELS + (np.arange(n, dtype=np.int32) * LEVELS**2)[:, None, None]
    out = np.empty((n, len(STEPS), 6))
    for k, (dy, dx) in enumerate(STEPS):
        left, right = max(0, -dx), width - max(0, dx)
        pairs = first[:, : height - dy, left:right] + coarse[:, dy:, left + dx : right + dx]
        counts = np.bincount(pairs.ravel(), minlength=n * LEVELS**2).reshape(n, -1).astype(np.float64)
        matrix = counts.reshape(n, LEVELS, LEVELS)
        out[:, k, [0, 1, 2, 4, 5]] = counts @ _cell_weights()
        out[:, k, 3] = (np.einsum("nij,nij->n", matrix, matrix) + np.einsum("nij,nji->n", matrix, matrix)) / 2
    return out


def local_patterns(code: np.ndarray) -> np.ndarray:
    """Uniform local binary patterns (8 points, radius 1) of the inner pixels, uint8 (n, H-2, W-2) in 0-9.

    The diagonal points lie at 0.70711 pixels and are interpolated. With integers the comparison is exact: on flat
    ground, where interpolating in floating point decides by rounding noise, a point equals its centre.
    """
    a = code.astype(np.int32)
    height, width = a.shape[1:]
    centre = a[:, 1:-1, 1:-1]

    def at(dy: int, dx: int) -> np.ndarray:
        return a[:, 1 + dy : height - 1 + dy, 1 + dx : width - 1 + dx]

    points = []
    for dy, dx in ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1)):
        if dy and dx:  # sides weigh w (1 - w), the corner w^2; w itself divided out
            points.append(29289 * (at(dy, 0) + at(0, dx) - 2 * centre) + 70711 * (at(dy, dx) - centre) >= 0)
        else:
            points.append(at(dy, dx) >= centre)
    ones = sum(p.view(np.uint8) for p in points)
    changes = sum((p ^ q).view(np.uint8) for p, q in zip(points, points[1:] + points[:1], strict=True))
    return np.where(changes <= 2, ones, np.uint8(9))


def _differences(level: np.ndarray) -> dict[str, np.ndarray]:
    dx, dy = level[:, 1:-1, 2:] - level[:, 1:-1, :-2], level[:, 2:, 1:-1] - level[:, :-2, 1:-1]
    bend = level[:, :, 2:] - 2 * level[:, :, 1:-1] + level[:, :, :-2]
    bend_y = level[:, 2:, 1:-1] - 2 * level[:, 1:-1, 1:-1] + level[:, :-2, 1:-1]
    laplacian = bend[:, 1:-1] + bend_y
    along, down = np.abs(np.diff(level, axis=2)), np.abs(np.diff(level, axis=1))
    return {
        "dx_dx": _product(dx, dx), "dy_dy": _product(dy, dy), "dx_dy": _product(dx, dy),
        "slope": _sum(np.sqrt(dx * dx + dy * dy)), "laplacian": _product(laplacian, laplacian),
        "noise": _sum(np.abs(bend[:, 2:] - 2 * bend[:, 1:-1] + bend[:, :-2])),
        "step_x": _sum(along), "border_x": _sum(along[:, :, 7::8]),
        "step_y": _sum(down), "border_y": _sum(down[:, 7::8]),
    }  # fmt: skip


def _windowed(level: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Levels times the window, less the mean under it, for the Fourier transform."""
    mean = _product(level, window[None]) / window.sum(dtype=np.float64)
    return (level - mean.astype(np.float32)[:, None, None]) * window


def _power(windowed: np.ndarray, rings: Rings) -> np.ndarray:
    """Power of each ring of frequencies, (n, rings)."""
    spectrum = np.fft.rfft2(windowed.swapaxes(1, 2).astype(np.float64)).reshape(len(windowed), -1)[:, rings.order]
    return np.add.reduceat((spectrum.real**2 + spectrum.imag**2) * rings.weight, rings.starts, axis=1)
