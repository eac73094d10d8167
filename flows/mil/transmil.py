"""TransMIL: instances look at one another before the bag is judged."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import ceil, isqrt
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import nn

from metamed.flows.mil.bagnet import DROPOUT, NETWORK, WIDTH, BagNet, Head
from metamed.methods import Choice, Shape, method

ITERATIONS = 6  # of the pseudo-inverse, as published
EXACT = 8  # sequences of up to so many times the landmarks attend exactly, which is also faster


class Landmarks(nn.Module):
    """Self-attention between the members of a sequence, B x L x width -> the same.

    Long sequences attend through the means of stretches of themselves (Nystroem attention: Xiong et al., 2021): what it
    costs grows with their length, not with its square.
    """

    def __init__(self, width: int, heads: int, landmarks: int):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.heads, self.landmarks, self.scale = heads, landmarks, (width // heads) ** -0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] <= EXACT * self.landmarks:
            q, k, v = self._parts(x)
            out = F.scaled_dot_product_attention(q * self.scale, k, v, scale=1.0)
        else:
            outer, inverse, inner, v = self._factors(x)
            out = (outer @ inverse) @ (inner @ v)
        return out.transpose(1, 2).flatten(2)[:, -x.shape[1] :]

    def row(self, x: torch.Tensor) -> torch.Tensor:
        """How much the first of a sequence attends to each, mean over heads, B x L."""
        if x.shape[1] <= EXACT * self.landmarks:
            q, k, _ = self._parts(x)
            return (q[:, :, :1] * self.scale @ k.transpose(2, 3)).softmax(dim=-1).mean(dim=1)[:, 0]
        outer, inverse, inner, _ = self._factors(x)
        first = outer[:, :, -x.shape[1]].unsqueeze(2)
        return (first @ inverse @ inner).mean(dim=1)[:, 0, -x.shape[1] :]

    def _parts(self, x: torch.Tensor) -> torch.Tensor:
        """Queries, keys and values, 3 x B x heads x L x (width / heads)."""
        return self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def _factors(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The three factors of the attention matrix, and the values; zeros are set before a sequence until its
        stretches are equally long."""
        stretch = ceil(x.shape[1] / self.landmarks)
        q, k, v = self._parts(F.pad(x, (0, 0, -x.shape[1] % self.landmarks, 0)))
        q = q * self.scale
        q_marks, k_marks = (t.unflatten(2, (-1, stretch)).mean(dim=3) for t in (q, k))
        outer = (q @ k_marks.transpose(2, 3)).softmax(dim=-1)
        between = (q_marks @ k_marks.transpose(2, 3)).softmax(dim=-1)
        return outer, _inverse(between), (q_marks @ k.transpose(2, 3)).softmax(dim=-1), v


def _inverse(x: torch.Tensor) -> torch.Tensor:
    """The pseudo-inverse of square matrices B x heads x m x m by an iteration of third order (Razavi et al., 2014)."""
    size = x.abs().sum(dim=-1).amax(dim=(1, 2)) * x.abs().sum(dim=-2).amax(dim=(1, 2))
    z = x.transpose(2, 3) / size[:, None, None, None]
    one = torch.eye(x.shape[-1], device=x.device, dtype=x.dtype)
    for _ in range(ITERATIONS):
        xz = x @ z
        z = 0.25 * z @ (13 * one - xz @ (15 * one - xz @ (7 * one - xz)))
    return z


class Layer(nn.Module):
    """Attention on what is normalised, added to what was there."""

    def __init__(self, width: int, heads: int, landmarks: int):
        super().__init__()
        self.norm, self.attend = nn.LayerNorm(width), Landmarks(width, heads, landmarks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.attend(self.norm(x))


class Positions(nn.Module):
    """Instances on a square, row by row, convolved at three scales (PPEG). B x side² x width -> the same."""

    def __init__(self, width: int):
        super().__init__()
        self.convolve = nn.ModuleList(nn.Conv2d(width, width, k, padding=k // 2, groups=width) for k in (7, 5, 3))

    def forward(self, x: torch.Tensor, side: int) -> torch.Tensor:
        image = x.transpose(1, 2).unflatten(2, (side, side))
        return sum((conv(image) for conv in self.convolve), image).flatten(2).transpose(1, 2)


class TransMILHead(Head):
    """A token and all embeddings through two layers of attention; the token is judged.

    Each bag is a sequence without padding, made a square by repeating its first instances.
    """

    def __init__(self, n_features: int, width: int, n_classes: int, dropout: float, heads: int):
        super().__init__(n_features, width, n_classes, dropout)
        self.token = nn.Parameter(torch.randn(1, width) * 0.02)
        self.first, self.second = (Layer(width, heads, width // 2) for _ in range(2))
        self.positions, self.norm = Positions(width), nn.LayerNorm(width)
        self.classify = nn.Linear(width, self.findings)

    def judge(self, z: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        found = z.new_empty(len(z), self.classify.out_features)
        for rows, sequences in self._squares(z, mask):
            found[rows] = self.classify(self.norm(self.second(self._before(sequences))[:, 0])).to(found.dtype)
        return found

    def _squares(self, z: torch.Tensor, mask: torch.Tensor | None) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Bags whose squares have the same side, together: their numbers, and side² instances of each."""
        sizes = [z.shape[1]] * len(z) if mask is None else mask.sum(dim=1).tolist()
        sides = [isqrt(size - 1) + 1 for size in sizes]
        for side in sorted(set(sides)):
            rows = [i for i, own in enumerate(sides) if own == side]
            place = torch.arange(side * side, device=z.device)
            of_bag = torch.stack([torch.where(place < sizes[i], place, place - sizes[i]) for i in rows])
            if mask is not None:  # where the instances are, should padding stand between them
                where = mask[rows].logical_not().int().argsort(dim=1, stable=True)
                of_bag = where.gather(1, of_bag)
            yield rows, z[rows].gather(1, of_bag.unsqueeze(-1).expand(-1, -1, z.shape[-1]))

    def _before(self, sequences: torch.Tensor) -> torch.Tensor:
        """What comes to the second layer, B x (1 + side²) x width."""
        x = self.first(torch.cat([self.token.expand(len(sequences), 1, -1), sequences], dim=1))
        return torch.cat([x[:, :1], self.positions(x[:, 1:], isqrt(sequences.shape[1]))], dim=1)

    def scores(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        out = features.new_zeros(features.shape[:2])
        mask = torch.ones_like(out, dtype=torch.bool) if mask is None else mask
        for rows, sequences in self._squares(self.embed(features), mask):
            found = self.second.attend.row(self.second.norm(self._before(sequences)))[:, 1:].to(out.dtype)
            for i, row in zip(rows, found, strict=True):
                out[i, mask[i]] = row[: int(mask[i].sum())]
        return out


@method("mil", version=1)
def transmil(
    shape: Shape,
    *,
    width: Annotated[int, WIDTH] = 64,
    dropout: Annotated[float, DROPOUT] = 0.25,
    heads: Annotated[int, Choice(1, 2, 4, 8)] = 4,
    network: Annotated[str, NETWORK] = "small_cnn_16x3",
) -> nn.Module:
    """Two layers of approximate self-attention between instances with positions in between (TransMIL: Shao et al.,
    2021; as in torchmil without the convolution of values, which mixes instances that merely follow one another).

    Instances are scored by how much the class token attends to them in the last layer; that changes with their order.
    `network` encodes instances that are images.
    """
    return BagNet(shape, network, partial(TransMILHead, width=width, n_classes=shape.n_classes, dropout=dropout,
                                          heads=heads))  # fmt: skip
