"""Grey levels and colour of each image. Grey is ITU-R 601 luma in 0-1."""

from __future__ import annotations

import numpy as np

from metamed.errors import NotApplicable
from metamed.metafeatures import metafeature
from metamed.metafeatures.kernels import ratio
from metamed.metafeatures.probe import Probe


def _colour(probe: Probe, name: str) -> np.ndarray:
    values = probe.statistics[name]
    if np.isnan(values).any():
        raise NotApplicable(f"{probe.dataset.name} has neither 1 nor 3 channels")
    return values


@metafeature("intensity")
def brightness(probe: Probe) -> np.ndarray:
    """Mean grey level.

    unit: grey (0-1); range: 0 to 1; cost: pixels; needs: images; source: van Sonsbeek & Cheplygina 2020.
    """
    return probe.statistics["mean"]


@metafeature("intensity")
def contrast(probe: Probe) -> np.ndarray:
    """Standard deviation of the grey levels (RMS contrast).

    unit: grey (0-1); range: 0 to 0.5; cost: pixels; needs: images; source: Peli 1990.
    """
    return np.sqrt(probe.statistics["variance"])


@metafeature("intensity")
def skewness(probe: Probe) -> np.ndarray:
    """Skewness of the grey levels, m3 / m2^1.5; 0 for a constant image.

    unit: none; range: -inf to inf; cost: pixels; needs: images; source: van Sonsbeek & Cheplygina 2020.
    """
    return probe.statistics["skewness"]


@metafeature("intensity")
def kurtosis(probe: Probe) -> np.ndarray:
    """Excess kurtosis of the grey levels, m4 / m2^2 - 3; 0 for a normal distribution and for a constant image.

    unit: none; range: -2 to inf; cost: pixels; needs: images; source: van Sonsbeek & Cheplygina 2020.
    """
    return probe.statistics["kurtosis"]


@metafeature("intensity")
def entropy(probe: Probe) -> np.ndarray:
    """Shannon entropy of each image's grey-level histogram (256 levels).

    unit: bits; range: 0 to 8; cost: pixels; needs: images; source: Shannon 1948.
    """
    p = probe.histograms
    return -(p * np.log2(np.where(p > 0, p, 1))).sum(axis=1) + 0.0


@metafeature("intensity")
def minimum(probe: Probe) -> np.ndarray:
    """Smallest grey level.

    unit: grey (0-1); range: 0 to 1; cost: pixels; needs: images; source: Isensee et al. 2021 (nnU-Net fingerprint).
    """
    return probe.statistics["minimum"]


@metafeature("intensity")
def quantile_01(probe: Probe) -> np.ndarray:
    """Grey level that 1 % of the pixels stay below.

    unit: grey (0-1); range: 0 to 1; cost: pixels; needs: images; source: Isensee et al. 2021 (nnU-Net fingerprint).
    """
    return probe.statistics["quantiles"][:, 0]


@metafeature("intensity")
def quantile_05(probe: Probe) -> np.ndarray:
    """Grey level that 5 % of the pixels stay below.

    unit: grey (0-1); range: 0 to 1; cost: pixels; needs: images; source: Isensee et al. 2021 (nnU-Net fingerprint).
    """
    return probe.statistics["quantiles"][:, 1]


@metafeature("intensity")
def quantile_25(probe: Probe) -> np.ndarray:
    """Grey level that a quarter of the pixels stay below.

    unit: grey (0-1); range: 0 to 1; cost: pixels; needs: images; source: Zwanenburg et al. 2020 (IBSI).
    """
    return probe.statistics["quantiles"][:, 2]


@metafeature("intensity")
def median(probe: Probe) -> np.ndarray:
    """Median grey level.

    unit: grey (0-1); range: 0 to 1; cost: pixels; needs: images; source: Isensee et al. 2021 (nnU-Net fingerprint).
    """
    return probe.statistics["quantiles"][:, 3]


