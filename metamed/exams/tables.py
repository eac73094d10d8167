"""Tables of results, datasets x items: what a recommender learns from and what an exam asks about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from metamed.errors import ReadError, UnknownName

ALIASES = {
    "n": ("n_train", "num_samples"),
    "classes": ("n_classes", "num_classes"),
    "channels": ("n_channels",),
    "imbalance": ("imbalance_ratios",),
    "modality": ("modality", "domains"),
    "task": ("task", "task_types"),
}
# first match wins; a word that none matches stays its own group
MODALITIES = {
    "fundus": "fundus",
    "microscop": "microscopy",
    "histopath": "microscopy",
    "dermat": "dermoscopy",
    "skin": "dermoscopy",
    "x-ray": "x-ray",
    "oct": "oct",
    "ultrasound": "ultrasound",
    "mri": "mri",
    "ct": "ct",
}
LOWER_IS_BETTER = re.compile(r"loss|error|\bhd|hd95|hausdorff|distance|rmse|mae\b|brier|ece\b|regret", re.I)
LABEL_KINDS = {"part of a tumour": "tumour", "part of an organ": "thin", "thin structure": "thin"}
Columns = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Table:
    """Scores of `items` on `datasets` by one measure under one protocol; higher is better.

    scores: float (n, m), NaN where not run. families: (n,), datasets that share images carry one name.
    facts: about datasets, name -> (n,); numbers with NaN, or strings with "" where unknown.
    descriptors: about items, name -> (m,). origins: facts of the dataset that each item was pre-trained on, (m,) each.
    hints: published transferability scores or minus distances, name -> (n, m), higher is better.
    notes: what was done to the figures when they were read.
    """

    name: str
    measure: str
    datasets: tuple[str, ...]
    items: tuple[str, ...]
    scores: np.ndarray
    families: tuple[str, ...]
    facts: Columns = field(default_factory=dict)
    descriptors: Columns = field(default_factory=dict)
    origins: Columns = field(default_factory=dict)
    hints: dict[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def rows(self, which: Sequence[int] | np.ndarray) -> Table:
        """The same items on some of the datasets: indices, or a mask."""
        index = np.arange(len(self.datasets))[np.asarray(which)]
        pick = {name: tuple(getattr(self, name)[i] for i in index) for name in ("datasets", "families")}
        facts = {name: column[index] for name, column in self.facts.items()}
        hints = {name: value[index] for name, value in self.hints.items()}
        return replace(self, scores=self.scores[index], facts=facts, hints=hints, **pick)

    def columns(self, which: Sequence[int] | np.ndarray) -> Table:
        """Some of the items on the same datasets."""
        index = np.arange(len(self.items))[np.asarray(which)]
        item_facts = {
            part: {k: v[index] for k, v in getattr(self, part).items()} for part in ("descriptors", "origins")
        }
        hints = {name: value[:, index] for name, value in self.hints.items()}
        items = tuple(self.items[j] for j in index)
        return replace(self, scores=self.scores[:, index], items=items, hints=hints, **item_facts)

    def hidden(self, shown: Sequence[str] = ()) -> Table:
        """Without scores but those of the `shown` items (runs on the target). NaN is asked, -inf is no candidate."""
        known = np.isin(np.array(self.items, dtype=object), list(shown)) & np.isfinite(self.scores)
        return replace(self, scores=np.where(known, self.scores, np.where(np.isnan(self.scores), -np.inf, np.nan)))

    def family_folds(self) -> list[np.ndarray]:
        """One mask per family, True on its datasets."""
        families = np.array(self.families, dtype=object)
        return [families == family for family in dict.fromkeys(self.families)]


def number(value) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return np.nan


def size_facts(n: np.ndarray, classes: np.ndarray) -> Columns:
    """log10 of the training samples, log2 of the classes, log10 of the samples per class."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return {"log_n": np.log10(n), "log_classes": np.log2(classes), "log_per_class": np.log10(n / classes)}


