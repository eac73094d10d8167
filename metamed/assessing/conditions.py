"""Answers under one condition against those under another: agreement, accuracy, speed, drop-out, learning."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from metamed.assessing import values
from metamed.assessing.differences import (
    Difference,
    auc_difference,
    difference,
    holm,
    rank_correlation,
    unit_means,
)
from metamed.assessments import Ratings, Triplets, gold_of_labels
from metamed.errors import NotApplicable, UnknownName

FEW_PEOPLE = 2  # of each condition, from which on people are the units
MANY_SHARED = 20  # images or questions of both conditions, from which on these alone are compared
LEAST_OF_A_CLASS = 5
LOGARITHMIC = ("seconds", "speeding up")  # measures whose means and intervals are of natural logarithms


@dataclass(frozen=True)
class Group:
    """The answers under one condition. scales: attribute -> (least, greatest, distinct) of its scores."""

    name: str
    answers: int
    annotators: int
    slots: int
    images: int
    scales: dict[str, tuple[float, float, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """One measure under `condition` against `reference`. unit: what was exchanged in the test, people or images.

    adjusted: p for as many tests of this measure as were made (Holm).
    """

    measure: str
    attribute: str
    condition: str
    reference: str
    unit: str
    difference: Difference
    adjusted: float = np.nan


@dataclass(frozen=True)
class Correlation:
    """Spearman's correlation of two conditions' mean scores of the same images, with its 95 % interval."""

    attribute: str
    condition: str
    reference: str
    images: int
    value: float
    low: float
    high: float
    p: float
    adjusted: float = np.nan


@dataclass(frozen=True)
class Conditions:
    """All conditions against one of them."""

    reference: str
    groups: tuple[Group, ...]
    comparisons: tuple[Comparison, ...]
    correlations: tuple[Correlation, ...]
    notes: tuple[str, ...]


def compare(answers: Triplets | Ratings, labels: np.ndarray | None = None, reference: str | None = None,
            seed: int = 0) -> Conditions:  # fmt: skip
    """Every condition against the reference (the one with most answers, if none is named).

    labels: class of each image, NaN unknown (n_images,), for how well answers tell it. Raises NotApplicable with fewer
    than two conditions, UnknownName for a reference that is none of them.
    """
    if answers.condition is None or len(names := _names(answers)) < 2:
        raise NotApplicable("one condition alone: nothing to compare. Name the column that tells it: --by COLUMN")
    if reference is not None and reference not in names:
        raise UnknownName("condition", reference, names)
    reference = reference or names[0]
    groups = tuple(_group(answers.take(_of(answers, name)), name) for name in names)
    make = _of_triplets if isinstance(answers, Triplets) else _of_ratings
    comparisons, correlations, notes = make(answers, labels, names, reference, seed)
    general = _of_people(answers, names, reference, seed)
    notes += [] if answers.time is not None else ["no times: nothing about speed, and nothing about learning, because "
                                                  "the order of the answers may not be that of the rows"]  # fmt: skip
    return Conditions(reference, groups, _adjusted(comparisons + general), tuple(_adjust(correlations)), tuple(notes))


def _names(answers) -> list[str]:
    """The conditions, that with most answers first; answers without one belong to none."""
    names, counts = np.unique(np.asarray(answers.condition).astype(str), return_counts=True)
    return [n for n in names[np.argsort(-counts, kind="stable")].tolist() if n not in ("", "nan")]


def _of(answers, name: str) -> np.ndarray:
    return np.asarray(answers.condition).astype(str) == name


def _group(part, name: str) -> Group:
    who, own = np.asarray(part.annotator).astype(str), part.persistent
    if isinstance(part, Triplets):
        images, scales = np.unique(np.concatenate([part.anchor, part.closer, part.farther])), {}
    else:
        images, what = np.unique(part.image), np.asarray(part.attribute).astype(str)
        scales = {a: _scale(part.score[what == a]) for a in np.unique(what).tolist()}
    return Group(name, len(part), len(np.unique(who[own])), len(np.unique(who[~own])), len(images), scales)


def _scale(score: np.ndarray) -> tuple[float, float, int]:
    return float(score.min()), float(score.max()), len(np.unique(score))


# -- triplets ----------------------------------------------------------------------------------------------------------


def _of_triplets(answers: Triplets, labels, names, reference, seed) -> tuple[list, list, list]:
    known = {"agreement": values.agreement(answers), "accuracy": values.right(answers)}
    if labels is not None:
        gold = gold_of_labels(answers, np.where(np.isnan(labels), -1, labels).astype(int))
        known["labels"] = np.where(gold < 0, np.nan, gold)
    question = values.questions(answers)[0]
    found = []
    for name in names:
        if name != reference:
            found += _means(answers, known, question, "questions", name, reference, "", seed)
    notes = [] if np.isfinite(known["agreement"]).any() else ["no question was answered by two people: no agreement"]
    return found, [], notes


def _means(answers, known: dict, other_unit: np.ndarray, called: str, name: str, reference: str, attribute: str,
           seed: int) -> list[Comparison]:  # fmt: skip
    """The comparison of each measure that is known for both conditions; `other_unit` where people do not persist."""
    sides = [_of(answers, n) for n in (name, reference)]
    own = [len(np.unique(np.asarray(answers.annotator)[side & answers.persistent].astype(str))) for side in sides]
    people = min(own) >= FEW_PEOPLE and all(answers.persistent[side].all() for side in sides)
    unit, called = (np.asarray(answers.annotator).astype(str), "people") if people else (other_unit, called)
    found = []
    for measure, value in known.items():
        units, means = zip(*(unit_means(unit[side], value[side]) for side in sides), strict=True)
        if min(map(len, units)):
            gap = difference(units, means, seed)
            found.append(Comparison(measure, attribute, name, reference, called, gap))
    return found


# -- ratings -----------------------------------------------------------------------------------------------------------


def _of_ratings(answers: Ratings, labels, names, reference, seed) -> tuple[list, list, list]:
    what = np.asarray(answers.attribute).astype(str)
    comparisons, correlations, scales, apart = [], [], {}, set()
    for attribute in np.unique(what).tolist():
        part = answers.take(what == attribute)
        for name in [n for n in names if n != reference]:
            pair = part.take(_of(part, name) | _of(part, reference))
            if min(_of(pair, n).sum() for n in (name, reference)) == 0:
                continue
            pair, shared = _on_shared_images(pair, name, reference)
            apart |= set() if shared else {name}
            score, differing = _on_one_scale(pair, name, reference)
            scales.setdefault(attribute, set()).update(differing)
            comparisons += _alphas(pair, score, name, reference, attribute, seed)
            more = _of_means(pair, score, labels, name, reference, attribute, seed)
            comparisons += more[0]
            correlations += more[1]
    notes = [_said(attribute, found) for attribute, found in scales.items() if found]
    if apart:
        notes.append(f"{_some(sorted(apart))} rated other images than {reference}: what differs may be the images")
    return comparisons, correlations, notes


def _said(attribute: str, scales: set) -> str:
    shown = _some([f"{low:g} to {high:g}" for low, high in sorted(scales)])
    return f"{attribute}: scores on different scales ({shown}); compared as ranks within each annotator"


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + ("…" if len(names) > 6 else "")


def _on_shared_images(pair: Ratings, name: str, reference: str) -> tuple[Ratings, bool]:
    """(the answers about images that were rated under both conditions, True) where these are enough, else all."""
    shared = np.intersect1d(*(pair.image[_of(pair, n)] for n in (name, reference)))
    least = min(len(np.unique(pair.image[_of(pair, n)])) for n in (name, reference))
    enough = len(shared) >= min(MANY_SHARED, max(least / 2, 1))
    return (pair.take(np.isin(pair.image, shared)) if enough else pair), enough


def _on_one_scale(pair: Ratings, name: str, reference: str) -> tuple[np.ndarray, set]:
    """(scores, or ranks within each annotator where the scales differ, these scales)."""
    scales = {_scale(pair.score[_of(pair, n)])[:2] for n in (name, reference)}
    if len(scales) == 1:
        return np.asarray(pair.score, np.float64), set()
    return values.ranked(pair), scales


def _alphas(pair: Ratings, score, name, reference, attribute, seed) -> list[Comparison]:
    value = np.full(len(pair), np.nan)
    for side in (_of(pair, n) for n in (name, reference)):
        value[side] = values.alpha(pair.take(side), score[side])
    known = {"alpha": value, "accuracy": values.right(pair)}
    return _means(pair, known, pair.image, "images", name, reference, attribute, seed)


def _of_means(pair: Ratings, score, labels, name, reference, attribute, seed) -> tuple[list, list]:
    """What the mean scores of images say: do the conditions order them alike, and as their labels do?"""
    (images, first), (others, second) = (unit_means(pair.image[s], score[s])
                                         for s in (_of(pair, n) for n in (name, reference)))  # fmt: skip
    shared, a, b = np.intersect1d(images, others, return_indices=True)
    first, second = first[a], second[b]
    found = rank_correlation(first, second, seed)
    correlations = [] if np.isnan(found[0]) else [Correlation(attribute, name, reference, len(shared), *found)]
    if labels is None:
        return [], correlations
    known = np.isfinite(labels[shared])
    classes = np.unique(labels[shared][known])
    positive = labels[shared][known] == classes[-1] if len(classes) == 2 else np.zeros(0, bool)
    if min(positive.sum(), (~positive).sum()) < LEAST_OF_A_CLASS:
        return [], correlations
    gap = auc_difference(first[known], second[known], positive, seed)
    return [Comparison("label AUC", attribute, name, reference, "images", gap)], correlations


# -- people ------------------------------------------------------------------------------------------------------------


def _of_people(answers, names, reference, seed) -> list[Comparison]:
    """Speed, drop-out and learning: of people alone, because slots neither stop nor learn."""
    measures = {"drop-out": _dropped_out(answers)}
    if answers.time is not None:
        seconds = values.log_seconds(answers)
        measures["seconds"] = _by_person(answers, seconds)
        measures["speeding up"] = values.halves(answers, seconds)
        learned = values.right(answers)
        if not np.isfinite(learned).any() and isinstance(answers, Triplets):
            learned = values.agreement(answers)
        measures["learning"] = values.halves(answers, learned)
    condition = _condition_of_people(answers)
    found = []
    for measure, (who, value) in measures.items():
        for name in [n for n in names if n != reference]:
            sides = [np.array([n in condition.get(int(w), ()) for w in who], bool) for n in (name, reference)]
            if min(side.sum() for side in sides) >= FEW_PEOPLE and not (sides[0] & sides[1]).any():
                gap = difference(tuple(who[s] for s in sides), tuple(value[s] for s in sides), seed)
                found.append(Comparison(measure, "", name, reference, "people", gap))
    return found


def _condition_of_people(answers) -> dict[int, set[str]]:
    condition: dict[int, set[str]] = {}
    for who, name in zip(values.people(answers).tolist(), np.asarray(answers.condition).astype(str), strict=True):
        condition.setdefault(who, set()).add(str(name))
    return condition


def _by_person(answers, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return unit_means(values.people(answers), np.where(answers.persistent, value, np.nan))


def _dropped_out(answers) -> tuple[np.ndarray, np.ndarray]:
    """(people, 1 for who gave fewer than half as many answers as is usual, by median, else 0)."""
    who, n = np.unique(values.people(answers)[answers.persistent], return_counts=True)
    return who, (n < np.median(n) / 2).astype(np.float64) if len(n) else n.astype(np.float64)


# -- how many tests ----------------------------------------------------------------------------------------------------


def _adjusted(comparisons: list[Comparison]) -> tuple[Comparison, ...]:
    """Each with its p among all tests of the same measure."""
    out = list(comparisons)
    for measure in {c.measure for c in comparisons}:
        rows = [i for i, c in enumerate(comparisons) if c.measure == measure]
        for i, p in zip(rows, holm(np.array([comparisons[i].difference.p for i in rows])), strict=True):
            out[i] = replace(out[i], adjusted=float(p))
    return tuple(out)


def _adjust(correlations: list[Correlation]) -> list[Correlation]:
    adjusted = holm(np.array([c.p for c in correlations]))
    return [replace(c, adjusted=float(p)) for c, p in zip(correlations, adjusted, strict=True)]
