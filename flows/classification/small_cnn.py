"""A plain convolutional network: the cheapest thing that learns its own features."""

from typing import Annotated

from torch import nn

from metamed.flows.blocks import Classifier, encoder
from metamed.methods import Choice, Float, Int, Shape, method


@method("classification", version=1)
def small_cnn(
    shape: Shape,
    *,
    width: Annotated[int, Choice(16, 32, 64)] = 32,
    depth: Annotated[int, Int(2, 5)] = 3,
    dropout: Annotated[float, Float(0.0, 0.7)] = 0.2,
) -> nn.Module:
    """A stack of 3x3 convolution, batch normalisation, ReLU and pooling; channels double with every level."""
    return Classifier(encoder(shape, f"small_cnn_{width}x{depth}"), shape.n_classes, dropout)
