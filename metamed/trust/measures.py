"""The measures, one decorated function each. All are without instance labels; the higher, the more is trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from metamed.measures import binary_auc
from metamed.trust.judging import Judged

BOOTSTRAPS, LEVEL = 200, 0.9
TOP = 0.1  # share of a bag's instances that a reader of its heat map looks at
NEIGHBOURS = 6


@dataclass(frozen=True)
class TrustMeasure:
    """A registered measure: (judged, bags) -> float over those bags; the higher, the more the instances are trusted."""

    name: str
    function: Callable[[Judged, np.ndarray], float]
    needs: str = ""

    @property
    def description(self) -> str:
        return (self.function.__doc__ or "").split("\n\n")[0].replace("\n", " ").strip()


TRUST: dict[str, TrustMeasure] = {}


def trust_measure(needs: str = ""):
    """Register a function of (Judged, bags) -> float; NaN or NotApplicable where it is not defined.

    needs: field of `Judged` without which it is not defined.
    """

    def register(function: Callable[[Judged, np.ndarray], float]):
        TRUST[function.__name__] = TrustMeasure(function.__name__, function, needs)
        return function

    return register


@dataclass(frozen=True)
class Trust:
    """A measure's value over all bags and its 90 % interval over bags; NaN where it is not defined."""

    measure: str
    value: float
    low: float
    high: float


def measure(
    judged: Judged, names: Sequence[str] | None = None, *, bootstraps: int = BOOTSTRAPS, seed: int = 0
) -> list[Trust]:
    """Every measure (or those named) with its interval, by drawing the bags of each side anew."""
    rng, found = np.random.default_rng(seed), []
    draws = [_draw(judged, rng) for _ in range(bootstraps)]
    for name in names or TRUST:
        value = value_of(name, judged)
        drawn = [_value(TRUST[name], judged, draw) for draw in draws] if np.isfinite(value) else []
        drawn = [v for v in drawn if np.isfinite(v)]
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(drawn) > 1 else (np.nan, np.nan)
        found.append(Trust(name, value, float(low), float(high)))
    return found


def value_of(name: str, judged: Judged) -> float:
    """One measure over all bags; NaN where it is not defined."""
    return _value(TRUST[name], judged, np.arange(len(judged.members)))


def _draw(judged: Judged, rng: np.random.Generator) -> np.ndarray:
    sides = [np.flatnonzero(judged.finding == side) for side in (False, True)]
    return np.concatenate([rng.choice(side, len(side)) for side in sides])


def _value(one: TrustMeasure, judged: Judged, bags: np.ndarray) -> float:
    needed = getattr(judged, one.needs) if one.needs else ()
    if needed is None or (one.needs in ("resampled", "reseeded", "others") and not len(needed)):
        return float("nan")
    return float(one.function(judged, bags))


# ---- the measures


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks along the last axis, ties at their mean; float, same shape."""
    values = np.atleast_2d(values)
    out = np.empty(values.shape)
    for row, place in zip(values, out, strict=True):
        _, inverse, counts = np.unique(row, return_inverse=True, return_counts=True)
        place[:] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return out


def mean_correlation(scores: np.ndarray) -> float:
    """Mean rank correlation (Spearman) over pairs of rows of (models, n); NaN below two models or three values.

    A row that is constant agrees with nothing: 0.
    """
    if len(scores) < 2 or scores.shape[1] < 3:
        return float("nan")
    r = ranks(scores)
    r = r - r.mean(axis=1, keepdims=True)
    length = np.sqrt((r**2).sum(axis=1, keepdims=True))
    r = np.divide(r, length, out=np.zeros_like(r), where=length > 0)
    return float((r @ r.T)[np.triu_indices(len(r), 1)].mean())


def _with_own(judged: Judged, scores: np.ndarray) -> np.ndarray:
    return np.concatenate([judged.scores[None], scores])


def _within(judged: Judged, scores: np.ndarray, bags: np.ndarray) -> float:
    """Mean over bags with a finding of the rank correlation inside a bag."""
    found = [mean_correlation(scores[:, judged.members[b]]) for b in bags if judged.finding[b]]
    found = [v for v in found if np.isfinite(v)]
    return float(np.mean(found)) if found else float("nan")


@trust_measure(needs="resampled")
def stability(judged: Judged, bags: np.ndarray) -> float:
    """Rank correlation of all instances' scores between models learned on different 80 % of the training bags. -1 to 1.

    After Cheplygina et al. 2015, with ranks in place of labels: scores of most variants have no threshold.
    """
    return mean_correlation(judged.resampled[:, judged.instances(bags)])


@trust_measure(needs="resampled")
def stability_inside(judged: Judged, bags: np.ndarray) -> float:
    """As `stability`, inside each bag with a finding, mean over these bags. -1 to 1."""
    return _within(judged, judged.resampled, bags)


@trust_measure(needs="resampled")
def stability_positive(judged: Judged, bags: np.ndarray) -> float:
    """Instances called positive by both of two models over those called so by either, on different training bags. 0-1.

    S+ of Cheplygina et al. 2015. Positive are as many instances as the highest tenth, over all bags.
    """
    scores = judged.resampled[:, judged.instances(bags)]
    most = max(1, round(TOP * scores.shape[1]))
    chosen = ranks(scores) > scores.shape[1] - most
    return _jaccard(chosen)


def _jaccard(chosen: np.ndarray) -> float:
    both = (chosen[:, None] & chosen[None]).sum(axis=2)
    either = (chosen[:, None] | chosen[None]).sum(axis=2)
    pairs = np.triu_indices(len(chosen), 1)
    known = either[pairs] > 0
    return float((both[pairs][known] / either[pairs][known]).mean()) if known.any() else float("nan")


@trust_measure(needs="reseeded")
def stability_seeds(judged: Judged, bags: np.ndarray) -> float:
    """Rank correlation of all instances' scores between models that differ in the seed alone. -1 to 1."""
    return mean_correlation(_with_own(judged, judged.reseeded)[:, judged.instances(bags)])


