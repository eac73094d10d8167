"""Fine-tuning: start from the source's weights and train everything."""

from typing import Annotated

from torch import nn

from metamed.methods import Float, Plan, Shape, method


@method("transfer", version=1)
def finetune(
    net: nn.Module,
    sources: tuple[str, ...],
    shape: Shape,
    *,
    encoder_factor: Annotated[float, Float(0.01, 1.0, log=True)] = 1.0,
) -> Plan:
    """All weights learn, the encoder's at `encoder_factor` times the learning rate of the new head."""
    return Plan(net, ((list(net.encoder.parameters()), encoder_factor, 0), (list(net.head.parameters()), 1.0, 0)))