@metafeature("intensity")
def quantile_75(probe: Probe) -> np.ndarray:
    """Grey level that three quarters of the pixels stay below.

    unit: grey (0-1); range: 0 to 1; cost: pixels; needs: images; source: Zwanenburg et al. 2020 (IBSI).
    """
    return probe.statistics["quantiles"][:, 4]


@metafeature("intensity")
def quantile_95(probe: Probe) -> np.ndarray:
    """Grey level that 95 % of the pixels stay below.

    unit: grey (0-1); range: 0 to 1; cost: pixels; needs: images; source: Isensee et al. 2021 (nnU-Net fingerprint).
    """
    return probe.statistics["quantiles"][:, 5]


@metafeature("intensity")
def quantile_99(probe: Probe) -> np.ndarray:
    """Grey level that 99 % of the pixels stay below.

    unit: grey (0-1); range: 0 to 1; cost: pixels; needs: images; source: Isensee et al. 2021 (nnU-Net fingerprint).
    """
    return probe.statistics["quantiles"][:, 6]


@metafeature("intensity")
def maximum(probe: Probe) -> np.ndarray:
    """Largest grey level.

    unit: grey (0-1); range: 0 to 1; cost: pixels; needs: images; source: Isensee et al. 2021 (nnU-Net fingerprint).
    """
    return probe.statistics["maximum"]


@metafeature("intensity")
def dynamic_range(probe: Probe) -> np.ndarray:
    """Distance between the 5 % and the 95 % quantile.

    unit: grey (0-1); range: 0 to 1; cost: pixels; needs: images; source: Zwanenburg et al. 2020 (IBSI).
    """
    quantiles = probe.statistics["quantiles"]
    return quantiles[:, 5] - quantiles[:, 1]


@metafeature("intensity")
def clipped(probe: Probe) -> np.ndarray:
    """Share of pixels at the darkest or the brightest of 256 levels: saturated, or an empty border.

    unit: share; range: 0 to 1; cost: pixels; needs: images; source: here.
    """
    return probe.histograms[:, 0] + probe.histograms[:, -1]


@metafeature("intensity")
def background(probe: Probe) -> np.ndarray:
    """Share of pixels within 3 of 255 levels of the image's most frequent level: how much of it is one tone.

    unit: share; range: 0 to 1; cost: pixels; needs: images; source: here.
    """
    cumulated = np.pad(np.cumsum(probe.histograms, axis=1), ((0, 0), (1, 0)))
    mode = probe.histograms.argmax(axis=1)
    image = np.arange(len(mode))
    return cumulated[image, np.minimum(mode + 4, 256)] - cumulated[image, np.maximum(mode - 3, 0)]


@metafeature("intensity")
def otsu_separability(probe: Probe) -> np.ndarray:
    """Variance between the two classes of Otsu's threshold over the variance of all grey levels; 0 if constant.

    unit: share; range: 0 to 1; cost: pixels; needs: images; source: Otsu 1979.
    """
    p, levels = probe.histograms, np.arange(256) / 255
    weight, moment = np.cumsum(p, axis=1)[:, :-1], np.cumsum(p * levels, axis=1)
    total = moment[:, -1:]
    between = ratio((total * weight - moment[:, :-1]) ** 2, weight * (1 - weight)).max(axis=1)
    return np.minimum(ratio(between, p @ levels**2 - total[:, 0] ** 2), 1)


@metafeature("intensity")
def histogram_spread(probe: Probe) -> np.ndarray:
    """Half the L1 distance of each image's histogram from the dataset's: how unlike the images are in tone.

    unit: share; range: 0 to 1; cost: pixels; needs: images; source: Swain & Ballard 1991 (histogram intersection).
    """
    off = probe.histograms - probe.histograms.mean(axis=0, dtype=np.float64).astype(probe.histograms.dtype)
    return np.abs(off, out=off).sum(axis=1, dtype=np.float64) / 2


