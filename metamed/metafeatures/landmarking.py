"""Landmarking: the balanced accuracy of quick, simple models, over up to five folds that keep patients whole.

All are closed form or read off the distance matrix, in numpy: a fit by scikit-learn would cost its import (a second),
an iterative one more than the rest of the features. `.mean` and `.sd` are over folds; chance is 1 / number of classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from metamed.metafeatures import metafeature
from metamed.metafeatures.probe import Probe

RIDGE = 1e-2  # of the mean variance of a column, times the number of samples
SHRINKAGE = 0.1  # of the pooled covariance towards a multiple of the identity
STUMP_CUTS = 9  # thresholds tried in a column: its deciles
TREE_COLUMNS = 16  # principal components that a tree sees


def labelled_folds(probe: Probe) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(train, test) masks over the rows; only labelled ones, only folds that have both."""
    known = probe.one_hot.any(axis=1)
    for fold in range(probe.folds.max() + 1):
        test = known & (probe.folds == fold)
        train = known & (probe.folds != fold)
        if test.any() and train.any():
            yield train, test


def balanced_accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean recall over the classes in `truth`, both integers (n,)."""
    counts = np.bincount(truth)
    hits = np.bincount(truth[truth == predicted], minlength=len(counts))
    return float((hits[counts > 0] / counts[counts > 0]).mean())


def area_under_curve(truth: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve of each class against the others, averaged over classes in and not filling `truth`.

    truth: integers (n,); scores: (n, K). Ties count half; 0.5 if no class can be told from another.
    """
    areas = []
    for k in np.unique(truth):
        positive, negative = scores[truth == k, k], np.sort(scores[truth != k, k])
        if len(negative):
            below = np.searchsorted(negative, positive) + np.searchsorted(negative, positive, side="right")
            areas.append(below.mean() / (2 * len(negative)))
    return float(np.mean(areas)) if areas else 0.5


def validate(probe: Probe, table: np.ndarray, fit: Callable, measure: Callable = None) -> np.ndarray:
    """The measure of `fit(train rows, train one-hot, test rows) -> class scores` on each fold."""
    out = []
    for train, test in labelled_folds(probe):
        scores = fit(table[train], probe.one_hot[train], table[test])
        out.append(measure(probe.labels[test], scores) if measure
                   else balanced_accuracy(probe.labels[test], scores.argmax(axis=1)))  # fmt: skip
    return np.array(out)


