"""What bags are like: sizes, and how instances lie within and between them. Classes: bag_classes.py.

Instances are the feature vectors, or the statistics of the images, standardised and projected onto their first 32
principal components. Distances between instances use at most 2500 of them: whole bags, of each bag at most 40.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metamed.dataset import spread
from metamed.errors import NotApplicable
from metamed.metafeatures import metafeature
from metamed.metafeatures.general import class_counts
from metamed.metafeatures.probe import Probe

COMPONENTS = 32
INSTANCES, PER_BAG = 2500, 40  # a distance matrix of 25 MB, which holds bags of any size
DEALS = 8  # times that instances are dealt out anew to say what chance gives

bag_feature = metafeature("bags", kinds=["mil"])


# -- what several features need ----------------------------------------------------------------------------------------


def _sizes(probe: Probe) -> np.ndarray:
    counts = np.bincount(probe.dataset.bags)
    return counts[counts > 0]


def instances(probe: Probe) -> np.ndarray:
    """All instances looked at, as (n, at most 32), in the probe's order of content."""
    values = probe.instance_values
    gram = values.T @ values if values.shape[0] >= values.shape[1] else values @ values.T
    energy, vectors = np.linalg.eigh(gram)
    energy, vectors = energy[::-1][:COMPONENTS], vectors[:, ::-1][:, :COMPONENTS]
    if values.shape[0] >= values.shape[1]:
        return values @ vectors
    return vectors * np.sqrt(np.maximum(energy, 0))


@dataclass(frozen=True)
class Near:
    """Some bags' instances: `place` of each in the probe's order of content, `row` among its rows, the class of its bag
    (-1 unknown), and squared `distances` between them, infinite to itself."""

    place: np.ndarray
    row: np.ndarray
    label: np.ndarray
    distances: np.ndarray

    @property
    def same_bag(self) -> np.ndarray:
        return self.row[:, None] == self.row[None]


def near_bags(probe: Probe) -> Near:
    """The distances between the instances of as many whole bags as there is room for."""
    chosen, rows, room = [], [], INSTANCES
    for row, members in enumerate(probe.members):
        members = members[spread(len(members), PER_BAG)]
        if len(members) > room:
            break
        chosen.append(members)
        rows.append(np.full(len(members), row))
        room -= len(members)
    chosen, row = np.concatenate(chosen), np.concatenate(rows)
    values = probe.once(instances)[chosen]
    length = (values**2).sum(axis=1)
    squared = np.maximum(length[:, None] + length[None] - 2 * values @ values.T, 0)
    squared[squared < 1e-9 * max(length.max(), 1e-9)] = 0  # equal but for rounding
    np.fill_diagonal(squared, np.inf)
    return Near(chosen, row, probe.labels[row], squared)


def two_bags(probe: Probe) -> Near:
    """`near_bags` where there are two bags at least; raises NotApplicable elsewhere."""
    near = probe.once(near_bags)
    if near.row[0] == near.row[-1]:
        raise NotApplicable(f"{probe.dataset.name} has fewer than two bags")
    return near


def root_mean(squared: np.ndarray) -> float:
    """Mean distance of squared ones."""
    return float(np.sqrt(squared).mean())


def bag_distances(probe: Probe) -> np.ndarray:
    """Smallest distance between the instances of two bags (minimal Hausdorff), infinite to itself, (bags, bags)."""
    near = two_bags(probe)
    starts = np.flatnonzero(np.diff(near.row, prepend=-1))
    smallest = np.minimum.reduceat(np.minimum.reduceat(near.distances, starts, axis=0), starts, axis=1)
    np.fill_diagonal(smallest, np.inf)
    return smallest


# -- sizes -------------------------------------------------------------------------------------------------------------


@bag_feature
def bag_size(probe: Probe) -> np.ndarray:
    """Instances of each bag.

    unit: instances; range: 1 to inf; cost: facts; needs: bags; source: Carbonneau et al. 2018, arXiv 1612.03365.
    """
    return np.sort(probe.once(_sizes))


