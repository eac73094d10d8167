"""Judgements by people: relative assessments (triplets), attribute ratings, rankings. One entry of a record per answer.

Rows stand in the order in which they were given, so that the order of an annotator's rows is the order of his answers.
Optional columns mean the same in all records:

condition: under what circumstances, e.g. "plain" or "game" (n,). time: seconds that the answer took, NaN unknown (n,).
confidence: how sure he was, 0 to 1, NaN unknown (n,). slot: True where `annotator` is no person but a place that
different people fill, such as the first of three columns of a crowd-sourcing platform, bool (n,).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from metamed.errors import ReadError


class _Answers:
    """What all records of answers share: columns of one length."""

    def __post_init__(self):
        lengths = {f.name: len(v) for f in fields(self) if (v := getattr(self, f.name)) is not None}
        if len(set(lengths.values())) > 1:
            raise ReadError(f"{type(self).__name__}: columns differ in length: {lengths}")

    def __len__(self) -> int:
        return len(self.annotator)

    def take(self, rows: np.ndarray):
        """The answers at `rows` (indices, or a mask), all columns of them: the same type back."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: np.asarray(v)[rows] for name, v in columns.items() if v is not None})

    @property
    def content(self) -> bytes:
        """All columns as bytes: equal answers in equal order, equal content."""
        columns = {f.name: np.asarray(v) for f in fields(self) if (v := getattr(self, f.name)) is not None}
        return b"".join(name.encode() + _bytes(column) for name, column in columns.items())

    @property
    def persistent(self) -> np.ndarray:
        """Which answers are by annotators who persist, so that they can have a quality of their own, bool (n,)."""
        return np.ones(len(self), bool) if self.slot is None else ~np.asarray(self.slot, bool)


def _bytes(column: np.ndarray) -> bytes:
    """Numbers as float64, anything else as text."""
    return column.astype(np.float64).tobytes() if column.dtype.kind in "biuf" else "\0".join(map(str, column)).encode()


@dataclass(frozen=True, eq=False)
class Triplets(_Answers):
    """Relative assessments: `closer` is more like `anchor` than `farther` is. One entry per answer.

    anchor, closer, farther: image indices, int (n,). annotator: who answered, any hashable (n,).
    side: where `closer` was shown, 0 left, 1 right (n,).
    gold: 1 where the answer is known to be right, 0 where it is known to be wrong, -1 where nobody knows, int (n,).
    A candidate that is the anchor itself makes the question an attention check: its gold is known, and it says who pays
    attention but nothing about the images (`informative` leaves such rows out).
    """

    anchor: np.ndarray
    closer: np.ndarray
    farther: np.ndarray
    annotator: np.ndarray
    side: np.ndarray | None = None
    condition: np.ndarray | None = None
    time: np.ndarray | None = None
    confidence: np.ndarray | None = None
    gold: np.ndarray | None = None
    slot: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Ratings(_Answers):
    """Absolute assessments: `annotator` gave `image` the `score` for `attribute`. One entry per answer.

    image: image index, int (n,). attribute: any hashable (n,). score: float (n,).
    gold: the score that is known to be right, NaN where nobody knows, float (n,).
    """

    image: np.ndarray
    annotator: np.ndarray
    attribute: np.ndarray
    score: np.ndarray
    condition: np.ndarray | None = None
    time: np.ndarray | None = None
    confidence: np.ndarray | None = None
    gold: np.ndarray | None = None
    slot: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Rankings(_Answers):
    """Orders: `annotator` put `item` on place `rank` (0 first, equal places are ties) when asked `question`.

    question: index of what was asked about, an image or case, int (n,). item: index of what was ranked, int (n,).
    """

    question: np.ndarray
    annotator: np.ndarray
    item: np.ndarray
    rank: np.ndarray
    condition: np.ndarray | None = None
    time: np.ndarray | None = None
    confidence: np.ndarray | None = None
    slot: np.ndarray | None = None


def joined(first: _Answers, second: _Answers) -> _Answers:
    """The answers of two records of one type, one after the other. A column that only one has is unknown in the other.

    Annotators become text where one record names them and the other numbers them.
    """
    unknown = {"side": -1, "gold": -1 if isinstance(first, Triplets) else np.nan, "slot": False, "condition": ""}
    columns = {}
    for f in fields(first):
        parts = [getattr(first, f.name), getattr(second, f.name)]
        if all(part is None for part in parts):
            continue
        given = next(np.asarray(part) for part in parts if part is not None)
        parts = [np.asarray(part) if part is not None else np.full(len(record), unknown.get(f.name, np.nan))
                 for part, record in zip(parts, (first, second), strict=True)]  # fmt: skip
        if given.dtype.kind in "OU":
            parts = [part.astype(str) for part in parts]
        columns[f.name] = np.concatenate(parts)
    return type(first)(**columns)


# -- what cannot be right ----------------------------------------------------------------------------------------------


def checked(triplets: Triplets, n_images: int) -> tuple[Triplets, dict[str, int]]:
    """(what can be used, how many of each kind were found).

    Dropped: "unknown image" (an index outside 0 to n_images - 1), "same candidates" (closer and farther are one image).
    Kept, with their gold set: "attention check" (a candidate is the anchor itself). Kept, because repeats are data:
    "repeated" (the same annotator, not slot, gave the same answer again), "contradictory" (he answered the same
    question both ways; each such question counts once). Said: "single answer" (annotators with one answer).
    """
    columns = np.stack([np.asarray(c, np.int64) for c in (triplets.anchor, triplets.closer, triplets.farther)])
    unknown = ((columns < 0) | (columns >= n_images)).any(axis=0)
    same = ~unknown & (columns[1] == columns[2])
    kept = triplets.take(~unknown & ~same)
    right, wrong = kept.closer == kept.anchor, kept.farther == kept.anchor
    if (check := right | wrong).any():
        gold = np.full(len(kept), -1) if kept.gold is None else np.asarray(kept.gold)
        kept = replace(kept, gold=np.where(check, right, gold).astype(np.int8))
    counts = {"unknown image": unknown.sum(), "same candidates": same.sum(), "attention check": check.sum()}
    return kept, _found(counts | _repeats(kept))


