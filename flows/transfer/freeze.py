"""Freezing: keep the source's features and train only what comes last."""

from typing import Annotated

from torch import nn

from metamed.methods import Int, Plan, Shape, method


@method("transfer", version=1)
def freeze(
    net: nn.Module,
    sources: tuple[str, ...],
    shape: Shape,
    *,
    unfrozen: Annotated[int, Int(0, 8)] = 0,
) -> Plan:
    """The new head learns, and the last `unfrozen` stages of the encoder; the rest stays as the source left it."""
    last = net.encoder.stages[-unfrozen:] if unfrozen else []
    trained = [p for stage in last for p in stage.parameters()] + list(net.head.parameters())
    return Plan(net, ((trained, 1.0, 0),))
