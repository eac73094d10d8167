"""Pictures in files of their own, and folders of them: one folder a class, or no classes at all."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from metamed.dataset import UNLABELLED, Card, Dataset
from metamed.errors import ReadError
from metamed.readers.answers import Assessments, with_answers
from metamed.readers.encodings import PARTS
from metamed.readers.layouts import Wanted
from metamed.readers.lazy import LazyImages, finite
from metamed.readers.registry import reader

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


class FileImages(LazyImages):
    """Image files, one an image, decoded and brought to one size, channel count and depth."""

    def __init__(self, paths: list[Path], shape: tuple[int, ...], dtype: np.dtype, sizes: np.ndarray):
        super().__init__(shape, dtype)
        self.paths, self.sizes = paths, sizes

    def _read(self, start: int, stop: int) -> np.ndarray:
        block = np.stack([self._decode(path) for path in self.paths[start:stop]])
        return finite(block, start, str(self.paths[start].parent))

    def _decode(self, path: Path) -> np.ndarray:
        from PIL import Image

        channels, height, width = self.shape[1:]
        with opened(path) as image:
            if self.dtype != np.uint8:
                deep = Image.fromarray(_deep(image)).resize((width, height), Image.Resampling.BILINEAR)
                pixels = np.asarray(deep, np.float32)
                return (pixels if self.dtype.kind == "f" else pixels.round()).astype(self.dtype)[None]
            image = image.convert("RGB" if channels == 3 else "L")
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)


def _deep(image) -> np.ndarray:
    """Grey levels of a 16-bit or float image as float32; 8-bit ones are stretched to 16 bits."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return np.asarray(image, np.float32)
    return np.asarray(image.convert("L"), np.float32) * 257


@contextmanager
def opened(path: Path):
    """The image in a file, not decoded yet; whatever is wrong with it names the file."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ReadError(f"{path}: not a readable image ({str(error)[:100]}). Remove or replace it") from error


def files_in(folder: Path) -> list[Path]:
    """All visible files below a folder, in the same order on every system."""
    found = [p for p in folder.rglob("*") if p.is_file()]
    parts = {p: p.relative_to(folder).parts for p in found}
    return sorted((p for p in found if not any(w.startswith((".", "__")) for w in parts[p])), key=parts.get)


@reader(*SUFFIXES, folder=True)
def images(path: Path, wanted: Wanted) -> Dataset:
    """Folder of images, one folder a class: class/*.png, or train/class/*.png, val/…, test/…."""
    if wanted.any_key:
        raise ReadError(f"{path}: a folder of images has no keys. Leave out --images, --labels and --group")
    path = path.absolute()
    files = [p for p in files_in(path) if p.suffix.lower() in SUFFIXES]
    if len(files) < 2:
        raise ReadError(f"{path}: holds {len(files)} image; at least 2 are needed")
    places = [p.relative_to(path).parts[:-1] for p in files]
    split = None
    if all(place and place[0].lower() in PARTS for place in places):
        split = np.array([PARTS[place[0].lower()] for place in places], np.int8)
        places = [place[1:] for place in places]
    target, classes, notes = _classes_of(places)
    stack, more = open_files(files)
    notes += more
    named = Assessments(path.name, len(files), names=tuple(p.relative_to(path).as_posix() for p in files))
    facts = with_answers(path, len(files), named, notes, wanted.condition)
    return Dataset(path.name, stack, target, split, **facts, card=Card(classes=classes), assumptions=tuple(notes))


def _classes_of(places: list[tuple[str, ...]]) -> tuple[np.ndarray | None, tuple[str, ...], list[str]]:
    """(target, class names, notes): the first folder of each file is its class."""
    classes = tuple(sorted({place[0] for place in places if place}))
    if not classes:
        return None, (), ["no class folders: images without labels"]
    index = {name: k for k, name in enumerate(classes)}
    target = np.array([index[place[0]] if place else UNLABELLED for place in places], np.int64)
    return target, classes, ["classes from the names of the folders; no patients known"]


def open_files(files: list[Path]) -> tuple[FileImages, list[str]]:
    """(images of the median size, notes), from the headers of all files."""
    sizes, modes = np.empty((len(files), 2), np.int64), Counter()
    for row, path in enumerate(files):
        with opened(path) as image:
            sizes[row] = image.size[::-1]
            modes[image.mode] += 1
    height, width = (int(v) for v in np.median(sizes, axis=0).round())
    deep = {m for m in modes if m.startswith("I") or m == "F"}
    grey = set(modes) <= {"1", "L", "LA", "La"} | deep
    if deep and not grey:
        raise ReadError(f"{files[0].parent}: 16-bit grey and colour images mixed ({_modes(modes)}). Convert them alike")
    dtype = np.uint8 if not grey or not deep else np.float32 if modes.keys() & {"F", "I"} else np.uint16
    notes = []
    if len(np.unique(sizes, axis=0)) > 1:
        low, high = sizes.min(axis=0), sizes.max(axis=0)
        notes.append(f"images of {low[0]}x{low[1]} to {high[0]}x{high[1]} resized to the median {height}x{width}")
    if len(modes) > 1 or modes.keys() - {"L", "RGB", "I;16"}:
        colours = "grey" if grey else "RGB"
        notes.append(f"{_modes(modes)} images read as {colours} {np.dtype(dtype)}, transparency dropped")
    native = sizes if len(np.unique(sizes, axis=0)) > 1 else None
    return FileImages(files, (len(files), 1 if grey else 3, height, width), np.dtype(dtype), native), notes


def _modes(modes: Counter) -> str:
    return ", ".join(f"{n} {mode}" for mode, n in modes.most_common())
