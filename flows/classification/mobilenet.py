"""MobileNet, as torchvision builds it."""

from typing import Annotated

from torch import nn

from metamed.flows.blocks import Classifier, encoder
from metamed.methods import Float, Shape, method


@method("classification", version=1)
def mobilenet(shape: Shape, *, dropout: Annotated[float, Float(0.0, 0.7)] = 0.2) -> nn.Module:
    """MobileNetV2: inverted residuals with depthwise convolutions (Sandler et al., 2018)."""
    return Classifier(encoder(shape, "mobilenet_v2"), shape.n_classes, dropout)
