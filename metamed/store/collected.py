"""What `metamed collect` keeps in a store: studies, who takes part, what was asked, what was answered. Append-only."""

from __future__ import annotations

import json
import secrets
import sqlite3
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from metamed.store import Store

TABLES = ("collected_study", "collected_person", "collected_question", "collected_answer")
_ANSWERS = (
    "SELECT q.id, q.person, q.number, q.kind, q.condition, q.anchor, q.left_image, q.right_image, a.side, a.seconds, "
    "a.confidence, a.received FROM collected_answer a JOIN collected_question q ON q.id = a.question "
    "JOIN collected_study s ON s.id = q.study WHERE s.digest = ? AND (? IS NULL OR s.name = ?) "
)


@dataclass(frozen=True)
class Study:
    """Questions about the images of one dataset, and how they are asked. Other settings make another row of one study.

    digest: of the dataset. settings: whatever the pages need, as JSON can hold it.
    """

    digest: str
    name: str
    settings: dict[str, Any]

    @property
    def id(self) -> str:
        return sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:40]


class Person(NamedTuple):
    """Somebody who answers. condition: under which he was put when he joined."""

    id: str
    name: str
    condition: str


class Question(NamedTuple):
    """What one person is asked: is `left` or `right` more like `anchor`? number: from 0, in his order."""

    id: str
    person: str
    number: int
    kind: str
    condition: str
    anchor: int
    left: int
    right: int


class Answer(NamedTuple):
    """A question with what was answered. side: 0 left, 1 right. seconds, confidence: None where unknown."""

    question: Question
    side: int
    seconds: float | None
    confidence: float | None
    received: str


class Collected:
    """The answers of a store to the questions about one dataset. Safe for many threads and processes.

    Whatever a call has written is on disk when it returns; triggers refuse to change or delete any of it.
    """

    def __init__(self, store: Store, digest: str, name: str | None = None):
        self._db, self.digest, self.name = store._db, digest, name

    def open(self, study: Study) -> str:
        """Keep a study and its settings; the id of this row of it."""
        self._db.insert("collected_study", [(study.id, study.digest, study.name, json.dumps(study.settings), _now())])
        return study.id

    def studies(self) -> list[str]:
        """Names of the studies of this dataset that somebody has joined."""
        sql = "SELECT DISTINCT s.name FROM collected_study s JOIN collected_person p ON p.study = s.id "
        return sorted(name for (name,) in self._db.all(sql + "WHERE s.digest = ?", self.digest))

    def join(self, study: str, name: str, conditions: tuple[str, ...]) -> tuple[Person, str] | None:
        """(who has joined under the condition that fewest have, the key by which he is known); None: the name is taken.

        Ties are drawn at random. Only a hash of the key is kept.
        """
        key, person = secrets.token_urlsafe(16), secrets.token_hex(16)
        with self._db.transaction() as db:
            known = db.execute(f"SELECT p.name, p.condition FROM collected_person p {_OF_STUDY}", (study,)).fetchall()
            if name.casefold() in {n.casefold() for n, _ in known}:
                return None
            least = min(sum(c == condition for _, c in known) for condition in conditions)
            free = [c for c in conditions if sum(k == c for _, k in known) == least]
            condition = secrets.choice(free)
            row = (person, study, name, condition, _hash(key), _now())
            db.execute("INSERT INTO collected_person VALUES (?, ?, ?, ?, ?, ?)", row)
        return Person(person, name, condition), key

    def person(self, study: str, key: str) -> Person | None:
        """Who has this key, in this study whatever its settings were when he joined."""
        sql = f"SELECT p.id, p.name, p.condition FROM collected_person p {_OF_STUDY} AND p.key_hash = ?"
        found = self._db.all(sql, study, _hash(key))
        return Person(*found[0]) if found else None

    def people(self, study: str) -> list[Person]:
        """Everybody who has joined, in the order of joining."""
        sql = f"SELECT p.id, p.name, p.condition FROM collected_person p {_OF_STUDY} ORDER BY p.rowid"
        return [Person(*row) for row in self._db.all(sql, study)]

    def pending(self, person: str) -> Question | None:
        """The question that somebody was asked and has not answered."""
        sql = f"SELECT {_QUESTION} FROM collected_question q WHERE person = ? AND NOT EXISTS "
        sql += "(SELECT 1 FROM collected_answer a WHERE a.question = q.id) ORDER BY number LIMIT 1"
        found = self._db.all(sql, person)
        return Question(*found[0]) if found else None

    def ask(self, study: str, person: Person, number: int, kind: str, images: tuple[int, int, int]) -> Question:
        """Keep what somebody is asked as his question of that number; what he was asked before, if he already was."""
        row = (secrets.token_hex(16), study, person.id, number, kind, person.condition, *map(int, images), _now())
        self._db.insert("collected_question", [row])
        sql = f"SELECT {_QUESTION} FROM collected_question q WHERE person = ? AND number = ?"
        return Question(*self._db.all(sql, person.id, number)[0])

    def question(self, id: str) -> Question | None:
        found = self._db.all(f"SELECT {_QUESTION} FROM collected_question q WHERE id = ?", id)
        return Question(*found[0]) if found else None

    def answer(self, question: str, side: int, seconds: float | None, confidence: float | None) -> bool:
        """Keep an answer; False if the question had been answered before, which changes nothing."""
        with self._db.transaction() as db:
            row = (question, side, seconds, confidence, _now())
            sql = "INSERT INTO collected_answer VALUES (?, ?, ?, ?, ?) ON CONFLICT (question) DO NOTHING"
            return db.execute(sql, row).rowcount == 1

    def count(self) -> int:
        """How many answers there are."""
        sql = "SELECT count(*) FROM collected_answer a JOIN collected_question q ON q.id = a.question " \
              "JOIN collected_study s ON s.id = q.study WHERE s.digest = ? AND (? IS NULL OR s.name = ?)"  # fmt: skip
        return self._db.all(sql, self.digest, self.name, self.name)[0][0]

    def answers(self, person: str | None = None) -> list[Answer]:
        """All answers, or those of one person, in the order in which they came."""
        sql = _ANSWERS + ("" if person is None else "AND q.person = ? ") + "ORDER BY a.rowid"
        values = [self.digest, self.name, self.name, *([] if person is None else [person])]
        return [Answer(Question(*row[:8]), *row[8:]) for row in self._db.all(sql, *values)]


