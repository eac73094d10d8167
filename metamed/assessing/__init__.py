"""What a dataset's answers by people are worth: its annotators, its conditions, and what another study would need."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from metamed.assessing.agreed import Agreed, agreed
from metamed.assessing.annotators import Annotator, annotators
from metamed.assessing.conditions import Conditions, compare
from metamed.assessing.power import Power, power
from metamed.assessments import Ratings, Triplets, informative, joined
from metamed.crowd import left_out
from metamed.errors import NotApplicable
from metamed.readers import Assessments

__all__ = ["Agreed", "Annotator", "Assessed", "Conditions", "Power", "assess", "compare", "power"]


@dataclass(frozen=True)
class Assessed:
    """Triplets or ratings of one dataset, judged.

    minimum: the quality below which annotators would be dropped. agreed: what ratings of an attribute agree on, where
    scores are a few names that mean the same to all. conditions: None where they were not compared. power:
    what another study needs, where it was asked for. notes: what was taken for granted; found: oddities, by count.
    """

    name: str
    kind: str
    answers: int
    images: int
    minimum: float
    annotators: tuple[Annotator, ...]
    agreed: tuple[Agreed, ...]
    conditions: Conditions | None
    power: tuple[Power, ...]
    notes: tuple[str, ...]
    found: dict[str, int]

    @property
    def dropped(self) -> tuple[Annotator, ...]:
        return tuple(a for a in self.annotators if not a.kept)


def assess(assessments: Assessments, *, minimum: float = 0.6, by_condition: bool = False, reference: str | None = None,
           with_power: bool = False, with_left_out: bool = False, seed: int = 0) -> tuple[Assessed, ...]:  # fmt: skip
    """Triplets and ratings, each judged. Nothing is dropped here: `crowd.keep_reliable` does that.

    by_condition: compare the conditions; reference: the one that all others are compared with. with_left_out: also how
    well the others predict each annotator, at ten times the cost. Raises NotApplicable where there are no answers, or
    no two conditions.
    """
    found = []
    for kind in ("triplets", "ratings"):
        answers = getattr(assessments, kind)
        if answers is None or not len(answers):
            continue
        conditions = compare(answers, assessments.labels, reference, seed) if by_condition else None
        triplets = isinstance(answers, Triplets)
        others = left_out(answers, seed=seed) if triplets and with_left_out else None
        people = annotators(answers, _quality(answers, assessments.n_images, seed), minimum, others)
        images = len(np.unique(np.concatenate(_shown(answers))))
        needs = power(answers) if with_power else ()
        same = () if triplets else agreed(answers, seed, with_left_out)
        found.append(Assessed(assessments.name, kind, len(answers), images, minimum, people, same, conditions, needs,
                              assessments.notes, dict(assessments.found or {})))  # fmt: skip
    if not found:
        raise NotApplicable(f"{assessments.name}: no triplets and no ratings to assess")
    return tuple(found)


def _quality(answers: Triplets | Ratings, n_images: int, seed: int) -> dict:
    if isinstance(answers, Ratings):
        from metamed.assessing.raters import rater_quality

        return rater_quality(answers, seed)
    from metamed.crowd import annotator_quality

    if not answers.persistent.any() or not len(informative(answers)):
        return {name: None for name in np.unique(np.asarray(answers.annotator)).tolist()}
    return annotator_quality(answers, seed=seed, images=n_images)


def _shown(answers: Triplets | Ratings) -> tuple[np.ndarray, ...]:
    return (answers.anchor, answers.closer, answers.farther) if isinstance(answers, Triplets) else (answers.image,)


def with_answers(assessments: Assessments, triplets: Triplets | None) -> Assessments:
    """The assessments with those triplets of a store's that they do not hold already, as a table that was exported from
    it, after their own."""
    if triplets is None or not len(triplets):
        return assessments
    if (own := assessments.triplets) is None:
        return replace(assessments, triplets=triplets)
    there = set(_told(own))
    new = np.array([told not in there for told in _told(triplets)], bool)
    return replace(assessments, triplets=joined(own, triplets.take(new)))


def _told(triplets: Triplets) -> list[tuple]:
    """What tells one answer from another: who, what, and how many milliseconds it took."""
    time = np.full(len(triplets), np.nan) if triplets.time is None else np.asarray(triplets.time, np.float64)
    columns = (triplets.anchor, triplets.closer, triplets.farther, np.asarray(triplets.annotator).astype(str),
               np.nan_to_num(time * 1000, nan=-1).round())  # fmt: skip
    return list(zip(*(c.tolist() for c in columns), strict=True))
