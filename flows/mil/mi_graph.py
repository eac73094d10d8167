"""miGraph: a kernel of bags in which instances that are alike share one vote."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np

from metamed.flows.mil.estimators import BagClassifier, Bags, Machine, squared_distances
from metamed.methods import Choice, Float, Shape, method

BLOCK = 2000  # instances whose kernel is in memory at once


class MiGraph(Machine):
    """A support vector machine on the weighted mean of the RBF kernel between the instances of two bags."""

    def __init__(self, gamma: float, c: float, cliques: bool):
        super().__init__()
        self.gamma, self.c, self.cliques = gamma, c, cliques

    def fit(self, bags: Bags, positive: np.ndarray) -> None:
        from sklearn.svm import SVC

        weights = self._weights(bags)
        svm = SVC(C=self.c, kernel="precomputed", class_weight="balanced")
        svm.fit(self._kernel(bags, bags, weights, weights), positive)
        used = np.sort(svm.support_)
        inside = np.isin(bags.row, used)
        self.state = {"x": bags.x[inside], "sizes": bags.sizes[used], "votes": weights[inside],
                      "weight": svm.dual_coef_[0, np.argsort(svm.support_)].astype(np.float32),
                      "bias": np.float32(svm.intercept_[0])}  # fmt: skip

    def _weights(self, bags: Bags) -> np.ndarray:
        """The vote of each instance: one over how many of its bag are nearer to it than the bag's mean distance, itself
        included; together one for a bag."""
        if not self.cliques:
            return (1 / bags.sizes[bags.row]).astype(np.float32)
        votes = []
        for start, size in zip(bags.starts, bags.sizes, strict=True):
            distance = np.sqrt(squared_distances(*[bags.x[start : start + size]] * 2))
            vote = 1 / np.maximum((distance <= distance.mean()).sum(axis=1), 1)
            votes.append(vote / vote.sum())
        return np.concatenate(votes).astype(np.float32)

    def _kernel(self, bags: Bags, others: Bags, votes: np.ndarray, their_votes: np.ndarray) -> np.ndarray:
        gamma, rows = self.gamma / bags.x.shape[1], []
        for block in bags.blocks(BLOCK):
            part, first = bags.part(block), bags.starts[block[0]]
            alike = np.exp(-gamma * squared_distances(part.x, others.x)) * their_votes
            alike = np.add.reduceat(alike, others.starts, axis=1) * votes[first : first + len(part.x), None]
            rows.append(np.add.reduceat(alike, part.starts, axis=0))
        return np.concatenate(rows)

    def margins(self, bags: Bags) -> np.ndarray:
        s = self.state
        kernel = self._kernel(bags, Bags(s["x"], s["sizes"]), self._weights(bags), s["votes"])
        return kernel @ s["weight"] + s["bias"]


@method("mil", version=1, estimator=True)
def mi_graph(
    shape: Shape,
    *,
    gamma: Annotated[float, Float(1e-2, 1e2, log=True)] = 1.0,
    c: Annotated[float, Float(1e-4, 1e3, log=True)] = 10.0,
    cliques: Annotated[bool, Choice(False, True)] = True,
) -> BagClassifier:
    """A support vector machine on a kernel of bags in which instances that are alike share one vote (miGraph: Zhou, Sun
    & Li, 2009); without `cliques` all instances vote alike (the normalised set kernel: Gaertner et al., 2002).

    `gamma` counts in units of one over the number of features, which are standardised. Instances are scored as bags of
    one.
    """
    return BagClassifier(shape.n_classes, partial(MiGraph, gamma, c, cliques))
