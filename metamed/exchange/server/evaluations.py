"""Scores of a run from its predictions, as OpenML's evaluation engine (Weka's Evaluation) defines them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from metamed.exchange.server.tables import Predictions
from metamed.measures import binary_auc
from metamed.store.served import Score

_NAMES = """
area_under_roc_curve average_cost binominal_test build_cpu_time build_memory c_index chi-squared class_complexity
class_complexity_gain confusion_matrix correlation_coefficient cortana_quality coverage f_measure information_gain
jaccard joint_entropy kappa kb_relative_information_score kohavi_wolpert_bias_squared kohavi_wolpert_error
kohavi_wolpert_sigma_squared kohavi_wolpert_variance kononenko_bratko_information_score matthews_correlation_coefficient
mean_absolute_error mean_class_complexity mean_class_complexity_gain mean_f_measure
mean_kononenko_bratko_information_score mean_precision mean_prior_absolute_error mean_prior_class_complexity mean_recall
mean_weighted_area_under_roc_curve mean_weighted_f_measure mean_weighted_precision mean_weighted_recall
number_of_instances os_information pattern_team_auroc10 positives precision predictive_accuracy prior_class_complexity
prior_entropy probability quality ram_hours recall relative_absolute_error root_mean_prior_squared_error
root_mean_squared_error root_relative_squared_error run_cpu_time run_memory run_virtual_memory scimark_benchmark
single_point_area_under_roc_curve total_cost unclassified_instance_count unweighted_recall usercpu_time_millis
usercpu_time_millis_testing usercpu_time_millis_training wall_clock_time_millis wall_clock_time_millis_testing
wall_clock_time_millis_training webb_bias webb_error webb_variance weighted_recall
"""
MEASURES = tuple(_NAMES.split())  # the evaluation functions of the public server; any other name is refused (217)


def evaluate(given: Predictions, truth: np.ndarray, tests: list[tuple[int, int, np.ndarray]],
             n_classes: int | None) -> tuple[list[Score], str | None]:  # fmt: skip
    """(scores of the whole run and of each fold, what is wrong with the predictions or None).

    truth: class number or value of each row of the dataset; tests: (repeat, fold, rows) of the task's test sets.
    Scores of a whole run are those of its pooled predictions, as on OpenML, not means over the folds.
    """
    wrong = _miscounted(given, tests)
    if wrong:
        return [], wrong
    known = truth >= 0 if n_classes else np.isfinite(truth)
    kept = known[given.row]
    prior = truth[known]
    scores = list(_scores((-1, -1, -1), given.confidences[kept], truth[given.row[kept]], prior, n_classes))
    order = np.lexsort((given.fold, given.repeat))
    pairs = np.stack([given.repeat[order], given.fold[order]], axis=1)
    starts = np.flatnonzero(np.r_[True, (pairs[1:] != pairs[:-1]).any(1)])
    for rows in np.split(order, starts[1:]):
        place = (int(given.repeat[rows[0]]), int(given.fold[rows[0]]), 0)
        rows = rows[kept[rows]]
        scores += _scores(place, given.confidences[rows], truth[given.row[rows]], prior, n_classes)
    return scores, None


def _miscounted(given: Predictions, tests: list[tuple[int, int, np.ndarray]]) -> str | None:
    """Is every test row of every fold predicted, once, and no other?"""
    wanted = np.concatenate([np.stack(np.broadcast_arrays(r, f, rows), axis=1) for r, f, rows in tests])
    found = np.stack([given.repeat, given.fold, given.row], axis=1)
    if len(found) != len(wanted):
        return f"Prediction count does not match: {len(found)} predictions, expected {len(wanted)}"
    wanted, found = (a[np.lexsort(a.T[::-1])] for a in (wanted, found))
    if differs := np.flatnonzero((wanted != found).any(1)).tolist():
        repeat, fold, row = wanted[differs[0]].tolist()
        return f"Prediction count does not match: repeat {repeat}, fold {fold}, row {row} is not predicted exactly once"
    return None


def _scores(place: tuple[int, int, int], predicted: np.ndarray, truth: np.ndarray, prior: np.ndarray,
            n_classes: int | None) -> Iterator[Score]:  # fmt: skip
    if len(truth) == 0:
        return
    values = (_classification(predicted, truth.astype(int), prior.astype(int), n_classes) if n_classes
              else _regression(predicted[:, 0], truth, prior))  # fmt: skip
    for measure, value in values.items():
        array = None
        if isinstance(value, tuple):
            value, array = value[0], json.dumps(np.round(value[1], 6).tolist()).replace("NaN", '"?"')
        if value is None or np.isfinite(value):
            yield Score(measure, *place, None if value is None else float(value), array)


def _classification(p: np.ndarray, truth: np.ndarray, prior: np.ndarray, k: int) -> dict:
    """Weka's measures of a classification. Values with their per-class array are pairs."""
    sums = p.sum(1, keepdims=True)
    p = np.divide(p, sums, out=np.zeros_like(p), where=sums > 0)
    n, table = len(truth), np.bincount(truth * k + p.argmax(1), minlength=k * k).reshape(k, k)
    hits, of_class, called = table.diagonal(), table.sum(1), table.sum(0)
    precision, recall = (np.divide(hits, of, out=np.zeros(k), where=of > 0) for of in (called, of_class))
    both = precision + recall
    f_measure = np.divide(2 * precision * recall, both, out=np.zeros(k), where=both > 0)
    area = np.array([binary_auc(truth == c, p[:, c]) for c in range(k)])
    weight, chance = of_class / n, (of_class * called).sum() / n**2
    seen = np.isfinite(area) & (of_class > 0)
    accuracy = hits.sum() / n
    return {
        "predictive_accuracy": accuracy,
        "kappa": (accuracy - chance) / (1 - chance) if chance < 1 else 1.0,
        "precision": ((weight * precision).sum(), precision),
        "recall": ((weight * recall).sum(), recall),
        "weighted_recall": ((weight * recall).sum(), recall),
        "unweighted_recall": (recall[of_class > 0].mean(), recall),
        "f_measure": ((weight * f_measure).sum(), f_measure),
        "area_under_roc_curve": ((weight * np.nan_to_num(area))[seen].sum() / weight[seen].sum() if seen.any() else
                                 np.nan, area),
        "number_of_instances": (n, of_class),
        "confusion_matrix": (None, table),
        "average_cost": 0.0,  # tasks with a cost matrix are not evaluated by cost
        "total_cost": 0.0,
    } | _probabilistic(p, truth, prior, k)  # fmt: skip


