"""Whether answers to triplets agree with each other, with themselves and with any order at all."""

from __future__ import annotations

import numpy as np

from metamed.errors import NotApplicable
from metamed.metafeatures import metafeature
from metamed.metafeatures.crowd import counts_by_unit, ids_of, questions, triplets_of
from metamed.metafeatures.probe import Probe


@metafeature("crowd")
def triplet_consistency(probe: Probe) -> float:
    """Share of pairs of answers to the same question that agree: 0.5 is guessing between two.

    unit: share; range: 0 to 1; cost: facts; needs: triplets, repeated answers; source: Welinder & Perona 2010.
    """
    return _agreement(*probe.once(questions), probe.dataset.name)


@metafeature("crowd")
def self_consistency(probe: Probe) -> float:
    """Share of pairs of answers by one annotator to the same question that agree.

    unit: share; range: 0 to 1; cost: facts; needs: triplets, repeated answers; source: Welinder & Perona 2010.
    """
    question, answer = probe.once(questions)
    return _agreement(ids_of(question, triplets_of(probe).annotator), answer, probe.dataset.name)


def _agreement(question: np.ndarray, answer: np.ndarray, name: str) -> float:
    counts, _ = counts_by_unit(question, answer)
    size = counts.sum(axis=1)
    pairs = (size * (size - 1)).sum()
    if pairs == 0:
        raise NotApplicable(f"{name}: no question was asked twice")
    return float((counts * (counts - 1)).sum() / pairs)


@metafeature("crowd")
def contradictions(probe: Probe) -> float:
    """Share of threes of compared distances that go round in a circle (x < y < z < x), after majorities: 0 can be
    embedded, 0.25 is chance.

    unit: share; range: 0 to 1; cost: facts; needs: triplets, repeated answers; source: Kendall & Babington Smith 1940.
    """
    t = triplets_of(probe)
    near, far = (_ids_of_pairs(t.anchor, other, len(probe.dataset.images)) for other in (t.closer, t.farther))
    circles, orders = _threes(near, far)
    if circles + orders == 0:
        raise NotApplicable(f"{probe.dataset.name}: no three distances are all compared")
    return circles / (circles + orders)


def _ids_of_pairs(a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    a, b = np.asarray(a, np.int64), np.asarray(b, np.int64)
    return np.minimum(a, b) * n + np.maximum(a, b)


def _majorities(near: np.ndarray, far: np.ndarray) -> dict[int, set[int]]:
    """Distance -> the distances that a majority called larger."""
    votes: dict[tuple[int, int], int] = {}
    for a, b in zip(near.tolist(), far.tolist(), strict=True):
        key, sign = ((a, b), 1) if a < b else ((b, a), -1)
        votes[key] = votes.get(key, 0) + sign
    beats: dict[int, set[int]] = {}
    for (a, b), net in votes.items():
        if net:
            winner, loser = (a, b) if net > 0 else (b, a)
            beats.setdefault(winner, set()).add(loser)
    return beats


def _threes(near: np.ndarray, far: np.ndarray) -> tuple[int, int]:
    """(circles, orders) among threes of distances that are all compared, by the majority for near[i] < far[i]."""
    beats, none = _majorities(near, far), set()
    beaten: dict[int, set[int]] = {}
    for winner, losers in beats.items():
        for loser in losers:
            beaten.setdefault(loser, set()).add(winner)
    edges = [(w, x) for w, losers in beats.items() for x in losers]
    circles = sum(len(beats.get(x, none) & beaten.get(w, none)) for w, x in edges) // 3
    return circles, sum(len(beats.get(x, none) & beats[w]) for w, x in edges)


@metafeature("crowd")
def cyclic_comparisons(probe: Probe) -> float:
    """Share of the compared pairs of distances that lie on a circle of any length (x < y < ... < x), after majorities:
    what no embedding can satisfy all of. 0 if the answers can be put in one order.

    unit: share; range: 0 to 1; cost: facts; needs: triplets; source: Tarjan 1972 (strong components); here.
    """
    t = triplets_of(probe)
    beats = _majorities(*(_ids_of_pairs(t.anchor, other, len(probe.dataset.images)) for other in (t.closer, t.farther)))
    component = _strong_components(beats)
    edges = [(a, b) for a, losers in beats.items() for b in losers]
    return sum(component[a] == component[b] for a, b in edges) / len(edges) if edges else 0.0


def _strong_components(beats: dict[int, set[int]]) -> dict[int, int]:
    """A number for the strongly connected component of each node (Kosaraju's two passes, without recursion)."""
    reverse: dict[int, list[int]] = {}
    for a, losers in beats.items():
        for b in losers:
            reverse.setdefault(b, []).append(a)
    order, seen = [], set()
    for root in beats:
        stack = [] if root in seen else [(root, iter(beats[root]))]
        seen.add(root)
        while stack:
            node, rest = stack[-1]
            following = next((b for b in rest if b not in seen), None)
            if following is None:
                order.append(node)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(beats.get(following, ()))))
    component: dict[int, int] = {}
    for root in reversed(order):
        wave = [] if root in component else [root]
        component.setdefault(root, root)
        while wave:
            new = [a for a in reverse.get(wave.pop(), ()) if a not in component]
            component |= dict.fromkeys(new, component[root])
            wave += new
    return component


@metafeature("crowd")
def position_bias(probe: Probe) -> float:
    """How far the side on which an image was shown decided: share of answers left minus share right, without sign.

    unit: share; range: 0 to 1; cost: facts; needs: triplets, sides; source: Day 1969 (position bias).
    """
    side = triplets_of(probe).side
    if side is None:
        raise NotApplicable(f"{probe.dataset.name}: the sides are unknown")
    return abs(2 * float(np.mean(np.asarray(side) == 0)) - 1)
