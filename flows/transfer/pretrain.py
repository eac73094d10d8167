"""Pre-training on assessments: what people said of the images is learned first, then the labels."""

from typing import Annotated

from torch import nn

from metamed.flows.blocks import assessed
from metamed.methods import Believed, Float, Int, Keep, Learns, Plan, Quality, Shape, method


@method("transfer", version=1, assessed=True)
def pretrain(
    net: nn.Module,
    sources: tuple[str, ...],
    shape: Shape,
    *,
    learns: Learns = "any",
    keep: Keep = "all",
    minimum_quality: Quality = 0.5,
    pretrain_epochs: Annotated[int, Int(1, 100)] = 10,
    encoder_factor: Annotated[float, Float(0.01, 1.0, log=True)] = 1.0,
) -> Plan:
    """The network learns people's triplets or ratings for `pretrain_epochs`, then the labels with a new head.

    Starts from a source's weights, or from scratch without one. keep: which answers count (`metamed.methods.Believed`).
    """
    said = assessed(net, Believed(learns, keep, minimum_quality), epochs=pretrain_epochs)
    groups = (list(net.encoder.parameters()), encoder_factor, 0), (list(net.head.parameters()), 1.0, 0)
    return Plan(net, groups, assessed=said)
