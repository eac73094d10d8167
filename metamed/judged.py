"""What people said of images, as learning takes it: whose answers count, on one scale, of images that may be seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metamed.assessments import Ratings, Triplets, gold_of_labels, informative
from metamed.crowd import annotator_quality
from metamed.dataset import ArrayImages, Dataset
from metamed.errors import NotApplicable
from metamed.methods import Believed


@dataclass(frozen=True, eq=False)
class Judged:
    """Assessments of the images at `index`, int (n,). Either triplets or scores.

    triplets: anchor, closer, farther as positions in `index`, int (m, 3). scores: of each image and attribute (n, A),
    mean 0 and variance 1 over those that were rated, NaN where nobody rated. weights: how much an answer counts, (m,)
    or (n, A), mean 1 over what there is.
    """

    index: np.ndarray
    weights: np.ndarray
    triplets: np.ndarray | None = None
    scores: np.ndarray | None = None
    attributes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Triplets, or images that were rated."""
        return len(self.index) if self.triplets is None else len(self.triplets)


def judged(dataset: Dataset, allowed: np.ndarray, believed: Believed, labels: np.ndarray | None = None) -> Judged:
    """The assessments of a dataset that show nothing but `allowed` images, those alone that are `believed`.

    labels: the class of each image where it may be known, -1 elsewhere: for `keep="labels"`. Raises NotApplicable where
    the dataset has no such assessments or none is left.
    """
    found = {"triplets": dataset.triplets, "ratings": dataset.ratings}
    there = [name for name, answers in found.items() if len(answers or ())]
    learns = there[0] if believed.learns == "any" and there else believed.learns
    if learns not in there:
        raise NotApplicable(f"{dataset.name} has no {learns.replace('any', 'triplets or ratings')} to learn from "
                            f"(found: {', '.join(there) or 'no assessments'})")  # fmt: skip
    said = _triplets if learns == "triplets" else _scores
    return said(dataset, found[learns], np.asarray(allowed), believed, labels)


def _refuse(dataset: Dataset, what: str, n: int) -> NotApplicable:
    return NotApplicable(f"{dataset.name}: none of {n} {what} of images outside the test part is believed. "
                         "Lower `minimum`, or keep=all")  # fmt: skip


def _triplets(dataset: Dataset, answers: Triplets, allowed: np.ndarray, believed: Believed, labels) -> Judged:
    answers = informative(answers)
    answers = answers.take(np.isin(_rows(answers), allowed).all(axis=1))
    weights = np.ones(len(answers))
    if believed.keep == "quality":
        weights = above_chance(quality_of_triplets(answers), believed.minimum)
    if believed.keep == "labels":
        if labels is None:
            raise NotApplicable(f"keep=labels needs one class for each image, which {dataset.name} has not here")
        weights = (gold_of_labels(answers, labels) != 0).astype(float)
    if not weights.any():
        raise _refuse(dataset, "triplets", len(weights))
    index, positions = np.unique(_rows(answers.take(weights > 0)), return_inverse=True)
    weights = weights[weights > 0]
    return Judged(index, weights / weights.mean(), positions.reshape(-1, 3))


def _rows(answers: Triplets) -> np.ndarray:
    return np.stack([answers.anchor, answers.closer, answers.farther], axis=1).astype(np.int64)


def _scores(dataset: Dataset, answers: Ratings, allowed: np.ndarray, believed: Believed, labels) -> Judged:
    if believed.keep == "labels":
        raise NotApplicable("keep=labels leaves out triplets that contradict labels; ratings cannot. Use keep=quality")
    answers = answers.take(np.isin(answers.image, allowed) & np.isfinite(np.asarray(answers.score, float)))
    weights = np.ones(len(answers))
    if believed.keep == "quality":
        weights = above_chance(quality_of_ratings(answers), believed.minimum)
    if not weights.any():
        raise _refuse(dataset, "ratings", len(weights))
    answers, weights = answers.take(weights > 0), weights[weights > 0]
    level = standardised(ids(answers.annotator, answers.attribute), answers.score)
    index, row = np.unique(answers.image, return_inverse=True)
    names, column = np.unique(np.asarray(answers.attribute).astype(str), return_inverse=True)
    flat, size = row * len(names) + column, len(index) * len(names)
    total = np.bincount(flat, weights, size).reshape(len(index), -1)
    with np.errstate(invalid="ignore"):
        scores = np.bincount(flat, weights * level, size).reshape(len(index), -1) / total
    scores = (scores - np.nanmean(scores, axis=0)) / np.maximum(np.nanstd(scores, axis=0), 1e-6)
    return Judged(index, total / total[total > 0].mean(), scores=scores, attributes=tuple(names.tolist()))


# ---- quality


def quality_of_triplets(answers: Triplets) -> np.ndarray:
    """For each answer the quality of its annotator: the probability that he is right; NaN for those who do not persist
    and where one annotator alone stands for everybody."""
    if len(np.unique(np.asarray(answers.annotator).astype(str))) < 2:
        return np.full(len(answers), np.nan)
    quality = annotator_quality(answers)
    values = np.array([quality[who] for who in np.asarray(answers.annotator).tolist()], float)
    return np.where(answers.persistent, values, np.nan)


