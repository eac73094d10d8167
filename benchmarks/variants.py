"""Variants of a dataset, as controls of what a source learns from: `flowers5.shuffled`, `flowers5.grey`.

A variant is a dataset of its own, of the family of the one that it was made from.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from metamed.dataset import ArrayImages, Dataset, grey, take


def shuffled(data: Dataset) -> Dataset:
    """The same images and classes, each label given to another image: nothing to learn but the pixels' statistics."""
    target, labelled = data.target.copy(), data.labelled
    target[labelled] = np.random.default_rng(0).permutation(target[labelled])
    return replace(data, target=target)


def without_colour(data: Dataset) -> Dataset:
    """The same images in one channel."""
    levels = grey(take(data.images, np.arange(len(data.images))))
    return replace(data, images=ArrayImages(levels.round().astype(np.uint8)[:, None]))


def fewer_classes(data: Dataset, n: int) -> Dataset:
    """The images of the first `n` classes alone."""
    kept = np.flatnonzero((data.target >= 0) & (data.target < n))
    card = replace(data.card, classes=data.card.classes[:n])
    groups = None if data.groups is None else data.groups[kept]
    return Dataset(data.name, ArrayImages(take(data.images, kept)), data.target[kept], groups=groups, card=card)


VARIANTS = {
    "shuffled": shuffled,
    "grey": without_colour,
    "two": lambda data: fewer_classes(data, 2),
    "five": lambda data: fewer_classes(data, 5),
}


def varied(data: Dataset, variant: str) -> Dataset:
    """A variant of a dataset under its own name, in the same family."""
    made = VARIANTS[variant](data)
    return replace(made, name=f"{data.name}.{variant}", card=replace(made.card, family=data.family))
