"""What segmenters share: blocks of convolutions, resizing, and seeing with an encoder of `flows.networks`."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from metamed.flows.blocks import Encoder, encoder
from metamed.flows.networks import NETWORKS
from metamed.methods import Shape

ENCODERS = tuple(name for name in NETWORKS if not name.startswith("vit"))
DILATED = tuple(name for name in ENCODERS if name.startswith(("mobilenet", "efficientnet", "resnet")))


def normalisation(kind: str, channels: int) -> nn.Module:
    """batch, instance or group: of the whole batch, of each channel, of channels in groups of eight."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(channels if kind == "instance" else math.gcd(channels, max(1, channels // 8)), channels)


class Block(nn.Module):
    """Two 3x3 convolutions with normalisation and ReLU; `residual` adds what came in."""

    def __init__(self, before: int, after: int, norm: str = "batch", residual: bool = False):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            normalisation(norm, after),
            nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            normalisation(norm, after),
        )
        self.shortcut = nn.Conv2d(before, after, 1, bias=False) if residual else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layers(x)
        return F.relu(y if self.shortcut is None else y + self.shortcut(x))


def resized(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """x, bilinearly, at the height and width of another map."""
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


def halved(x: torch.Tensor) -> torch.Tensor:
    """The maxima of 2x2 pixels; odd sizes are rounded up, so that tiny images can be halved any number of times."""
    return F.max_pool2d(x, 2, ceil_mode=True)


class Dense(nn.Module):
    """An encoder, and a head from its feature maps to logits, which are brought to the images' size.

    It has the `encoder` and the `head` that recipes ask for, so every source and every recipe fits.
    """

    def __init__(self, encoder: Encoder, head: nn.Module):
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return resized(self.head(pyramid(self.encoder, images)), images)


def pyramid(encoder: Encoder, images: torch.Tensor) -> list[torch.Tensor]:
    """The images, then an encoder's last feature map of every resolution, fine to coarse."""
    levels, x = [], images
    for step in _steps(encoder):
        if _strided(step):
            levels.append(x)
        x = step(x)
    return [*levels, x]


def _strided(step: nn.Module) -> list[nn.Module]:
    """What in a part of an encoder makes maps smaller."""
    kinds = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d
    return [m for m in step.modules() if isinstance(m, kinds) and m.stride not in (1, (1, 1))]


def _steps(encoder: Encoder) -> list[nn.Module]:
    """The parts of an encoder in the order of the data, without its last widening: it serves classification."""
    net = encoder.net
    if encoder.name.startswith("small_cnn"):
        return [layer for stage in encoder.stages for layer in stage]
    if encoder.name.startswith("resnet"):
        return [net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3, net.layer4]
    parts = list(net.features)
    return parts[:-1] if encoder.name.startswith(("mobilenet", "efficientnet")) else parts


def channels_of(encoder: Encoder, channels: int) -> list[int]:
    """Channels of every map that `pyramid` gives."""
    training = encoder.training
    with torch.no_grad():
        maps = pyramid(encoder.eval(), torch.zeros(1, channels, 64, 64))
    encoder.train(training)
    return [level.shape[1] for level in maps]


def seeing(shape: Shape, network: str, stride: int | None = None) -> tuple[Encoder, list[int]]:
    """A fresh encoder and the channels of its pyramid; it shrinks images at most `stride` times (None: as it was)."""
    found = encoder(shape, network)
    if stride:
        _dilate(found, stride)
    return found, channels_of(found, shape.channels)


def _dilate(encoder: Encoder, most: int) -> None:
    """Let convolutions spread instead of stride once images have shrunk `most` times; weights stay what they were."""
    shrunk = rate = 1
    for step in _steps(encoder):
        strided = _strided(step)
        if strided and shrunk * 2 > most:
            rate *= 2
            for layer in strided:
                layer.stride = (1, 1)
        elif strided:
            shrunk *= 2
        for layer in step.modules():
            if rate > 1 and isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1):
                layer.dilation = (rate, rate)
                layer.padding = tuple(rate * (k - 1) // 2 for k in layer.kernel_size)
