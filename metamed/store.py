"""The store: one SQLite file that remembers every dataset, task, setup, run and published figure, failures included."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from metamed import evidence
from metamed.artifacts import Artifacts
from metamed.dataset import Dataset, near_matches
from metamed.errors import MetamedError, UnknownName
from metamed.evidence import COLUMNS, DatasetFacts, Record, from_row, to_row
from metamed.limits import checked
from metamed.measures import get_measure
from metamed.records import Run, Setup, Source

RECOGNISED = 0.10  # share of near-duplicate thumbnails that makes two datasets the same; unrelated sets share at most 4 %


def _first_tables(db: sqlite3.Connection) -> None:
    """Content ids are the keys of all records; JSON columns hold tuples and dictionaries."""
    number = {"n_samples", "n_classes", "n_channels", "height", "width", "size", "seed", "repeats"}
    for table, columns in COLUMNS.items():
        typed = [f"{c} {'INTEGER' if c in number else 'REAL' if c in ('seconds', 'value', 'sd') else 'TEXT'}" for c in columns]
        db.execute(f"CREATE TABLE {table} ({', '.join([typed[0] + ' PRIMARY KEY', *typed[1:]])})")
    db.execute("CREATE TABLE evaluation (run TEXT, measure TEXT, fold INTEGER, value REAL, PRIMARY KEY (run, measure, fold)) WITHOUT ROWID")
    db.execute("CREATE TABLE thumbnail (dataset TEXT PRIMARY KEY, hashes BLOB)")
    db.execute("CREATE TABLE metafeature (dataset TEXT, name TEXT, value REAL, PRIMARY KEY (dataset, name)) WITHOUT ROWID")
    db.execute("CREATE TABLE pair (source TEXT, target TEXT, name TEXT, value REAL, PRIMARY KEY (source, target, name)) WITHOUT ROWID")
    db.execute("CREATE TABLE remote (id TEXT, server TEXT, number INTEGER, PRIMARY KEY (id, server)) WITHOUT ROWID")
    db.execute("CREATE INDEX run_task ON run (task)")


MIGRATIONS = [_first_tables]  # number n is applied once to every store, in order; never edit one that was released


def default_path() -> Path:
    """Where the user's store lies: $METAMED_STORE, else metamed.db in the user's data folder."""
    if named := os.environ.get("METAMED_STORE"):
        return Path(named).expanduser()
    from platformdirs import user_data_path

    return user_data_path("metamed") / "metamed.db"


class Store:
    """Records under their content ids. Adding twice equals adding once, merging is a union, nothing is forgotten.

    Safe for several threads and processes at once; a record is on disk when `add` returns. Artifacts (predictions,
    weights) and frozen features are files in the folder `<path>.files` beside the SQLite file.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._open(str(self.path))
        self._files = Artifacts(self.path.with_name(self.path.name + ".files"))

    def _open(self, path: str) -> None:
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise MetamedError(f"{path}: not a store that can be opened ({error}). Pass another --store.") from None

    def _prepare(self) -> None:
        _write_ahead(self._db)
        self._db.execute("PRAGMA synchronous=FULL")
        with self._transaction() as db:
            db.execute("CREATE TABLE IF NOT EXISTS migration (number INTEGER PRIMARY KEY)")
            done = db.execute("SELECT coalesce(max(number), 0) FROM migration").fetchone()[0]
            if done > len(MIGRATIONS):
                raise sqlite3.DatabaseError(f"written by a newer metamed, schema {done}, this one knows {len(MIGRATIONS)}")
            for number, migrate in list(enumerate(MIGRATIONS, 1))[done:]:
                migrate(db)
                db.execute("INSERT INTO migration VALUES (?)", (number,))

    @classmethod
    def memory(cls) -> Store:
        """An empty store that dies with the process; its artifacts live in a temporary folder."""
        store = cls.__new__(cls)
        store.path, store._files = None, Artifacts()
        store._open(":memory:")
        return store

    @classmethod
    def default(cls) -> Store:
        """The user's own store, created when first asked for."""
        return cls(default_path())

    @staticmethod
    def embedded() -> Store:
        """The evidence that ships with metamed, read once per process. Adding to it does not last: merge it instead."""
        return _embedded()

    @classmethod
    def united(cls, user: Store | None = None) -> Store:
        """The shipped evidence and the user's store (default: `Store.default` if it exists) as one store in memory."""
        store = cls.memory()
        cls.embedded()._db.backup(store._db)
        if user is None and default_path().exists():
            user = cls.default()
        if user is not None:
            store.merge(user, artifacts=False)
            store._files.folders = [*user._files.folders]
        return store

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _all(self, sql: str, *values) -> list[tuple]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    # records in

    def add(self, record: Record | Dataset, *, artifacts: Mapping[str, bytes] | None = None) -> str:
        """Keep a record and return its id. Adding it again changes nothing.

        One exception: a run that failed is replaced by a success of the same id; a success is never replaced.
        artifacts: file name -> content, written before the row, so that a row never promises a file that is not there.
        """
        if artifacts:
            self._files.put(record.id, artifacts)
        return self.add_all([record])[0]

    def add_all(self, records: Iterable[Record | Dataset]) -> list[str]:
        """Keep many records in one transaction: all of them or none."""
        records = list(records)
        kept = [checked(DatasetFacts.of(r) if isinstance(r, Dataset) else r) for r in records]
        hashes = [(r.digest, r.thumbnails.tobytes()) for r in records if isinstance(r, Dataset)]
        with self._transaction() as db:
            for record in kept:
                self._insert(db, record)
            db.executemany("INSERT OR IGNORE INTO thumbnail VALUES (?, ?)", hashes)
        return [r.id for r in kept]

    def _insert(self, db: sqlite3.Connection, record: Record) -> None:
        table, row = to_row(record)
        marks = ", ".join("?" * len(row))
        new = db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row).rowcount
        if not isinstance(record, Run):
            return
        if not new and record.error is None:  # only a failure gives way, and only to a success
            db.execute("DELETE FROM run WHERE id = ? AND error IS NOT NULL", (record.id,))
            new = db.execute(f"INSERT OR IGNORE INTO run VALUES ({marks})", row).rowcount
        if new:
            values = [(record.id, m, fold, v) for m, folds in record.evaluations.items() for fold, v in enumerate(folds)]
            db.executemany("INSERT OR REPLACE INTO evaluation VALUES (?, ?, ?, ?)", values)

    def add_rows(self, table: str, rows: Iterable[tuple]) -> None:
        """Keep rows that `evidence` has read from files: complete and legal already, because a store wrote them."""
        rows = list(rows)
        if rows:
            with self._transaction() as db:
                db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)

    def add_metafeatures(self, dataset: Dataset | str, values: Mapping[str, float]) -> None:
        """Keep meta-features of a dataset (or digest); a newer value replaces the older. NaN means not applicable."""
        digest = dataset if isinstance(dataset, str) else self.add(dataset)
        rows = [(digest, name, float(value)) for name, value in values.items()]
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO metafeature VALUES (?, ?, ?)", rows)

    def add_pair(self, source: str, target: str, values: Mapping[str, float]) -> None:
        """Keep pair meta-features of a source (name or digest) and a target (digest)."""
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO pair VALUES (?, ?, ?, ?)",
                           [(source, target, name, float(value)) for name, value in values.items()])

    def merge(self, other: Store | str | Path, *, artifacts: bool = True) -> int:
        """Take over all records (and artifacts) of another store; returns how many runs and published figures were new."""
        if not isinstance(other, Store):
            if not Path(other).is_file():
                raise MetamedError(f"{other}: no such store")
            other = Store(other)
        before = len(self)
        if artifacts:
            self._files.merge(other._files)  # files first: a row never promises a file that is not there
        for table in (*COLUMNS, "thumbnail", "metafeature", "pair", "remote"):
            if table != "run":
                self.add_rows(table, other._all(f"SELECT * FROM {table}"))
        self.add_all(other.runs())
        return len(self) - before

    def __len__(self) -> int:
        """Runs and published figures together."""
        return self._all("SELECT (SELECT count(*) FROM run) + (SELECT count(*) FROM published)")[0][0]

    def __bool__(self) -> bool:  # an empty store is still a store
        return True

    # records out

    def get(self, id: str) -> Record:
        """Any record by its id, or by the first 8 or more digits of it if they are enough to tell."""
        found = [] if not re.fullmatch(r"[0-9a-f]{8,40}", id) else [
            (table, row) for table in COLUMNS
            for row in self._all(f"SELECT * FROM {table} WHERE {COLUMNS[table][0]} BETWEEN ? AND ?", id, id + "g")]
        if not found:
            raise UnknownName("record (a full id, or 8 digits of one)", id, [])
        if len(found) > 1:
            raise MetamedError(f"{id} is the start of {len(found)} ids: give more digits, e.g. {found[0][1][0]}")
        table, row = found[0]
        return from_row(table, row, self._evaluations([row[0]]).get(row[0]) if table == "run" else None)

    def runs(self, kind: str | None = None, dataset: str | None = None, unpublished: bool = False) -> list[Run]:
        """Runs, failures included; of a kind, of a dataset (name or digest), of those on no server yet."""
        columns = ", ".join(f"run.{c}" for c in COLUMNS["run"])
        rows = self._all(
            f"SELECT {columns} FROM run LEFT JOIN task ON task.id = run.task WHERE (? IS NULL OR task.kind = ?) "
            "AND (? IS NULL OR ? IN (task.dataset, task.digest)) "
            "AND NOT (? AND run.id IN (SELECT id FROM remote)) ORDER BY run.rowid",
            kind, kind, dataset, dataset, unpublished)
        evaluations = self._evaluations([r[0] for r in rows])
        return [from_row("run", row, evaluations.get(row[0])) for row in rows]

    def _evaluations(self, ids: list[str]) -> dict[str, dict[str, tuple[float, ...]]]:
        where, values = ("WHERE run = ?", ids) if len(ids) == 1 else ("", ())
        found: dict[str, dict[str, tuple[float, ...]]] = {}
        for run, measure, value in self._all(f"SELECT run, measure, value FROM evaluation {where} ORDER BY run, measure, fold", *values):
            of_run = found.setdefault(run, {})
            of_run[measure] = (*of_run.get(measure, ()), value)
        return found

    def records(self, table: str) -> list[Record]:
        """All records of one kind: dataset, source, setup, task, run or published, in the order they came."""
        if table == "run":
            return self.runs()
        return [from_row(table, row) for row in self._all(f"SELECT * FROM {table} ORDER BY rowid")]

    def has(self, id: str) -> bool:
        """Is a record of this id here, a failed run included?"""
        return any(self._all(f"SELECT 1 FROM {table} WHERE {COLUMNS[table][0]} = ?", id) for table in COLUMNS)

    def source(self, name: str) -> Source:
        """The weights of that name, the latest ones if several were stored."""
        rows = self._all("SELECT * FROM source WHERE name = ? ORDER BY rowid DESC LIMIT 1", name)
        if not rows:
            raise UnknownName("source", name, [n for (n,) in self._all("SELECT DISTINCT name FROM source")])
        return from_row("source", rows[0])

    def dataset(self, name: str) -> DatasetFacts:
        """A dataset by digest or name, the one with images if a published one has the same name."""
        rows = self._all("SELECT dataset.* FROM dataset LEFT JOIN thumbnail ON dataset = digest WHERE ? IN (digest, name) "
                         "ORDER BY hashes IS NULL", name)
        if not rows:
            raise UnknownName("dataset", name, [n for (n,) in self._all("SELECT name FROM dataset")])
        return from_row("dataset", rows[0])

    def known(self, dataset: Dataset) -> list[tuple[str, str, float]]:
        """Datasets of the store that this one is or shares images with: (digest, name, share), largest share first.

        Share: 1 for an equal digest, else the part of its thumbnail hashes within 16 of 256 bits of one of theirs.
        """
        names, found = dict(self._all("SELECT digest, name FROM dataset")), []
        for digest, hashes in self._all("SELECT dataset, hashes FROM thumbnail"):
            theirs = np.frombuffer(hashes, np.uint8).reshape(-1, 32)
            share = float((near_matches(dataset.thumbnails, theirs) >= 0).mean()) if len(dataset.thumbnails) else 0.0
            share = 1.0 if digest == dataset.digest else share
            if share >= RECOGNISED:
                found.append((digest, names.get(digest, ""), share))
        return sorted(found, key=lambda f: -f[2])

    # tables

    def thumbnails(self) -> dict[str, bytes]:
        """Thumbnail hashes by digest, 32 bytes an image."""
        return dict(self._all("SELECT dataset, hashes FROM thumbnail"))

    def measured(self) -> dict[str, dict[str, float]]:
        """Meta-features by digest, as they were added."""
        found: dict[str, dict[str, float]] = {}
        for digest, name, value in self._all("SELECT dataset, name, value FROM metafeature"):
            found.setdefault(digest, {})[name] = float("nan") if value is None else value
        return found

    def vectors(self) -> dict[str, dict[str, float]]:
        """Meta-features by digest; the sizes of datasets whose images nobody here holds are among them."""
        found: dict[str, dict[str, float]] = {}
        for facts in self.records("dataset"):
            sizes = {n: getattr(facts, n) for n in ("n_samples", "n_classes", "n_channels", "height", "width")}
            extra = {k: v for k, v in facts.facts.items() if not isinstance(v, str)}
            found[facts.digest] = {k: float(v) for k, v in (extra | sizes).items() if v is not None}
        for digest, values in self.measured().items():
            found[digest] = found.get(digest, {}) | values
        return found

    def metafeatures(self):
        """DataFrame with one row per dataset, indexed by digest: what it is (words), then its meta-features (numbers)."""
        import pandas as pd

        words = {f.digest: {"name": f.name, "kind": f.kind, "family": f.family, "modality": f.card.modality,
                            "modality_group": f.modality_group, "organ": f.card.organ,
                            **{k: v for k, v in f.facts.items() if isinstance(v, str)}} for f in self.records("dataset")}
        known = {d: words.get(d, {}) | v for d, v in self.vectors().items()}
        return pd.DataFrame.from_dict(known, orient="index").rename_axis("digest")

    def example_rows(self, kind: str, measure: str) -> list[dict]:
        """`examples` as plain dictionaries, for whatever must not import pandas."""
        setups = {s.id: s for s in self.records("setup")}
        facts = {f.digest: f for f in self.records("dataset")} | {f.name: f for f in self.records("dataset")}
        runnable = self._runnable(setups)
        own = self._all(
            "SELECT 'metamed', task.procedure || coalesce(', n=' || task.size, ''), task.digest, task.dataset, task.target, "
            "run.setup, run.seed, avg(evaluation.value), run.seconds, run.id FROM run JOIN task ON task.id = run.task "
            "JOIN evaluation ON evaluation.run = run.id WHERE task.kind = ? AND evaluation.measure = ? AND run.error IS NULL "
            "GROUP BY run.id ORDER BY run.rowid", kind, measure)
        figures = self._all(
            "SELECT study, protocol, dataset, dataset, target, setup, NULL, value, NULL, id FROM published "
            "WHERE measure = ? ORDER BY rowid", measure)
        figures = [f for f in figures if f[2] in facts and facts[f[2]].kind == kind]
        names = ("study", "protocol", "dataset", "name", "target", "setup", "seed", "score", "seconds", "evidence")
        return [_example(dict(zip(names, row, strict=True)), measure, setups, facts, runnable) for row in own + figures]

    def examples(self, kind: str, measure: str):
        """DataFrame of meta-examples, one row per successful run or published figure of that kind with that measure.

        Columns: study ("metamed" for runs), protocol, dataset (digest), name, family, target, setup (id), method, recipe,
        sources, hyperparameters, measure, seed, score, seconds, evidence (id), runnable. Scores compare only within one
        (study, protocol, dataset, target, measure).
        """
        import pandas as pd

        columns = ["study", "protocol", "dataset", "name", "family", "target", "setup", "method", "recipe", "sources",
                   "hyperparameters", "measure", "seed", "score", "seconds", "evidence", "runnable"]
        return pd.DataFrame(self.example_rows(kind, measure), columns=columns)

    def _runnable(self, setups: Mapping[str, Setup]) -> dict[str, bool]:
        """Which setups can be run here: method and recipe ship, settings lie in their space, sources can be had."""
        from metamed.methods import described

        try:
            flows = described()
        except FileNotFoundError:  # methods.json is not generated yet: nothing is known to be runnable
            flows = {}
        sources = {n for (n,) in self._all("SELECT name FROM source")} | {n for (n,) in self._all(
            "SELECT dataset.name FROM dataset JOIN task ON task.digest = dataset.digest JOIN run ON run.task = task.id")}

        def fits(setup: Setup) -> bool:
            parts = [flows.get(n) for n in (setup.method, setup.recipe) if n]
            return None not in parts and set(setup.sources) <= sources and all(
                value in part.space[name] for part in parts for name, value in setup.hyperparameters.items() if name in part.space)

        return {id: fits(setup) for id, setup in setups.items()}

    # files and servers

    def artifact(self, run: Run | str, name: str) -> Path:
        """A file of a run, e.g. predictions.npz or weights.safetensors."""
        return self._files.get(run if isinstance(run, str) else run.id, name)

    def features(self, source: str, digest: str) -> np.ndarray | None:
        """Frozen features (n, D) that a source gave for a dataset, None if they were never computed."""
        return self._files.features(source, digest)

    def add_features(self, source: str, digest: str, features: np.ndarray) -> Path:
        """Keep frozen features, float16 or float32 (n, D)."""
        return self._files.put_features(source, digest, features)

    def weights(self, source: str, method: str) -> Path:
        """Weights of the best run of a method on a dataset (name or digest), or on the corpus of a source trained here.

        Best on validation (`validation_<measure>`) where that was stored, else by the measure of its task.
        """
        corpus = [c for (text,) in self._all("SELECT corpus FROM source WHERE name = ? AND origin = 'train'", source)
                  for c in json.loads(text)]
        found = [(self._merit(run), path) for name in (source, *corpus) for run in self.runs(dataset=name)
                 if self.get(run.setup).method == method and (path := self._files.find(run.id, "weights.safetensors"))]
        found = [f for f in found if f[0] == f[0]]
        if not found:
            datasets = [n for (n,) in self._all("SELECT DISTINCT dataset FROM task")]
            raise UnknownName(f"run of {method} with weights on dataset", source, datasets)
        return max(found, key=lambda f: f[0])[1]

    def _merit(self, run: Run) -> float:
        """What a run is chosen by, higher is better; NaN for a failed one."""
        measure = self.get(run.task).measure
        score = run.score(f"validation_{measure}")
        score = run.score(measure) if score != score else score
        return score if get_measure(measure).higher else -score

    def remote(self, id: str, server: str) -> int | None:
        """The number that a server gave to a record."""
        rows = self._all("SELECT number FROM remote WHERE id = ? AND server = ?", id, server)
        return rows[0][0] if rows else None

    def set_remote(self, id: str, server: str, number: int) -> None:
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO remote VALUES (?, ?, ?)", (id, server, int(number)))

    def import_table(self, path: str | Path, study: str | None = None) -> int:
        """Add a result table, see `published.import_table`; the number of new figures, with `notes`."""
        from metamed.published import import_table

        return import_table(self, path, study)

    def export(self, folder: str | Path, suite: str = "runs") -> None:
        """Write everything but artifacts as a folder of text tables, see `evidence`; its runs go to runs/<suite>.csv."""
        evidence.write(self, Path(folder), suite)


def _example(row: dict, measure: str, setups: Mapping, facts: Mapping, runnable: Mapping) -> dict:
    of, setup = facts.get(row["dataset"]), setups.get(row["setup"], Setup("unknown"))
    if of is not None:
        row |= {"dataset": of.digest, "name": of.name}
    return row | {"family": of.family if of else row["name"], "method": setup.method, "recipe": setup.recipe,
                  "sources": setup.sources, "hyperparameters": setup.hyperparameters, "measure": measure,
                  "runnable": runnable.get(row["setup"], False)}


def _write_ahead(db: sqlite3.Connection) -> None:
    """Switch to write-ahead logging; two processes that open a new store at once may have to wait for each other."""
    for attempt in range(100):
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or attempt == 99:
                raise
            time.sleep(0.05)


@cache
def _embedded() -> Store:
    store = Store.memory()
    evidence.read(store, Path(str(files("metamed").joinpath("data"))))
    return store
