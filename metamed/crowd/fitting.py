"""The most probable positions and annotators, by L-BFGS."""

from __future__ import annotations

import numpy as np

from metamed.crowd.model import Model

ROUNDS = 500
TOLERANCE = 1e-5  # relative gain of a round below which more rounds change no third digit of accuracy


def most_probable(model: Model, start: np.ndarray, traits: bool = True) -> np.ndarray:
    """The vector of (locally) highest posterior density, from `start`; `traits` False keeps those as they are there."""
    from scipy.optimize import minimize

    def loss(vector: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = model.density(vector)
        gradient[model.coordinates :] *= traits
        return -value, -gradient

    options = {"maxiter": ROUNDS, "ftol": TOLERANCE if traits else 10 * TOLERANCE}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    return found.x


def peak(model: Model, rng: np.random.Generator) -> np.ndarray:
    """The vector of highest posterior density that is found from the embedding with all annotators taken for one."""
    alike = Model(model.answers.pooled(), model.dimensions)
    vector = most_probable(alike, alike.random(rng), traits=False)  # else they turn round before positions are found
    vector = most_probable(alike, vector)
    if len(model.answers.names) == 1:
        return vector
    slope = alike.traits(vector[alike.coordinates :])[0][0, 0]
    return most_probable(model, model.vector(alike.position(vector), slope))
