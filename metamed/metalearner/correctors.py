"""Weak, strongly shrunken corrections of the prior list, in closed form, numpy alone, the same constants everywhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from metamed.exams.scales import (
    common_scale,
    design,
    fact_distance,
    family_weights,
    nearness,
    normal_scores,
    plain_list,
    standardise,
    weighted_mean,
)
from metamed.exams.tables import Columns, Table

WEAK, STRONG, RIDGE, PENALTY, RANK, ROUNDS = 1.0, 4.0, 3.0, 3.0, 2, 10
MOST_COLUMNS = 100  # of the items' descriptors: thousands of items may each have a word of their own
SAME_DOMAIN, HINT, KEEP = 3.0, 0.3, 0.45  # weights: same domain, mean hint, both in the answer


def _half_identity(kernel: np.ndarray) -> np.ndarray:
    return (np.eye(len(kernel)) + kernel) / 2


def item_design(descriptors: Columns) -> np.ndarray:
    """Numbers and dummies of the items' descriptors, (m, p); of more than 100 columns those that tell most apart."""
    matrix, _ = design(descriptors, descriptors)
    if matrix.shape[1] <= MOST_COLUMNS:
        return matrix
    widest = np.sort(np.argsort(-matrix.var(0), kind="stable")[:MOST_COLUMNS])
    return matrix[:, widest]


