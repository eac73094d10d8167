"""A U-Net that sees with a network made for classification, whose weights may come from any source."""

from typing import Annotated

import torch
from torch import nn

from metamed.flows.segmentation.parts import ENCODERS, Dense, seeing
from metamed.flows.segmentation.unet import Up
from metamed.methods import Choice, Shape, method


class Decoder(nn.Module):
    """The way up of a U-Net over an encoder's maps, the image itself being the finest of them."""

    def __init__(self, channels: list[int], n_classes: int, width: int, norm: str):
        super().__init__()
        finer = range(len(channels) - 1)
        widths = [width * 2 ** min(level, 3) for level in finer]
        self.up = nn.ModuleList(
            Up(before, channels[level], widths[level], norm)
            for level, before in zip(finer, [*widths[1:], channels[-1]], strict=True)
        )
        self.classify = nn.Conv2d(width, n_classes, 1)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        x = maps[-1]
        for up, skip in zip(reversed(self.up), reversed(maps[:-1]), strict=True):
            x = up(x, skip)
        return self.classify(x)


@method("segmentation", version=1)
def unet_encoder(
    shape: Shape,
    *,
    network: Annotated[str, Choice(*ENCODERS)] = "mobilenet_v2",
    decoder_width: Annotated[int, Choice(8, 16, 32)] = 16,
    norm: Annotated[str, Choice("batch", "instance", "group")] = "batch",
) -> nn.Module:
    """U-Net with a classification network as its way down (Iglovikov & Shvets, 2018), for recipes that bring weights:
    `freeze` trains the way up alone, `finetune` all."""
    encoder, channels = seeing(shape, network)
    return Dense(encoder, Decoder(channels, shape.n_classes, decoder_width, norm))
