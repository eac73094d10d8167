"""All statistics of images against the same families from scikit-image and scipy, image by image, on one core."""

from __future__ import annotations

import numpy as np

from benchmarks.speed.timing import bar, in_turn, seconds
from metamed.dataset import ArrayImages, Dataset
from metamed.metafeatures import METAFEATURES, extract
from metamed.metafeatures.kernels import COMPILED, image_statistics

GROUPS = ("intensity", "texture")
ANGLES = (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
IMMERKAER = np.outer([1, -2, 1], [1, -2, 1])


def textured(n: int, side: int, seed: int = 0) -> np.ndarray:
    """Images like tissue: noise of amplitude 1/f^1.2 in each channel, about a common structure, uint8 (n, 3, H, W)."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    frequency[0, 0] = 1
    noise = np.fft.irfft2(np.exp(2j * np.pi * rng.random((n, 4, *frequency.shape))) / frequency**1.2, s=(side, side))
    images = noise[:, :1] + 0.5 * noise[:, 1:]
    return np.clip(images / images.std() * 40 + 128, 0, 255).astype(np.uint8)


def peers_values(images: np.ndarray) -> dict[str, float]:
    """What `extract` gives for GROUPS, from scikit-image and scipy."""
    rows = [_values(image) for image in images]
    histograms = np.array([row.pop("histogram") for row in rows])
    spread = np.abs(histograms - histograms.mean(axis=0)).sum(axis=1) / 2
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]} | {"histogram_spread": spread}
    return {f"{name}.{moment}": value for name, column in table.items()
            for moment, value in (("mean", column.mean()), ("sd", column.std()))}  # fmt: skip


def _values(image: np.ndarray) -> dict[str, float]:
    """All statistics of one RGB image (3, H, W)."""
    level = np.tensordot([0.299, 0.587, 0.114], image, 1) / 255
    code = np.floor(level * 255 + 0.500483).astype(np.uint8)
    return {**_intensity(level, code), **_colour(image), **_cooccurrence(code), **_patterns(code), **_texture(level)}


def _intensity(level: np.ndarray, code: np.ndarray) -> dict:
    from scipy import stats
    from skimage.filters import threshold_otsu
    from skimage.measure import shannon_entropy

    quantiles = np.percentile(level, [1, 5, 25, 50, 75, 95, 99])
    histogram = np.bincount(code.ravel(), minlength=256) / code.size
    above = code > threshold_otsu(code)
    share, codes = above.mean(), code / 255
    mode = histogram.argmax()
    names = ("quantile_01", "quantile_05", "quantile_25", "median", "quantile_75", "quantile_95", "quantile_99")
    return {
        "brightness": level.mean(), "contrast": level.std(), "minimum": level.min(), "maximum": level.max(),
        "skewness": stats.skew(level, axis=None), "kurtosis": stats.kurtosis(level, axis=None),
        **dict(zip(names, quantiles, strict=True)), "dynamic_range": quantiles[5] - quantiles[1],
        "entropy": shannon_entropy(code), "clipped": histogram[0] + histogram[255], "histogram": histogram,
        "background": histogram[max(mode - 3, 0) : mode + 4].sum(),
        "otsu_separability": share * (1 - share) * (codes[above].mean() - codes[~above].mean()) ** 2 / codes.var(),
    }  # fmt: skip


def _colour(image: np.ndarray) -> dict:
    from scipy import stats
    from skimage.color import rgb2hsv

    red, green, blue = planes = image / 255
    flat = planes.reshape(3, -1)
    opponents = red - green, (red + green) / 2 - blue
    moments = {"": flat.mean(axis=1), "_sd": flat.std(axis=1), "_skewness": stats.skew(flat, axis=1)}
    return {
        **{f"{name}{moment}": values[k] for moment, values in moments.items()
           for k, name in enumerate(("red", "green", "blue"))},
        "colourfulness": np.hypot(*(o.std() for o in opponents)) + 0.3 * np.hypot(*(o.mean() for o in opponents)),
        "saturation": rgb2hsv(image, channel_axis=0)[1].mean(),
        "channel_correlation": np.corrcoef(flat)[np.triu_indices(3, 1)].mean(),
    }  # fmt: skip


def _cooccurrence(code: np.ndarray) -> dict:
    from skimage.feature import graycomatrix, graycoprops

    matrix = graycomatrix(code >> 3, [1, 3], ANGLES, levels=32, symmetric=True, normed=True)
    names = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation")
    values = {name: graycoprops(matrix, name) for name in names}
    contrast = values["contrast"][0]
    return {
        **{f"glcm_{name}": value[0].mean() for name, value in values.items()},
        **{f"glcm_{name}_3": value[1].mean() for name, value in values.items()},
        "glcm_anisotropy": np.ptp(contrast) / contrast.sum(),
    }  # fmt: skip


def _patterns(code: np.ndarray) -> dict:
    from skimage.feature import local_binary_pattern

    inner = local_binary_pattern(code, 8, 1, "uniform")[1:-1, 1:-1].astype(int)
    p = np.bincount(inner.ravel(), minlength=10) / inner.size
    return {"lbp_entropy": -(p[p > 0] * np.log2(p[p > 0])).sum(), "lbp_energy": (p**2).sum(), "lbp_flat": p[8],
            "lbp_uniformity": 1 - p[9], "lbp_spot": p[0], "lbp_edge": p[3:6].sum()}  # fmt: skip


def _texture(level: np.ndarray) -> dict:
    from scipy.ndimage import convolve, laplace

    inner = (slice(1, -1), slice(1, -1))
    dy, dx = (d[inner] for d in np.gradient(level))
    xx, yy, xy = (dx**2).mean(), (dy**2).mean(), (dx * dy).mean()
    laplacian = (laplace(level)[inner] ** 2).mean()
    noise = np.sqrt(np.pi / 2) / 6 * np.abs(convolve(level, IMMERKAER)[inner]).mean()
    return {
        "gradient_energy": xx + yy, "gradient_mean": np.hypot(dx, dy).mean(), "laplacian_energy": laplacian,
        "orientation_coherence": np.hypot(xx - yy, 2 * xy) / (xx + yy), "fineness": laplacian / (xx + yy),
        "noise_sigma": noise, "noise_ratio": noise / level.std(), **_spectrum(level), **_steps(level),
    }  # fmt: skip


def _spectrum(level: np.ndarray) -> dict:
    from scipy.fft import rfft2

    height, width = level.shape
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    power = np.abs(rfft2((level - (level * window).sum() / window.sum()) * window)) ** 2
    twice = np.full(power.shape, 2)
    twice[:, 0] = 1
    twice[:, -1] -= width % 2 == 0
    ring = np.rint(np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)) * min(height, width)).astype(int)
    total = np.bincount(ring.ravel(), (power * twice).ravel())
    size = np.bincount(ring.ravel(), twice.ravel())
    rings = np.arange(1, min(height, width) // 2 + 1)
    slope = np.polyfit(np.log(rings), np.log(total[rings] / size[rings] + 1e-12), 1, w=np.sqrt(size[rings]))[0]
    high = total[rings][rings > min(height, width) / 4].sum()
    return {"spectrum_slope": slope, "spectrum_high": high / total[rings].sum()}


def _steps(level: np.ndarray) -> dict:
    z = level - level.mean()
    pairs = z[1:].size + z[:, 1:].size
    moran = ((z[1:] * z[:-1]).sum() + (z[:, 1:] * z[:, :-1]).sum()) / pairs / (z**2).mean()
    at_borders = elsewhere = 0
    for axis in (0, 1):
        step = np.abs(np.diff(level, axis=axis)).mean(axis=1 - axis)
        border = np.arange(1, len(step) + 1) % 8 == 0
        at_borders, elsewhere = at_borders + step[border].mean(), elsewhere + step[~border].mean()
    return {"moran": moran, "blockiness": at_borders / elsewhere}


def _compare(n: int, side: int) -> tuple[float, float]:
    images = textured(n, side)
    dataset = Dataset("textured", ArrayImages(images))
    ours, peers = extract(dataset, GROUPS, max_samples=None), peers_values(images)
    assert len([f for f in METAFEATURES.values() if f.group in GROUPS and f.per_image]) >= 55
    assert ours.keys() == peers.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], peers[name], rtol=1e-5, atol=1e-9, err_msg=name)

    def work() -> dict:
        return extract(dataset, GROUPS, max_samples=None)

    return in_turn(lambda: seconds(work), lambda: seconds(lambda: peers_values(images)))


@bar(faster=40)
def statistics_28() -> tuple[float, float]:
    """59 statistics of each of 1000 RGB images of 28 x 28, equal to 1e-5, against scikit-image and scipy."""
    return _compare(1000, 28)


@bar(faster=12)
def statistics_224() -> tuple[float, float]:
    """59 statistics of each of 40 RGB images of 224 x 224, equal to 1e-5, against scikit-image and scipy."""
    return _compare(40, 224)


@bar(faster=10)
def statistics_512() -> tuple[float, float]:
    """59 statistics of each of 8 RGB images of 512 x 512, equal to 1e-5, against scikit-image and scipy."""
    return _compare(8, 512)


@bar(faster=4)
def kernel_224() -> tuple[float, float]:
    """Statistics of 40 RGB images of 224 x 224 by the compiled kernel, against numpy, the fall-back without it."""
    images = textured(40, 224)
    return in_turn(*(lambda by=by: seconds(lambda: image_statistics(images, 0, 255, by)) for by in (COMPILED, None)))
