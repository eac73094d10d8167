"""EM-DD: one point to which every positive bag comes near and no negative bag does."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np

from metamed.flows.mil.estimators import BagClassifier, Bags, Machine
from metamed.methods import Int, Shape, method

ROUNDS, STEPS = 6, 25  # of choosing instances; of moving the point, in each
SMALL = 1e-6  # least probability


class EMDD(Machine):
    """A point and a scale for each feature: an instance at weighted mean squared distance d is positive with
    probability exp(-d). Found by choosing the nearest instance of each bag and moving the point, in turn."""

    def __init__(self, starts: int):
        super().__init__()
        self.starts = starts

    def fit(self, bags: Bags, positive: np.ndarray) -> None:
        """From instances of three positive bags, drawn at random; the point of the greatest diverse density stays."""
        rng, best = np.random.default_rng(0), np.inf
        for begin in self._begins(bags, positive, rng):
            point, scale, loss = begin, np.ones_like(begin), np.inf
            for _ in range(ROUNDS):
                chosen = np.lexsort((_distance(bags.x, point, scale), bags.row))[bags.starts]
                point, scale, after = _move(bags.x[chosen], positive, point, scale)
                if after > loss - 1e-4:
                    break
                loss = after
            if (density := _loss(bags.pooled(_distance(bags.x, point, scale), "min"), positive)) < best:
                best, self.state = density, {"point": point, "feature_scale": scale}

    def _begins(self, bags: Bags, positive: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        chosen = rng.permutation(np.flatnonzero(positive))[:3]
        candidates = np.flatnonzero(np.isin(bags.row, chosen))
        return bags.x[rng.permutation(candidates)[: self.starts]]

    def margins(self, bags: Bags) -> np.ndarray:
        return bags.pooled(self.scores(bags.x))

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Logarithm of the probability that an instance is positive."""
        return -_distance(x, self.state["point"], self.state["feature_scale"])


def _distance(x: np.ndarray, point: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return ((x - point) ** 2) @ scale**2 / len(point)


def _loss(distance: np.ndarray, positive: np.ndarray) -> float:
    """Mean negative logarithm of the diverse density, of the nearest instance of each bag."""
    p = np.clip(np.exp(-distance), SMALL, 1 - SMALL)
    return float(-np.log(np.where(positive, p, 1 - p)).mean())


def _move(x: np.ndarray, positive: np.ndarray, point: np.ndarray, scale: np.ndarray) -> tuple:
    """(point, scale, loss) after some steps of L-BFGS on the chosen instances x (bags, D)."""
    from scipy.optimize import minimize

    d, sign = x.shape[1], np.where(positive, 1.0, 0.0)

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        away, s = x - values[:d], values[d:]
        distance = (away**2) @ s**2 / d
        p = np.clip(np.exp(-distance), SMALL, 1 - SMALL)
        slope = np.where(positive, sign, -p / (1 - p)) / len(x)  # of the loss by the distance
        by_point = -2 * (slope @ away) * s**2 / d
        by_scale = 2 * (slope @ away**2) * s / d
        return _loss(distance, positive), np.concatenate([by_point, by_scale])

    found = minimize(loss, np.concatenate([point, scale]).astype(np.float64), jac=True, method="L-BFGS-B",
                     options={"maxiter": STEPS})  # fmt: skip
    return found.x[:d].astype(np.float32), found.x[d:].astype(np.float32), found.fun


@method("mil", version=1, estimator=True)
def em_dd(
    shape: Shape,
    *,
    starts: Annotated[int, Int(1, 100)] = 8,
) -> BagClassifier:
    """Expectation-maximisation of the diverse density (Zhang & Goldman, 2001), from `starts` instances of three
    positive bags. Distances are means over the features, which are standardised, so that many do not drown the rest."""
    return BagClassifier(shape.n_classes, partial(EMDD, starts))
