"""Evaluation measures: (truth, prediction) -> float. The measure belongs to the task, never to a method."""

from __future__ import annotations

import numpy as np

from metamed.dataset import Kind
from metamed.errors import UnknownName
from metamed.measures import masks
from metamed.measures.registry import MEASURES, Measure, measure

__all__ = ["MEASURES", "PRIMARY", "Measure", "binary_auc", "evaluate", "get_measure", "masks", "measure"]

PRIMARY: dict[Kind, str] = {"classification": "auc", "mil": "auc", "segmentation": "dice", "similarity": "accuracy"}


def get_measure(name: str) -> Measure:
    if name not in MEASURES:
        raise UnknownName("measure", name, MEASURES)
    return MEASURES[name]


def evaluate(kind: Kind, truth: np.ndarray, prediction: np.ndarray, spacing: masks.Spacing = ()) -> dict[str, float]:
    """All measures of a kind that are defined on this truth: those that come out as NaN are left out.

    Of multi-label targets also the AUC of every label, as `auc.0`, `auc.1` ...; of masks with several classes also
    every measure of every class, as `dice.1`, `dice.2` ... spacing: of masks, millimetres from pixel to pixel.
    """
    if kind == "segmentation":
        return masks.evaluate_masks(truth, prediction, spacing)
    values = {m.name: m(truth, prediction) for m in MEASURES.values() if kind in m.kinds}
    if np.ndim(truth) == 2 and "auc" in values:
        values |= {f"auc.{k}": binary_auc(truth[:, k].astype(bool), prediction[:, k]) for k in range(truth.shape[1])}
    return {name: value for name, value in values.items() if np.isfinite(value)}


def binary_auc(positive: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve by mid-ranks (Mann-Whitney); NaN with only one class."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    mid_ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((mid_ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def _one_hot(truth: np.ndarray, n_classes: int) -> np.ndarray:
    return truth.astype(bool) if truth.ndim == 2 else truth[:, None] == np.arange(n_classes)


@measure("classification", "mil", openml="area_under_roc_curve")
def auc(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Area under the ROC curve: one-versus-rest, unweighted mean over the classes (or labels) that occur. 0-1."""
    positive = _one_hot(truth, prediction.shape[1])
    values = [binary_auc(positive[:, k], prediction[:, k]) for k in range(prediction.shape[1])]
    values = [v for v in values if np.isfinite(v)]
    return float(np.mean(values)) if values else float("nan")


@measure("classification", "mil", "similarity", openml="predictive_accuracy")
def accuracy(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Share of samples whose most probable class is the true one; of label decisions at 0.5 if multi-label. 0-1."""
    if truth.ndim == 2:
        return float(((prediction >= 0.5) == truth.astype(bool)).mean())
    return float((prediction.argmax(axis=1) == truth).mean())


@measure("classification", "mil", openml="unweighted_recall")
def balanced_accuracy(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Mean recall over the classes that occur; over both answers of every label if multi-label. 0-1."""
    if truth.ndim == 2:
        right = (prediction >= 0.5) == truth.astype(bool)
        recalls = [
            right[truth[:, k] == v, k].mean() for k in range(truth.shape[1]) for v in (0, 1) if (truth[:, k] == v).any()
        ]
        return float(np.mean(recalls))
    right = prediction.argmax(axis=1) == truth
    return float(np.mean([right[truth == k].mean() for k in np.unique(truth)]))


@measure("classification", "mil", higher=False)
def log_loss(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Mean negative log-likelihood of the truth in nats, probabilities clipped at 1e-7. 0 to 16.1."""
    p = np.clip(prediction, 1e-7, 1)
    if truth.ndim == 2:
        return float(-(truth * np.log(p) + (1 - truth) * np.log(np.clip(1 - prediction, 1e-7, 1))).mean())
    return float(-np.log(p[np.arange(len(truth)), truth]).mean())


@measure("classification", "mil", higher=False)
def calibration_error(truth: np.ndarray, prediction: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error of the most probable class over 10 equal bins (Guo et al., 2017). 0-1.

    Of multi-label targets, of every label's more probable answer, all labels together.
    """
    if truth.ndim == 2:
        p = prediction.reshape(-1, 1)
        truth, prediction = truth.reshape(-1), np.concatenate([1 - p, p], axis=1)
    confidence, right = prediction.max(axis=1), prediction.argmax(axis=1) == truth
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(confidence[index == b].sum() - right[index == b].sum()) for b in np.unique(index)]
    return float(sum(gaps) / len(truth))


@measure("classification", "mil")
def kappa(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Cohen's kappa with quadratic weights, for ordinal classes. -1 to 1; NaN if truth and answer are one class."""
    if truth.ndim == 2 or prediction.shape[1] < 2:
        return float("nan")
    k = prediction.shape[1]
    table = np.bincount(truth * k + prediction.argmax(axis=1), minlength=k * k).reshape(k, k)
    weights = (np.arange(k)[:, None] - np.arange(k)) ** 2
    expected = np.outer(table.sum(1), table.sum(0)) / len(truth)
    return float(1 - (weights * table).sum() / total) if (total := (weights * expected).sum()) else float("nan")
