"""How images, labels, masks, bags, patients and splits are written in arrays, and one way of writing them for all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metamed.dataset import UNLABELLED, Images
from metamed.errors import ReadError

PARTS = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "testing": 2}
_CHANNELS = (1, 2, 3, 4)  # what a channel axis usually counts; RGB and RGBA before two of anything


@dataclass(frozen=True)
class Axes:
    """How stored images become `Images`: item axes in `order`, then `shape` (n, C, ...) and `dtype`."""

    shape: tuple[int, ...]
    order: tuple[int, ...]
    dtype: np.dtype
    letters: str
    note: str = ""

    def arrange(self, block: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """Stored images (m, ...) as (m, *shape[1:]); mask values become their index in the sorted `values`."""
        block = np.transpose(block, (0, *self.order)).reshape(-1, *self.shape[1:])
        if values is not None:
            block = np.searchsorted(values, block)
        return np.asarray(block, dtype=self.dtype if values is None else np.min_scalar_type(len(values)))


def find_axes(shapes: Sequence[tuple[int, ...]], dtype: np.dtype, where: str) -> Axes:
    """The axes of stored images, told by their sizes: a channel axis counts 1 to 4 and lies first or last.

    shapes: of the parts of a file, alike but for the number of images. Raises ReadError where they are not images.
    """
    if len({s[1:] for s in shapes}) > 1:
        raise ReadError(f"{where}: images of different shapes {' '.join(map(str, shapes))}. Resize them to one")
    n, item = sum(s[0] for s in shapes if s), shapes[0][1:]
    if not 1 <= len(item) <= 4 or 0 in item:
        raise ReadError(f"{where}: shape {shapes[0]} is not that of images; expected N,H,W or N,H,W,C or N,D,H,W")
    kind = _pixel_type(np.dtype(dtype), where)
    note = "" if np.dtype(dtype) == kind else f"{dtype} pixels read as {kind}"
    if len(item) == 1:
        return Axes((n, *item), (1,), kind, "N,D (feature vectors)", note)
    if len(item) == 2:
        return Axes((n, 1, *item), (1, 2), kind, "N,H,W", note)
    letters = "N,D,H,W,C" if len(item) == 4 else "N,H,W,C"
    if _channels_last(item):
        return Axes((n, item[-1], *item[:-1]), (len(item), *range(1, len(item))), kind, letters, note)
    if len(item) == 4 or item[0] in _CHANNELS:
        letters = "N,C,D,H,W" if len(item) == 4 else "N,C,H,W"
        return Axes((n, *item), tuple(range(1, len(item) + 1)), kind, letters, note)
    return Axes((n, 1, *item), (1, 2, 3), kind, "N,D,H,W (volumes)", note)


def _channels_last(item: tuple[int, ...]) -> bool:
    first, last = item[0] in _CHANNELS, item[-1] in _CHANNELS
    if first and last:  # tiny images: the two equal sides are height and width; channels last is the habit in files
        return not (item[-1] == item[-2] != item[0])
    if not first and not last and len(item) == 3:  # more channels than RGBA (multispectral), never so many as pixels
        return item[-1] <= 16 and 4 * item[-1] <= min(item[:-1])
    return last


def _pixel_type(dtype: np.dtype, where: str) -> np.dtype:
    """uint8, uint16 and floats as they are, in this machine's byte order; signed and longer integers as float32."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind == "f" or dtype in (np.uint8, np.uint16):
        return dtype.newbyteorder("=")
    if dtype.kind in "iu":
        return np.dtype(np.float32)
    raise ReadError(f"{where}: {dtype} values are not pixels; expected uint8, uint16 or float")


def mask_axes(shapes: Sequence[tuple[int, ...]], dtype: np.dtype, images: tuple[int, ...], where: str) -> Axes:
    """The axes of label images, which must have the height and width of `images` (n, C, ...) and one value a pixel."""
    n, item, spatial = sum(s[0] for s in shapes if s), shapes[0][1:], images[2:]
    fits = [item == spatial, item == (*spatial, 1), item == (1, *spatial)]
    if len({s[1:] for s in shapes}) > 1 or n != images[0] or not any(fits) or np.dtype(dtype).kind not in "biuf":
        found, expected = (",".join(map(str, shape)) for shape in ((n, *item), (images[0], *spatial)))
        raise ReadError(f"{where}: masks have shape ({found}), expected ({expected}): one class index a pixel")
    kind = np.dtype(np.uint8) if np.dtype(dtype).kind == "b" else np.dtype(dtype).newbyteorder("=")
    return Axes((n, *spatial), tuple(range(1, len(item) + 1)), kind, "N,H,W")


