"""Models of bags, learned several times over, and what they say of bags that they did not learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from metamed.errors import NotApplicable
from metamed.trust.changes import Changes

RESAMPLINGS, SEEDS, KEPT_SHARE = 5, 3, 0.8  # models learned again, on that share of the training bags, or with a seed


class Model(Protocol):
    """What is examined: anything that answers for bags and scores their instances (`metamed.flows.mil`)."""

    def predict(self, bags: Sequence[np.ndarray]) -> np.ndarray:
        """Log-probabilities of the classes of each bag (n, K); class 0 is a bag without a finding."""
        ...

    def scores(self, bag: np.ndarray) -> np.ndarray:
        """How much each instance speaks for a finding, the higher the more (instances,)."""
        ...


Learn = Callable[[Sequence[np.ndarray], np.ndarray, int], Model]  # bags, their classes, seed -> a model of them
Fit = Callable[[np.ndarray, int], Model]  # training bags as indices into the dataset's, seed -> a model of them


@dataclass(frozen=True, eq=False)
class Judged:
    """What models say of bags that none of them learned from.

    target: class of each bag, int (n,). members: of each bag, its instances, indices (k,). scores: of all instances, by
    the model itself (n_instances,). probability: of a finding, by the model itself (n,). resampled, reseeded, others:
    scores (models, n_instances) of the same variant learned on other bags, with other seeds, and of other variants.
    changes: what the model says of bags from which instances were taken. coordinates: (n_instances, d) or None.
    """

    target: np.ndarray
    members: tuple[np.ndarray, ...]
    scores: np.ndarray
    probability: np.ndarray
    resampled: np.ndarray
    reseeded: np.ndarray
    others: np.ndarray
    changes: Changes | None = None
    coordinates: np.ndarray | None = None

    @cached_property
    def finding(self) -> np.ndarray:
        """Is the bag one with a finding? bool (n,)"""
        return self.target > 0

    def instances(self, bags: np.ndarray) -> np.ndarray:
        """The instances of some bags (repeats allowed), one after the other."""
        return np.concatenate([self.members[b] for b in bags])


def judge(
    fit: Fit,
    bags: Sequence[np.ndarray],
    target: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    *,
    others: Sequence[Fit] = (),
    coordinates: Sequence[np.ndarray] | None = None,
    resamplings: int = RESAMPLINGS,
    seeds: int = SEEDS,
    seed: int = 0,
) -> Judged:
    """Learn a variant on the training bags, again on parts of them and with other seeds, and ask all of the test bags.

    Models of parts differ in the seed too: networks that start alike end alike, which says nothing of the bags.
    bags: all, arrays (instances, …); train, test: indices into them. others: other variants, each learned once.
    Raises NotApplicable where the test bags are all of one class: nothing could be told from them.
    """
    if len({*(target[test] > 0).tolist()}) < 2:
        raise NotApplicable("the test bags are of one side only, all with or all without a finding: that tells nothing")
    asked = [bags[b] for b in test]
    rng = np.random.default_rng(seed)
    model = fit(train, seed)
    parts = [_part(train, target, rng) for _ in range(resamplings)]
    ends = np.cumsum([len(bag) for bag in asked])
    return Judged(
        np.asarray(target)[test],
        tuple(np.split(np.arange(ends[-1]), ends[:-1])),
        _scores([model], asked)[0],
        finding_probability(model, asked),
        _scores([fit(part, seed + i) for i, part in enumerate(parts)], asked),
        _scores([fit(train, seed + 1 + s) for s in range(seeds)], asked),
        _scores([other(train, seed) for other in others], asked),
        Changes.of(model, asked, np.asarray(target)[test] > 0, rng),
        None if coordinates is None else np.concatenate([coordinates[b] for b in test]),
    )


def finding_probability(model: Model, bags: Sequence[np.ndarray]) -> np.ndarray:
    """Probability of any class but 0 of each bag, (n,)."""
    return 1 - np.exp(model.predict(bags)[:, 0].astype(np.float64))


def _part(train: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A share of the training bags, the same of every class, at least two of each."""
    parts = []
    for k in np.unique(target[train]):
        bags = train[target[train] == k]
        parts.append(rng.permutation(bags)[: max(2, round(KEPT_SHARE * len(bags)))])
    return np.sort(np.concatenate(parts))


def _scores(models: Sequence[Model], bags: Sequence[np.ndarray]) -> np.ndarray:
    rows = [[np.asarray(model.scores(bag), np.float64).reshape(-1) for bag in bags] for model in models]
    return np.array([np.concatenate(row) for row in rows]).reshape(len(models), sum(map(len, bags)))
