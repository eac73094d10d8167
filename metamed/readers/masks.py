"""Masks in image files: which values they hold, what these mean, and that they fit their images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metamed.dataset import Images
from metamed.errors import ReadError
from metamed.readers.encodings import encode_masks
from metamed.readers.lazy import LazyImages
from metamed.readers.pictures import opened

_LOSSY = (".jpg", ".jpeg")
_HALF = 128  # of 255: what a lossy file has at least where its mask was white


@dataclass(frozen=True, eq=False)
class Known:
    """The values that masks hold, ascending, with their names; `names` are those of classes, `says` who said it.

    ignored: a value whose pixels count as background.
    """

    values: np.ndarray
    names: tuple[str, ...]
    says: str
    ignored: int | None = None

    def indices(self, values: np.ndarray, path: Path) -> np.ndarray:
        """Mask values as class indices. Raises ReadError naming the file and a value that nobody announced."""
        if self.ignored is not None:
            values = np.where(values == self.ignored, self.values[0], values)
        place = np.minimum(np.searchsorted(self.values, values), len(self.values) - 1)
        if (wrong := self.values[place] != values).any():
            names = ", ".join(f"{v} {n}" for v, n in zip(self.values, self.names, strict=True))
            raise ReadError(f"{path}: holds the value {values[wrong][0]:g}, which {self.says} does not name ({names}). "
                            "Correct the mask, or name the class there")  # fmt: skip
        return place.astype(np.uint8)

    @classmethod
    def of(cls, labels: Mapping[str, object], says: str) -> Known:
        """From `labels` of a dataset.json: name -> value or values (nnU-Net 2), or value -> name (Decathlon).

        Of regions, which hold several values, each value takes the name of the smallest that it lies in.
        """
        try:
            if all(str(key).lstrip("-").isdigit() for key in labels):
                pairs = {int(key): str(name) for key, name in labels.items()}
            else:
                regions = [(np.atleast_1d(np.array(v, int)).tolist(), str(name)) for name, v in labels.items()]
                pairs = {v: name for values, name in sorted(regions, key=lambda r: -len(r[0])) for v in values}
        except (TypeError, ValueError) as error:
            raise ReadError(f"{says}: 'labels' is not name: value or value: name ({error})") from None
        if len(pairs) < 2:
            raise ReadError(f"{says}: 'labels' names {len(pairs)} class; a background and a class are needed")
        ignored = next((v for v, name in pairs.items() if name == "ignore"), None)
        kept = {v: name for v, name in sorted(pairs.items()) if v != ignored}
        return cls(np.array(list(kept)), tuple(kept.values()), says, ignored)


def found_in(masks: Images, where: str) -> tuple[Known, list[str]]:
    """(the values that occur in masks whose classes nobody named, notes), from one pass over all of them."""
    values, note = encode_masks(masks, (), where)
    if values is None:  # class indices already
        values = np.unique(np.concatenate([np.unique(block) for _, block in masks.chunks()])).astype(np.int64)
    if len(values) == 1 and values[0] > 0:  # all foreground
        values = np.array([0, values[0]])
    plain = np.array_equal(values, np.arange(len(values)))
    names = tuple(f"class {v}" if v else "background" for v in values)
    return Known(values, names, where), [] if plain else [note]


class FileMasks(LazyImages):
    """Label images (n, H, W), one a file, of the sizes of their images; `known`: the values that may occur, if said."""

    def __init__(self, paths: list[Path], sizes: np.ndarray, shape: tuple[int, ...], known: Known | None = None):
        super().__init__((len(paths), *shape), np.dtype(np.uint8 if known is not None else np.float32))
        self.paths, self.native, self.known = paths, sizes, known

    def _read(self, start: int, stop: int) -> np.ndarray:
        return np.stack([self._decode(i) for i in range(start, stop)])

    def _decode(self, i: int) -> np.ndarray:
        from PIL import Image

        values = mask_values(self.paths[i])
        if values.shape != tuple(self.native[i]):
            raise ReadError(unlike(self.paths[i], values.shape, self.native[i]))
        if self.known is not None:
            values = self.known.indices(values, self.paths[i])
        if values.shape != self.shape[1:]:
            size = self.shape[:0:-1]
            values = np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.NEAREST))
        return values.astype(self.dtype)


def unlike(path: Path, found: tuple[int, ...], expected: np.ndarray) -> str:
    """What is said of a mask that has not the size of its image."""
    return (f"{path}: the mask is {found[0]}x{found[1]} pixels, its image {expected[0]}x{expected[1]}. "
            "Resample it to the image, or remove both")  # fmt: skip


def mask_values(path: Path) -> np.ndarray:
    """The values of a mask file, (H, W): of a palette its indices, of a lossy file whether it is rather white."""
    with opened(path) as image:
        if image.mode in ("RGB", "RGBA", "LA", "CMYK"):
            colours = np.asarray(image.convert("RGB"))
            if (colours != colours[..., :1]).any():
                n = len(np.unique(colours.reshape(-1, 3), axis=0))
                raise ReadError(f"{path}: a mask of {n} colours. Write one class number a pixel, as grey or palette")
            values = colours[..., 0]
        else:
            values = np.asarray(image)
    return (values >= _HALF).astype(np.uint8) * 255 if path.suffix.lower() in _LOSSY else values


def lossy_note(paths: list[Path]) -> list[str]:
    """What is assumed about masks in lossy files."""
    n = Counter(p.suffix.lower() in _LOSSY for p in paths)[True]
    return [f"{n} masks are JPEG files: what is at least half white is foreground"] if n else []
