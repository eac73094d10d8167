"""A network that pools embeddings of instances, and judges what it pooled."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from torch import nn

from metamed.flows.mil.bagnet import DROPOUT, NETWORK, POOLING, POOLINGS, WIDTH, BagNet, Head
from metamed.methods import Shape, method


class EmbeddingHead(Head):
    """The mean, maximum or soft maximum of each component of the embeddings, then one linear layer."""

    def __init__(self, n_features: int, width: int, n_classes: int, dropout: float, pooling: str):
        super().__init__(n_features, width, n_classes, dropout)
        self.classify, self.pool = nn.Linear(width, self.findings), POOLINGS[pooling]

    def judge(self, z: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return self.classify(self.pool(z, mask))


@method("mil", version=1)
def embedding_net(
    shape: Shape,
    *,
    width: Annotated[int, WIDTH] = 128,
    dropout: Annotated[float, DROPOUT] = 0.25,
    pooling: Annotated[str, POOLING] = "mean",
    network: Annotated[str, NETWORK] = "small_cnn_16x3",
) -> nn.Module:
    """A network that pools the embeddings of a bag's instances into one and judges that (MI-Net: Wang et al., 2018).

    `network` encodes instances that are images.
    """
    return BagNet(shape, network, partial(EmbeddingHead, width=width, n_classes=shape.n_classes, dropout=dropout,
                                          pooling=pooling))  # fmt: skip
