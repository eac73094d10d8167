"""Vectors drawn from the posterior, by Hamiltonian Monte Carlo (Neal 2011).

Where answers are few, many embeddings explain them about equally well, and their average predicts better than any.
"""

from __future__ import annotations

import numpy as np

from metamed.crowd.fitting import most_probable
from metamed.crowd.model import Model

STEPS = 15  # leapfrog steps of a round, at most
ACCEPTED = 0.8  # of rounds: the step is adapted to it while warming up
CHAINS = 3
CLEARLY = 15.0  # of log density, between means of chains: their errors are 3 to 6 in two dimensions, 4 to 11 in five
COLDEST = 0.1  # how much answers count at first: the vector then finds its region before its place


def draw(model: Model, start: np.ndarray, rng: np.random.Generator, rounds: int, tempered: bool) -> np.ndarray:
    """Vectors drawn one after the other, (rounds, size), after as many of warming up.

    tempered: answers count little at first; where it starts is then forgotten.
    """
    vector, log_step, kept = start, np.log(0.1), np.empty((rounds, model.size))
    for k in range(2 * rounds):
        weight = min(1.0, COLDEST + (1 - COLDEST) * 2 * k / rounds) if tempered else 1.0
        vector, accepted = _round(model, vector, np.exp(log_step), weight, rng)
        if k < rounds:
            log_step += (accepted - ACCEPTED) * (0.1 if k < rounds // 2 else 0.03)
        else:
            kept[k - rounds] = vector
    return kept


def draw_chains(model: Model, rng: np.random.Generator, rounds: int) -> np.ndarray:
    """Vectors from CHAINS beginnings, one chain after the other, without chains that were caught.

    A mirrored world, in which those who are right count as inverters, explains few answers about as well: chains in
    which most answers are by inverters are left out where there are others. So are those of clearly lower density.
    """
    chains = [_chain(model, rng, rounds) for _ in range(CHAINS)]
    height = np.array([np.mean([model.density(vector)[0] for vector in chain[::10]]) for chain in chains])
    upright = np.array([_upright(model, chain) for chain in chains])
    height[~upright] -= np.inf if upright.any() else 0
    return np.concatenate([chain for chain, own in zip(chains, height, strict=True) if own > height.max() - CLEARLY])


def _chain(model: Model, rng: np.random.Generator, rounds: int) -> np.ndarray:
    """From a tempered beginning; of one annotator from the best positions for an informed one. Every position hangs on
    his slope: once near 0 while answers count little, it may need more rounds than there are to rise."""
    if len(model.answers.names) == 1:
        return draw(model, most_probable(model, model.random(rng), traits=False), rng, rounds, tempered=False)
    return draw(model, model.random(rng), rng, rounds, tempered=True)


def _upright(model: Model, chain: np.ndarray) -> bool:
    """Whether more answers are by annotators with positive slopes than by others."""
    count = np.bincount(model.answers.annotator, minlength=len(model.answers.names))
    slope = np.mean([model.traits(vector[model.coordinates :])[0][:, 0] for vector in chain[::10]], axis=0)
    return bool(count @ slope > 0)


def _round(model: Model, vector: np.ndarray, step: float, weight: float, rng: np.random.Generator):
    """(next vector, probability with which the proposal was accepted)."""
    momentum = rng.normal(size=vector.size)
    value, gradient = model.density(vector, weight)
    energy = value - momentum @ momentum / 2
    proposal, steps = vector, rng.integers(1, STEPS + 1)
    step *= rng.uniform(0.8, 1.2)
    for _ in range(steps):
        momentum = momentum + step / 2 * gradient
        proposal = proposal + step * momentum
        value, gradient = model.density(proposal, weight)
        momentum = momentum + step / 2 * gradient
    chance = float(np.exp(min(0.0, value - momentum @ momentum / 2 - energy)))
    return (proposal if rng.uniform() < chance else vector), chance
