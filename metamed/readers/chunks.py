"""Gzip chunks of an HDF5 array, decompressed outside of its library: by libdeflate where it is there, and in threads.

HDF5 lets one thread at a time into its library, decompression included. Here it only hands over the stored bytes.
"""

from __future__ import annotations

from itertools import product

import numpy as np

_GZIP, _SHUFFLE = 1, 2  # HDF5's numbers of filters


def read_rows(array, start: int, stop: int) -> np.ndarray:
    """Rows start to stop of an `h5py.Dataset`, as `array[start:stop]`; by chunks where it is plain gzip."""
    shuffled = _shuffled(array)
    if shuffled is not None and start < stop:
        out = np.empty((stop - start, *array.shape[1:]), array.dtype)
        if _fill(out, array, start, stop, shuffled):
            return out
    return array[start:stop]


def _shuffled(array) -> bool | None:
    """Whether the bytes of gzip chunks were shuffled before; None if they are not gzip, or more was done to them."""
    if array.chunks is None or array.dtype.kind not in "uifb" or not array.dtype.isnative:
        return None
    plan = array.id.get_create_plist()
    filters = [plan.get_filter(k)[0] for k in range(plan.get_nfilters())]
    return {(_GZIP,): False, (_SHUFFLE, _GZIP): True}.get(tuple(filters))


def _fill(out: np.ndarray, array, start: int, stop: int, shuffled: bool) -> bool:
    """Decode the chunks of these rows into `out`; False where HDF5 has to: one was never written, or is damaged."""
    dtype, shape = array.dtype, array.chunks
    (decompress, failure), size = _decompressor(), int(np.prod(shape))
    corners = [range(start // shape[0] * shape[0], stop, shape[0])]
    corners += [range(0, n, step) for n, step in zip(array.shape[1:], shape[1:], strict=True)]
    for corner in product(*corners):
        if array.id.get_chunk_info_by_coord(corner).byte_offset is None:
            return False
        skipped, stored = array.id.read_direct_chunk(corner)
        try:
            raw = np.frombuffer(decompress(stored, size * dtype.itemsize), np.uint8)
        except failure:
            return False
        if skipped or len(raw) != size * dtype.itemsize:
            return False
        if shuffled:
            raw = np.ascontiguousarray(raw.reshape(dtype.itemsize, size).T)
        _place(out, raw.view(dtype).reshape(shape), (corner[0] - start, *corner[1:]))
    return True


def _place(out: np.ndarray, chunk: np.ndarray, corner: tuple[int, ...]) -> None:
    """Copy what of the chunk at `corner` lies within `out`."""
    low = [max(0, c) for c in corner]
    high = [min(n, c + k) for c, k, n in zip(corner, chunk.shape, out.shape, strict=True)]
    inside = tuple(slice(a - c, b - c) for a, b, c in zip(low, high, corner, strict=True))
    out[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = chunk[inside]


def _decompressor():
    """(what decompresses bytes to a given number of them, what it raises); zlib only where libdeflate is absent."""
    try:
        import deflate
    except ImportError:
        import zlib

        return lambda stored, size: zlib.decompress(stored, bufsize=size), zlib.error
    return deflate.zlib_decompress, deflate.DeflateError
