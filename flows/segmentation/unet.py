"""The U-Net, and what was added to it since."""

from typing import Annotated

import torch
from torch import nn

from metamed.flows.segmentation.parts import Block, halved, resized
from metamed.methods import Choice, Int, Shape, method

WIDEST = 256  # channels of a level at the most


class Gate(nn.Module):
    """What of a skip connection passes, decided by the coarser level (Oktay et al., 2018)."""

    def __init__(self, channels: int):
        super().__init__()
        self.skip, self.signal = nn.Conv2d(channels, channels // 2, 1), nn.Conv2d(channels, channels // 2, 1)
        self.share = nn.Conv2d(channels // 2, 1, 1)

    def forward(self, skip: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
        return skip * self.share((self.skip(skip) + self.signal(signal)).relu()).sigmoid()


class Up(nn.Module):
    """A coarse map, narrowed and enlarged, beside the finer one of the way down."""

    def __init__(self, before: int, skip: int, after: int, norm: str = "batch", residual=False, attention=False):
        super().__init__()
        self.narrow = nn.Conv2d(before, after, 1)
        self.gate = Gate(after) if attention else None
        self.block = Block(after + skip, after, norm, residual)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = resized(self.narrow(x), skip)
        return self.block(torch.cat([skip if self.gate is None else self.gate(skip, x), x], dim=1))


class UNet(nn.Module):
    """A way down that halves, a way up that doubles, and a connection at every level."""

    def __init__(self, shape: Shape, width: int, depth: int, norm: str, residual: bool, attention: bool):
        super().__init__()
        widths = [min(width * 2**level, WIDEST) for level in range(depth + 1)]
        self.down = nn.ModuleList(
            Block(before, after, norm, residual)
            for before, after in zip([shape.channels, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            Up(widths[level + 1], widths[level], widths[level], norm, residual, attention) for level in range(depth)
        )
        self.head = nn.Conv2d(width, shape.n_classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = [self.down[0](images)]
        for block in self.down[1:]:
            maps.append(block(halved(maps[-1])))
        x = maps[-1]
        for up, skip in zip(reversed(self.up), reversed(maps[:-1]), strict=True):
            x = up(x, skip)
        return self.head(x)


@method("segmentation", version=1)
def unet(
    shape: Shape,
    *,
    width: Annotated[int, Choice(8, 16, 32, 64)] = 16,
    depth: Annotated[int, Int(1, 5)] = 3,
    norm: Annotated[str, Choice("batch", "instance", "group")] = "batch",
    residual: Annotated[bool, Choice(False, True)] = False,
    attention: Annotated[bool, Choice(False, True)] = False,
) -> nn.Module:
    """U-Net (Ronneberger et al., 2015) with `width` channels at full resolution and `depth` halvings; optionally with
    residual blocks (Zhang et al., 2018) and attention gates on its skip connections (Oktay et al., 2018)."""
    return UNet(shape, width, depth, norm, residual, attention)