def _probabilistic(p: np.ndarray, truth: np.ndarray, prior: np.ndarray, k: int) -> dict:
    """Errors of the class probabilities, beside those of the classes' shares in the whole dataset (one added each)."""
    target = np.eye(k)[truth]
    shares = (np.bincount(prior, minlength=k) + 1) / (len(prior) + k)
    wrong, wrong_prior = np.abs(target - p), np.abs(target - shares)
    found = {"mean_absolute_error": wrong.mean(), "mean_prior_absolute_error": wrong_prior.mean(),
             "root_mean_squared_error": np.sqrt((wrong**2).mean()),
             "root_mean_prior_squared_error": np.sqrt((wrong_prior**2).mean()),
             "prior_entropy": -np.log2(shares[truth]).mean()}  # fmt: skip
    return found | _relative(found)


def _regression(p: np.ndarray, truth: np.ndarray, prior: np.ndarray) -> dict:
    wrong, wrong_prior = p - truth, prior.mean() - truth
    found = {"mean_absolute_error": np.abs(wrong).mean(), "mean_prior_absolute_error": np.abs(wrong_prior).mean(),
             "root_mean_squared_error": np.sqrt((wrong**2).mean()),
             "root_mean_prior_squared_error": np.sqrt((wrong_prior**2).mean()),
             "number_of_instances": len(truth)}  # fmt: skip
    return found | _relative(found)


def _relative(found: dict) -> dict:
    """Errors as shares of what knowing nothing but the whole dataset's shares, or mean, would give."""
    prior, root = found["mean_prior_absolute_error"], found["root_mean_prior_squared_error"]
    return {"relative_absolute_error": found["mean_absolute_error"] / prior if prior else np.nan,
            "root_relative_squared_error": found["root_mean_squared_error"] / root if root else np.nan}  # fmt: skip
