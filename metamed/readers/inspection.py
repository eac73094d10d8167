"""What a dataset is like before anything is learned from it: its facts, what was assumed, and what may leak."""

from __future__ import annotations

import numpy as np

from metamed.assessments import Ratings, Triplets
from metamed.dataset import HASHED_SAMPLES, UNLABELLED, Dataset, near_matches, spread

TWIN_BITS = 8  # of 256: fundus photographs of two patients differ in 9 or more, copies of one image mostly in fewer
PARTS = ("train", "validation", "test")


def inspect(dataset: Dataset) -> list[tuple[str, str]]:
    """(name, value) rows: facts, then warnings about leaks, then what the reader assumed."""
    rows = [("dataset", dataset.name), ("kind", dataset.kind), ("images", _images(dataset))]
    for name, say in _FACTS.items():
        if value := say(dataset):
            rows.append((name, value))
    rows += [("warning", line) for line in warnings(dataset)]
    return rows + [("assumed", line) for line in dataset.assumptions]


def warnings(dataset: Dataset) -> list[str]:
    """What could make a score on this dataset better than it will be on new patients."""
    found = []
    if dataset.groups is None:
        found.append("no patient ids: images of one patient may fall on both sides of a split")
    elif dataset.split is not None:
        pairs = np.unique(np.stack([dataset.groups, dataset.split]), axis=1)
        divided = int((np.unique(pairs[0], return_counts=True)[1] > 1).sum())
        if divided:
            found.append(f"the dataset's own split divides {divided} of {len(np.unique(dataset.groups))} groups")
    return found + _near_duplicates(dataset)


def _near_duplicates(dataset: Dataset) -> list[str]:
    """Near-identical images of different groups, on both sides of the own split, and with different labels."""
    hashes = dataset.thumbnails
    sampled = spread(len(dataset.images), HASHED_SAMPLES)[: len(hashes)]
    sample = sampled if dataset.bags is None else dataset.bags[sampled]
    group = sample if dataset.groups is None else dataset.groups[sample]
    twin = np.full(len(hashes), -1)
    for g in np.unique(group):
        inside, outside = np.flatnonzero(group == g), np.flatnonzero(group != g)
        match = near_matches(hashes[inside], hashes[outside], TWIN_BITS)
        twin[inside[match >= 0]] = outside[match[match >= 0]]
    pairs = np.unique(np.sort(np.stack([np.flatnonzero(twin >= 0), twin[twin >= 0]]), axis=0), axis=1)
    a, b = sample[pairs]
    of = f" among {len(hashes)} of {len(dataset.images)} images" if len(hashes) < len(dataset.images) else ""
    found = []
    if len(a):
        across = " of different groups" if dataset.groups is not None else ""
        found.append(f"{len(a)} pairs of nearly identical images{across}{of}")
    if dataset.split is not None and (apart := int((dataset.split[a] != dataset.split[b]).sum())):
        found.append(f"{apart} of these pairs lie on both sides of the dataset's own split")
    if dataset.target is not None and not dataset.multi_label:
        one, other = dataset.target[a], dataset.target[b]
        odd = int(((one != other) & (np.minimum(one, other) != UNLABELLED)).sum())
        found += [f"{odd} of these pairs have different labels"] * bool(odd)
    return found


def _images(dataset: Dataset) -> str:
    n, *item = dataset.images.shape
    sides = "x".join(map(str, [*item[1:], item[0]] if len(item) > 1 else item))
    return f"{n} {'images' if len(item) > 1 else 'feature vectors'} {sides} {dataset.images.dtype}"


def _sizes(dataset: Dataset) -> str:
    if dataset.images.sizes is None:
        return ""
    low, high = dataset.images.sizes.min(axis=0), dataset.images.sizes.max(axis=0)
    return f"{low[0]}x{low[1]} to {high[0]}x{high[1]}"


def _classes(dataset: Dataset) -> str:
    if dataset.target is None:
        return f"{dataset.n_classes} in the masks{_named(dataset)}" if dataset.masks is not None else "no labels"
    target = dataset.target[dataset.labelled]
    counts = target.sum(axis=0) if dataset.multi_label else np.bincount(target, minlength=dataset.n_classes)
    names = dataset.card.classes if len(dataset.card.classes) == len(counts) else range(len(counts))
    each = [f"{name}: {count}" for name, count in zip(names, counts, strict=True)]
    present = counts[counts > 0]
    balance = f" (imbalance {present.max() / present.min():.1f}:1)" if len(present) > 1 else ""
    kind = "labels, more than one an image" if dataset.multi_label else "classes"
    return f"{len(counts)} {kind}{balance}: {', '.join(each[:20])}{', …' if len(each) > 20 else ''}"


def _named(dataset: Dataset) -> str:
    return f": {', '.join(dataset.card.classes)}" if dataset.card.classes else ""


def _unlabelled(dataset: Dataset) -> str:
    missing = dataset.n_samples - len(dataset.labelled)
    return f"{missing} of {dataset.n_samples}" if dataset.target is not None and missing else ""


def _bags(dataset: Dataset) -> str:
    if dataset.bags is None:
        return ""
    sizes = np.bincount(dataset.bags)
    return f"{len(sizes)} with {sizes.min()} to {sizes.max()} instances, median {np.median(sizes):g}"


def _groups(dataset: Dataset) -> str:
    if dataset.groups is None:
        return "none"
    sizes = np.unique(dataset.groups, return_counts=True)[1]
    return f"{len(sizes)}, the largest of {sizes.max()} samples"


def _split(dataset: Dataset) -> str:
    if dataset.split is None:
        return ""
    counts = np.bincount(dataset.split, minlength=3)
    return ", ".join(f"{name} {n}" for name, n in zip(PARTS, counts, strict=True) if n)


def _answers(answers: Triplets | Ratings | None) -> str:
    """How many, by how many people or, where nobody persists, slots."""
    if answers is None:
        return ""
    people = len(np.unique(np.asarray(answers.annotator)[answers.persistent]))
    slots = len(np.unique(np.asarray(answers.annotator)[~answers.persistent]))
    who = [f"{n} {word}" for n, word in ((people, "annotators"), (slots, "slots")) if n]
    return f"{len(answers)} by {' and '.join(who)}"


_FACTS = {
    "native sizes": _sizes,
    "classes": _classes,
    "unlabelled": _unlabelled,
    "bags": _bags,
    "groups": _groups,
    "own split": _split,
    "triplets": lambda dataset: _answers(dataset.triplets),
    "ratings": lambda dataset: _answers(dataset.ratings),
    "modality": lambda dataset: dataset.card.modality,
    "organ": lambda dataset: dataset.card.organ,
    "spacing": lambda dataset: " x ".join(f"{v:g}" for v in dataset.card.spacing) + " mm" * bool(dataset.card.spacing),
    "licence": lambda dataset: dataset.card.license,
}
