"""What people said of the images: how many of them, how much, and how far they agree.

Ratings come first: where a dataset has both, agreement is that of the ratings. An answer to a triplet is the choice of
one of two images; the same anchor with the same two images is the same question. Only answers are read, no pixel.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from metamed.dataset import Dataset
from metamed.errors import NotApplicable
from metamed.metafeatures import metafeature
from metamed.metafeatures.probe import Probe

# -- measures of agreement ---------------------------------------------------------------------------------------------


def counts_by_unit(unit: np.ndarray, answer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(how many gave each answer to each unit, (units, answers); the answers, ascending)."""
    values, code = np.unique(answer, return_inverse=True)
    units, row = np.unique(unit, return_inverse=True)
    flat = np.bincount(row * len(values) + code, minlength=len(units) * len(values))
    return flat.reshape(len(units), len(values)).astype(np.float64), values


def krippendorff(counts: np.ndarray, distance: np.ndarray) -> float:
    """Krippendorff's alpha of counts (units, answers) with squared distances between answers; NaN where it is not
    defined: no unit with two answers, or all answers equal."""
    counts = counts[counts.sum(axis=1) >= 2]
    size, total = counts.sum(axis=1), counts.sum(axis=0)
    if len(counts) == 0:
        return np.nan
    pairs = (counts / (size - 1)[:, None]).T @ counts - np.diag((counts / (size - 1)[:, None]).sum(axis=0))
    n = total.sum()
    expected = (np.outer(total, total) - np.diag(total)) / (n - 1)
    chance = (expected * distance).sum()
    return float(1 - (pairs * distance).sum() / chance) if chance > 0 else np.nan


