"""Answers to triplets as arrays that can be computed with."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

import numpy as np

from metamed.assessments import Ratings, Triplets, checked, informative
from metamed.errors import NotApplicable, ReadError

NOBODY = None  # who persists: whom all answers of slots are ascribed to


@dataclass(frozen=True, eq=False)
class Answers:
    """Usable answers: indices of images and of annotators, int32 (n,); side 1 left, -1 right, 0 unknown, (n,)."""

    anchor: np.ndarray
    closer: np.ndarray
    farther: np.ndarray
    annotator: np.ndarray
    side: np.ndarray
    names: tuple[Hashable, ...]  # of the annotators, in the order of their indices
    images: int

    def __len__(self) -> int:
        return len(self.anchor)

    def take(self, rows: np.ndarray) -> Answers:
        """Some of the answers, of the same images and annotators."""
        columns = ("anchor", "closer", "farther", "annotator", "side")
        return replace(self, **{name: getattr(self, name)[rows] for name in columns})

    def pooled(self) -> Answers:
        """The same answers as if one annotator had given them all."""
        return replace(self, annotator=np.zeros_like(self.annotator), names=(NOBODY,))

    def gaps(self, position: np.ndarray) -> np.ndarray:
        """How much farther from the anchor `farther` lies than `closer` does, (n,)."""
        far, near = (position[self.anchor] - position[other] for other in (self.farther, self.closer))
        return np.linalg.norm(far, axis=1) - np.linalg.norm(near, axis=1)

    @property
    def judged(self) -> np.ndarray:
        """Which images an answer names, bool (images,)."""
        named = np.zeros(self.images, bool)
        named[np.concatenate([self.anchor, self.closer, self.farther])] = True
        return named


def usable(triplets: Triplets, images: int | None = None) -> tuple[Answers, dict[str, int]]:
    """(answers that say something about images, how many of each kind of oddity were found).

    `images`: how many the dataset has; None: as many as are named. Oddities are those of `assessments.checked`, and
    "unjudged image" (no usable answer names it) and "answer by a slot" (all slots are taken for one annotator).
    Raises ReadError where images are not numbered, NotApplicable where nothing is left.
    """
    index = [np.asarray(part) for part in (triplets.anchor, triplets.closer, triplets.farther)]
    if len(triplets) and any(part.dtype.kind not in "iu" for part in index):
        raise ReadError(f"triplets name images by {index[0].dtype}. Give their positions in the dataset, as integers.")
    images = max((int(part.max(initial=-1)) for part in index), default=-1) + 1 if images is None else images
    kept, found = checked(triplets, images)
    kept = informative(kept)
    if not len(kept):
        raise NotApplicable(f"none of {len(triplets)} triplets can be used: {found}. Are images numbered from 0?")
    names, who = people(triplets, kept)
    side = np.full(len(kept), -1) if kept.side is None else np.asarray(kept.side)
    side = np.select([side == 0, side == 1], [1.0, -1.0], 0.0)
    columns = (np.ascontiguousarray(part, np.int32) for part in (kept.anchor, kept.closer, kept.farther, who))
    answers = Answers(*columns, side, names, images)
    more = {"unjudged image": int((~answers.judged).sum()), "answer by a slot": int((~kept.persistent).sum())}
    return answers, found | {what: n for what, n in more.items() if n}


def people(given: Triplets | Ratings, kept: Triplets | Ratings) -> tuple[tuple[Hashable, ...], np.ndarray]:
    """(names, the index of who gave each answer that is kept): all who persist, then, where there are slots, NOBODY."""
    order = {name: k for k, name in enumerate(dict.fromkeys(np.asarray(given.annotator)[given.persistent].tolist()))}
    answers = zip(np.asarray(kept.annotator).tolist(), kept.persistent.tolist(), strict=True)
    who = np.array([order[name] if own else len(order) for name, own in answers], int)
    return (*order, NOBODY) if (who == len(order)).any() else tuple(order), who


def questions(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """(one number per question, whether the image with the smaller index was said to be closer) of each answer."""
    low, high = np.minimum(answers.closer, answers.farther), np.maximum(answers.closer, answers.farther)
    number = (answers.anchor.astype(np.int64) * answers.images + low) * answers.images + high
    return np.unique(number, return_inverse=True)[1].ravel(), answers.closer == low
