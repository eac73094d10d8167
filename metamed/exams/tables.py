"""Tables of results, datasets x items: what a recommender learns from and what an exam asks about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

LOWER_IS_BETTER = re.compile(
    r"loss|error|(?<![a-z])(hd|hd95|m?assd?|nll|r?mse|mae|[em]ce|eer|f[pn]r)(?![a-z0-9])|hausdorff|perplexity|brier|regret"
    r"|(?<!surface[ _])(?<!surface)distance|(?<!normali[sz]ed[ _])surface[ _]?distance",
    re.I,
)
LABEL_KINDS = {"part of a tumour": "lesion", "tumour": "lesion",  # no table has both words for what is ill
               "part of an organ": "thin", "thin structure": "thin"}  # fmt: skip
Columns = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Table:
    """Scores of `items` on `datasets` by one measure under one protocol; higher is better.

    scores: float (n, m), NaN where not run. families: (n,), datasets that share images carry one name.
    facts: about datasets, name -> (n,); numbers with NaN, or strings with "" where unknown.
    descriptors: about items, name -> (m,). origins: facts of the dataset that each item was pre-trained on, (m,) each.
    hints: published transferability scores or minus distances, name -> (n, m), higher is better.
    notes: what was done to the figures when they were read.
    landmarks: scores of quick models on each dataset, name -> (n,), fractions, NaN where unknown.
    """

    name: str
    measure: str
    datasets: tuple[str, ...]
    items: tuple[str, ...]
    scores: np.ndarray
    families: tuple[str, ...]
    facts: Columns = field(default_factory=dict)
    descriptors: Columns = field(default_factory=dict)
    origins: Columns = field(default_factory=dict)
    hints: dict[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    landmarks: Columns = field(default_factory=dict)

    @cached_property
    def ranks(self) -> np.ndarray:
        """Ranks of the items on each dataset, (n, m), as `spread_ranks` gives them: reckoned once for all folds."""
        return spread_ranks(self.scores)

    def rows(self, which: Sequence[int] | np.ndarray) -> Table:
        """The same items on some of the datasets: indices, or a mask."""
        index = np.arange(len(self.datasets))[np.asarray(which)]
        pick = {name: tuple(getattr(self, name)[i] for i in index) for name in ("datasets", "families")}
        for part_of in ("facts", "hints", "landmarks"):
            pick[part_of] = {name: column[index] for name, column in getattr(self, part_of).items()}
        part = replace(self, scores=self.scores[index], **pick)
        part.__dict__["ranks"] = self.ranks[index]  # a row's ranks do not depend on the others
        return part

    def columns(self, which: Sequence[int] | np.ndarray) -> Table:
        """Some of the items on the same datasets."""
        index = np.arange(len(self.items))[np.asarray(which)]
        item_facts = {
            part: {k: v[index] for k, v in getattr(self, part).items()} for part in ("descriptors", "origins")
        }
        hints = {name: value[:, index] for name, value in self.hints.items()}
        items = tuple(self.items[j] for j in index)
        return replace(self, scores=self.scores[:, index], items=items, hints=hints, **item_facts)

    def knowing(self, names: Iterable[str]) -> Table:
        """With no other facts about datasets than the named ones."""
        return replace(self, facts={n: self.facts[n] for n in self.facts if n in names})

    def hidden(self, shown: Sequence[str] = ()) -> Table:
        """Without scores but those of the `shown` items (runs on the target). NaN is asked, -inf is no candidate."""
        known = np.isin(np.array(self.items, dtype=object), list(shown)) & np.isfinite(self.scores)
        return replace(self, scores=np.where(known, self.scores, np.where(np.isnan(self.scores), -np.inf, np.nan)))

    def family_folds(self) -> list[np.ndarray]:
        """One mask per family, True on its datasets."""
        families = np.array(self.families, dtype=object)
        return [families == family for family in dict.fromkeys(self.families)]


def spread_ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks of each row spread evenly over -0.5 to 0.5, higher is better; NaN stays NaN, ties share their rank."""
    there = np.isfinite(scores)
    order = np.argsort(np.where(there, scores, np.inf), axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=1)
    place = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    new = np.ones(scores.shape, bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.maximum.accumulate(np.where(new, place, 0), axis=1)
    last = np.ones(scores.shape, bool)
    last[:, :-1] = new[:, 1:]
    end = np.minimum.accumulate(np.where(last, place, scores.shape[1])[:, ::-1], axis=1)[:, ::-1]
    out = np.empty(scores.shape)
    np.put_along_axis(out, order, (first + end) / 2, axis=1)
    n = there.sum(1, keepdims=True)
    return np.where(there, np.where(n > 1, out / np.maximum(n - 1, 1) - 0.5, 0.0), np.nan)


def number(value) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return np.nan


def size_facts(n: np.ndarray, classes: np.ndarray) -> Columns:
    """log10 of the training samples, log2 of the classes, log10 of the samples per class."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return {"log_n": np.log10(n), "log_classes": np.log2(classes), "log_per_class": np.log10(n / classes)}


def informative(column: np.ndarray) -> bool:
    """Does it tell any two apart?"""
    if column.dtype == object:
        return len(set(column)) > 1
    return np.isfinite(column).any() and np.nanmax(column) > np.nanmin(column)


def distinct(columns: Columns) -> Columns:
    """Without categories that part the items exactly as an earlier one does: it would only count twice."""
    seen: dict[tuple, str] = {}
    for name, column in columns.items():
        codes = {level: i for i, level in enumerate(dict.fromkeys(column))} if column.dtype == object else None
        seen.setdefault(tuple(codes[v] for v in column) if codes else (name,), name)
    return {name: columns[name] for name in seen.values()}
