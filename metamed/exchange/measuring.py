"""Predictions as they lie on a server, measured again: by whom ever, and as far as rounding leaves them to be known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metamed.errors import ReadError
from metamed.measures import MEASURES, evaluate

NEAR = 2**-9  # relative difference of probabilities that rounding, or dividing by their sum, may make or undo
_LEAST = 1e-7  # what is stored in two bytes as 0 may have been as much


class Fold(NamedTuple):
    """truth: classes, int (n,). chances: probabilities (n, K). said: the classes that were named, int (n,)."""

    truth: np.ndarray
    chances: np.ndarray
    said: np.ndarray


Scores = dict[str, tuple[float, ...]]  # measure -> its value in each fold


def read_predictions(text: str) -> list[Fold]:
    """Anybody's predictions file, in the order of (repeat, fold).

    Raises ReadError where it is no file of predictions with probabilities.
    """
    import arff

    try:
        file = arff.loads(text)
        columns = {name: k for k, (name, _) in enumerate(file["attributes"])}
        classes = {name: k for k, name in enumerate(file["attributes"][columns["correct"]][1])}
        chances = [columns[f"confidence.{c}"] for c in classes]
        rows: dict[tuple[int, int], list[list]] = {}
        for row in file["data"]:
            rows.setdefault((int(row[columns["repeat"]]), int(row[columns["fold"]])), []).append(row)
        return [Fold(np.array([classes[row[columns["correct"]]] for row in rows[key]]),
                     np.array([[float(row[c]) for c in chances] for row in rows[key]]),
                     np.array([classes.get(row[columns["prediction"]], -1) for row in rows[key]]))
                for key in sorted(rows)]  # fmt: skip
    except (arff.ArffException, KeyError, TypeError, ValueError) as error:
        raise ReadError(f"predictions without probabilities ({type(error).__name__}: {error})") from None


def measured(folds: Sequence[Fold]) -> Scores:
    """metamed's measures of a classification, those that are defined on every fold."""
    scores = [evaluate("classification", fold.truth, fold.chances) for fold in folds]
    names = set.intersection(*map(set, scores)) if scores else set()
    return {name: tuple(s[name] for s in scores) for name in MEASURES if name in names}


def right(folds: Sequence[Fold]) -> tuple[float, ...]:
    """The share of rows whose class was named, by fold."""
    return tuple(float(np.mean(fold.truth == fold.said)) for fold in folds)


def undecided(folds: Sequence[Fold]) -> Scores:
    """How far measures may be off because probabilities were rounded: the share of the comparisons that they rest on
    in which the two are as good as equal. In small folds a single one counts much."""
    found = [_undecided(fold) for fold in folds]
    return {name: tuple(of[name] for of in found) for name in (found[0] if found else ())}


def _undecided(fold: Fold) -> dict[str, float]:
    logs = np.log(np.maximum(fold.chances, _LEAST))
    best = np.sort(logs, axis=1)[:, -2:]
    close = best[:, 0] >= best[:, -1] - NEAR if fold.chances.shape[1] > 1 else np.zeros(len(logs), bool)
    there = np.unique(fold.truth)
    pairs = [_close_pairs(logs[fold.truth == k, k], logs[fold.truth != k, k]) for k in there if len(there) > 1]
    return {"auc": float(np.mean(pairs)) if pairs else 0.0, "accuracy": float(close.mean()),
            "balanced_accuracy": float(np.mean([close[fold.truth == k].mean() for k in there]))}  # fmt: skip


def _close_pairs(some: np.ndarray, others: np.ndarray) -> float:
    """The share of pairs, one of each, that differ by no more than NEAR."""
    others = np.sort(others)
    within = np.searchsorted(others, some + NEAR, "right") - np.searchsorted(others, some - NEAR, "left")
    return float(within.sum() / (len(some) * len(others)))
