"""What may go wrong with a recommendation: facts of a dataset that spoil results, and unlikeness to all known ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from metamed.dataset import UNLABELLED, Dataset, Kind
from metamed.errors import NotApplicable
from metamed.readers import inspection

FEW_SAMPLES, FEW_IN_CLASS, STRONG_IMBALANCE, MINIMUM = 200, 10, 10, 10
QUANTILE = 0.95


# ---- facts


def facts_line(dataset: Dataset, kind: Kind) -> str:
    """The dataset in one line: how many of what, classes and their imbalance, groups."""
    number = f"{len(dataset.images):,}".replace(",", " ")
    parts = [f"{number} {_shape_words(dataset.images.shape)} {dataset.images.dtype}"]
    if dataset.bags is not None:
        parts.insert(0, f"{dataset.n_samples} bags")
    if dataset.n_classes:
        parts.append(f"{dataset.n_classes} {'labels' if dataset.multi_label else 'classes'}{_imbalance_note(dataset)}")
    if dataset.groups is None:
        parts.append("no patient ids!")
    else:
        n = len(np.unique(dataset.groups))
        parts.append(f"{n} groups" + (" = no patient ids!" if n == dataset.n_samples else ""))
    return f"{', '.join(parts)} ({kind})"


def _shape_words(shape: tuple[int, ...]) -> str:
    if len(shape) == 2:
        return f"vectors of {shape[1]} features"
    return "images " + "x".join(map(str, (*shape[2:], *shape[1:2]) if shape[1] > 1 else shape[2:]))


def class_counts(dataset: Dataset) -> np.ndarray:
    """Labelled samples of each class that occurs; empty if multi-label or without target."""
    if dataset.target is None or dataset.multi_label:
        return np.empty(0, int)
    counts = np.bincount(dataset.target[dataset.target != UNLABELLED].astype(int))
    return counts[counts > 0]


def _imbalance_note(dataset: Dataset) -> str:
    counts = class_counts(dataset)
    return f" (imbalance {counts.max() / counts.min():.0f}:1)" if len(counts) > 1 else ""


def training_size(dataset: Dataset, kind: Kind) -> tuple[int, str]:
    """(training samples, the estimation procedure in words) of the task that scores are predicted for.

    Raises NotApplicable without labels, with one class, or with too few samples.
    """
    if kind in ("classification", "mil"):
        from metamed.tasks import make_task

        task = make_task(dataset)
        words = {"given": "the dataset's own split", "holdout": "a holdout (20 % test, stratified"}[task.procedure]
        divided = ", patients never divided)" if dataset.groups is not None else ", patients unknown)"
        return len(task.folds[0].train), words + (divided if task.procedure == "holdout" else "")
    n = len(dataset.images) if kind == "segmentation" else len(dataset.triplets or ())
    if n < MINIMUM:
        raise NotApplicable(f"{dataset.name} has {n} samples to learn a {kind} from; at least {MINIMUM} are needed")
    return int(0.64 * n), "a holdout (20 % test)"


# ---- warnings


def warnings_of(dataset: Dataset) -> list[str]:
    """One sentence for each fact of the dataset that makes results worse, or look better than they are."""
    found, counts = inspection.warnings(dataset), class_counts(dataset)
    n = int(counts.sum()) if len(counts) else dataset.n_samples
    if dataset.groups is not None and len(np.unique(dataset.groups)) == dataset.n_samples:
        found.insert(0, "every sample is a group of its own: these are no patient ids")
    if n < FEW_SAMPLES:
        found.append(f"only {n} labelled samples: a test part of {max(n // 5, 1)} cannot tell close setups apart")
    if len(counts) > 1 and counts.max() / counts.min() > STRONG_IMBALANCE:
        found.append(f"classes are imbalanced {counts.max() / counts.min():.0f}:1: accuracy hides the rare ones")
    if len(counts) > 1 and counts.min() < FEW_IN_CLASS:
        found.append(f"the rarest class has {counts.min()} samples: its test part is a handful")
    return found


# ---- experience


@dataclass(frozen=True)
class Experience:
    """How far a dataset lies from the known ones.

    nearest: (name, distance), nearest first. limit: 95 % quantile of the known datasets' own nearest distances.
    """

    nearest: tuple[tuple[str, float], ...]
    limit: float

    @property
    def outside(self) -> bool:
        return bool(self.nearest) and self.nearest[0][1] > self.limit


def experience(vector: Mapping[str, float], known: Mapping[str, tuple[str, str, Mapping[str, float]]]) -> Experience:
    """Where a dataset's meta-features lie among the known datasets: digest -> (name, family, meta-features).

    Distance: root mean square difference of standardised, roughly symmetric values over the columns that both have.
    Families are left out together when the known ones are compared. limit is NaN below three known families.
    """
    digests = list(known)
    vectors = (vector, *(values for _, _, values in known.values()))
    columns = [c for c in vector if all(math.isfinite(v.get(c, math.nan)) for v in vectors)]
    if not digests or not columns:
        return Experience((), math.nan)
    table = _flat(np.array([[known[d][2][c] for c in columns] for d in digests]))
    scale = np.where(table.std(axis=0) > 0, table.std(axis=0), np.inf)  # what is the same everywhere tells nothing
    own, table = ((v - table.mean(axis=0)) / scale for v in (_flat(np.array([vector[c] for c in columns])), table))
    distances = np.sqrt(((table - own) ** 2).mean(axis=1))
    nearest = tuple((known[digests[i]][0], float(distances[i])) for i in np.argsort(distances, kind="stable")[:3])
    return Experience(nearest, _limit(table, np.array([known[d][1] for d in digests])))


def _flat(values: np.ndarray) -> np.ndarray:
    """Counts and ratios span decades: signed logarithm, so that one huge column does not decide alone."""
    return np.sign(values) * np.log1p(np.abs(values))


def _limit(table: np.ndarray, families: np.ndarray) -> float:
    if len(np.unique(families)) < 3:
        return math.nan
    distance = np.sqrt(((table[:, None] - table) ** 2).mean(axis=2))
    distance[families[:, None] == families] = math.inf
    return float(np.quantile(distance.min(axis=1), QUANTILE))
