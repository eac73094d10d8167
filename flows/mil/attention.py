"""Attention: the network learns how much each instance counts."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from torch import nn

from metamed.flows.mil.bagnet import DROPOUT, NETWORK, WIDTH, BagNet, Head, share
from metamed.methods import Choice, Shape, method


class Attention(nn.Module):
    """Embeddings B x N x width -> how much each counts before the softmax, B x N x 1."""

    def __init__(self, width: int, hidden: int, gated: bool):
        super().__init__()
        self.look = nn.Linear(width, hidden)
        self.gate = nn.Linear(width, hidden) if gated else None
        self.weigh = nn.Linear(hidden, 1, bias=False)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        seen = self.look(z).tanh()
        return self.weigh(seen if self.gate is None else seen * self.gate(z).sigmoid())


class AttentionHead(Head):
    """The mean of the embeddings, weighted by attention, then one linear layer."""

    def __init__(self, n_features: int, width: int, n_classes: int, dropout: float, gated: bool):
        super().__init__(n_features, width, n_classes, dropout)
        self.attention, self.classify = Attention(width, width // 2, gated), nn.Linear(width, self.findings)

    def judge(self, z: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return self._judge(z, self.attention(z), mask)

    def _judge(self, z: torch.Tensor, attention: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        weights = share(attention, mask)
        return self.classify(torch.bmm(weights.transpose(1, 2), z).squeeze(1))

    def scores(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.attention(self.embed(features)).squeeze(-1)


@method("mil", version=1)
def attention(
    shape: Shape,
    *,
    width: Annotated[int, WIDTH] = 128,
    dropout: Annotated[float, DROPOUT] = 0.25,
    gated: Annotated[bool, Choice(False, True)] = False,
    network: Annotated[str, NETWORK] = "small_cnn_16x3",
) -> nn.Module:
    """Attention-weighted mean of instance embeddings (Ilse et al., 2018), `gated` or plain.

    Instances are scored by their attention before the softmax: what the bag's class hangs on, whichever class that is.
    `network` encodes instances that are images.
    """
    return BagNet(shape, network, partial(AttentionHead, width=width, n_classes=shape.n_classes, dropout=dropout,
                                          gated=gated))  # fmt: skip
