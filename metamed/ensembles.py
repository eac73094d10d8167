"""Ensembles of stored runs: members and weights chosen on validation predictions, reported on test; no training.

Probabilities are averaged. Masks, which are kept as classes, are voted on: each pixel gets the class that most weight
speaks for (with equal weights the majority; with weights by Dice, what STAPLE comes to in one step).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from metamed.dataset import Dataset, Kind
from metamed.errors import MetamedError, NotApplicable, UnknownName
from metamed.measures import Measure, get_measure
from metamed.records import Run
from metamed.store import Store

ROUNDS, PATIENCE = 25, 5  # members drawn, with replacement; rounds without a better score after which drawing ends
# Test AUC beyond the single best over 320 choices on 17 datasets: weighted 0.035, mean 0.036, greedy 0.027; among 15
# setups that differ more: 0.013, 0.010, 0.008.
DEFAULT = "weighted"
ENOUGH = 0.2  # one is enough where the ensemble wins less often; there 0.003 were gained on test, elsewhere 0.027
HALVES = 10  # random divisions of the validation part that tell whether an ensemble pays

Weights = dict[str, float]  # of members, largest first, above 0, summing to 1
Predictions = Mapping[str, np.ndarray]  # member -> probabilities (n, K), or masks (n, H, W), all of the same samples


@dataclass(frozen=True)
class Ensemble:
    """Stored runs whose answers are joined, beside the single best of them by validation.

    weights: of runs by id. validation, test: scores by `measure`. single: that run's id, validation and test score.
    gain: what the ensemble gains over the single best, by `measure` towards better, on validation samples that neither
    was chosen on; one_is_enough: there it is seldom the better of the two. Test decides nothing.
    """

    weights: Weights
    measure: str
    validation: float
    test: float
    single: tuple[str, float, float]
    gain: float
    one_is_enough: bool


def ensemble(
    runs: Iterable[Run], dataset: Dataset, store: Store, *, how: str = DEFAULT, measure: str | None = None
) -> Ensemble:
    """The ensemble of runs of one task on `dataset`, by the predictions that the store has; how: one of `HOW`.

    measure: the task's own if None. Raises MetamedError for runs of several tasks, NotApplicable where no run has
    predictions of classes or masks.
    """
    runs = {run.id: run for run in runs if run.error is None}
    tasks = {run.task for run in runs.values()}
    if len(tasks) > 1:
        raise MetamedError(f"an ensemble needs runs of one task, these are of {len(tasks)}")
    found = {id: kept for id, run in runs.items() if (kept := stored(run, store)) is not None}
    if not found:
        raise NotApplicable(f"none of {len(runs)} runs on {dataset.name} has stored predictions")
    task, one = store.get(tasks.pop()), next(iter(found.values()))
    chosen = get_measure(measure or task.measure).spaced(dataset.card.spacing)
    of_validation, of_test = (_truth(dataset, task.kind, one[f"{part}_index"]) for part in ("validation", "test"))
    validation, test = ({id: kept[part] for id, kept in found.items()} for part in ("validation", "test"))
    weights, alone = weigh(how, validation, of_validation, chosen), best(validation, of_validation, chosen)
    (single,) = alone
    groups = None if dataset.groups is None else dataset.groups[one["validation_index"]]
    expected, share = gain(how, validation, of_validation, chosen, groups=groups)

    def scores(members: Weights) -> tuple[float, float]:
        return chosen(of_validation, mixed(validation, members)), chosen(of_test, mixed(test, members))

    return Ensemble(weights, chosen.name, *scores(weights), (single, *scores(alone)), expected, share < ENOUGH)


def _truth(dataset: Dataset, kind: Kind, samples: np.ndarray) -> np.ndarray:
    """What predictions of these samples are measured against: classes, or masks (n, H, W). Raises NotApplicable."""
    if kind == "segmentation" and dataset.masks is not None:
        return np.stack([np.asarray(dataset.masks[int(i)]) for i in samples])
    if kind == "segmentation" or dataset.target is None:
        raise NotApplicable(f"{dataset.name}: an ensemble joins answers to classes or masks, and it has neither")
    return dataset.target[samples]


def stored(run: Run, store: Store) -> dict[str, np.ndarray] | None:
    """A run's validation and test predictions with the indices of their samples; None if the store has none."""
    try:
        path = store.artifact(run, "predictions.npz")
    except UnknownName:
        return None
    with np.load(path, allow_pickle=False) as file:
        return {name: v.astype(np.float32) if v.dtype == np.float16 else v for name, v in file.items()}


