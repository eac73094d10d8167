"""How the grey levels of an image's neighbouring pixels belong together."""

from __future__ import annotations

import numpy as np

from metamed.metafeatures import metafeature
from metamed.metafeatures.kernels import ratio
from metamed.metafeatures.probe import Probe


@metafeature("texture")
def glcm_contrast(probe: Probe) -> np.ndarray:
    """Mean squared difference of neighbours in 32 grey levels, over four directions (co-occurrence contrast).

    unit: level^2; range: 0 to 961; cost: pixels; needs: images; source: Haralick et al. 1973.
    """
    return probe.statistics["glcm_contrast"]


@metafeature("texture")
def glcm_dissimilarity(probe: Probe) -> np.ndarray:
    """Mean absolute difference of neighbours in 32 grey levels, over four directions.

    unit: level; range: 0 to 31; cost: pixels; needs: images; source: Haralick et al. 1973.
    """
    return probe.statistics["glcm_dissimilarity"]


@metafeature("texture")
def glcm_homogeneity(probe: Probe) -> np.ndarray:
    """Mean of 1 / (1 + squared difference) of neighbours in 32 grey levels, over four directions.

    unit: share; range: 0 to 1; cost: pixels; needs: images; source: Haralick et al. 1973.
    """
    return probe.statistics["glcm_homogeneity"]


@metafeature("texture")
def glcm_energy(probe: Probe) -> np.ndarray:
    """Root of the sum of squares of the symmetric co-occurrence matrix, over four directions: 1 if constant.

    unit: share; range: 0 to 1; cost: pixels; needs: images; source: Haralick et al. 1973.
    """
    return probe.statistics["glcm_energy"]


@metafeature("texture")
def glcm_correlation(probe: Probe) -> np.ndarray:
    """Correlation of neighbours in 32 grey levels, over four directions; 1 if constant.

    unit: correlation; range: -1 to 1; cost: pixels; needs: images; source: Haralick et al. 1973.
    """
    return probe.statistics["glcm_correlation"]


@metafeature("texture")
def glcm_contrast_3(probe: Probe) -> np.ndarray:
    """Mean squared difference of pixels 3 apart in 32 grey levels, over four directions (diagonally 2 and 2).

    unit: level^2; range: 0 to 961; cost: pixels; needs: images; source: Haralick et al. 1973.
    """
    return probe.statistics["glcm_contrast_3"]


@metafeature("texture")
def glcm_dissimilarity_3(probe: Probe) -> np.ndarray:
    """Mean absolute difference of pixels 3 apart in 32 grey levels, over four directions.

    unit: level; range: 0 to 31; cost: pixels; needs: images; source: Haralick et al. 1973.
    """
    return probe.statistics["glcm_dissimilarity_3"]


@metafeature("texture")
def glcm_homogeneity_3(probe: Probe) -> np.ndarray:
    """Mean of 1 / (1 + squared difference) of pixels 3 apart in 32 grey levels, over four directions.

    unit: share; range: 0 to 1; cost: pixels; needs: images; source: Haralick et al. 1973.
    """
    return probe.statistics["glcm_homogeneity_3"]


@metafeature("texture")
def glcm_energy_3(probe: Probe) -> np.ndarray:
    """Root of the sum of squares of the symmetric co-occurrence matrix at distance 3, over four directions.

    unit: share; range: 0 to 1; cost: pixels; needs: images; source: Haralick et al. 1973.
    """
    return probe.statistics["glcm_energy_3"]


@metafeature("texture")
def glcm_correlation_3(probe: Probe) -> np.ndarray:
    """Correlation of pixels 3 apart in 32 grey levels, over four directions; 1 if constant.

    unit: correlation; range: -1 to 1; cost: pixels; needs: images; source: Haralick et al. 1973.
    """
    return probe.statistics["glcm_correlation_3"]


@metafeature("texture")
def glcm_anisotropy(probe: Probe) -> np.ndarray:
    """Largest minus smallest co-occurrence contrast of the four directions, over their sum: 0 if none differs.

    unit: share; range: 0 to 1; cost: pixels; needs: images; source: Haralick et al. 1973.
    """
    return probe.statistics["glcm_anisotropy"]


@metafeature("texture")
def lbp_entropy(probe: Probe) -> np.ndarray:
    """Entropy of the ten uniform local binary patterns (8 points, radius 1) of the inner pixels.

    unit: bits; range: 0 to 3.3219281; cost: pixels; needs: images; source: Ojala et al. 2002.
    """
    p = probe.statistics["patterns"]
    return -(p * np.log2(np.where(p > 0, p, 1))).sum(axis=1) + 0.0


@metafeature("texture")
def lbp_energy(probe: Probe) -> np.ndarray:
    """Sum of squares of the shares of the ten uniform local binary patterns: 1 if one pattern fills the image.

    unit: share; range: 0.1 to 1; cost: pixels; needs: images; source: Ojala et al. 2002.
    """
    return (probe.statistics["patterns"] ** 2).sum(axis=1)


