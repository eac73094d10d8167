"""What the learner is told of datasets, changed, and the exam of each: nothing, all, one group alone, all but one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.metafeature_redundancy import GROUPS, columns_of, knows
from metamed.exams import Exam, exam, judged, knn
from metamed.exams.scales import normal_scores
from metamed.exams.tables import Columns, Table
from metamed.metalearner import fit_predict

COMPONENTS, PERMUTATIONS = 5, 2
RANKERS = {"metamed": fit_predict, "knn": knn}
LANDMARKS = "landmarking"
NOTHING, ALL, USED = "nothing", "all groups", "today's learner"


@dataclass(frozen=True)
class Ablation:
    """One table examined again and again, the learner told something else each time.

    known: group -> (datasets asked about of which it is known, columns of it that the learner can be told).
    """

    table: Table
    known: dict[str, tuple[int, int]]
    columns: dict[str, int]
    exams: dict[str, Exam]

    @property
    def asked(self) -> int:
        """Datasets that are asked about."""
        return len(_asked(self.table))


def ranks_of(table: Table, vectors: dict[str, dict], columns: list[str]) -> Columns:
    """Columns of meta-features over a table's rows as normal scores of the datasets' ranks, 0 where unknown.

    Columns that are unknown on half of the rows, or the same for all, are left out. No score is seen.
    """
    datasets, rows = _datasets_of(table)
    found = {}
    for column in columns:
        values = np.array([vectors.get(d, {}).get(column, np.nan) for d in datasets], np.float64)
        if np.isfinite(values[rows]).mean() > 0.5 and np.nanmax(values) > np.nanmin(values):
            found[column] = np.nan_to_num(normal_scores(values[None])[0])[rows]
    return found


def _datasets_of(table: Table) -> tuple[list[str], np.ndarray]:
    """(datasets, which of them each row of the table is of): a dataset has a row for every size and protocol."""
    place = {dataset: k for k, dataset in enumerate(dict.fromkeys(table.datasets))}
    return list(place), np.array([place[dataset] for dataset in table.datasets])


def exchanged(table: Table, known: Mapping, seed: int) -> np.ndarray:
    """For each row one of another dataset, so that datasets swap facts; those that nothing is `known` of keep theirs.

    The rows of a dataset take those of the other one in turn.
    """
    datasets, rows = _datasets_of(table)
    place = [np.flatnonzero(rows == k) for k in range(len(datasets))]
    swapped = np.array([k for k, dataset in enumerate(datasets) if dataset in known])
    order = np.arange(len(rows))
    for one, other in zip(swapped, np.random.default_rng(seed).permutation(swapped), strict=True):
        order[place[one]] = np.resize(place[other], len(place[one]))
    return order


def components(group: str, ranks: Columns) -> Columns:
    """The first principal components of a group's columns: groups then count alike, however many columns they have."""
    if not ranks:
        return {}
    values = np.array(list(ranks.values())).T
    left, singular, right = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    kept = min(COMPONENTS, int((singular > 1e-9 * singular[0]).sum()))
    signs = np.sign(right[np.arange(kept), np.abs(right[:kept]).argmax(axis=1)])
    return {f"{group} {k + 1}": signs[k] * singular[k] * left[:, k] for k in range(kept)}


def variants(table: Table, vectors: dict[str, dict]) -> dict[str, Table]:
    """Name -> the table with other facts. The sizes that a row was cut to belong to the general group.

    The learner takes quick models' scores for expected scores by a way of their own, `landmarks`: they belong to the
    group of landmarkers.
    """
    sizes = {n: c for n, c in table.facts.items() if n.startswith("log_")}
    groups = {g: ranks_of(table, vectors, columns_of(g)) for g in GROUPS}
    groups["general"] |= {n: np.nan_to_num(normal_scores(c[None])[0]) for n, c in sizes.items()}
    groups = {g: components(g, ranks) for g, ranks in groups.items() if ranks}
    everything = {c: v for facts in groups.values() for c, v in facts.items()}
    blind, whole = replace(table, facts={}, landmarks={}), replace(table, facts=everything)
    found = {NOTHING: blind, USED: table, ALL: whole}
    for g, facts in groups.items():
        found[f"only {g}"] = replace(table if g == LANDMARKS else blind, facts=facts)
    for g, facts in groups.items():
        others = {c: v for c, v in everything.items() if c not in facts}
        found[f"all but {g}"] = replace(blind if g == LANDMARKS else table, facts=others)
    for k in range(PERMUTATIONS):
        order = exchanged(table, vectors, seed=k)
        facts, landmarks = ({c: v[order] for c, v in part.items()} for part in (everything, table.landmarks))
        found[f"all, of other datasets ({k + 1})"] = replace(table, facts=facts, landmarks=landmarks)
    return found


def _asked(table: Table) -> set[str]:
    return set(np.array(table.datasets, object)[judged(table)])


def known_of(table: Table, vectors: dict[str, dict]) -> dict[str, tuple[int, int]]:
    """Group -> (datasets asked about of which it is known, columns that the learner can be told)."""
    return {g: (sum(knows(vectors.get(d, {}), g) for d in _asked(table)), len(ranks_of(table, vectors, columns_of(g))))
            for g in GROUPS}  # fmt: skip


def _hold(table: Table) -> Exam:
    return exam(table, RANKERS, beside={})


def examine(table: Table, vectors: dict[str, dict], pool) -> Ablation:
    """The exam of every variant."""
    told = variants(table, vectors)
    exams = dict(zip(told, pool.map(_hold, told.values()), strict=True))
    return Ablation(table, known_of(table, vectors), {name: len(t.facts) for name, t in told.items()}, exams)
