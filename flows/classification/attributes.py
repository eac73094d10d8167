"""Attributes that people rated, estimated from frozen features, as further features of a probe."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from metamed.errors import NotApplicable
from metamed.flows.classification.probe import LinearProbe, Space
from metamed.flows.networks import NETWORKS
from metamed.judged import Judged
from metamed.methods import Believed, Choice, Float, Keep, Quality, Shape, method

_ALPHAS = 10.0 ** np.arange(-1, 6)  # ridge penalties that leave-one-out errors choose from


def attribute_space(x: np.ndarray, said: Judged, loudness: float, only: bool) -> Space:
    """Features over their common deviation, and beside them (or `only`) the ridge estimate of each attribute with
    deviation `loudness`. x: features of the images of `said.index`, (n, D)."""
    from sklearn.linear_model import RidgeCV

    if said.scores is None:
        raise NotApplicable("probe.attributes learns from ratings, and these are triplets. Use probe.triplets")
    mean, scale = x.mean(axis=0), np.sqrt(x.var(axis=0).mean()) or 1.0
    u, columns = (x - mean) / scale, []
    for k in range(said.scores.shape[1]):
        rated = said.weights[:, k] > 0
        ridge = RidgeCV(_ALPHAS).fit(u[rated], said.scores[rated, k], sample_weight=said.weights[rated, k])
        columns.append(ridge.coef_ * loudness / max((u @ ridge.coef_).std(), 1e-6))
    estimates = np.stack(columns, axis=1)
    return Space(mean, (estimates if only else np.concatenate([np.eye(len(mean)), estimates], axis=1)) / scale)


class _Attributes(LinearProbe):
    def __init__(self, n_classes: int, c: float, believed: Believed, loudness: float, only: bool):
        super().__init__(n_classes, c)
        self.believed, self.loudness, self.only = believed, loudness, only

    def assessed(self, x: np.ndarray, said: Judged) -> None:
        self.space = attribute_space(x, said, self.loudness, self.only)


@method("classification", version=1, name="probe.attributes", assessed=True)
def attributes(
    shape: Shape,
    *,
    network: Annotated[str, Choice(*NETWORKS)] = "mobilenet_v2",
    c: Annotated[float, Float(1e-5, 1e2, log=True)] = 0.01,
    loudness: Annotated[float, Float(0.1, 100.0, log=True)] = 10.0,
    only: Annotated[bool, Choice(False, True)] = False,
    keep: Keep = "all",
    minimum_quality: Quality = 0.5,
) -> LinearProbe:
    """Logistic regression on frozen features and on what people rated, estimated from the features by ridge regression.

    `loudness`: deviation of an estimated attribute beside features of deviation 1: the louder, the less the penalty
    `c` holds it back. only: the estimates alone. Ratings need not be of labelled images.
    """
    return _Attributes(shape.n_classes, c, Believed("ratings", keep, minimum_quality), loudness, only)
