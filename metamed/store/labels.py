"""Labels: what a store keeps of a dataset beside its facts, so that its runs can be published without its images."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metamed.dataset import Dataset
from metamed.store.artifacts import Artifacts

FILE = "labels.npz"


@dataclass(frozen=True, eq=False)
class Labels:
    """target: as `Dataset.target`. groups: samples of one group share a number; the groups' own names are not kept."""

    target: np.ndarray
    groups: np.ndarray | None = None


def keep_labels(files: Artifacts, dataset: Dataset) -> None:
    """Write a dataset's labels once; nothing where it has none."""
    if dataset.target is None or files.find(dataset.digest, FILE):
        return
    parts = {"target": np.asarray(dataset.target)}
    if dataset.groups is not None:
        parts["groups"] = by_appearance(dataset.groups)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **parts)
    files.put(dataset.digest, {FILE: buffer.getvalue()})


def read_labels(path: Path) -> Labels:
    with np.load(path, allow_pickle=False) as file:
        return Labels(file["target"], file.get("groups"))


def by_appearance(groups: np.ndarray) -> np.ndarray:
    """Groups numbered in the order in which they first appear: says which are equal, and nothing else of them."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]
