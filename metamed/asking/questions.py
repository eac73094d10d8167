"""The questions as a table that can be read, filled in, sent and read back: one row a question."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

from metamed.errors import ReadError

UNSURE = "?"  # the expert cannot tell: not asked again, not learned from
COLUMNS = ("question", "bag", "instance", "x", "y", "score", "by", "answer")


@dataclass(frozen=True)
class Question:
    """One instance to be verified. instance: its number in the dataset; bag: whose it is. score: place in the order of
    all that may be asked about, 0-1. by: the strategy that chose it. answer: name of a class, `UNSURE`, or "" yet."""

    instance: int
    bag: int
    score: float
    by: str
    x: float | None = None
    y: float | None = None
    answer: str = ""


def write_questions(path: Path, questions: Sequence[Question]) -> None:
    """Write the table; whole or not at all, so that no answer is lost if the machine stops."""
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for number, q in enumerate(questions, start=1):
        place = ("" if v is None else f"{v:g}" for v in (q.x, q.y))
        rows.writerow([number, q.bag, q.instance, *place, f"{q.score:.3f}", q.by, q.answer])
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", dir=path.parent, delete=False) as file:
        file.write(text.getvalue())
    os.replace(file.name, path)


def read_questions(path: Path, classes: Sequence[str]) -> list[Question]:
    """The questions of a table with their answers; [] where there is no file.

    An answer is the name of one of `classes`, its number, yes or no (a finding or not, of two classes), `?`, or empty.
    Raises ReadError for anything else, and for an instance that is asked about twice.
    """
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        found = [_question(row) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise ReadError(f"{path.name}: not a table of questions ({type(error).__name__}: {error}). Its columns are "
                        + ", ".join(COLUMNS)) from None  # fmt: skip
    seen: set[int] = set()
    for row, q in enumerate(found, start=2):
        if q.instance in seen:
            raise ReadError(f"{path.name}: row {row} asks about instance {q.instance} again. Keep one of the rows")
        seen.add(q.instance)
    return [replace(q, answer=named(q.answer, classes, f"{path.name}: row {i}")) for i, q in enumerate(found, start=2)]


def _question(row: dict[str, str]) -> Question:
    x, y = (float(row[k]) if row.get(k) else None for k in "xy")
    return Question(int(row["instance"]), int(row["bag"]), float(row.get("score") or "nan"), row.get("by") or "", x, y,
                    (row["answer"] or "").strip())  # fmt: skip


def named(answer: str, classes: Sequence[str], where: str) -> str:
    """The class that an answer means, as its name. Raises ReadError where it means none."""
    if answer in ("", UNSURE) or answer in classes:
        return answer
    lower = [name.lower() for name in classes]
    words = {"no": 0, "n": 0, "yes": 1, "y": 1} if len(classes) == 2 else {}
    place = lower.index(answer.lower()) if answer.lower() in lower else words.get(answer.lower())
    if place is None and answer.isdigit() and int(answer) < len(classes):
        place = int(answer)
    if place is None:
        raise ReadError(f"{where}: '{answer}' is no answer. Say one of {', '.join(classes)}, or {UNSURE}")
    return classes[place]


def answers_of(questions: Sequence[Question], classes: Sequence[str]) -> dict[int, int]:
    """Instance -> class of all questions that have an answer."""
    return {q.instance: classes.index(q.answer) for q in questions if q.answer in classes}