def mixed(predictions: Predictions, weights: Weights) -> np.ndarray:
    """The weighted mean of the members' probabilities; of masks the class with most weight at each pixel, of equal ones
    the lowest."""
    parts = [(weight, predictions[name]) for name, weight in weights.items()]
    if parts[0][1].dtype.kind == "f":
        return sum(weight * part for weight, part in parts)
    said = np.zeros(parts[0][1].shape, np.uint8)
    most = np.full(said.shape, -1.0, np.float32)
    for k in np.unique([label for _, part in parts for label in np.unique(part)]):
        votes = sum(np.float32(weight) * (part == k) for weight, part in parts)
        said[votes > most] = k
        np.maximum(most, votes, out=most)
    return said


def source_ensemble(dataset: Dataset, store: Store, *, how: str = DEFAULT) -> tuple[Weights, Ensemble] | None:
    """The ensemble of single sources on a dataset with runs, and its weights by source; None below two such sources.

    Each source stands for its best run by validation, on the task in which most sources were tried.
    """
    return _ensemble_of(dataset, store, lambda setup: setup.sources[0] if len(setup.sources) == 1 else None, how)


def setup_ensemble(dataset: Dataset, store: Store, *, how: str = DEFAULT) -> tuple[Weights, Ensemble] | None:
    """The same of setups, by their ids: of each its best run by validation."""
    return _ensemble_of(dataset, store, lambda setup: setup.id, how)


def _ensemble_of(dataset: Dataset, store: Store, member: Callable, how: str) -> tuple[Weights, Ensemble] | None:
    """The ensemble of what `member` makes of each setup (None: nothing), one run of each, and its weights by member."""
    tried: dict[str, dict[str, tuple]] = defaultdict(dict)
    for run in store.runs(kind=dataset.kind, dataset=dataset.digest):
        if run.error is not None or (name := member(store.get(run.setup))) is None:
            continue
        if (kept := stored(run, store)) is not None:
            task = store.get(run.task)
            truth = _truth(dataset, task.kind, kept["validation_index"])
            merit = _scores({run.id: kept["validation"]}, truth, get_measure(task.measure))[run.id], run.id
            tried[run.task][name] = max(tried[run.task].get(name, merit), merit)
    if not tried or len(most := max(tried.values(), key=len)) < 2:
        return None
    name_of = {id: name for name, (_, id) in most.items()}
    found = ensemble([store.get(id) for id in name_of], dataset, store, how=how)
    return {name_of[id]: weight for id, weight in found.weights.items()}, found


# ---- how members are weighed: (validation predictions, truth (n,) or (n, K), measure) -> weights


def _scores(predictions: Predictions, truth: np.ndarray, measure: Measure) -> dict[str, float]:
    """Members in an order of their own with their scores, more is better; -inf where the measure is not defined."""
    sign = 1 if measure.higher else -1
    values = {name: sign * measure(truth, predictions[name]) for name in sorted(predictions)}
    return {name: value if np.isfinite(value) else -np.inf for name, value in values.items()}


def best(predictions: Predictions, truth: np.ndarray, measure: Measure) -> Weights:
    """The single best member."""
    scores = _scores(predictions, truth, measure)
    return {max(scores, key=scores.get): 1.0}


def mean(predictions: Predictions, truth: np.ndarray, measure: Measure) -> Weights:
    """All members alike."""
    return {name: 1 / len(predictions) for name in sorted(predictions)}