@metafeature("intensity")
def red(probe: Probe) -> np.ndarray:
    """Mean of the red channel; of the grey one where there is a single channel.

    unit: level (0-1); range: 0 to 1; cost: pixels; needs: colour; source: Stricker & Orengo 1995 (colour moments).
    """
    return _colour(probe, "red")


@metafeature("intensity")
def green(probe: Probe) -> np.ndarray:
    """Mean of the green channel; of the grey one where there is a single channel.

    unit: level (0-1); range: 0 to 1; cost: pixels; needs: colour; source: Stricker & Orengo 1995 (colour moments).
    """
    return _colour(probe, "green")


@metafeature("intensity")
def blue(probe: Probe) -> np.ndarray:
    """Mean of the blue channel; of the grey one where there is a single channel.

    unit: level (0-1); range: 0 to 1; cost: pixels; needs: colour; source: Stricker & Orengo 1995 (colour moments).
    """
    return _colour(probe, "blue")


@metafeature("intensity")
def red_sd(probe: Probe) -> np.ndarray:
    """Standard deviation of the red channel; of the grey one where there is a single channel.

    unit: level (0-1); range: 0 to 0.5; cost: pixels; needs: colour; source: Stricker & Orengo 1995.
    """
    return _colour(probe, "red_sd")


@metafeature("intensity")
def green_sd(probe: Probe) -> np.ndarray:
    """Standard deviation of the green channel; of the grey one where there is a single channel.

    unit: level (0-1); range: 0 to 0.5; cost: pixels; needs: colour; source: Stricker & Orengo 1995.
    """
    return _colour(probe, "green_sd")


@metafeature("intensity")
def blue_sd(probe: Probe) -> np.ndarray:
    """Standard deviation of the blue channel; of the grey one where there is a single channel.

    unit: level (0-1); range: 0 to 0.5; cost: pixels; needs: colour; source: Stricker & Orengo 1995.
    """
    return _colour(probe, "blue_sd")


@metafeature("intensity")
def red_skewness(probe: Probe) -> np.ndarray:
    """Skewness of the red channel, of the grey one where there is a single channel; 0 if constant.

    unit: none; range: -inf to inf; cost: pixels; needs: colour; source: Stricker & Orengo 1995.
    """
    return _colour(probe, "red_skewness")


@metafeature("intensity")
def green_skewness(probe: Probe) -> np.ndarray:
    """Skewness of the green channel, of the grey one where there is a single channel; 0 if constant.

    unit: none; range: -inf to inf; cost: pixels; needs: colour; source: Stricker & Orengo 1995.
    """
    return _colour(probe, "green_skewness")


@metafeature("intensity")
def blue_skewness(probe: Probe) -> np.ndarray:
    """Skewness of the blue channel, of the grey one where there is a single channel; 0 if constant.

    unit: none; range: -inf to inf; cost: pixels; needs: colour; source: Stricker & Orengo 1995.
    """
    return _colour(probe, "blue_skewness")


@metafeature("intensity")
def colourfulness(probe: Probe) -> np.ndarray:
    """Spread plus 0.3 times the mean of the opponent colours red-green and yellow-blue; 0 for grey.

    unit: level (0-1, a 255th of the paper's); range: 0 to 2; cost: pixels; needs: colour;
    source: Hasler & Suesstrunk 2003.
    """
    return _colour(probe, "colourfulness")


@metafeature("intensity")
def saturation(probe: Probe) -> np.ndarray:
    """Mean saturation of HSV, (max - min) / max of the three channels; 0 for black and grey.

    unit: share; range: 0 to 1; cost: pixels; needs: colour; source: Smith 1978 (HSV).
    """
    return _colour(probe, "saturation")


@metafeature("intensity")
def channel_correlation(probe: Probe) -> np.ndarray:
    """Mean Pearson correlation over pairs of channels; 1 for a single or constant channel.

    unit: correlation; range: -1 to 1; cost: pixels; needs: images; source: van Sonsbeek & Cheplygina 2020.
    """
    return probe.statistics["channel_correlation"]
