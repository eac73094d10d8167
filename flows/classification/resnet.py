"""Residual networks, as torchvision builds them."""

from typing import Annotated

from torch import nn

from metamed.flows.blocks import Classifier, encoder
from metamed.methods import Choice, Float, Shape, method


@method("classification", version=1)
def resnet(
    shape: Shape,
    *,
    depth: Annotated[int, Choice(18, 50)] = 18,
    dropout: Annotated[float, Float(0.0, 0.7)] = 0.0,
) -> nn.Module:
    """ResNet with 18 or 50 layers (He et al., 2016)."""
    return Classifier(encoder(shape, f"resnet{depth}"), shape.n_classes, dropout)
