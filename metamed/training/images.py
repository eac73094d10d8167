"""Images as training takes them: streamed, resized, in unit range, and augmented."""

from __future__ import annotations

import tempfile

import numpy as np
import torch
import torch.nn.functional as F

from metamed.dataset import Images
from metamed.errors import MetamedError

MEMORY_LIMIT = 4 * 2**30  # bytes of images kept in memory; more lie in a temporary file


def load_images(images: Images, indices: np.ndarray, side: int) -> np.ndarray:
    """The images at `indices`, resized to `side` x `side`: uint8 or float32 in 0-1, (n, C, side, side).

    Streams chunk by chunk; what exceeds `MEMORY_LIMIT` goes to a temporary file, not to memory.
    """
    if len(images.shape) != 4:
        raise MetamedError(f"images of shape {images.shape[1:]} cannot be trained on here: 2-D images are needed")
    dtype = np.uint8 if images.dtype == np.uint8 else np.float32
    shape = (len(indices), images.shape[1], side, side)
    out = _empty(shape, dtype)
    rows = np.argsort(indices, kind="stable")
    ordered = np.asarray(indices)[rows]
    for part, chunk in images.chunks():
        low, high = np.searchsorted(ordered, [part.start, part.stop])
        if high > low:
            out[rows[low:high]] = _resized(chunk[ordered[low:high] - part.start], side)
    return out if dtype == np.uint8 else _unit_range(out, images.dtype)


def _empty(shape: tuple[int, ...], dtype) -> np.ndarray:
    if np.prod(shape) * np.dtype(dtype).itemsize < MEMORY_LIMIT:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:  # the mapping keeps the file alive until the array is gone
        return np.memmap(file, dtype, mode="w+", shape=shape)


def _resized(images: np.ndarray, side: int) -> np.ndarray:
    if images.shape[2:] == (side, side):
        return images
    x = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))
    x = F.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return x.round().clamp(0, 255).numpy() if images.dtype == np.uint8 else x.numpy()


def _unit_range(images: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Integers over their type's maximum; floats as they are, or by the range found where that is not within 0-1."""
    if np.issubdtype(dtype, np.integer):
        return images / np.float32(np.iinfo(dtype).max)
    low, high = float(images.min()), float(images.max())
    return images if low >= 0 and high <= 1 else (images - low) / np.float32(max(high - low, 1e-12))


def pixel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of three channels (grey repeated), pixels in 0-1, from at most 500 images."""
    x = images[np.linspace(0, len(images) - 1, min(500, len(images))).astype(int)].astype(np.float32)
    x = x / 255 if images.dtype == np.uint8 else x
    mean, sd = x.mean(axis=(0, 2, 3)), np.maximum(x.std(axis=(0, 2, 3)), 1e-3)
    return (np.repeat(mean, 3), np.repeat(sd, 3)) if len(mean) == 1 else (mean, sd)


def augmented(x: torch.Tensor, how: str, generator: torch.Generator) -> torch.Tensor:
    """Mirror half of the images left-right; move all by one random shift of up to a sixteenth, edges repeated."""
    if "flip" in how:
        mirrored = torch.rand(len(x), generator=generator).to(x.device) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
    if "shift" in how and (most := x.shape[-1] // 16):
        rows, columns = torch.randint(0, 2 * most + 1, (2,), generator=generator).tolist()
        padded = F.pad(x.float(), (most,) * 4, mode="replicate").to(x.dtype)
        x = padded[..., rows : rows + x.shape[-2], columns : columns + x.shape[-1]]
    return x
