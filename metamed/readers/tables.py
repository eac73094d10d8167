"""Small tables (CSV) beside or instead of a file of arrays: columns by name, and which of them plays which role."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from metamed.errors import ReadError
from metamed.readers.layouts import ROLES


def read_rows(path: Path, most: int | None = None) -> list[list[str]]:
    """The rows of a CSV file as text, blank lines left out; at most `most` of them. Separators: comma, semicolon, tab.

    Raises ReadError where it is no text, or rows differ in length.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            separator = max(",;\t", key=first.count)
            rows = []
            for row in csv.reader(file, delimiter=separator):
                if any(cell.strip() for cell in row):
                    rows.append([cell.strip() for cell in row])
                if len(rows) == most:
                    break
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReadError(f"{path.name}: not a readable table ({str(error)[:100]}). Save it as CSV in UTF-8") from error
    odd = next((i for i, row in enumerate(rows) if len(row) != len(rows[0])), None)
    if odd is not None:
        raise ReadError(f"{path.name}: row {odd + 1} has {len(rows[odd])} cells, the first {len(rows[0])}. "
                        "Fill it in, or quote the cells that hold separators")  # fmt: skip
    return rows


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """The columns of a CSV file with a header, as text, by their names as written."""
    rows = read_rows(path)
    if len(rows) < 2:
        raise ReadError(f"{path.name}: holds {len(rows)} rows; expected a header and one row for each bag or image")
    head, *body = rows
    return dict(zip(head, np.array(body, dtype=str).T, strict=True))


def role(columns: dict[str, np.ndarray], *roles: str, but: tuple[str | None, ...] = ()) -> str | None:
    """The name of the column that plays the first of `roles` (of `layouts.ROLES`) that any does, else None."""
    lower = {name.lower(): name for name in columns if name not in but}
    names = [name for one in roles for name in ROLES[one]]
    return next((lower[name] for name in names if name in lower), None)


def numbers(text: np.ndarray) -> np.ndarray:
    """Text as float64; NaN where a cell is empty or says so. Raises ValueError for anything else."""
    empty = np.isin(np.char.lower(text), ("", "nan", "na"))
    return np.where(empty, "nan", text).astype(np.float64)