def item_kernels(descriptors: Columns, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Likeness of items, exponential and linear, each mixed half and half with identity, (m, m)."""
    if not descriptors:
        return np.eye(m), np.eye(m)
    near = np.exp(-fact_distance(descriptors, descriptors, 0.5, 2.0))
    matrix = item_design(descriptors)
    linear = matrix @ matrix.T
    scale = np.trace(linear) / m
    return _half_identity(near), _half_identity(linear / scale if scale > 0 else linear)


# --- corrections: residual of the training datasets (n, m) -> of the asked ones (k, m) ---


def spectra(descriptors: Columns, m: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Eigenvalues and eigenvectors of both item kernels. The last ones are kept: all folds of a table share them."""
    if not (_LAST and _LAST[0] is descriptors and _LAST[1] == m):
        _LAST[:] = descriptors, m, tuple(np.linalg.eigh(kernel) for kernel in item_kernels(descriptors, m))
    return _LAST[2]


_LAST: list = []


def gaussian_process(
    near: np.ndarray, own: np.ndarray, items: tuple[np.ndarray, np.ndarray], residual: np.ndarray, noise: float
) -> np.ndarray:
    """Posterior mean of a Gaussian process with kernel datasets x items on a full grid.

    near: (k, n) likeness of asked and known datasets, own: (n, n), items: eigenvalues (m,) and -vectors (m, m) of the
    likeness of items. In the items' eigenbasis the grid falls apart into m problems of size n.
    """
    values, vectors = items
    values = np.clip(values, 0, None)[:, None, None]
    rotated = (residual @ vectors).T[:, :, None]
    alpha = np.linalg.solve(values * own + noise * np.eye(len(own)), rotated)
    return (values * near @ alpha)[:, :, 0].T @ vectors.T


def low_rank(near: np.ndarray, own: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """The residual's first two singular directions, their coordinates predicted from facts by ridge regression."""
    u, s, v = np.linalg.svd(residual, full_matrices=False)
    coordinates = u[:, :RANK] * s[:RANK]
    return near @ np.linalg.solve(own + PENALTY * np.eye(len(own)), coordinates) @ v[:RANK]


def corrections(train: Table, target: Table, residual: np.ndarray) -> dict[str, np.ndarray]:
    """The four weak correctors of the prior list, name -> (k, m); all zero where no facts are known."""
    if not train.facts:
        return {}
    own, near = (np.exp(-fact_distance(train.facts, asked.facts)) for asked in (train, target))
    matrix, asked = design(train.facts, target.facts)
    width = max(1, matrix.shape[1])
    linear, linear_near = matrix @ matrix.T / width, asked @ matrix.T / width
    alike, straight = spectra(train.descriptors, len(train.items))
    return {
        "gp_weak": gaussian_process(near, own, alike, residual, WEAK),
        "gp_strong": gaussian_process(near, own, alike, residual, STRONG),
        "interactions": gaussian_process(linear_near, linear, straight, residual, RIDGE),
        "low_rank": low_rank(linear_near, linear, residual),
    }


# --- the two bases on which trees are grown ---


@dataclass(frozen=True, eq=False)
class Base:
    """What is known before trees: `order` and the prior `list`, (k, m), and `features` (k, m, p) for the trees.

    kind: which recipe made it, source or method. anchor: (k, m), what the trees learn the departure from. list: average
    ranks and nothing else, so that falling back to it equals the baseline that everything is judged against.
    share: the trees' part in the answer, order + share x trees. names: of the features.
    """

    kind: str
    order: np.ndarray
    list: np.ndarray
    anchor: np.ndarray
    share: float
    features: np.ndarray
    names: tuple[str, ...]
    _ROWS: ClassVar[tuple[str, ...]] = ("order", "list", "anchor", "features")

    @classmethod
    def of(cls, kind: str, order, plain, anchor, share: float, features: dict[str, np.ndarray]) -> Base:
        stacked = np.stack([np.broadcast_to(f, order.shape) for f in features.values()], axis=2)
        return cls(kind, order, plain, anchor, share, stacked, tuple(features))

    @classmethod
    def join(cls, parts: list[Base]) -> Base:
        """Of several datasets, one after the other."""
        return replace(parts[0], **{n: np.concatenate([getattr(p, n) for p in parts]) for n in cls._ROWS})

    def rows(self, which) -> Base:
        return replace(self, **{n: getattr(self, n)[which] for n in self._ROWS})

    def each(self) -> list[Base]:
        return [self.rows([i]) for i in range(len(self.order))]


def _careful_mean(scale: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted mean of each item, drawn towards the middle where fewer families ran it than ran the others.

    As if one more family had found it in the middle; a table without holes keeps its means.
    """
    total = (np.isfinite(scale) * weights[:, None]).sum(0)
    return weighted_mean(scale, weights) * total / (total + 1) * (total.max() + 1) / total.max()


def matched(scale: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The scale, each row brought to the mean and spread that its items have among all: unbalanced rows then compare.

    A row that holds only the weak, or only such as are much alike, tells nothing of the others: on its own scale its
    best would look like the best of all. A row without holes stays as it is.
    """
    there, out = np.isfinite(scale), scale
    for _ in range(ROUNDS if not there.all() else 0):
        merit = weighted_mean(out, weights)
        own = np.where(there, merit, np.nan)
        centre = np.nanmean(own, axis=1, keepdims=True) - merit.mean()
        out = centre + scale * np.nanstd(own, axis=1, keepdims=True) / (merit.std() or 1.0)
    return out


def method_base(train: Table, target: Table) -> Base:
    """For methods: prior list with families weighted equally + the mean of the four corrections and the trees."""
    weights = family_weights(train.families, 1.0)
    scale = matched(common_scale(train.scores), weights)
    own, lists = (np.array([_careful_mean(scale, weights * near) for near in nearness(train, asked)])
                  for asked in (train, target))  # fmt: skip
    parts = corrections(train, target, np.nan_to_num(scale - own))
    shape, share = (len(target.datasets), len(train.items)), 1 / (len(parts) + 1)
    descriptors = item_design(train.descriptors)
    features = {"list": lists, **parts}
    unknown = np.full(shape[0], np.nan)  # facts go in as they are, so that a column means the same for any training set
    features |= {n: target.facts.get(n, unknown)[:, None] for n, f in train.facts.items() if f.dtype != object}
    features |= {f"item.{i}": descriptors[:, i] for i in range(descriptors.shape[1])}
    order = lists + share * sum(parts.values(), np.zeros(shape))
    return Base.of("method", order, plain_list(train, target), lists, share, features)


def source_base(train: Table, target: Table) -> Base:
    """For transfer sources: list in which the same domain counts three times + 0.3 x the mean of all hints."""
    open_ = ~np.isneginf(target.scores)  # a source is no candidate for itself
    scale = normal_scores(train.scores)
    weights = family_weights(train.families, 0.5)
    plain = np.where(open_, weighted_mean(scale, weights), np.nan)
    near, strong = _domain_lists(train, target, scale, weights)
    lists, near, strong = (standardise(np.where(open_, x, np.nan)) for x in (plain, near, strong))
    hints = [standardise(normal_scores(np.where(open_, h, np.nan))) for h in target.hints.values()]
    known = np.any([np.isfinite(h) for h in hints], axis=0) if hints else np.zeros(open_.shape, bool)
    total = np.sum([np.nan_to_num(h) for h in hints], axis=0) if hints else np.zeros(open_.shape)
    hint = np.nan_to_num(standardise(np.where(open_ & known, total, np.nan)))
    order = KEEP * standardise(np.nan_to_num(near) + HINT * hint)
    spread = np.array([np.nanstd(c) if np.isfinite(c).sum() > 1 else np.nan for c in scale.T])
    features = {"list": lists, "domain": strong - lists, "hint": hint, **_pair_facts(train, target), "spread": spread}
    features = {n: standardise(np.where(open_, f, np.nan)) for n, f in features.items()}
    return Base.of("source", np.nan_to_num(order), plain_list(train, target), np.nan_to_num(order), 1.0, features)


def _domain_lists(train: Table, target: Table, scale, weights) -> tuple[np.ndarray, np.ndarray]:
    """Lists in which the target's own domain counts 3 and 8 times, where two other families share it at least."""
    domains, own = train.facts.get("modality"), target.facts.get("modality")
    lists = []
    for i in range(len(target.datasets)):
        same = (domains == own[i]) if own is not None and domains is not None else np.zeros(len(weights), bool)
        shared = len({f for f, s in zip(train.families, same, strict=True) if s}) >= 2
        factors = [np.where(same & shared, k, 1.0) for k in (SAME_DOMAIN, 8.0)]
        lists.append([weighted_mean(scale, weights * f) for f in factors])
    near, strong = np.array(lists).transpose(1, 0, 2)
    return near, strong


def _pair_facts(train: Table, target: Table) -> dict[str, np.ndarray]:
    """What an item's source and the target have in common: domain and sizes. (k, m), NaN where unknown."""
    shape, pairs = target.scores.shape, {}
    if "modality" in train.origins:
        own = target.facts.get("modality")
        same = np.full(shape, np.nan) if own is None else (own[:, None] == train.origins["modality"]).astype(float)
        pairs["same_domain"] = same
    for name in ("log_n", "log_classes"):
        source = train.origins.get(name, np.full(shape[1], np.nan))
        asked = target.facts.get(name, np.full(shape[0], np.nan))
        pairs[f"source.{name}"] = np.broadcast_to(source, shape)
        pairs[f"like.{name}"] = -np.abs(asked[:, None] - source)
    return pairs


def base_of(train: Table, target: Table) -> Base:
    """The recipe that the items call for: that of transfer sources where the sizes of most items' sources are known."""
    known = [np.isfinite(c) for n, c in train.origins.items() if n in ("log_n", "log_classes")]
    about_sources = bool(known) and bool(np.mean(known) > 0.5)
    return (source_base if about_sources else method_base)(train, target)
