"""Ordinal embedding as others do it: losses that know no annotators, by L-BFGS on torch's gradients."""

from __future__ import annotations

import numpy as np

from metamed.crowd.answers import Answers

ROUNDS = 300


def _soe(near, far):
    """Soft ordinal embedding (Terada & von Luxburg 2014): a hinge, squared, on distances."""
    return ((near - far + 1).clamp(min=0) ** 2).sum()


def _tste(near, far, freedom: float = 1.0):
    """Stochastic triplet embedding with Student's t (van der Maaten & Weinberger 2012)."""
    near, far = ((1 + distance**2 / freedom) ** (-(freedom + 1) / 2) for distance in (near, far))
    return -(near / (near + far)).log().sum()


def embeddings(answers: Answers, dimensions: int, seed: int) -> dict[str, np.ndarray]:
    """Positions by each loss."""
    return {"soe": _fit(answers, dimensions, seed, _soe), "tste": _fit(answers, dimensions, seed, _tste)}


def _fit(answers: Answers, dimensions: int, seed: int, loss) -> np.ndarray:
    import torch
    from scipy.optimize import minimize

    index = [torch.as_tensor(part, dtype=torch.long) for part in (answers.anchor, answers.closer, answers.farther)]

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        position = torch.tensor(flat.reshape(-1, dimensions), requires_grad=True)
        anchor, closer, farther = (position[part] for part in index)
        near, far = (((anchor - other) ** 2).sum(1).add(1e-12).sqrt() for other in (closer, farther))
        total = loss(near, far)
        total.backward()
        return float(total.detach()), position.grad.numpy().ravel()

    start = np.random.default_rng(seed).normal(size=answers.images * dimensions)
    found = minimize(value, start, jac=True, method="L-BFGS-B", options={"maxiter": ROUNDS})
    return found.x.reshape(-1, dimensions)
