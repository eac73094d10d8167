"""Images of which only "decode these" is known: passes in blocks, and small ones kept in memory by the second."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np

from metamed.dataset import ArrayImages
from metamed.errors import ReadError
from metamed.parallel import cores, in_order

KEPT_BYTES = 256 << 20  # hashing, meta-features and training each pass over the images: decode small ones twice
_BLOCK_BYTES = 6 << 20  # decoded at a time by each thread; from 4 MB on, numpy asks for huge pages (Linux): few faults


class LazyImages(ABC):
    """`Images` over a method `_read(start, stop)` that decodes consecutive images as (stop - start, *shape[1:])."""

    sizes: np.ndarray | None = None

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype):
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._kept: np.ndarray | None = None
        self._passes = 0

    @abstractmethod
    def _read(self, start: int, stop: int) -> np.ndarray:
        """Images start to stop, decoded: (stop - start, *shape[1:])."""

    def _block(self) -> int:
        """Images to decode together."""
        return max(1, _BLOCK_BYTES // self._item_bytes)

    @property
    def _item_bytes(self) -> int:
        return max(1, int(np.prod(self.shape[1:])) * self.dtype.itemsize)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        for _, block in self.chunks():
            yield from block

    def __getitem__(self, index: int | slice) -> np.ndarray:
        if self._kept is not None:
            return self._kept[index]
        rows = range(len(self))[index]  # raises IndexError as a list would
        if isinstance(rows, int):
            return self._read(rows, rows + 1)[0]
        if not len(rows):
            return np.empty((0, *self.shape[1:]), self.dtype)
        low, high = min(rows[0], rows[-1]), max(rows[0], rows[-1])
        return self._read(low, high + 1)[np.array(rows) - low]

    def chunks(self, size: int = 256) -> Iterator[tuple[slice, np.ndarray]]:
        """All images in order, at most `size` at a time; a block is decoded once even if it holds more."""
        if self._kept is not None:
            yield from ArrayImages(self._kept).chunks(size)
            return
        n, step = len(self), self._block()
        self._passes += 1  # who passes once streams, and needs no copy of it all
        small = n * self._item_bytes <= KEPT_BYTES
        keep = np.empty(self.shape, self.dtype) if small and (self._passes > 1 or n <= step) else None
        starts = range(0, n, step)
        blocks = in_order(lambda start: self._read(start, min(start + step, n)), starts, 1 if n <= step else cores())
        for start, block in zip(starts, blocks, strict=True):
            if keep is not None:
                keep[start : start + len(block)] = block
                if start + step >= n:
                    self._kept = keep  # before the last images leave: whoever has them may not come back
            for low in range(0, len(block), size):
                part = block[low : low + size]
                yield slice(start + low, start + low + len(part)), part

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_kept": None}  # another process reads for itself


def finite(block: np.ndarray, start: int, where: str) -> np.ndarray:
    """The images as they are; ReadError naming the first (of those from `start` on) with a NaN or infinite pixel."""
    if block.dtype.kind == "f" and not np.isfinite(block).all():
        bad = start + int(np.argmin(np.isfinite(block).reshape(len(block), -1).all(axis=1)))
        raise ReadError(f"{where}: image {bad} holds NaN or infinite values. Remove it, or fill them in")
    return block
