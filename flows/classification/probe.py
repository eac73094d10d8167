"""Probes: quick classifiers on the frozen features of a source's network."""

from __future__ import annotations

import warnings
from typing import Annotated

import numpy as np

from metamed.flows.networks import NETWORKS
from metamed.methods import Choice, Float, Int, Shape, method

_NETWORKS = Choice(*NETWORKS)


class _Probe:
    """A scikit-learn classifier on standardised features that answers with log-probabilities for all K classes.

    Multi-label targets, 0/1 (n, K), get one such classifier for each label.
    """

    def __init__(self, classifier, n_classes: int, scaling: str = "each"):
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler() if scaling == "each" else _one_scale()
        self.pipeline, self.n_classes = make_pipeline(scaler, classifier), n_classes

    def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> _Probe:
        from sklearn.exceptions import ConvergenceWarning

        if y.ndim == 2:
            from sklearn.multiclass import OneVsRestClassifier

            name, classifier = self.pipeline.steps[-1]
            self.pipeline.steps[-1] = (name, OneVsRestClassifier(classifier))
        with warnings.catch_warnings():  # a fixed number of passes is what was asked for
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.pipeline.fit(x, y)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        probability = np.full((len(x), self.n_classes), 1e-7)  # a class that training did not see stays improbable
        probability[:, self.pipeline.classes_] = np.clip(self.pipeline.predict_proba(x), 1e-7, 1)
        return np.log(probability).astype(np.float32)


def _one_scale():
    """A scaler that centres every feature and divides all by one deviation, the root of their mean variance."""
    from sklearn.preprocessing import StandardScaler

    class OneScale(StandardScaler):
        def fit(self, x, y=None, sample_weight=None):
            super().fit(x, y, sample_weight)
            self.scale_ = np.full_like(self.scale_, np.sqrt(self.var_.mean()) or 1.0)
            return self

    return OneScale()


class Space:
    """Features (n, D) in other coordinates: (x - mean) @ matrix, (n, k); a step of a scikit-learn pipeline."""

    def __init__(self, mean: np.ndarray, matrix: np.ndarray):
        self.mean_, self.matrix_ = mean, matrix

    def fit(self, x, y=None):
        return self

    def transform(self, x: np.ndarray) -> np.ndarray:
        return (x - self.mean_) @ self.matrix_


class LinearProbe(_Probe):
    """Logistic regression in the `space` that assessments made. assessed(x, said), before fit, has to set it: x are
    features of the images that were judged, said is what was said of them (`metamed.judged.Judged`). Where nothing was
    said, features are divided by their common deviation."""

    def __init__(self, n_classes: int, c: float):
        from sklearn.linear_model import LogisticRegression

        super().__init__(LogisticRegression(C=c, max_iter=1000), n_classes)
        self.space: Space | None = None

    def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> LinearProbe:
        self.pipeline.steps[0] = ("space", self.space or _one_scale())
        return super().fit(x, y, groups)


@method("classification", version=1, name="probe.linear")
def linear(
    shape: Shape,
    *,
    network: Annotated[str, _NETWORKS] = "mobilenet_v2",
    c: Annotated[float, Float(1e-5, 1e2, log=True)] = 0.01,
    scaling: Annotated[str, Choice("each", "all")] = "each",
) -> _Probe:
    """Multinomial logistic regression on frozen features; `c` is the inverse strength of its L2 penalty. Features are
    divided by their deviation, `each` by its own or `all` by one, so that rarely active ones do not grow loud."""
    from sklearn.linear_model import LogisticRegression

    return _Probe(LogisticRegression(C=c, max_iter=1000), shape.n_classes, scaling)


@method("classification", version=1, name="probe.knn")
def knn(
    shape: Shape,
    *,
    network: Annotated[str, _NETWORKS] = "mobilenet_v2",
    neighbours: Annotated[int, Int(1, 50)] = 10,
) -> _Probe:
    """k nearest neighbours on frozen features, votes weighted by inverse distance."""
    from sklearn.neighbors import KNeighborsClassifier

    return _Probe(KNeighborsClassifier(neighbours, weights="distance"), shape.n_classes)


@method("classification", version=1, name="probe.mlp")
def mlp(
    shape: Shape,
    *,
    network: Annotated[str, _NETWORKS] = "mobilenet_v2",
    width: Annotated[int, Choice(64, 128, 256)] = 128,
    c: Annotated[float, Float(1e-5, 1e2, log=True)] = 1.0,
) -> _Probe:
    """One hidden layer of `width` units on frozen features; `c` is the inverse strength of its L2 penalty."""
    from sklearn.neural_network import MLPClassifier

    return _Probe(MLPClassifier((width,), alpha=1 / c, max_iter=100, n_iter_no_change=100), shape.n_classes)
