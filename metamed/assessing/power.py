"""How many assessments a study of two conditions needs to see a difference of a given size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metamed.assessing import values
from metamed.assessments import Ratings, Triplets

EFFECTS = (0.02, 0.05, 0.10, 0.20)
ANSWERS = (25, 50, 100, 200)  # of each person
LEVEL, POWER = 0.05, 0.80
FEW_PEOPLE = 5  # with 8 answers each or more, from which on their spread is estimated
FEW_ANSWERS = 8
SUPPOSED = (0.75, 0.10, 0.43)  # mean, sd of people, sd of an answer, where nothing is known: share of three in four


@dataclass(frozen=True)
class Need:
    """To see `effect`: people of each condition if each gives so many answers, and answers in all."""

    effect: float
    answers: int
    people: int

    @property
    def assessments(self) -> int:
        return 2 * self.people * self.answers


@dataclass(frozen=True)
class Power:
    """What is needed for a test at 5 % that finds a real difference in 80 % of studies, people in one condition each.

    mean, between, within: of the measure; standard deviations between people, and of one answer around its person's
    mean. known: are these from the data, or supposed?
    """

    measure: str
    attribute: str
    mean: float
    between: float
    within: float
    known: bool
    needs: tuple[Need, ...]


def power(answers: Triplets | Ratings) -> tuple[Power, ...]:
    """For each measure that the answers allow, that with most answers first: accuracy where gold is known, agreement
    where others answered too."""
    measured = sorted(_measured(answers), key=lambda part: -np.isfinite(part[2]).sum())
    found = [_of(measure, attribute, value, who) for measure, attribute, value, who in measured]
    return tuple(p for p in found if p is not None) or (_made("agreement", "", *SUPPOSED, False),)


def _measured(answers: Triplets | Ratings):
    """(measure, attribute, value of each answer, who gave it)."""
    own = answers.take(answers.persistent)
    if isinstance(answers, Triplets):
        who = values.people(own)
        yield "accuracy", "", values.right(own), who
        yield "agreement", "", values.agreement(answers)[answers.persistent], who
        return
    what = np.asarray(answers.attribute).astype(str)
    for attribute in np.unique(what).tolist():
        part = answers.take(what == attribute)
        value = values.alpha(part, values.ranked(part))
        yield "alpha", attribute, value[part.persistent], values.people(part)[part.persistent]


def _of(measure: str, attribute: str, value: np.ndarray, who: np.ndarray) -> Power | None:
    known = np.isfinite(value)
    people, counts = np.unique(who[known], return_counts=True)
    enough = np.isin(who, people[counts >= FEW_ANSWERS]) & known
    if (counts >= FEW_ANSWERS).sum() < FEW_PEOPLE:
        return None
    return _made(measure, attribute, *components(value[enough], who[enough]), True)


def components(value: np.ndarray, who: np.ndarray) -> tuple[float, float, float]:
    """(mean, standard deviation between people, within people): one-way analysis of variance, people of any number of
    answers (Searle 1971); what is negative by chance is 0."""
    row = np.unique(who, return_inverse=True)[1]
    n = np.bincount(row).astype(float)
    mean = np.bincount(row, value) / n
    within = (((value - mean[row]) ** 2).sum()) / (len(value) - len(n))
    typical = (len(value) - (n**2).sum() / len(value)) / (len(n) - 1)
    between = ((n * (mean - value.mean()) ** 2).sum() / (len(n) - 1) - within) / typical
    return float(mean.mean()), float(np.sqrt(max(between, 0))), float(np.sqrt(within))


def _made(measure: str, attribute: str, mean: float, between: float, within: float, known: bool) -> Power:
    needs = [Need(e, m, people_needed(e, between**2 + within**2 / m)) for e in EFFECTS for m in ANSWERS]
    return Power(measure, attribute, mean, between, within, known, tuple(needs))


def people_needed(effect: float, variance: float) -> int:
    """Units of each of two groups for a t test of means that differ by `effect`; variance: of a unit's mean."""
    from scipy.stats import nct, t

    def reached(n: int) -> float:
        df, shift = 2 * n - 2, effect / np.sqrt(2 * variance / n)
        limit = t.ppf(1 - LEVEL / 2, df)
        return nct.sf(limit, df, shift) + nct.cdf(-limit, df, shift)

    low, high = 2, 4
    while reached(high) < POWER:
        low, high = high, high * 2
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) >= POWER else (middle + 1, high)
    return low
