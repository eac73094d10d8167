"""Tables of published results: a paper's words become our setups, its numbers figures in the store."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from json import loads
from math import isfinite
from pathlib import Path

from metamed.dataset import Card
from metamed.errors import ReadError
from metamed.records import Published, Setup
from metamed.store.evidence import DatasetFacts, pseudo_digest
from metamed.store.limits import latin

NEEDED = ("dataset", "method", "metric", "value")
OPTIONAL = ("dataset_version_or_size", "task", "pretraining_source", "setting", "value_std", "n_repeats",
            "paper", "table_or_file")
# measures that are a share of something: above 1.5 they are percents
SHARES = {"auc", "accuracy", "balanced_accuracy", "dice", "iou", "nsd", "precision", "recall", "pixel_accuracy", "f1"}
_KINDS = {"segment": "segmentation", "mil": "mil", "bag": "mil"}
_HINTS = (  # what an unknown setting says about the setup, by its words; the rest of it is the protocol
    (r"(\d+)\s*x\s*\1\b", "image_size"), (r"end-to-end|fine-?tun", "finetune"), (r"linear[ -]prob", "probe.linear"),
    (r"k-?nn\b", "probe.knn"), (r"frozen|freez", "freeze"))


class Imported(int):
    """How many figures were new, with notes on what was done to the table, one sentence each."""

    notes: tuple[str, ...]

    def __new__(cls, new: int, notes: Iterable[str] = ()):
        self = super().__new__(cls, new)
        self.notes = tuple(notes)
        return self


def import_table(store, path: str | Path, study: str | None = None) -> Imported:
    """Add a result table (CSV, one row a figure) to a store.

    Columns: dataset, method, metric, value; dataset_version_or_size, task, pretraining_source, setting, value_std,
    n_repeats, paper and table_or_file where there are any. study: name of the study, the file's name by default.
    Raises ReadError for a table without a usable number, or one that mixes percents and fractions.
    """
    path, notes = Path(path), []
    study = study or _slug(path.stem)
    rows = _numbers(path, _read(path), notes)
    _fractions(path, rows, notes)
    figures: dict[str, list[tuple[Published, Setup]]] = {}
    names = {(f.name, f.kind): f for f in store.records("dataset")}
    for row in rows:
        facts = _dataset(row, names)
        setup, protocol = translate(study, row["method"], row["pretraining_source"], row["setting"])
        figure = Published(study, protocol, facts.name, "masks" if facts.kind == "segmentation" else "target", setup.id,
                           row["metric"], row["value"], row["sd"], row["repeats"], row["paper"] or path.name,
                           row["table_or_file"] or path.name)
        figures.setdefault(figure.id, []).append((figure, setup))
    before, known = len(store), {f.id: f.value for f in store.records("published")}
    kept = [_one(same) for same in figures.values()]
    store.add_all([*names.values(), *(setup for same in figures.values() for _, setup in same), *kept])
    notes += _repeated(figures, len(rows)) + _constant(kept)
    if differing := sum(known.get(f.id, f.value) != f.value for f in kept):
        notes.append(f"{differing} figures were stored before with another value, which stays")
    return Imported(len(store) - before, notes)


def translate(study: str, method: str, source: str, setting: str) -> tuple[Setup, str]:
    """The setup that a paper's words mean, and its protocol; by data/aliases.csv, else by the words themselves."""
    of_method = alias(study, "method", method) or {"method": _slug(method)}
    of_setting = alias(study, "setting", setting) or _guess(setting)
    network = of_method.get("network", of_method["method"])
    sources = _sources(study, source, network)
    settings = {**of_method.get("hyperparameters", {}), **of_setting.get("hyperparameters", {})}
    protocol = of_setting.get("protocol", "") or "as published"
    if probe := of_setting.get("method"):  # a probe has its network as a setting and no recipe
        return Setup(probe, {"network": network, **of_setting.get("hyperparameters", {})}, None, sources), protocol
    recipe = of_method.get("recipe", of_setting.get("recipe", "finetune")) if sources else None
    return Setup(of_method["method"], settings, recipe, sources), protocol


def _sources(study: str, source: str, network: str) -> tuple[str, ...]:
    if (word := alias(study, "pretraining_source", source)) is None:
        return () if re.match(r"$|none|scratch|random", source, re.I) else (_slug(source),)
    names = [name.format(network=network) for name in word["sources"]]
    again = [alias(study, "pretraining_source", name) or {"sources": [name]} for name in names]
    return tuple(name for means in again for name in means["sources"])


@cache
def _aliases() -> Mapping[tuple[str, str, str], dict]:
    path = Path(str(files("metamed").joinpath("data/aliases.csv")))
    with path.open(newline="", encoding="utf-8") as file:
        return {(r["study"], r["column"], r["word"].lower()): loads(r["means"]) for r in csv.DictReader(file)}


def alias(study: str, column: str, word: str) -> dict | None:
    """What a word of a study's column means: the study's own meaning before the general one; None if unknown."""
    known = _aliases()
    return known.get((study, column, word.lower()), known.get(("", column, word.lower())))