def encode_masks(masks: Images, classes: Sequence[str], where: str) -> tuple[np.ndarray | None, str]:
    """(the values that masks hold, a note) where they are not class indices 0..K-1 yet (0 and 255); else (None, "").

    With class names that fit the first chunk the rest is believed, so that a large file is not read for it.
    """
    seen: np.ndarray = np.array([], np.int64)
    for part, block in masks.chunks():
        seen = np.union1d(seen, np.unique(block))
        if not np.array_equal(seen, np.floor(seen)) or (len(seen) and seen[0] < 0):
            span = f"{seen.min():g} to {seen.max():g}"
            raise ReadError(f"{where}: masks from image {part.start} on hold {span}; expected class indices")
        if block.dtype.kind != "f" and seen[-1] < len(classes):
            return None, ""
    seen = seen.astype(np.int64)
    if len(seen) > 256:
        raise ReadError(f"{where}: masks hold {len(seen)} values; expected one index a class, not one an object")
    if len(seen) > len(classes) and classes and classes[0].lower() == "background":
        raise ReadError(f"{where}: masks hold {_few(seen)}, but the classes are {', '.join(classes)}. Name them all, "
                        "or correct the masks")  # fmt: skip
    if block.dtype.kind != "f" and (len(seen) == 1 or np.array_equal(seen, np.arange(len(seen)))):
        return None, ""
    return seen, f"mask values {_few(seen)} read as classes 0 to {len(seen) - 1}"


def plain(values: np.ndarray, where: str) -> np.ndarray:
    """Text as str, truth values as integers, numbers as they are. Raises ReadError for anything else."""
    values = np.asarray(values)
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind in "iufU":
        return values
    flat = values.ravel()
    if values.dtype.kind not in "OS" or not all(isinstance(v, (bytes, str)) for v in flat):
        raise ReadError(f"{where}: {values.dtype} values; expected numbers or text")
    decoded = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in flat]
    return np.array(decoded, dtype=str).reshape(values.shape)


def one_each(values: np.ndarray, where: str) -> np.ndarray:
    """One plain value for each sample, (n,), from (n,), (n, 1), …"""
    values = plain(values, where)
    if values.size != len(values):
        raise ReadError(f"{where}: shape {values.shape}; expected one value each")
    return values.reshape(len(values))


def encode_labels(
    values: np.ndarray, classes: Sequence[str] = (), where: str = "labels"
) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """(target, class names, notes) of labels in any of the usual ways of writing them.

    Integers, whole floats, truth values or text of shape (n,), (n, 1), ...: class 0..K-1 of each sample, int (n,).
    0/1 of shape (n, K): classes again where every row has a single 1, else multi-label, int8 (n, K).
    NaN, negative or empty is unlabelled, -1. Raises ReadError for anything else.
    """
    values, classes = plain(values, where), tuple(classes)
    if values.size == len(values):
        values = values.reshape(len(values))
    if values.ndim > 2:
        raise ReadError(f"{where}: shape {values.shape} is not that of labels; expected (n,) or (n, classes)")
    if values.dtype.kind == "U":
        if values.ndim == 2:
            raise ReadError(f"{where}: several texts a sample; expected one class or 0/1 columns")
        values = _numbers_of(values)
    if values.ndim == 2:
        target, classes, notes = _encode_columns(values, classes, where)
    elif values.dtype.kind == "U":
        target, classes, notes = _encode_names(values, classes)
    else:
        target, classes, notes = _encode_numbers(values, classes, where)
    missing = int((target.reshape(len(target), -1)[:, 0] == UNLABELLED).sum())
    if missing:
        notes.append(f"{missing} of {len(target)} labels missing (NaN, negative or empty): unlabelled")
    return target, classes, notes


def _numbers_of(values: np.ndarray) -> np.ndarray:
    """Integers where all text is a plain integer ("0", "12"), else the text itself."""
    try:
        numbers = values.astype(np.int64)
    except (ValueError, OverflowError):
        return values
    return numbers if np.array_equal(numbers.astype(str), values) else values


