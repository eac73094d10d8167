"""CLAM: attention that also has to tell the instances apart which it finds most and least important."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import nn

from metamed.flows.mil.attention import AttentionHead
from metamed.flows.mil.bagnet import DROPOUT, NETWORK, WIDTH, BagNet, Loss, masked, with_nothing_found
from metamed.methods import Float, Int, Shape, method


class CLAMHead(AttentionHead):
    """Gated attention, and for each class a classifier of instances, for training alone.

    The `clusters` instances with most attention belong to the bag's class and to no other, those with least to none.
    Of small bags at most half are either, so that no instance is both.
    """

    def __init__(self, n_features: int, width: int, n_classes: int, dropout: float, clusters: int, weight: float):
        super().__init__(n_features, width, n_classes, dropout, gated=True)
        self.tell = nn.Linear(width, n_classes)
        self.clusters, self.weight = clusters, weight

    def objective(
        self, features: torch.Tensor, mask: torch.Tensor | None, target: torch.Tensor, loss: Loss
    ) -> torch.Tensor:
        z = self.embed(features)
        attention = self.attention(z)
        bags = loss(with_nothing_found(self._judge(z, attention, mask)).float(), target)
        return (1 - self.weight) * bags + self.weight * self.clustering(z, attention.squeeze(-1), mask, target)

    def clustering(
        self, z: torch.Tensor, attention: torch.Tensor, mask: torch.Tensor | None, target: torch.Tensor
    ) -> torch.Tensor:
        """Cross-entropy of the classifiers of instances on the instances with most and least attention."""
        k = min(self.clusters, z.shape[1])
        most = masked(attention, mask, -torch.inf).topk(k, dim=1).indices
        least = masked(-attention, mask, -torch.inf).topk(k, dim=1).indices
        sizes = torch.full_like(target, z.shape[1]) if mask is None else mask.sum(dim=1)
        place = torch.arange(k, device=z.device)
        first = place < (sizes // 2).clamp(1, k)[:, None]  # of one instance it is the most important one
        last = place < (sizes // 2)[:, None]
        own = F.one_hot(target, self.tell.out_features).bool()
        losses = [self._loss(z, most, first.unsqueeze(-1).expand(-1, -1, own.shape[1]), own.float())]
        losses.append(self._loss(z, least, last.unsqueeze(-1) & own[:, None], torch.zeros_like(own).float()))
        return sum(losses)

    def _loss(self, z: torch.Tensor, which: torch.Tensor, counts: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Mean over the instances (B x k) and classes that count, of which `truth` (B x K) says whether they belong."""
        chosen = z.gather(1, which.unsqueeze(-1).expand(-1, -1, z.shape[-1]))
        logits = self.tell(chosen).float()
        each = F.binary_cross_entropy_with_logits(logits, truth[:, None].expand_as(logits), reduction="none")
        return (each * counts).sum() / counts.sum().clamp_min(1)


@method("mil", version=1)
def clam(
    shape: Shape,
    *,
    width: Annotated[int, WIDTH] = 128,
    dropout: Annotated[float, DROPOUT] = 0.25,
    clusters: Annotated[int, Int(1, 32)] = 8,
    clustering: Annotated[float, Float(0.0, 0.9)] = 0.3,
    network: Annotated[str, NETWORK] = "small_cnn_16x3",
) -> nn.Module:
    """Gated attention that also learns to tell the `clusters` instances with most and least attention apart (CLAM with
    one attention branch: Lu et al., 2021); `clustering` is the weight of that in the loss.

    Instances are scored by their attention before the softmax. `network` encodes instances that are images.
    """
    head = partial(CLAMHead, width=width, n_classes=shape.n_classes, dropout=dropout, clusters=clusters,
                   weight=clustering)  # fmt: skip
    return BagNet(shape, network, head)
