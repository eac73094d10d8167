"""The evidence as rows and as text: how a record becomes a row of a table, and the reviewable files that ship.

A folder of evidence holds `datasets.csv`, `metafeatures.csv` (wide), `thumbnails.csv`, `sources.csv`, `setups.csv`,
`tasks.csv`, `runs/<suite>.csv` (one row a run) and `published/<study>.csv` (one row a figure; what all rows of a study
share stands in `studies.csv`). `metamed/data` is such a folder.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from metamed.dataset import Card, Dataset, Kind, Split, modality_group
from metamed.errors import ReadError
from metamed.label_kinds import named_kind
from metamed.records import Published, Run, Setup, Source, Task, content_id

COLUMNS: dict[str, tuple[str, ...]] = {
    "dataset": ("digest", "name", "kind", "family", "modality", "organ", "n_samples", "n_classes", "n_channels",
                "height", "width", "classes", "spacing", "license", "url", "facts"),
    "source": ("id", "name", "network", "objective", "corpus", "preprocessing", "sha256", "licence", "origin"),
    "setup": ("id", "method", "recipe", "sources", "hyperparameters"),
    "task": ("id", "dataset", "digest", "kind", "target", "size", "procedure", "measure", "folds"),
    "run": ("id", "task", "setup", "seed", "versions", "weights", "seconds", "environment", "error"),
    "published": ("id", "study", "protocol", "dataset", "target", "setup", "measure", "value", "sd", "repeats",
                  "paper", "place"),
}
_NUMBERS = {"n_samples": int, "n_classes": int, "n_channels": int, "height": int, "width": int, "size": int,
            "seed": int, "seconds": float, "value": float, "sd": float, "repeats": int}
_NULLABLE = {*_NUMBERS, "recipe", "error"}


def pseudo_digest(name: str) -> str:
    """Stands in for the digest of a dataset whose images nobody here holds: a hash of its name."""
    return content_id("dataset", name)


@dataclass(frozen=True)
class DatasetFacts:
    """What the store keeps of a dataset: its card and sizes, never its images. None means unknown.

    n_samples: images, or bags. height, width: pixels. facts: further numbers and words, e.g. n_train, label_kind.
    """

    digest: str
    name: str
    kind: Kind
    card: Card = field(default_factory=Card)
    n_samples: int | None = None
    n_classes: int | None = None
    n_channels: int | None = None
    height: int | None = None
    width: int | None = None
    facts: dict[str, float | str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.digest

    @property
    def family(self) -> str:
        return self.card.family or self.name

    @property
    def modality_group(self) -> str:
        return modality_group(self.card.modality)

    @property
    def words(self) -> dict[str, str]:
        """What is said in words, by name."""
        told = {"label_kind": named_kind(self.card.classes, self.name)} if self.kind == "segmentation" else {}
        own = told | {"name": self.name, "kind": self.kind, "family": self.family, "modality": self.card.modality,
               "modality_group": self.modality_group, "organ": self.card.organ}
        return own | {name: value for name, value in self.facts.items() if isinstance(value, str)}

    @property
    def numbers(self) -> dict[str, float]:
        """What is known in numbers, by name."""
        sizes = {n: getattr(self, n) for n in ("n_samples", "n_classes", "n_channels", "height", "width")}
        return {n: float(v) for n, v in (self.facts | sizes).items() if v is not None and not isinstance(v, str)}

    @classmethod
    def of(cls, dataset: Dataset) -> DatasetFacts:
        shape = dataset.images.shape
        facts = {"multi_label": float(dataset.multi_label), "n_images": len(dataset.images)}
        if dataset.split is not None:
            facts["n_train"] = int((np.asarray(dataset.split) == 0).sum())
        image = len(shape) >= 4
        return cls(dataset.digest, dataset.name, dataset.kind, dataset.card, dataset.n_samples, dataset.n_classes,
                   shape[1] if image else None, shape[-2] if image else None, shape[-1] if image else None, facts)


Record = Setup | Source | Task | Run | Published | DatasetFacts


def folds_to_text(folds: Iterable[Split]) -> str:
    """One character per sample and fold, t(rain) v(alidation) e(valuation) -(unused), folds joined by `|`.

    Splits that this cannot hold (another order than ascending, a sample twice) are written as JSON instead.
    """
    folds = tuple(folds)
    size = max((i for f in folds for part in (f.train, f.validation, f.test) for i in part), default=-1) + 1
    text = "|".join(_fold_text(f, size) for f in folds)
    if text_to_folds(text) == folds:
        return text
    return _json([[list(map(int, part)) for part in (f.train, f.validation, f.test)] for f in folds])


def _fold_text(fold: Split, size: int) -> str:
    letters = np.full(size, b"-", "S1")
    for part, letter in ((fold.train, b"t"), (fold.validation, b"v"), (fold.test, b"e")):
        letters[list(part)] = letter
    return letters.tobytes().decode()


def text_to_folds(text: str) -> tuple[Split, ...]:
    if text.startswith("["):
        return tuple(Split(*map(tuple, fold)) for fold in json.loads(text))
    folds = (np.frombuffer(part.encode(), "S1") for part in text.split("|") if part)
    return tuple(Split(*(tuple(np.flatnonzero(f == letter).tolist()) for letter in (b"t", b"v", b"e"))) for f in folds)


_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def to_row(r: Record) -> tuple[str, tuple]:
    """Table and row of a record, in the order of `COLUMNS`; a run's evaluations are rows of their own."""
    match r:
        case Setup():
            return "setup", (r.id, r.method, r.recipe, _json(r.sources), _json(r.hyperparameters))
        case Source():
            return "source", (r.id, r.name, r.network, r.objective, _json(r.corpus), r.preprocessing, r.sha256,
                              r.licence, r.origin)
        case Task():
            return "task", (r.id, r.dataset, r.digest, r.kind, r.target, r.size, r.procedure, r.measure,
                            folds_to_text(r.folds))
        case Run():
            return "run", (r.id, r.task, r.setup, r.seed, _json(r.versions), _json(r.weights), float(r.seconds),
                           _json(r.environment), r.error)
        case Published():
            sd = None if r.sd is None else float(r.sd)
            return "published", (r.id, r.study, r.protocol, r.dataset, r.target, r.setup, r.measure, float(r.value), sd,
                                 r.repeats, r.paper, r.place)
        case DatasetFacts():
            c = r.card
            return "dataset", (r.digest, r.name, r.kind, r.family, c.modality, c.organ, r.n_samples, r.n_classes,
                               r.n_channels, r.height, r.width, _json(c.classes), _json(c.spacing), c.license, c.url,
                               _json(r.facts))
    raise TypeError(f"a store keeps records, not {type(r).__name__}")