@metafeature("texture")
def lbp_uniformity(probe: Probe) -> np.ndarray:
    """Share of pixels with a uniform pattern (at most two changes around the circle): edges, spots, flat ground.

    unit: share; range: 0 to 1; cost: pixels; needs: images; source: Ojala et al. 2002.
    """
    return 1 - probe.statistics["patterns"][:, 9]


@metafeature("texture")
def lbp_flat(probe: Probe) -> np.ndarray:
    """Share of pixels that no neighbour is darker than: flat ground and dark spots.

    unit: share; range: 0 to 1; cost: pixels; needs: images; source: Ojala et al. 2002.
    """
    return probe.statistics["patterns"][:, 8]


@metafeature("texture")
def lbp_spot(probe: Probe) -> np.ndarray:
    """Share of pixels brighter than all their neighbours: bright spots.

    unit: share; range: 0 to 1; cost: pixels; needs: images; source: Ojala et al. 2002.
    """
    return probe.statistics["patterns"][:, 0]


@metafeature("texture")
def lbp_edge(probe: Probe) -> np.ndarray:
    """Share of pixels with three to five bright neighbours in a row: edges.

    unit: share; range: 0 to 1; cost: pixels; needs: images; source: Ojala et al. 2002.
    """
    return probe.statistics["patterns"][:, 3:6].sum(axis=1)


@metafeature("texture")
def gradient_energy(probe: Probe) -> np.ndarray:
    """Mean squared gradient (central differences) of the inner pixels.

    unit: grey^2 per pixel^2; range: 0 to 0.5; cost: pixels; needs: images; source: Pertuz et al. 2013 (focus measures).
    """
    return probe.statistics["gradient_energy"]


@metafeature("texture")
def gradient_mean(probe: Probe) -> np.ndarray:
    """Mean length of the gradient (central differences) of the inner pixels.

    unit: grey per pixel; range: 0 to 0.71; cost: pixels; needs: images; source: Pertuz et al. 2013 (focus measures).
    """
    return probe.statistics["gradient_mean"]


@metafeature("texture")
def laplacian_energy(probe: Probe) -> np.ndarray:
    """Mean squared Laplacian (four neighbours) of the inner pixels.

    unit: grey^2 per pixel^4; range: 0 to 16; cost: pixels; needs: images; source: Pertuz et al. 2013 (focus measures).
    """
    return probe.statistics["laplacian_energy"]


@metafeature("texture")
def fineness(probe: Probe) -> np.ndarray:
    """Laplacian over gradient energy: how fine the detail is, whatever its contrast; 0 if constant.

    unit: per pixel^2; range: 0 to inf; cost: pixels; needs: images; source: Pertuz et al. 2013 (focus measures).
    """
    return ratio(probe.statistics["laplacian_energy"], probe.statistics["gradient_energy"])


@metafeature("texture")
def noise_sigma(probe: Probe) -> np.ndarray:
    """Standard deviation of the noise, from a mask that straight edges do not answer to.

    unit: grey (0-1); range: 0 to 2; cost: pixels; needs: images; source: Immerkaer 1996.
    """
    return probe.statistics["noise_sigma"]


@metafeature("texture")
def noise_ratio(probe: Probe) -> np.ndarray:
    """Noise sigma over the standard deviation of the grey levels; 0 if constant.

    unit: ratio; range: 0 to inf; cost: pixels; needs: images; source: Immerkaer 1996.
    """
    return ratio(probe.statistics["noise_sigma"], np.sqrt(probe.statistics["variance"]))


@metafeature("texture")
def orientation_coherence(probe: Probe) -> np.ndarray:
    """Anisotropy of the mean structure tensor, (l1 - l2) / (l1 + l2): 1 for parallel stripes, 0 for none or any.

    unit: share; range: 0 to 1; cost: pixels; needs: images; source: Bigun & Granlund 1987.
    """
    return probe.statistics["orientation_coherence"]


@metafeature("texture")
def spectrum_slope(probe: Probe) -> np.ndarray:
    """Slope of log power over log frequency by rings (Hann window): 0 for white noise, -2 for 1/f amplitude.

    unit: exponent; range: -inf to inf; cost: pixels; needs: images; source: van der Schaaf & van Hateren 1996.
    """
    return probe.statistics["spectrum_slope"]


@metafeature("texture")
def spectrum_high(probe: Probe) -> np.ndarray:
    """Share of the power (without the mean) above half the Nyquist frequency; 0 if constant.

    unit: share; range: 0 to 1; cost: pixels; needs: images; source: van der Schaaf & van Hateren 1996.
    """
    return probe.statistics["spectrum_high"]


@metafeature("texture")
def blockiness(probe: Probe) -> np.ndarray:
    """Mean step across every 8th pixel border over the mean step elsewhere: above 1 after JPEG; 1 below 9 pixels.

    unit: ratio; range: 0 to inf; cost: pixels; needs: images; source: Wang et al. 2002.
    """
    return probe.statistics["blockiness"]


@metafeature("texture")
def moran(probe: Probe) -> np.ndarray:
    """Moran's I with the four nearest neighbours: 1 smooth, 0 noise or constant, -1 a checkerboard.

    unit: correlation; range: -2 to 2; cost: pixels; needs: images; source: Moran 1950.
    """
    return probe.statistics["moran"]
