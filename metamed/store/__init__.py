"""The store: one SQLite file that remembers every dataset, task, setup, run and published figure, failures included."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import numpy as np

from metamed.dataset import Dataset, near_matches
from metamed.errors import MetamedError, UnknownName
from metamed.measures import get_measure
from metamed.records import Run, Source
from metamed.store import evidence
from metamed.store.artifacts import Artifacts
from metamed.store.collected import merge_collected
from metamed.store.database import Database
from metamed.store.evidence import COLUMNS, DatasetFacts, Record, from_row, to_row
from metamed.store.labels import keep_labels
from metamed.store.limits import checked
from metamed.store.scores import cost_rows, example_rows
from metamed.store.shipped import fill

RECOGNISED = 0.10  # share of near-duplicate thumbnails that makes two datasets kin; unrelated ones share at most 4 %


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
        self.path: Path | None = Path(path).expanduser()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MetamedError(f"{self.path}: {error.strerror}. Pass another --store, or set METAMED_STORE.") from None
        self._db = Database(self.path)
        self._files = Artifacts(self.path.with_name(self.path.name + ".files"))
        self._examples: dict = {}

    @classmethod
    def memory(cls) -> Store:
        """An empty store that dies with the process; its artifacts live in a temporary folder."""
        store = cls.__new__(cls)
        store.path, store._db, store._files = None, Database(":memory:"), Artifacts()
        store._examples = {}
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
        cls.embedded()._db.copy_to(store._db)
        if user is None and default_path().exists():
            user = cls.default()
        if user is not None:
            store.merge(user, artifacts=False)
            store._files = Artifacts(others=user._files.folders)
        return store

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    # records in

    def add(self, record: Record | Dataset, *, artifacts: Mapping[str, bytes] | None = None) -> str:
        """Keep a record and return its id. Adding it again changes nothing.

        One exception: a run that failed is replaced by a success of the same id; a success is never replaced.
        artifacts: file name -> content, written before the row, so that a row never promises a file that is not there.
        """
        if artifacts:
            done = self._db.all("SELECT 1 FROM run WHERE id = ? AND error IS NULL", record.id)
            self._files.put(record.id, artifacts, keep=bool(done))
        return self.add_all([record])[0]

    def add_all(self, records: Iterable[Record | Dataset]) -> list[str]:
        """Keep many records in one transaction: all of them or none."""
        records = list(records)
        kept = [checked(DatasetFacts.of(r) if isinstance(r, Dataset) else r) for r in records]
        hashes = [(r.digest, r.thumbnails.tobytes()) for r in records if isinstance(r, Dataset)]
        for dataset in (r for r in records if isinstance(r, Dataset)):
            keep_labels(self._files, dataset)
        self.add_legal(kept, hashes)
        return [r.id for r in kept]

    def add_legal(self, records: Iterable[Record], hashes: Iterable[tuple[str, bytes]] = ()) -> None:
        """`add_all` for records that a store gave away before; hashes: thumbnails by digest."""
        with self._db.transaction() as db:
            for record in records:
                self._insert(db, record)
            db.executemany("INSERT OR IGNORE INTO thumbnail VALUES (?, ?)", hashes)

    def _insert(self, db: sqlite3.Connection, record: Record) -> None:
        table, row = to_row(record)
        marks = ", ".join("?" * len(row))
        new = db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row).rowcount
        if not isinstance(record, Run):
            return
        if not new and record.error is None:  # only a failure gives way, and only to a success
            db.execute("DELETE FROM run WHERE id = ? AND error IS NOT NULL", row[:1])
            new = db.execute(f"INSERT OR IGNORE INTO run VALUES ({marks})", row).rowcount
        if new:
            values = [(row[0], m, fold, v) for m, folds in record.evaluations.items() for fold, v in enumerate(folds)]
            db.executemany("INSERT OR REPLACE INTO evaluation VALUES (?, ?, ?, ?)", values)

    def add_rows(self, table: str, rows: Iterable[tuple]) -> None:
        """Keep rows that `evidence` has read from files: complete and legal already, because a store wrote them."""
        self._db.insert(table, rows)

    def add_metafeatures(self, dataset: Dataset | str, values: Mapping[str, float]) -> None:
        """Keep meta-features of a dataset (or digest); a newer value replaces the older. NaN means not applicable."""
        digest = dataset if isinstance(dataset, str) else self.add(dataset)
        self._db.insert("metafeature", ((digest, name, float(v)) for name, v in values.items()), replace=True)

    def add_pair(self, source: str, target: str, values: Mapping[str, float]) -> None:
        """Keep pair meta-features of a source (name or digest) and a target (digest)."""
        self._db.insert("pair", ((source, target, name, float(v)) for name, v in values.items()), replace=True)

    def pair(self, source: str, target: str) -> dict[str, float]:
        """Pair meta-features as they were added; empty if there are none."""
        found = self._db.all("SELECT name, value FROM pair WHERE source = ? AND target = ?", source, target)
        return {name: float("nan") if value is None else value for name, value in found}

    def merge(self, other: Store | str | Path, *, artifacts: bool = True) -> int:
        """Take over all records (and artifacts) of another store; returns how many runs and figures were new."""
        if not isinstance(other, Store):
            if not Path(other).is_file():
                raise MetamedError(f"{other}: no such store")
            other = Store(other)
        before = len(self)
        if artifacts:
            self._files.merge(other._files)  # files first: a row never promises a file that is not there
        for table in (*COLUMNS, "thumbnail", "metafeature", "pair", "remote"):
            if table != "run":
                self.add_rows(table, other._db.all(f"SELECT * FROM {table}"))
        merge_collected(self._db, other._db)
        self.add_legal(other.runs())
        return len(self) - before

    def __len__(self) -> int:
        """Runs and published figures together."""
        return self._db.all("SELECT (SELECT count(*) FROM run) + (SELECT count(*) FROM published)")[0][0]

    def __bool__(self) -> bool:  # an empty store is still a store
        return True

    # records out

    def get(self, id: str) -> Record:
        """Any record by its id, or by the first 8 or more digits of it if they are enough to tell."""
        found = [] if not re.fullmatch(r"[0-9a-f]{8,40}", id) else [
            (table, row) for table in COLUMNS
            for row in self._db.all(f"SELECT * FROM {table} WHERE {COLUMNS[table][0]} BETWEEN ? AND ?", id, id + "g")]
        if not found:
            raise UnknownName("record (a full id, or 8 digits of one)", id, [])
        if len(found) > 1:
            raise MetamedError(f"{id} is the start of {len(found)} ids: give more digits, e.g. {found[0][1][0]}")
        table, row = found[0]
        return from_row(table, row, self._evaluations([row[0]]).get(row[0]) if table == "run" else None)

    def runs(self, kind: str | None = None, dataset: str | None = None, unpublished: bool = False) -> list[Run]:
        """Runs, failures included; of a kind, of a dataset (name or digest), of those on no server yet."""
        columns = ", ".join(f"run.{c}" for c in COLUMNS["run"])
        rows = self._db.all(
            f"SELECT {columns} FROM run LEFT JOIN task ON task.id = run.task "
            "LEFT JOIN dataset ON dataset.digest = task.digest WHERE (? IS NULL OR task.kind = ?) "
            "AND (? IS NULL OR ? IN (task.dataset, task.digest, dataset.name)) "
            "AND NOT (? AND run.id IN (SELECT id FROM remote WHERE number NOT NULL)) ORDER BY run.rowid",
            kind, kind, dataset, dataset, unpublished)
        evaluations = self._evaluations([r[0] for r in rows])
        return [from_row("run", row, evaluations.get(row[0])) for row in rows]

    def _evaluations(self, ids: list[str]) -> dict[str, dict[str, tuple[float, ...]]]:
        few = len(ids) <= 900  # SQLite takes no more values in one statement on old machines
        where, values = (f"WHERE run IN ({', '.join('?' * len(ids))})", ids) if few else ("", ())
        found: dict[str, dict[str, tuple[float, ...]]] = {}
        sql = f"SELECT run, measure, value FROM evaluation {where} ORDER BY run, measure, fold"
        for run, measure, value in self._db.all(sql, *values):
            of_run = found.setdefault(run, {})
            of_run[measure] = (*of_run.get(measure, ()), value)
        return found

    def records(self, table: str) -> list[Record]:
        """All records of one kind: dataset, source, setup, task, run or published, in the order they came."""
        if table == "run":
            return self.runs()
        return [from_row(table, row) for row in self._db.all(f"SELECT * FROM {table} ORDER BY rowid")]

    def has(self, id: str) -> bool:
        """Is a record of this id here, a failed run included?"""
        return any(self._db.all(f"SELECT 1 FROM {table} WHERE {COLUMNS[table][0]} = ?", id) for table in COLUMNS)

    def source(self, name: str) -> Source:
        """The weights of that name, the latest ones if several were stored."""
        rows = self._db.all("SELECT * FROM source WHERE name = ? ORDER BY rowid DESC LIMIT 1", name)
        if not rows:
            raise UnknownName("source", name, [n for (n,) in self._db.all("SELECT DISTINCT name FROM source")])
        return from_row("source", rows[0])

    def dataset(self, name: str) -> DatasetFacts:
        """A dataset by digest or name, the one with images if a published one has the same name."""
        rows = self._db.all("SELECT dataset.* FROM dataset LEFT JOIN thumbnail ON dataset = digest "
                            "WHERE ? IN (digest, name) ORDER BY hashes IS NULL", name)
        if not rows:
            raise UnknownName("dataset", name, [n for (n,) in self._db.all("SELECT name FROM dataset")])
        return from_row("dataset", rows[0])

    def known(self, dataset: Dataset) -> list[tuple[str, str, float]]:
        """Datasets of the store that this one is or shares images with: (digest, name, share), largest share first.

        Share: 1 for an equal digest, else the part of its thumbnail hashes within 16 of 256 bits of one of theirs.
        """
        names, found = dict(self._db.all("SELECT digest, name FROM dataset")), []
        for digest, hashes in self._db.all("SELECT dataset, hashes FROM thumbnail"):
            theirs = np.frombuffer(hashes, np.uint8).reshape(-1, 32)
            share = float((near_matches(dataset.thumbnails, theirs) >= 0).mean()) if len(dataset.thumbnails) else 0.0
            share = 1.0 if digest == dataset.digest else share
            if share >= RECOGNISED:
                found.append((digest, names.get(digest, ""), share))
        return sorted(found, key=lambda f: -f[2])

    # tables

    def thumbnails(self) -> dict[str, bytes]:
        """Thumbnail hashes by digest, 32 bytes an image."""
        return dict(self._db.all("SELECT dataset, hashes FROM thumbnail"))

    def measured(self) -> dict[str, dict[str, float]]:
        """Meta-features by digest, as they were added."""
        found: dict[str, dict[str, float]] = {}
        for digest, name, value in self._db.all("SELECT dataset, name, value FROM metafeature"):
            found.setdefault(digest, {})[name] = float("nan") if value is None else value
        return found

    def vectors(self) -> dict[str, dict[str, float]]:
        """Meta-features by digest; the sizes of datasets whose images nobody here holds are among them."""
        found = {f.digest: f.numbers for f in self.records("dataset")}
        for digest, values in self.measured().items():
            found[digest] = found.get(digest, {}) | values
        return found

    def metafeatures(self):
        """DataFrame, one row per dataset, indexed by digest: what it is (words), then its meta-features (numbers)."""
        import pandas as pd

        words = {f.digest: f.words for f in self.records("dataset")}
        known = {digest: words.get(digest, {}) | values for digest, values in self.vectors().items()}
        return pd.DataFrame.from_dict(known, orient="index").rename_axis("digest")

    def example_rows(self, kind: str, measure: str) -> list[dict]:
        """`examples` as plain dictionaries, without pandas; the same ones until the store changes."""
        state = self._db.state()
        if self._examples.get("state") != state:
            self._examples = {"state": state}
        if (kind, measure) not in self._examples:
            self._examples[kind, measure] = example_rows(self, self._db, self._files, kind, measure)
        return self._examples[kind, measure]

    def cost_rows(self, kind: str) -> list[tuple[str, str, int, float, str]]:
        """(setup, digest, training samples, seconds, device) of every successful run of that kind."""
        return cost_rows(self._db, kind)

    def examples(self, kind: str, measure: str):
        """DataFrame of meta-examples, one row per successful run or published figure of that kind with that measure.

        Columns: study ("metamed" for runs), protocol, dataset (digest), name, family, target, setup (id), method,
        recipe, sources, hyperparameters, measure, seed, score, seconds, evidence (id), size (labelled samples that were
        used, none: all), runnable. Scores compare only within one (study, protocol, dataset, target, measure).
        """
        import pandas as pd

        columns = ["study", "protocol", "dataset", "name", "family", "target", "setup", "method", "recipe", "sources",
                   "hyperparameters", "measure", "seed", "score", "seconds", "evidence", "size", "runnable"]
        return pd.DataFrame(self.example_rows(kind, measure), columns=columns)

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
        """Weights of the best run of a method on a dataset (name or digest); of a source trained here, its own file.

        Best on validation (`validation_<measure>`) where that was stored, else by the measure of its task.
        """
        trained = {s.name: s for s in self.records("source") if s.origin == "train"}.get(source)
        names = (source, *(trained.corpus if trained else ()))
        kept = [(run, path) for name in names for run in self.runs(dataset=name)
                if (path := self._files.find(run.id, "weights.safetensors"))]
        if trained:  # the very file that the source was made of
            for _, path in kept:
                if sha256(path.read_bytes()).hexdigest() == trained.sha256:
                    return path
        found = [(self._merit(run), path) for run, path in kept if self.get(run.setup).method == method]
        found = [f for f in found if f[0] == f[0]]
        if not found:
            datasets = [n for (n,) in self._db.all("SELECT DISTINCT dataset FROM task")]
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
        rows = self._db.all("SELECT number FROM remote WHERE id = ? AND server = ?", id, server)
        return rows[0][0] if rows else None

    def set_remote(self, id: str, server: str, number: int) -> None:
        """Remember the number that a server gave to a record."""
        self._db.insert("remote", [(id, server, int(number))], replace=True)

    def import_table(self, path: str | Path, study: str | None = None) -> int:
        """Add a result table, see `published.import_table`; the number of new figures, with `notes`."""
        from metamed.store.published import import_table

        return import_table(self, path, study)

    def export(self, folder: str | Path, suite: str = "runs") -> None:
        """Write everything but artifacts into a folder of text tables, its runs to runs/<suite>.csv: see `evidence`."""
        evidence.write(self, Path(folder), suite)


@cache
def _embedded() -> Store:
    store = Store.memory()
    fill(store, store._db, Path(str(files("metamed").joinpath("data"))))
    return store
