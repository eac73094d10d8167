"""Support vector machines that look for the instances which make a bag positive: mi-SVM and MI-SVM."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np

from metamed.flows.mil.estimators import BagClassifier, Bags, Machine, State, linear, squared_distances
from metamed.methods import Choice, Float, Shape, method

ROUNDS = 20  # at most; most are settled after a few
TOLERANCE = 1e-2  # of a linear machine, which is trained anew in each round
_KERNEL, _C, _GAMMA = Choice("linear", "rbf"), Float(1e-4, 1e3, log=True), Float(1e-2, 1e2, log=True)


class _SVM(Machine):
    """A support vector machine of instances, classes weighted alike; a bag is what its highest instance is."""

    def __init__(self, kernel: str, c: float, gamma: float):
        super().__init__()
        self.kernel, self.c, self.gamma = kernel, c, gamma

    def margins(self, bags: Bags) -> np.ndarray:
        return bags.pooled(self.scores(bags.x))

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Signed distances of instances to the boundary."""
        if "vectors" not in self.state:
            return linear(x, self.state)
        gamma, blocks = self.gamma / x.shape[1], np.array_split(x, max(1, len(x) // 2000))
        kernels = (np.exp(-gamma * squared_distances(block, self.state["vectors"])) for block in blocks)
        return np.concatenate([k @ self.state["weight"] + self.state["bias"] for k in kernels])

    def _train(self, x: np.ndarray, positive: np.ndarray) -> State:
        from sklearn.svm import SVC, LinearSVC

        if self.kernel == "linear":
            wide = bool(len(x) < x.shape[1])
            fitted = LinearSVC(C=self.c, class_weight="balanced", dual=wide, tol=TOLERANCE, random_state=0)
            fitted.fit(x, positive)
            return {"weight": fitted.coef_[0].astype(np.float32), "bias": np.float32(fitted.intercept_[0])}
        fitted = SVC(C=self.c, gamma=self.gamma / x.shape[1], class_weight="balanced").fit(x, positive)
        return {"vectors": fitted.support_vectors_.astype(np.float32), "bias": np.float32(fitted.intercept_[0]),
                "weight": fitted.dual_coef_[0].astype(np.float32)}  # fmt: skip


class OfInstances(_SVM):
    """mi-SVM: every instance of a positive bag has a hidden class of its own, and at least one is positive."""

    def fit(self, bags: Bags, positive: np.ndarray) -> None:
        inside, row = positive[bags.row], bags.row
        hidden = inside.copy()
        for _ in range(ROUNDS):
            self.state = self._train(bags.x, hidden)
            scores = self.scores(bags.x)
            before, hidden = hidden, inside & (scores > 0)
            hidden |= inside & (scores >= bags.pooled(scores)[row])  # the highest one of each positive bag
            if np.array_equal(before, hidden):
                break


class OfWitnesses(_SVM):
    """MI-SVM: of a positive bag only the highest instance counts, its witness; of a negative one all do."""

    def fit(self, bags: Bags, positive: np.ndarray) -> None:
        negative, row = bags.x[~positive[bags.row]], bags.row
        witnesses, before = bags.pooled(bags.x, "mean")[positive], None
        truth = np.arange(len(negative) + len(witnesses)) >= len(negative)
        for _ in range(ROUNDS):
            self.state = self._train(np.concatenate([negative, witnesses]), truth)
            scores = self.scores(bags.x)
            first = np.lexsort((-scores, row))[bags.starts][positive]
            if before is not None and np.array_equal(before, first):
                break
            witnesses, before = bags.x[first], first


@method("mil", version=1, estimator=True)
def mi_svm(
    shape: Shape,
    *,
    kernel: Annotated[str, _KERNEL] = "linear",
    c: Annotated[float, _C] = 0.1,
    gamma: Annotated[float, _GAMMA] = 1.0,
) -> BagClassifier:
    """mi-SVM: trains on instances and relabels those of positive bags, in turn (Andrews et al., 2003).

    Classes are weighted alike, which the paper does not do. `gamma`, of the RBF kernel, counts in units of one over the
    number of features, which are standardised.
    """
    return BagClassifier(shape.n_classes, partial(OfInstances, kernel, c, gamma))


@method("mil", version=1, estimator=True)
def mi_svm_bags(
    shape: Shape,
    *,
    kernel: Annotated[str, _KERNEL] = "linear",
    c: Annotated[float, _C] = 0.1,
    gamma: Annotated[float, _GAMMA] = 1.0,
) -> BagClassifier:
    """MI-SVM: one instance of each positive bag, its witness, is chosen and trained on in turn (Andrews et al., 2003).

    Classes are weighted alike, which the paper does not do; settings as of `mi_svm`.
    """
    return BagClassifier(shape.n_classes, partial(OfWitnesses, kernel, c, gamma))
