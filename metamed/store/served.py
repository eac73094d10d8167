"""What `metamed serve` keeps in a store: OpenML entities under small numbers, runs, scores, tags and files."""

from __future__ import annotations

import json
import secrets
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from metamed.store.artifacts import write_file

if TYPE_CHECKING:
    from metamed.store import Store

_COLUMNS = ", ".join(f"served_run.{c}" for c in ("id", "task", "flow", "setup", "uploader", "created", "error"))
DatabaseError = sqlite3.Error  # what any of this may raise: a full disk, a lock that was not given up in a minute
GLOBAL, FIRST_FOLD = (-1, -1, -1), (0, 0, 0)  # (repeat, fold, sample) of a whole run's score, and of the first fold's


class Entity(NamedTuple):
    """A dataset, task, flow, setup or study. facts: whatever its kind needs, as it was given."""

    kind: str
    id: int
    uploader: int
    created: str
    facts: dict


class ServedRun(NamedTuple):
    """A run. error: what the evaluation found wrong, None if nothing."""

    id: int
    task: int
    flow: int
    setup: int
    uploader: int
    created: str
    error: str | None
    facts: dict


class Score(NamedTuple):
    """A value of a measure, or several as a JSON list; repeat, fold and sample are -1 for the whole run."""

    measure: str
    repeat: int
    fold: int
    sample: int
    value: float | None
    array: str | None = None