@trust_measure(needs="others")
def agreement(judged: Judged, bags: np.ndarray) -> float:
    """Rank correlation of all instances' scores with the mean rank that the other variants give. -1 to 1."""
    at = judged.instances(bags)
    return mean_correlation(np.stack([judged.scores[at], ranks(judged.others[:, at]).mean(axis=0)]))


@trust_measure(needs="others")
def agreement_inside(judged: Judged, bags: np.ndarray) -> float:
    """As `agreement`, inside each bag with a finding, mean over these bags. -1 to 1."""
    return _within(judged, np.stack([judged.scores, ranks(judged.others).mean(axis=0)]), bags)


@trust_measure(needs="changes")
def deletion(judged: Judged, bags: np.ndarray) -> float:
    """How much further the probability of a finding falls without a bag's highest instances than without others.

    -1 to 1; mean over a tenth, a fifth, a third and half of the instances of bags with a finding.
    """
    return _mean(judged.changes.deleted_random[bags] - judged.changes.deleted[bags])


@trust_measure(needs="changes")
def insertion(judged: Judged, bags: np.ndarray) -> float:
    """How much more probable a finding is from a bag's highest instances alone than from as many others.

    -1 to 1; over the same shares and bags as `deletion`.
    """
    return _mean(judged.changes.inserted[bags] - judged.changes.inserted_random[bags])


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


@trust_measure(needs="coordinates")
def coherence(judged: Judged, bags: np.ndarray) -> float:
    """Moran's I of the scores over the six nearest instances, mean over bags with a finding. About -1 to 1."""
    found = [_moran(judged.scores[judged.members[b]], judged.coordinates[judged.members[b]])
             for b in bags if judged.finding[b]]  # fmt: skip
    return _mean(np.array(found or [np.nan]))


def _moran(scores: np.ndarray, places: np.ndarray) -> float:
    n = len(scores)
    centred = ranks(scores)[0] - (n + 1) / 2  # of ranks: one extreme score would decide alone
    if n <= NEIGHBOURS or not (centred != 0).any():
        return float("nan")
    places = places.astype(np.float64)
    squared = ((places[:, None] - places[None]) ** 2).sum(axis=2)
    np.fill_diagonal(squared, np.inf)
    near = np.argpartition(squared, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return float((centred[:, None] * centred[near]).mean() / (centred**2).mean())


@trust_measure()
def bag_consistency(judged: Judged, bags: np.ndarray) -> float:
    """AUC of the scores for telling instances of bags with a finding from instances of bags without one. 0-1.

    Instances of a bag with a finding are taken for findings themselves, of which many are none; that shrinks the true
    AUC towards one half by the same factor for every model: the witness rate, if the other instances are like those of
    bags without a finding.
    """
    at = judged.instances(bags)
    label = np.concatenate([np.full(len(judged.members[b]), judged.finding[b]) for b in bags])
    return binary_auc(label, judged.scores[at])


@trust_measure()
def bag_maximum(judged: Judged, bags: np.ndarray) -> float:
    """AUC of the highest score of a bag for telling bags with a finding from those without. 0-1."""
    highest = np.array([judged.scores[judged.members[b]].max() for b in bags])
    return binary_auc(judged.finding[bags], highest)


@trust_measure()
def bag_auc(judged: Judged, bags: np.ndarray) -> float:
    """AUC of the model's answers for whole bags: what everybody reports, and what the others are compared with. 0-1."""
    return binary_auc(judged.finding[bags], judged.probability[bags])
