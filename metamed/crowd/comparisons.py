"""An order of images from comparisons (which is worse, more asymmetric?) by annotators who differ: Bradley and Terry's
model, with a skill for everybody."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from metamed.crowd.quality import Quality, kind_of, quality_of
from metamed.crowd.sampling import draw
from metamed.errors import NotApplicable

MEAN, SD = 2.0, 2.0  # of skills before any answer, per standard deviation of the scores
ROUNDS = 400


@dataclass(frozen=True, eq=False)
class Order:
    """items: what was compared, (n,). score, low, high: where each lies, with its 95 % interval, (n,), in standard
    deviations before any answer. quality: of each annotator, that an answer of his agrees with this order."""

    items: np.ndarray
    score: np.ndarray
    low: np.ndarray
    high: np.ndarray
    quality: dict[Hashable, Quality]


@dataclass(frozen=True, eq=False)
class _Skills:
    """The posterior density of scores and skills, as `sampling` wants it: one vector, in units of the priors."""

    better: np.ndarray
    worse: np.ndarray
    who: np.ndarray
    items: int
    people: int

    @property
    def size(self) -> int:
        return self.items + self.people

    def density(self, vector: np.ndarray, weight: float = 1.0) -> tuple[float, np.ndarray]:
        score, skill = vector[: self.items], MEAN + SD * vector[self.items :]
        gap, own = score[self.better] - score[self.worse], skill[self.who]
        value, rise = -np.logaddexp(0, -own * gap).sum(), 0.5 - np.tanh(own * gap / 2) / 2
        up, down = (np.bincount(part, rise * own, self.items) for part in (self.better, self.worse))
        gradient = np.concatenate([up - down, SD * np.bincount(self.who, rise * gap, self.people)])
        return weight * value - vector @ vector / 2, weight * gradient - vector


def order(better: np.ndarray, worse: np.ndarray, annotator: np.ndarray, *, seed: int = 0) -> Order:
    """The order that comparisons tell: in answer k, `annotator[k]` put `better[k]` before `worse[k]` (any hashable).

    P(better before worse) = sigmoid(skill * (difference of scores)): 0 for a guesser, negative for an inverter; that
    most answers are rather right than wrong is believed. Rankings give such pairs (`assessments.comparisons`).
    Sampled by Hamiltonian Monte Carlo. Source: Bradley & Terry 1952, Chen et al. 2013 (skills). Raises NotApplicable
    without any pair of two different items.
    """
    kept = np.asarray(better) != np.asarray(worse)
    if not kept.any():
        raise NotApplicable("no comparison of two different items")
    items, index = np.unique(np.concatenate([np.asarray(better)[kept], np.asarray(worse)[kept]]), return_inverse=True)
    names, who = np.unique(np.asarray(annotator)[kept], return_inverse=True)
    model = _Skills(*index.reshape(2, -1), who.ravel(), len(items), len(names))
    vectors = draw(model, np.zeros(model.size), np.random.default_rng(seed), ROUNDS, tempered=True)
    score, skill = vectors[:, : len(items)], MEAN + SD * vectors[:, len(items) :]
    side = np.where(skill @ np.bincount(who.ravel()) > 0, 1, -1)[:, None]  # both signs turned explain the same
    score, skill = side * score, side * skill
    low, high = np.quantile(score, [0.025, 0.975], axis=0)
    return Order(items, score.mean(axis=0), low, high, _qualities(model, score, skill, names))


def _qualities(model: _Skills, score: np.ndarray, skill: np.ndarray, names: np.ndarray) -> dict[Hashable, Quality]:
    nothing = np.zeros_like(skill[0])
    drawn = np.array([quality_of(np.column_stack([own, nothing, nothing]), at[model.better] - at[model.worse])
                      for at, own in zip(score[::4], skill[::4], strict=True)])  # fmt: skip
    limits, count = np.quantile(drawn, [0.025, 0.975], axis=0).tolist(), np.bincount(model.who).tolist()
    kinds = [kind_of(low, high, 0.0) for low, high in zip(*limits, strict=True)]
    columns = zip(drawn.mean(axis=0).tolist(), *limits, count, [np.nan] * len(names), kinds, strict=True)
    return dict(zip(names.tolist(), (Quality(*each) for each in columns), strict=True))
