"""Expected scores and how far they miss: how hard a dataset is, told from its facts. NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metamed.exams import judged
from metamed.exams.scales import fact_distance
from metamed.exams.tables import Columns, Table
from metamed.metalearner.correctors import ROUNDS, WEAK

RIDGE_OF_LANDMARKS = 1.0
QUANTILE = 0.93  # of the absolute errors inside: pooled over families it gives intervals that hold nine times in ten


def is_fraction(scores: np.ndarray) -> bool:
    return bool(np.nanmin(scores) >= 0 and np.nanmax(scores) <= 1)


def _level_facts(train: Table, target: Table) -> tuple[Columns, Columns]:
    """How hard a segmentation is depends on the kind of label and its share of the pixels, not on the dataset.

    Where the kind is known, these alone count; and the number of samples where datasets were run with several.
    """
    known, asked = train.facts, target.facts
    names = [n for n in known if n != "label_kind"]
    if "label_kind" in known and "label_kind" in asked:
        sized = len(set(train.datasets)) < len(train.datasets)
        names = [n for n in known if n in ("label_kind", "log_fraction") or (sized and n == "log_n")]
    return {n: known[n] for n in names}, {n: c for n, c in asked.items() if n in names}


def _siblings(train: Table) -> np.ndarray:
    """How many rows of a row's family outline the same kind of label, (n,): together they tell as much as one."""
    kinds = train.facts.get("label_kind")
    if kinds is None:
        return np.ones(len(train.datasets))
    alike = list(zip(train.families, kinds, strict=True))
    return np.array([float(alike.count(row)) for row in alike])


def expected_scores(train: Table, target: Table) -> np.ndarray:
    """Expected scores (k, m): the item's median + what landmarks say + a Gaussian process (noise 1), as logits.

    Scores that are known on a target move all of its expectations by what they missed in the mean.
    """
    fraction = is_fraction(train.scores)
    values = link(train.scores, fraction)
    hardness, medians = two_way(values)
    said, says = _told_by_landmarks(train, target, hardness)
    facts, asked = _level_facts(train, target)
    expected = medians + says[:, None]
    if facts and asked:
        own, near = (np.exp(-fact_distance(facts, f)) for f in (facts, asked))
        residual = np.where(np.isfinite(values), values - medians, hardness[:, None]) - said[:, None]
        expected += near @ np.linalg.solve(own + WEAK * np.diag(_siblings(train)), residual)
    told = np.isfinite(target.scores)
    missed = np.where(told, link(np.where(told, target.scores, 0.5), fraction) - expected, 0.0)
    expected += missed.sum(1, keepdims=True) / np.maximum(told.sum(1, keepdims=True), 1)
    return 1 / (1 + np.exp(-expected)) if fraction else expected


def _told_by_landmarks(train: Table, target: Table, hardness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What quick models say of how hard each dataset is, known (n,) and asked (k,): ridge regression on their mean."""
    nothing = np.zeros(len(train.datasets)), np.zeros(len(target.datasets))
    if not (train.landmarks and target.landmarks and is_fraction(train.scores)):
        return nothing
    own, asked = (_mean_landmark(t.landmarks) for t in (train, target))
    if np.isfinite(own).sum() < 3 or (sd := np.nanstd(own)) < 1e-9:
        return nothing
    own, asked = (np.nan_to_num((c - np.nanmean(own)) / sd) for c in (own, asked))
    slope = (own * hardness).sum() / ((own**2).sum() + RIDGE_OF_LANDMARKS)
    return slope * own, slope * asked


def _mean_landmark(columns: Columns) -> np.ndarray:
    """Mean on the logit scale of the landmarks that are known; NaN where none is."""
    scores = np.stack(list(columns.values()))
    known = np.isfinite(scores)
    return np.where(known.any(0), np.where(known, link(scores, True), 0).sum(0) / np.maximum(known.sum(0), 1), np.nan)


def two_way(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(how far each dataset lies above the others, (n,), each item's median, (m,)): what a row lacks moves neither."""
    known = np.isfinite(values)
    hardness = np.zeros(len(values))
    for _ in range(ROUNDS):
        moved = values - hardness[:, None]
        medians = _medians(moved, known.sum(0))
        medians = np.where(np.isfinite(medians), medians, np.nanmedian(medians))
        apart = np.where(known, values - medians, 0.0).sum(1) / np.maximum(known.sum(1), 1)
        hardness = apart - apart.mean()
    return hardness, medians


def _medians(values: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Median of each column over its `n` numbers; NaN where it has none."""
    ordered = np.sort(values, axis=0)  # NaN comes last
    middle = np.stack([np.maximum(n - 1, 0) // 2, np.minimum(n // 2, len(values) - 1)])
    return np.take_along_axis(ordered, middle, axis=0).mean(0)


def link(scores: np.ndarray, fraction: bool) -> np.ndarray:
    clipped = np.clip(scores, 1e-3, 1 - 1e-3)
    return np.log(clipped / (1 - clipped)) if fraction else scores


def half_width(train: Table, shown: Sequence[str] = ()) -> float:
    """Half width of a 90 % interval: 93 % quantile of the errors on families that were not learned from, pooled.

    Of datasets like those that are asked about: one that has no hint where the others have them sets no width.
    """
    errors, asked = [], judged(train)
    for fold in (f for f in train.family_folds() if (f & asked).any()):
        own = train.rows(fold & asked)
        hidden = own.hidden(shown)
        missed = expected_scores(train.rows(~fold), hidden) - own.scores
        errors.append(np.abs(missed[np.isfinite(own.scores) & ~np.isfinite(hidden.scores)]))
    return float(np.quantile(np.concatenate(errors), QUANTILE)) if errors else float("nan")
