"""What several flows share: encoders by name, and the classifier that puts a linear head on one."""

from __future__ import annotations

import torch
from torch import nn
from torchvision import models

from metamed.errors import UnknownName
from metamed.methods import Shape


class Encoder(nn.Module):
    """Images B x C x H x W -> features B x n_features.

    name tells the architecture: weights fit another encoder exactly if the names are equal.
    stages: its parts in the order of the data, so that recipes can train the last ones only.
    """

    def __init__(self, name: str, net: nn.Module, stages: list[nn.Module], n_features: int):
        super().__init__()
        self.name, self.net, self.n_features = name, net, n_features
        self._stages = stages  # a plain list: the modules are registered below `net` already

    @property
    def stages(self) -> list[nn.Module]:
        return self._stages

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images)


class Classifier(nn.Module):
    """An encoder with dropout and a linear head: images -> logits B x K."""

    def __init__(self, encoder: Encoder, n_classes: int, dropout: float = 0.0):
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.n_features, n_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.encoder(images)))


def _small_cnn(channels: int, width: int, depth: int) -> tuple[nn.Module, list[nn.Module], int]:
    stages, before = [], channels
    for level in range(depth):
        after = width * 2**level
        stages.append(
            nn.Sequential(
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2, ceil_mode=True),
            )
        )
        before = after
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten()), stages, before


def _resnet(channels: int, depth: int) -> tuple[nn.Module, list[nn.Module], int]:
    net = models.get_model(f"resnet{depth}", weights=None)
    n_features, net.fc = net.fc.in_features, nn.Identity()
    if channels != 3:
        net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return net, [nn.ModuleList([net.conv1, net.bn1]), net.layer1, net.layer2, net.layer3, net.layer4], n_features


def _mobilenet_v2(channels: int) -> tuple[nn.Module, list[nn.Module], int]:
    net = models.mobilenet_v2(weights=None)
    n_features, net.classifier = net.last_channel, nn.Identity()
    if channels != 3:
        net.features[0][0] = nn.Conv2d(channels, 32, 3, stride=2, padding=1, bias=False)
    return net, list(net.features), n_features


_ENCODERS = {
    "resnet18": lambda channels: _resnet(channels, 18),
    "resnet50": lambda channels: _resnet(channels, 50),
    "mobilenet_v2": _mobilenet_v2,
}
_ENCODERS |= {
    f"small_cnn_{width}x{depth}": lambda channels, w=width, d=depth: _small_cnn(channels, w, d)
    for width in (16, 32, 64)
    for depth in range(2, 6)
}


def encoder(shape: Shape, name: str) -> Encoder:
    """A fresh encoder for images of `shape`, by the name of its architecture."""
    if name not in _ENCODERS:
        raise UnknownName("network", name, _ENCODERS)
    return Encoder(name, *_ENCODERS[name](shape.channels))
