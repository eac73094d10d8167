"""A probe that sees images as people compared them: in the metric that their triplets teach."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from metamed.errors import NotApplicable
from metamed.flows.classification.probe import LinearProbe, Space
from metamed.flows.networks import NETWORKS
from metamed.flows.similarity.metric import LinearMetric
from metamed.judged import Judged
from metamed.methods import Believed, Choice, Float, Keep, Quality, Shape, method


class _Compared(LinearProbe):
    def __init__(self, n_classes: int, c: float, believed: Believed, metric: LinearMetric):
        super().__init__(n_classes, c)
        self.believed, self.metric = believed, metric

    def assessed(self, x: np.ndarray, said: Judged) -> None:
        if said.triplets is None:
            raise NotApplicable("probe.triplets learns from triplets; these are ratings. Use probe.attributes")
        self.metric.fit(x, said.triplets, said.weights)
        self.space = Space(self.metric.mean, self.metric.matrix / np.sqrt(self.metric.embed(x).var(axis=0).mean()))


@method("classification", version=1, name="probe.triplets", assessed=True)
def triplets(
    shape: Shape,
    *,
    network: Annotated[str, Choice(*NETWORKS)] = "mobilenet_v2",
    c: Annotated[float, Float(1e-5, 1e2, log=True)] = 0.1,
    components: Annotated[int, Choice(8, 16, 32, 64, 128, 256)] = 64,
    violation_price: Annotated[float, Float(1e-4, 1e2, log=True)] = 0.1,
    towards: Annotated[str, Choice("equal", "none")] = "equal",
    keep: Keep = "all",
    minimum_quality: Quality = 0.5,
) -> LinearProbe:
    """Logistic regression in the metric of frozen features that triplets teach (Schultz & Joachims, 2003).

    `violation_price` and `towards` are `c` and `towards` of `probe.metric`. Triplets need not show labelled images.
    """
    metric = LinearMetric(components, violation_price, towards)
    return _Compared(shape.n_classes, c, Believed("triplets", keep, minimum_quality), metric)
