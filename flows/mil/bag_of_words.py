"""Bags of words: which kinds of instances a bag holds, and in what shares."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np

from metamed.flows.mil.estimators import BagClassifier, Bags, Machine, linear, logistic, squared_distances
from metamed.methods import Float, Int, Shape, method


class BagOfWords(Machine):
    """Logistic regression on the root of the share of a bag's instances that is nearest to each word."""

    logit = True

    def __init__(self, words: int, c: float):
        super().__init__()
        self.words, self.c = words, c

    def fit(self, bags: Bags, positive: np.ndarray) -> None:
        from sklearn.cluster import MiniBatchKMeans

        words = min(self.words, len(bags.x))
        found = MiniBatchKMeans(words, random_state=0, n_init=3, batch_size=1024).fit(bags.x)
        self.state = {"words": found.cluster_centers_.astype(np.float32)}
        self.state |= logistic(self._shares(bags), positive, self.c)

    def _shares(self, bags: Bags) -> np.ndarray:
        nearest = squared_distances(bags.x, self.state["words"]).argmin(axis=1)
        return np.sqrt(bags.pooled(np.eye(len(self.state["words"]), dtype=np.float32)[nearest], "mean"))

    def margins(self, bags: Bags) -> np.ndarray:
        return linear(self._shares(bags), self.state)


@method("mil", version=1, estimator=True)
def bag_of_words(
    shape: Shape,
    *,
    words: Annotated[int, Int(2, 1000)] = 50,
    c: Annotated[float, Float(1e-5, 1e2, log=True)] = 1.0,
) -> BagClassifier:
    """Logistic regression on how a bag's instances fall to `words` clusters of all of them (bag of words: Sivic &
    Zisserman, 2003; in Amores' review of 2013 the embedding by a vocabulary). Instances are scored as bags of one."""
    return BagClassifier(shape.n_classes, partial(BagOfWords, words, c))
