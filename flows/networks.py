"""The architectures by name, as torchvision builds them, without their classifiers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models


class Network(NamedTuple):
    """A net images -> features, its stages in the order of the data, and how many features it gives.

    least: side in pixels below which images have to be enlarged, because the net halves them too often.
    """

    net: nn.Module
    stages: list[nn.Module]
    n_features: int
    least: int = 1


def _take(net: nn.Module, channels: int) -> nn.Module:
    """The net with a fresh first convolution where images have other than 3 channels."""
    if channels != 3:
        name, old = next((n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv2d))
        new = nn.Conv2d(channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=old.bias is not None)
        net.set_submodule(name, new)
    return net


def _small_cnn(channels: int, width: int, depth: int) -> Network:
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
    return Network(nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten()), stages, before)


def _resnet(channels: int, depth: int) -> Network:
    net = _take(models.get_model(f"resnet{depth}", weights=None), channels)
    n_features, net.fc = net.fc.in_features, nn.Identity()
    stages = [nn.ModuleList([net.conv1, net.bn1]), net.layer1, net.layer2, net.layer3, net.layer4]
    return Network(net, stages, n_features)


def _densenet121(channels: int) -> Network:
    net = _take(models.densenet121(weights=None), channels)
    n_features, net.classifier = net.classifier.in_features, nn.Identity()
    parts = list(net.features)  # stem of four, then a block and a transition in turn, a norm in the end
    stages = [nn.ModuleList(parts[:4]), *(nn.ModuleList(parts[i : i + 2]) for i in range(4, len(parts), 2))]
    return Network(net, stages, n_features, 32)


def _mobile(channels: int, name: str) -> Network:
    """MobileNets and EfficientNets: a list of inverted residuals; their hidden classifier layers are left out."""
    net = _take(models.get_model(name, weights=None), channels)
    net.classifier = nn.Identity()
    n_features = [m for m in net.features.modules() if isinstance(m, nn.Conv2d)][-1].out_channels
    return Network(net, list(net.features), n_features)


def _convnext_tiny(channels: int) -> Network:
    net = _take(models.convnext_tiny(weights=None), channels)
    n_features, net.classifier[2] = net.classifier[2].in_features, nn.Identity()
    parts = [*net.features, net.classifier]  # stem or halving and blocks in turn, a norm in the end
    return Network(net, [nn.ModuleList(parts[i : i + 2 + (i == 6)]) for i in range(0, 8, 2)], n_features, 32)


class VisionTransformer(models.VisionTransformer):
    """A vision transformer for images of any size (Dosovitskiy et al., 2021).

    Positions are interpolated between those of its own grid of patches; sides that patches do not divide are resized.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        grid = [max(1, round(side / self.patch_size)) for side in images.shape[-2:]]
        wanted = [g * self.patch_size for g in grid]
        if list(images.shape[-2:]) != wanted:
            images = F.interpolate(images, wanted, mode="bilinear", align_corners=False)
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1) + self._positions(grid)
        return self.encoder.ln(self.encoder.layers(self.encoder.dropout(x)))[:, 0]

    def _positions(self, grid: list[int]) -> torch.Tensor:
        own, side = self.encoder.pos_embedding, self.image_size // self.patch_size
        if grid == [side, side]:
            return own
        square = own[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        resized = F.interpolate(square, grid, mode="bicubic", align_corners=False)
        return torch.cat([own[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


def _vit(channels: int, width: int, patch: int) -> Network:
    """12 layers, 64 features a head; 8 x 8 patches at the least of its image sizes, as many as fit at larger ones."""
    net = _take(VisionTransformer(8 * patch, patch, 12, width // 64, width, 4 * width), channels)
    net.heads = nn.Identity()
    layers = list(net.encoder.layers)
    return Network(net, [net.conv_proj, *layers[:-1], nn.ModuleList([layers[-1], net.encoder.ln])], width)


NETWORKS: dict[str, Callable[[int], Network]] = {
    "resnet18": partial(_resnet, depth=18),
    "resnet50": partial(_resnet, depth=50),
    "densenet121": _densenet121,
    "mobilenet_v2": partial(_mobile, name="mobilenet_v2"),
    "mobilenet_v3_small": partial(_mobile, name="mobilenet_v3_small"),
    "mobilenet_v3_large": partial(_mobile, name="mobilenet_v3_large"),
    "efficientnet_b0": partial(_mobile, name="efficientnet_b0"),
    "convnext_tiny": _convnext_tiny,
}
VIT_WIDTHS = {"tiny": 192, "small": 384}
NETWORKS |= {
    f"vit_{variant}_p{patch}": partial(_vit, width=width, patch=patch)
    for variant, width in VIT_WIDTHS.items()
    for patch in (4, 8, 16)
}
NETWORKS |= {
    f"small_cnn_{width}x{depth}": partial(_small_cnn, width=width, depth=depth)
    for width in (16, 32, 64)
    for depth in range(2, 6)
}
