"""Gradual unfreezing: parts of the encoder join the training one by one, the last first."""

from typing import Annotated

import numpy as np
from torch import nn

from metamed.methods import Int, Plan, Shape, method


@method("transfer", version=1)
def gradual(
    net: nn.Module,
    sources: tuple[str, ...],
    shape: Shape,
    *,
    parts: Annotated[int, Int(1, 8)] = 3,
    pace: Annotated[int, Int(1, 20)] = 2,
) -> Plan:
    """The new head learns first, then part after part of the encoder, the last one first (Howard & Ruder, 2018).

    One of the `parts` joins every `pace` epochs; what did not join before training ends stays as the source left it.
    """
    levels = net.encoder.levels
    divided = [part for part in np.array_split(np.arange(len(levels)), parts)[::-1] if len(part)]
    joining = [([p for i in part for p in levels[i]], 1.0, pace * (n + 1)) for n, part in enumerate(divided)]
    return Plan(net, ((list(net.head.parameters()), 1.0, 0), *joining))
