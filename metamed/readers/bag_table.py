"""Bags as a table: one row an instance, as MILpy and the sets of multipleinstancelearning.com are passed around."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from metamed.dataset import ArrayImages, Card, Dataset
from metamed.errors import ReadError
from metamed.readers.encodings import encode_bags, encode_groups, encode_labels, encode_split
from metamed.readers.layouts import Wanted
from metamed.readers.registry import reader
from metamed.readers.tables import numbers, read_columns, read_rows, role

_PEEK = 200  # rows looked at to tell whether a table holds bags
_PLACES = (("x", "y"), ("coord_x", "coord_y"), ("row", "column"))


def _fits(path: Path) -> bool:
    with suppress(ReadError, ValueError):
        rows = read_rows(path, _PEEK)
        if len(rows) > 1 and len(rows[0]) > 2:
            if not _is_header(rows[0]):
                return _order(np.array(rows)) is not None
            columns = dict(zip(rows[0], np.array(rows[1:]).T, strict=True))
            told = {role(columns, *roles) for roles in (("bags",), ("bag labels", "labels"), ("groups",), ("split",))}
            return role(columns, "bags") is not None and bool(_features(columns, told))
    return False


@reader(".csv", fits=_fits)
def bag_table(path: Path, wanted: Wanted) -> Dataset:
    """Table of instances (CSV), one row each: label, bag, features without a header; or with named columns (bag_id,
    bag_label; instance_label, x and y, patient_id, split where known), every other column of numbers a feature."""
    rows = read_rows(path, 1)
    if not rows or not _is_header(rows[0]):
        return _without_header(path)
    columns = read_columns(path)
    bag = role(columns, "bags")
    label = _asked(path, columns, wanted.labels) or role(columns, "bag labels", "labels")
    if bag is None or label is None:
        raise ReadError(f"{path.name}: no column of {'bags (bag_id)' if bag is None else 'bag labels (bag_label)'} "
                        f"(found: {', '.join(list(columns)[:12])}). Rename it, or pass --labels COLUMN")  # fmt: skip
    bags, _, _ = encode_bags(columns[bag], None, len(columns[bag]), f"{path.name}: '{bag}'")
    values = one_per_bag(path, label, columns[label], bags)
    target, classes, notes = encode_labels(values, (), f"{path.name}: '{label}'")
    used, facts = {bag, label}, {}
    for name, key in (("instance_target", role(columns, "instance labels")), ("coordinates", _places(columns)),
                      ("groups", _asked(path, columns, wanted.group) or role(columns, "groups", but=(bag,))),
                      ("split", role(columns, "split"))):  # fmt: skip
        if key is not None:
            facts[name] = _companion(path, name, key, columns, bags)
            used.update(key if isinstance(key, tuple) else (key,))
    features = _features(columns, used)
    if not features:
        raise ReadError(f"{path.name}: no column of numbers is left for features (found: {', '.join(columns)})")
    notes += [f"bags from {bag}, labels from {label}, {len(features)} features from {features[0]} to {features[-1]}"]
    if unused := [name for name in columns if name not in used and name not in features]:
        notes.append("not used: " + ", ".join(unused[:10]))
    array = np.stack([numbers(columns[name]) for name in features], axis=1)
    return Dataset(path.stem, _finite(path, array), target, bags=bags, card=Card(classes=classes),
                   assumptions=tuple(notes), **facts)  # fmt: skip


def _without_header(path: Path) -> Dataset:
    rows = np.array(read_rows(path))
    order = _order(rows) if len(rows) > 1 and rows.shape[1] > 2 else None
    if order is None:
        raise ReadError(f"{path.name}: neither of the first two columns is a label that is the same for a whole bag. "
                        "Expected rows of label, bag, features; or a header with bag_id and bag_label")  # fmt: skip
    try:
        array = numbers(rows[:, 2:])
    except ValueError as error:
        raise ReadError(f"{path.name}: features that are no numbers ({error}). Leave out such columns") from None
    label, bag = order
    bags, _, _ = encode_bags(_whole(rows[:, bag]), None, len(rows), path.name)
    values = _whole(one_per_bag(path, "label", rows[:, label], bags))
    if values.dtype.kind in "iu" and set(np.unique(values).tolist()) == {-1, 1}:
        values = (values + 1) // 2  # -1 is a class in tables of support vector machines, not a missing label
    target, classes, notes = encode_labels(values, (), f"{path.name}: column {label + 1}")
    notes = [f"no header: labels from column {label + 1}, bags from column {bag + 1}, the rest features", *notes]
    return Dataset(path.stem, _finite(path, array), target, bags=bags, card=Card(classes=classes),
                   assumptions=tuple(notes))  # fmt: skip


def _is_header(row: list[str]) -> bool:
    """Is any cell beyond the first two no number? (The first two may be names of classes and bags.)"""
    try:
        numbers(np.array(row[2:] or ["?"]))
    except ValueError:
        return True
    return False


def _order(rows: np.ndarray) -> tuple[int, int] | None:
    """(place of the label, place of the bag) among the first two columns; None if neither tells the other."""
    for label, bag in ((0, 1), (1, 0)):
        pairs, n = np.unique(rows[:, [bag, label]], axis=0), len(np.unique(rows[:, bag]))
        if len(pairs) == n and len(np.unique(rows[:, label])) < n < len(rows):
            return label, bag
    return None


def _whole(text: np.ndarray) -> np.ndarray:
    """Whole numbers however they are written (1, 1.0, -1), else the text."""
    with suppress(ValueError):
        values = text.astype(np.float64)
        if np.array_equal(values, np.floor(values)):
            return values.astype(np.int64)
    return text


def _asked(path: Path, columns: dict, name: str | None) -> str | None:
    if name is not None and name not in columns:
        raise ReadError(f"{path.name}: no column '{name}' (found: {', '.join(list(columns)[:12])})")
    return name


def _features(columns: dict[str, np.ndarray], used: set[str]) -> list[str]:
    found = []
    for name in columns.keys() - used:
        with suppress(ValueError):
            numbers(columns[name])
            found.append(name)
    return [name for name in columns if name in found]


def _places(columns: dict[str, np.ndarray]) -> tuple[str, ...] | None:
    lower = {name.lower(): name for name in columns}
    return next((tuple(lower[n] for n in names) for names in _PLACES if all(n in lower for n in names)), None)


def _companion(path: Path, name: str, key, columns: dict[str, np.ndarray], bags: np.ndarray) -> np.ndarray | None:
    where = f"{path.name}: '{key}'"
    if name == "coordinates":
        try:
            return np.stack([numbers(columns[one]) for one in key], axis=1)
        except ValueError as error:
            raise ReadError(f"{path.name}: coordinates that are no numbers ({error})") from None
    if name == "instance_target":
        return encode_labels(columns[key], (), where)[0]
    values = one_per_bag(path, key, columns[key], bags)
    return encode_groups(values, where)[0] if name == "groups" else encode_split(_whole(values), where)[0]


def one_per_bag(path: Path, key: str, values: np.ndarray, bags: np.ndarray) -> np.ndarray:
    """Values given for each instance as one for each bag; ReadError where they differ within one."""
    first = np.unique(bags, return_index=True)[1]
    if not np.array_equal(values[first][bags], values):
        row = int(np.argmax(values[first][bags] != values))
        raise ReadError(f"{path.name}: '{key}' differs within a bag (data row {row + 1} says '{values[row]}', its bag "
                        f"begins with '{values[first][bags[row]]}'). One value a bag is needed")  # fmt: skip
    return values[first]


def _finite(path: Path, array: np.ndarray) -> ArrayImages:
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        raise ReadError(f"{path.name}: instance {row} has no value in feature {column + 1}. Fill it in, or remove it")
    return ArrayImages(array.astype(np.float32))
