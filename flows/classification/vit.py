"""Vision transformers: torchvision's class in sizes that a few hundred images can train."""

from typing import Annotated

from torch import nn

from metamed.flows.blocks import Classifier, encoder
from metamed.flows.networks import VIT_WIDTHS
from metamed.methods import Choice, Float, Shape, method


@method("classification", version=1)
def vit(
    shape: Shape,
    *,
    variant: Annotated[str, Choice(*VIT_WIDTHS)] = "tiny",
    dropout: Annotated[float, Float(0.0, 0.7)] = 0.0,
) -> nn.Module:
    """ViT-Tiny or -Small (Dosovitskiy et al., 2021; sizes of Touvron et al., 2021) on patches of 4, 8 or 16 pixels.

    Patches grow with the images: 4 px below 48 px a side, 8 below 128, else 16.
    """
    patch = 4 if min(shape.size) < 48 else 8 if min(shape.size) < 128 else 16
    return Classifier(encoder(shape, f"vit_{variant}_p{patch}"), shape.n_classes, dropout)
