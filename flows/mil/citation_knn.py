"""Citation-kNN: the bags that a bag is near to, and those that have it among their nearest."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np

from metamed.flows.mil.estimators import BagClassifier, Bags, Machine, squared_distances
from metamed.methods import Int, Shape, method

BLOCK = 2000  # instances whose distances are in memory at once


class CitationKNN(Machine):
    """Votes of references and citers by the smallest distance between instances of two bags."""

    logit = True

    def __init__(self, references: int, citers: int):
        super().__init__()
        self.references, self.citers = references, citers

    def fit(self, bags: Bags, positive: np.ndarray) -> None:
        self.state = {"x": bags.x, "sizes": bags.sizes, "positive": positive.astype(np.uint8)}
        between = bag_distances(bags, bags)
        np.fill_diagonal(between, np.inf)
        rank = min(self.citers, len(positive) - 1) - 1
        self.state["reach"] = np.sort(between, axis=1)[:, rank]  # within it a bag cites

    def margins(self, bags: Bags) -> np.ndarray:
        s = self.state
        between = bag_distances(bags, Bags(s["x"], s["sizes"]))
        votes = between <= s["reach"]  # citers
        nearest = np.argsort(between, axis=1, kind="stable")[:, : self.references]
        counts = votes.astype(np.float64)
        np.put_along_axis(counts, nearest, np.take_along_axis(counts, nearest, axis=1) + 1, axis=1)
        yes = counts @ s["positive"]
        near = between[:, s["positive"] > 0].min(axis=1), between[:, s["positive"] == 0].min(axis=1)
        tie = 0.1 * (near[1] - near[0]) / (near[1] + near[0] + 1e-9)  # a vote's tenth for the nearer class
        share = (yes + 0.5 + tie) / (counts.sum(axis=1) + 1)
        return np.log(share / (1 - share))


def bag_distances(bags: Bags, others: Bags) -> np.ndarray:
    """The smallest squared distance between instances of two bags (minimal Hausdorff), (bags, others)."""
    rows = []
    for block in bags.blocks(BLOCK):
        part = bags.part(block)
        to_bags = np.minimum.reduceat(squared_distances(part.x, others.x), others.starts, axis=1)
        rows.append(part.pooled(to_bags, "min"))
    return np.concatenate(rows)


@method("mil", version=1, estimator=True)
def citation_knn(
    shape: Shape,
    *,
    references: Annotated[int, Int(1, 30)] = 2,
    citers: Annotated[int, Int(1, 30)] = 4,
) -> BagClassifier:
    """Votes of the nearest `references` bags and of those that have the bag among their `citers` nearest, by the
    smallest distance between instances (Wang & Zucker, 2000). Instances are scored as bags of one."""
    return BagClassifier(shape.n_classes, partial(CitationKNN, references, citers))
