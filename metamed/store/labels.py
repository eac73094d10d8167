"""Labels: what a store keeps of a dataset beside its facts, so that its runs can be published without its images."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metamed.dataset import Dataset, Kind
from metamed.store.artifacts import Artifacts

FILE = "labels.npz"
PIXELS = 40_000  # labels kept of all masks together: as a table still below 2 MB, the least that servers take


@dataclass(frozen=True, eq=False)
class Labels:
    """What is known of a dataset's entries: its samples, or a few pixels of each where they are images with masks.

    target: class of each entry, as `Dataset.target`. groups: of each sample; those of one group share a number, their
    own names are not kept. samples: the sample that each entry belongs to; None where each is a sample of its own.
    places: where an entry lies, int (n, k): of a pixel its row and column (of a volume slice, row and column), of a
    triplet its anchor, first and second image.
    """

    target: np.ndarray
    groups: np.ndarray | None = None
    samples: np.ndarray | None = None
    places: np.ndarray | None = None

    def entries_of(self, samples: Iterable[int]) -> np.ndarray:
        """The entries of these samples, ascending."""
        wanted = np.array(sorted(samples), dtype=np.int64)
        return wanted if self.samples is None else np.flatnonzero(np.isin(self.samples, wanted))

    def samples_of(self, entries: np.ndarray) -> np.ndarray:
        """The sample of each of these entries; -1 stays -1."""
        return entries if self.samples is None else np.where(entries < 0, -1, self.samples[entries])


def labels_file(kind: Kind) -> str:
    """In which file the labels of a kind of dataset lie."""
    return {"segmentation": "pixels.npz", "similarity": "triplets.npz"}.get(kind, FILE)


def keep_labels(files: Artifacts, dataset: Dataset) -> None:
    """Write a dataset's labels once; nothing where it has none."""
    name = labels_file(dataset.kind)
    if files.find(dataset.digest, name) or (labels := labels_of(dataset)) is None:
        return
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{part: values for part, values in vars(labels).items() if values is not None})
    files.put(dataset.digest, {name: buffer.getvalue()})


def labels_of(dataset: Dataset) -> Labels | None:
    """What is kept of a dataset's labels; None where it has none."""
    groups = None if dataset.groups is None else by_appearance(dataset.groups)
    if dataset.kind == "segmentation":
        return _pixels(dataset, groups) if dataset.n_samples else None
    if dataset.kind == "similarity":
        return _triplets(dataset)
    return None if dataset.target is None else Labels(np.asarray(dataset.target), groups)


def _pixels(dataset: Dataset, groups: np.ndarray | None) -> Labels:
    """Equally many pixels of every mask: one of each of as many equal runs of it, drawn by a fixed seed.

    What is drawn depends on nothing but the size and the number of the mask, so it is the same on every machine.
    """
    each = max(1, PIXELS // dataset.n_samples)
    targets, samples, places = [], [], []
    for number, mask in enumerate(_one_by_one(dataset.masks)):
        edges = np.arange(min(each, mask.size) + 1) * mask.size // min(each, mask.size)
        drawn = edges[:-1] + (np.random.default_rng(number).random(len(edges) - 1) * np.diff(edges)).astype(np.int64)
        targets.append(mask.ravel()[drawn].astype(np.int16))
        samples.append(np.full(len(drawn), number, np.int32))
        places.append(np.stack(np.unravel_index(drawn, mask.shape), axis=1).astype(np.int32))
    return Labels(np.concatenate(targets), groups, np.concatenate(samples), np.concatenate(places))


def _one_by_one(masks) -> Iterator[np.ndarray]:
    """Each mask, reading every chunk of a file once."""
    if hasattr(masks, "chunks"):
        return (mask for _, block in masks.chunks() for mask in block)
    return (np.asarray(masks[i]) for i in range(len(masks)))


def _triplets(dataset: Dataset) -> Labels:
    """Of each question which candidate was called closer; who answered is not kept."""
    from metamed.judged import questions, triplets_as_samples

    rows, answer = questions(dataset.triplets)
    return Labels(answer, by_appearance(triplets_as_samples(dataset).groups), places=rows.astype(np.int32))


def read_labels(path: Path) -> Labels:
    with np.load(path, allow_pickle=False) as file:
        return Labels(**{name: file[name] for name in file.files})


def by_appearance(groups: np.ndarray) -> np.ndarray:
    """Groups numbered in the order in which they first appear: says which are equal, and nothing else of them."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]
