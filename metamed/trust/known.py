"""What is known of trust from bags whose instances are known: `data/trust.csv`, made by benchmarks/trust.py.

One row a model: what every measure said, and the true AUC of its instances' scores that no measure looked at.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

TRUTH = "instance_auc"
PREDICTORS = ("bag_auc", "agreement")  # bag_consistency shrinks with the rate of witnesses: it compares inside a set
LEVEL = 0.9


@cache
def known_models() -> tuple[dict[str, str | float], ...]:
    """The rows of the table that ships; numbers as floats, NaN where a measure was not defined."""
    text = files("metamed").joinpath("data/trust.csv").read_text(encoding="utf-8")
    words = ("dataset", "method", "settings")
    return tuple({k: v if k in words else float(v or "nan") for k, v in row.items()}
                 for row in csv.DictReader(text.splitlines()))  # fmt: skip


def family(dataset: str) -> str:
    """Sets that were made of the same images, at different rates of witnesses, belong together."""
    return dataset.partition("@")[0]


@dataclass(frozen=True)
class Expectation:
    """The true AUC of instances to be expected, with its 90 % interval. families, models: that it is learned from."""

    value: float
    low: float
    high: float
    families: int
    models: int

    @property
    def sentence(self) -> str:
        between = f"nine of ten between {self.low:.2f} and {self.high:.2f}"
        return (f"Expected AUC of the instances: {self.value:.2f}, {between} (from {self.models} models on "
                f"{self.families} families of sets whose instances are known: the measures order models of a set, but "
                "hardly tell how good the best one is)")  # fmt: skip


def expected_auc(values: Mapping[str, float], predictors: Sequence[str] = PREDICTORS) -> Expectation:
    """What models with such values of the measures reached where instances are known: least squares on `predictors`.

    The interval holds the errors that are made when each family of sets is left out in turn. Measures that are not
    defined here are left out; without any, it is what all models reached.
    """
    rows = known_models()
    used = [p for p in predictors if np.isfinite(values.get(p, np.nan))]
    x = np.array([[float(row[p]) for p in used] for row in rows]).reshape(len(rows), len(used))
    whole = np.isfinite(x).all(axis=1)
    x, y = x[whole], np.array([float(row[TRUTH]) for row in rows])[whole]
    of = np.array([family(str(row["dataset"])) for row, w in zip(rows, whole, strict=True) if w])
    asked = np.array([[values[p] for p in used]]).reshape(1, len(used))
    errors = np.concatenate([y[of == f] - _predicted(x[of != f], y[of != f], x[of == f]) for f in np.unique(of)])
    value = float(_predicted(x, y, asked)[0])
    low, high = value + np.quantile(errors, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value, low, high = (float(min(max(v, 0.0), 1.0)) for v in (value, low, high))
    return Expectation(value, low, high, len(np.unique(of)), len(y))


def _predicted(x: np.ndarray, y: np.ndarray, asked: np.ndarray) -> np.ndarray:
    ones = np.ones((len(x), 1))
    weights = np.linalg.lstsq(np.hstack([x, ones]), y, rcond=None)[0]
    return np.hstack([asked, np.ones((len(asked), 1))]) @ weights


@dataclass(frozen=True)
class Record:
    """How well one variant told instances on sets where they are known: mean and range over families of sets.

    bag_auc: how well it told the bags there, mean over families.
    """

    method: str
    mean: float
    low: float
    high: float
    families: int
    bag_auc: float


def record_of(method: str) -> Record | None:
    """The record of a variant, all its settings together; None where it was not examined."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in known_models():
        if row["method"] == method:
            found.setdefault(family(str(row["dataset"])), []).append((float(row[TRUTH]), float(row["bag_auc"])))
    if not found:
        return None
    means = np.array([np.mean(v, axis=0) for v in found.values()])
    told, of_bags = means.mean(axis=0)
    return Record(method, float(told), float(means[:, 0].min()), float(means[:, 0].max()), len(means), float(of_bags))
