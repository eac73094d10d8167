"""Files of answers by people: tables (CSV) beside the images or alone, and what an archive of images holds of them."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metamed.assessments import (
    Rankings,
    Ratings,
    Triplets,
    checked,
    checked_ratings,
    joined,
    ratings_of_rankings,
    triplets_of_rankings,
)
from metamed.errors import ReadError
from metamed.readers.answer_columns import COLUMNS, Table, answers
from metamed.readers.encodings import plain

if TYPE_CHECKING:
    from metamed.readers.layouts import _Layout

TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_KINDS = ("triplets", "ratings", "rankings")
_NO_SCORES = (
    "box",
    "coord",
    "xy",
    "position",
    "onehot",
    "one_hot",
    "landmark",
    "size",
    "shape",
    "point",
    "centre",
    "center",
)
_MOST_GRADES, _MOST_PEOPLE = 20, 20  # of an array that is taken for scores of each image by several people


@dataclass(frozen=True, eq=False)
class Assessments:
    """What people said about images, with what was taken for granted and what could not be right.

    names: of the images, in the order of their indices, where they are known. found: how many answers (or questions, or
    annotators) of a kind; see `assessments.checked`. labels: per image what `gold` was asked for, (n_images,), or None.
    """

    name: str
    n_images: int
    triplets: Triplets | None = None
    ratings: Ratings | None = None
    rankings: Rankings | None = None
    names: tuple[str, ...] = ()
    labels: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    found: Mapping[str, int] | None = None


def read_table(path: Path, *, names: Sequence[str] | None = None, n_images: int | None = None,
               condition: str | None = None, labels: str | None = None) -> Assessments:  # fmt: skip
    """The answers in a table: comma, semicolon or tab between cells, gzip or not, a row an answer (long) or several.

    names: of the images that the table is about. condition: the column that tells the condition. labels: a column of
    something known about each image. Raises ReadError where the columns fit no kind of answers.
    """
    columns, broken = _columns(path)
    table = Table(path.name, columns, names, condition, n_images)
    table.count("row with another number of cells", broken)
    if labels is not None:
        labels = next((k for k in table.columns if k == labels.strip().lower()), None) or _absent(table, labels)
        table.used.add(labels)
    found = answers(table)
    image = (
        found.anchor if isinstance(found, Triplets) else found.image if isinstance(found, Ratings) else found.question
    )
    n = n_images or len(table.names or ()) or int(np.max(image, initial=-1)) + 1
    unused = [c for c in table.columns if c not in table.used]
    if unused:
        table.notes.append("columns not used: " + ", ".join(unused[:10]) + ("…" if unused[10:] else ""))
    known = None if labels is None else _per_image(table, labels, image, n)
    return _finished(path.name, [found], table, n, known)


def _absent(table: Table, column: str):
    raise ReadError(f"{table.where}: no column '{column}'. Found: {', '.join(table.columns)}")


def _columns(path: Path) -> tuple[dict[str, np.ndarray], int]:
    """(columns as text, or integers where all cells are; rows with another number of cells, which are left out)."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            comma = max(",;\t", key=head.count)
            names = next(csv.reader([head], delimiter=comma), [])
            rows = [row for row in csv.reader(file, delimiter=comma) if row]
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise ReadError(f"{path.name}: not a table that can be read ({str(error)[:100]})") from error
    kept = [row for row in rows if len(row) == len(names)]
    if not kept:
        raise ReadError(f"{path.name}: a table without rows. Expected one line of column names and one line an answer")
    columns = {}
    for name, cells in zip(names, zip(*kept, strict=True), strict=True):
        text = np.char.strip(np.array(cells, str))
        whole = all(c.isascii() and c.removeprefix("-").isdigit() and len(c) < 18 for c in np.unique(text))
        columns[name] = text.astype(np.int64) if whole else text
    return columns, len(rows) - len(kept)


