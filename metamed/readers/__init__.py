"""Readers: a file or folder becomes a Dataset whose images are decoded when they are asked for."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from metamed.dataset import KINDS, UNLABELLED, ArrayImages, Card, Dataset
from metamed.errors import NotApplicable, ReadError, UnknownName
from metamed.readers import bag_table, slides  # noqa: F401  imported to be registered
from metamed.readers.chunks import read_rows
from metamed.readers.encodings import PARTS, Axes
from metamed.readers.inspection import inspect
from metamed.readers.layouts import Archive, Wanted, interpret
from metamed.readers.lazy import LazyImages, finite
from metamed.readers.registry import READERS, Reader, reader

__all__ = ["READERS", "Reader", "inspect", "read", "reader"]

_MOST_KEYS = 5000  # arrays looked at in a file


def read(
    path: str | Path,
    reader: str | None = None,
    *,
    images: str | None = None,
    labels: str | None = None,
    group: str | None = None,
    kind: str | None = None,
) -> Dataset:
    """The dataset at `path`: a file by its suffix, a folder by what it holds.

    reader: one of READERS where the suffix does not tell. images, labels, group: keys of the arrays in the file.
    kind: what is to be learned where more than one fits (masks and labels; labels and triplets).
    Raises ReadError where nothing or more than one thing can be read, NotApplicable where there is one class only.
    """
    path = Path(path).expanduser()
    if kind is not None and kind not in KINDS:
        raise UnknownName("kind", kind, KINDS)
    if not path.exists():
        raise ReadError(f"{path}: no such file or folder")
    chosen = READERS.get(reader) if reader else _pick(path)
    if chosen is None:
        raise UnknownName("reader", str(reader), READERS)
    dataset = chosen.function(path, Wanted(images, labels, group, kind))
    return _checked(_as_kind(dataset, kind), path)


def _pick(path: Path) -> Reader:
    """The reader whose layout the path has (`Reader.fits`), else the one that takes its suffix, or most files in it."""
    folder = path.is_dir()
    held = Counter(p.suffix.lower() for p in (_files(path) if folder else [path]))
    if not held:
        raise ReadError(f"{path}: the folder is empty")
    able = [r for r in READERS.values() if r.folder == folder and any(held[s] for s in r.suffixes)]
    for candidate in able:
        if candidate.fits is not None and candidate.fits(path):
            return candidate
    if general := [r for r in able if r.fits is None]:
        return max(general, key=lambda r: sum(held[s] for s in r.suffixes))
    if able:
        layouts = " | ".join(f"{r.name}: {r.description.splitlines()[0]}" for r in able)
        raise ReadError(f"{path.name}: no layout that is known here. {layouts}")
    if folder:
        found = ", ".join(f"{n} {s or 'without suffix'}" for s, n in held.most_common(4))
        raise ReadError(f"{path}: no images (found: {found}). Expected a folder of images per class, or one file")
    known = ", ".join(dict.fromkeys(s for r in READERS.values() if not r.folder for s in r.suffixes))
    raise ReadError(f"{path.name}: unknown suffix '{path.suffix}'. Known: {known}, or a folder of images per class")


_NEEDS = {"mil": "bags", "segmentation": "masks", "similarity": "triplets", "classification": "one label an image"}


def _as_kind(dataset: Dataset, kind: str | None) -> Dataset:
    """The dataset without what would make it another kind; an error where it cannot be of that kind."""
    if kind == "similarity" and dataset.triplets is not None:
        dataset = replace(dataset, target=None, masks=None, bags=None)
    if kind is not None and dataset.kind != kind:
        raise ReadError(f"{dataset.name}: read as {dataset.kind}; {kind} needs {_NEEDS[kind]}")
    return dataset


def _checked(dataset: Dataset, path: Path) -> Dataset:
    if dataset.target is not None and not dataset.multi_label:
        present = np.unique(dataset.target[dataset.labelled])
        if len(present) == 1:
            k = int(present[0])
            name = dataset.card.classes[k] if dataset.card.classes else k
            raise NotApplicable(f"{path.name}: every label is '{name}'; at least two classes are needed")
    return dataset


class H5Images(LazyImages):
    """Images (or masks) in arrays of an HDF5 file, several one after the other if it is divided into parts.

    The file is opened for each block and closed again: safe across forks and pickling, and no lock on Windows.
    """

    def __init__(self, path: Path, keys: tuple[str, ...], axes: Axes, rows: tuple[tuple[int, int], ...], values=None):
        super().__init__(axes.shape, axes.dtype if values is None else np.min_scalar_type(len(values)))
        self.path, self.keys, self.axes, self.rows, self.values = path, keys, axes, rows, values

    def _block(self) -> int:
        """A whole number of HDF5 chunks: a chunk that is cut in two is decompressed twice."""
        rows = max(chunk for _, chunk in self.rows)
        return max(1, super()._block() // rows) * rows

    def _read(self, start: int, stop: int) -> np.ndarray:
        parts, offset = [], 0
        with _opened(self.path) as file:
            for key, (n, _) in zip(self.keys, self.rows, strict=True):
                low, high = max(start - offset, 0), min(stop - offset, n)
                if low < high:
                    parts.append(self.axes.arrange(read_rows(file[key], low, high), self.values))
                offset += n
        return finite(parts[0] if len(parts) == 1 else np.concatenate(parts), start, self.path.name)


@contextmanager
def _opened(path: Path):
    """The HDF5 file, open for reading; what its library complains about comes out as a ReadError."""
    import h5py

    if not h5py.is_hdf5(path):
        raise ReadError(f"{path.name}: not an HDF5 file, or cut off at the start. Check that it was copied whole")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ReadError:
    line = " ".join(str(error).split())[:120]
    return ReadError(f"{path.name}: damaged or cut off ({line}). Check that it was copied whole")


@reader(".h5", ".hdf5", ".hdf", ".he5")
def hdf5(path: Path, wanted: Wanted) -> Dataset:
    """HDF5: `images` with `labels`, `masks` or `bag_ids` and `bag_labels`, whole or divided into train and test."""
    import h5py

    with _opened(path) as file:
        arrays: dict[str, h5py.Dataset] = {}

        def note(key: str, item) -> bool | None:
            if isinstance(item, h5py.Dataset):
                arrays[key] = item
            return True if len(arrays) == _MOST_KEYS else None  # one key an image: seen enough to say so

        file.visititems(note)

        def open_images(keys: tuple[str, ...], axes: Axes, values: np.ndarray | None) -> H5Images:
            rows = tuple((arrays[k].shape[0], (arrays[k].chunks or (1,))[0]) for k in keys)
            return H5Images(path.absolute(), keys, axes, rows, values)

        attributes = dict(file.attrs)
        for item in arrays.values():  # `spacing` often stands on the images
            attributes = {k: v for k, v in item.attrs.items() if k not in attributes} | attributes
        return interpret(Archive(path, arrays, attributes, open_images), wanted)


@contextmanager
def _unzipped(path: Path):
    import zipfile
    import zlib

    try:
        with zipfile.ZipFile(path) as file:
            yield file
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


class _Member:
    """An array of an .npz file whose header alone is read until it is needed."""

    def __init__(self, path: Path, member: str):
        self.path, self.member = path, member
        with _unzipped(path) as file, file.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            self.shape, _, self.dtype = header(stream)

    def __getitem__(self, _) -> np.ndarray:
        if self.dtype.hasobject:
            raise ReadError(f"{self.path.name}: '{self.member[:-4]}' holds pickled objects, which are never loaded")
        with _unzipped(self.path) as file, file.open(self.member) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)


@reader(".npz")
def npz(path: Path, wanted: Wanted) -> Dataset:
    """NumPy archive: keys as in HDF5, MedMNIST's train_images, train_labels, val_images, … among them."""
    with _unzipped(path) as file:
        members = [m for m in file.namelist() if m.endswith(".npy")]
    arrays = {m[:-4]: _Member(path, m) for m in members}

    def open_images(keys: tuple[str, ...], axes: Axes, values: np.ndarray | None) -> ArrayImages:
        blocks = [axes.arrange(arrays[k][()], values) for k in keys]
        return ArrayImages(finite(blocks[0] if len(blocks) == 1 else np.concatenate(blocks), 0, path.name))

    return interpret(Archive(path, arrays, {}, open_images), wanted)


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
        with _image(path) as image:
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
def _image(path: Path):
    """The image in a file, not decoded yet; whatever is wrong with it names the file."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ReadError(f"{path}: not a readable image ({str(error)[:100]}). Remove or replace it") from error


def _files(folder: Path) -> list[Path]:
    """All visible files below a folder, in the same order on every system."""
    found = [p for p in folder.rglob("*") if p.is_file()]
    parts = {p: p.relative_to(folder).parts for p in found}
    return sorted((p for p in found if not any(w.startswith((".", "__")) for w in parts[p])), key=parts.get)


@reader(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", folder=True)
def images(path: Path, wanted: Wanted) -> Dataset:
    """Folder of images, one folder a class: class/*.png, or train/class/*.png, val/…, test/…."""
    if wanted.any_key:
        raise ReadError(f"{path}: a folder of images has no keys. Leave out --images, --labels and --group")
    path = path.absolute()
    files = [p for p in _files(path) if p.suffix.lower() in READERS["images"].suffixes]
    if len(files) < 2:
        raise ReadError(f"{path}: holds {len(files)} image; at least 2 are needed")
    places = [p.relative_to(path).parts[:-1] for p in files]
    split = None
    if all(place and place[0].lower() in PARTS for place in places):
        split = np.array([PARTS[place[0].lower()] for place in places], np.int8)
        places = [place[1:] for place in places]
    target, classes, notes = _classes_of(path, places)
    stack, more = _open_files(files)
    return Dataset(path.name, stack, target, split, card=Card(classes=classes), assumptions=(*notes, *more))


def _classes_of(path: Path, places: list[tuple[str, ...]]) -> tuple[np.ndarray | None, tuple[str, ...], list[str]]:
    """(target, class names, notes): the first folder of each file is its class."""
    classes = tuple(sorted({place[0] for place in places if place}))
    if {c.lower() for c in classes} & {"masks", "mask", "labels", "labelstr", "annotations", "groundtruth"}:
        raise ReadError(f"{path}: folders {', '.join(classes)} look like images with masks. Put both into one HDF5 "
                        "file with 'images' and 'masks'")  # fmt: skip
    if not classes:
        return None, (), ["no class folders: images without labels"]
    index = {name: k for k, name in enumerate(classes)}
    target = np.array([index[place[0]] if place else UNLABELLED for place in places], np.int64)
    return target, classes, ["classes from the names of the folders; no patients known"]


def _open_files(files: list[Path]) -> tuple[FileImages, list[str]]:
    """(images of the median size, notes), from the headers of all files."""
    sizes, modes = np.empty((len(files), 2), np.int64), Counter()
    for row, path in enumerate(files):
        with _image(path) as image:
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
