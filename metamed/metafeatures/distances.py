"""How far two datasets lie apart, from a table of each: a row an image, columns its embedding or its statistics.

Rows need not match, columns do. Tables larger than 2000 rows are thinned evenly where every pair of rows is compared.
"""

from __future__ import annotations

import numpy as np

from metamed.dataset import spread
from metamed.errors import MetamedError

ROWS = 2000


def frechet_distance(source: np.ndarray, target: np.ndarray) -> float:
    """Squared Frechet (Wasserstein-2) distance of two tables taken as Gaussians: FID, on any network's embeddings.

    unit: squared columns; range: 0 to inf; cost: embeddings; needs: both tables; source: Heusel et al. 2017 (FID).
    """
    source, target = _tables(source, target)
    return gaussian_frechet(source.mean(axis=0), _covariance(source), target.mean(axis=0), _covariance(target))


def gaussian_frechet(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """|mean_a - mean_b|^2 + trace(A + B - 2 (A B)^(1/2)) of two Gaussians; covariances (d, d)."""
    energy, vectors = np.linalg.eigh(cov_a)
    root = vectors * np.sqrt(np.maximum(energy, 0)) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0)).sum()  # trace of (A B)^(1/2)
    squared = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross
    return max(float(squared), 0.0)


def radiomic_frechet(source: np.ndarray, target: np.ndarray) -> float:
    """Root of the Frechet distance of image statistics (`Probe.descriptors`, or any radiomic table), each column
    standardised by the source's mean and deviation; columns that do not vary there are left out.

    unit: deviations; range: 0 to inf; cost: embeddings; needs: both tables; source: Konz et al. 2024 (FRD),
    arXiv 2412.01496.
    """
    source, target = _tables(source, target)
    mean, deviation = source.mean(axis=0), source.std(axis=0)
    kept = deviation > 1e-6 * np.maximum(np.abs(mean), 1e-6)
    if not kept.any():
        raise MetamedError("no column of the source's statistics varies. Compare with more, or other, source images")
    scaled = ((table[:, kept] - mean[kept]) / deviation[kept] for table in (source, target))
    return float(np.sqrt(frechet_distance(*scaled)))


def bkld_small_target(source: np.ndarray, target: np.ndarray) -> float:
    """Binned Kullback-Leibler divergence with 100 bins and columns weighted by the target's softmaxed means: the best
    published distance of tasks. Not 0 for equal tables; smaller is nearer.

    unit: nats; range: -inf to inf; cost: embeddings; needs: both tables; source: Godau et al. 2024 (bKLD, small and
    target), arXiv 2412.08763.
    """
    return binned_divergence(source, target, bins=100, weighted=True)


def bkld_large(source: np.ndarray, target: np.ndarray) -> float:
    """Binned Kullback-Leibler divergence with 1000 bins, columns weighing the same. Not 0 for equal tables.

    unit: nats; range: -inf to inf; cost: embeddings; needs: both tables; source: Godau et al. 2024 (bKLD, large and
    unweighted), arXiv 2412.08763.
    """
    return binned_divergence(source, target, bins=1000, weighted=False)


def binned_divergence(
    source: np.ndarray, target: np.ndarray, *, bins: int, weighted: bool, reference: np.ndarray | None = None
) -> float:
    """The divergence of the target's histogram of each column from the softmax of the source's, weighted mean.

    Histograms lie between the 5 % and the 95 % quantile of `reference`, a table of many datasets (the paper's choice;
    None: both tables), values beyond in the last bins. The softmax keeps every bin of the source above 0 and flattens
    it. weighted: columns count by the softmax of the target's column means, so those to which it answers strongly.
    """
    source, target = _tables(source, target)
    pool = np.concatenate([source, target]) if reference is None else np.asarray(reference, np.float64)
    low, high = np.quantile(pool, [0.05, 0.95], axis=0)
    width = np.where(high > low, high - low, 1)
    p, q = (_column_histograms((table - low) / width, bins) for table in (target, source))
    q = np.exp(q) / np.exp(q).sum(axis=0)
    divergence = (p * np.log(np.where(p > 0, p, 1) / q)).sum(axis=0)
    means = target.mean(axis=0)
    weights = np.exp(means - means.max()) if weighted else np.ones(len(means))
    return float((weights * divergence).sum() / weights.sum())


def _column_histograms(values: np.ndarray, bins: int) -> np.ndarray:
    """Shares of each bin of 0-1 in each column, what lies outside in the last ones, (bins, d)."""
    code = np.clip((values * bins).astype(int), 0, bins - 1) + np.arange(values.shape[1]) * bins
    counts = np.bincount(code.ravel(), minlength=bins * values.shape[1]).reshape(-1, bins).T
    return counts / len(values)


def kernel_distance(source: np.ndarray, target: np.ndarray) -> float:
    """Squared maximum mean discrepancy with the cubic kernel (x y / d + 1)^3, without bias: about 0, or below, for two
    samples of one distribution (KID).

    unit: kernel; range: -inf to inf; cost: embeddings; needs: both tables; source: Gretton et al. 2012;
    Binkowski et al. 2018 (KID).
    """
    source, target = (table[spread(len(table), ROWS)] for table in _tables(source, target))

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def inside(a: np.ndarray) -> float:
        of_pairs = kernel(a, a)
        return (of_pairs.sum() - np.trace(of_pairs)) / (len(a) * (len(a) - 1))

    return float(inside(source) + inside(target) - 2 * kernel(source, target).mean())


def _covariance(table: np.ndarray) -> np.ndarray:
    centred = table - table.mean(axis=0)
    return centred.T @ centred / (len(table) - 1)


def _tables(*tables: np.ndarray) -> list[np.ndarray]:
    """Both as float64; MetamedError where they are no tables, of unlike width, of one row, or not finite."""
    tables = [np.asarray(table, np.float64) for table in tables]
    shapes = " and ".join(str(table.shape) for table in tables)
    if any(table.ndim != 2 or len(table) < 2 for table in tables) or len({table.shape[1] for table in tables}) > 1:
        raise MetamedError(f"tables of shape {shapes} do not compare. Pass (n, d) and (m, d), at least two rows each")
    if not all(np.isfinite(table).all() for table in tables):
        raise MetamedError("a table holds missing or infinite values. Leave those rows out, or fill them in")
    return tables


_ALL = (frechet_distance, radiomic_frechet, bkld_small_target, bkld_large, kernel_distance)
DISTANCES = {f.__name__: f for f in _ALL}


def compare_tables(source: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Every distance between two tables (n, d) and (m, d), by name."""
    return {name: distance(source, target) for name, distance in DISTANCES.items()}
