"""Joint learning: the experts' labels and what everybody said of the images, by one encoder."""

from typing import Annotated

from torch import nn

from metamed.flows.blocks import assessed
from metamed.methods import Believed, Float, Keep, Learns, Plan, Quality, Shape, method


@method("transfer", version=1, assessed=True)
def joint(
    net: nn.Module,
    sources: tuple[str, ...],
    shape: Shape,
    *,
    learns: Learns = "any",
    keep: Keep = "all",
    minimum_quality: Quality = 0.5,
    assessment_weight: Annotated[float, Float(0.01, 10.0, log=True)] = 0.3,
    encoder_factor: Annotated[float, Float(0.01, 1.0, log=True)] = 1.0,
) -> Plan:
    """All weights learn labels and, by heads of their own, triplets or ratings of the same images (Caruana, 1997).

    In every step as many assessed images are drawn as labelled ones; their loss counts `assessment_weight` times.
    Ratings are auxiliary tasks: one estimate for each attribute. Starts from a source's weights, or from scratch.
    """
    said = assessed(net, Believed(learns, keep, minimum_quality), weight=assessment_weight)
    groups = (list(net.encoder.parameters()), encoder_factor, 0), (list(net.head.parameters()), 1.0, 0)
    return Plan(net, groups, assessed=said)
