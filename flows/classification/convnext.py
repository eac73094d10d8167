"""ConvNeXt, as torchvision builds it."""

from typing import Annotated

from torch import nn

from metamed.flows.blocks import Classifier, encoder
from metamed.methods import Float, Shape, method


@method("classification", version=1)
def convnext_tiny(shape: Shape, *, dropout: Annotated[float, Float(0.0, 0.7)] = 0.0) -> nn.Module:
    """ConvNeXt-Tiny: convolutions arranged as a transformer (Liu et al., 2022). Enlarges images below 32 px."""
    return Classifier(encoder(shape, "convnext_tiny"), shape.n_classes, dropout)