def _guess(setting: str) -> dict:
    """What can be told from the words of a setting that no alias knows."""
    means: dict = {"hyperparameters": {}}
    rest = []
    for part in filter(None, (p.strip() for p in setting.split(";"))):
        found = next(((what, match) for pattern, what in _HINTS if (match := re.search(pattern, part, re.I))), None)
        if found is None or len(part) - len(found[1].group()) > 24:  # says more than the hint
            rest.append(part)
        if found is None:
            continue
        if found[0] == "image_size":
            means["hyperparameters"]["image_size"] = int(found[1].group(1))
        else:
            means["method" if found[0].startswith("probe") else "recipe"] = found[0]
    return means | {"protocol": latin("; ".join(rest), 120)}


def _slug(words: str) -> str:
    """Words as a legal name: lower case, anything unusual as `_`."""
    return re.sub(r"[^a-z0-9.()=-]+", "_", words.strip().lower()).strip("_.-") or "unnamed"


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except OSError as error:
        raise ReadError(f"{path}: {error.strerror}. Pass a CSV file.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ReadError(f"{path.name}: not a CSV file in UTF-8 ({error})") from None
    found = reader.fieldnames or ["none"]
    if missing := [c for c in NEEDED if c not in found]:
        raise ReadError(f"{path.name}: no column {', '.join(missing)} (found: {', '.join(found)}). Rename it.")
    return [{c: (r.get(c) or "").strip() for c in (*NEEDED, *OPTIONAL)} | {"line": n} for n, r in enumerate(rows, 2)]


def _float(text: str) -> float | None:
    """A number of at most 6 significant digits; papers print fewer."""
    try:
        return float(f"{value:.6g}") if isfinite(value := float(text.rstrip("%"))) else None
    except ValueError:
        return None


def _numbers(path: Path, rows: list[dict], notes: list[str]) -> list[dict]:
    """Rows with a value, a dataset and a method; the others are left out and counted."""
    good, bad = [], []
    for row in rows:
        metric = alias("", "metric", row["metric"])
        name = metric["measure"] if metric else _slug(row["metric"])
        row |= {"value": _float(row["value"]), "said": row["value"], "sd": _float(row["value_std"]), "metric": name,
                "repeats": int(_float(row["n_repeats"]) or 1)}
        (good if row["value"] is not None and row["dataset"] and row["method"] else bad).append(row)
    if not good:
        first = f", e.g. line {bad[0]['line']}: value '{bad[0]['said']}'" if bad else ""
        raise ReadError(f"{path.name}: no row with a dataset, a method and a number among {len(rows)}{first}")
    if bad:
        notes.append(f"{len(bad)} rows without a number, dataset or method left out (first: line {bad[0]['line']}, "
                     f"value '{bad[0]['said']}')")
    return good


def _fractions(path: Path, rows: list[dict], notes: list[str]) -> None:
    """Shares as fractions: percents are divided by 100, by their sign or by values above 1.5."""
    percents = [row for row in rows if row["said"].endswith("%")]
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        if row["metric"] in SHARES and not row["said"].endswith("%"):
            groups.setdefault((row["dataset"], row["metric"]), []).append(row)
    for (dataset, metric), group in groups.items():
        values = [r["value"] for r in group]
        if max(values) <= 1.5:
            continue
        percents += group
        if any(0 < v <= 1 for v in values) or max(values) > 100:
            raise ReadError(f"{path.name}: {metric} of {dataset} runs from {min(values):g} to {max(values):g}: "
                            "percents and fractions mixed? Write all of them as fractions.")
    for row in percents:
        row |= {"value": round(row["value"] / 100, 12), "sd": row["sd"] and round(row["sd"] / 100, 12)}
    if percents:
        notes.append(f"{len(percents)} of {len(rows)} values are percents: divided by 100")


def _dataset(row: dict, names: dict[tuple[str, str], DatasetFacts]) -> DatasetFacts:
    """The facts of a row's dataset, added to `names` if new. One name for two kinds of task becomes two datasets."""
    kind = next((k for word, k in _KINDS.items() if word in row["task"].lower()), "classification")
    name = re.sub(r"\s+", "_", row["dataset"].encode("ascii", "replace").decode())
    if any(n == name and k != kind for n, k in names) and (name, kind) not in names:
        name = f"{name}.{kind}"
    if (name, kind) not in names:
        size = re.search(r"train\S*\s+(\d+)/|\bn=(\d+)|\b(\d+) (?:images|samples)", row["dataset_version_or_size"])
        n = int(next(g for g in size.groups() if g)) if size else None
        names[name, kind] = DatasetFacts(pseudo_digest(name), name, kind, Card(family=name), n_samples=n)
    return names[name, kind]


def _one(same: list[tuple[Published, Setup]]) -> Published:
    """One figure of several rows that mean the same: their mean if they differ."""
    first = same[0][0]
    values = [f.value for f, _ in same]
    if len(set(values)) == 1:
        return first
    return replace(first, value=sum(values) / len(values), sd=None, repeats=len(values))


def _repeated(figures: Mapping[str, list], n: int) -> list[str]:
    differing = sum(len({f.value for f, _ in same}) > 1 for same in figures.values())
    notes = [f"{differing} figures have several rows with different values: their mean is kept"] if differing else []
    if (equal := n - len(figures)) and not differing:
        notes.append(f"{equal} rows repeat another one")
    return notes


def _constant(figures: list[Published]) -> list[str]:
    values: dict[str, list[float]] = {}
    for figure in figures:
        values.setdefault(figure.measure, []).append(figure.value)
    return [f"{measure}: every value is {v[0]:g}, which orders nothing" for measure, v in values.items()
            if len(v) > 1 and len(set(v)) == 1]
