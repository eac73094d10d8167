"""One pass over pixels: every statistic of every image in a block. The one place to make faster.

`image_statistics` is the whole contract. The sums over pixels come from `pixels.c` where that was built at
installation, else from `plain` in numpy: the same values, docs/speed.md says at what cost. Everything is computed per
image, so that an image's values do not depend on the images around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np

from metamed.metafeatures import plain
from metamed.metafeatures.plain import HALF, QUANTILES, STEPS, THUMBNAIL, Rings, local_patterns
from metamed.parallel import cores, in_order

__all__ = ["COMPILED", "HALF", "QUANTILES", "image_statistics", "local_patterns", "measure_blocks", "ratio"]

VERSION = 3  # of pixels.c: a build of another one is not used
SUMS = (  # of pixels.c, in its order
    "mean", "second", "third", "fourth", "lowest", "highest", "dx_dx", "dy_dy", "dx_dy", "slope", "laplacian", "noise",
    "neighbours", "step_x", "step_y", "border_x", "border_y", "saturation", "red", "green", "blue",
    "red_square", "green_square", "blue_square", "red_cube", "green_cube", "blue_cube",
    "red_green", "red_blue", "green_blue",
)  # fmt: skip
UNIT = 255_000.0  # levels of pixels.c from black to white
GLCM = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation")
_FLAT = 1e-12  # variance (of grey in 0-1) below which an image counts as constant: float32 leaves about 1e-15
_HASH_STEP = 2.0001  # of 255 levels, as metamed.dataset.thumbnail_hashes; a tie is none, whatever the bit depth


def _compiled():
    """The compiled module, or None: it lies beside the package, so that a checkout finds the installed one too."""
    try:
        import _metamed_pixels
    except ImportError:
        return None
    return _metamed_pixels if _metamed_pixels.VERSION == VERSION else None


COMPILED = _compiled()
BLOCK = 2**17 if COMPILED is None else 2**21  # pixels measured together: numpy's steps should stay in the cache
TOGETHER = 2**9  # images at most: each has a few thousand numbers


def measure_blocks(blocks: Iterable[np.ndarray], low: float, span: float, pixels: int) -> Iterator[dict]:
    """`image_statistics` of each block, in order; on all cores if there is more to do (`pixels`) than starts them."""
    threads = cores() if pixels > 4 * BLOCK else 1
    return in_order(lambda block: image_statistics(block, low, span), blocks, threads)


def image_statistics(images: np.ndarray, low: float, span: float, compiled=COMPILED) -> dict[str, np.ndarray]:
    """Statistics of each image (n, C, H, W), whose values minus `low` over `span` lie in 0-1.

    Keys: scalars (n,), `quantiles` (n, 7), `histogram` (n, 256) and `patterns` (n, 10) as proportions,
    `thumbnail` (n, 16, 16), `hash` uint8 (n, 32). Images below 4 pixels a side are continued by their border.
    """
    if images.dtype not in (np.uint8, np.uint16, np.float32):
        images = images.astype(np.float32)
    missing = [(0, max(0, 4 - side)) for side in images.shape[2:]]
    if any(after for _, after in missing):
        images = np.pad(images, ((0, 0), (0, 0), *missing), mode="edge")
    height, width = images.shape[2:]
    rings = _rings(height, width)
    sums, tables = (plain.measure if compiled is None else _measure)(images, low, float(span) / 255, rings)
    moments = _moments(sums, height, width)
    constant = moments["variance"] == 0
    return {
        **moments,
        "quantiles": tables["quantiles"] / UNIT,
        "histogram": tables["histogram"] / (height * width),
        **_colour(images, sums, moments, float(span)),
        **_cooccurrence(tables["pairs"], height, width),
        "patterns": tables["patterns"] / tables["patterns"].sum(axis=1, keepdims=True),
        **_differences(sums, height, width),
        **_spectrum(tables["power"], constant, rings),
        "thumbnail": (tables["thumbnail"] / UNIT).astype(np.float32),
        "hash": _hash(tables["cells"], sums["highest"] - sums["lowest"]),
    }


@lru_cache(maxsize=1)
def _pattern_classes() -> np.ndarray:
    """One-hot (256, 10): the uniform pattern (0-8 by its bright points, 9 the rest) of eight points in a circle."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    changes = (bits != np.roll(bits, 1, axis=1)).sum(axis=1)
    return np.eye(10)[np.where(changes <= 2, bits.sum(axis=1), 9)]