def quality_of_ratings(answers: Ratings) -> np.ndarray:
    """For each answer how far its annotator agrees with the others, (1 + correlation of ranks) / 2, pooled over
    attributes; of answers by annotators who do not persist, how far the answer itself does: 1 less 1.5 times the
    difference of ranks (0-1), which is 0.5 by chance. NaN where nobody else judged the same."""
    who, what = ids(answers.annotator), ids(answers.image, answers.attribute)
    scale, twice = ids(answers.annotator, answers.attribute), ids(answers.annotator, answers.image, answers.attribute)
    quality = np.full(len(answers), np.nan)
    level = standardised(scale, answers.score)
    others = _mean_of_others(level, what, twice)
    for k in np.unique(who[np.isfinite(others)]):
        mine = (who == k) & np.isfinite(others)
        if level[mine].std() > 0 and others[mine].std() > 0:
            quality[who == k] = (1 + np.corrcoef(level[mine], others[mine])[0, 1]) / 2
    rank = mid_ranks(scale, answers.score)
    single = np.clip(1 - 1.5 * np.abs(rank - _mean_of_others(rank, what, twice)), 0, 1)
    return np.where(answers.persistent, quality, single)


def above_chance(quality: np.ndarray, minimum: float) -> np.ndarray:
    """The weight of answers by their quality: what lies above chance (0.5), nothing below `minimum`; the mean weight
    where the quality is unknown, which is no reason to leave an answer out."""
    weights = np.where(quality >= minimum, np.maximum(2 * quality - 1, 0), 0.0)
    known = np.isfinite(quality)
    return np.where(known, weights, weights[known].mean() if known.any() else 1.0)


def _mean_of_others(values: np.ndarray, question: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Mean of what all others answered to the same question, NaN where there are none; `own`: his and that question."""
    n = np.bincount(question)[question] - np.bincount(own)[own]
    total = np.bincount(question, values)[question] - np.bincount(own, values)[own]
    return np.divide(total, n, out=np.full(len(values), np.nan), where=n > 0)


# ---- scales that differ


def ids(*columns: np.ndarray) -> np.ndarray:
    """One number for each distinct row of the columns, 0 upwards, int (n,)."""
    codes = np.stack([np.unique(np.asarray(c).astype(str), return_inverse=True)[1] for c in columns], axis=1)
    return np.unique(codes, axis=0, return_inverse=True)[1].ravel()


def mid_ranks(group: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The place of each score within its group, 0 to 1, ties in their middle: scales that differ become one."""
    order = np.lexsort((score, group))
    g, s = group[order], np.asarray(score)[order]
    tie = np.cumsum(np.r_[True, (g[1:] != g[:-1]) | (s[1:] != s[:-1])]) - 1
    middle = np.bincount(tie, np.arange(len(s))) / np.bincount(tie)
    sizes = np.bincount(g)
    rank = np.empty(len(s))
    rank[order] = (middle[tie] - (np.cumsum(sizes) - sizes)[g] + 0.5) / sizes[g]
    return rank


def standardised(group: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Mid-ranks with mean 0 and variance 1 within each group; 0 where all scores of a group are one."""
    rank = mid_ranks(group, score)
    sizes = np.bincount(group)
    centred = rank - (np.bincount(group, rank) / sizes)[group]
    sd = np.sqrt(np.bincount(group, centred**2) / sizes)[group]
    return np.divide(centred, sd, out=np.zeros(len(rank)), where=sd > 1e-12)


# ---- triplets as samples: which of two images is closer to a third?


def questions(triplets: Triplets) -> tuple[np.ndarray, np.ndarray]:
    """(anchor, first, second) of each informative triplet, int (m, 3), and which of the two was called closer, 0 or 1,
    int (m,). Which one is the first is drawn, always in the same way, so that nothing but the images tells."""
    rows = _rows(informative(triplets))
    answer = np.random.default_rng(0).integers(0, 2, len(rows))
    return np.where(answer[:, None] == 1, rows[:, [0, 2, 1]], rows), answer


def triplets_as_samples(dataset: Dataset) -> Dataset:
    """A stand-in whose samples are the triplets and whose classes are the answers, to be divided like any other.

    Triplets belong to the group, and to the part of the dataset's own split, of their anchor; without groups those of
    one anchor are one group. Candidates may occur on both sides of a split.
    """
    rows, answer = questions(dataset.triplets)
    group = rows[:, 0] if dataset.groups is None else np.asarray(dataset.groups)[rows[:, 0]]
    split = None if dataset.split is None else np.asarray(dataset.split)[rows[:, 0]]
    images = ArrayImages(np.zeros((len(rows), 1), np.uint8))
    return Dataset(dataset.name, images, answer, split=split, groups=group)