def _repeats(triplets: Triplets) -> dict[str, int]:
    """How often an annotator met a question again: same answer, other answer; and annotators who answered once."""
    triplets = triplets.take(triplets.persistent)
    names = np.asarray(triplets.annotator)
    who = np.unique(names if names.dtype.kind in "iu" else names.astype(str), return_inverse=True)[1]
    low, high = np.minimum(triplets.closer, triplets.farther), np.maximum(triplets.closer, triplets.farther)
    columns = np.stack([triplets.closer == low, high, low, triplets.anchor, who]).astype(np.int64)
    changes = np.diff(columns[:, np.lexsort(columns)], axis=1, prepend=-1) != 0
    questions, answers = int(changes[1:].any(axis=0).sum()), int(changes.any(axis=0).sum())
    single = int((np.bincount(who) == 1).sum()) if len(who) else 0
    return {"repeated": len(who) - answers, "contradictory": answers - questions, "single answer": single}


def checked_ratings(ratings: Ratings, n_images: int) -> tuple[Ratings, dict[str, int]]:
    """(what can be used, how many of each kind were found).

    Dropped: "unknown image", "no score" (missing or not finite). Kept, because repeats are data: "repeated" (the same
    annotator scored the same attribute of an image again, equally), "contradictory" (and differently; each such
    question counts once). Said: "single answer" (annotators with one answer).
    """
    image, score = np.asarray(ratings.image, np.int64), np.asarray(ratings.score, np.float64)
    unknown = (image < 0) | (image >= n_images)
    missing = ~unknown & ~np.isfinite(score)
    kept = ratings.take(~unknown & ~missing)
    own = kept.take(kept.persistent)
    who, what = (np.unique(np.asarray(c).astype(str), return_inverse=True)[1] for c in (own.annotator, own.attribute))
    asked = np.stack([who, what, own.image], axis=1)
    answers = np.unique(np.column_stack([asked, np.unique(own.score, return_inverse=True)[1]]), axis=0)
    questions = len(np.unique(asked, axis=0))
    single = int((np.bincount(who) == 1).sum()) if len(who) else 0
    return kept, _found({"unknown image": unknown.sum(), "no score": missing.sum(),
                         "repeated": len(asked) - len(answers), "contradictory": len(answers) - questions,
                         "single answer": single})  # fmt: skip


def _found(counts: Mapping[str, int]) -> dict[str, int]:
    return {what: int(n) for what, n in counts.items() if n}


def informative(triplets: Triplets) -> Triplets:
    """The triplets that say something about the images: without attention checks (the anchor as its own candidate)."""
    check = (triplets.closer == triplets.anchor) | (triplets.farther == triplets.anchor)
    return triplets.take(~check) if check.any() else triplets


# -- one kind of answer as another -------------------------------------------------------------------------------------


def gold_of_labels(triplets: Triplets, target: np.ndarray) -> np.ndarray:
    """Gold by class: 1 where `closer` alone has the anchor's class, 0 where `farther` alone has it, else -1, int (n,).

    target: class of each image, int (n_images,), -1 unlabelled. A class is no proof of likeness: say which was used.
    """
    anchor, closer, farther = (np.asarray(target)[c] for c in (triplets.anchor, triplets.closer, triplets.farther))
    known = (anchor >= 0) & (closer >= 0) & (farther >= 0) & ((closer == anchor) != (farther == anchor))
    return np.where(known, closer == anchor, -1).astype(np.int8)


def comparisons(rankings: Rankings) -> tuple[np.ndarray, np.ndarray]:
    """Rows (better, worse) of every two items that one annotator put on different places for one question, int (m,)."""
    who = np.unique(np.asarray(rankings.annotator).astype(str), return_inverse=True)[1]
    order = np.lexsort((rankings.rank, who, rankings.question))
    key = np.stack([np.asarray(rankings.question)[order], who[order]])
    starts = np.flatnonzero(np.r_[True, (key[:, 1:] != key[:, :-1]).any(axis=0)]) if len(order) else []
    better, worse = [], []
    for rows in np.split(order, starts[1:]) if len(order) else []:
        rank = np.asarray(rankings.rank)[rows]
        i, j = np.nonzero(rank[:, None] < rank[None])
        better.append(rows[i])
        worse.append(rows[j])
    return tuple(np.concatenate(c) if c else np.empty(0, np.int64) for c in (better, worse))


def triplets_of_rankings(rankings: Rankings) -> Triplets:
    """Rankings of images by likeness to an image (`question`), as triplets: ties say nothing."""
    better, worse = comparisons(rankings)
    more = {name: None if (v := getattr(rankings, name)) is None else np.asarray(v)[better]
            for name in ("condition", "time", "confidence", "slot")}  # fmt: skip
    columns = (rankings.question[better], rankings.item[better], rankings.item[worse])
    return Triplets(*(np.asarray(c) for c in columns), np.asarray(rankings.annotator)[better], **more)


def ratings_of_rankings(rankings: Rankings) -> Ratings:
    """Rankings of things that are no images (diagnoses): the rank of each item is a score of the image in question."""
    more = {name: getattr(rankings, name) for name in ("condition", "time", "confidence", "slot")}
    score = np.asarray(rankings.rank, np.float64)
    return Ratings(rankings.question, rankings.annotator, rankings.item, score, **more)
