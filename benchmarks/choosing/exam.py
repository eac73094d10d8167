"""The exam of the recommender of sources on our own runs: one family of targets left out at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from benchmarks.choosing.scores import PUBLISHED
from metamed.exams import Exam, Prediction, exam
from metamed.exams.examples import vector_facts, vectors_of
from metamed.exams.tables import Table, informative
from metamed.metalearner import fit_predict
from metamed.store import Store
from metamed.tasks import TEST_SHARE

ROW, LEAST = ["digest", "family", "size"], 8  # sources that a target must have been probed from to be asked about


def source_table(name: str, store: Store, runs: pd.DataFrame, scores: pd.DataFrame) -> Table:
    """Mean AUC over the splits, a row a target and size, a column a source; with facts and transferability scores."""
    table = runs.pivot_table(index=ROW, columns="source", values="score")
    table = table[table.notna().sum(axis=1) >= LEAST]
    vectors = vectors_of(store)
    by_name = {str(v.get("name")): v for v in vectors.values()}
    origin = runs.drop_duplicates("source").set_index("source")["origin"]
    start = runs.drop_duplicates("source").set_index("source")["start"]
    return Table(
        name,
        "auc",
        tuple(f"{digest} {size}" for digest, _, size in table.index),
        tuple(table.columns),
        table.to_numpy(),
        tuple(family for _, family, _ in table.index),
        _told(vector_facts([_at_size(vectors[digest], size) for digest, _, size in table.index])),
        _told({"start": np.array([start[s] for s in table.columns], dtype=object)}),
        _told(vector_facts([by_name.get(origin[s], {}) for s in table.columns])),
        _hints(runs, scores, table),
    )


def _told(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: column for name, column in columns.items() if informative(column)}


def _at_size(vector: dict, size: str) -> dict:
    return vector if size == "all" else vector | {"n_samples": int(size) / (1 - TEST_SHARE)}


def _hints(runs: pd.DataFrame, scores: pd.DataFrame, table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Scores of the frozen features, in the shape of the table; those of a row that has none come from no other."""
    digest = runs.drop_duplicates("target").set_index("target")["digest"]
    keyed = scores.assign(digest=scores["target"].map(digest))
    wide = {name: keyed.pivot_table(index=["digest", "size"], columns="source", values=name) for name in PUBLISHED}
    rows = pd.MultiIndex.from_arrays([table.index.get_level_values(n) for n in ("digest", "size")])
    return {name: w.reindex(index=rows, columns=table.columns).to_numpy() for name, w in wide.items()}


def always_imagenet(train: Table, target: Table) -> Prediction:
    """ImageNet first, nothing said about the others."""
    order = np.array([float(item.startswith("imagenet.")) for item in target.items])
    return Prediction(np.tile(order, (len(target.datasets), 1)))


def hold(table: Table, seed: int = 0) -> Exam:
    """Every baseline, the published scores, always ImageNet where it is there, and metamed with and without scores."""
    rankers = {"metamed": fit_predict, "metamed without scores": lambda a, b: fit_predict(_bare(a), _bare(b))}
    if any(item.startswith("imagenet.") for item in table.items):
        rankers["always ImageNet"] = always_imagenet
    return exam(table, rankers, seed=seed)


def _bare(table: Table) -> Table:
    return replace(table, hints={})