def from_row(table: str, row: tuple, evaluations: dict[str, tuple[float, ...]] | None = None) -> Record:
    """The record of a row."""
    r = dict(zip(COLUMNS[table], row, strict=True))
    if table == "setup":
        return Setup(r["method"], json.loads(r["hyperparameters"]), r["recipe"], tuple(json.loads(r["sources"])))
    if table == "source":
        return Source(r["name"], r["network"], r["objective"], tuple(json.loads(r["corpus"])), *row[5:])
    if table == "task":
        return Task(*row[1:8], text_to_folds(r["folds"]))
    if table == "run":
        return Run(r["task"], r["setup"], r["seed"], tuple(json.loads(r["versions"])), evaluations or {}, r["seconds"],
                   json.loads(r["environment"]), tuple(json.loads(r["weights"])), r["error"])
    if table == "published":
        return Published(*row[1:])
    family = "" if r["family"] == r["name"] else r["family"]
    classes, spacing = tuple(json.loads(r["classes"])), tuple(json.loads(r["spacing"]))
    card = Card(r["modality"], r["organ"], classes, spacing, r["license"], r["url"], family)
    return DatasetFacts(r["digest"], r["name"], r["kind"], card, *row[6:11], json.loads(r["facts"]))


# the folder of text tables

_FILES = {"dataset": "datasets", "source": "sources", "setup": "setups", "task": "tasks"}  # table -> file


