"""What people said of the images: how many of them, how much, and how far they agree.

Ratings come first: where a dataset has both, agreement is that of the ratings. An answer to a triplet is the choice of
one of two images; the same anchor with the same two images is the same question. Only answers are read, no pixel.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from metamed.assessments import Triplets
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


def triplets_of(probe: Probe) -> Triplets:
    """The triplets; raises NotApplicable where there are none."""
    if not len(probe.dataset.triplets or ()):
        raise NotApplicable(f"{probe.dataset.name} has no triplets")
    return probe.dataset.triplets


def ids_of(*columns: np.ndarray) -> np.ndarray:
    """One number per distinct row of the columns, (n,)."""
    codes = np.stack([np.unique(np.asarray(column), return_inverse=True)[1] for column in columns], axis=1)
    return np.unique(codes, axis=0, return_inverse=True)[1].ravel()


def questions(probe: Probe) -> tuple[np.ndarray, np.ndarray]:
    """(question, answer) of each triplet: the answer is whether the image with the smaller index was closer."""
    t = triplets_of(probe)
    low, high = np.minimum(t.closer, t.farther), np.maximum(t.closer, t.farther)
    return ids_of(t.anchor, low, high), (np.asarray(t.closer) == low).astype(int)


def _answers(probe: Probe) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(unit, answer, annotator) by attribute; of triplets, where there are no ratings."""
    dataset = _assessed(probe)
    if not len(dataset.ratings or ()):
        return [(*probe.once(questions), np.asarray(dataset.triplets.annotator))]
    ratings = dataset.ratings
    score, image, who = np.asarray(ratings.score, np.float64), np.asarray(ratings.image), np.asarray(ratings.annotator)
    names, attribute = np.unique(np.asarray(ratings.attribute), return_inverse=True)
    attribute[~np.isfinite(score)] = -1
    parts = [np.flatnonzero(attribute == k) for k in range(len(names))]
    return [(image[part], score[part], who[part]) for part in parts if len(part)]


def _tables(probe: Probe) -> list[tuple[np.ndarray, np.ndarray]]:
    """Counts and values by attribute."""
    return [counts_by_unit(unit, answer) for unit, answer, _ in probe.once(_answers)]


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
def annotator_alpha(probe: Probe) -> np.ndarray:
    """Krippendorff's interval alpha of each annotator with all who answered the same questions; a wide spread tells
    careful people from careless ones.

    unit: alpha; range: -inf to 1; cost: facts; needs: assessments, repeated answers; source: Krippendorff 2011;
    Raumanns et al. 2021, arXiv 2107.12734 (quality of annotators).
    """
    parts = [_disagreements(*answers) for answers in probe.once(_answers)]
    parts = [part for part in parts if part is not None]
    if not parts:
        raise NotApplicable(f"{probe.dataset.name}: no attribute has repeated answers that differ")
    who, disagreement, pairs = (np.concatenate(column) for column in zip(*parts, strict=True))
    people, person = np.unique(who.astype(str), return_inverse=True)
    total, count = (np.bincount(person, values, minlength=len(people)) for values in (disagreement, pairs))
    return np.sort(1 - total / count)


def _disagreements(unit: np.ndarray, answer: np.ndarray, who: np.ndarray) -> tuple[np.ndarray, ...] | None:
    """(annotator, summed squared differences to the other answers over what chance gives, other answers) of each answer
    to a question with two or more; None where all answers are equal."""
    answer = answer.astype(np.float64) - np.mean(answer)
    _, row, size = np.unique(unit, return_inverse=True, return_counts=True)
    kept = size[row] > 1
    if not kept.any() or (chance := 2 * answer[kept].var(ddof=1)) <= 1e-12:
        return None
    first, second = np.bincount(row, answer), np.bincount(row, answer**2)
    own = size[row] * answer**2 - 2 * answer * first[row] + second[row]
    return who[kept], own[kept] / chance, size[row][kept] - 1.0
