"""A network that judges instances, and pools what it says of them."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from torch import nn

from metamed.flows.mil.bagnet import DROPOUT, NETWORK, POOLING, POOLINGS, WIDTH, BagNet, Head, strongest
from metamed.methods import Shape, method


class InstanceHead(Head):
    """A logit for each instance; the bag's is their mean, maximum or soft maximum."""

    def __init__(self, n_features: int, width: int, n_classes: int, dropout: float, pooling: str):
        super().__init__(n_features, width, n_classes, dropout)
        self.classify, self.pool = nn.Linear(width, self.findings), POOLINGS[pooling]

    def judge(self, z: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return self.pool(self.classify(z), mask)

    def scores(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return strongest(self.classify(self.embed(features)))


@method("mil", version=1)
def instance_net(
    shape: Shape,
    *,
    width: Annotated[int, WIDTH] = 128,
    dropout: Annotated[float, DROPOUT] = 0.25,
    pooling: Annotated[str, POOLING] = "max",
    network: Annotated[str, NETWORK] = "small_cnn_16x3",
) -> nn.Module:
    """A network that judges each instance; the bag's logit is pooled over theirs (mi-Net: Wang et al., 2018).

    pooling `max`: one instance is enough for a finding; `mean`: all have a say; `lse`: between the two. `network`
    encodes instances that are images.
    """
    return BagNet(shape, network, partial(InstanceHead, width=width, n_classes=shape.n_classes, dropout=dropout,
                                          pooling=pooling))  # fmt: skip
