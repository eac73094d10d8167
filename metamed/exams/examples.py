"""The meta-examples of a store as Tables: own runs and published figures, one Table a protocol."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metamed.errors import NotApplicable
from metamed.exams.tables import LABEL_KINDS, LOWER_IS_BETTER, Columns, Table, distinct, informative, number, size_facts
from metamed.label_kinds import vector_kind
from metamed.records import TEST_SHARE

LANDMARKS = {"auc": ("statistics_auc.mean", "linear_probe_auc.mean")}  # measure -> meta-features on its scale
OWN, ALL = "metamed", "all runs"  # the study that own runs belong to; their table with what cannot be had again


def tables_of(store, kind: str, measure: str) -> list[Table]:
    """`tables_from` all that a store knows of a kind by a measure."""
    return tables_from(store.example_rows(kind, measure), vectors_of(store))


def vectors_of(store) -> dict[str, dict]:
    """What is known of each dataset in words and numbers, by digest."""
    measured = store.measured()
    known = {f.digest: {**f.words, **measured.get(f.digest, {}), **f.numbers} for f in store.records("dataset")}
    return {digest: vector | {"label_kind": vector_kind(vector)} for digest, vector in known.items()}


def tables_from(rows: Sequence[dict], vectors: dict[str, dict]) -> list[Table]:
    """One Table for each (study, protocol, measure) of a store, items being setup ids; the mean of repeats.

    rows: meta-examples as `Store.example_rows` gives them. vectors: what is known of each dataset, by digest. All own
    runs that can be had again make one table, a row for every dataset and protocol: setups are only compared within a
    row. All own runs, those from sources that do not ship among them, make another. Tables that order nothing are left
    out. Own runs come first, then the published table with the most families x items. Raises NotApplicable where none
    is left.
    """
    groups: dict[tuple, list[dict]] = {}
    for row in (r for r in rows if np.isfinite(r["score"])):
        for key in table_keys(row):
            groups.setdefault(key, []).append(row)
    if all(row["runnable"] for row in rows if row["study"] == OWN):
        groups = {key: found for key, found in groups.items() if key[:2] != (OWN, ALL)}
    tables = [_table_of(key, found, vectors) for key, found in groups.items()]
    tables = [t for t in tables if min(t.scores.shape) > 1 and np.nanmax(t.scores) > np.nanmin(t.scores)]
    if not tables:
        raise NotApplicable(
            f"no two setups were compared on two datasets by one study: {len(rows)} results are no evidence"
        )
    return sorted(tables, key=lambda t: (not is_own(t), t.name.startswith(f"{OWN} {ALL}"), -_evidence(t), t.name))


def table_keys(row: dict) -> list[tuple[str, str, str]]:
    """(study, protocol, measure) of each table that a meta-example belongs to."""
    if row["study"] != OWN:
        return [(row["study"], row["protocol"], row["measure"])]
    return [(OWN, which, row["measure"]) for which in (("runs", ALL) if row["runnable"] else (ALL,))]


def _evidence(table: Table) -> int:
    return len(set(table.families)) * len(table.items)


def is_own(table: Table) -> bool:
    """Own runs, not a paper's figures?"""
    return table.name.startswith(f"{OWN} ")


def _table_of(key: tuple, rows: Sequence[dict], vectors: dict[str, dict]) -> Table:
    datasets = list(dict.fromkeys(map(_row_key, rows)))
    setups = {r["setup"]: r for r in rows}
    place = {d: i for i, d in enumerate(datasets)}, {s: j for j, s in enumerate(setups)}
    total, count = (np.zeros((len(datasets), len(setups))) for _ in range(2))
    for row in rows:
        cell = place[0][_row_key(row)], place[1][row["setup"]]
        total[cell] += row["score"]
        count[cell] += 1
    scores = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    families = {_row_key(r): str(r["family"]) for r in rows}
    known = [_at_size(vectors.get(d[0], {}), size) for d, size in {_row_key(r): r.get("size") for r in rows}.items()]
    names = {str(v.get("name")): v for v in vectors.values()}
    origins = [names.get(r["sources"][0] if len(r["sources"]) == 1 else "", {}) for r in setups.values()]
    return Table(
        f"{key[0]} {key[1]} {key[2]}",
        key[2],
        tuple(d for d, *_ in datasets),
        tuple(setups),
        -scores if LOWER_IS_BETTER.search(key[2]) else scores,
        tuple(families[d] for d in datasets),
        {n: c for n, c in vector_facts(known).items() if informative(c)},
        _setup_descriptors(list(setups.values())),
        {n: c for n, c in vector_facts(origins).items() if informative(c)},
        landmarks=vector_landmarks(known, key[2]),
    )


def _row_key(row: dict) -> tuple[str, str, str]:
    """What the setups of a row were all compared on."""
    return row["dataset"], row["target"], row["protocol"]


def _at_size(vector: dict, size: int | None) -> dict:
    """What is known of a dataset, with as many samples as one of which `size` are left beside the test part."""
    samples = number(vector.get("n_samples"))
    return vector if size is None else vector | {"n_samples": np.fmin(samples, size / (1 - TEST_SHARE))}


def vector_facts(vectors: Sequence[dict]) -> Columns:
    """The few facts that the learner uses, from what is known of each dataset; NaN and "" where nothing is."""

    def numbers(name: str) -> np.ndarray:
        return np.array([number(v.get(name)) for v in vectors])

    facts = size_facts(numbers("n_samples"), numbers("n_classes"))
    with np.errstate(divide="ignore", invalid="ignore"):
        facts |= {"channels": numbers("n_channels"), "imbalance": np.log10(numbers("imbalance"))}
        labels = np.maximum(numbers("n_classes") - 1, 1)  # of a label, not of all foreground
        facts["log_fraction"] = np.log10(numbers("foreground_fraction.mean") / labels)
    facts = {n: np.where(np.isfinite(c), c, np.nan) for n, c in facts.items()}
    kinds = [str(v.get("label_kind") or "") for v in vectors]
    return facts | {
        "modality": np.array([str(v.get("modality_group") or "") for v in vectors], dtype=object),
        "label_kind": np.array([LABEL_KINDS.get(k, k) for k in kinds], dtype=object),
    }


def vector_landmarks(vectors: Sequence[dict], measure: str) -> Columns:
    """Scores by the same measure of models that are fitted in seconds, from what is known of each dataset."""
    columns = {n: np.array([number(v.get(n)) for v in vectors]) for n in LANDMARKS.get(measure, ())}
    return {n: column for n, column in columns.items() if np.isfinite(column).any()}


def _setup_descriptors(rows: Sequence[dict]) -> Columns:
    columns: Columns = {
        "method": np.array([r["method"] for r in rows], dtype=object),
        "recipe": np.array([r["recipe"] or "" for r in rows], dtype=object),
        "sources": np.array([" + ".join(r["sources"]) for r in rows], dtype=object),
    }
    for name in sorted({n for r in rows for n in r["hyperparameters"]}):
        values = [r["hyperparameters"].get(name) for r in rows]
        numeric = all(v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in values)
        texts = np.array(["" if v is None else str(v) for v in values], dtype=object)
        columns[name] = np.array([number(v) for v in values]) if numeric else texts
    return distinct({name: column for name, column in columns.items() if informative(column)})
