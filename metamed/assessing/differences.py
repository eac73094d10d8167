"""Is one group of values larger than another? Permutation tests, intervals and effect sizes of means over units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PERMUTATIONS = 5000
DRAWS = 1000  # of images with replacement, for the intervals of what has no formula
PAIRED = 6  # units that both groups hold, from which on they are compared within units
LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """A mean of one group of units minus that of another.

    first, second: the two means. low, high: 95 % interval of the difference (t). p: of a permutation test of no
    difference, two-sided; exact where there are few permutations. effect: Hedges' g, standardised by the units'
    deviation, or where paired by that of the differences; effect_low, effect_high its interval. n: units of the first
    and the second group. paired: were the same units compared?
    """

    first: float
    second: float
    low: float
    high: float
    p: float
    effect: float
    effect_low: float
    effect_high: float
    n: tuple[int, int]
    paired: bool

    @property
    def difference(self) -> float:
        return self.first - self.second


def unit_means(unit: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(units, mean of each one's values) over what is known."""
    known = np.isfinite(value)
    units, row = np.unique(np.asarray(unit)[known], return_inverse=True)
    return units, np.bincount(row, value[known], len(units)) / np.bincount(row, minlength=len(units))


def difference(units: tuple[np.ndarray, np.ndarray], means: tuple[np.ndarray, np.ndarray], seed: int = 0) -> Difference:
    """Of two groups of units with their means; within units where both groups hold most of them (or `PAIRED` at least).

    NaN for what too few units allow: an interval needs two of each, a test two groups that can be exchanged.
    """
    shared, a, b = np.intersect1d(*units, return_indices=True)
    if len(shared) >= max(PAIRED, min(map(len, units)) / 2):
        return _paired(means[0][a], means[1][b], seed)
    return _independent(*means, seed)


def _paired(a: np.ndarray, b: np.ndarray, seed: int) -> Difference:
    gap, n, rng = a - b, len(a), np.random.default_rng(seed)
    sd = gap.std(ddof=1)
    every = 2**n <= PERMUTATIONS
    flipped = _subsets(n) if every else rng.random((PERMUTATIONS, n), np.float32) < 0.5
    p = _p(gap.mean() - 2 * (flipped @ gap) / n, gap.mean(), every)
    half = _t(n - 1) * sd / np.sqrt(n)
    effect = _hedges(gap.mean() / sd if sd > 0 else 0.0, n - 1)
    spread = np.sqrt(1 / n + effect**2 / (2 * n))
    return _made(a.mean(), b.mean(), half, p, effect, spread, (n, n), True)


def _independent(a: np.ndarray, b: np.ndarray, seed: int) -> Difference:
    n, m = len(a), len(b)
    if min(n, m) < 2:
        first, second = (v.mean() if len(v) else np.nan for v in (a, b))
        return Difference(first, second, *[np.nan] * 6, (n, m), False)
    variances = a.var(ddof=1) / n, b.var(ddof=1) / m
    error = np.sqrt(sum(variances))
    df = error**4 / (variances[0] ** 2 / (n - 1) + variances[1] ** 2 / (m - 1)) if error > 0 else n + m - 2
    p = _p(*_exchanged(np.concatenate([a, b]), n, np.random.default_rng(seed)))
    pooled = np.sqrt(((n - 1) * a.var(ddof=1) + (m - 1) * b.var(ddof=1)) / (n + m - 2))
    effect = _hedges((a.mean() - b.mean()) / pooled if pooled > 0 else 0.0, n + m - 2)
    spread = np.sqrt(1 / n + 1 / m + effect**2 / (2 * (n + m)))
    return _made(a.mean(), b.mean(), _t(df) * error, p, effect, spread, (n, m), False)


def _made(first, second, half, p, effect, spread, n, paired) -> Difference:
    gap, wide = first - second, 1.96 * spread
    values = (first, second, gap - half, gap + half, p, effect, effect - wide, effect + wide)
    return Difference(*map(float, values), n, paired)


