"""How samples lie to each other: 16 x 16 thumbnails, feature vectors or means of bags as points (at most 2000).

Thumbnails are stretched to one range over the dataset, so brightness and contrast of the whole dataset cancel.
"""

from __future__ import annotations

import numpy as np

from metamed.errors import NotApplicable
from metamed.metafeatures import metafeature
from metamed.metafeatures.probe import Probe

HUBNESS_NEIGHBOURS = 10
SHARPEST = 1000.0


def _apart(probe: Probe) -> np.ndarray:
    """Distances to the nearest neighbours of the rows that equal no other row; at least three of them."""
    distances = probe.neighbour_distances
    distances = distances[distances[:, 0] > 1e-6]
    if len(distances) < 3 or distances.shape[1] < 3:
        raise NotApplicable(f"{probe.dataset.name} has too few different samples")
    return distances.astype(np.float64)


def _scatter(probe: Probe) -> tuple[np.ndarray, np.ndarray]:
    """Between-class and within-class variance of each column of the labelled rows."""
    one_hot = probe.one_hot.astype(np.float64)
    known = one_hot.any(axis=1)
    rows, one_hot = probe.rows[known].astype(np.float64), one_hot[known]
    counts = one_hot.sum(axis=0)
    means = one_hot.T @ rows / counts[:, None]
    between = (counts[:, None] * (means - rows.mean(axis=0)) ** 2).sum(axis=0) / len(rows)
    return between, ((rows - one_hot @ means) ** 2).mean(axis=0)


@metafeature("structure")
def pca_dimension(probe: Probe) -> float:
    """Principal components that hold 95 % of the variance.

    unit: components; range: 1 to inf; cost: distances; needs: nothing; source: Lorena et al. 2019 (T3).
    """
    return 1 + int(np.searchsorted(np.cumsum(probe.spectrum), 0.95 - 1e-9))


@metafeature("structure")
def pca_first(probe: Probe) -> float:
    """Share of the variance in the first principal component; 1 if all samples are equal.

    unit: share; range: 0 to 1; cost: distances; needs: nothing; source: Brazdil et al. 2008, Metalearning.
    """
    return probe.spectrum[0]


@metafeature("structure")
def effective_rank(probe: Probe) -> float:
    """Exponential of the entropy of the components' shares of variance.

    unit: components; range: 1 to inf; cost: distances; needs: nothing; source: Roy & Vetterli 2007.
    """
    p = probe.spectrum
    return float(np.exp(-(p * np.log(np.where(p > 0, p, 1))).sum()))


@metafeature("structure")
def two_nn(probe: Probe) -> float:
    """Intrinsic dimension from the ratio of the distances to the two nearest neighbours; equal samples left out.

    unit: dimensions; range: 0 to inf; cost: distances; needs: variety; source: Facco et al. 2017.
    """
    distances = _apart(probe)
    log_ratio = np.sort(np.log(distances[:, 1] / distances[:, 0]))
    share = np.arange(1, len(log_ratio) + 1) / len(log_ratio)
    kept = slice(0, max(2, int(0.9 * len(log_ratio))))  # the largest tenth deviates most, says the paper
    x, y = log_ratio[kept], -np.log(1 - share[kept])
    if x @ x <= 1e-9:
        raise NotApplicable(f"{probe.dataset.name}: all neighbours are equally far")
    return (x @ y) / (x @ x)


@metafeature("structure")
def mle_dimension(probe: Probe) -> float:
    """Intrinsic dimension by maximum likelihood from up to 20 neighbours, inverses averaged; equal samples left out.

    unit: dimensions; range: 0 to inf; cost: distances; needs: variety;
    source: Levina & Bickel 2004; MacKay & Ghahramani 2005; Konz & Mazurowski 2024, arXiv 2401.08865.
    """
    distances = _apart(probe)
    inverse = np.log(distances[:, -1:] / distances[:, :-1]).mean()
    if inverse <= 1e-9:
        raise NotApplicable(f"{probe.dataset.name}: all neighbours are equally far")
    return 1 / inverse


