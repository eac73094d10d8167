"""Deep Sets: embeddings are added up, and the sum is judged by a network of its own."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from torch import nn

from metamed.flows.mil.bagnet import DROPOUT, NETWORK, WIDTH, BagNet, Head, masked, mean
from metamed.methods import Choice, Shape, method


class DeepSetsHead(Head):
    """Two layers for each instance, their sum or mean over the bag, two layers for the bag."""

    def __init__(self, n_features: int, width: int, n_classes: int, dropout: float, pooling: str):
        super().__init__(n_features, width, n_classes, dropout)
        self.again = nn.Linear(width, width)
        self.conclude = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, self.findings))
        self.sum = pooling == "sum"

    def judge(self, z: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        z = self.again(z).relu()
        return self.conclude(masked(z, mask, 0).sum(dim=1) if self.sum else mean(z, mask))


@method("mil", version=1)
def deep_sets(
    shape: Shape,
    *,
    width: Annotated[int, WIDTH] = 128,
    dropout: Annotated[float, DROPOUT] = 0.25,
    pooling: Annotated[str, Choice("sum", "mean")] = "sum",
    network: Annotated[str, NETWORK] = "small_cnn_16x3",
) -> nn.Module:
    """A network on the sum (or mean) of what another network makes of the instances (Zaheer et al., 2017).

    A sum also tells how many instances there are. `network` encodes instances that are images.
    """
    return BagNet(shape, network, partial(DeepSetsHead, width=width, n_classes=shape.n_classes, dropout=dropout,
                                          pooling=pooling))  # fmt: skip
