"""Which sources to combine on a dataset that has runs: chosen on stored validation predictions, never on test."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from metamed.dataset import Dataset
from metamed.errors import UnknownName
from metamed.measures import PRIMARY, Measure, get_measure
from metamed.records import Run
from metamed.store import Store

ROUNDS = 25  # members drawn, with replacement: a weight is a multiple of 1/25


def greedy(
    predictions: dict[str, np.ndarray], truth: np.ndarray, measure: Measure, rounds: int = ROUNDS
) -> dict[str, float]:
    """Weights of the members whose mean prediction is best, largest first, summing to 1 (Caruana et al., 2004).

    predictions: name -> probabilities (n, K) on the same samples as truth (n,) or (n, K). In each round the member that
    helps the mean most is added, the same one again if need be; the best round counts.
    """
    sign, total, drawn, best = (1 if measure.higher else -1), 0.0, [], (-np.inf, 0)
    for size in range(1, rounds + 1):
        scores = {name: sign * measure(truth, (total + p) / size) for name, p in predictions.items()}
        name = max(scores, key=scores.get)
        total, drawn = total + predictions[name], [*drawn, name]
        best = max(best, (scores[name], -size))  # of equal rounds the smaller ensemble
    members = Counter(drawn[: -best[1]])
    return {name: count / members.total() for name, count in members.most_common()}


def source_ensemble(dataset: Dataset, store: Store) -> dict[str, float]:
    """Weights of single sources on a dataset by the runs that this store has of it; empty below two such sources.

    Each source stands for its best run by validation; runs on other splits than most are left aside.
    """
    found: dict[tuple[int, ...], dict[str, tuple[float, np.ndarray]]] = defaultdict(dict)
    if dataset.target is None:
        return {}
    measure = get_measure(PRIMARY[dataset.kind])
    for run in store.runs(dataset=dataset.digest):
        if (known := _validation(run, store)) is None:
            continue
        source, index, prediction = known
        score = measure(dataset.target[list(index)], prediction) * (1 if measure.higher else -1)
        if score > found[index].get(source, (-np.inf,))[0]:
            found[index][source] = (score, prediction)
    if not found:
        return {}
    index, best = max(found.items(), key=lambda item: len(item[1]))
    if len(best) < 2:
        return {}
    return greedy({name: p for name, (_, p) in best.items()}, dataset.target[list(index)], measure)


def _validation(run: Run, store: Store) -> tuple[str, tuple[int, ...], np.ndarray] | None:
    """(source, validation samples, predictions) of a run with one source whose predictions this store has."""
    setup = store.get(run.setup)
    if run.error is not None or len(setup.sources) != 1:
        return None
    try:
        path = store.artifact(run, "predictions.npz")
    except UnknownName:
        return None
    with np.load(path, allow_pickle=False) as file:
        return setup.sources[0], tuple(file["validation_index"].tolist()), file["validation"].astype(np.float32)