def write(store, folder: Path, suite: str) -> None:
    """Unite a store with a folder of text tables; its runs that no other suite's file holds go to runs/<suite>.csv.

    Only setups and tasks that a run or figure refers to are written. Evaluations are rounded to 6 significant digits
    and seconds to 3; ids are not touched by that.
    """
    united = type(store).memory()
    united.merge(store, artifacts=False)  # first come, first kept: the store is newer than the folder
    read(united, folder)
    others = {row[0] for path in (folder / "runs").glob("*.csv") if path.stem != suite for row in _read_runs(path)[0]}
    records = {table: united.records(table) for table in COLUMNS}
    used = {id for r in records["run"] for id in (r.task, r.setup)} | {f.setup for f in records["published"]}
    for table, file in _FILES.items():
        rows = [to_row(r)[1] for r in records[table] if table in ("dataset", "source") or r.id in used]
        _write_table(folder / f"{file}.csv", COLUMNS[table], sorted(rows, key=lambda r: (str(r[1]), str(r[0]))))
    _write_metafeatures(folder / "metafeatures.csv", united.measured())
    thumbnails = sorted(united.thumbnails().items())
    _write_table(folder / "thumbnails.csv", ("dataset", "hashes"), [(d, h.hex()) for d, h in thumbnails])
    if own := [r for r in records["run"] if r.id not in others]:
        _write_runs(folder / "runs" / f"{suite}.csv", own)
    _write_published(folder, records["published"])


def _write_table(path: Path, columns: Iterable[str], rows: Iterable[Iterable]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(["" if v is None else repr(v) if isinstance(v, float) else v for v in row] for row in rows)


def _write_metafeatures(path: Path, vectors: dict[str, dict[str, float]]) -> None:
    names = sorted({name for values in vectors.values() for name in values})
    rows = [(digest, *(values.get(n) for n in names)) for digest, values in sorted(vectors.items())]
    _write_table(path, ("dataset", *names), rows)


_RUN = ("task", "setup", "seed", "versions", "weights", "seconds", "error")


def _write_runs(path: Path, runs: list[Run]) -> None:
    measures = sorted({m for r in runs for m in r.evaluations})
    environment = sorted({k for r in runs for k in r.environment})
    rows = [(r.task, r.setup, r.seed, _join(r.versions), _join(r.weights), float(f"{r.seconds:.3g}"), r.error,
             *(r.environment.get(k) for k in environment),
             *(_join(f"{v:.6g}" for v in r.evaluations.get(m, ())) for m in measures)) for r in runs]
    columns = (*_RUN, *(f"env.{k}" for k in environment), *measures)
    _write_table(path, columns, sorted(rows, key=lambda row: tuple(map(str, row[:5]))))


def _join(values: Iterable) -> str:
    return " ".join(map(str, values))


_STUDY = ("study", "protocol", "paper", "place", "licence", "repository")  # what the rows of a study and protocol share


def shipped_studies() -> set[str]:
    """Names of the studies whose figures ship: their licence allows it. The shipped learner knows no others."""
    return {Path(f.name).stem for f in files("metamed").joinpath("data", "published").iterdir()}


def describe_studies(folder: Path, studies: dict[str, tuple[str, str]]) -> None:
    """Note the licence and the repository of studies whose figures are about to be written into a folder."""
    _write_table(folder / "studies.csv", _STUDY, [(study, "", "", "", *of) for study, of in sorted(studies.items())])


def _write_published(folder: Path, figures: list[Published]) -> None:
    """One file a study; setups by the first 12 digits of their id; `place` only where it differs from the study's."""
    if not figures:
        return
    places: dict[tuple[str, str, str], list[str]] = {}
    for f in figures:
        places.setdefault((f.study, f.protocol, f.paper), []).append(f.place)
    common = {key: max(sorted(set(p)), key=p.count) for key, p in places.items()}
    kept = {r["study"]: (r["licence"], r["repository"]) for r in _read_table(folder / "studies.csv")}
    rows = [(*key[:2], key[2], place, *kept.get(key[0], ("", ""))) for key, place in sorted(common.items())]
    _write_table(folder / "studies.csv", _STUDY, rows)
    for study in sorted({f.study for f in figures}):
        rows = sorted((f.protocol, f.dataset, f.target, f.measure, f.setup[:12], f.value, f.sd, f.repeats,
                       "" if f.place == common[f.study, f.protocol, f.paper] else f.place)
                      for f in figures if f.study == study)
        _write_table(folder / "published" / f"{study}.csv", _FIGURE, rows)


_FIGURE = ("protocol", "dataset", "target", "measure", "setup", "value", "sd", "repeats", "place")


def read(store, folder: Path) -> None:
    """Add a folder of text tables to a store. Tables that are not there are empty."""
    for table, file in _FILES.items():
        store.add_rows(table, _read_rows(folder / f"{file}.csv", table))
    store.add_rows("metafeature", _read_metafeatures(folder / "metafeatures.csv"))
    thumbnails = _read_table(folder / "thumbnails.csv")
    store.add_rows("thumbnail", [(r["dataset"], bytes.fromhex(r["hashes"])) for r in thumbnails])
    for path in sorted((folder / "runs").glob("*.csv")):
        for table, rows in zip(("run", "evaluation"), _read_runs(path), strict=True):
            store.add_rows(table, rows)
    store.add_rows("published", _read_published(folder))


def _read_table(path: Path) -> Iterator[dict[str, str]]:
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)


