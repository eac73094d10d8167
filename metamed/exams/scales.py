"""Scales that make scores of different datasets comparable, the plain prior list, and how alike two datasets are."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from metamed.exams.tables import Columns, Table, spread_ranks

# --- scales of outcomes ---


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over rows where a value is there; a column that has none takes the worst mean."""
    there = np.isfinite(values)
    total = (there * weights[:, None]).sum(0)
    means = (np.where(there, values, 0) * weights[:, None]).sum(0) / np.where(total > 0, total, 1)
    worst = means[total > 0].min() if (total > 0).any() else 0.0
    return np.where(total > 0, means, worst)


def common_scale(scores: np.ndarray) -> np.ndarray:
    """Mean of evenly spread ranks / 0.3 and of z-scores clipped at 2.5, in each row; NaN stays NaN."""
    there = np.isfinite(scores)
    filled = np.where(there, scores, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        sd = _row(np.nanstd, filled)
        z = np.clip((filled - _row(np.nanmean, filled)) / np.where(sd > 0, sd, 1), -2.5, 2.5)
    return (spread_ranks(filled) / 0.3 + z) / 2


def normal_scores(scores: np.ndarray) -> np.ndarray:
    """Quantiles of the normal distribution at (rank - 3/8) / (n + 1/4) in each row (Blom, 1958); NaN stays NaN."""
    ranks = spread_ranks(scores)
    n = np.isfinite(scores).sum(1, keepdims=True)
    levels = ((ranks + 0.5) * (n - 1) + 1 - 3 / 8) / (n + 1 / 4)
    quantile = np.vectorize(lambda p: NormalDist().inv_cdf(p) if np.isfinite(p) else np.nan, otypes=[float])
    return quantile(levels)


def standardise(values: np.ndarray) -> np.ndarray:
    """Each row to mean 0 and sd 1 over what is there; a constant row becomes 0."""
    filled = np.where(np.isfinite(values), values, np.nan)
    sd = _row(np.nanstd, filled)
    return (filled - _row(np.nanmean, filled)) / np.where(sd > 1e-12, sd, 1)


def _row(function, values: np.ndarray) -> np.ndarray:
    """A nan-function of each row as a column; 0 for rows that hold nothing."""
    empty = ~np.isfinite(values).any(1, keepdims=True)
    return function(np.where(empty, 0.0, values), axis=1, keepdims=True)


def family_weights(families: tuple[str, ...], power: float) -> np.ndarray:
    """(datasets in the family) ** -power: 1 lets families weigh the same, 0 datasets."""
    return np.array([families.count(f) for f in families], dtype=float) ** -power


# --- likeness of datasets and of items ---


def split(columns: Columns, others: Columns) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(numbers, categories), each a list of (own, other) columns; numbers standardised by their own, unknown is 0.

    What the other side does not have at all makes no difference.
    """
    numbers, categories = [], []
    for name, own in columns.items():
        if (other := others.get(name)) is None:
            continue
        if own.dtype == object:
            categories.append((own, other))
        elif np.isfinite(own).sum() > 1 and (sd := np.nanstd(own)) > 1e-12:
            numbers.append(tuple(np.nan_to_num((c - np.nanmean(own)) / sd) for c in (own, other)))
    return numbers, categories


def fact_distance(known: Columns, asked: Columns, number: float = 0.5, category: float = 1.0) -> np.ndarray:
    """number x mean squared difference + category x share of differing categories, (asked, known)."""
    numbers, categories = split(known, asked)
    shape = (len(next(iter(asked.values()), ())), len(next(iter(known.values()), ())))
    total = np.zeros(shape)
    if numbers:
        total = total + number * np.mean([(b[:, None] - a) ** 2 for a, b in numbers], axis=0)
    if categories:
        total = total + category * np.mean([b[:, None] != a for a, b in categories], axis=0)
    return total


def design(known: Columns, asked: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and dummies of categories as matrices (n, p), centred on the known rows."""
    numbers, categories = split(known, asked)
    pairs = numbers + [(a == level, b == level) for a, b in categories for level in dict.fromkeys(a)]
    rows = [len(next(iter(c.values()), ())) for c in (known, asked)]
    if not pairs:
        return np.zeros((rows[0], 0)), np.zeros((rows[1], 0))
    own, other = (np.stack([np.asarray(p[i], dtype=float) for p in pairs], axis=1) for i in (0, 1))
    return own - own.mean(0), other - own.mean(0)


def nearness(train: Table, target: Table) -> np.ndarray:
    """How much each row counts for each target, (k, n); all rows of a dataset together count as much as ever.

    Of a dataset that was run with several numbers of samples, runs with twice or half the target's count half as much,
    and a row counts by how many items it compares. All count 1 where no dataset has several rows, or no number of
    samples (`log_n`) is known; a row whose number is unknown counts as if it were the target's.
    """
    shape = (len(target.datasets), len(train.datasets))
    if len(set(train.datasets)) == shape[1] or not {"log_n"} <= train.facts.keys() & target.facts.keys():
        return np.ones(shape)
    apart = np.abs(np.nan_to_num(target.facts["log_n"][:, None] - train.facts["log_n"]))
    factor = np.isfinite(train.scores).sum(1) * 10**-apart
    place = np.unique(np.array(train.datasets, object), return_inverse=True)[1]
    own = np.eye(place.max() + 1)[place]
    mean = (factor @ own) / own.sum(0)
    return factor / np.where(mean > 0, mean, 1)[:, place]  # a dataset without scores counts nothing


def plain_list(train: Table, target: Table) -> np.ndarray:
    """The prior list: average ranks over the datasets, each counting once, runs near the target's size most, (k, m)."""
    return np.array([weighted_mean(train.ranks, weights) for weights in nearness(train, target)])
