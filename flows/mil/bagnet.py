"""What the networks of bags share: an encoder of instances and a head that makes one answer of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from metamed.flows.blocks import Encoder, encoder
from metamed.flows.networks import NETWORKS
from metamed.methods import Choice, Float, Shape

WIDTH = Choice(32, 64, 128, 256, 512)
DROPOUT = Float(0.0, 0.7)
NETWORK = Choice(*NETWORKS)

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Head(nn.Module):
    """Features of instances B x N x D, mask B x N -> logits B x K.

    Every instance is embedded by one layer; what becomes of the embeddings is the variant. All heads give a logit for
    each finding; that of class 0, nothing found, is zero: of a binary question there is one logit to learn.
    """

    def __init__(self, n_features: int, width: int, n_classes: int, dropout: float):
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(n_features, width), nn.ReLU(), nn.Dropout(dropout))
        self.findings = n_classes - 1

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Logits B x K of the bags."""
        return with_nothing_found(self.judge(self.embed(features), mask))

    def judge(self, z: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Logits of the findings, B x (K - 1), from embeddings B x N x width."""
        raise NotImplementedError

    def scores(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """How much each instance speaks for a finding, B x N: here, the answer to a bag of this instance alone."""
        alone = self.judge(self.embed(features).flatten(0, 1).unsqueeze(1), None)
        return strongest(alone.unflatten(0, features.shape[:2]))

    def objective(
        self, features: torch.Tensor, mask: torch.Tensor | None, target: torch.Tensor, loss: Loss
    ) -> torch.Tensor:
        """What training lowers."""
        return loss(self(features, mask).float(), target)


class BagNet(nn.Module):
    """Instances B x N x D, or B x N x C x H x W through an encoder, and mask B x N -> logits B x K.

    Images are encoded without the padding among them, so that it does not show in batch statistics either.
    """

    def __init__(self, shape: Shape, network: str, head: Callable[[int], Head]):
        super().__init__()
        self.encoder: Encoder | Features = encoder(shape, network) if shape.size else Features(shape.channels)
        self.head = head(self.encoder.n_features)

    def features(self, instances: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Features B x N x D of the instances, zero where padded."""
        if isinstance(self.encoder, Features):
            return instances
        if mask is None:
            return self.encoder(instances.flatten(0, 1)).unflatten(0, instances.shape[:2])
        found = self.encoder(instances[mask])
        return found.new_zeros(*mask.shape, found.shape[-1]).masked_scatter(mask.unsqueeze(-1), found)

    def forward(self, instances: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.head(self.features(instances, mask), mask)

    def scores(self, instances: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """How much each instance speaks for a finding, B x N; meaningless where padded."""
        return self.head.scores(self.features(instances, mask), mask)

    def objective(
        self, instances: torch.Tensor, mask: torch.Tensor | None, target: torch.Tensor, loss: Loss
    ) -> torch.Tensor:
        """What training lowers on bags of class `target` (B,); `loss` compares logits with classes."""
        return self.head.objective(self.features(instances, mask), mask, target, loss)


class Features(nn.Module):
    """The encoder of instances that are features already."""

    def __init__(self, n_features: int):
        super().__init__()
        self.name, self.n_features = "features", n_features


# ---- sets of instances, B x N x ..., with a mask B x N or None


def with_nothing_found(findings: torch.Tensor) -> torch.Tensor:
    """Logits of all classes, of which the first is zero."""
    return F.pad(findings, (1, 0))


def strongest(findings: torch.Tensor) -> torch.Tensor:
    """The highest logit of a finding, ... x (K - 1) -> ..."""
    return findings.amax(dim=-1)


def masked(x: torch.Tensor, mask: torch.Tensor | None, value: float) -> torch.Tensor:
    return x if mask is None else x.masked_fill(~mask.reshape(*mask.shape, *[1] * (x.ndim - 2)), value)


def share(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Softmax over the instances of each bag."""
    return masked(x, mask, -torch.inf).softmax(dim=1)


def mean(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Mean over instances, B x N x D -> B x D."""
    if mask is None:
        return x.mean(dim=1)
    return masked(x, mask, 0).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def highest(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Maximum over instances, B x N x D -> B x D."""
    return masked(x, mask, -torch.inf).amax(dim=1)


def softest(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Logarithm of the mean of exponentials over instances: between mean and maximum (Ramon & De Raedt, 2000)."""
    n = x.new_tensor(x.shape[1]) if mask is None else mask.sum(dim=1, keepdim=True).to(x.dtype)
    return masked(x, mask, -torch.inf).logsumexp(dim=1) - n.log()


POOLINGS = {"mean": mean, "max": highest, "lse": softest}
POOLING = Choice(*POOLINGS)