def informative(column: np.ndarray) -> bool:
    """Does it tell any two apart?"""
    if column.dtype == object:
        return len(set(column)) > 1
    return np.isfinite(column).any() and np.nanmax(column) > np.nanmin(column)


def distinct(columns: Columns) -> Columns:
    """Without categories that part the items exactly as an earlier one does: it would only count twice."""
    seen: dict[tuple, str] = {}
    for name, column in columns.items():
        codes = {level: i for i, level in enumerate(dict.fromkeys(column))} if column.dtype == object else None
        seen.setdefault(tuple(codes[v] for v in column) if codes else (name,), name)
    return {name: columns[name] for name in seen.values()}


def read_tables(
    path, *, datasets=None, families=None, distances=None, networks=None, labels=None,
    items: Sequence[str] | None = None, by: Sequence[str] | None = None,
) -> list[Table]:  # fmt: skip
    """Result tables of a CSV, one Table for each (task, metric, scenario), or each (metric, *by).

    path: columns dataset, method, pretraining_source, setting, metric, value, one row a figure.
    datasets: CSV of facts about datasets. families: CSV of (dataset, family). distances: CSV of (source, target,
    value) by name. networks: CSV of facts about architectures. labels: CSV of (dataset, label_kind).
    items: the columns that name an item; by default the fewest of method, pretraining_source and setting
    that make (dataset, item) unique within a metric.
    """
    import pandas as pd

    path = Path(path)
    frame = pd.read_csv(path)
    if missing := [c for c in ("dataset", "metric", "value", *(items or ()), *(by or ())) if c not in frame]:
        raise ReadError(f"{path.name}: no column {', '.join(missing)} (found: {', '.join(frame)}). Rename it.")
    for column in ("method", "pretraining_source", "setting", "task"):
        frame[column] = frame[column].fillna("").astype(str) if column in frame else ""
    frame["value"] = pd.to_numeric(frame["value"], errors="coerce")
    frame = frame.dropna(subset=["dataset", "metric", "value"]).assign(dataset=lambda f: f["dataset"].astype(str))
    frame["scenario"] = frame["setting"].str.extract(r"\bscenario (\w+)", expand=False).fillna("")
    keys = ["metric", *by] if by else ["task", "metric", "scenario"]
    info = _dataset_info(datasets, labels, path.stem)
    extra = {"families": _families(families, path.stem), "distances": distances, "networks": _read(networks)}
    tables, refused = [], []
    for key, rows in frame.groupby(keys, sort=False):
        name = " ".join([path.stem, *(str(k) for k in key if k)])
        try:
            tables.append(_table(name, str(rows["metric"].iloc[0]), rows, info, items, extra))
        except ReadError as error:
            refused.append(str(error))
    if not tables:
        raise ReadError(refused[0] if refused else f"{path.name}: no figures in it (found 0 numeric values)")
    return [replace(t, notes=(*t.notes, *refused)) if t is tables[0] else t for t in tables]


def select(tables: Sequence[Table], words: str) -> Table:
    """The one table whose name has all the words behind the name of its file."""
    found = [t for t in tables if set(words.split()) <= set(t.name.split()[1:])]
    if len(found) != 1:
        raise UnknownName("table", words, [t.name for t in tables])
    return found[0]


def _read(path):
    import pandas as pd

    return None if path is None else pd.read_csv(path)


