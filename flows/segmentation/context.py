"""Networks that classify coarse maps and enlarge the answer: FCN, DeepLabV3, LR-ASPP, with torchvision's heads."""

from typing import Annotated

import torch
from torch import nn
from torchvision.models.segmentation.deeplabv3 import ASPP
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.models.segmentation.lraspp import LRASPPHead

from metamed.flows.segmentation.parts import DILATED, Dense, seeing
from metamed.methods import Choice, Shape, method


class _Coarsest(nn.Module):
    """A head on the last map alone."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.head = head

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return self.head(maps[-1])


class _LowAndHigh(nn.Module):
    """A head on two maps: the third of the pyramid (a quarter of the size) for detail, the last one for context."""

    def __init__(self, head: LRASPPHead):
        super().__init__()
        self.head = head

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return self.head({"low": maps[2], "high": maps[-1]})


@method("segmentation", version=1)
def fcn(
    shape: Shape,
    *,
    network: Annotated[str, Choice(*DILATED)] = "mobilenet_v2",
    output_stride: Annotated[int, Choice(8, 16, 32)] = 8,
) -> nn.Module:
    """Fully convolutional network (Long et al., 2015): two convolutions on the last map, enlarged. `output_stride`:
    how often the last map is smaller than the image; below 32, convolutions are dilated instead of strided."""
    encoder, channels = seeing(shape, network, output_stride)
    return Dense(encoder, _Coarsest(FCNHead(channels[-1], shape.n_classes)))


@method("segmentation", version=1)
def deeplabv3(
    shape: Shape,
    *,
    network: Annotated[str, Choice(*DILATED)] = "mobilenet_v2",
    output_stride: Annotated[int, Choice(8, 16, 32)] = 8,
    rate: Annotated[int, Choice(1, 2, 4, 6, 12)] = 2,
    aspp_width: Annotated[int, Choice(64, 128, 256)] = 64,
) -> nn.Module:
    """DeepLabV3 (Chen et al., 2017): atrous spatial pyramid pooling with rates `rate` times 1, 2, 3 on a dilated
    network; the default rate suits images of 64 pixels, the paper's 6 those of 500."""
    encoder, channels = seeing(shape, network, output_stride)
    head = nn.Sequential(
        ASPP(channels[-1], [rate, 2 * rate, 3 * rate], aspp_width),
        nn.Conv2d(aspp_width, aspp_width, 3, padding=1, bias=False),
        nn.BatchNorm2d(aspp_width),
        nn.ReLU(inplace=True),
        nn.Conv2d(aspp_width, shape.n_classes, 1),
    )
    return Dense(encoder, _Coarsest(head))


@method("segmentation", version=1)
def lraspp(
    shape: Shape,
    *,
    network: Annotated[str, Choice(*DILATED)] = "mobilenet_v2",
    output_stride: Annotated[int, Choice(8, 16, 32)] = 16,
    inner: Annotated[int, Choice(64, 128)] = 128,
) -> nn.Module:
    """Lite R-ASPP (Howard et al., 2019): one convolution, gated by the mean of the image, and a fine map beside it:
    the cheapest of the torchvision segmenters."""
    encoder, channels = seeing(shape, network, output_stride)
    return Dense(encoder, _LowAndHigh(LRASPPHead(channels[2], channels[-1], shape.n_classes, inner)))
