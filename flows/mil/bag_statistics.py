"""Statistics of bags: a bag becomes one vector, and any classifier will do."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np

from metamed.flows.mil.estimators import BagClassifier, Bags, Machine, linear, logistic
from metamed.methods import Choice, Float, Shape, method

STATISTICS = {"mean": ("mean",), "max": ("max",), "extremes": ("min", "max"), "all": ("mean", "min", "max")}


class BagStatistics(Machine):
    """Logistic regression on the mean, the extremes or all of them of each feature in a bag."""

    logit = True

    def __init__(self, statistic: str, c: float):
        super().__init__()
        self.parts, self.c = STATISTICS[statistic], c

    def _vectors(self, bags: Bags) -> np.ndarray:
        return np.concatenate([bags.pooled(bags.x, how) for how in self.parts], axis=1)

    def fit(self, bags: Bags, positive: np.ndarray) -> None:
        x = self._vectors(bags)
        mean, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
        self.state = logistic((x - mean) / scale, positive, self.c) | {"centre": mean, "spread": scale}

    def margins(self, bags: Bags) -> np.ndarray:
        return linear((self._vectors(bags) - self.state["centre"]) / self.state["spread"], self.state)


@method("mil", version=1, estimator=True)
def bag_statistics(
    shape: Shape,
    *,
    statistic: Annotated[str, Choice(*STATISTICS)] = "mean",
    c: Annotated[float, Float(1e-5, 1e2, log=True)] = 0.01,
) -> BagClassifier:
    """Logistic regression on the mean instance of a bag, on the largest value of each feature, on both `extremes`, or
    on `all` of these (SimpleMIL; the statistic kernel of Gaertner et al., 2002). `c` is the inverse strength of its L2
    penalty."""
    return BagClassifier(shape.n_classes, partial(BagStatistics, statistic, c))
