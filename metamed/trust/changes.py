"""What a model says of bags from which instances were taken: whether its answer hangs on those that it points at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHARES = (0.1, 0.2, 0.35, 0.5)  # of a bag's instances, taken out or left in
RANDOM_ORDERS = 3
BAGS = 40  # bags with a finding that are looked at: each costs 32 questions


@dataclass(frozen=True, eq=False)
class Changes:
    """Mean probability of a finding over SHARES, for each bag (n,), NaN where it was not looked at.

    deleted: without its highest instances, deleted_random: without as many others. inserted: of its highest instances
    alone, inserted_random: of as many others alone.
    """

    deleted: np.ndarray
    deleted_random: np.ndarray
    inserted: np.ndarray
    inserted_random: np.ndarray

    @classmethod
    def of(cls, model, bags: Sequence[np.ndarray], finding: np.ndarray, rng: np.random.Generator) -> Changes:
        """Looked at: bags with a finding and at least four instances, at most 40 of them."""
        able = [b for b in np.flatnonzero(finding) if len(bags[b]) >= 4]
        able = rng.permutation(able)[:BAGS].astype(int)
        out = {name: np.full(len(bags), np.nan) for name in cls.__dataclass_fields__}
        for b in able:
            order = np.argsort(-np.asarray(model.scores(bags[b])).reshape(-1), kind="stable")
            others = [rng.permutation(len(order)) for _ in range(RANDOM_ORDERS)]
            for name, orders in (("", [order]), ("_random", others)):
                out["deleted" + name][b], out["inserted" + name][b] = _asked(model, bags[b], orders)
        return cls(**out)


def _asked(model, bag: np.ndarray, orders: list[np.ndarray]) -> tuple[float, float]:
    """(probability without the first instances of each order, of the first alone), mean over orders and shares."""
    counts = [max(1, round(share * len(bag))) for share in SHARES]
    without = [bag[np.sort(order[k:])] for order in orders for k in counts]
    alone = [bag[np.sort(order[:k])] for order in orders for k in counts]
    probability = 1 - np.exp(model.predict(without + alone)[:, 0].astype(np.float64))
    return float(probability[: len(without)].mean()), float(probability[len(without) :].mean())
