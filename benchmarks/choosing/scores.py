"""What can be reckoned of a source for a target before training: distances of datasets, scores of frozen features."""

from __future__ import annotations

import warnings
from ast import literal_eval
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from metamed.dataset import Dataset, spread
from metamed.errors import MetamedError
from metamed.exams.examples import vectors_of
from metamed.metafeatures import extract_pair
from metamed.metafeatures.transferability import SCORES
from metamed.sources import features_key
from metamed.store import Store
from metamed.training import DEFAULTS

ROWS = 200  # training images that scores are reckoned of: what they say hardly moves with more, and they cost the cube
SIZES = ("50", "200", "all")
PUBLISHED = ("log_me", "n_leep", "knn_transfer")  # not H-score: constant where features outnumber images


def pair_features(store: Store, pairs: set[tuple[str, str]]) -> pd.DataFrame:
    """Pair meta-features of (source dataset, target dataset) names, from what the store knows of both; a row a pair."""
    vectors = {str(v["name"]): v for v in vectors_of(store).values() if len(v) > 30}
    columns = {name for vector in vectors.values() for name, value in vector.items() if isinstance(value, float)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # columns that no dataset has
        scale = {c: float(np.nanstd([v.get(c, np.nan) for v in vectors.values()])) for c in columns}
    rows = {}
    for source, target in sorted(pairs):
        if source in vectors and target in vectors:
            rows[source, target] = extract_pair(vectors[source], vectors[target], scale=scale)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["origin", "target"])


def feature_scores(store: Store, runs: pd.DataFrame, find: Callable[[str], Dataset]) -> pd.DataFrame:
    """LogME, N-LEEP and k-NN of every source on the training part of the first task of each target and size.

    One row a (target, size, source): the features that the store keeps, no image is looked at.
    """
    rows = []
    for (target, size), part in runs[runs["size"].isin(SIZES)].groupby(["target", "size"]):
        task, data = store.get(part["task"].iloc[0]), find(target)
        train = np.array(task.folds[0].train)
        train = train[spread(len(train), ROWS)]
        groups = None if data.groups is None else data.groups[train]
        for source, features in _features(store, part.drop_duplicates("source"), data.digest):
            found = _scores(features[train].astype(np.float64), data.target[train], groups)
            rows.append({"target": target, "size": size, "source": source, **found})
    return pd.DataFrame(rows)


def _features(store: Store, runs: pd.DataFrame, digest: str) -> Iterator[tuple[str, np.ndarray]]:
    for name, settings in sorted(zip(runs["source"], runs["settings"], strict=True)):
        side = dict(literal_eval(settings)).get("image_size", DEFAULTS["image_size"])
        features = store.features(features_key(store.source(name), side), digest)
        if features is not None:
            yield name, features


def _scores(features: np.ndarray, labels: np.ndarray, groups: np.ndarray | None) -> dict[str, float]:
    found = {}
    for name in PUBLISHED:
        options = {"groups": groups} if name == "knn_transfer" else {}
        try:
            found[name] = SCORES[name](features, labels, **options)
        except (MetamedError, np.linalg.LinAlgError):  # too few images for it
            found[name] = np.nan
    return found
