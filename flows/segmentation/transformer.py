"""A tiny transformer that segments."""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import nn

from metamed.flows.segmentation.parts import normalisation
from metamed.methods import Choice, Int, Shape, method

DETAIL = 16  # maps at full resolution


class PatchSegmenter(nn.Module):
    """A convolution at full resolution, a transformer over patches of it, each patch unfolded to its pixels again."""

    def __init__(self, shape: Shape, width: int, layers: int, patch: int):
        super().__init__()
        self.patch = patch
        self.stem = nn.Sequential(
            nn.Conv2d(shape.channels, DETAIL, 3, padding=1), normalisation("group", DETAIL), nn.ReLU()
        )
        self.embed = nn.Conv2d(DETAIL, width, patch, patch)
        self.layers = nn.ModuleList(_layer(width) for _ in range(layers))
        self.unfold = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, DETAIL * patch**2))
        self.head = nn.Conv2d(2 * DETAIL, shape.n_classes, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        detail = self.stem(F.pad(images, (0, -width % self.patch, 0, -height % self.patch)))
        maps = self.embed(detail)
        tokens = maps.flatten(2).transpose(1, 2) + positions(*maps.shape[-2:], maps.shape[1], maps)
        for layer in self.layers:
            tokens = layer(tokens)
        maps = self.unfold(tokens).transpose(1, 2).unflatten(2, maps.shape[-2:])
        joined = torch.cat([detail, F.pixel_shuffle(maps, self.patch)], dim=1)
        return self.head(joined)[..., :height, :width]


def _layer(width: int) -> nn.Module:
    return nn.TransformerEncoderLayer(width, width // 32, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)


def positions(rows: int, columns: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """Sines and cosines of row and column (Vaswani et al., 2017), (rows x columns, width): any grid has them."""
    rates = torch.exp(torch.arange(width // 4, device=like.device) * (-math.log(1e4) * 4 / width))
    down = torch.arange(rows, device=like.device)[:, None] * rates
    along = torch.arange(columns, device=like.device)[:, None] * rates
    down, along = (torch.cat([angle.sin(), angle.cos()], dim=1) for angle in (down, along))
    grid = torch.cat([down[:, None].expand(-1, columns, -1), along[None].expand(rows, -1, -1)], dim=2)
    return grid.flatten(0, 1).to(like.dtype)


@method("segmentation", version=1)
def segmenter(
    shape: Shape,
    *,
    width: Annotated[int, Choice(64, 128, 192)] = 64,
    layers: Annotated[int, Int(1, 8)] = 3,
    patch: Annotated[int, Choice(4, 8, 16)] = 8,
) -> nn.Module:
    """A small transformer over patches (after Strudel et al., 2021, Segmenter), each unfolded to its pixels (Shi et
    al., 2016) beside a shallow convolution that keeps the detail."""
    return PatchSegmenter(shape, width, layers, patch)
