"""Densely connected networks, as torchvision builds them."""

from typing import Annotated

from torch import nn

from metamed.flows.blocks import Classifier, encoder
from metamed.methods import Float, Shape, method


@method("classification", version=1)
def densenet121(shape: Shape, *, dropout: Annotated[float, Float(0.0, 0.7)] = 0.0) -> nn.Module:
    """DenseNet-121: every layer of a block sees all before it (Huang et al., 2017). Enlarges images below 32 px."""
    return Classifier(encoder(shape, "densenet121"), shape.n_classes, dropout)
