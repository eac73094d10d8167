"""One pass over pixels: every statistic of every image in a block. The one place to make faster.

`image_statistics` is the whole contract: a compiled kernel has to give the same dictionary. Everything is computed
per image and element by element, so that an image's values do not depend on the images around it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from metamed.dataset import grey, shrink, thumbnail_hashes

THUMBNAIL = 16  # side of a thumbnail
LEVELS = 256  # grey levels of the histogram and of local patterns
GLCM_LEVELS = 32
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_FLAT = 1e-12  # variance (of grey in 0-1) below which an image counts as constant: float32 leaves about 1e-15
HALF = 0.500483  # rounds up from here: luma comes in thousandths, whose ties a plain .5 would leave to float noise


def image_statistics(images: np.ndarray, low: float, span: float) -> dict[str, np.ndarray]:
    """Statistics of each image (n, C, H, W), whose values minus `low` over `span` lie in 0-1.

    Keys: scalars (n,), `quantiles` (n, 5), `histogram` (n, 256) and `patterns` (n, 10) as proportions,
    `thumbnail` (n, 16, 16), `hash` uint8 (n, 32). Images below 4 pixels a side are continued by their border.
    """
    planes = (images.astype(np.float32) - np.float32(low)) / np.float32(span)
    missing = [(0, max(0, 4 - side)) for side in planes.shape[2:]]
    if any(after for _, after in missing):
        planes = np.pad(planes, ((0, 0), (0, 0), *missing), mode="edge")
    level = grey(planes)
    quantised = np.clip(level * 255 + np.float32(HALF), 0, 255).astype(np.uint8)
    centred, moments = _moments(level)
    return {
        **moments,
        "quantiles": _quantiles(level),
        "histogram": _proportions(quantised, LEVELS),
        **_colour(planes),
        **_cooccurrence(quantised >> 3),
        "patterns": _proportions(local_patterns(quantised), 10),
        **_gradients(level),
        **_autocorrelation(centred, moments["variance"]),
        **_spectrum(centred),
        "thumbnail": shrink(level, THUMBNAIL, THUMBNAIL),
        "hash": thumbnail_hashes(level[:, None]),
    }


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over everything but the first axis, per image."""
    return values.reshape(len(values), -1).mean(axis=1)


