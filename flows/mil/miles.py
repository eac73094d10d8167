"""MILES: a bag is how near it comes to each training instance, and few of these matter."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np

from metamed.flows.mil.estimators import BagClassifier, Bags, Machine, squared_distances
from metamed.methods import Float, Int, Shape, method

BLOCK = 2000  # instances whose distances are in memory at once


class MILES(Machine):
    """A linear machine with an L1 penalty on the likeness of a bag to instances of the training bags."""

    def __init__(self, gamma: float, c: float, concepts: int):
        super().__init__()
        self.gamma, self.c, self.concepts = gamma, c, concepts

    def _likeness(self, bags: Bags, to: np.ndarray) -> np.ndarray:
        """exp(-gamma d² / D) for the nearest instance of each bag, (bags, len(to))."""
        blocks = (bags.part(b) for b in bags.blocks(BLOCK))
        nearest = [part.pooled(squared_distances(part.x, to), "min") for part in blocks]
        return np.exp(-self.gamma / bags.x.shape[1] * np.concatenate(nearest))

    def fit(self, bags: Bags, positive: np.ndarray) -> None:
        from sklearn.svm import LinearSVC

        chosen = np.random.default_rng(0).permutation(len(bags.x))[: self.concepts]
        concepts = bags.x[np.sort(chosen)]
        svm = LinearSVC(penalty="l1", dual=False, C=self.c, class_weight="balanced", tol=1e-3, random_state=0)
        svm.fit(self._likeness(bags, concepts), positive)
        used = np.flatnonzero(svm.coef_[0]) if svm.coef_.any() else np.arange(1)
        self.state = {"concepts": concepts[used], "weight": svm.coef_[0, used].astype(np.float32),
                      "bias": np.float32(svm.intercept_[0])}  # fmt: skip

    def margins(self, bags: Bags) -> np.ndarray:
        return self._likeness(bags, self.state["concepts"]) @ self.state["weight"] + self.state["bias"]


@method("mil", version=1, estimator=True)
def miles(
    shape: Shape,
    *,
    gamma: Annotated[float, Float(1e-2, 1e2, log=True)] = 1.0,
    c: Annotated[float, Float(1e-4, 1e3, log=True)] = 1.0,
    concepts: Annotated[int, Int(10, 100000)] = 2000,
) -> BagClassifier:
    """A linear machine with an L1 penalty on how near a bag comes to each training instance (Chen, Bi & Wang, 2006).

    Of more than `concepts` training instances so many are drawn. `gamma` counts in units of one over the number of
    features, which are standardised. Instances are scored as bags of one.
    """
    return BagClassifier(shape.n_classes, partial(MILES, gamma, c, concepts))
