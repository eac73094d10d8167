"""Result tables of studies, read as Tables: columns in, exam out, and every oddity in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from metamed.errors import NotApplicable, ReadError, UnknownName
from metamed.exams.tables import (
    LABEL_KINDS,
    LOWER_IS_BETTER,
    Columns,
    Table,
    distinct,
    informative,
    number,
    size_facts,
)

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
SOURCES = ("paper", "table_or_file", "source")  # columns that say where a value was read
SOURCED = "(sourced)"  # in the name of a table from which values without a source were taken out


def read_tables(
    path, *, datasets=None, families=None, distances=None, networks=None, labels=None,
    items: Sequence[str] | None = None, by: Sequence[str] | None = None,
) -> list[Table]:  # fmt: skip
    """Result tables of a CSV, one Table for each (task, metric, scenario), or each (metric, *by).

    path: columns dataset, method, pretraining_source, setting, metric, value, one row a figure; paper and table_or_file
    say where it was read, family names a row's family. A table in which some values have no source is followed by one
    without them. datasets: CSVs of facts about datasets. families: CSV of (dataset, family). distances: CSVs of
    (source, target, distance or value) by name. networks: CSV of facts about architectures. labels: CSV of
    (dataset, label_kind). items: the columns that name an item; by default the fewest of method, pretraining_source and
    setting that make (dataset, item) unique within a metric. Raises ReadError, in one line, where there is no order.
    """
    import pandas as pd

    path = Path(path)
    frame = _read(path)
    if missing := [c for c in ("dataset", "metric", "value", *(items or ()), *(by or ())) if c not in frame]:
        found = ", ".join(map(str, frame))
        raise ReadError(
            f"{path.name}: no column {', '.join(missing)} (found: {found[:200]}{'…' * (len(found) > 200)}). An exam "
            "needs one figure a row in dataset, method, metric, value; grids, curves, scores and facts are no results."
        )
    for column in ("method", "pretraining_source", "setting", "task"):
        frame[column] = frame[column].fillna("").astype(str).str.strip() if column in frame else ""
    value = pd.to_numeric(frame["value"], errors="coerce").replace([np.inf, -np.inf], np.nan)
    frame = frame.assign(value=value).dropna(subset=["dataset", "metric", "value"])
    frame = frame.assign(dataset=frame["dataset"].astype(str).str.strip(), metric=frame["metric"].astype(str))
    n = len(value) - len(frame)
    lost = [f"{path.stem}: {n} rows without a dataset, metric or numeric value are left out"] if n else []
    frame["scenario"] = frame["setting"].str.extract(r"\bscenario (\w+)", expand=False).fillna("")
    keys = ["metric", *by] if by else ["task", "metric", "scenario"]
    info = _dataset_info(datasets, labels, path.stem)
    extra = {"families": _families(families, path.stem, frame), "distances": _several(distances),
             "networks": None if networks is None else _read(networks)}  # fmt: skip
    tables, refused = [], []
    for key, rows in frame.groupby(keys, sort=False):
        name = " ".join([path.stem, *(str(k) for k in key if k)])
        try:
            tables += _with_sourced(name, str(rows["metric"].iloc[0]), rows, info, items, extra)
        except ReadError as error:
            refused.append(str(error))
    if not tables:
        raise ReadError(refused[0] if refused else f"{path.name}: no figures in it (found 0 numeric values)")
    return [replace(t, notes=(*t.notes, *lost, *refused)) if t is tables[0] else t for t in tables]


def _with_sourced(name, measure, rows, info, items, extra) -> list[Table]:
    """The table, marked where values have no source, and beside it the one without these."""
    columns = [c for c in SOURCES if c in rows]
    known = rows[columns].notna().any(axis=1)
    every = _table(name, measure, rows, info, items, extra)
    if known.all() or not known.any():
        unknown = () if known.any() else (f"{name}: no value names its source",)
        return [replace(every, notes=(*every.notes, *unknown))]
    said = f"{int((~known).sum())} of {len(rows)} values have no source; the next exam is without them"
    try:
        sourced = [_table(f"{name} {SOURCED}", measure, rows[known], info, items, extra)]
    except ReadError as error:
        sourced, said = [], f"{said.split(';')[0]}, and without them there is no exam ({error})"
    return [replace(every, notes=(*every.notes, f"{name}: {said}")), *sourced]


def select(tables: Sequence[Table], words: str) -> Table:
    """The one table whose name has all the words behind the name of its file."""
    found = [t for t in tables if set(words.split()) <= set(t.name.split()[1:])]
    found = [t for t in found if (SOURCED in t.name) == (SOURCED in words)] or found
    if len(found) != 1:
        raise UnknownName("table", words, [t.name for t in tables])
    return found[0]


def counterpart(tables: Sequence[Table], table: Table) -> Table:
    """The one of another study's tables to learn from for this one: of its name, else the first of its measure."""
    words = table.name.split(" ", 1)[1:]
    for same in (lambda t: t.name.split(" ", 1)[1:] == words, lambda t: t.measure == table.measure):
        if found := [t for t in tables if same(t)]:
            return found[0]
    measures = ", ".join(dict.fromkeys(t.measure for t in tables))
    raise NotApplicable(f"{table.name}: nothing to learn from by {table.measure} (found: {measures})")


