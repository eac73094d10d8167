"""The annotators of a record of answers, each with what is known of him, and who would be dropped."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from metamed.assessing import values
from metamed.assessments import Ratings, Triplets
from metamed.crowd import Quality, transitivity


@dataclass(frozen=True)
class Annotator:
    """Somebody who answered. NaN for what is not known.

    quality, low, high: the probability that an answer of his agrees with the truth (`crowd.annotator_quality`), with
    its 95 % interval. kind: what he is like. left_out: that an answer to a triplet is what the others say, who were
    judged without him; None where that was not asked for. agreement: with the others. accuracy: on questions whose
    answer is known, of which there were `checked`. constancy: share of repeated questions that he answered as before.
    transitivity: share of his comparisons that lie on no circle. left: share of answers for the left side. seconds: of
    an answer, median. kept: False where his quality is below the minimum.
    """

    name: str
    answers: int
    quality: float
    low: float
    high: float
    kind: str
    left_out: Quality | None
    agreement: float
    accuracy: float
    checked: int
    constancy: float
    transitivity: float
    left: float
    seconds: float
    kept: bool


def annotators(
    answers: Triplets | Ratings, quality: dict, minimum: float, left_out: dict | None = None
) -> tuple[Annotator, ...]:
    """One for each name, the worst first; slots last. quality, left_out: by name, as `metamed.crowd` finds them."""
    facts = _facts(answers)
    names = np.asarray(answers.annotator)
    circles = transitivity(answers) if isinstance(answers, Triplets) else {}
    found = [_one(name, names == name, quality.get(name), (left_out or {}).get(name), circles.get(name, np.nan), facts,
                  minimum) for name in np.unique(names).tolist()]  # fmt: skip
    slots = set(names[~answers.persistent].astype(str).tolist())
    found = [replace(a, kind="slot") if a.name in slots else a for a in found]
    return tuple(sorted(found, key=lambda a: (a.kind == "slot", np.nan_to_num(a.quality, nan=2.0), a.name)))


def _facts(answers: Triplets | Ratings) -> dict[str, np.ndarray]:
    triplets = isinstance(answers, Triplets)
    side = answers.side if triplets else None
    side = np.full(len(answers), -1) if side is None else np.asarray(side)
    time = np.full(len(answers), np.nan) if answers.time is None else np.asarray(answers.time, np.float64)
    agreement = values.agreement(answers) if triplets else _alphas(answers)
    return {"agreement": agreement, "accuracy": values.right(answers), "constancy": values.constancy(answers),
            "left": np.where(side < 0, np.nan, side == 0), "seconds": time}  # fmt: skip


def _alphas(ratings: Ratings) -> np.ndarray:
    """Of each answer the agreement of its rank with the others' beyond chance, by attribute and condition."""
    part = values.codes(np.asarray(ratings.attribute).astype(str), values.conditions(ratings))
    score = values.ranked(ratings)
    out = np.full(len(ratings), np.nan)
    for one in np.unique(part):
        rows = part == one
        out[rows] = values.alpha(ratings.take(rows), score[rows])
    return out


def _one(name, rows: np.ndarray, quality: Quality | None, left_out: Quality | None, transitive: float,
         facts: dict[str, np.ndarray], minimum: float) -> Annotator:  # fmt: skip
    value, low, high, kind = (np.nan, np.nan, np.nan, "unknown") if quality is None else (
        quality.value, quality.low, quality.high, quality.kind)  # fmt: skip
    mine = {what: known[rows][np.isfinite(known[rows])] for what, known in facts.items()}
    mean = {what: float(known.mean()) if len(known) else np.nan for what, known in mine.items()}
    seconds = float(np.median(mine["seconds"])) if len(mine["seconds"]) else np.nan
    kept = not value < minimum
    return Annotator(str(name), int(rows.sum()), value, low, high, kind, left_out, mean["agreement"], mean["accuracy"],
                     len(mine["accuracy"]), mean["constancy"], transitive, mean["left"], seconds, kept)  # fmt: skip
