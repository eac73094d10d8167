"""Reading tables: the records that a published table holds in its comments and columns, whoever may have written it."""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import NamedTuple

import numpy as np

from metamed.dataset import KINDS, Card
from metamed.errors import ReadError
from metamed.exchange.parts import folds_of
from metamed.exchange.tables import HEAD, SAMPLE, places_named
from metamed.records import Task
from metamed.store.evidence import DatasetFacts


class Told(NamedTuple):
    """samples: the sample of each row, -1 where a row only fills up. places: of each row, as in `Labels`, or None."""

    facts: DatasetFacts
    task: Task
    samples: np.ndarray
    places: np.ndarray | None


def read_table(text: str) -> Told | None:
    """What an ARFF tells that `Table.arff` wrote; None for anybody else's. Raises ReadError where it is damaged."""
    lines = re.findall(rf"^% ?{re.escape(HEAD)}(\w+) (.*)$", text.split("@RELATION", 1)[0], re.MULTILINE)
    if {"dataset", "task"} - {name for name, _ in lines}:
        return None
    import arff

    try:
        return _told({name: json.loads(value) for name, value in lines}, arff.loads(text))
    except (arff.ArffException, AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ReadError(f"a table of metamed that cannot be read ({type(error).__name__}: {error})") from None


def _told(head: dict, data: dict) -> Told:
    names, facts = [name for name, _ in data["attributes"]], _facts(head["dataset"])
    columns = dict(zip(names, zip(*data["data"], strict=True), strict=True))
    samples, beyond = _whole(columns[SAMPLE[facts.kind]]), head.get("beyond", {})
    words = [*map(str, columns["parts"]), *map(str, beyond.values())]
    folds = folds_of(words, np.array([*samples, *map(int, beyond)]))
    where = [_whole(columns[name]) for name in places_named(facts.kind) if name in columns]
    return Told(facts, _task(**head["task"], folds=folds), samples, np.stack(where, axis=1) if where else None)


def _whole(column) -> np.ndarray:
    """A column of whole numbers, -1 where there is none."""
    return np.array([-1 if value is None else int(value) for value in column])


def _task(dataset, digest, kind, target, size, procedure, measure, folds) -> Task:
    size = None if size is None else int(size)
    return Task(str(dataset), str(digest), str(kind), str(target), size, str(procedure), str(measure), folds)


def _facts(said: dict) -> DatasetFacts:
    """Every value of its type."""
    card = {k: tuple(v) if isinstance(v, list) else str(v) for k, v in said.pop("card").items()}
    card |= {"classes": tuple(map(str, card["classes"])), "spacing": tuple(map(float, card["spacing"]))}
    facts = {str(k): v for k, v in said.pop("facts").items() if isinstance(v, str) or isfinite(v)}
    words = {k: str(said.pop(k)) for k in ("digest", "name", "kind")}
    sizes = {k: None if v is None else int(v) for k, v in said.items()}
    if words["kind"] not in KINDS:
        raise ValueError(f"kind {words['kind']}")
    return DatasetFacts(**words, card=Card(**card), **sizes, facts=facts)