def _table(name, measure, rows, info, items, extra) -> Table:
    columns = list(items or _item_columns(rows))
    label = rows[columns].agg(" | ".join, axis=1) if len(columns) > 1 else rows[columns[0]]
    rows = rows.assign(item=label.astype(str))
    values, notes = _unify(name, measure, rows)
    matrix = rows.assign(value=values).pivot_table(
        index="dataset", columns="item", values="value", aggfunc="mean", sort=False
    )
    if len(matrix) < 2 or len(matrix.columns) < 2:
        raise ReadError(f"{name}: {len(matrix)} dataset(s) x {len(matrix.columns)} item(s); an order needs two of each")
    if np.nanmax(matrix.values) == np.nanmin(matrix.values):
        raise ReadError(f"{name}: every value is {np.nanmax(matrix.values):g}; a constant measure orders nothing")
    names = list(map(str, matrix.index))
    first = rows.drop_duplicates("item").set_index("item").loc[list(matrix.columns)]
    facts = _facts(names, info, rows.drop_duplicates("dataset").set_index("dataset").get("dataset_version_or_size"))
    origins = _facts(list(first["pretraining_source"]), info)
    families = tuple(str(extra["families"].get(n, n)) for n in names)
    return Table(
        name,
        measure,
        tuple(names),
        tuple(matrix.columns),
        matrix.to_numpy(float, copy=True),
        families,
        facts,
        _descriptors(first, extra["networks"]),
        origins,
        _hints(names, first, extra["distances"]),
        tuple(notes),
    )


def _item_columns(rows) -> tuple[str, ...]:
    """The fewest columns that tell the items apart; all that vary when even they leave duplicates."""
    choices = ("method", "pretraining_source", "setting")
    for k in (1, 2, 3):
        for columns in combinations(choices, k):
            if not rows.duplicated(["dataset", *columns]).any():
                return columns
    return tuple(c for c in choices if rows[c].nunique() > 1) or ("method",)


def _unify(name, measure, rows):
    """Values with higher better and fractions for percents, with a note of whatever was done."""
    values, notes = rows["value"].copy(), []
    if LOWER_IS_BETTER.search(measure):
        return -values, [f"{measure}: lower is better, taken with a minus sign"]
    repeated = rows[rows.duplicated(["dataset", "item"], keep=False)].groupby(["dataset", "item"])["value"].nunique()
    if (repeated > 1).any():
        notes.append(f"{int((repeated > 1).sum())} (dataset, item) pairs have several values: their mean is used")
    bounded = values.min() >= -1 and values.max() <= 100
    percent = rows["dataset"].map(values.groupby(rows["dataset"]).max()) > 1.5
    if bounded and percent.any():
        if ((values < 1) & percent).any() and not percent.all():
            raise ReadError(
                f"{name}: percents and fractions mixed within one dataset (values {values.min():g} to "
                f"{values.max():g}). Write all of them as fractions."
            )
        values[percent] /= 100
        notes.append(
            "percents were divided by 100" + ("" if percent.all() else " (other datasets already had fractions)")
        )
    return values, notes


def _families(path, stem) -> dict[str, str]:
    frame = _read(path)
    if frame is None:
        return {}
    if "table" in frame:
        frame = frame[[stem.startswith(str(t)) for t in frame["table"]]]
    return dict(zip(frame["dataset"].astype(str), frame["family"].astype(str), strict=True))


def _dataset_info(datasets, labels, stem) -> dict[str, dict]:
    """dataset -> {fact: raw value}, whichever of the known column names the files use."""
    info: dict[str, dict] = {}
    if (frame := _read(datasets)) is not None:
        for row in frame.to_dict("records"):
            name = str(row.get("dataset", row.get("name")))
            info[name] = {fact: next((row[a] for a in names if a in row), None) for fact, names in ALIASES.items()}
    if (frame := _read(labels)) is not None:
        for row in frame[[stem.startswith(str(t)) for t in frame["table"]]].to_dict("records"):
            kind = LABEL_KINDS.get(row["label_kind"], row["label_kind"])
            info.setdefault(row["dataset"], {})["label_kind"] = kind
    return info


def _text(value) -> str:
    return re.sub(r"\s*\(.*?\)", "", value).strip().lower() if isinstance(value, str) else ""


def _modality(value) -> str:
    text = _text(value)
    return next((group for word, group in MODALITIES.items() if re.search(rf"\b{word}", text.replace("_", "-"))), text)


def _training_images(text) -> float:
    """Training images, from a description such as 'n=30', 'train/val/test 569/64/293' or '89910 images'."""
    match = re.search(r"train\S*\s+(\d+)/|\bn=(\d+)|\b(\d+) (?:images|samples)", str(text))
    return float(next(g for g in match.groups() if g)) if match else np.nan