def _exchanged(values: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, float, bool]:
    """(differences of means when units are exchanged between the groups, the real one, are these all of them?)."""
    from itertools import combinations
    from math import comb

    every = comb(len(values), n) <= PERMUTATIONS
    if every:
        first = np.zeros((comb(len(values), n), len(values)), bool)
        for row, chosen in enumerate(combinations(range(len(values)), n)):
            first[row, list(chosen)] = True
    else:
        first = rng.permuted(np.tile(np.arange(len(values)) < n, (PERMUTATIONS, 1)), axis=1)
    sums = first @ values
    return sums / n - (values.sum() - sums) / (len(values) - n), values[:n].mean() - values[n:].mean(), every


def _p(null: np.ndarray, seen: float, every: bool) -> float:
    """Share of exchanges that differ as much, the real one counted once (Phipson & Smyth 2010)."""
    as_large = int((np.abs(null) >= abs(seen) - 1e-12).sum())
    return as_large / len(null) if every else (as_large + 1) / (len(null) + 1)


def _subsets(n: int) -> np.ndarray:
    return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(bool)


def _hedges(d: float, df: float) -> float:
    return d * (1 - 3 / (4 * df - 1)) if df > 1 else d


def _t(df: float) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, df))


def holm(p: np.ndarray) -> np.ndarray:
    """P values adjusted for as many tests as there are (Holm 1979); NaN stays."""
    p = np.asarray(p, np.float64)
    order = [i for i in np.argsort(p) if np.isfinite(p[i])]
    adjusted, running = np.full(len(p), np.nan), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p[i]))
        adjusted[i] = running
    return adjusted


# -- how well a ranking tells two classes apart ------------------------------------------------------------------------


def auc(score: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of scores (..., n) for classes (n,): the chance that a positive one scores higher."""
    n, p = len(positive), int(positive.sum())
    return (ranks(score)[..., positive].sum(axis=-1) - p * (p + 1) / 2) / (p * (n - p))


def ranks(values: np.ndarray) -> np.ndarray:
    """Mid-ranks 1 to n along the last axis."""
    from scipy.stats import rankdata

    return rankdata(values, axis=-1)


def auc_difference(a: np.ndarray, b: np.ndarray, positive: np.ndarray, seed: int = 0) -> Difference:
    """Of two scores of the same images (n,) for one label: images exchange their two ranks, intervals by bootstrap."""
    rng, n = np.random.default_rng(seed), len(a)
    a, b = ranks(a), ranks(b)
    swap = rng.random((PERMUTATIONS, n)) < 0.5
    null = auc(np.where(swap, b, a), positive) - auc(np.where(swap, a, b), positive)
    first, second = float(auc(a, positive)), float(auc(b, positive))
    low, high = np.quantile(_resampled(a, b, positive, rng), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    p = _p(null, first - second, False)
    return Difference(first, second, float(low), float(high), p, *[np.nan] * 3, (n, n), True)


def _resampled(a, b, positive, rng: np.random.Generator) -> np.ndarray:
    """Differences of the areas when images are drawn with replacement, each class as large as it is."""
    rows = np.empty((DRAWS, len(a)), np.int64)
    for mine in (positive, ~positive):
        rows[:, mine] = rng.choice(np.flatnonzero(mine), (DRAWS, int(mine.sum())))
    return auc(a[rows], positive) - auc(b[rows], positive)


def rank_correlation(a: np.ndarray, b: np.ndarray, seed: int = 0) -> tuple[float, float, float, float]:
    """(Spearman's correlation, its 95 % bootstrap interval, p of a permutation test); NaN where one is constant."""
    if len(a) < 4 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return (np.nan,) * 4
    rng, n = np.random.default_rng(seed), len(a)
    rows = rng.integers(0, n, (DRAWS, n))
    real = float(_correlation(ranks(a), ranks(b)))
    low, high = np.nanquantile(_correlation(ranks(a[rows]), ranks(b[rows])), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    null = _correlation(ranks(a), rng.permuted(np.tile(ranks(b), (PERMUTATIONS, 1)), axis=1))
    return real, float(low), float(high), _p(null, real, False)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's, along the last axis."""
    a, b = (v - v.mean(axis=-1, keepdims=True) for v in (a, b))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(axis=-1) / np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