def nominal(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Squared distance of answers that are names: 0 if equal, else 1."""
    return 1 - np.eye(len(values))


def ordinal(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Squared distance of answers that are ranks: how many answers lie between two (of units with two answers)."""
    total = counts[counts.sum(axis=1) >= 2].sum(axis=0)
    middle = np.cumsum(total) - total / 2
    return (middle[:, None] - middle[None]) ** 2


def interval(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Squared distance of answers that are numbers."""
    values = values.astype(np.float64)
    return (values[:, None] - values[None]) ** 2


def fleiss(counts: np.ndarray) -> float:
    """Fleiss' kappa of counts (units, answers); NaN unless all units have equally many answers, two or more."""
    size = counts.sum(axis=1)
    n = size[0]
    if n < 2 or (size != n).any():
        return np.nan
    agreement = ((counts**2).sum(axis=1) - n) / (n * (n - 1))
    chance = ((counts.sum(axis=0) / counts.sum()) ** 2).sum()
    return float((agreement.mean() - chance) / (1 - chance)) if chance < 1 - 1e-12 else np.nan


# -- answers -----------------------------------------------------------------------------------------------------------


def _assessed(probe: Probe) -> Dataset:
    dataset = probe.dataset
    if not len(dataset.triplets or ()) and not len(dataset.ratings or ()):
        raise NotApplicable(f"{dataset.name} has no assessments")
    return dataset


def _triplets(probe: Probe):
    if not len(probe.dataset.triplets or ()):
        raise NotApplicable(f"{probe.dataset.name} has no triplets")
    return probe.dataset.triplets


def _ids(*columns: np.ndarray) -> np.ndarray:
    """One number per distinct row of the columns, (n,)."""
    codes = np.stack([np.unique(np.asarray(column), return_inverse=True)[1] for column in columns], axis=1)
    return np.unique(codes, axis=0, return_inverse=True)[1].ravel()


def _questions(probe: Probe) -> tuple[np.ndarray, np.ndarray]:
    """(question, answer) of each triplet: the answer is whether the image with the smaller index was closer."""
    t = _triplets(probe)
    low, high = np.minimum(t.closer, t.farther), np.maximum(t.closer, t.farther)
    return _ids(t.anchor, low, high), (np.asarray(t.closer) == low).astype(int)


def _tables(probe: Probe) -> list[tuple[np.ndarray, np.ndarray]]:
    """Counts and values by attribute; of triplets, where there are no ratings."""
    dataset = _assessed(probe)
    if not len(dataset.ratings or ()):
        return [counts_by_unit(*probe.once(_questions))]
    ratings = dataset.ratings
    score, image = np.asarray(ratings.score, np.float64), np.asarray(ratings.image)
    names, attribute = np.unique(np.asarray(ratings.attribute), return_inverse=True)
    attribute[~np.isfinite(score)] = -1
    parts = [np.flatnonzero(attribute == k) for k in range(len(names))]
    return [counts_by_unit(image[part], score[part]) for part in parts if len(part)]


def _mean_over_attributes(probe: Probe, measure: Callable) -> float:
    found = np.array([measure(counts, values) for counts, values in probe.once(_tables)])
    found = found[np.isfinite(found)]
    if len(found) == 0:
        raise NotApplicable(f"{probe.dataset.name}: no attribute has repeated answers that differ")
    return float(found.mean())


def _annotators(probe: Probe) -> np.ndarray:
    """Answers of each annotator, largest first; triplets' and ratings' annotators are taken for other people."""
    parts = [part for part in (_assessed(probe).triplets, probe.dataset.ratings) if part is not None and len(part)]
    counts = [np.unique(np.asarray(part.annotator), return_counts=True)[1] for part in parts]
    return np.sort(np.concatenate(counts))[::-1]


# -- how much ----------------------------------------------------------------------------------------------------------


@metafeature("crowd")
def n_annotators(probe: Probe) -> float:
    """People who judged.

    unit: annotators; range: 1 to inf; cost: facts; needs: assessments; source: Raumanns et al. 2021, arXiv 2107.12734.
    """
    return len(probe.once(_annotators))


@metafeature("crowd")
def annotator_answers(probe: Probe) -> np.ndarray:
    """Answers of each annotator.

    unit: answers; range: 1 to inf; cost: facts; needs: assessments; source: Raumanns et al. 2021, arXiv 2107.12734.
    """
    return probe.once(_annotators)


@metafeature("crowd")
def busiest_annotator(probe: Probe) -> float:
    """Share of all answers that the busiest annotator gave.

    unit: share; range: 0 to 1; cost: facts; needs: assessments; source: here.
    """
    counts = probe.once(_annotators)
    return counts[0] / counts.sum()


@metafeature("crowd")
def answers_per_question(probe: Probe) -> float:
    """Answers over distinct questions: an image and attribute, or a triplet in either order.

    unit: answers; range: 1 to inf; cost: facts; needs: assessments; source: Krippendorff 2011.
    """
    tables = [counts for counts, _ in probe.once(_tables)]
    return sum(counts.sum() for counts in tables) / sum(map(len, tables))


@metafeature("crowd")
def assessed_images(probe: Probe) -> float:
    """Share of the images that any assessment shows.

    unit: share; range: 0 to 1; cost: facts; needs: assessments; source: Raumanns et al. 2021, arXiv 2107.12734.
    """
    dataset = _assessed(probe)
    shown = [np.asarray(part) for t in [dataset.triplets] if t is not None for part in (t.anchor, t.closer, t.farther)]
    if dataset.ratings is not None:
        shown.append(np.asarray(dataset.ratings.image))
    return len(np.unique(np.concatenate(shown))) / len(dataset.images)


@metafeature("crowd")
def rated_attributes(probe: Probe) -> float:
    """Attributes that were rated; 0 where there are triplets alone.

    unit: attributes; range: 0 to inf; cost: facts; needs: assessments; source: Raumanns et al. 2021.
    """
    ratings = _assessed(probe).ratings
    return 0 if ratings is None else len(np.unique(np.asarray(ratings.attribute)))


# -- how far they agree ------------------------------------------------------------------------------------------------


@metafeature("crowd")
def alpha_nominal(probe: Probe) -> float:
    """Krippendorff's alpha with answers as names, mean over attributes: 1 agreement, 0 chance. Of triplets: choices.

    unit: alpha; range: -1 to 1; cost: facts; needs: assessments, repeated answers; source: Krippendorff 2011.
    """
    return _mean_over_attributes(probe, lambda counts, values: krippendorff(counts, nominal(counts, values)))


@metafeature("crowd")
def alpha_ordinal(probe: Probe) -> float:
    """Krippendorff's alpha with answers as ranks, mean over attributes.

    unit: alpha; range: -1 to 1; cost: facts; needs: assessments, repeated answers; source: Krippendorff 2011.
    """
    return _mean_over_attributes(probe, lambda counts, values: krippendorff(counts, ordinal(counts, values)))


@metafeature("crowd")
def alpha_interval(probe: Probe) -> float:
    """Krippendorff's alpha with answers as numbers, mean over attributes.

    unit: alpha; range: -1 to 1; cost: facts; needs: assessments, repeated answers; source: Krippendorff 2011.
    """
    return _mean_over_attributes(probe, lambda counts, values: krippendorff(counts, interval(counts, values)))


@metafeature("crowd")
def fleiss_kappa(probe: Probe) -> float:
    """Fleiss' kappa, mean over the attributes whose questions all have equally many answers.

    unit: kappa; range: -1 to 1; cost: facts; needs: assessments, repeated answers; source: Fleiss 1971.
    """
    return _mean_over_attributes(probe, lambda counts, values: fleiss(counts))


@metafeature("crowd")
def triplet_consistency(probe: Probe) -> float:
    """Share of pairs of answers to the same question that agree: 0.5 is guessing between two.

    unit: share; range: 0 to 1; cost: facts; needs: triplets, repeated answers; source: Welinder & Perona 2010.
    """
    return _agreement(*probe.once(_questions), probe.dataset.name)


@metafeature("crowd")
def self_consistency(probe: Probe) -> float:
    """Share of pairs of answers by one annotator to the same question that agree.

    unit: share; range: 0 to 1; cost: facts; needs: triplets, repeated answers; source: Welinder & Perona 2010.
    """
    question, answer = probe.once(_questions)
    return _agreement(_ids(question, _triplets(probe).annotator), answer, probe.dataset.name)


def _agreement(question: np.ndarray, answer: np.ndarray, name: str) -> float:
    counts, _ = counts_by_unit(question, answer)
    size = counts.sum(axis=1)
    pairs = (size * (size - 1)).sum()
    if pairs == 0:
        raise NotApplicable(f"{name}: no question was asked twice")
    return float((counts * (counts - 1)).sum() / pairs)


@metafeature("crowd")
def contradictions(probe: Probe) -> float:
    """Share of threes of compared distances that go round in a circle (x < y < z < x), after majorities: 0 can be
    embedded, 0.25 is chance.

    unit: share; range: 0 to 1; cost: facts; needs: triplets, repeated answers; source: Kendall & Babington Smith 1940.
    """
    t = _triplets(probe)
    near, far = (_ids_of_pairs(t.anchor, other, len(probe.dataset.images)) for other in (t.closer, t.farther))
    circles, orders = _threes(near, far)
    if circles + orders == 0:
        raise NotApplicable(f"{probe.dataset.name}: no three distances are all compared")
    return circles / (circles + orders)


def _ids_of_pairs(a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    a, b = np.asarray(a, np.int64), np.asarray(b, np.int64)
    return np.minimum(a, b) * n + np.maximum(a, b)


def _threes(near: np.ndarray, far: np.ndarray) -> tuple[int, int]:
    """(circles, orders) among threes of distances that are all compared, by the majority for near[i] < far[i]."""
    votes: dict[tuple[int, int], int] = {}
    for a, b in zip(near.tolist(), far.tolist(), strict=True):
        key, sign = ((a, b), 1) if a < b else ((b, a), -1)
        votes[key] = votes.get(key, 0) + sign
    beats: dict[int, set[int]] = {}
    beaten: dict[int, set[int]] = {}
    for (a, b), net in votes.items():
        if net:
            winner, loser = (a, b) if net > 0 else (b, a)
            beats.setdefault(winner, set()).add(loser)
            beaten.setdefault(loser, set()).add(winner)
    none: set[int] = set()
    edges = [(w, x) for w, losers in beats.items() for x in losers]
    circles = sum(len(beats.get(x, none) & beaten.get(w, none)) for w, x in edges) // 3
    return circles, sum(len(beats.get(x, none) & beats[w]) for w, x in edges)


@metafeature("crowd")
def position_bias(probe: Probe) -> float:
    """How far the side on which an image was shown decided: share of answers left minus share right, without sign.

    unit: share; range: 0 to 1; cost: facts; needs: triplets, sides; source: Day 1969 (position bias).
    """
    side = _triplets(probe).side
    if side is None:
        raise NotApplicable(f"{probe.dataset.name}: the sides are unknown")
    return abs(2 * float(np.mean(np.asarray(side) == 0)) - 1)