def ratio(numerator: np.ndarray, denominator: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
    """numerator / denominator, `otherwise` where the denominator is practically zero."""
    out = np.full(np.broadcast(numerator, denominator).shape, otherwise, np.float64)
    return np.divide(numerator, denominator, out=out, where=np.abs(denominator) > _FLAT)


def _proportions(codes: np.ndarray, n_codes: int) -> np.ndarray:
    """Share of each code 0 .. n_codes - 1 in each image, (n, n_codes)."""
    n = len(codes)
    flat = codes.reshape(n, -1) + (np.arange(n) * n_codes)[:, None]
    return np.bincount(flat.ravel(), minlength=n * n_codes).reshape(n, n_codes) / flat.shape[1]


def _moments(level: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    mean = _mean(level)
    centred = level - mean[:, None, None]
    square = centred * centred
    variance = _mean(square)
    constant = variance < _FLAT
    centred[constant] = 0
    variance[constant] = 0
    return centred, {
        "mean": mean,
        "variance": variance,
        "skewness": ratio(_mean(square * centred), variance.astype(np.float64) ** 1.5),
        "kurtosis": np.where(constant, 0, ratio(_mean(square * square), variance.astype(np.float64) ** 2, 3) - 3),
    }


def _quantiles(level: np.ndarray) -> np.ndarray:
    """Quantiles between the two nearest pixels, as numpy.percentile."""
    ordered = np.sort(level.reshape(len(level), -1), axis=1)
    place = np.array(QUANTILES) * (ordered.shape[1] - 1)
    below = place.astype(int)
    above = np.minimum(below + 1, ordered.shape[1] - 1)
    return ordered[:, below] + (ordered[:, above] - ordered[:, below]) * (place - below).astype(np.float32)


def _colour(planes: np.ndarray) -> dict[str, np.ndarray]:
    """Of RGB; a single channel is read as R = G = B, so that a grey image has the same colour however it is stored."""
    names = ("red", "green", "blue", "colourfulness", "saturation")
    n, channels = planes.shape[:2]
    if channels == 1:
        mean, zero = _mean(planes), np.zeros(n)
        return dict(zip(names, (mean, mean, mean, zero, zero), strict=True)) | {"channel_correlation": np.ones(n)}
    if channels != 3:
        return dict.fromkeys(names, np.full(n, np.nan)) | {"channel_correlation": _channel_correlation(planes)}
    red, green, blue = planes[:, 0], planes[:, 1], planes[:, 2]
    opponents = red - green, (red + green) / 2 - blue
    means = [_mean(o) for o in opponents]
    variances = [_mean((o - m[:, None, None]) ** 2) for o, m in zip(opponents, means, strict=True)]
    largest = np.maximum(np.maximum(red, green), blue)
    chroma = largest - np.minimum(np.minimum(red, green), blue)
    return {
        "red": _mean(red),
        "green": _mean(green),
        "blue": _mean(blue),
        "colourfulness": np.sqrt(sum(variances)) + 0.3 * np.hypot(*means),
        "saturation": _mean(np.divide(chroma, largest, out=np.zeros_like(chroma), where=largest > 0)),
        "channel_correlation": _channel_correlation(planes),
    }


def _channel_correlation(planes: np.ndarray) -> np.ndarray:
    """Mean Pearson correlation over the pairs of channels; 1 for a pair with a constant channel."""
    n, channels = planes.shape[:2]
    flat = planes.reshape(n, channels, -1)
    flat = flat - flat.mean(axis=2, keepdims=True)
    covariance = np.einsum("ncp,ndp->ncd", flat, flat) / flat.shape[2]
    variance = np.einsum("ncc->nc", covariance).astype(np.float64)
    first, second = np.triu_indices(channels, 1)
    product = variance[:, first] * variance[:, second]
    varied = (variance[:, first] > _FLAT) & (variance[:, second] > _FLAT)
    correlation = np.divide(covariance[:, first, second], np.sqrt(product), out=np.ones_like(product), where=varied)
    return np.clip(correlation, -1, 1).mean(axis=1)


@lru_cache(maxsize=1)
def _cooccurrence_weights() -> np.ndarray:
    """Columns that turn a flat co-occurrence matrix into contrast, dissimilarity, homogeneity, and its moments."""
    i, j = np.indices((GLCM_LEVELS, GLCM_LEVELS)).reshape(2, -1).astype(np.float64)
    d = i - j
    return np.stack([d * d, abs(d), 1 / (1 + d * d), (i + j) / 2, (i * i + j * j) / 2, i * j], axis=1)


def _cooccurrence(levels: np.ndarray) -> dict[str, np.ndarray]:
    """Properties of the symmetric co-occurrence matrices at distance 1, averaged over four directions."""
    n, height, width = levels.shape
    levels = levels.astype(np.int32)
    first = levels * GLCM_LEVELS + (np.arange(n, dtype=np.int32) * GLCM_LEVELS**2)[:, None, None]
    total = 0
    for dy, dx in ((0, 1), (1, 1), (1, 0), (1, -1)):
        left, right = max(0, -dx), width - max(0, dx)
        pairs = first[:, : height - dy, left:right] + levels[:, dy:, left + dx : right + dx]
        counts = np.bincount(pairs.ravel(), minlength=n * GLCM_LEVELS**2).reshape(n, -1)
        total = total + _cooccurrence_properties(counts / pairs[0].size)
    names = ("glcm_contrast", "glcm_dissimilarity", "glcm_homogeneity", "glcm_energy", "glcm_correlation")
    return dict(zip(names, total / 4, strict=True))


def _cooccurrence_properties(matrix: np.ndarray) -> np.ndarray:
    """(5, n) from one-directional matrices (n, levels^2). Only energy needs them made symmetric: (P + P') / 2."""
    contrast, dissimilarity, homogeneity, mean, square, product = (matrix @ _cooccurrence_weights()).T
    cube = matrix.reshape(-1, GLCM_LEVELS, GLCM_LEVELS)
    energy = np.sqrt((np.einsum("nij,nij->n", cube, cube) + np.einsum("nij,nji->n", cube, cube)) / 2)
    variance = square - mean**2
    correlation = np.where(variance < 1e-9, 1, ratio(product - mean**2, variance, 1))  # 1 if constant, as scikit-image
    return np.stack([contrast, dissimilarity, homogeneity, energy, correlation])


def local_patterns(quantised: np.ndarray) -> np.ndarray:
    """Uniform local binary patterns (8 points, radius 1) of the inner pixels, uint8 (n, H-2, W-2) in 0-9.

    The diagonal points lie at 0.70711 pixels and are interpolated. With integers the comparison is exact: on flat
    ground, where interpolating in floating point decides by rounding noise, a point equals its centre.
    """
    a = quantised.astype(np.int32)
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


def _gradients(level: np.ndarray) -> dict[str, np.ndarray]:
    """From first and second differences of the inner pixels."""
    dx = (level[:, 1:-1, 2:] - level[:, 1:-1, :-2]) / 2
    dy = (level[:, 2:, 1:-1] - level[:, :-2, 1:-1]) / 2
    xx, yy, xy = _mean(dx * dx), _mean(dy * dy), _mean(dx * dy)
    bend = level[:, :, 2:] - 2 * level[:, :, 1:-1] + level[:, :, :-2]
    bend_y = level[:, 2:, 1:-1] - 2 * level[:, 1:-1, 1:-1] + level[:, :-2, 1:-1]
    laplacian = bend[:, 1:-1] + bend_y
    noise = bend[:, 2:] - 2 * bend[:, 1:-1] + bend[:, :-2]
    return {
        "gradient_energy": xx + yy,
        "orientation_coherence": ratio(np.sqrt((xx - yy) ** 2 + 4 * xy**2), xx + yy),
        "laplacian_energy": _mean(laplacian * laplacian),
        "noise_sigma": np.sqrt(np.pi / 2) / 6 * _mean(np.abs(noise)),
        "blockiness": _blockiness(level),
    }


def _blockiness(level: np.ndarray) -> np.ndarray:
    """Mean step across every 8th pixel border over the mean step elsewhere; 1 where there is no such border."""
    steps = []
    for axis in (1, 2):
        step = np.abs(np.diff(level, axis=axis)).mean(axis=3 - axis)
        border = np.arange(1, step.shape[1] + 1) % 8 == 0
        if border.any():
            steps.append((step[:, border].mean(axis=1), step[:, ~border].mean(axis=1)))
    if not steps:
        return np.ones(len(level))
    at_borders, elsewhere = np.sum(steps, axis=0)
    return np.where(elsewhere < 1e-6, 1, ratio(at_borders, elsewhere, 1))


def _autocorrelation(centred: np.ndarray, variance: np.ndarray) -> dict[str, np.ndarray]:
    """Moran's I with the four nearest neighbours; 0 for a constant image."""
    n, height, width = centred.shape
    products = _mean(centred[:, 1:] * centred[:, :-1]) * (height - 1) * width
    products = products + _mean(centred[:, :, 1:] * centred[:, :, :-1]) * height * (width - 1)
    return {"moran": ratio(products / ((height - 1) * width + height * (width - 1)), variance)}


@lru_cache(maxsize=16)
def _rings(height: int, width: int) -> tuple[np.ndarray, ...]:
    """A Hann window, the frequencies sorted by ring, where rings start, their sizes and their log frequencies."""
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]).astype(np.float32)
    fx = np.fft.rfftfreq(width)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], fx[None]) * min(height, width)
    ring = np.rint(radius).astype(int).ravel()
    twice = np.broadcast_to(np.where((fx > 0) & (fx < 0.5), 2, 1), radius.shape).ravel()  # rfft keeps one of each pair
    order = np.argsort(ring, kind="stable")
    order = order[(ring[order] >= 1) & (ring[order] <= min(height, width) // 2)]
    starts = np.flatnonzero(np.diff(ring[order], prepend=0))
    weight = twice[order].astype(np.float32)
    log_frequency = np.log(ring[order][starts])
    return window, order, starts, weight, np.add.reduceat(weight, starts), log_frequency


def _spectrum(centred: np.ndarray) -> dict[str, np.ndarray]:
    """Slope of log ring power over log frequency, rings weighing by their size (the inner ones are few coefficients
    and lose to the removal of the mean), and the share of power above half the Nyquist frequency."""
    window, order, starts, weight, size, log_frequency = _rings(*centred.shape[1:])
    centred = centred - (_mean(centred * window) / window.mean())[:, None, None]
    spectrum = np.fft.rfft2(centred * window).reshape(len(centred), -1)[:, order]
    total = np.add.reduceat((spectrum.real**2 + spectrum.imag**2) * weight, starts, axis=1).astype(np.float64)
    x = log_frequency - np.average(log_frequency, weights=size)
    high = np.exp(log_frequency) > min(window.shape) / 4
    return {
        "spectrum_slope": np.log(total / size + 1e-12) @ (size * x) / (size @ x**2),
        "spectrum_high": ratio(total[:, high].sum(axis=1), total.sum(axis=1)),
    }