@bag_feature
def bag_size_ratio(probe: Probe) -> float:
    """Instances of the largest bag over those of the smallest.

    unit: ratio; range: 1 to inf; cost: facts; needs: bags; source: Carbonneau et al. 2018, arXiv 1612.03365.
    """
    sizes = probe.once(_sizes)
    return sizes.max() / sizes.min()


@bag_feature
def instances_per_class(probe: Probe) -> float:
    """Instances in bags of the smallest class: what its instances can be learned from.

    unit: instances; range: 1 to inf; cost: facts; needs: bags, target; source: Carbonneau et al. 2018.
    """
    class_counts(probe)  # raises without a labelled bag
    known = probe.bag_labels
    sizes = np.bincount(probe.dataset.bags, minlength=len(known))
    counts = np.bincount(known[known >= 0], sizes[known >= 0])
    return counts[counts > 0].min()


@bag_feature
def size_tells_class(probe: Probe) -> float:
    """Share of the variance of log bag size that the class explains (correlation ratio): a shortcut if high.

    unit: share; range: 0 to 1; cost: facts; needs: bags, classes; source: Pearson 1905 (eta); Carbonneau et al. 2018.
    """
    if probe.one_hot.shape[1] < 2:
        raise NotApplicable(f"{probe.dataset.name} has one class")
    known = probe.labels >= 0
    size, one_hot = np.log(probe.row_sizes[known]), probe.one_hot[known].astype(np.float64)
    means = one_hot.T @ size / one_hot.sum(axis=0)
    total = ((size - size.mean()) ** 2).sum()
    return 1 - ((size - one_hot @ means) ** 2).sum() / total if total > 1e-9 else 0.0


# -- composition -------------------------------------------------------------------------------------------------------


def intraclass_correlation(values: np.ndarray, bag: np.ndarray) -> float:
    """ICC(1) of the columns of `values` (n, d) by bag, columns weighted by their variance; NaN without two bags or
    without two instances in any bag. One-way random effects, bags of unequal size (Shrout & Fleiss 1979; Donner 1986).
    """
    _, position, size = np.unique(bag, return_inverse=True, return_counts=True)
    n, k = len(bag), len(size)
    if k < 2 or n == k:
        return np.nan
    sums = np.zeros((k, values.shape[1]))
    np.add.at(sums, position, values)
    means = sums / size[:, None]
    between = (size[:, None] * (means - values.mean(axis=0)) ** 2).sum() / (k - 1)
    within = ((values - means[position]) ** 2).sum() / (n - k)
    typical = (n - (size**2).sum() / n) / (k - 1)
    total = between + (typical - 1) * within
    return float((between - within) / total) if total > 1e-12 * n else np.nan


@bag_feature
def intra_bag_correlation(probe: Probe) -> float:
    """Intraclass correlation ICC(1) of instances by bag, over all components: 1 if all instances of a bag are equal, 0
    if a bag is a random draw from all instances.

    unit: correlation; range: -1 to 1; cost: distances; needs: bags, repeated bags; source: Shrout & Fleiss 1979.
    """
    value = intraclass_correlation(probe.once(instances), probe.instance_rows)
    if np.isnan(value):
        raise NotApplicable(f"{probe.dataset.name}: instances do not repeat in bags, or do not vary")
    return value


@bag_feature
def instance_similarity(probe: Probe) -> float:
    """Mean distance between instances of one bag over that between instances of different bags: small if a bag is of
    one kind.

    unit: ratio; range: 0 to inf; cost: distances; needs: bags, repeated bags; source: Carbonneau et al. 2018.
    """
    near = two_bags(probe)
    inside = near.distances[near.same_bag & np.isfinite(near.distances)]
    outside = near.distances[~near.same_bag]
    if len(inside) == 0 or root_mean(outside) <= 0:
        raise NotApplicable(f"{probe.dataset.name}: no two instances of one bag, or all are equal")
    return root_mean(inside) / root_mean(outside)


