"""Source ensemble: one network from every source, combined."""

from typing import Annotated

from torch import nn

from metamed.methods import Choice, Float, Plan, Shape, method


@method("transfer", version=1, several=True)
def ensemble(
    net: nn.Module,
    sources: tuple[str, ...],
    shape: Shape,
    *,
    combine: Annotated[str, Choice("weighted", "mean", "greedy", "soup")] = "weighted",
    encoder_factor: Annotated[float, Float(0.01, 1.0, log=True)] = 1.0,
) -> Plan:
    """One network is fine-tuned from every source; what they say is combined by weights chosen on the validation part.

    weighted: by score beyond chance; greedy: drawn one by one (Caruana et al., 2004); soup: not the probabilities but
    the weights are averaged, of those networks that do not lower the score (Wortsman et al., 2022).
    """
    return Plan(net, ((list(net.encoder.parameters()), encoder_factor, 0), (list(net.head.parameters()), 1.0, 0)))
