"""Vectors drawn from the posterior, by Hamiltonian Monte Carlo (Neal 2011).

Where answers are few, many embeddings explain them about equally well, and their average predicts better than any.
"""

from __future__ import annotations

import numpy as np

from metamed.crowd.model import Model

WARM_UP, DRAWS = 600, 600
STEPS = 15  # leapfrog steps of a round, at most
ACCEPTED = 0.8  # of rounds: the step is adapted to it while warming up
COLDEST = 0.1  # how much answers count at first: the vector then finds its region before its place


def draw(
    model: Model, start: np.ndarray, rng: np.random.Generator, warm_up: int = WARM_UP, draws: int = DRAWS, tempered=True
) -> np.ndarray:
    """Vectors drawn one after the other, (draws, size), from `start`, which is forgotten if the warm-up is tempered."""
    vector, log_step, kept = start, np.log(0.1), np.empty((draws, model.size))
    for k in range(warm_up + draws):
        weight = min(1.0, COLDEST + (1 - COLDEST) * k / (warm_up / 2)) if tempered else 1.0
        vector, accepted = _round(model, vector, np.exp(log_step), weight, rng)
        if k < warm_up:
            log_step += (accepted - ACCEPTED) * (0.1 if k < warm_up // 2 else 0.03)
        else:
            kept[k - warm_up] = vector
    return kept


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
