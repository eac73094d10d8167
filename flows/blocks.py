"""What several flows share: encoders by name, and the classifier that puts a linear head on one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from metamed.errors import UnknownName
from metamed.flows.networks import NETWORKS, Network
from metamed.methods import Assessed, Believed, Shape

EMBEDDED = 32  # dimensions in which triplets are compared while labels are learned


class Encoder(nn.Module):
    """Images B x C x H x W -> features B x n_features.

    name tells the architecture: weights fit another encoder exactly if the names are equal.
    stages: its parts in the order of the data, so that recipes can train the last ones only.
    """

    def __init__(self, name: str, network: Network):
        super().__init__()
        self.name, self.net, self.n_features, self.least = name, network.net, network.n_features, network.least
        self._stages = network.stages  # a plain list: the modules are registered below `net` already

    @property
    def stages(self) -> list[nn.Module]:
        return self._stages

    @property
    def levels(self) -> list[list[nn.Parameter]]:
        """All parameters by stage; what belongs to none (tokens, positions) is with the first."""
        levels = [list(stage.parameters()) for stage in self.stages]
        staged = {id(p) for level in levels for p in level}
        return [levels[0] + [p for p in self.parameters() if id(p) not in staged], *levels[1:]]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        if min(height, width) < self.least:
            scale = self.least / min(height, width)
            size = round(height * scale), round(width * scale)
            images = F.interpolate(images, size, mode="bilinear", align_corners=False)
        return self.net(images)


class Classifier(nn.Module):
    """An encoder with dropout and a linear head: images -> logits B x K."""

    def __init__(self, encoder: Encoder, n_classes: int, dropout: float = 0.0):
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.n_features, n_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.encoder(images)))


def encoder(shape: Shape, name: str) -> Encoder:
    """A fresh encoder for images of `shape`, by the name of its architecture."""
    if name not in NETWORKS:
        raise UnknownName("network", name, NETWORKS)
    return Encoder(name, NETWORKS[name](shape.channels))


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """Its batch normalisations, in order."""
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@contextmanager
def momentum(norms: list[nn.Module], value: float) -> Iterator[None]:
    """Let batch normalisations weigh the next batches by `value` in their statistics: 0 not at all, 1 nothing else."""
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = value
    try:
        yield
    finally:
        for norm, old in zip(norms, before, strict=True):
            norm.momentum = old


def assessed(net: Classifier, believed: Believed, **how) -> Assessed:
    """What people said, learned by heads of its own on a classifier's encoder. how: further fields of `Assessed`."""

    def head(n_outputs: int) -> Classifier:
        return Classifier(net.encoder, n_outputs, net.dropout.p)

    return Assessed(head(EMBEDDED), head, believed, **how)