@metafeature("structure")
def hubness(probe: Probe) -> float:
    """Skewness of how often a sample is among the 10 nearest neighbours of others; 0 if all are equally often.

    unit: none; range: -inf to inf; cost: distances; needs: two samples; source: Radovanovic et al. 2010.
    """
    near = probe.neighbours[:, :HUBNESS_NEIGHBOURS]
    count = np.bincount(near.ravel(), minlength=len(near)) - near.shape[1]  # the mean count is the number of neighbours
    variance = (count**2).mean()
    return (count**3).mean() / variance**1.5 if variance > 0 else 0.0


@metafeature("structure")
def crowding(probe: Probe) -> float:
    """Mean distance to the nearest neighbour over the mean distance of all pairs: small if samples come in clumps.

    unit: ratio; range: 0 to 1; cost: distances; needs: variety; source: Clark & Evans 1954 (nearest-neighbour ratio).
    """
    return _apart(probe)[:, 0].mean() / probe.mean_distance


@metafeature("structure")
def sample_correlation(probe: Probe) -> float:
    """Mean Pearson correlation over pairs of samples: 1 if all images show the same scene, 0 if they share nothing.

    unit: correlation; range: -1 to 1; cost: distances; needs: two samples; source: van Sonsbeek & Cheplygina 2020.
    """
    if len(probe.rows) < 2:
        raise NotApplicable(f"{probe.dataset.name} has fewer than two samples")
    rows = probe.rows - probe.rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-6).astype(np.float64)
    total = (unit.sum(axis=0) ** 2).sum() - (unit**2).sum()  # the sum over pairs without forming them
    return total / (len(rows) * (len(rows) - 1))


@metafeature("structure")
def mirror_symmetry(probe: Probe) -> np.ndarray:
    """Correlation of each image's thumbnail with its left-right mirror: bodies are symmetric, textures are not.

    unit: correlation; range: -1 to 1; cost: pixels; needs: images; source: here.
    """
    images = probe.statistics["thumbnail"].reshape(-1, 16, 16)
    images = images - images.mean(axis=(1, 2), keepdims=True)
    energy = (images**2).sum(axis=(1, 2))
    return np.divide((images * images[:, :, ::-1]).sum(axis=(1, 2)), energy, out=np.ones_like(energy), where=energy > 0)


@metafeature("structure")
def centre_contrast(probe: Probe) -> np.ndarray:
    """Mean of the thumbnail's inner quarter minus that of its outer ring, in shares of the dataset's grey range.

    unit: share; range: -1 to 1; cost: pixels; needs: images; source: here.
    """
    images = probe.statistics["thumbnail"].reshape(-1, 16, 16) / 255
    ring = np.ones((16, 16), bool)
    ring[2:-2, 2:-2] = False
    return images[:, 4:-4, 4:-4].mean(axis=(1, 2)) - images[:, ring].mean(axis=1)


@metafeature("structure")
def fisher_ratio(probe: Probe) -> float:
    """Between-class over within-class variance, summed over all columns; large if class means lie far apart.

    unit: ratio; range: 0 to inf; cost: distances; needs: classes, variety within classes; source: Fisher 1936.
    """
    between, within = _scatter(probe)
    if within.sum() <= 1e-9:
        raise NotApplicable(f"{probe.dataset.name}: no variance within classes")
    return between.sum() / within.sum()


@metafeature("structure")
def fisher_best(probe: Probe) -> float:
    """Overlap left by the single best column: 1 / (1 + its Fisher ratio).

    unit: share; range: 0 to 1; cost: distances; needs: classes; source: Lorena et al. 2019 (F1).
    """
    between, within = _scatter(probe)
    total = between + within
    return 1 - float(np.divide(between, total, out=np.zeros_like(total), where=total > 1e-9).max())


