"""The quality of annotators: how probable it is that an answer of theirs agrees with the truth."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from metamed.assessments import Ratings, Triplets
from metamed.crowd.answers import NOBODY, Answers

ASKED = 1_000  # of the questions, over which quality is averaged
ONE_SIDED = 0.8  # share of answers for one side
UNKNOWN = 0.3  # width of an interval around 0.5 that does not even tell a guesser


@dataclass(frozen=True)
class Quality:
    """Of an annotator: the probability that an answer of his agrees with the truth, on questions such as were asked.

    value, low, high: its mean and 95 % interval; an inverter lies below 0.5. answers: usable ones. left: his share of
    answers for the left side, NaN where sides are unknown. kind: "informed" (the interval lies above 0.5), "inverter"
    (below), "one-sided" (0.5 within; presses one side in four of five answers or more), "guesser" (0.5 within a narrow
    interval), "unknown" (a wide one: too few answers), "slot" (no person who persists: value, low, high are NaN).
    """

    value: float
    low: float
    high: float
    answers: int
    left: float = np.nan
    kind: str = "unknown"

    def __float__(self) -> float:
        return self.value


def annotator_quality(
    triplets: Triplets, *, dimensions: int = 2, seed: int = 0, images: int | None = None
) -> dict[Hashable, Quality]:
    """Quality of each annotator of triplets, found together with an embedding; `float(quality)` is its value."""
    from metamed.crowd.embedding import embed

    return embed(triplets, dimensions, seed=seed, images=images).quality


def keep_reliable(triplets: Triplets, minimum: float = 0.6, *, dimensions: int = 2, seed: int = 0) -> Triplets:
    """The answers of annotators whose quality is `minimum` or more, and those of slots, of whom nothing is known."""
    quality = annotator_quality(triplets, dimensions=dimensions, seed=seed)
    values = np.array([quality[name] for name in np.asarray(triplets.annotator).tolist()], float)
    return triplets.take(~(values < minimum))


def asked(answers: Answers) -> Answers:
    """Some of the answers, whose questions stand for all."""
    return answers.take(np.arange(0, len(answers), max(1, len(answers) // ASKED)))


def quality_of(traits: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Of annotators with these traits (annotators, 3), on questions with two distances so far apart: (annotators,).
    Both images are shown left equally often."""
    slope, bias, lapse = traits.T[:, :, None]
    right = sum(1 / (1 + np.exp(-slope * np.abs(gap) - side * bias)) for side in (-1, 1)) / 2
    return (lapse / 2 + (1 - lapse) * right).mean(axis=1)


def described(triplets: Triplets, answers: Answers, qualities: np.ndarray) -> dict[Hashable, Quality]:
    """By annotator, from the qualities that samples give him (samples, annotators)."""
    n = len(answers.names)
    count = np.bincount(answers.annotator, minlength=n)
    shown, left = (np.bincount(answers.annotator, part, n) for part in (answers.side != 0, answers.side > 0))
    share = np.divide(left, shown, out=np.full(n, np.nan), where=shown > 0)
    low, high = np.quantile(qualities, [0.025, 0.975], axis=0)
    kinds = [kind_of(*each) for each in zip(low, high, np.maximum(share, 1 - share), strict=True)]
    columns = (part.tolist() for part in (qualities.mean(axis=0), low, high, count, share))
    return named(triplets, answers.names, [Quality(*each) for each in zip(*columns, kinds, strict=True)])


def named(assessments: Triplets | Ratings, names: tuple, qualities: list[Quality]) -> dict[Hashable, Quality]:
    """By name; slots have no quality of their own."""
    found = {name: quality for name, quality in zip(names, qualities, strict=True) if name is not NOBODY}
    slots = np.asarray(assessments.annotator)[~assessments.persistent].tolist()
    for name in dict.fromkeys(slots):
        found[name] = Quality(np.nan, np.nan, np.nan, slots.count(name), kind="slot")
    return found


def kind_of(low: float, high: float, same: float) -> str:
    """What somebody is like whose quality, 0.5 being chance, has this interval, and whose most frequent answer (or
    side) has this share."""
    if low > 0.5 or high < 0.5:
        return "informed" if low > 0.5 else "inverter"
    if same >= ONE_SIDED:
        return "one-sided"
    return "guesser" if high - low < UNKNOWN else "unknown"
