"""Discriminative learning rates: the deeper in the network, the faster it learns."""

from typing import Annotated

from torch import nn

from metamed.methods import Float, Plan, Shape, method


@method("transfer", version=1)
def discriminative(
    net: nn.Module,
    sources: tuple[str, ...],
    shape: Shape,
    *,
    first_factor: Annotated[float, Float(0.001, 1.0, log=True)] = 0.05,
) -> Plan:
    """All weights learn, the earlier a stage the slower (Howard & Ruder, 2018).

    The first stage learns at `first_factor` times the learning rate of the new head, those between in a geometric row.
    """
    levels = net.encoder.levels
    steps = [(level, first_factor ** (1 - i / len(levels)), 0) for i, level in enumerate(levels)]
    return Plan(net, (*steps, (list(net.head.parameters()), 1.0, 0)))