def _measure(images: np.ndarray, low: float, step: float, rings: Rings) -> tuple[dict, dict[str, np.ndarray]]:
    """What `plain.measure` gives, from the compiled module."""
    n = len(images)
    sums, pairs, quantiles = np.empty((n, len(SUMS))), np.empty((n, len(STEPS), 6)), np.empty((n, len(QUANTILES)))
    thumbnail, cells = (np.empty((n, THUMBNAIL, THUMBNAIL + wider), np.float32) for wider in (0, 1))
    power = np.empty((n, len(rings.starts)))
    histogram, codes = np.empty((n, 256), np.uint32), np.empty((n, 256), np.uint32)
    kind, pixels = {1: "B", 2: "H", 4: "f"}[images.itemsize], images
    if (kind, images.shape[1], images.strides[1], low, step) == ("B", 3, 1, 0, 1):  # colours side by side, as in files
        kind, pixels = "I", images.transpose(0, 2, 3, 1)
    COMPILED.measure(np.ascontiguousarray(pixels), kind, images.shape, low, step, *rings[:4], sums, pairs, quantiles,
                     power, thumbnail, cells, histogram, codes)  # fmt: skip
    return dict(zip(SUMS, sums.T, strict=True)), {
        "pairs": pairs, "quantiles": quantiles, "histogram": histogram, "patterns": codes @ _pattern_classes(),
        "thumbnail": thumbnail, "cells": cells, "power": power,
    }  # fmt: skip


