"""Bags of which every instance is known: nuclei of colon cancer, and bags made of labelled images with a known share of
witnesses. What can be said of instances without their labels is examined on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from metamed.dataset import ArrayImages, Dataset, Images, take
from metamed.readers import read
from metamed.trust.learning import components

SIDE = 64  # pixels that the frozen network sees; of its features the first 64 principal components are kept
TRAIN, TEST = 60, 50  # bags, half of them with a witness at least
SIZES = (10, 25)  # instances of a bag, fewest and most
MOST_IMAGES = 1200


@dataclass(frozen=True)
class Made:
    """Bags made of labelled images: those with a finding hold images of the class `witness`, the others none."""

    images: str
    witness: int
    rate: float

    @property
    def name(self) -> str:
        return f"{self.images}@{self.rate:g}"


IMAGES = {"bccd_cells": 2, "brain_tumor_mri": 1, "busi_breast_us": 2, "cifar10_sub": 3, "covid_xray3": 2,
          "dr_fundus_rahim": 2, "flowers5": 2, "ham10000_derm": 4, "lc25000_lung": 1, "pneumoniamnist": 1,
          "wbc_zheng": 3}  # fmt: skip
RATES = (0.1, 0.3)
MADE = {made.name: made for name, witness in IMAGES.items() for rate in RATES for made in [Made(name, witness, rate)]}
REAL = "colon_cancer_nuclei_bags"
_TURN = [name for k in (0, 1) for i, _ in enumerate(IMAGES) for name in [[*MADE][2 * i + (i + k) % 2]]]
NAMES = (REAL, *_TURN)  # one set of each image set first, rates in turn: an interrupted study is balanced
Embed = Callable[[Images], np.ndarray]


def bags_of(name: str, shared: Path, embed: Embed) -> Dataset:
    """A set of bags with instance labels, frozen features as instances, its own split into train and test."""
    if name == REAL:
        return _real(shared, embed)
    made = MADE[name]
    data = read(shared / "data" / "cls" / f"{made.images}.h5")
    kept = np.sort(np.random.default_rng(0).permutation(data.labelled)[:MOST_IMAGES])
    features = components(embed(ArrayImages(take(data.images, kept))))
    groups = kept if data.groups is None else data.groups[kept]
    return made_of(made, features, data.target[kept] == made.witness, groups)


def _real(shared: Path, embed: Embed) -> Dataset:
    """The 100 images of 9 patients, whose ids are unknown: dealt by their place in the order of the files, so that
    neighbours, often of one patient, stay together."""
    data = read(shared / "data" / "mil" / f"{REAL}.h5")
    split = np.where(np.arange(data.n_samples) // 10 % 2 == 0, 0, 2)
    return replace(data, images=ArrayImages(components(embed(data.images))), split=split)


def made_of(made: Made, features: np.ndarray, witness: np.ndarray, groups: np.ndarray, seed: int = 0) -> Dataset:
    """Bags of instances drawn without repetition inside a bag; no group lies on both sides of the split."""
    rng = np.random.default_rng([seed, *made.name.encode()])
    names = rng.permutation(np.unique(groups))
    learned = np.isin(groups, names[: round(0.6 * len(names))])
    members, target, split = [], [], []
    for part, side, n in ((0, learned, TRAIN), (2, ~learned, TEST)):
        yes, no = np.flatnonzero(side & witness), np.flatnonzero(side & ~witness)
        for b in range(n):
            size = int(rng.integers(SIZES[0], SIZES[1] + 1))
            found = min(max(1, rng.binomial(size, made.rate)), len(yes), size) if b % 2 else 0
            drawn = np.append(rng.permutation(yes)[:found], rng.permutation(no)[: size - found])
            members.append(rng.permutation(drawn))
            target.append(b % 2)
            split.append(part)
    rows = np.concatenate(members)
    bags = np.repeat(np.arange(len(members)), [len(m) for m in members])
    return Dataset(made.name, ArrayImages(features[rows]), np.array(target), np.array(split), witness[rows].astype(int),
                   bags=bags)  # fmt: skip


def family(name: str) -> str:
    """Sets made of the same images belong together."""
    return name.partition("@")[0]
