"""TransMIL: instances look at one another before the bag is judged."""

from __future__ import annotations

from functools import partial
from math import ceil, isqrt
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import nn

from metamed.flows.mil.bagnet import DROPOUT, NETWORK, WIDTH, BagNet, Head
from metamed.methods import Choice, Shape, method

ITERATIONS = 6  # of the pseudo-inverse, as published


class Landmarks(nn.Module):
    """Self-attention through the means of stretches of the sequence (Nystroem attention: Xiong et al., 2021): its cost
    grows with the length of the sequence, not with its square. 1 x L x width -> the same."""

    def __init__(self, width: int, heads: int, landmarks: int):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.heads, self.landmarks, self.scale = heads, landmarks, (width // heads) ** -0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outer, inverse, inner, value = self.factors(x)
        out = (outer @ inverse) @ (inner @ value)  # heads x L x (width / heads)
        return out.transpose(0, 1).flatten(1)[None, -x.shape[1] :]

    def factors(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The three factors of the attention matrix and the values; zeros are set before a sequence until the stretches
        are equally long."""
        stretch = ceil(x.shape[1] / self.landmarks)
        x = F.pad(x[0], (0, 0, -x.shape[1] % self.landmarks, 0))
        q, k, v = self.qkv(x).unflatten(1, (3, self.heads, -1)).permute(1, 2, 0, 3)
        q = q * self.scale
        q_marks, k_marks = (t.unflatten(1, (-1, stretch)).mean(dim=2) for t in (q, k))
        outer = (q @ k_marks.transpose(1, 2)).softmax(dim=-1)
        between = (q_marks @ k_marks.transpose(1, 2)).softmax(dim=-1)
        return outer, _inverse(between), (q_marks @ k.transpose(1, 2)).softmax(dim=-1), v

    def row(self, x: torch.Tensor) -> torch.Tensor:
        """How much the first of a sequence attends to each, mean over heads, (L,)."""
        outer, inverse, inner, _ = self.factors(x)
        first = outer[:, -x.shape[1]].unsqueeze(1)
        return (first @ inverse @ inner).mean(dim=0)[0, -x.shape[1] :]


def _inverse(x: torch.Tensor) -> torch.Tensor:
    """The pseudo-inverse of square matrices by an iteration of third order (Razavi et al., 2014)."""
    z = x.transpose(1, 2) / (x.abs().sum(dim=-1).max() * x.abs().sum(dim=-2).max())
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
    """Instances laid out on a square, row by row, and convolved at three scales (PPEG). side² x width -> the same."""

    def __init__(self, width: int):
        super().__init__()
        self.convolve = nn.ModuleList(nn.Conv2d(width, width, k, padding=k // 2, groups=width) for k in (7, 5, 3))

    def forward(self, x: torch.Tensor, side: int) -> torch.Tensor:
        image = x.T.unflatten(1, (side, side)).unsqueeze(0)
        return sum((conv(image) for conv in self.convolve), image)[0].flatten(1).T


class TransMILHead(Head):
    """A token and all embeddings through two layers of attention; the token is judged.

    Each bag is a sequence of its own, made a square by repeating its first instances: padding never gets in.
    """

    def __init__(self, n_features: int, width: int, n_classes: int, dropout: float, heads: int):
        super().__init__(n_features, width, n_classes, dropout)
        self.token = nn.Parameter(torch.randn(1, width) * 0.02)
        self.first, self.second = (Layer(width, heads, width // 2) for _ in range(2))
        self.positions, self.norm = Positions(width), nn.LayerNorm(width)
        self.classify = nn.Linear(width, self.findings)

    def judge(self, z: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        tokens = [self.second(self._before(bag))[0, 0] for bag in _each(z, mask)]
        return self.classify(self.norm(torch.stack(tokens)))

    def _before(self, bag: torch.Tensor) -> torch.Tensor:
        """The sequence that comes to the second layer, 1 x (1 + side²) x width, of a bag N x width."""
        side = isqrt(len(bag) - 1) + 1
        x = torch.cat([self.token, bag, bag[: side * side - len(bag)]])
        x = self.first(x[None])[0]
        return torch.cat([x[:1], self.positions(x[1:], side)])[None]

    def scores(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        out = features.new_zeros(features.shape[:2])
        for i, bag in enumerate(_each(self.embed(features), mask)):
            x = self._before(bag)
            found = self.second.attend.row(self.second.norm(x))[1 : len(bag) + 1]
            out[i, slice(len(bag)) if mask is None else mask[i]] = found.to(out.dtype)
        return out


def _each(z: torch.Tensor, mask: torch.Tensor | None) -> list[torch.Tensor]:
    """The bags one by one, N x width, without their padding."""
    return list(z) if mask is None else [bag[real] for bag, real in zip(z, mask, strict=True)]


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
