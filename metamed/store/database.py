"""The SQLite file under a store: its tables, their migrations, and transactions that survive a kill."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from metamed.errors import MetamedError
from metamed.store.collected import create_collected
from metamed.store.evidence import COLUMNS
from metamed.store.served import create_tables

_INTEGERS = {"n_samples", "n_classes", "n_channels", "height", "width", "size", "seed", "repeats"}
_REALS = {"seconds", "value", "sd"}


def _first_tables(db: sqlite3.Connection) -> None:
    """Content ids are the keys of all records; text columns hold tuples and dictionaries as JSON."""
    for table, (key, *columns) in COLUMNS.items():
        kinds = ("INTEGER" if c in _INTEGERS else "REAL" if c in _REALS else "TEXT" for c in columns)
        rest = ", ".join(f"{c} {kind}" for c, kind in zip(columns, kinds, strict=True))
        db.execute(f"CREATE TABLE {table} ({key} TEXT PRIMARY KEY, {rest})")
    for table, key, value in (
        ("evaluation", "run TEXT, measure TEXT, fold INTEGER", "value REAL"),
        ("metafeature", "dataset TEXT, name TEXT", "value REAL"),
        ("pair", "source TEXT, target TEXT, name TEXT", "value REAL"),
        ("remote", "id TEXT, server TEXT", "number INTEGER"),
        ("thumbnail", "dataset TEXT", "hashes BLOB"),
    ):
        names = ", ".join(c.split()[0] for c in key.split(", "))
        db.execute(f"CREATE TABLE {table} ({key}, {value}, PRIMARY KEY ({names})) WITHOUT ROWID")
    db.execute("CREATE INDEX run_task ON run (task)")


# number n is applied once to every store; a released one is never edited
MIGRATIONS = [_first_tables, create_tables, create_collected]


class Database:
    """One connection to one file (or ":memory:"), shared by the threads of a process; other processes wait their turn.

    Write-ahead log with full synchronisation: what a finished transaction wrote is on disk.
    """

    def __init__(self, path: str | Path):
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
            _write_ahead(self._connection)
            self._connection.execute("PRAGMA synchronous=FULL")
            self._migrate()
        except sqlite3.DatabaseError as error:
            raise MetamedError(f"{path}: not a store that can be opened ({error}). Pass another --store.") from None

    def _migrate(self) -> None:
        with self.transaction() as db:
            db.execute("CREATE TABLE IF NOT EXISTS migration (number INTEGER PRIMARY KEY)")
            done = db.execute("SELECT coalesce(max(number), 0) FROM migration").fetchone()[0]
            if done > len(MIGRATIONS):
                raise sqlite3.DatabaseError(f"written by a newer metamed: schema {done}, known up to {len(MIGRATIONS)}")
            for number, migrate in list(enumerate(MIGRATIONS, 1))[done:]:
                migrate(db)
                db.execute("INSERT INTO migration VALUES (?)", (number,))

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing, on disk when the block ends."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def all(self, sql: str, *values) -> list[tuple]:
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def state(self) -> tuple[int, int]:
        """Changes whenever the content may have: by this connection, or by another one."""
        with self._lock:
            return self._connection.total_changes, self._connection.execute("PRAGMA data_version").fetchone()[0]

    def insert(self, table: str, rows: Iterable[tuple], *, replace: bool = False) -> None:
        """Add rows whose key is new; the others are ignored, or replaced if `replace`."""
        if rows := list(rows):
            marks = ", ".join("?" * len(rows[0]))
            with self.transaction() as db:
                db.executemany(f"INSERT OR {'REPLACE' if replace else 'IGNORE'} INTO {table} VALUES ({marks})", rows)

    def copy_to(self, other: Database) -> None:
        """Make the other an exact copy of this one."""
        with self._lock, other._lock:
            self._connection.backup(other._connection)

    def save(self, path: Path, mark: int) -> None:
        """Write a copy into a file that replaces another one whole: two that write at once do not meet."""
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
        os.close(handle)
        try:
            with self._lock, closing(sqlite3.connect(name)) as file:
                self._connection.backup(file)
                file.execute(f"PRAGMA user_version = {mark}")  # last, so that what is half written has none
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)

    def load(self, path: Path, mark: int) -> bool:
        """Become a copy of a whole file that was saved under this mark; False, and nothing done, if there is none."""
        if not path.exists():
            return False
        with self._lock, closing(sqlite3.connect(path)) as file:
            if file.execute("PRAGMA user_version").fetchone()[0] != mark:
                return False
            if file.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                return False
            file.backup(self._connection)
        return True

    def close(self) -> None:
        self._connection.close()


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging; processes that open a new store at once may have to wait for each other."""
    for attempt in range(200):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or attempt == 199:
                raise
            time.sleep(0.05)
