"""EfficientNet, as torchvision builds it."""

from typing import Annotated

from torch import nn

from metamed.flows.blocks import Classifier, encoder
from metamed.methods import Float, Shape, method


@method("classification", version=1)
def efficientnet_b0(shape: Shape, *, dropout: Annotated[float, Float(0.0, 0.7)] = 0.2) -> nn.Module:
    """EfficientNet-B0: inverted residuals with squeeze and excitation, scaled together (Tan & Le, 2019)."""
    return Classifier(encoder(shape, "efficientnet_b0"), shape.n_classes, dropout)
