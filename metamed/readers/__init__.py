"""Readers: a file or folder becomes a Dataset whose images are decoded when they are asked for."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from metamed.dataset import KINDS, UNLABELLED, ArrayImages, Dataset
from metamed.errors import NotApplicable, ReadError, UnknownName
from metamed.readers import bag_table, cases, pictures, slides  # noqa: F401  imported to be registered
from metamed.readers.answers import TABLES, Assessments, read_table
from metamed.readers.chunks import read_rows
from metamed.readers.encodings import Axes
from metamed.readers.inspection import inspect
from metamed.readers.layouts import Archive, Wanted, interpret
from metamed.readers.lazy import LazyImages, finite
from metamed.readers.pictures import files_in
from metamed.readers.registry import READERS, Reader, reader

__all__ = ["READERS", "TABLES", "Assessments", "Reader", "assessments_of", "inspect", "read", "read_assessments",
           "reader"]  # fmt: skip

_MOST_KEYS = 5000  # arrays looked at in a file


def read(
    path: str | Path,
    reader: str | None = None,
    *,
    images: str | None = None,
    labels: str | None = None,
    group: str | None = None,
    kind: str | None = None,
    condition: str | None = None,
) -> Dataset:
    """The dataset at `path`: a file by its suffix, a folder by what it holds.

    reader: one of READERS where the suffix does not tell. images, labels, group: keys of the arrays in the file.
    kind: what is to be learned where more than one fits (masks and labels; labels and triplets).
    condition: column, of tables of answers (x.triplets.csv, … beside x.h5), that tells the condition of each answer.
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
    dataset = chosen.function(path, Wanted(images, labels, group, kind, condition))
    return _checked(_as_kind(dataset, kind), path)


def read_assessments(path: str | Path, *, condition: str | None = None, labels: str | None = None) -> Assessments:
    """What people said about images: a table of answers (CSV), or a dataset with triplets or ratings.

    condition: the column that tells the condition of each answer. labels: column or key of something known about each
    image. Raises ReadError where there are no answers.
    """
    path = Path(path).expanduser()
    if path.name.lower().endswith(TABLES) and path.is_file():
        return read_table(path, condition=condition, labels=labels)
    found = assessments_of(read(path, labels=labels, condition=condition))
    if found.triplets is None and found.ratings is None:
        raise ReadError(f"{path.name}: no answers by people. Expected 'triplets' or 'ratings' in the file, or a table "
                        f"{path.stem}.triplets.csv or {path.stem}.ratings.csv beside it")  # fmt: skip
    return found


def assessments_of(dataset: Dataset) -> Assessments:
    """The answers of a dataset, which may have none, with its target as labels."""
    target = None if dataset.target is None or dataset.multi_label else np.where(
        dataset.target == UNLABELLED, np.nan, dataset.target)  # fmt: skip
    return Assessments(dataset.name, len(dataset.images), dataset.triplets, dataset.ratings, labels=target,
                       notes=dataset.assumptions)  # fmt: skip


def _pick(path: Path) -> Reader:
    """The reader whose layout the path has (`Reader.fits`), else the one that takes its suffix, or most files in it."""
    folder = path.is_dir()
    held = Counter(p.suffix.lower() for p in (files_in(path) if folder else [path]))
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
    if kind == "segmentation" and dataset.kind == "classification" and len(dataset.images.shape) > 2:
        note = "no masks yet: images alone are described"
        return replace(dataset, target=None, assumptions=(*dataset.assumptions, note))
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
    if dataset.masks is not None:
        _find_foreground(dataset)
    return dataset


def _find_foreground(dataset: Dataset) -> None:
    """Raises NotApplicable where no mask has any foreground; reads no further than to the first that has."""
    masks = dataset.masks
    blocks = (b for _, b in masks.chunks()) if hasattr(masks, "chunks") else masks
    if not any(np.any(block > 0) for block in blocks):
        raise NotApplicable(f"{dataset.name}: all {len(masks)} masks are empty; nothing is to be segmented")


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
