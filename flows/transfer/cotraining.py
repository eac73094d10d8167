"""Co-training: target and source are learned together by one encoder with two heads."""

from typing import Annotated

import torch
from torch import nn

from metamed.flows.blocks import Classifier, batch_norms, momentum
from metamed.methods import Float, Partner, Plan, Shape, method


class Beside(Classifier):
    """The partner's network; its images leave the batch statistics to the target's."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with momentum(batch_norms(self.encoder), 0.0):
            return super().forward(images)


@method("transfer", version=1, partner=True)
def cotraining(
    net: nn.Module,
    sources: tuple[str, ...],
    shape: Shape,
    *,
    partner_weight: Annotated[float, Float(0.01, 10.0, log=True)] = 0.3,
    encoder_factor: Annotated[float, Float(0.01, 1.0, log=True)] = 1.0,
) -> Plan:
    """All weights learn while the source's images are learned too, by a head of their own (multi-task: Caruana, 1997).

    The loss on the source's images counts `partner_weight` times.
    """
    partner = Partner(sources[0], lambda n_classes: Beside(net.encoder, n_classes, net.dropout.p), partner_weight)
    groups = (list(net.encoder.parameters()), encoder_factor, 0), (list(net.head.parameters()), 1.0, 0)
    return Plan(net, groups, partner=partner)
