"""Small boosted trees: grown by XGBoost, kept as its own JSON, and read by numpy alone when an answer is wanted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import numpy as np

ROUNDS = 30
TREES = {
    "max_depth": 2,
    "eta": 0.05,
    "subsample": 0.7,
    "colsample_bytree": 0.7,
    "min_child_weight": 10,
    "lambda": 10.0,
    "base_score": 0.0,
    "objective": "reg:squarederror",
    "nthread": 1,
}


def grow(features: np.ndarray, target: np.ndarray, weights: np.ndarray, seeds: Iterable[int]) -> tuple[dict, ...]:
    """One model per seed. features: (n, p), NaN where missing; target, weights: (n,)."""
    import xgboost

    data = xgboost.DMatrix(features, target, weight=weights)
    boosters = [xgboost.train(TREES | {"seed": seed}, data, ROUNDS) for seed in seeds]
    return tuple(json.loads(b.save_raw("json")) for b in boosters)


def out_of_fold(
    features: np.ndarray, target: np.ndarray, weights: np.ndarray, folds: Sequence[np.ndarray], seeds: Sequence[int],
    *, rounds: int = ROUNDS, **settings,
) -> np.ndarray:  # fmt: skip
    """What trees that were grown without a row's fold predict for it, mean over seeds, (n,); NaN in no fold.

    folds: masks over the rows. All rows are binned once, and a fold is left out by weighing nothing: binning anew for
    every fold takes about half as long again, and the bins see no outcome. settings: replace those in TREES.
    """
    import xgboost

    data = xgboost.QuantileDMatrix(features, target, weight=weights)
    out = np.full(len(target), np.nan)
    for fold in folds:
        data.set_weight(np.where(fold, 0.0, weights))
        boosters = [xgboost.train(TREES | settings | {"seed": seed}, data, rounds) for seed in seeds]
        out[fold] = np.mean([b.predict(data) for b in boosters], axis=0)[fold]
    return out


def evaluate(models: tuple[dict, ...], features: np.ndarray) -> np.ndarray:
    """Mean prediction of XGBoost models in their own JSON. features: (..., p), NaN where missing -> (...)."""
    flat = features.reshape(-1, features.shape[-1]).astype(np.float32)
    total = np.zeros(len(flat), dtype=np.float64)
    for model in models:
        for tree in model["learner"]["gradient_booster"]["model"]["trees"]:
            total += _leaf(tree, flat)
    return (total / max(1, len(models))).reshape(features.shape[:-1])


def _leaf(tree: dict, rows: np.ndarray) -> np.ndarray:
    """The leaf value that each row falls into; a missing value takes the node's default way."""
    left, right, feature = (np.array(tree[k]) for k in ("left_children", "right_children", "split_indices"))
    limit, default = np.array(tree["split_conditions"], dtype=np.float32), np.array(tree["default_left"], dtype=bool)
    node = np.zeros(len(rows), dtype=int)
    while (inner := left[node] >= 0).any():
        value = rows[np.arange(len(rows)), feature[node]]
        goes_left = np.where(np.isnan(value), default[node], value < limit[node])
        node = np.where(inner, np.where(goes_left, left[node], right[node]), node)
    return limit[node].astype(np.float64)


def contributions(models: tuple[dict, ...], features: np.ndarray) -> np.ndarray:
    """What each feature and, last, the bias give to the mean prediction (TreeSHAP). features: (n, p) -> (n, p + 1)."""
    import xgboost

    total = np.zeros((len(features), features.shape[1] + 1))
    for model in models:
        booster = xgboost.Booster()
        booster.load_model(bytearray(json.dumps(model), "utf-8"))
        total += booster.predict(xgboost.DMatrix(features), pred_contribs=True)
    return total / max(1, len(models))