def ratio(numerator: np.ndarray, denominator: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
    """numerator / denominator, `otherwise` where the denominator is practically zero."""
    out = np.full(np.broadcast(numerator, denominator).shape, otherwise, np.float64)
    return np.divide(numerator, denominator, out=out, where=np.abs(denominator) > _FLAT)


def _moments(sums: dict, height: int, width: int) -> dict[str, np.ndarray]:
    pixels = height * width
    variance = sums["second"] / pixels / UNIT**2
    constant = variance < _FLAT
    variance[constant] = 0
    safe = np.where(constant, np.inf, variance)  # all that follows is 0 for a constant image
    neighbours = sums["neighbours"] / UNIT**2 / ((height - 1) * width + height * (width - 1))
    return {
        "mean": sums["mean"] / UNIT,
        "variance": variance,
        "skewness": sums["third"] / pixels / UNIT**3 / safe**1.5,
        "kurtosis": np.where(constant, 0, sums["fourth"] / pixels / UNIT**4 / safe**2 - 3),
        "minimum": sums["lowest"] / UNIT,
        "maximum": sums["highest"] / UNIT,
        "moran": neighbours / safe,
    }


def _colour(images: np.ndarray, sums: dict, moments: dict, span: float) -> dict[str, np.ndarray]:
    """Of RGB; a single channel is read as R = G = B, so that a grey image has the same colour however it is stored."""
    n, channels, height, width = images.shape
    names = ("red", "green", "blue")
    if channels == 1:
        zero, of_grey = np.zeros(n), (moments["mean"], np.sqrt(moments["variance"]), moments["skewness"])
        found = {f"{name}{moment}": of_grey[k] for k, moment in enumerate(("", "_sd", "_skewness")) for name in names}
        return {**found, "colourfulness": zero, "saturation": zero, "channel_correlation": np.ones(n)}
    if channels != 3:
        unknown = [f"{name}{moment}" for moment in ("", "_sd", "_skewness") for name in names]
        nothing = dict.fromkeys((*unknown, "colourfulness", "saturation"), np.full(n, np.nan))
        return {**nothing, "channel_correlation": _channel_correlation(images / np.float32(span))}
    scaled = {key: sums[key] / (height * width) / 255**power for key, power in _COLOUR_POWERS.items()}
    variance, found = {}, {}
    for name in names:
        mean, square = scaled[name], scaled[f"{name}_square"]
        v = variance[name] = np.maximum(square - mean**2, 0)
        third = scaled[f"{name}_cube"] - 3 * mean * square + 2 * mean**3
        found[name], found[f"{name}_sd"] = mean, np.sqrt(v)
        found[f"{name}_skewness"] = third / np.where(v < _FLAT, np.inf, v) ** 1.5
    pairs = [("red", "green"), ("red", "blue"), ("green", "blue")]
    rg, rb, gb = covariance = [scaled[f"{a}_{b}"] - scaled[a] * scaled[b] for a, b in pairs]
    spread = variance["red"] + variance["green"] - 2 * rg
    spread += (variance["red"] + variance["green"] + 2 * rg) / 4 + variance["blue"] - rb - gb
    red_green, yellow_blue = found["red"] - found["green"], (found["red"] + found["green"]) / 2 - found["blue"]
    return {
        **found,
        "colourfulness": np.sqrt(np.maximum(spread, 0)) + 0.3 * np.hypot(red_green, yellow_blue),
        "saturation": sums["saturation"] / (height * width),
        "channel_correlation": np.mean([_correlation(c, variance[a], variance[b])
                                        for c, (a, b) in zip(covariance, pairs, strict=True)], axis=0),
    }  # fmt: skip


_COLOUR_POWERS = {name: 3 if name.endswith("cube") else 2 if "_" in name else 1 for name in SUMS[SUMS.index("red"):]}


def _correlation(covariance: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation from covariance and variances; 1 where one of them is constant."""
    varied = (a > _FLAT) & (b > _FLAT)
    return np.clip(np.where(varied, covariance / np.sqrt(np.where(varied, a * b, 1)), 1), -1, 1)


def _channel_correlation(planes: np.ndarray) -> np.ndarray:
    """Mean correlation over the pairs of any number of channels."""
    flat = planes.reshape(*planes.shape[:2], -1).astype(np.float64)
    flat = flat - flat.mean(axis=2, keepdims=True)
    covariance = np.einsum("ncp,ndp->ncd", flat, flat) / flat.shape[2]
    variance = np.einsum("ncc->nc", covariance)
    first, second = np.triu_indices(planes.shape[1], 1)
    return _correlation(covariance[:, first, second], variance[:, first], variance[:, second]).mean(axis=1)


def _cooccurrence(pairs: np.ndarray, height: int, width: int) -> dict[str, np.ndarray]:
    """Haralick's properties of the symmetric matrices, averaged over four directions, at distances 1 and 3."""
    total = np.array([(height - dy) * (width - abs(dx)) for dy, dx in STEPS], np.float64)
    contrast, dissimilarity, homogeneity, square, ends, squares = np.moveaxis(pairs, 2, 0) / np.maximum(total, 1)
    mean = ends / 2
    variance = squares / 2 - mean**2
    covariance = (squares - contrast) / 2 - mean**2
    flat = variance < 1e-9  # then correlation is 1, as scikit-image has it
    values = {
        "contrast": contrast, "dissimilarity": dissimilarity, "homogeneity": homogeneity,
        "energy": np.sqrt(square / np.maximum(total, 1)),
        "correlation": np.where(flat, 1, covariance / np.where(flat, 1, variance)),
    }  # fmt: skip
    near = {f"glcm_{name}": values[name][:, :4].mean(axis=1) for name in GLCM}
    far = {f"glcm_{name}_3": values[name][:, 4:].mean(axis=1) for name in GLCM}
    spread = contrast[:, :4].max(axis=1) - contrast[:, :4].min(axis=1)
    return {**near, **far, "glcm_anisotropy": ratio(spread, contrast[:, :4].sum(axis=1))}


def _differences(sums: dict, height: int, width: int) -> dict[str, np.ndarray]:
    """From first and second differences of the inner pixels."""
    inner = (height - 2) * (width - 2)
    xx, yy, xy = (sums[name] / inner / (2 * UNIT) ** 2 for name in ("dx_dx", "dy_dy", "dx_dy"))
    return {
        "gradient_energy": xx + yy,
        "gradient_mean": sums["slope"] / inner / (2 * UNIT),
        "orientation_coherence": ratio(np.sqrt((xx - yy) ** 2 + 4 * xy**2), xx + yy),
        "laplacian_energy": sums["laplacian"] / inner / UNIT**2,
        "noise_sigma": np.sqrt(np.pi / 2) / 6 * sums["noise"] / inner / UNIT,
        "blockiness": _blockiness(sums, height, width),
    }


def _blockiness(sums: dict, height: int, width: int) -> np.ndarray:
    """Mean step across every 8th pixel border over the mean step elsewhere; 1 where there is no such border."""
    at_borders = elsewhere = np.zeros(len(sums["step_x"]))
    for axis, size, other in (("x", width, height), ("y", height, width)):
        borders = (size - 1) // 8
        if borders:
            at_borders = at_borders + sums[f"border_{axis}"] / (borders * other * UNIT)
            rest = sums[f"step_{axis}"] - sums[f"border_{axis}"]
            elsewhere = elsewhere + rest / ((size - 1 - borders) * other * UNIT)
    return np.where(elsewhere < 1e-6, 1, at_borders / np.maximum(elsewhere, 1e-6))


@lru_cache(maxsize=16)
def _rings(height: int, width: int) -> Rings:
    """The rings of frequencies of an image, in the order of its transform: (width, height // 2 + 1) coefficients."""
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]).astype(np.float32)
    fy = np.fft.rfftfreq(height)
    radius = np.hypot(np.fft.fftfreq(width)[:, None], fy[None]) * min(height, width)
    ring = np.rint(radius).astype(int).ravel()
    twice = np.broadcast_to(np.where((fy > 0) & (fy < 0.5), 2, 1), radius.shape).ravel()  # one of each pair is kept
    order = np.argsort(ring, kind="stable").astype(np.int32)
    order = order[(ring[order] >= 1) & (ring[order] <= min(height, width) // 2)]
    starts = np.flatnonzero(np.diff(ring[order], prepend=0)).astype(np.int32)
    weight = twice[order].astype(np.float32)
    return Rings(window, order, weight, starts, np.add.reduceat(weight, starts), ring[order][starts])


def _spectrum(power: np.ndarray, constant: np.ndarray, rings: Rings) -> dict[str, np.ndarray]:
    """Slope of log ring power over log frequency, rings weighing by their size (the inner ones are few coefficients
    and lose to the removal of the mean), and the share of power above half the Nyquist frequency."""
    total = power / UNIT**2
    total[constant] = 0
    x = np.log(rings.radius) - np.average(np.log(rings.radius), weights=rings.size)
    high = rings.radius > min(rings.window.shape) / 4
    return {
        "spectrum_slope": (np.log(total / rings.size + 1e-12) * (rings.size * x)).sum(axis=1) / (rings.size @ x**2),
        "spectrum_high": ratio(total[:, high].sum(axis=1), total.sum(axis=1)),
    }


def _hash(cells: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Difference hash of 16 x 17 cells, uint8 (n, 32): is a cell brighter than its right neighbour?"""
    steps = np.diff(cells, axis=2) * 255 > _HASH_STEP * np.maximum(span, 1e-6)[:, None, None]
    return np.packbits(steps.reshape(len(cells), -1), axis=1)