def _read_rows(path: Path, table: str) -> Iterator[tuple]:
    for r in _read_table(path):
        try:
            yield tuple(_value(c, r[c]) for c in COLUMNS[table])
        except (KeyError, ValueError) as error:
            raise ReadError(f"{path}: unreadable row {list(r.values())[:2]}: {error}") from None


def _value(column: str, text: str):
    return None if text == "" and column in _NULLABLE else _NUMBERS.get(column, str)(text)


def _read_metafeatures(path: Path) -> Iterator[tuple]:
    for r in _read_table(path):
        digest = r.pop("dataset")
        yield from ((digest, name, float(text)) for name, text in r.items() if text)


def _read_runs(path: Path) -> tuple[list[tuple], list[tuple]]:
    """Rows of the tables `run` and `evaluation`, made without records: ten thousand of them are read at every start."""
    runs, evaluations, own = [], [], len(_RUN)
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        head = next(rows, [])
        if tuple(head[:own]) != _RUN:
            raise ReadError(f"{path}: expected the columns {', '.join(_RUN)}")
        said = [name.removeprefix("env.") for name in head[own:] if name.startswith("env.")]
        measures, first = head[own + len(said) :], own + len(said)
        environment = cache(lambda words: _json({n: v for n, v in zip(said, words, strict=True) if v}))
        numbers, words = cache(lambda text: tuple(map(int, text.split()))), cache(lambda text: tuple(text.split()))
        listed = cache(_json)
        for row in rows:
            task, setup, seed, versions, weights, seconds, error = row[:own]
            known = numbers(versions), words(weights)
            id = content_id("run", task, setup, int(seed), *known)  # as Run.id
            runs.append((id, task, setup, int(seed), *map(listed, known), float(seconds),
                         environment(tuple(row[own:first])), error or None))  # fmt: skip
            for name, text in zip(measures, row[first:], strict=True):
                evaluations += [(id, name, fold, float(v)) for fold, v in enumerate(text.split())]
    return runs, evaluations


def _read_published(folder: Path) -> Iterator[tuple]:
    """Rows of the table `published`, made without records on the way: ten thousand of them are read at every start."""
    studies = {(r["study"], r["protocol"]): (r["paper"], r["place"]) for r in _read_table(folder / "studies.csv")}
    setups = {r["id"][:12]: r["id"] for r in _read_table(folder / "setups.csv")}
    for path in sorted((folder / "published").glob("*.csv")):
        study = path.stem
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            if tuple(next(rows, ())) != _FIGURE:
                raise ReadError(f"{path}: expected the columns {', '.join(_FIGURE)}")
            for protocol, dataset, target, measure, short, value, sd, repeats, place in rows:
                setup, (paper, usual) = setups[short], studies[study, protocol]
                id = content_id("published", study, protocol, dataset, target, setup, measure)  # as Published.id
                yield (id, study, protocol, dataset, target,
                       setup, measure, float(value), float(sd) if sd else None, int(repeats), paper, place or usual)
