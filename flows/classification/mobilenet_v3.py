"""MobileNetV3, as torchvision builds it."""

from typing import Annotated

from torch import nn

from metamed.flows.blocks import Classifier, encoder
from metamed.methods import Float, Shape, method


@method("classification", version=1)
def mobilenet_v3_small(shape: Shape, *, dropout: Annotated[float, Float(0.0, 0.7)] = 0.2) -> nn.Module:
    """MobileNetV3-Small: inverted residuals, searched for small devices (Howard et al., 2019)."""
    return Classifier(encoder(shape, "mobilenet_v3_small"), shape.n_classes, dropout)
