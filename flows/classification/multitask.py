"""Labels and assessments as tasks that share one linear layer on frozen features."""

from __future__ import annotations

from collections.abc import Callable
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

_STEPS = 60  # iterations of L-BFGS at the most: further ones change the AUC of held-out images by less than 0.001


class _Multitask:
    """features -> `width` shared values -> a logit for each class, an estimate for each attribute.

    fit as of every probe; assessed(x, said) before: features of the images that were judged, and the judgements.
    """

    def __init__(self, n_classes: int, width: int, c: float, weight: float, first: bool, believed: Believed):
        self.n_classes, self.width, self.c, self.weight, self.first = n_classes, width, c, weight, first
        self.believed, self.said = believed, None

    def assessed(self, x: np.ndarray, said: Judged) -> None:
        self._look(x)
        self.said, self.seen = said, self._scaled(x)
        if self.first:
            own, loss = self._assessments()
            self._descend([self.shared, *own], loss)

    def _look(self, x: np.ndarray) -> None:
        """Scale and a fresh layer for features like these."""
        self.mean, self.scale = x.mean(axis=0), np.sqrt(x.var(axis=0).mean()) or 1.0
        self.shared = nn.Linear(x.shape[1], self.width, bias=False)

    def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> _Multitask:
        ready = self.first and self.said is not None
        if self.said is None:
            self._look(x)
        elif not ready:
            self.shared.reset_parameters()
        self.multi_label = np.ndim(y) == 2
        self.head = nn.Linear(self.width, self.n_classes)
        labels = self._labels(self._scaled(x), torch.from_numpy(np.asarray(y)))
        if ready:
            self._descend([self.head], labels)
        else:
            own, said = self._assessments() if self.said is not None else ([], lambda: 0.0)
            self._descend([self.shared, self.head, *own], lambda: labels() + self.weight * said())
        return self

    def _scaled(self, x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(((x - self.mean) / self.scale).astype(np.float32))

    def _labels(self, u: torch.Tensor, y: torch.Tensor) -> Callable[[], torch.Tensor]:
        """The summed loss on labels, as a function of the layers as they are."""
        loss = F.binary_cross_entropy_with_logits if y.ndim == 2 else F.cross_entropy
        goal = y.float() if y.ndim == 2 else y.long()
        return lambda: loss(self.head(self.shared(u)), goal, reduction="sum")

    def _assessments(self) -> tuple[list[nn.Linear], Callable[[], torch.Tensor]]:
        """(layers that assessments alone have, their summed loss)."""
        said, weights = self.said, torch.from_numpy(self.said.weights.astype(np.float32))
        if said.triplets is not None:
            rows = torch.from_numpy(said.triplets.T)
            return [], lambda: len(said) * triplet_loss(*self.shared(self.seen)[rows], weights)
        rate = nn.Linear(self.width, len(said.attributes))
        goals = torch.from_numpy(np.nan_to_num(said.scores).astype(np.float32))
        return [rate], lambda: (weights * (rate(self.shared(self.seen)) - goals) ** 2).sum()

    def _descend(self, layers: list[nn.Linear], loss: Callable[[], torch.Tensor]) -> None:
        """Least ½ of all squared weights plus `c` times the loss: on the product of two layers, a trace norm."""
        optimiser = torch.optim.LBFGS([p for layer in layers for p in layer.parameters()], max_iter=_STEPS,
                                      line_search_fn="strong_wolfe")  # fmt: skip

        def value() -> torch.Tensor:
            optimiser.zero_grad()
            total = 0.5 * sum((layer.weight**2).sum() for layer in layers) + self.c * loss()
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

    `assessment_weight`: of an assessment against a label. first: the layer
    learns assessments alone, and then stays as it is.
    """
    believed = Believed(learns, keep, minimum_quality)
    return _Multitask(shape.n_classes, width, c, assessment_weight, first, believed)
