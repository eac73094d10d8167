"""Exams of rankers: many folds, hardly longer than one fit."""

from __future__ import annotations

import numpy as np

from benchmarks.speed.timing import bar, in_turn, seconds
from metamed.exams import knn, prior_list
from metamed.exams.tables import Table
from metamed.metalearner import trees


def _large_table(datasets: int = 200, items: int = 100, facts: int = 20) -> Table:
    """Synthetic scores: an order of the items that moves with the facts. Nothing was trained."""
    rng = np.random.default_rng(0)
    known, names = rng.normal(size=(datasets, facts)), tuple(f"d{i}" for i in range(datasets))
    scores = rng.normal(size=items) + known[:, :5] @ rng.normal(size=(5, items)) + rng.normal(size=(datasets, items))
    columns = {f"fact.{k}": column for k, column in enumerate(known.T)}
    return Table("synthetic", "score", names, tuple(f"s{j}" for j in range(items)), scores, names, columns)


def _rows_of_an_exam(folds: int) -> tuple:
    """200 datasets x 100 setups x 100 features as rows for the trees, with the masks of some families."""
    rng, datasets, items = np.random.default_rng(0), 200, 100
    features = rng.normal(size=(datasets * items, 100))
    target = features[:, :5].sum(1) + rng.normal(size=len(features))
    masks = [np.repeat(np.arange(datasets) == fold, items) for fold in range(folds)]
    return features, target, np.ones(len(features)), masks


DEEP = {"rounds": 60, "max_depth": 4}  # the size of trees that the bar is about
FOLDS = 10  # of 200: both sides take as long for each


def _anew(features, target, weights, masks) -> None:
    """Bin and grow for every fold what is left of the rows."""
    import xgboost

    for mask in masks:
        data = xgboost.QuantileDMatrix(features[~mask], target[~mask], weight=weights[~mask])
        booster = xgboost.train(trees.TREES | {"max_depth": DEEP["max_depth"], "seed": 0}, data, DEEP["rounds"])
        booster.predict(xgboost.DMatrix(features[mask]))


@bar(at_most=0.75)
def exam_of_trees() -> tuple[float, float]:
    """Leaving out 10 of 200 families by weights of one binned matrix, against binning anew."""
    rows = _rows_of_an_exam(FOLDS)
    return in_turn(
        lambda: seconds(lambda: trees.out_of_fold(*rows, range(1), **DEEP)), lambda: seconds(lambda: _anew(*rows))
    )


def _baseline(ranker) -> tuple[float, float]:
    table, rows = _large_table(), _rows_of_an_exam(FOLDS)

    def ours() -> float:
        return seconds(lambda: [ranker(table.rows(~f), table.rows(f).hidden()) for f in table.family_folds()[:FOLDS]])

    return in_turn(ours, lambda: seconds(lambda: _anew(*rows)))


@bar(at_most=0.001)
def exam_of_prior_list() -> tuple[float, float]:
    """The prior list in 10 of 200 folds, against trees that are binned and grown anew."""
    return _baseline(prior_list)


@bar(at_most=0.02)
def exam_of_knn() -> tuple[float, float]:
    """Nearest neighbours in 10 of 200 folds, against trees that are binned and grown anew."""
    return _baseline(knn)
