"""The meta-learner: prior list, weak corrections, trees on what they leave, and a gate that falls back to the list."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from metamed.correctors import WEAK, Base, base_of, common_scale, fact_distance, family_weights, normal_scores
from metamed.exams import Prediction, weighted_tau
from metamed.tables import Columns, Table

QUANTILE, ROUNDS, SEEDS, FEWEST = 0.93, 30, 3, 5
TREES = {"max_depth": 2, "eta": 0.05, "subsample": 0.7, "colsample_bytree": 0.7, "min_child_weight": 10, "lambda": 10.0,
         "base_score": 0.0, "objective": "reg:squarederror", "nthread": 1, "tree_method": "exact"}


@dataclass(frozen=True, eq=False)
class Fitted:
    """What answering needs beside the evidence itself: the trees, the gate and the error of expected scores.

    models: XGBoost's own JSON, one per seed. gain: inner tau above the list. error: half width of the 90 % interval.
    """

    models: tuple[dict, ...]
    gain: float
    error: float
    families: int
    names: tuple[str, ...]

    @property
    def open(self) -> bool:
        """Is the learner used, or the list? Only what gained inside, on enough families, is used."""
        return self.gain > 0

    @property
    def basis(self) -> str:
        evidence = f"{self.families} families of datasets"
        if self.open:
            return f"prior list corrected by facts and XGBoost on {evidence}; {self.gain:+.3f} weighted tau inside"
        why = "too few families" if self.families < FEWEST else f"corrections gained nothing inside ({self.gain:+.3f} tau)"
        return f"prior list alone on {evidence}: {why}"


# --- fitting ---


def outcome(train: Table, base: Base) -> np.ndarray:
    """Scores on the scale on which `base` predicts them."""
    return normal_scores(train.scores) if base.kind == "source" else common_scale(train.scores)


def crossfit(train: Table) -> Base:
    """The base for each training dataset, learned without its family: no row sees its own outcome."""
    parts = {}
    for fold in train.family_folds():
        base = base_of(train.rows(~fold), train.rows(fold).hidden())
        parts |= dict(zip(np.flatnonzero(fold), base.each(), strict=True))
    return Base.join([parts[i] for i in range(len(train.datasets))])


def grow(base: Base, target: np.ndarray, weights: np.ndarray, seeds: int = SEEDS) -> tuple[dict, ...]:
    """Small trees on the departure from the base's anchor, one model per seed, as XGBoost's JSON."""
    import xgboost

    there = np.isfinite(target)
    rest = (target - base.anchor)[there]
    data = xgboost.DMatrix(base.features[there], rest, weight=np.broadcast_to(weights[:, None], there.shape)[there])
    boosters = [xgboost.train(TREES | {"seed": seed}, data, ROUNDS) for seed in range(seeds)]
    return tuple(json.loads(b.save_raw("json")) for b in boosters)


def fit(train: Table, *, seeds: int = SEEDS) -> Fitted:
    """Learn trees on cross-fitted bases, decide the gate by leaving families out once more, and measure the error."""
    folds = train.family_folds()
    error = float(np.quantile(np.abs(_level_errors(train)), QUANTILE)) if len(folds) > 1 else float("nan")
    if len(folds) < FEWEST:
        return Fitted((), 0.0, error, len(folds), ())
    base = crossfit(train)
    target, weights = outcome(train, base), family_weights(train.families, 0.5)
    gains = []
    for fold in folds:
        models = grow(base.rows(~fold), target[~fold], weights[~fold], seeds=1)
        gains.append(_gain(train.scores[fold], base.rows(fold), models))
    return Fitted(grow(base, target, weights, seeds), float(np.mean(gains)), error, len(folds), base.names)


def _gain(scores: np.ndarray, base: Base, models: tuple[dict, ...]) -> float:
    """Mean weighted tau of the corrected order above that of the list."""
    order, gains = corrected(base, models), []
    for truth, own, plain in zip(scores, order, base.list, strict=True):
        there = np.isfinite(truth)
        if there.sum() > 1:
            gains.append(weighted_tau(truth[there], own[there]) - weighted_tau(truth[there], plain[there]))
    return float(np.mean(gains)) if gains else 0.0


# --- answering: numpy alone ---


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


def corrected(base: Base, models: tuple[dict, ...]) -> np.ndarray:
    """The order value with the trees' part in it."""
    return base.order + base.share * evaluate(models, base.features)


def answer(fitted: Fitted, train: Table, target: Table) -> Prediction:
    """Order and expected scores for the target's datasets; the highest expected score goes to the first in order."""
    base = base_of(train, target)
    order = corrected(base, fitted.models) if fitted.open else base.list
    score = np.array([_in_order(o, s) for o, s in zip(order, _level(train, target), strict=True)])
    low, high = score - fitted.error, score + fitted.error
    if _is_fraction(train.scores):
        low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
    return Prediction(order, score, low, high, fitted.basis)


def _in_order(order: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The same figures, handed out in the order of the items, so that list and figures never contradict."""
    out = np.empty_like(score)
    out[np.argsort(-order, kind="stable")] = np.sort(score)[::-1]
    return out


def fit_predict(train: Table, target: Table) -> Prediction:
    """The learner as a ranker: the very same for exams and for recommending."""
    return answer(fit(train), train, target)


# --- expected scores ---


def _is_fraction(scores: np.ndarray) -> bool:
    return bool(np.nanmin(scores) >= 0 and np.nanmax(scores) <= 1)


def _level_facts(facts: Columns) -> Columns:
    """How hard a segmentation is depends on the kind of label, not on the dataset: then that alone counts."""
    return {"label_kind": facts["label_kind"]} if "label_kind" in facts else facts


def _level(train: Table, target: Table) -> np.ndarray:
    """Expected scores (k, m): on the logit scale, the item's median + a Gaussian process over datasets (noise 1)."""
    fraction = _is_fraction(train.scores)
    clipped = np.clip(train.scores, 1e-3, 1 - 1e-3)
    values = np.log(clipped / (1 - clipped)) if fraction else train.scores
    known = np.isfinite(values)
    medians = np.array([np.median(v[k]) if k.any() else np.nan for v, k in zip(values.T, known.T, strict=True)])
    medians = np.where(np.isfinite(medians), medians, np.nanmedian(medians))
    residual = np.where(known, values - medians, 0.0)
    facts, asked = _level_facts(train.facts), _level_facts(target.facts)
    shift = np.zeros((len(target.datasets), len(medians)))
    if facts:
        own, near = (np.exp(-fact_distance(facts, f)) for f in (facts, asked))
        shift = near @ np.linalg.solve(own + WEAK * np.eye(len(own)), residual)
    return 1 / (1 + np.exp(-(medians + shift))) if fraction else medians + shift


def _level_errors(train: Table) -> np.ndarray:
    """Errors of the expected scores of each family, learned without it, pooled."""
    errors = []
    for fold in train.family_folds():
        own = train.rows(fold)
        errors.append((_level(train.rows(~fold), own.hidden()) - own.scores)[np.isfinite(own.scores)])
    return np.concatenate(errors)
