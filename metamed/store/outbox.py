"""The outbox: which numbers a server gave to what was sent to it, and what was sent without an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metamed.store import Store


class Outbox:
    """Of one store towards one server. Keys are ids of records or other content ids.

    A sending begins before its request leaves and is kept when its number is known: a key that has begun and has no
    number may or may not lie on the server, whatever happened in between.
    """

    def __init__(self, store: Store, server: str):
        self._db, self.server = store._db, server

    def number(self, key: str) -> int | None:
        rows = self._db.all("SELECT number FROM remote WHERE id = ? AND server = ?", key, self.server)
        return rows[0][0] if rows else None

    def begun(self, key: str) -> bool:
        """Was it sent, or about to be, without that an answer was kept?"""
        rows = self._db.all("SELECT number FROM remote WHERE id = ? AND server = ?", key, self.server)
        return bool(rows) and rows[0][0] is None

    def begin(self, key: str) -> None:
        self._db.insert("remote", [(key, self.server, None)])

    def keep(self, key: str, number: int) -> None:
        self._db.insert("remote", [(key, self.server, int(number))], replace=True)

    def forget(self, key: str) -> None:
        """A number that leads nowhere (any more) is no number."""
        with self._db.transaction() as db:
            db.execute("DELETE FROM remote WHERE id = ? AND server = ?", (key, self.server))

    def runs(self) -> dict[int, str]:
        """Number -> id of the runs that are known to lie there."""
        sql = "SELECT number, run.id FROM remote JOIN run ON run.id = remote.id WHERE server = ? AND number NOT NULL"
        return dict(self._db.all(sql, self.server))