def _per_image(table: Table, column: str, image: np.ndarray, n: int) -> np.ndarray:
    """The value of each image in a column, NaN where it has none; numbers as they are, words by their order."""
    values = table.columns[column]
    if values.dtype.kind in "U":
        words = sorted({v for v in values.tolist() if v})
        try:
            number = {v: float(v) for v in words}
        except ValueError:
            number = {v: float(i) for i, v in enumerate(words)}
        values = np.array([number.get(v, np.nan) for v in values.tolist()])
    per_image = np.full(n, np.nan)
    inside = (image >= 0) & (image < n)
    per_image[image[inside]] = np.repeat(values, len(image) // len(values))[inside]
    return per_image


# -- in an archive -----------------------------------------------------------------------------------------------------


def in_archive(layout: _Layout, n_images: int | None, *, condition: str | None = None) -> Assessments:
    """The answers in an HDF5 or npz file, in arrays `triplets`, `ratings` or `rankings`: rows, records, or a group of
    columns; ratings also as one array an attribute, images in rows and annotators in columns."""
    names = _names(layout, n_images)
    parts, table = [], Table(layout.archive.path.name, {}, names)
    for kind in _KINDS:
        for columns in _tables(layout, kind, n_images):
            one = Table(f"{layout.archive.path.name}: '{kind}'", columns, names, condition, n_images)
            parts.append(answers(one))
            table.notes += one.notes
            for what, n in one.found.items():
                table.count(what, n)
    if (wide := _wide(layout, n_images, table)) is not None:
        parts.append(wide)
    return _finished(layout.archive.path.name, parts, table, n_images, None)


def _names(layout: _Layout, n: int | None) -> tuple[str, ...] | None:
    for name in ("image_id", "image_ids", "image_names", "image_name", "names", "filenames", "files"):
        for key, array in layout.archive.arrays.items():
            if key.lower() == name and n is not None and array.shape in ((n,), (n, 1)) and array.dtype.kind in "OSU":
                layout.used.add(key)
                return tuple(plain(array[()], layout.where(key)).ravel().tolist())
    return None


def _tables(layout: _Layout, kind: str, n_images: int | None) -> list[dict[str, np.ndarray]]:
    """Columns of each table of that kind in the archive."""
    arrays = layout.archive.arrays
    inside = {k.partition("/")[2]: k for k in arrays if k.lower().startswith(kind + "/") and len(arrays[k].shape) == 1}
    if inside:
        layout.used.update(inside.values())
        return [{name: plain(arrays[k][()], layout.where(k)) for name, k in inside.items()}]
    key = next((k for k in arrays if k.lower().rpartition("/")[2] == kind), None)
    if key is None or (kind == "ratings" and len(arrays[key].shape) == 2):
        return []
    layout.used.add(key)
    rows = arrays[key][()]
    if rows.dtype.names:
        return [{name: plain(rows[name], layout.where(key)) for name in rows.dtype.names}]
    if kind != "triplets" or rows.ndim != 2 or rows.shape[1] != 3 or rows.dtype.kind not in "iu":
        expected = "(m,3) indices" if kind == "triplets" else "records, or a group of columns"
        raise layout.error(f"'{key}' must be {expected}; found {rows.dtype} {'x'.join(map(str, rows.shape))}")
    layout.notes.append("triplets read as anchor, closer, farther")
    return [dict(zip(("anchor", "closer", "farther"), rows.T, strict=True)) | _beside(layout, len(rows))]


def _beside(layout: _Layout, m: int) -> dict[str, np.ndarray]:
    """Arrays with one value for each of m triplets, by their names: annotators, sides, conditions, times, …"""
    found = {}
    for role in ("annotator", "side", "condition", "time", "confidence", "gold"):
        wanted = {prefix + name for name in COLUMNS[role] for prefix in ("", "triplet_")}
        for key, array in layout.archive.arrays.items():
            if key.lower() in wanted and array.shape in ((m,), (m, 1)):
                layout.used.add(key)
                found[key.lower().removeprefix("triplet_")] = plain(array[()], layout.where(key)).ravel()
    return found


def _wide(layout: _Layout, n: int | None, table: Table) -> Ratings | None:
    """Arrays (images, annotators) of few different numbers: scores of the attribute that they are called after."""
    found, people = {}, {}
    for key, array in layout.archive.arrays.items():
        named = key.lower().startswith("ratings")
        if (
            key in layout.used
            or len(array.shape) != 2
            or array.shape[0] != n
            or array.dtype.kind not in "iuf"
            or not 2 <= array.shape[1] <= _MOST_PEOPLE
            or any(word in key.lower() for word in _NO_SCORES)
        ):
            continue  # fmt: skip
        scores = np.asarray(array[()], np.float64)
        if named or 3 <= len(np.unique(scores[np.isfinite(scores)])) <= _MOST_GRADES:
            found[key] = scores
            people[key] = [str(v) for v in np.ravel(getattr(array, "attrs", {}).get("annotators", ()))]
    if not found:
        return None
    layout.used.update(found)
    slots = [k for k, scores in found.items() if len(people[k]) != scores.shape[1]]
    table.notes.append(f"scores of each image, one column an annotator: {', '.join(found)}")
    if slots:
        table.notes.append("columns without names are slots, filled by whoever came: they get no quality of their own")
    parts = [_column_per_annotator(key, s, people[key] if key not in slots else None) for key, s in found.items()]
    whole = parts[0]
    for part in parts[1:]:
        whole = joined(whole, part)
    return whole


def _column_per_annotator(key: str, scores: np.ndarray, people: list[str] | None) -> Ratings:
    n, k = scores.shape
    who = people or [f"column {i + 1}" for i in range(k)]
    attribute = np.full(n * k, key.rpartition("/")[2])
    return Ratings(np.repeat(np.arange(n), k), np.tile(who, n), attribute, scores.ravel(),
                   slot=None if people else np.ones(n * k, bool))  # fmt: skip


# -- beside the images -------------------------------------------------------------------------------------------------


def beside(path: Path) -> list[Path]:
    """Tables of answers that belong to a dataset: x.triplets.csv, x.ratings.csv, x.rankings.csv beside x.h5, and
    triplets.csv, … in a folder of images."""
    folder, stem = (path, "") if path.is_dir() else (path.parent, path.stem + ".")
    return [p for kind in _KINDS for end in TABLES if (p := folder / f"{stem}{kind}{end}").is_file()]


def with_answers(path: Path, n_images: int, own: Assessments, notes: list[str], condition: str | None = None) -> dict:
    """The triplets and ratings of a dataset, as fields of it: those of its archive and of the tables beside it."""
    parts = [
        own,
        *(read_table(p, names=own.names or None, n_images=n_images, condition=condition) for p in beside(path)),
    ]
    facts: dict[str, Any] = {}
    for part in parts:
        notes += [*([f"answers from {part.name}"] if part is not own else []), *part.notes, *said(part.found or {})]
        for kind in ("triplets", "ratings"):
            if (more := getattr(part, kind)) is not None and len(more):
                facts[kind] = more if kind not in facts else joined(facts[kind], more)
    return facts


def said(found: Mapping[str, int]) -> list[str]:
    """What was found in answers, one sentence each."""
    fate = {"unknown image": "left out", "same candidates": "left out", "no score": "left out", "no answer": "left out",
            "no rank": "left out", "row with another number of cells": "left out"}  # fmt: skip
    return [f"{n} × {what} ({fate.get(what, 'kept')})" for what, n in found.items()]


def _finished(name: str, parts: list, table: Table, n: int | None, labels: np.ndarray | None) -> Assessments:
    """Everything checked and counted; rankings also as triplets (of images) or ratings (of anything else)."""
    n, held = n or 0, {}
    for part in parts:
        kind = type(part).__name__.lower()
        held[kind] = part if kind not in held else joined(held[kind], part)
    if (rankings := held.get("rankings")) is not None:
        images = np.asarray(rankings.item).dtype.kind in "iu"
        made = triplets_of_rankings(rankings) if images else ratings_of_rankings(rankings)
        kind = "triplets" if images else "ratings"
        table.notes.append(f"rankings also read as {kind}" + ("" if images else ": the place of each item is a score"))
        held[kind] = made if kind not in held else joined(held[kind], made)
    found = Counter(table.found)
    for kind, check in (("triplets", checked), ("ratings", checked_ratings)):
        if kind in held:
            before = len(held[kind])
            held[kind], counts = check(held[kind], n)
            found.update(counts)
            if before and not len(held[kind]):
                numbered = f"The images are numbered 0 to {n - 1}" + (", or named" if table.names else "")
                raise ReadError(
                    f"{table.where}: none of {before} {kind} can be used: {'; '.join(said(counts))}. {numbered}"
                )
    return Assessments(name, n, **held, names=tuple(table.names or ()), labels=labels, notes=tuple(table.notes),
                       found=dict(found))  # fmt: skip
