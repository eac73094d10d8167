"""U-Net++: a U-Net whose skip connections are dense."""

from typing import Annotated

import torch
from torch import nn

from metamed.flows.segmentation.parts import Block, halved, resized
from metamed.methods import Choice, Int, Shape, method


class UNetPlusPlus(nn.Module):
    """Node (level, step) sees all earlier nodes of its level and the enlarged node below it."""

    def __init__(self, shape: Shape, width: int, depth: int, norm: str):
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            Block(before, after, norm) for before, after in zip([shape.channels, *widths], widths, strict=False)
        )
        self.narrow = nn.ModuleList(nn.Conv2d(widths[level + 1], widths[level], 1) for level in range(depth))
        self.nodes = nn.ModuleList(
            nn.ModuleList(Block((step + 2) * widths[level], widths[level], norm) for step in range(depth - level))
            for level in range(depth)
        )
        self.head = nn.Conv2d(width, shape.n_classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = [[self.down[0](images)]]
        for block in self.down[1:]:
            rows.append([block(halved(rows[-1][0]))])
        for step in range(1, len(rows)):
            for level in range(len(rows) - step):
                below = resized(self.narrow[level](rows[level + 1][step - 1]), rows[level][0])
                rows[level].append(self.nodes[level][step - 1](torch.cat([*rows[level], below], dim=1)))
        return self.head(rows[0][-1])


@method("segmentation", version=1)
def unetplusplus(
    shape: Shape,
    *,
    width: Annotated[int, Choice(8, 16, 32)] = 16,
    depth: Annotated[int, Int(1, 4)] = 3,
    norm: Annotated[str, Choice("batch", "instance", "group")] = "batch",
) -> nn.Module:
    """U-Net++ (Zhou et al., 2018): nested, dense skip connections, without deep supervision."""
    return UNetPlusPlus(shape, width, depth, norm)
