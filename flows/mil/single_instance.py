"""Single-instance learning: instances inherit their bag's class, and a bag pools what is said of its instances."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np

from metamed.flows.mil.bagnet import POOLING
from metamed.flows.mil.estimators import BagClassifier, Bags, Machine, linear, logistic
from metamed.methods import Float, Shape, method


class SingleInstance(Machine):
    """Logistic regression of instances, and what is pooled of its log-odds."""

    def __init__(self, pooling: str, c: float):
        super().__init__()
        self.pooling, self.c = pooling, c

    def fit(self, bags: Bags, positive: np.ndarray) -> None:
        self.state = logistic(bags.x, positive[bags.row], self.c)

    def margins(self, bags: Bags) -> np.ndarray:
        return bags.pooled(linear(bags.x, self.state), self.pooling)

    def scores(self, x: np.ndarray) -> np.ndarray:
        return linear(x, self.state)


@method("mil", version=1, estimator=True)
def single_instance(
    shape: Shape,
    *,
    pooling: Annotated[str, POOLING] = "mean",
    c: Annotated[float, Float(1e-5, 1e2, log=True)] = 0.01,
) -> BagClassifier:
    """Logistic regression on instances that inherit their bag's class; the bag's log-odds are the mean, the maximum or
    the soft maximum of theirs (SIL: Ray & Craven, 2005). `c` is the inverse strength of its L2 penalty."""
    return BagClassifier(shape.n_classes, partial(SingleInstance, pooling, c))
