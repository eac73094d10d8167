"""Ensembles of sources by look-up: probes of several sources, combined on stored validation predictions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from benchmarks.choosing.questions import probes
from benchmarks.choosing.results import MEASURE, Effect
from metamed.dataset import Dataset
from metamed.ensembles import mixed, stored, weigh
from metamed.measures import get_measure
from metamed.store import Store

WAYS = ("best", "mean", "weighted", "greedy")


def combinations(store: Store, runs: pd.DataFrame, find: Callable[[str], Dataset]) -> pd.DataFrame:
    """One row a task and set of sources: the test AUC of ImageNet alone and of each way of `WAYS`.

    three: the published sources. all: every source of MobileNetV2. twice: ImageNet's features by a linear probe and by
    k-NN, which tells what averaging gains without another source.
    """
    of = probes(runs, "ImageNet", "birds", "insects", "chained")
    knn = runs[(runs["method"] == "probe.knn") & (runs["start"] == "ImageNet")]
    sets = {"three": (of[of["origin"] == ""], 3), "all": (of, 11), "twice": (pd.concat([of, knn]).query(_TWICE), 2)}
    rows = []
    for name, (members, least) in sets.items():
        for (family, target, size, task), part in members.groupby(["family", "target", "size", "task"]):
            found = {r.run: kept for r in part.itertuples() if (kept := stored(store.get(r.run), store))}
            alone = part[(part["start"] == "ImageNet") & (part["method"] == "probe.linear")]
            if len(found) >= least and len(alone):
                scores = {"imagenet": alone["score"].iloc[0], **_scores(found, find(target).target)}
                rows.append({"family": family, "task": task, "size": size, "sources": name, **scores})
    return pd.DataFrame(rows, columns=["family", "task", "size", "sources", "imagenet", *WAYS])


_TWICE = "start == 'ImageNet'"


def _scores(found: dict[str, dict[str, np.ndarray]], truth: np.ndarray) -> dict[str, float]:
    """Test score of every way of combining; weights come from validation alone."""
    measure, one = get_measure(MEASURE), next(iter(found.values()))
    validation, test = ({n: kept[part] for n, kept in found.items()} for part in ("validation", "test"))
    of_validation, of_test = truth[one["validation_index"]], truth[one["test_index"]]
    return {way: measure(of_test, mixed(test, weigh(way, validation, of_validation, measure))) for way in WAYS}


def gains(table: pd.DataFrame, sources: str, way: str, against: str, sizes: tuple[str, ...]) -> list[Effect]:
    """Test AUC of a way of combining minus that of another, at each size of the target."""
    found = []
    for size in sizes:
        part = table[(table["size"] == size) & (table["sources"] == sources)]
        found.append(Effect.of((part[way] - part[against]).groupby(part["family"]).mean(), len(part)))
    return found
