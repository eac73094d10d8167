"""Images of a dataset with the outlines of their masks drawn in: what a reader of a report sees of it. NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metamed.dataset import Dataset, grey, spread
from metamed.readers.volumes import slices

COLOURS = ((255, 209, 0), (0, 190, 255), (255, 80, 120), (120, 230, 90), (200, 130, 255), (255, 140, 0))
LOOKED_AT, SHOWN, SIDE = 60, 4, 224  # images that are looked at, those that are shown, and their longer side in pixels


@dataclass(frozen=True, eq=False)
class Overlay:
    """picture: RGB, uint8 (H, W, 3). share: of its pixels that is foreground, NaN without a mask."""

    picture: np.ndarray
    share: float


def overlays(dataset: Dataset, most: int = SHOWN) -> list[Overlay]:
    """Examples of small, middling and large foreground, from evenly spaced images; images alone where no masks are.

    Volumes are seen as their slices. Empty list for feature vectors.
    """
    if len(dataset.images.shape) == 5:
        dataset = slices(dataset)
    if len(dataset.images.shape) != 4:
        return []
    indices = spread(len(dataset.images), LOOKED_AT)
    if dataset.masks is None:
        return [Overlay(_picture(dataset.images[int(i)]), np.nan) for i in indices[spread(len(indices), most)]]
    shares = np.array([np.mean(np.asarray(dataset.masks[int(i)]) > 0) for i in indices])
    order = np.flatnonzero(shares > 0)[np.argsort(shares[shares > 0], kind="stable")]
    return [Overlay(outlined(dataset.images[int(indices[k])], np.asarray(dataset.masks[int(indices[k])])),
                    float(shares[k])) for k in order[spread(len(order), most)]]  # fmt: skip


def class_colours(dataset: Dataset) -> list[tuple[str, str]]:
    """(name, colour as #rrggbb) of each foreground class that is drawn."""
    if dataset.masks is None:
        return []
    names = dataset.card.classes or [f"class {k}" for k in range(dataset.n_classes)]
    return [(name, "#{:02x}{:02x}{:02x}".format(*COLOURS[k % len(COLOURS)])) for k, name in enumerate(names[1:])]


def outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An image (C, H, W) as RGB with the outline of each class of its mask (H, W) in that class's colour."""
    picture = _picture(image)
    mask = _enlarged(mask.reshape(mask.shape[-2:]), picture.shape[:2])
    edge = np.zeros(mask.shape, bool)
    edge[:-1] |= mask[:-1] != mask[1:]
    edge[1:] |= mask[1:] != mask[:-1]
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    drawn = edge & (mask > 0)
    picture[drawn] = np.array(COLOURS, np.uint8)[(mask[drawn].astype(int) - 1) % len(COLOURS)]
    return picture


def _picture(image: np.ndarray) -> np.ndarray:
    """An image (C, H, W) as RGB of about `SIDE` pixels: colours as they are, other depths stretched to their range."""
    pixels = image if len(image) == 3 else np.repeat(grey(image[None]), 3, axis=0)
    if image.dtype != np.uint8:
        low, high = float(pixels.min()), float(pixels.max())
        pixels = (pixels - low) / max(high - low, 1e-9) * 255
    height, width = pixels.shape[1:]
    scale = SIDE / max(height, width)
    size = (max(round(height * scale), 1), max(round(width * scale), 1))
    return _enlarged(pixels.astype(np.uint8).transpose(1, 2, 0), size).copy()


def _enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, ...) at another size, the nearest pixel each."""
    rows, columns = (np.arange(n) * side // n for n, side in zip(size, values.shape[:2], strict=True))
    return values[rows][:, columns]