def weighted(predictions: Predictions, truth: np.ndarray, measure: Measure) -> Weights:
    """Members in proportion to how far they are above what the shares of the classes alone would reach."""
    some = next(iter(predictions.values()))
    if truth.ndim == 3:
        alone = np.full_like(some, np.bincount(truth.ravel()).argmax())  # of masks, the most frequent class everywhere
    else:
        shares = truth.mean(0) if truth.ndim == 2 else np.bincount(truth, minlength=some.shape[1]) / len(truth)
        alone = np.broadcast_to(shares, some.shape)
    chance = (1 if measure.higher else -1) * measure(truth, alone)
    above = {name: max(score - chance, 0.0) for name, score in _scores(predictions, truth, measure).items()}
    total = sum(above.values())
    if not total > 0:
        return mean(predictions, truth, measure)
    return {name: v / total for name, v in sorted(above.items(), key=lambda item: -item[1]) if v > 0}


def greedy(predictions: Predictions, truth: np.ndarray, measure: Measure) -> Weights:
    """Members drawn one by one, with replacement, each the one that helps the mean most; the best round counts
    (Caruana et al., 2004). Never worse than the single best on the predictions that it is chosen on."""
    drawn, top = [], (-np.inf, 0)
    for size in range(1, ROUNDS + 1):
        tried = {name: mixed(predictions, _shares([*drawn, name])) for name in predictions}
        scores = _scores(tried, truth, measure)
        name = max(scores, key=scores.get)
        drawn.append(name)
        top = max(top, (scores[name], -size))  # of equal rounds the smaller ensemble
        if size + top[1] >= PATIENCE:
            break
    return _shares(drawn[: -top[1] or 1])


def _shares(drawn: list[str]) -> Weights:
    members = Counter(drawn)
    return {name: count / members.total() for name, count in members.most_common()}


HOW: dict[str, Callable[[Predictions, np.ndarray, Measure], Weights]] = {
    "best": best, "mean": mean, "weighted": weighted, "greedy": greedy,
}  # fmt: skip


def weigh(how: str, predictions: Predictions, truth: np.ndarray, measure: Measure) -> Weights:
    """Weights of members by one of the ways in `HOW`; the order of the members does not matter."""
    if how not in HOW:
        raise UnknownName("way to combine", how, HOW)
    return HOW[how](predictions, truth, measure)


# ---- does it pay?


def gain(
    how: str,
    predictions: Predictions,
    truth: np.ndarray,
    measure: Measure,
    *,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """What an ensemble gains over the single best on samples that neither was chosen on, and how often it is better.

    Both are chosen on one half of the samples and compared on the other, over random halves that divide no group: the
    mean gain, more is better, and the share of comparisons with a gain. (0, 0) where halves are too small to measure.
    """
    rng, sign, gains = np.random.default_rng(seed), 1 if measure.higher else -1, []
    for _ in range(HALVES):
        half = _half(truth, groups, rng)
        for chosen, judged in ((half, ~half), (~half, half)):
            seen, unseen = ({n: p[part] for n, p in predictions.items()} for part in (chosen, judged))
            values = [measure(truth[judged], mixed(unseen, weigh(w, seen, truth[chosen], measure)))
                      for w in (how, "best")]  # fmt: skip
            gains.append(sign * (values[0] - values[1]))
    gains = [g for g in gains if np.isfinite(g)]
    return (float(np.mean(gains)), float(np.mean(np.array(gains) > 0))) if gains else (0.0, 0.0)


def _half(truth: np.ndarray, groups: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """A random half of the samples as a mask: whole groups, every class in both halves where it has two groups."""
    _, first, group = np.unique(np.arange(len(truth)) if groups is None else groups, return_index=True,
                                return_inverse=True)  # fmt: skip
    kind = _kinds(truth)[first]
    order = rng.permutation(len(first))
    order = order[np.argsort(kind[order], kind="stable")]
    inside = np.zeros(len(first), bool)
    inside[order[rng.integers(2) :: 2]] = True
    return inside[group]


def _kinds(truth: np.ndarray) -> np.ndarray:
    """A number for each sample, the same for those of the same class, labels, or classes in their masks; (n,)."""
    if truth.ndim == 3:
        truth = np.stack([(truth == k).any(axis=(1, 2)) for k in np.unique(truth)], axis=1)
    return truth if truth.ndim == 1 else truth[:, :62] @ (1 << np.arange(min(truth.shape[1], 62)))
