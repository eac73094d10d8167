"""ARFF files as a server reads them: the features and qualities of a dataset, its target, predictions, traces."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from metamed.exchange.server.refusals import Refused


@dataclass(frozen=True)
class Feature:
    """A column. values: of a nominal one; missing: rows without a value."""

    name: str
    type: str  # nominal, numeric or string
    values: tuple[str, ...] | None
    missing: int


@dataclass(frozen=True)
class Table:
    """An ARFF file without its data. incomplete: rows with a missing value; counts: rows of each target class."""

    features: tuple[Feature, ...]
    rows: int
    incomplete: int
    counts: dict[str, int] | None


def read_arff(content: bytes, code: int, sparse: bool = False) -> tuple[list[tuple], Iterator[list]]:
    """(attributes, rows one by one) of an ARFF file. Refused with `code` where it is malformed, also row by row."""
    import arff

    attributes = _decoded(content, code, arff.LOD_GEN if sparse else arff.DENSE_GEN)
    parsed, data = attributes["attributes"], attributes["data"]
    if len({name for name, _ in parsed}) != len(parsed) or not parsed:
        raise Refused(code, "attributes without a name of their own")
    return parsed, _rows(data, parsed, code, sparse)


def _decoded(content: bytes, code: int, kind: int) -> dict:
    import arff

    try:
        return arff.ArffDecoder().decode(content.decode("utf-8"), return_type=kind)
    except UnicodeDecodeError as error:
        raise Refused(code, f"not UTF-8: {error}") from None
    except (arff.ArffException, ValueError, LookupError, StopIteration, RuntimeError) as error:
        raise Refused(code, f"not an ARFF file: {_said(error)}") from None


def _rows(data: Iterator, attributes: list[tuple], code: int, sparse: bool) -> Iterator[list]:
    import arff

    defaults = [kind[0] if isinstance(kind, list) else "" if kind == "STRING" else 0.0 for _, kind in attributes]
    try:
        for row in data:
            if sparse:
                row = [row.get(i, default) for i, default in enumerate(defaults)]
            if len(row) != len(attributes):
                raise Refused(code, f"a row has {len(row)} values, there are {len(attributes)} attributes")
            yield row
    except (arff.ArffException, ValueError, LookupError, RuntimeError, TypeError, OverflowError) as error:
        raise Refused(code, f"malformed data: {_said(error)}") from None


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())[:200]


def describe(content: bytes, target: str | None, sparse: bool = False) -> Table:
    """What a dataset's file holds. target: the attribute whose classes are counted, if it is nominal."""
    attributes, rows = read_arff(content, 145, sparse)
    missing, incomplete, n = np.zeros(len(attributes), int), 0, 0
    place = next((i for i, (name, kind) in enumerate(attributes) if name == target and isinstance(kind, list)), None)
    counts: Counter = Counter()
    for row in rows:
        n += 1
        if None in row:
            absent = [i for i, value in enumerate(row) if value is None]
            missing[absent] += 1
            incomplete += 1
        if place is not None and row[place] is not None:
            counts[row[place]] += 1
    features = tuple(Feature(name, _type(kind), tuple(kind) if isinstance(kind, list) else None, int(m))
                     for (name, kind), m in zip(attributes, missing, strict=True))  # fmt: skip
    return Table(features, n, incomplete, None if place is None else {v: counts[v] for v in attributes[place][1]})


def _type(kind) -> str:
    return "nominal" if isinstance(kind, list) else "string" if kind.upper() == "STRING" else "numeric"


def column(content: bytes, name: str, sparse: bool = False) -> np.ndarray:
    """One column: class numbers of a nominal one, -1 where missing; floats of a numeric one, NaN where missing."""
    attributes, rows = read_arff(content, 145, sparse)
    place, kind = next((i, kind) for i, (n, kind) in enumerate(attributes) if n == name)
    if isinstance(kind, list):
        number = {value: i for i, value in enumerate(kind)} | {None: -1}
        return np.array([number[row[place]] for row in rows], int)
    return np.array([math.nan if row[place] is None else row[place] for row in rows], float)


