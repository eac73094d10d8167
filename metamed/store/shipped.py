"""The evidence that ships, ready to be copied: its tables are read once, into a SQLite file in the user's cache folder.

Text is what people review and git compares; reading twenty thousand rows of it would be a third of every start.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from metamed.store import database, evidence
from metamed.store.database import Database


def cache_folder() -> Path:
    """Where things lie that can be made again: $METAMED_CACHE_DIR, else the user's cache folder."""
    if named := os.environ.get("METAMED_CACHE_DIR"):
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("metamed")


def fill(store, db: Database, folder: Path) -> None:
    """Bring the tables of a folder into an empty store, which lies in `db`.

    A cache that cannot be read or written, or is damaged, costs time and nothing else.
    """
    mark = _mark(folder)
    with suppress(OSError, ImportError, sqlite3.Error):
        if db.load(cache_folder() / "evidence.db", mark):
            return
    evidence.read(store, folder)
    with suppress(OSError, ImportError, sqlite3.Error):
        cache_folder().mkdir(parents=True, exist_ok=True)
        db.save(cache_folder() / "evidence.db", mark)


def _mark(folder: Path) -> int:
    """A number above 0 that changes with the tables and with the code that reads them."""
    hashed = sha256()
    for path in (*sorted(folder.rglob("*.csv")), Path(evidence.__file__), Path(database.__file__)):
        hashed.update(f"{path.name}\0".encode() + path.read_bytes())
    return int(hashed.hexdigest()[:7], 16) | 1
