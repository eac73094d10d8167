"""From a trained segmenter to label images of any size: whole images resized and back, or tiles at their resolution.

Beside the image and its mask, memory does not grow with the image: answers are enlarged in strips, tiles are joined one
row of them at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from metamed.dataset import Images
from metamed.training.images import load_images, one_by_one
from metamed.training.segmentation import padded
from metamed.training.weights import Model

STRIP = 64  # rows of an enlarged answer made at a time
BATCH, PIXELS = 16, 1 << 18  # images, or tiles, through a network at once: so many, or what has so many pixels


class MaskAnswer(nn.Module):
    """Images B x C x s x s, uint8 or float in 0-1 -> probabilities B x K x s x s.

    flips: the mean of the answers to each image and to its mirror image.
    """

    def __init__(self, model: Model, flips: bool = False):
        super().__init__()
        self.model, self.flips = model, flips

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answer = self.model(images).softmax(1)
        if not self.flips:
            return answer
        return (answer + self.model(images.flip(-1)).softmax(1).flip(-1)) / 2


def segment(answer: MaskAnswer, images: Images, samples: Sequence[int], side: int, view: str) -> np.ndarray:
    """Predicted classes of each pixel of the images at `samples`, uint8 (n, H, W), at the images' own size."""
    out = np.empty((len(samples), *images.shape[2:]), np.uint8)
    if view == "patch":
        for row, image in enumerate(one_by_one(images, samples)):
            out[row] = in_tiles(answer, image, side)
        return out
    small, at_once = load_images(images, np.asarray(samples), side), _at_once(side)
    for start in range(0, len(samples), at_once):
        for row, p in enumerate(_answers(answer, small[start : start + at_once]), start):
            enlarged(p, out[row])
    return out


def _at_once(side: int) -> int:
    return min(BATCH, max(1, PIXELS // side**2))


@torch.no_grad()
def _answers(answer: nn.Module, images: np.ndarray) -> np.ndarray:
    """Probabilities float32 (n, K, s, s)."""
    on = next(iter(answer.state_dict().values())).device
    answer.eval()
    return answer(torch.from_numpy(np.ascontiguousarray(images)).to(on)).float().cpu().numpy()


def enlarged(p: np.ndarray, out: np.ndarray) -> None:
    """Write into `out` (H, W) the most probable class of probabilities (K, h, w), bilinearly resized to its size."""
    rows, columns = (_between(size, small) for size, small in zip(out.shape, p.shape[1:], strict=True))
    for start in range(0, len(out), STRIP):
        out[start : start + STRIP] = (rows[start : start + STRIP] @ p @ columns.T).argmax(axis=0)


def _between(size: int, small: int) -> np.ndarray:
    """The matrix (size, small) that interpolates linearly between the centres of pixels."""
    at = np.clip((np.arange(size) + 0.5) * small / size - 0.5, 0, small - 1)
    low = np.minimum(at.astype(int), max(small - 2, 0))
    matrix = np.zeros((size, small), np.float32)
    matrix[np.arange(size), low] = 1 - (at - low)
    matrix[np.arange(size), np.minimum(low + 1, small - 1)] += at - low
    return matrix


def in_tiles(answer: nn.Module, image: np.ndarray, side: int) -> np.ndarray:
    """Predicted classes, uint8 (H, W), of one image (C, H, W) from overlapping tiles of `side` pixels, each counting
    less towards its edges."""
    height, width = image.shape[1:]
    image = padded(image, side)
    top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
    out = np.empty(image.shape[1:], np.uint8)
    for start, rows in _rows(answer, image, side):
        out[start : start + len(rows)] = rows
    return out[top : top + height, left : left + width]


def _rows(answer: nn.Module, image: np.ndarray, side: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, classes) of band after band: sums of a row of tiles, of which what is complete leaves."""
    weight = _fading(side)
    starts = _starts(image.shape[1], side)
    total = None
    for row, following in zip(starts, [*starts[1:], image.shape[1]], strict=True):
        for column, p in _tiles(answer, image[:, row : row + side], side):
            if total is None:
                total = np.zeros((p.shape[0], side, image.shape[2]), np.float32)
            total[:, :, column : column + side] += p * weight
        ready = following - row
        yield row, total[:, :ready].argmax(axis=0)
        total = np.concatenate([total[:, ready:], np.zeros_like(total[:, :ready])], axis=1)


def _tiles(answer: nn.Module, band: np.ndarray, side: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first column, probabilities) of each tile of a band of the image."""
    starts, at_once = _starts(band.shape[2], side), _at_once(side)
    for first in range(0, len(starts), at_once):
        columns = starts[first : first + at_once]
        yield from zip(columns, _answers(answer, np.stack([band[:, :, c : c + side] for c in columns])), strict=True)


def _starts(size: int, side: int) -> list[int]:
    """Where tiles start that cover `size` pixels, evenly, overlapping by a quarter or more."""
    n = 1 if size <= side else -(-(size - side) // max(side * 3 // 4, 1)) + 1
    return np.linspace(0, size - side, n).round().astype(int).tolist() if n > 1 else [0]


def _fading(side: int) -> np.ndarray:
    """The weight of a tile's pixels: least at its edges, where it knows one side alone."""
    ramp = np.minimum(np.arange(side) + 1, side - np.arange(side)).astype(np.float32)
    ramp = np.minimum(ramp / max(side // 4, 1), 1)
    return np.minimum(ramp[:, None], ramp)
