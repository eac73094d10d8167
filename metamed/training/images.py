"""Images as training takes them: streamed, resized, in unit range, and augmented."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from metamed.dataset import Images, take
from metamed.errors import MetamedError

LARGE = 1 << 24  # pixels of an image, all channels, above which it is resized channel by channel
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
    if images[0].size > LARGE and images[:1, :1].size < images.size:  # one channel at a time, and memory stays small
        return np.concatenate([
            np.concatenate([_resized(images[i : i + 1, c : c + 1], side) for c in range(images.shape[1])], axis=1)
            for i in range(len(images))
        ])  # fmt: skip
    x = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))
    x = F.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return x.round().clamp(0, 255).numpy() if images.dtype == np.uint8 else x.numpy()


def _unit_range(images: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Integers over their type's maximum; floats as they are, or by the range found where that is not within 0-1."""
    if np.issubdtype(dtype, np.integer):
        return images / np.float32(np.iinfo(dtype).max)
    low, high = float(images.min()), float(images.max())
    return images if low >= 0 and high <= 1 else (images - low) / np.float32(max(high - low, 1e-12))


def native_images(images: Images, indices: np.ndarray) -> np.ndarray:
    """The images at `indices` at their own size: uint8 or float32 in 0-1, (n, C, H, W). Many: in a file."""
    if len(indices) * np.prod(images.shape[1:]) * 4 < MEMORY_LIMIT:
        found = take(images, indices)
        return found if found.dtype == np.uint8 else _unit_range(found.astype(np.float32), images.dtype)
    out = _empty((len(indices), *images.shape[1:]), np.uint8 if images.dtype == np.uint8 else np.float32)
    for row, image in enumerate(one_by_one(images, indices)):
        out[row] = image
    return out


def one_by_one(images: Images, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """The same, one image (C, H, W) after the other; floats outside of 0-1 are scaled by the range of all of them."""
    low, high = 0.0, 1.0
    if np.issubdtype(images.dtype, np.integer):
        high = float(np.iinfo(images.dtype).max)
    else:
        ends = [(float(images[int(i)].min()), float(images[int(i)].max())) for i in indices]
        found = min(e[0] for e in ends), max(e[1] for e in ends)
        low, high = (low, high) if found[0] >= 0 and found[1] <= 1 else found
    for i in indices:
        image = images[int(i)]
        scale = np.float32(max(high - low, 1e-12))
        yield image if image.dtype == np.uint8 else (image.astype(np.float32) - np.float32(low)) / scale


def native_masks(masks, indices: Sequence[int]) -> np.ndarray:
    """The label images at `indices` as one array (n, H, W), as they are stored."""
    if hasattr(masks, "chunks"):
        return take(masks, np.asarray(indices))
    return np.stack([np.asarray(masks[int(i)]) for i in indices])


def load_masks(masks, indices: Sequence[int], side: int) -> np.ndarray:
    """The label images at `indices`, uint8 (n, side, side): of each new pixel the class at its centre."""
    found = np.empty((len(indices), side, side), np.uint8)
    for row, index in enumerate(indices):
        mask = np.asarray(masks[int(index)])
        rows, columns = ((np.arange(side) * 2 + 1) * size // (2 * side) for size in mask.shape)
        found[row] = mask[rows[:, None], columns]
    return found


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