@metafeature("structure")
def neighbour_error(probe: Probe) -> float:
    """Share of samples whose nearest neighbour is of another class (leave one out; patients are not kept apart).

    unit: share; range: 0 to 1; cost: distances; needs: classes; source: Lorena et al. 2019 (N3).
    """
    inside, outside = probe.class_distances
    return float((outside < inside).mean())


@metafeature("structure")
def neighbour_ratio(probe: Probe) -> float:
    """r / (1 + r), r the summed distances to the nearest of the same class over those to the nearest of another.

    unit: share; range: 0 to 1; cost: distances; needs: classes, pairs within classes; source: Lorena et al. 2019 (N2).
    """
    inside, outside = probe.class_distances
    paired = np.isfinite(inside)
    if not paired.any():
        raise NotApplicable(f"{probe.dataset.name} has no two samples of one class")
    total = inside[paired].sum() + outside[paired].sum()
    return inside[paired].sum() / total if total > 0 else 0.5


@metafeature("structure")
def neighbour_purity(probe: Probe) -> float:
    """Share of the 10 nearest neighbours that are of a sample's class, less what chance gives, over its maximum.

    unit: share; range: -inf to 1; cost: distances; needs: classes; source: Cohen 1960 (kappa), of k nearest neighbours.
    """
    known = probe.one_hot.any(axis=1)
    near = probe.labels[probe.neighbours[known, :HUBNESS_NEIGHBOURS]]
    agree = (near == probe.labels[known, None]).sum() / max((near >= 0).sum(), 1)
    shares = probe.one_hot[known].mean(axis=0, dtype=np.float64)
    chance = (shares**2).sum()
    return (agree - chance) / (1 - chance)


@metafeature("structure")
def class_separability(probe: Probe) -> float:
    """Mean silhouette of the classes; 0 for the only sample of its class.

    unit: none; range: -1 to 1; cost: distances; needs: classes; source: Rousseeuw 1987.
    """
    known = np.flatnonzero(probe.one_hot.any(axis=1))
    one_hot, labels = probe.one_hot[known], probe.labels[known]
    distances = np.sqrt(probe.distances[np.ix_(known, known)])
    np.fill_diagonal(distances, 0)
    counts = one_hot.sum(axis=0)
    total = (distances @ one_hot).astype(np.float64)
    own = total[np.arange(len(known)), labels] / np.maximum(counts[labels] - 1, 1)
    total = total / counts
    total[np.arange(len(known)), labels] = np.inf
    other = total.min(axis=1)
    larger = np.maximum(own, other)
    silhouette = np.divide(other - own, larger, out=np.zeros_like(own), where=larger > 0)
    return float(np.where(counts[labels] > 1, silhouette, 0).mean())


@metafeature("structure")
def label_sharpness(probe: Probe) -> float:
    """Steepest change of the label: mean distance of all pairs over the smallest between two classes (K_F, without
    the unit of the pixels); at most 1000, which equal samples of two classes reach.

    unit: ratio; range: 0 to 1000; cost: distances; needs: classes; source: Konz & Mazurowski 2024, arXiv 2401.08865.
    """
    closest = float(probe.class_distances[1].min())
    return min(probe.mean_distance / closest, SHARPEST) if closest > 0 else SHARPEST


@metafeature("structure")
def group_similarity(probe: Probe) -> float:
    """Mean distance within patients over the mean distance of all pairs: small if images of a patient look alike.

    unit: ratio; range: 0 to inf; cost: distances; needs: repeated groups; source: Carbonneau et al. 2018 (intra-bag).
    """
    same = probe.patients[:, None] == probe.patients[None]
    np.fill_diagonal(same, False)
    overall = probe.mean_distance
    if not same.any() or overall <= 0:
        raise NotApplicable(f"{probe.dataset.name} has no two samples of one group")
    return float(np.sqrt(probe.distances[same]).mean(dtype=np.float64)) / overall