def _facts(names, info, sizes=None) -> Columns:
    """Facts of the named datasets: sizes as logarithms, words as categories, parts of path-like names as categories."""
    known = [info.get(n, {}) for n in names]
    n = np.array([number(k.get("n")) for k in known])
    if sizes is not None:
        n = np.where(np.isnan(n), [_training_images(sizes.get(name)) for name in names], n)
    classes = np.array([number(k.get("classes")) for k in known])
    facts = size_facts(n, classes)
    facts["channels"] = np.array([number(k.get("channels")) for k in known])
    facts["imbalance"] = np.log10(np.array([number(k.get("imbalance")) for k in known]))
    facts["modality"] = np.array([_modality(k.get("modality")) for k in known], dtype=object)
    facts["task"] = np.array([_text(k.get("task")) for k in known], dtype=object)
    facts["label_kind"] = np.array([str(k.get("label_kind") or "") for k in known], dtype=object)
    parts = [name.split("/") for name in names]
    if len({len(p) for p in parts}) == 1:
        for level, column in enumerate(zip(*parts, strict=True)):
            if 1 < len(set(column)) < len(names):
                facts[f"name.{level}"] = np.array(column, dtype=object)
    return {name: column for name, column in facts.items() if informative(column)}


def _descriptors(first, networks) -> Columns:
    """Facts about items: the parts of their own words, the image size in them, and the network they name."""
    columns: Columns = {}
    for column in ("method", "pretraining_source", "setting"):
        parts = [[p.strip() for p in re.split(r"[;(),|]", text) if p.strip()] or [""] for text in first[column]]
        for k in range(max(map(len, parts))):
            columns[f"{column}.{k}"] = np.array([p[k] if k < len(p) else "" for p in parts], dtype=object)
    pixels = first["setting"].str.extract(r"\b(\d+)x\d+", expand=False).astype(float)
    columns["log_pixels"] = np.log2(pixels.to_numpy())
    if networks is not None:
        found = [_network(text, networks) for text in first["method"]]
        columns["log_parameters"] = np.log10([number(f.get("million_parameters")) for f in found])
        columns["imagenet_top1"] = np.array([number(f.get("imagenet_top1")) for f in found])
        for name in ("architecture", "pretraining"):
            columns[f"network.{name}"] = np.array([str(f.get(name) or "") for f in found], dtype=object)
    return distinct({name: column for name, column in columns.items() if informative(column)})


def _network(text, networks) -> dict:
    """The row of the network that a method's words name: by equal, else by leading letters and digits."""
    words = [re.sub(r"\W|_", "", w).lower() for w in text.split()]
    names = [(re.sub(r"\W|_", "", str(n)).lower(), i) for i, n in enumerate(networks["network"])]
    exact = [i for w in words for n, i in names if w == n]
    near = [i for w in words for n, i in sorted(names) if len(w) > 5 and n.startswith(w)]
    return networks.iloc[(exact or near)[0]].to_dict() if exact or near else {}


def _hints(names, first, path) -> dict[str, np.ndarray]:
    """Published scores and minus distances of each item for each dataset, by the names they have in the file."""
    frame = _read(path)
    if frame is None:
        return {}
    value = "distance" if "distance" in frame else "value"
    kind = "distance_name" if "distance_name" in frame else "transferability_score"
    source = "source" if "source" in frame else "source_dataset_or_model"
    target = "target" if "target" in frame else "dataset"
    by = "pretraining_source" if first["pretraining_source"].nunique() > 1 else "method"
    hints = {}
    for name, rows in frame.groupby(kind, sort=False):
        grid = rows.pivot_table(index=target, columns=source, values=value)
        grid = grid.reindex(index=names, columns=list(first[by])).to_numpy(float)
        if np.isfinite(grid).any():
            hints[str(name)] = -grid if value == "distance" else grid
    return hints
