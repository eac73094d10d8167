"""What runs on the target itself tell of the setups that were not run there: landmark runs. NumPy alone."""

from __future__ import annotations

import numpy as np

from metamed.exams.scales import family_weights, standardise
from metamed.exams.tables import Table
from metamed.metalearner.levels import is_fraction, link, two_way

SHRINK, SHARE = 3.0, 0.5  # of nine combinations the one that was surest on own runs: benchmarks/results/ideas.md
FEWEST = 3  # one run tells how hard a dataset is; two gain nothing on own runs
UNKNOWN = 100.0  # variance of how hard the target is, beside 1 of how setups differ there: as good as unknown


def moved_by_runs(order: np.ndarray, train: Table, target: Table) -> np.ndarray:
    """The order (k, m) of each target moved by the scores that are known on it; as it is below three of them.

    Setups that missed what was expected elsewhere by as much and in the same direction will do so here: the conditional
    mean of a Gaussian whose covariance of setups is learned from the training datasets and shrunk.
    """
    told = np.isfinite(target.scores)
    if told.sum(1).max(initial=0) < FEWEST:
        return order
    fraction = is_fraction(train.scores)
    values = link(train.scores, fraction)
    hardness, medians = two_way(values)
    apart = np.nan_to_num(values - medians - hardness[:, None])
    weights = family_weights(train.families, 1.0)[:, None]
    spread = np.sqrt((apart**2).mean()) or 1.0
    alike = (weights * apart).T @ apart
    alike /= np.trace(alike) / len(alike) or 1.0
    out = np.where(np.isfinite(order), standardise(order), order)
    for i, known in enumerate(told):
        if known.sum() >= FEWEST:
            missed = (link(target.scores[i, known], fraction) - medians[known]) / spread
            noise = alike[np.ix_(known, known)] + SHRINK * np.eye(known.sum()) + UNKNOWN
            out[i] += SHARE * alike[:, known] @ np.linalg.solve(noise, missed)
    return out