def _several(paths) -> list:
    return [] if paths is None else [paths] if isinstance(paths, str | Path) else list(paths)


def _read(path):
    """A CSV as text and numbers; one line for what is none."""
    import pandas as pd

    path = Path(path)
    try:
        return pd.read_csv(path, low_memory=False).rename(columns=lambda c: str(c).strip())
    except FileNotFoundError:
        raise ReadError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise ReadError(f"{path.name}: not UTF-8 text. Save the table as UTF-8.") from None
    except (ValueError, OSError) as error:  # pandas' own errors of empty and of broken tables are ValueErrors
        raise ReadError(f"{path.name}: no CSV table ({' '.join(str(error).split())[:120]})") from None


def _columns_of(path, *needed: str):
    frame = _read(path)
    if missing := [c for c in needed if c not in frame]:
        raise ReadError(f"{Path(path).name}: no column {', '.join(missing)} (found: {', '.join(frame)})")
    return frame


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
    repeated = rows[rows.duplicated(["dataset", "item"], keep=False)].groupby(["dataset", "item"])["value"].nunique()
    if (repeated > 1).any():
        pairs = int((repeated > 1).sum())
        notes.append(f"{name}: {pairs} (dataset, item) pairs have several values: their mean is used")
    lower = bool(LOWER_IS_BETTER.search(measure))
    percent = rows["dataset"].map(values.groupby(rows["dataset"]).max()) > 1.5
    if not lower and values.min() >= -1 and values.max() <= 100 and percent.any():
        small = percent & (values > 0) & (values < 1)
        if (small & percent).sum() > 0.05 * percent.sum():
            raise ReadError(
                f"{name}: percents and fractions mixed within one dataset (values {values.min():g} to "
                f"{values.max():g}). Write all of them as fractions."
            )
        values[percent] /= 100
        part = "" if percent.all() else " (other datasets already had fractions)"
        doubt = f"; {int(small.sum())} below 1 were taken for percents too" if small.any() else ""
        notes.append(f"{name}: percents were divided by 100{part}{doubt}")
    if lower:
        values, notes = -values, [*notes, f"{name}: of {measure} less is better, taken with a minus sign"]
    return values, notes


def _families(path, stem, rows) -> dict[str, str]:
    """dataset -> family: of the table's own column, else of a file; a name of its own where neither says one."""
    found: dict[str, str] = {}
    if path is not None:
        frame = _columns_of(path, "dataset", "family")
        if "table" in frame:
            frame = frame[[stem.startswith(str(t)) for t in frame["table"]]]
        frame = frame.dropna(subset=["dataset", "family"])
        found = dict(zip(frame["dataset"].astype(str), frame["family"].astype(str), strict=True))
    if "family" in rows:
        own = rows.dropna(subset=["family"])
        found |= dict(zip(own["dataset"], own["family"].astype(str), strict=True))
    return found


def _dataset_info(datasets, labels, stem) -> dict[str, dict]:
    """dataset -> {fact: raw value}, whichever of the known column names the files use."""
    info: dict[str, dict] = {}
    for frame in map(_read, _several(datasets)):
        if not {"dataset", "name"} & set(frame):
            raise ReadError(f"facts about datasets: no column dataset (found: {', '.join(frame)[:200]})")
        for row in frame.to_dict("records"):
            name = str(row.get("dataset", row.get("name")))
            info[name] = {fact: next((row[a] for a in names if a in row), None) for fact, names in ALIASES.items()}
    if labels is not None:
        frame = _columns_of(labels, "dataset", "label_kind")
        if "table" in frame:
            frame = frame[[stem.startswith(str(t)) for t in frame["table"]]]
        for row in frame.to_dict("records"):
            kind = LABEL_KINDS.get(row["label_kind"], row["label_kind"])
            info.setdefault(str(row["dataset"]), {})["label_kind"] = kind
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


def _hints(names, first, paths) -> dict[str, np.ndarray]:
    """Published scores and minus distances of each item for each dataset, by the names they have in their files."""
    hints = {}
    for path in paths:
        frame = _read(path)
        value, kind, source, target = (
            next((c for c in choices if c in frame), None)
            for choices in (("distance", "value"), ("distance_name", "transferability_score", "name"),
                            ("source", "source_dataset_or_model"), ("target", "dataset"))
        )  # fmt: skip
        if None in (value, kind, source, target):
            raise ReadError(
                f"{Path(path).name}: scores need columns source, target, distance_name and distance, or target, "
                f"source_dataset_or_model, transferability_score and value (found: {', '.join(frame)[:200]})"
            )
        by = "pretraining_source" if first["pretraining_source"].nunique() > 1 else "method"
        for name, rows in frame.groupby(kind, sort=False):
            grid = rows.pivot_table(index=target, columns=source, values=value)
            grid = grid.reindex(index=names, columns=list(first[by])).to_numpy(float)
            if np.isfinite(grid).any():
                hints[str(name)] = -grid if value == "distance" else grid
    return hints
