"""Which instances to ask about, one decorated function a strategy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from metamed.trust.measures import ranks


@dataclass(frozen=True, eq=False)
class Standing:
    """What is known of the instances that may be asked about, n of them, and of those that were.

    instance: their numbers in the dataset (n,). bag: whose they are (n,). features: standardised (n, D). scores: by
    each model of a committee, the higher the more they speak for a finding (models, n). probability: of a finding in a
    bag of the instance alone, mean over the committee (n,). known: features of instances with an answer (m, D).
    """

    instance: np.ndarray
    bag: np.ndarray
    features: np.ndarray
    scores: np.ndarray
    probability: np.ndarray
    known: np.ndarray

    def __len__(self) -> int:
        return len(self.instance)

    @property
    def place(self) -> np.ndarray:
        """Place of each instance in each model's order of scores, 0 the lowest to 1 the highest, (models, n)."""
        return (ranks(self.scores) - 1) / max(len(self) - 1, 1)


@dataclass(frozen=True)
class Strategy:
    """A registered strategy: (standing, n, rng) -> n different positions in the standing, the first asked first."""

    name: str
    function: Callable[[Standing, int, np.random.Generator], np.ndarray]

    @property
    def description(self) -> str:
        return (self.function.__doc__ or "").split("\n\n")[0].replace("\n", " ").strip()

    def __call__(self, standing: Standing, n: int, rng: np.random.Generator) -> np.ndarray:
        return np.asarray(self.function(standing, min(n, len(standing)), rng), dtype=np.int64)


STRATEGIES: dict[str, Strategy] = {}


def strategy(function: Callable[[Standing, int, np.random.Generator], np.ndarray]):
    """Register a way of choosing what to ask; its name has no underscore on the command line."""
    STRATEGIES[function.__name__] = Strategy(function.__name__, function)
    return function


def _highest(values: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of the n highest values, ties in random order."""
    shuffled = rng.permutation(len(values))
    return shuffled[np.argsort(-values[shuffled], kind="stable")][:n]


@strategy
def random(standing: Standing, n: int, rng: np.random.Generator) -> np.ndarray:
    """Any: what every other strategy has to beat."""
    return rng.permutation(len(standing))[:n]


@strategy
def uncertainty(standing: Standing, n: int, rng: np.random.Generator) -> np.ndarray:
    """Those of which the committee on the whole is least sure whether they are a finding (Lewis & Gale, 1994)."""
    return _highest(-np.abs(standing.probability - 0.5), n, rng)


@strategy
def disagreement(standing: Standing, n: int, rng: np.random.Generator) -> np.ndarray:
    """Those whose place in the order of scores differs most between models learned on different bags (query by
    committee, Seung et al., 1992; places, since variants score in units of their own)."""
    return _highest(standing.place.std(axis=0), n, rng)


@strategy
def model_change(standing: Standing, n: int, rng: np.random.Generator) -> np.ndarray:
    """Those whose answer would change a logistic output most: expected length of its gradient, 2 p (1 - p) |(x, 1)|
    (expected gradient length, Settles et al., 2008)."""
    p = standing.probability
    length = np.sqrt((standing.features.astype(np.float64) ** 2).sum(axis=1) + 1)
    return _highest(2 * p * (1 - p) * length, n, rng)


@strategy
def diversity(standing: Standing, n: int, rng: np.random.Generator) -> np.ndarray:
    """Those farthest from all that was asked about, one after the other (core-set, Sener & Savarese, 2018)."""
    x = standing.features.astype(np.float64)
    nearest = _nearest(x, standing.known)
    if not len(standing.known):
        nearest = ((x - x.mean(axis=0)) ** 2).sum(axis=1) * -1  # the most typical one first
    chosen: list[int] = []
    for _ in range(n):
        nearest[chosen] = -np.inf
        chosen.append(int(nearest.argmax()))
        distance = ((x - x[chosen[-1]]) ** 2).sum(axis=1)
        nearest = distance if len(chosen) == 1 and not len(standing.known) else np.minimum(nearest, distance)
    return np.array(chosen)


@strategy
def uncertain_diverse(standing: Standing, n: int, rng: np.random.Generator) -> np.ndarray:
    """Uncertain ones far from each other: drawn as k-means++ draws, weighted with p (1 - p) (after BADGE, Ash et al.,
    2020)."""
    x, p = standing.features.astype(np.float64), standing.probability
    weight = p * (1 - p) + 1e-9
    nearest = _nearest(x, standing.known) if len(standing.known) else np.ones(len(x))
    chosen: list[int] = []
    for _ in range(n):
        chance = weight * nearest
        chance[chosen] = 0
        if not chance.any():
            chance = np.ones(len(x))
            chance[chosen] = 0
        chosen.append(int(rng.choice(len(x), p=chance / chance.sum())))
        distance = ((x - x[chosen[-1]]) ** 2).sum(axis=1)
        nearest = distance if len(chosen) == 1 and not len(standing.known) else np.minimum(nearest, distance)
    return np.array(chosen)


@strategy
def highest(standing: Standing, n: int, rng: np.random.Generator) -> np.ndarray:
    """The highest score of each bag, then the second highest of each, those of the highest first: what a reader of a
    heat map would check."""
    score = standing.place.mean(axis=0)
    order = np.lexsort((rng.random(len(score)), -score))
    turn, seen = np.empty(len(score)), {}
    for i in order:
        turn[i] = seen[standing.bag[i]] = seen.get(standing.bag[i], -1) + 1
    return order[np.argsort(turn[order], kind="stable")][:n]


def _nearest(x: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Squared distance to the nearest known instance, infinite without any, (n,)."""
    nearest = np.full(len(x), np.inf)
    for row in known:
        nearest = np.minimum(nearest, ((x - row) ** 2).sum(axis=1))
    return nearest
