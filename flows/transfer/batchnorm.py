"""Batch normalisation re-estimated: the source's weights with the target's statistics."""

from typing import Annotated

import torch
from torch import nn

from metamed.errors import NotApplicable
from metamed.flows.blocks import Encoder, batch_norms, momentum
from metamed.methods import Choice, Plan, Shape, WarmUp, method


class Reestimate(nn.Module):
    """Replaces an encoder's batch statistics by their mean over all batches that it is given."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder, self.batches = encoder, 0

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> None:
        self.batches += 1
        self.encoder.eval()  # of dropout and the like nothing may show in the statistics
        norms = batch_norms(self.encoder)
        for norm in norms:
            norm.train()
        with momentum(norms, 1 / self.batches):
            self.encoder(images)


@method("transfer", version=1)
def batchnorm(
    net: nn.Module,
    sources: tuple[str, ...],
    shape: Shape,
    *,
    affine: Annotated[bool, Choice(False, True)] = False,
) -> Plan:
    """Batch statistics are taken from the target's unlabelled images (AdaBN: Li et al., 2018), then the head learns.

    If `affine`, scales and shifts of the normalisation learn too; the rest stays as the source left it.
    """
    norms = batch_norms(net.encoder)
    if not norms:
        raise NotApplicable(f"{net.encoder.name} has no batch normalisation to re-estimate. Use recipe freeze")
    scales = [p for norm in norms for p in norm.parameters()] if affine else []
    return Plan(net, ((scales + list(net.head.parameters()), 1.0, 0),), WarmUp(Reestimate(net.encoder)))