class Served:
    """The server's part of a store. Every thread reads over a connection of its own; one at a time writes."""

    def __init__(self, store: Store):
        self._db, self._local = store._db, threading.local()
        self._uri = None if store.path is None else store.path.resolve().as_uri() + "?mode=ro"
        self._scratch = tempfile.TemporaryDirectory(prefix="metamed-") if store.path is None else None
        self._folder = Path(self._scratch.name if self._scratch else f"{store.path}.served")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction of this thread: look-ups inside it see what no other writer can change until it ends."""
        with self._db.transaction() as db:
            self._local.writer, self._local.orphans = db, []
            try:
                yield
                for place in self._local.orphans:  # last, so that what is rolled back keeps its files
                    place.unlink(missing_ok=True)
            finally:
                del self._local.writer

    def _all(self, sql: str, *values) -> list[tuple]:
        if writer := getattr(self._local, "writer", None):
            return writer.execute(sql, values).fetchall()
        if self._uri is None:
            return self._db.all(sql, *values)
        if not hasattr(self._local, "reader"):
            self._local.reader = sqlite3.connect(self._uri, uri=True, timeout=60)
        return self._local.reader.execute(sql, values).fetchall()

    def _write(self, sql: str, *values) -> None:
        self._local.writer.execute(sql, values)

    def _next(self, kind: str) -> int:
        """A number that this kind never had, not even for something deleted since."""
        sql = "INSERT INTO served_last VALUES (?, 1) ON CONFLICT DO UPDATE SET number = number + 1 RETURNING number"
        return self._local.writer.execute(sql, (kind,)).fetchone()[0]

    def numbers(self, kind: str, n: int) -> list[int]:
        """n numbers of a kind, never given before."""
        return [self._next(kind) for _ in range(n)]

    # users

    def user(self, key: str) -> int | None:
        """The number of the user that a key belongs to."""
        found = self._all("SELECT id FROM served_user WHERE key_hash = ?", _digest(key.encode()))
        return found[0][0] if found else None

    def add_user(self, name: str, key: str | None = None) -> str:
        """Make a user, or give one a new key, and return the key: only its hash is kept."""
        key = key or secrets.token_hex(16)
        with self.writing():
            known = dict(self._all("SELECT name, id FROM served_user"))
            number = known.get(name) or self._next("user")
            self._write("INSERT OR REPLACE INTO served_user VALUES (?, ?, ?)", number, name, _digest(key.encode()))
        return key

    def users(self) -> dict[int, str]:
        return dict(self._all("SELECT id, name FROM served_user ORDER BY id"))

    # entities

    def add(self, kind: str, uploader: int, facts: Mapping, identity: str | None = None) -> int:
        """Keep an entity under the next number of its kind. identity: what must be unique among its kind."""
        number = self._next(kind)
        row = (kind, number, uploader, _now(), identity or f"#{number}", json.dumps(facts))
        self._write("INSERT INTO served_entity VALUES (?, ?, ?, ?, ?, ?)", *row)
        return number

    def change(self, kind: str, id: int, facts: Mapping) -> None:
        self._write("UPDATE served_entity SET facts = ? WHERE kind = ? AND id = ?", json.dumps(facts), kind, id)

    def find(self, kind: str, identity: str) -> int | None:
        found = self._all("SELECT id FROM served_entity WHERE kind = ? AND identity = ?", kind, identity)
        return found[0][0] if found else None

    def get(self, kind: str, id: int) -> Entity | None:
        return next(iter(self.entities(kind, ids=[id])), None)

    def entities(self, kind: str, *, ids: Iterable[int] | None = None, tag: str | None = None,
                 uploader: Iterable[int] | None = None) -> list[Entity]:  # fmt: skip
        """All entities of a kind in the order of their numbers, or those with a number, tag or uploader."""
        where, values = _where({"id": ids, "uploader": uploader}, tag, kind)
        sql = f"SELECT kind, id, uploader, created, facts FROM served_entity WHERE kind = ? {where} ORDER BY id"
        return [Entity(*row[:4], json.loads(row[4])) for row in self._all(sql, kind, *values)]

    def delete(self, kind: str, id: int) -> None:
        """Forget an entity or a run with its tags, scores and files; contents that nothing else has are erased."""
        if kind == "run":
            self._write("DELETE FROM served_score WHERE run = ?", id)
            self._write("DELETE FROM served_run WHERE id = ?", id)
        self._write("DELETE FROM served_entity WHERE kind = ? AND id = ?", kind, id)
        self._write("DELETE FROM served_tag WHERE kind = ? AND id = ?", kind, id)
        digests = self._all("SELECT DISTINCT digest FROM served_file WHERE kind = ? AND entity = ?", kind, id)
        self._write("DELETE FROM served_file WHERE kind = ? AND entity = ?", kind, id)
        for (digest,) in digests:
            if not self._all("SELECT 1 FROM served_file WHERE digest = ? LIMIT 1", digest):
                self._local.orphans.append(self._place(digest))

    # tags

    def tags(self, kind: str, id: int) -> dict[str, int]:
        """Tags of an entity or run, each with the user who set it."""
        sql = "SELECT tag, uploader FROM served_tag WHERE kind = ? AND id = ? ORDER BY rowid"
        return dict(self._all(sql, kind, id))

    def all_tags(self, kind: str) -> list[str]:
        return [tag for (tag,) in self._all("SELECT DISTINCT tag FROM served_tag WHERE kind = ? ORDER BY tag", kind)]

    def tag(self, kind: str, id: int, tag: str, uploader: int) -> None:
        self._write("INSERT OR IGNORE INTO served_tag VALUES (?, ?, ?, ?)", kind, id, tag, uploader)

    def untag(self, kind: str, id: int, tag: str) -> None:
        self._write("DELETE FROM served_tag WHERE kind = ? AND id = ? AND tag = ?", kind, id, tag)

    # files

    def add_file(self, kind: str, entity: int, part: str, name: str, content: bytes) -> int:
        """Keep a file byte for byte. Equal contents lie on disk once, under their hash: names never become paths."""
        number, digest = self._next("file"), _digest(content)
        if (place := self._place(digest)) in self._local.orphans:
            self._local.orphans.remove(place)
        if not place.exists():
            write_file(place, content)
        row = (number, kind, entity, part, name, digest, len(content))
        self._write("INSERT INTO served_file VALUES (?, ?, ?, ?, ?, ?, ?)", *row)
        return number

    def files(self, kind: str, entity: int) -> list[tuple[int, str, str]]:
        """(number, part, name) of each file of an entity or run."""
        sql = "SELECT id, part, name FROM served_file WHERE kind = ? AND entity = ? ORDER BY id"
        return self._all(sql, kind, entity)

    def file(self, id: int) -> tuple[Path, str] | None:
        """Where the content of a file lies, and what the file is called."""
        found = self._all("SELECT digest, name FROM served_file WHERE id = ?", id)
        return (self._place(found[0][0]), found[0][1]) if found else None

    def _place(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest

    # runs and scores

    def add_run(self, task: int, flow: int, setup: int, uploader: int, identity: str, error: str | None,
                facts: Mapping, scores: Iterable[Score]) -> int:  # fmt: skip
        number = self._next("run")
        row = (number, task, flow, setup, uploader, _now(), error, identity, json.dumps(facts))
        self._write("INSERT INTO served_run VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", *row)
        rows = [(*s[:4], number, *s[4:]) for s in scores]
        self._local.writer.executemany("INSERT OR REPLACE INTO served_score VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        return number

    def find_run(self, identity: str) -> int | None:
        found = self._all("SELECT id FROM served_run WHERE identity = ?", identity)
        return found[0][0] if found else None

    def run(self, id: int) -> ServedRun | None:
        rows = self._all(f"SELECT {_COLUMNS}, served_run.facts FROM served_run WHERE id = ?", id)
        return ServedRun(*rows[0][:-1], json.loads(rows[0][-1])) if rows else None

    def runs(self, *, limit: int = -1, offset: int = 0, errors: bool = False, newest: bool = False,
             tag: str | None = None, **ids: Iterable[int] | None) -> list[tuple]:  # fmt: skip
        """(id, task, flow, setup, uploader, created, error) of runs by number. ids: id, task, flow, setup, uploader.

        errors: also those that could not be evaluated. newest: from the last number down.
        """
        where, values = _where(ids, tag, "run", "served_run.")
        where += "" if errors else " AND error IS NULL"
        order = "id DESC" if newest else "id"
        sql = f"SELECT {_COLUMNS} FROM served_run WHERE 1 {where} ORDER BY {order} LIMIT ? OFFSET ?"
        return self._all(sql, *values, limit, offset)

    def scores(self, run: int) -> list[Score]:
        """All scores of a run, those of the whole run first."""
        sql = "SELECT measure, repeat, fold, sample, value, array FROM served_score WHERE run = ? " \
              "ORDER BY repeat, fold, sample, measure"  # fmt: skip
        return [Score(*row) for row in self._all(sql, run)]

    def evaluations(self, measure: str | None, *, per_fold: bool = False, limit: int = -1, offset: int = 0,
                    order: str | None = None, tag: str | None = None, **ids: Iterable[int] | None) -> list[tuple]:
        """(run, task, flow, setup, uploader, created, measure, value, array or folds) of a measure, None for all.

        By number, or by value if order is "asc" or "desc". per_fold, of one measure: value is None, and the last entry
        the list of the folds' values. The pages of one measure follow a prefix of the primary key, however many runs
        there are. Runs with an error have no scores.
        """
        where, values = _where(ids, tag, "run", "served_run.")
        some = f"AND run IN (SELECT id FROM served_run WHERE 1 {where})" if where else ""
        by = f"value {order.upper()}, run" if order in ("asc", "desc") else "run"
        of_run = _COLUMNS.removesuffix(", served_run.error")
        rows = self._all(
            f"SELECT {of_run}, measure, value, array FROM (SELECT run, measure, value, array FROM served_score "
            f"WHERE {'1' if measure is None else 'measure = ?'} AND repeat = ? AND fold = ? AND sample = ? {some} "
            f"ORDER BY {by}, measure LIMIT ? OFFSET ?) JOIN served_run ON served_run.id = run ORDER BY {by}, measure",
            *([] if measure is None else [measure]), *(FIRST_FOLD if per_fold else GLOBAL), *values, limit, offset)
        return self._with_folds(measure, rows) if per_fold else rows

    def _with_folds(self, measure: str, rows: list[tuple]) -> list[tuple]:
        folds: dict[int, list[float]] = {row[0]: [] for row in rows}
        sql = "SELECT run, value FROM served_score WHERE run IN (SELECT value FROM json_each(?)) AND measure = ? " \
              "AND repeat >= 0 ORDER BY run, repeat, fold, sample"  # fmt: skip
        for run, value in self._all(sql, json.dumps(list(folds)), measure):
            folds[run].append(value)
        return [(*row[:-2], None, folds[row[0]]) for row in rows]

    def counts(self) -> dict[str, int]:
        """How many of each kind there are."""
        found = dict(self._all("SELECT kind, count(*) FROM served_entity GROUP BY kind"))
        return found | {"run": self._all("SELECT count(*) FROM served_run")[0][0]}

    def newest(self, kind: str, limit: int, offset: int) -> list[int]:
        """The last numbers of a kind that are still there, the highest first."""
        table, values = ("served_run WHERE 1", []) if kind == "run" else ("served_entity WHERE kind = ?", [kind])
        rows = self._all(f"SELECT id FROM {table} ORDER BY id DESC LIMIT ? OFFSET ?", *values, limit, offset)
        return [id for (id,) in rows]

    def n_runs(self, column: str) -> dict[int, int]:
        """How many runs each task, flow, setup or uploader has."""
        return dict(self._all(f"SELECT {column}, count(*) FROM served_run GROUP BY {column}"))

    def used(self, column: str, id: int) -> bool:
        """Does a run name this task, flow or setup?"""
        return bool(self._all(f"SELECT 1 FROM served_run WHERE {column} = ? LIMIT 1", id))


def create_tables(db: sqlite3.Connection) -> None:
    """The tables of the server: a migration of the store."""
    for table, columns in (
        ("served_user", "id INTEGER PRIMARY KEY, name TEXT UNIQUE, key_hash TEXT UNIQUE"),
        ("served_last", "kind TEXT PRIMARY KEY, number INTEGER"),
        ("served_entity", "kind TEXT, id INTEGER, uploader INTEGER, created TEXT, identity TEXT, facts TEXT, "
                          "PRIMARY KEY (kind, id), UNIQUE (kind, identity)"),
        ("served_tag", "kind TEXT, id INTEGER, tag TEXT, uploader INTEGER, PRIMARY KEY (kind, id, tag)"),
        ("served_file", "id INTEGER PRIMARY KEY, kind TEXT, entity INTEGER, part TEXT, name TEXT, digest TEXT, "
                        "size INTEGER"),
        ("served_run", "id INTEGER PRIMARY KEY, task INTEGER, flow INTEGER, setup INTEGER, uploader INTEGER, "
                       "created TEXT, error TEXT, identity TEXT UNIQUE, facts TEXT"),
    ):  # fmt: skip
        db.execute(f"CREATE TABLE {table} ({columns})")
    db.execute("CREATE TABLE served_score (measure TEXT, repeat INTEGER, fold INTEGER, sample INTEGER, run INTEGER, "
               "value REAL, array TEXT, PRIMARY KEY (measure, repeat, fold, sample, run)) WITHOUT ROWID")  # fmt: skip
    for index in ("served_score (run, measure)", "served_tag (kind, tag)", "served_file (kind, entity)",
                  "served_file (digest)", "served_run (task)", "served_run (flow)", "served_run (setup)"):  # fmt: skip
        db.execute(f"CREATE INDEX {index.replace(' (', '_').replace(', ', '_').rstrip(')')} ON {index}")


def _where(ids: Mapping[str, Iterable[int] | None], tag: str | None, kind: str, prefix: str = "") -> tuple[str, list]:
    """The SQL that keeps rows with these numbers and this tag, and its values; None is no condition."""
    chosen = {column: json.dumps(list(numbers)) for column, numbers in ids.items() if numbers is not None}
    sql = [f"AND {prefix}{column} IN (SELECT value FROM json_each(?))" for column in chosen]
    if tag is not None:
        sql.append(f"AND {prefix}id IN (SELECT id FROM served_tag WHERE kind = '{kind}' AND tag = ?)")
    return " ".join(sql), [*chosen.values(), *([] if tag is None else [tag])]


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
