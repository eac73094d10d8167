"""Labels and assessments as tasks that share one linear layer on frozen features."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from metamed.flows.heads import Layers
from metamed.flows.networks import NETWORKS
from metamed.judged import Judged
from metamed.methods import Believed, Choice, Float, Keep, Learns, Quality, Shape, method
from metamed.training.assessed import triplet_loss

_STEPS = 200  # iterations of L-BFGS at the most: a convex problem but for its factors, solved in about half of them


class _Multitask:
    """features -> `width` shared values -> a logit for each class, an estimate for each attribute.

    fit as of every probe; assessed(x, said) before: features of the images that were judged, and the judgements.
    """

    def __init__(self, n_classes: int, width: int, c: float, weight: float, first: bool, believed: Believed):
        self.n_classes, self.width, self.c, self.weight, self.first = n_classes, width, c, weight, first
        self.believed, self.said = believed, None

    def assessed(self, x: np.ndarray, said: Judged) -> None:
        self.said, self.judged_features = said, x
        self.mean, self.scale = x.mean(axis=0), np.sqrt(x.var(axis=0).mean()) or 1.0

    def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> _Multitask:
        if self.said is None:
            self.mean, self.scale = x.mean(axis=0), np.sqrt(x.var(axis=0).mean()) or 1.0
        self.multi_label = np.ndim(y) == 2
        self.shared = nn.Linear(x.shape[1], self.width, bias=False)
        self.head = nn.Linear(self.width, self.n_classes)
        tasks = self._tasks(self._scaled(x), torch.from_numpy(np.asarray(y)))
        if self.first and tasks[1:]:
            self._descend(tasks[1:])
        self._descend(tasks)
        return self

    def _scaled(self, x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(((x - self.mean) / self.scale).astype(np.float32))

    def _tasks(self, u: torch.Tensor, y: torch.Tensor) -> list:
        """Each task as (its own layers, a function that gives its summed loss)."""
        loss = F.binary_cross_entropy_with_logits if y.ndim == 2 else F.cross_entropy
        goal = y.float() if y.ndim == 2 else y.long()
        tasks = [([self.head], lambda: loss(self.head(self.shared(u)), goal, reduction="sum"))]
        if self.said is None or not self.weight:
            return tasks
        said, seen = self.said, self._scaled(self.judged_features)
        weights = torch.from_numpy(said.weights.astype(np.float32))
        if said.triplets is not None:
            rows = torch.from_numpy(said.triplets)
            return [*tasks, ([], lambda: self.weight * len(said) * triplet_loss(*self.shared(seen)[rows.T], weights))]
        rate = nn.Linear(self.width, len(said.attributes))
        goals = torch.from_numpy(np.nan_to_num(said.scores).astype(np.float32))
        return [*tasks, ([rate], lambda: self.weight * (weights * (rate(self.shared(seen)) - goals) ** 2).sum())]

    def _descend(self, tasks: list) -> None:
        """Least ½ of all squared weights plus `c` times the losses: on the product of two layers, a trace norm."""
        layers = [self.shared, *(layer for own, _ in tasks for layer in own)]
        optimiser = torch.optim.LBFGS([p for layer in layers for p in layer.parameters()], max_iter=_STEPS,
                                      line_search_fn="strong_wolfe")  # fmt: skip

        def value() -> torch.Tensor:
            optimiser.zero_grad()
            penalty = 0.5 * sum((layer.weight**2).sum() for layer in layers)
            total = penalty + self.c * sum(loss() for _, loss in tasks)
            total.backward()
            return total

        optimiser.step(value)

    @torch.no_grad()
    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.as_module()(torch.from_numpy(np.asarray(x, np.float32))).log().numpy()

    @torch.no_grad()
    def as_module(self) -> Layers:
        """Features B x D -> probabilities B x K: the two layers as one."""
        weight = (self.head.weight @ self.shared.weight).numpy()
        layer = [(weight, self.head.bias.numpy())]
        return Layers(self.mean, np.full(len(self.mean), self.scale), layer, self.multi_label)


@method("classification", version=1, name="probe.multitask", assessed=True)
def multitask(
    shape: Shape,
    *,
    network: Annotated[str, Choice(*NETWORKS)] = "mobilenet_v2",
    width: Annotated[int, Choice(4, 8, 16, 32)] = 16,
    c: Annotated[float, Float(1e-5, 1e2, log=True)] = 0.1,
    assessment_weight: Annotated[float, Float(0.01, 10.0, log=True)] = 0.3,
    first: Annotated[bool, Choice(False, True)] = False,
    learns: Learns = "any",
    keep: Keep = "all",
    minimum_quality: Quality = 0.5,
) -> _Multitask:
    """Labels and people's triplets or ratings share a linear layer on frozen features (Argyriou et al., 2008).

    `assessment_weight`: of an assessment against a label. first: the layer learns assessments alone before both.
    """
    believed = Believed(learns, keep, minimum_quality)
    return _Multitask(shape.n_classes, width, c, assessment_weight, first, believed)