@bag_feature
def bag_similarity(probe: Probe) -> float:
    """Mean over bags of the distance to the most alike other bag (by their closest instances), over the mean distance
    between instances of different bags: small if bags share instances.

    unit: ratio; range: 0 to inf; cost: distances; needs: bags, repeated bags; source: Wang & Zucker 2000 (distance).
    """
    outside = root_mean(two_bags(probe).distances[~two_bags(probe).same_bag])
    if outside <= 0:
        raise NotApplicable(f"{probe.dataset.name}: all instances are equal")
    return root_mean(probe.once(bag_distances).min(axis=1)) / outside


@bag_feature
def instance_novelty(probe: Probe) -> float:
    """Share of instances whose nearest neighbour is of their own bag: bags are worlds of their own if high, and the
    negative instances of new bags are then unlike those learned from.

    unit: share; range: 0 to 1; cost: distances; needs: bags, repeated bags; source: Carbonneau et al. 2018.
    """
    near = two_bags(probe)
    inside = np.where(near.same_bag, near.distances, np.inf).min(axis=1)
    outside = np.where(near.same_bag, np.inf, near.distances).min(axis=1)
    paired = np.isfinite(inside)
    if not paired.any():
        raise NotApplicable(f"{probe.dataset.name} has no two instances of one bag")
    return (inside < outside)[paired].mean()


def _kinds(probe: Probe) -> tuple[np.ndarray, np.ndarray]:
    """(row, kind 0-7) of the instances: the octant of their first three principal components."""
    values, row = probe.once(instances)[:, :3], probe.instance_rows
    kind = (values > 0) @ (1 << np.arange(values.shape[1]))
    return row[row >= 0], kind[row >= 0]


def _correlated(row: np.ndarray, kind: np.ndarray) -> float:
    """Mean absolute correlation over bags between the shares of two kinds; NaN with fewer than two that vary."""
    counts = np.bincount(row * 8 + kind, minlength=8 * (row.max() + 1)).reshape(-1, 8)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares = shares[:, shares.std(axis=0) > 1e-9]
    if shares.shape[1] < 2:
        return np.nan
    return np.abs(np.corrcoef(shares.T)[np.triu_indices(shares.shape[1], 1)]).mean()


@bag_feature
def co_occurrence(probe: Probe) -> float:
    """Mean absolute correlation over bags between the shares of two kinds of instances (octants of three principal
    components), less that of the same instances dealt out anew: above 0 if kinds come together or avoid each other.

    unit: correlation; range: -1 to 1; cost: distances; needs: bags, repeated bags, variety;
    source: Carbonneau et al. 2018.
    """
    row, kind = probe.once(_kinds)
    rng = np.random.default_rng(probe.seed)
    found = _correlated(row, kind) - np.mean([_correlated(row, rng.permutation(kind)) for _ in range(DEALS)])
    if np.isnan(found):
        raise NotApplicable(f"{probe.dataset.name}: the kinds of instances do not vary over bags")
    return found


@bag_feature
def spatial_similarity(probe: Probe) -> float:
    """Mean distance between an instance and the one next to it in the same image, over the mean distance between
    instances of one bag: below 1 if neighbours look alike, so that place tells something.

    unit: ratio; range: 0 to inf; cost: distances; needs: bags, repeated bags, coordinates;
    source: Carbonneau et al. 2018.
    """
    if probe.dataset.coordinates is None:
        raise NotApplicable(f"{probe.dataset.name}: where instances lie is unknown")
    near = two_bags(probe)
    place = np.asarray(probe.dataset.coordinates, np.float64)[probe.image_indices[near.place]]
    apart = sum(np.subtract.outer(axis, axis) ** 2 for axis in place.T)
    apart[~near.same_bag | ~np.isfinite(near.distances)] = np.inf
    paired = np.isfinite(apart).any(axis=1)
    inside = root_mean(near.distances[np.isfinite(apart)]) if paired.any() else 0.0
    if inside <= 0:
        raise NotApplicable(f"{probe.dataset.name}: no two instances of one bag, or all are equal")
    beside = near.distances[np.arange(len(apart)), apart.argmin(axis=1)][paired]
    return root_mean(beside) / inside