def qualities(table: Table) -> dict[str, float]:
    """OpenML's simple qualities of a dataset: sizes, and how its classes are spread. Sizes are whole numbers."""
    kinds = Counter(f.type for f in table.features)
    nominal = [len(f.values) for f in table.features if f.values is not None]
    cells, missing = table.rows * len(table.features), sum(f.missing for f in table.features)
    found: dict[str, float] = {
        "NumberOfInstances": table.rows,
        "NumberOfFeatures": len(table.features),
        "NumberOfClasses": len(table.counts) if table.counts is not None else 0,
        "NumberOfMissingValues": missing,
        "NumberOfInstancesWithMissingValues": table.incomplete,
        "NumberOfNumericFeatures": kinds["numeric"],
        "NumberOfSymbolicFeatures": kinds["nominal"],
        "NumberOfBinaryFeatures": sum(n == 2 for n in nominal),
        "PercentageOfNumericFeatures": 100 * kinds["numeric"] / len(table.features),
        "PercentageOfSymbolicFeatures": 100 * kinds["nominal"] / len(table.features),
        "PercentageOfBinaryFeatures": 100 * sum(n == 2 for n in nominal) / len(table.features),
        "PercentageOfMissingValues": 100 * missing / cells if cells else 0.0,
        "PercentageOfInstancesWithMissingValues": 100 * table.incomplete / table.rows if table.rows else 0.0,
        "Dimensionality": len(table.features) / table.rows if table.rows else math.nan,
        "MaxNominalAttDistinctValues": max(nominal, default=0),
        "MinNominalAttDistinctValues": min(nominal, default=0),
    }
    found |= _class_qualities([n for n in table.counts.values() if n]) if table.counts else {}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _class_qualities(counts: Sequence[int]) -> dict[str, float]:
    if not counts:
        return {}
    total = sum(counts)
    return {
        "MajorityClassSize": max(counts),
        "MinorityClassSize": min(counts),
        "MajorityClassPercentage": 100 * max(counts) / total,
        "MinorityClassPercentage": 100 * min(counts) / total,
        "ClassEntropy": -sum(n / total * math.log2(n / total) for n in counts),
    }


QUALITIES = tuple(qualities(Table((Feature("x", "nominal", ("a", "b"), 0),), 2, 0, {"a": 1, "b": 1})))


@dataclass(frozen=True)
class Predictions:
    """A run's predictions, one entry a row of its file. confidences: (n, K) of a classification, else (n, 1) values."""

    repeat: np.ndarray
    fold: np.ndarray
    row: np.ndarray
    confidences: np.ndarray


def predictions(content: bytes, classes: Sequence[str] | None) -> Predictions:
    """Read predictions.arff. classes: of a classification, whose confidences are wanted; None for a regression."""
    attributes, rows = read_arff(content, 209)
    place = {name: i for i, (name, _) in enumerate(attributes)}
    wanted = ["prediction"] if classes is None else [f"confidence.{k}" for k in classes]
    if lacking := [n for n in ("repeat", "fold", "row_id", *wanted) if n not in place]:
        raise Refused(209, f"predictions lack the attributes {', '.join(lacking)[:200]}")
    data = list(rows)
    try:
        where = np.array([[row[place[n]] for n in ("repeat", "fold", "row_id")] for row in data], float).reshape(-1, 3)
        values = np.array([[row[place[n]] for n in wanted] for row in data], float).reshape(len(data), len(wanted))
    except (TypeError, ValueError):
        raise Refused(209, "predictions: repeat, fold, row_id and the predicted values have to be numbers") from None
    if not (np.isfinite(values).all() and np.isfinite(where).all() and (np.abs(where) < 2**31).all()):
        raise Refused(209, "predictions hold values that are missing or not finite")
    if classes is not None:
        values = _certain(values, [row[place["prediction"]] for row in data] if "prediction" in place else [], classes)
    return Predictions(*where.astype(int).T, values)


def _certain(confidences: np.ndarray, predicted: list, classes: Sequence[str]) -> np.ndarray:
    """Confidences; a row of nothing but zeros gets 1 for the class that it names."""
    number = {k: i for i, k in enumerate(classes)}
    for i in np.flatnonzero(confidences.sum(1) == 0):
        if i < len(predicted) and predicted[i] in number:
            confidences[i, number[predicted[i]]] = 1
    return confidences


_TRACE = ("repeat", "fold", "iteration", "evaluation", "selected")


def trace(content: bytes) -> list[dict]:
    """The iterations of trace.arff; setup_string: a JSON dictionary of the parameters, each one's value as JSON."""
    import json

    attributes, rows = read_arff(content, 561)
    names = [name for name, _ in attributes]
    settings = [n for n in names if n.startswith("parameter_")]
    if not settings or set(names) != {*_TRACE, *settings}:
        raise Refused(561, f"trace has the attributes {', '.join(names)[:200]}, expected {', '.join(_TRACE)} and at "
                           "least one parameter_<name>")  # fmt: skip
    found = []
    for row in (dict(zip(names, values, strict=True)) for values in rows):
        string = json.dumps({name: _as_json(row[name]) for name in settings})
        if len(string) > 1024:
            raise Refused(561, f"the parameters of an iteration take {len(string)} characters, allowed are 1024")
        if row["selected"] not in ("true", "false") or not all(_finite(row[n]) for n in _TRACE[:4]):
            raise Refused(561, "trace: selected has to be true or false, the other columns numbers")
        numbers = {n: int(row[n]) for n in _TRACE[:3]}
        found.append({**numbers, "setup_string": string, "evaluation": row["evaluation"], "selected": row["selected"]})
    return found


def _finite(value) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _as_json(value) -> str:
    """A cell as the JSON that clients read: it is that already, or a plain word or number."""
    import json

    if isinstance(value, str):
        try:
            json.loads(value)
            return value
        except ValueError:
            pass
    return json.dumps(value)