def _encode_names(values: np.ndarray, classes: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    known = (values != "") & (np.char.lower(values) != "nan")
    names = tuple(np.unique(values[known]).tolist())
    notes = []
    if set(names) <= set(classes):
        names = classes
    else:
        notes.append(f"class names in alphabetical order: {', '.join(names[:10])}" + (", …" if names[10:] else ""))
    index = {name: k for k, name in enumerate(names)}
    target = np.array([index[v] if ok else UNLABELLED for v, ok in zip(values.tolist(), known, strict=True)], np.int64)
    return target, names, notes


def _encode_numbers(
    values: np.ndarray, classes: tuple[str, ...], where: str
) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    known = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(len(values), bool)
    known[known] = values[known] >= 0
    labelled = values[known]
    if labelled.dtype.kind == "f" and not np.array_equal(labelled, np.floor(labelled)) or np.isinf(labelled).any():
        odd = labelled[~(np.isfinite(labelled) & (labelled == np.floor(labelled)))][0]
        raise ReadError(f"{where}: {odd:g} is no class. Labels are whole numbers or text; bin the values into classes")
    present, index = np.unique(labelled.astype(np.int64), return_inverse=True)
    target = np.full(len(values), UNLABELLED, np.int64)
    contiguous = np.array_equal(present, np.arange(len(present)))
    if len(present) == 0 or present[-1] < len(classes) or contiguous:
        target[known] = labelled
        if len(present) and present[-1] >= len(classes) > 0:
            return target, (), [f"{len(classes)} class names for {len(present)} classes: names not used"]
        return target, classes, []
    target[known] = index
    names = classes if len(classes) == len(present) else tuple(map(str, present))
    return target, names, [f"labels {_few(present)} renumbered to 0 to {len(present) - 1}"]


def _encode_columns(
    values: np.ndarray, classes: tuple[str, ...], where: str
) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    missing = (np.isnan(values) if values.dtype.kind == "f" else values != values) | (values < 0)
    known = ~missing.any(axis=1)
    rows = values[known]
    if not np.isin(rows, (0, 1)).all():
        raise ReadError(f"{where}: shape {values.shape} with values other than 0 and 1; expected one column a class")
    names = classes if len(classes) == values.shape[1] else ()
    if (rows.sum(axis=1) == 1).all():
        target = np.full(len(values), UNLABELLED, np.int64)
        target[known] = rows.argmax(axis=1) if len(rows) else UNLABELLED
        return target, names, ["one 1 a row: read as one-hot classes, not as multi-label"]
    target = np.full(values.shape, UNLABELLED, np.int8)
    target[known] = rows
    return target, names, [f"multi-label: {values.shape[1]} labels, each 0 or 1"]


def encode_split(values: np.ndarray, where: str = "split") -> tuple[np.ndarray | None, str]:
    """(0 train, 1 validation, 2 test of each sample, note); None where the values say something else, e.g. folds."""
    values = one_each(values, where)
    if values.dtype.kind == "U":
        values = np.array([PARTS.get(v.strip().lower(), 9) for v in values.tolist()])
    if np.isin(values, (0, 1, 2)).all():
        return values.astype(np.int8), ""
    return None, ", not used: its values are not train, validation, test (0, 1, 2)"


def encode_groups(values: np.ndarray, where: str = "groups") -> tuple[np.ndarray, str]:
    """(group 0..G-1 of each sample, note). A sample without an id (empty or NaN) is a group of its own."""
    values = one_each(values, where)
    if values.dtype.kind == "U":
        unknown = np.isin(values, ("", "nan"))
    else:
        unknown = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
    index = np.unique(values, return_inverse=True)[1]
    index[unknown] = index.max(initial=0) + 1 + np.arange(unknown.sum())
    note = f"; {unknown.sum()} samples without one are groups of their own" if unknown.any() else ""
    return np.unique(index, return_inverse=True)[1], note


def encode_bags(
    ids: np.ndarray, names: np.ndarray | None, n_labels: int, where: str = "bag ids"
) -> tuple[np.ndarray, np.ndarray, str]:
    """(bag 0..B-1 of each instance, place of each bag's label, note) from bag ids of any kind.

    The label of a bag stands where `names` lists its id; else at the id itself where ids count from 0; else labels
    follow the bags in ascending order (numbers) or in order of first appearance (text).
    """
    ids = one_each(ids, where)
    unique, first, bags = np.unique(ids, return_index=True, return_inverse=True)
    if names is not None and np.isin(unique, names).all():
        order = {name: k for k, name in enumerate(names.ravel().tolist())}
        place, note = np.array([order[u] for u in unique.tolist()]), ", labels in the order of the bag names"
    elif ids.dtype.kind in "iu" and len(unique) != n_labels and unique[0] >= 0 and unique[-1] < n_labels:
        place, note = unique.astype(np.int64), ""
    elif ids.dtype.kind == "U":
        place = np.argsort(np.argsort(first))
        note = ", labels in the order in which bags first appear"
    else:
        place, note = np.arange(len(unique)), ""
    order = np.argsort(place, kind="stable")
    return np.argsort(order)[bags], place[order], note


def _few(values: np.ndarray) -> str:
    return ", ".join(map(str, values[:8])) + (", …" if len(values) > 8 else "")


def class_names(value: Any) -> tuple[str, ...]:
    """Class names from a JSON list or object, a list of strings, or a string with commas."""
    if value is None:
        return ()
    if isinstance(value, (bytes, str)):
        try:
            value = json.loads(text(value))
        except json.JSONDecodeError:
            value = [part.strip() for part in text(value).split(",")]
    if isinstance(value, dict):  # MedMNIST writes {"0": "normal", "1": "pneumonia"}
        value = value.values()
    return tuple(text(v) for v in (value if np.iterable(value) else [value]))


def text(value: Any) -> str:
    """An attribute as text; empty for None."""
    if value is None:
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value).strip()
