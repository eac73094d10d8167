"""What ratings agree on, attribute by attribute: Dawid and Skene's model beside the majority vote."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metamed.assessments import Ratings
from metamed.crowd import Quality, consensus, left_out

FEW_PEOPLE, MOST_VALUES, MOST_ATTRIBUTES = 3, 8, 4
FEW_ANSWERS = 10  # of an annotator, from which on his scores show his scale
ONE_SCALE = 0.8  # share of the answers by people of the commonest scale, from which on scores are names of the same


@dataclass(frozen=True)
class Rater:
    """quality: that an answer is the true score. right: by true score, the probability that he gives it. left_out: that
    an answer is what the others agree on, who were judged without him; None where that was not asked for."""

    name: str
    quality: Quality
    right: tuple[float, ...]
    left_out: Quality | None = None


@dataclass(frozen=True)
class Agreed:
    """The scores of one attribute. prevalence, majority: share of images by true score, and by majority vote.

    different: images whose most probable score is another one than the majority's.
    """

    attribute: str
    images: int
    values: tuple[float, ...]
    prevalence: tuple[float, ...]
    majority: tuple[float, ...]
    different: int
    raters: tuple[Rater, ...]


def agreed(ratings: Ratings, seed: int = 0, with_left_out: bool = False) -> tuple[Agreed, ...]:
    """For the attributes with most answers whose scores are a few names, the same for all, by people who persist."""
    what = np.asarray(ratings.attribute).astype(str)
    names, counts = np.unique(what, return_counts=True)
    fitting = [n for n in names[np.argsort(-counts, kind="stable")].tolist() if _fits(ratings.take(what == n))]
    return tuple(_of(ratings.take(what == name), name, seed, with_left_out) for name in fitting[:MOST_ATTRIBUTES])


def _fits(part: Ratings) -> bool:
    who = np.asarray(part.annotator).astype(str)
    people = np.unique(who[part.persistent])
    if len(people) < FEW_PEOPLE or not 2 <= len(np.unique(part.score)) <= MOST_VALUES:
        return False
    scales: dict[tuple[float, float], int] = {}
    for name in people:
        score = part.score[who == name]
        if len(score) >= FEW_ANSWERS:
            scale = (float(score.min()), float(score.max()))
            scales[scale] = scales.get(scale, 0) + len(score)
    return bool(scales) and max(scales.values()) >= ONE_SCALE * sum(scales.values())


def _of(part: Ratings, attribute: str, seed: int, with_left_out: bool) -> Agreed:
    others = left_out(part, seed=seed) if with_left_out else {}
    found, vote = consensus(part, seed=seed), consensus(part, model="majority", seed=seed)
    shares = [tuple(float((c.label == v).mean()) for v in found.values) for c in (found, vote)]
    raters = tuple(Rater(str(name), quality, tuple(map(float, np.diag(table))), others.get(name))
                   for (name, quality), table in zip(found.quality.items(), found.errors, strict=False)
                   if quality.kind != "slot")  # fmt: skip
    different = int((found.label != vote.label).sum())
    return Agreed(attribute, len(found.images), tuple(map(float, found.values)), *shares, different, raters)