def ridge(rows: np.ndarray, one_hot: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Class scores by ridge regression on class membership, every class weighing the same."""
    weight = (one_hot / np.maximum(one_hot.sum(axis=0), 1)).sum(axis=1, keepdims=True)
    weight = weight / weight.sum()
    mean, target = (weight * rows).sum(axis=0), (weight * one_hot).sum(axis=0)
    centred = rows - mean
    weighted = (centred * weight).T
    gram = (weighted @ centred).astype(np.float64)
    gram[np.diag_indices(len(gram))] += RIDGE * max(np.trace(gram) / len(gram), 1e-6)
    return (test - mean) @ np.linalg.solve(gram, (weighted @ (one_hot - target)).astype(np.float64)) + target


def _ridge_of_quarter(rows: np.ndarray, one_hot: np.ndarray, test: np.ndarray) -> np.ndarray:
    step = 4 if len(rows) >= 8 else 1
    return ridge(rows[::step], one_hot[::step], test)


def _class_means(rows: np.ndarray, one_hot: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of the classes (K, d), and 0 for a class that is there, -inf for one that is not."""
    counts = one_hot.sum(axis=0)
    return (one_hot.T @ rows) / np.maximum(counts, 1)[:, None], np.where(counts > 0, 0, -np.inf)


def nearest_mean(rows: np.ndarray, one_hot: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Class scores by the distance to the mean of each class."""
    means, absent = _class_means(rows, one_hot)
    return test @ means.T - (means**2).sum(axis=1) / 2 + absent


def discriminant(rows: np.ndarray, one_hot: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Class scores by linear discriminant analysis with a shrunk covariance and equal priors."""
    means, absent = _class_means(rows, one_hot)
    within = rows - one_hot @ means
    covariance = (within.T @ within).astype(np.float64) / len(rows)
    level = max(np.trace(covariance) / len(covariance), 1e-6)
    covariance *= 1 - SHRINKAGE
    covariance[np.diag_indices(len(covariance))] += SHRINKAGE * level
    direction = np.linalg.solve(covariance, means.T.astype(np.float64))
    return test @ direction - (means * direction.T).sum(axis=1) / 2 + absent


def best_cut(rows: np.ndarray, weights: np.ndarray) -> tuple[int, float]:
    """(column, threshold) of the cut that leaves least Gini impurity; weights: of each row for its class, (n, K)."""
    cuts = np.quantile(rows, np.arange(1, STUMP_CUTS + 1) / (STUMP_CUTS + 1), axis=0)
    below = (rows[None] <= cuts[:, None]).astype(np.float32).transpose(0, 2, 1) @ weights
    sides = np.stack([below, weights.sum(axis=0) - below])  # (2, cuts, columns, K)
    purity = ((sides**2).sum(axis=-1) / np.maximum(sides.sum(axis=-1), 1e-9)).sum(axis=0)
    cut, column = np.unravel_index(np.round(purity, 6).argmax(), purity.shape)
    return int(column), cuts[cut, column]


def tree(rows: np.ndarray, one_hot: np.ndarray, test: np.ndarray, depth: int = 3) -> np.ndarray:
    """Class scores by a decision tree of that depth with cuts at deciles, every class weighing the same."""
    return _branch(rows, (one_hot / np.maximum(one_hot.sum(axis=0), 1)).astype(np.float32), test, depth)


def _branch(rows: np.ndarray, weights: np.ndarray, test: np.ndarray, depth: int) -> np.ndarray:
    total = weights.sum(axis=0)
    scores = np.tile(total, (len(test), 1))
    if depth == 0 or (total > 0).sum() < 2:
        return scores
    column, threshold = best_cut(rows, weights)
    below, asked = rows[:, column] <= threshold, test[:, column] <= threshold
    if below.all() or not below.any():
        return scores
    for side, where in ((below, asked), (~below, ~asked)):
        scores[where] = _branch(rows[side], weights[side], test[where], depth - 1)
    return scores


def stump(rows: np.ndarray, one_hot: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Class scores by the one cut of one column that leaves least Gini impurity, every class weighing the same."""
    return tree(rows, one_hot, test, depth=1)


def _components(probe: Probe) -> np.ndarray:
    """The rows' first principal components, (m, at most 16)."""
    centred = probe.rows.astype(np.float64) - probe.rows.mean(axis=0, dtype=np.float64)
    directions = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :TREE_COLUMNS]
    return centred @ directions


@metafeature("landmarking")
def one_nn(probe: Probe) -> np.ndarray:
    """Balanced accuracy of the nearest neighbour among other patients' thumbnails (feature vectors, means of bags).

    unit: share; range: 0 to 1; cost: models; needs: two groups with classes; source: Pfahringer et al. 2000.
    """
    out = []
    for train, test in labelled_folds(probe):
        nearest = np.flatnonzero(train)[probe.distances[test][:, train].argmin(axis=1)]
        out.append(balanced_accuracy(probe.labels[test], probe.labels[nearest]))
    return np.array(out)


@metafeature("landmarking")
def nearest_centroid(probe: Probe) -> np.ndarray:
    """Balanced accuracy of the nearest class mean on thumbnails (feature vectors, means of bags).

    unit: share; range: 0 to 1; cost: models; needs: two groups with classes; source: Pfahringer et al. 2000.
    """
    return validate(probe, probe.rows, nearest_mean)


@metafeature("landmarking")
def lda(probe: Probe) -> np.ndarray:
    """Balanced accuracy of linear discriminant analysis, covariance shrunk by 0.1, on thumbnails.

    unit: share; range: 0 to 1; cost: models; needs: two groups with classes; source: Pfahringer et al. 2000.
    """
    return validate(probe, probe.rows, discriminant)


@metafeature("landmarking")
def linear_probe(probe: Probe) -> np.ndarray:
    """Balanced accuracy of ridge regression on thumbnails (feature vectors, means of bags).

    unit: share; range: 0 to 1; cost: models; needs: two groups with classes; source: Alain & Bengio 2016, 1610.01644.
    """
    return validate(probe, probe.rows, ridge)


@metafeature("landmarking")
def linear_probe_auc(probe: Probe) -> np.ndarray:
    """Area under the ROC curve (each class against the others) of ridge regression on thumbnails.

    unit: AUC; range: 0 to 1; cost: models; needs: two groups with classes; source: Alain & Bengio 2016, 1610.01644.
    """
    return validate(probe, probe.rows, ridge, area_under_curve)


@metafeature("landmarking")
def small_sample_probe(probe: Probe) -> np.ndarray:
    """Balanced accuracy of ridge regression on thumbnails from every fourth training sample: how data-hungry.

    unit: share; range: 0 to 1; cost: models; needs: two groups with classes; source: Leite & Brazdil 2005.
    """
    return validate(probe, probe.rows, _ridge_of_quarter)


@metafeature("landmarking")
def statistics_probe(probe: Probe) -> np.ndarray:
    """Balanced accuracy of ridge regression on the images' intensity, colour and texture statistics.

    unit: share; range: 0 to 1; cost: models; needs: images, two groups with classes; source: here.
    """
    return validate(probe, probe.descriptors, ridge)


@metafeature("landmarking")
def statistics_auc(probe: Probe) -> np.ndarray:
    """Area under the ROC curve of ridge regression on the images' intensity, colour and texture statistics.

    unit: AUC; range: 0 to 1; cost: models; needs: images, two groups with classes; source: here.
    """
    return validate(probe, probe.descriptors, ridge, area_under_curve)


@metafeature("landmarking")
def decision_stump(probe: Probe) -> np.ndarray:
    """Balanced accuracy of one cut of the best statistic (brightness, colour, texture ...): a shortcut if high.

    unit: share; range: 0 to 1; cost: models; needs: images, two groups with classes; source: Pfahringer et al. 2000.
    """
    return validate(probe, probe.descriptors, stump)


@metafeature("landmarking")
def tiny_tree(probe: Probe) -> np.ndarray:
    """Balanced accuracy of a decision tree of three levels on the first 16 principal components of the thumbnails
    (feature vectors, means of bags).

    unit: share; range: 0 to 1; cost: models; needs: two groups with classes; source: Pfahringer et al. 2000.
    """
    return validate(probe, probe.once(_components), tree)