_QUESTION = "q.id, q.person, q.number, q.kind, q.condition, q.anchor, q.left_image, q.right_image"
_OF_STUDY = ("JOIN collected_study s ON s.id = p.study "
             "JOIN collected_study t ON t.digest = s.digest AND t.name = s.name WHERE t.id = ?")  # fmt: skip


def merge_collected(db, other) -> None:
    """Take over all answers of another store: ids are random, so that a union never joins what is not the same."""
    for table in TABLES:
        db.insert(table, other.all(f"SELECT * FROM {table}"))


def create_collected(db: sqlite3.Connection) -> None:
    """The tables of the collecting pages: a migration of the store."""
    for table, columns in (
        ("study", "id TEXT PRIMARY KEY, digest TEXT, name TEXT, settings TEXT, created TEXT"),
        ("person", "id TEXT PRIMARY KEY, study TEXT, name TEXT, condition TEXT, key_hash TEXT UNIQUE, joined TEXT"),
        ("question", "id TEXT PRIMARY KEY, study TEXT, person TEXT, number INTEGER, kind TEXT, condition TEXT, "
                     "anchor INTEGER, left_image INTEGER, right_image INTEGER, asked TEXT, UNIQUE (person, number)"),
        ("answer", "question TEXT PRIMARY KEY, side INTEGER CHECK (side IN (0, 1)), seconds REAL, confidence REAL, "
                   "received TEXT"),
    ):  # fmt: skip
        db.execute(f"CREATE TABLE collected_{table} ({columns})")
        for change in ("UPDATE", "DELETE"):
            db.execute(f"CREATE TRIGGER collected_{table}_{change.lower()} BEFORE {change} ON collected_{table} "
                       "BEGIN SELECT RAISE(ABORT, 'answers are only ever added'); END")  # fmt: skip
    db.execute("CREATE INDEX collected_question_study ON collected_question (study)")
    db.execute("CREATE INDEX collected_study_digest ON collected_study (digest)")


def _hash(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
