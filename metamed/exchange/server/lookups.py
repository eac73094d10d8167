"""What several answers need of a stored entity: its names, its target, its test sets, the flows below a flow."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from metamed.exchange.server.refusals import Refused
from metamed.exchange.server.tables import column
from metamed.splits import KNOWN, folds
from metamed.store.served import Entity, Served

TASK_TYPES = {1: "Supervised Classification", 2: "Supervised Regression", 3: "Learning Curve",
              4: "Supervised Data Stream Classification", 5: "Clustering", 6: "Machine Learning Challenge",
              7: "Survival Analysis", 8: "Subgroup Discovery", 9: "Multitask Regression"}  # fmt: skip
DISPLAYED = ("MajorityClassSize", "MaxNominalAttDistinctValues", "MinorityClassSize", "NumberOfClasses",
             "NumberOfFeatures", "NumberOfInstances", "NumberOfInstancesWithMissingValues", "NumberOfMissingValues",
             "NumberOfNumericFeatures", "NumberOfSymbolicFeatures")  # fmt: skip


def entity(served: Served, kind: str, id: int, code: int) -> Entity:
    """The entity of that number; refused with `code` if there is none."""
    found = served.get(kind, id)
    if found is None:
        raise Refused(code, f"there is no {kind} {id}")
    return found


def full_name(flow: Entity) -> str:
    return f"{flow.facts['name']}({flow.facts['version']})"


def flow_tree(served: Served, id: int, code: int) -> dict[int, Entity]:
    """A flow and all flows below it, by number, the flow itself first."""
    found = {id: entity(served, "flow", id, code)}
    for _, component in found[id].facts["components"]:
        found |= flow_tree(served, component, code)
    return found


def file_of(served: Served, kind: str, id: int, part: str) -> tuple[int, str] | None:
    """(number, name) of a file of an entity."""
    return next(((number, name) for number, p, name in served.files(kind, id) if p == part), None)


def file_url(base: str, file: tuple[int, str]) -> str:
    return f"{base}/data/download/{file[0]}/{file[1]}"


def is_sparse(data: Entity) -> bool:
    return data.facts["format"].lower() == "sparse_arff"


def class_labels(data: Entity, target: str | None) -> list[str] | None:
    """The classes of a nominal target, None of another."""
    return next((f["values"] for f in data.facts["features"] if f["name"] == target), None)


def target_column(served: Served, data: Entity, target: str) -> np.ndarray:
    """Class number (-1 where missing) or value of each row of a dataset."""
    path, _ = served.file(file_of(served, "data", data.id, "dataset")[0])
    return _column(str(path), target, is_sparse(data))


@lru_cache(16)  # of content that lies under its hash: it never changes
def _column(path: str, target: str, sparse: bool) -> np.ndarray:
    return column(Path(path).read_bytes(), target, sparse)


def task_classes(served: Served, task: Entity) -> tuple[np.ndarray | None, int]:
    """(class of each row or None, number of rows): what the splits of a task depend on."""
    data = entity(served, "data", task.facts["data"], 111)
    rows = int(data.facts["qualities"]["NumberOfInstances"])
    if class_labels(data, task.facts["target"]) is None:
        return None, rows
    return target_column(served, data, task.facts["target"]), rows


def test_sets(served: Served, task: Entity) -> list[tuple[int, int, np.ndarray]]:
    """(repeat, fold, rows) of each test set of a task."""
    data = entity(served, "data", task.facts["data"], 111)
    path, _ = served.file(file_of(served, "data", data.id, "dataset")[0])
    nominal = class_labels(data, task.facts["target"]) is not None
    procedure, rows = task.facts["inputs"]["estimation_procedure"], data.facts["qualities"]["NumberOfInstances"]
    return _test_sets(str(path), task.facts["target"] if nominal else None, is_sparse(data), int(procedure), int(rows))


@lru_cache(16)
def _test_sets(path: str, nominal: str | None, sparse: bool, procedure: int, rows: int) -> list:
    classes = None if nominal is None else _column(path, nominal, sparse)
    return [(repeat, fold, test) for repeat, fold, _, test in folds(procedure, classes, rows)]


def n_splits(task: Entity) -> tuple[int, int]:
    """(repeats, folds); leave-one-out has as many folds as it has rows, and says 0."""
    procedure = KNOWN[int(task.facts["inputs"]["estimation_procedure"])]
    return procedure.repeats, procedure.folds or (0 if procedure.type == "leaveoneout" else 1)
