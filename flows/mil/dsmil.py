"""DSMIL: the critical instance, and all others by how much they resemble it."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from torch import nn

from metamed.flows.mil.bagnet import (
    DROPOUT,
    NETWORK,
    WIDTH,
    BagNet,
    Head,
    Loss,
    highest,
    masked,
    share,
    strongest,
    with_nothing_found,
)
from metamed.methods import Shape, method


class DSMILHead(Head):
    """Two streams, whose logits are averaged: the highest instance logit, and that of a mean of the embeddings weighted
    by their likeness to the instance that has it; for each finding."""

    def __init__(self, n_features: int, width: int, n_classes: int, dropout: float):
        super().__init__(n_features, width, n_classes, dropout)
        self.classify = nn.Linear(width, self.findings)
        self.query = nn.Linear(width, width // 2)
        self.conclude = nn.Linear(width, self.findings)

    def streams(self, z: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits of either stream, B x (K - 1) each."""
        each, query = self.classify(z), self.query(z)
        critical = masked(each, mask, -torch.inf).argmax(dim=1)  # B x (K - 1)
        wanted = query.gather(1, critical.unsqueeze(-1).expand(-1, -1, query.shape[-1]))
        likeness = query @ wanted.transpose(1, 2) / query.shape[-1] ** 0.5
        bags = share(likeness, mask).transpose(1, 2) @ z  # B x (K - 1) x width
        return (bags * self.conclude.weight).sum(dim=-1) + self.conclude.bias, highest(each, mask)

    def judge(self, z: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return sum(self.streams(z, mask)) / 2

    def objective(
        self, features: torch.Tensor, mask: torch.Tensor | None, target: torch.Tensor, loss: Loss
    ) -> torch.Tensor:
        """Both streams have to be right, each for itself."""
        return sum(loss(with_nothing_found(s).float(), target) for s in self.streams(self.embed(features), mask)) / 2

    def scores(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return strongest(self.classify(self.embed(features)))


@method("mil", version=1)
def dsmil(
    shape: Shape,
    *,
    width: Annotated[int, WIDTH] = 128,
    dropout: Annotated[float, DROPOUT] = 0.25,
    network: Annotated[str, NETWORK] = "small_cnn_16x3",
) -> nn.Module:
    """Two streams, one of the critical instance and one of what resembles it (Li, Li & Eliceiri, 2021).

    Instances are scored by the first stream. `network` encodes instances that are images.
    """
    return BagNet(shape, network, partial(DSMILHead, width=width, n_classes=shape.n_classes, dropout=dropout))
