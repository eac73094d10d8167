"""The gate: is what was learned used, or the prior list? And may another setup than the list's first come first?"""

from __future__ import annotations

import numpy as np

from metamed.exams import judged, regret, weighted_tau
from metamed.exams.tables import Table
from metamed.metalearner.correctors import Base

ALIKE = 2  # other families that have to share a target's domain before another setup may come first


def gate(train: Table, base: Base, order: np.ndarray) -> tuple[float, bool]:
    """(gain in weighted tau over the list on families left out, of just what `answer` would say; is the first free?).

    Another than the list's first comes first only if that lost no more on the families left out. Where nothing tells
    datasets apart, the gain has to exceed its standard error, which is taken off.
    """
    plain = np.where(np.isfinite(train.scores), base.list, -np.inf)
    gained = gains(train, settled(order, plain, company(train, train)), base.list)
    free = len(gained) > 0 and gained[:, 1].mean() <= 0
    if not free:
        gained = gains(train, first_kept(order, plain), base.list)
    if len(gained) < 2:
        return 0.0, bool(free)
    doubt = 0.0 if train.facts or train.hints else gained[:, 0].std(ddof=1) / np.sqrt(len(gained))
    return float(gained[:, 0].mean() - doubt), bool(free)


def company(train: Table, target: Table) -> np.ndarray:
    """Do two other families at least share each target's domain, (k,)? Yes where domains tell nothing apart."""
    known, asked = train.facts.get("modality"), target.facts.get("modality")
    if known is None:
        return np.ones(len(target.datasets), bool)
    if asked is None:
        return np.zeros(len(target.datasets), bool)
    return np.array([
        bool(domain) and len({f for f, d in zip(train.families, known, strict=True) if d == domain} - {own}) >= ALIKE
        for domain, own in zip(asked, target.families, strict=True)
    ])  # fmt: skip


def settled(order: np.ndarray, plain: np.ndarray, free: np.ndarray) -> np.ndarray:
    """The order as it is said: the list's first item stays first but where `free`, (k,).

    The order below the first place is learned better than the first place itself, and what makes another item the first
    carries over only between datasets of one domain.
    """
    return np.where(free[:, None], order, first_kept(order, plain))


def first_kept(order: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """The order with the first item of another, row by row, put in front of it."""
    first = np.arange(order.shape[1]) == np.argmax(plain, axis=1)[:, None]
    return np.where(first, np.nanmax(order, axis=1, keepdims=True) + 1, order)


def gains(train: Table, order: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Weighted tau and nreg@1 of an order minus those of another, means of each judged family, (families, 2).

    Only items that another family ran count: where nobody else ran them, the list says nothing that could be beaten.
    """
    asked, found = judged(train), []
    for fold in train.family_folds():
        scores = np.where(np.isfinite(train.scores[~fold]).any(0), train.scores, np.nan)
        rows = np.flatnonzero(fold & asked & (np.isfinite(scores).sum(1) > 1))
        if len(rows):
            apart = [_standing(scores[i], order[i]) - _standing(scores[i], plain[i]) for i in rows]
            found.append(np.mean(apart, axis=0))
    return np.array(found).reshape(-1, 2)


def _standing(truth: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(weighted tau, nreg@1) of an order of the items that were run."""
    there = np.isfinite(truth)
    truth, order = truth[there], order[there]
    return np.array([weighted_tau(truth, order), regret(truth, order) / (np.ptp(truth) or 1.0)])
