"""What the instances of a bag have to do with its class. Class 0 is the negative one, all others count as positive."""

from __future__ import annotations

import numpy as np

from metamed.errors import NotApplicable
from metamed.metafeatures.bags import bag_distances, bag_feature, near_bags, root_mean, two_bags
from metamed.metafeatures.probe import Probe

NOVEL = 0.95  # quantile of the negative instances' distances beyond which an instance counts as a witness


def _witnesses(probe: Probe) -> tuple[np.ndarray, np.ndarray, float]:
    """(positive instances, those of them that count as witnesses, squared distance from which on they do)."""
    near = two_bags(probe)
    negative, positive = near.label == 0, np.flatnonzero(near.label > 0)
    if len(np.unique(near.row[negative])) < 2 or len(positive) == 0:
        raise NotApplicable(f"{probe.dataset.name} has too few bags of one class")
    usual = np.where(near.same_bag, np.inf, near.distances)[np.ix_(negative, negative)].min(axis=1)
    unusual = near.distances[np.ix_(positive, negative)].min(axis=1)
    limit = np.quantile(usual, NOVEL) * (1 + 1e-9)
    return positive, positive[unusual > limit], limit


@bag_feature
def witness_rate(probe: Probe) -> float:
    """Estimated share of instances of positive bags that make them positive: those farther from all negative instances
    than 95 % of the negative ones are from those of other bags, chance subtracted. Instance labels are not used.

    unit: share; range: 0 to 1; cost: distances; needs: bags, both classes; source: here, after Carbonneau et al. 2018.
    """
    positive, witnesses, _ = probe.once(_witnesses)
    return max(0.0, (len(witnesses) / len(positive) - (1 - NOVEL)) / NOVEL)


@bag_feature
def witness_modes(probe: Probe) -> float:
    """Effective number of unlike witnesses: pairs over the sum of their squared likeness (Gaussian kernel, as wide as
    the distance from which on an instance counts as one), those that chance gives taken for unlike all others and left
    out: 1 if positive bags have one thing in common, more if several.

    unit: modes; range: 1 to inf; cost: distances; needs: bags, both classes, witnesses; source: Friedman & Dieng 2023
    (Vendi score, here of order 2), arXiv 2210.02410; Carbonneau et al. 2018 (multimodal positives).
    """
    positive, witnesses, limit = probe.once(_witnesses)
    chance = (1 - NOVEL) * len(positive)
    if len(witnesses) < chance + 1 or limit <= 0:
        raise NotApplicable(f"{probe.dataset.name} has no witnesses")
    squared = probe.once(near_bags).distances[np.ix_(witnesses, witnesses)]
    likeness = np.exp(-np.where(np.isfinite(squared), squared, 0) / limit)  # the kernel's square
    return max(1.0, (len(witnesses) - chance) ** 2 / max(likeness.sum() - chance, 1.0))


@bag_feature
def negative_novelty(probe: Probe) -> float:
    """Mean distance of a negative instance to the nearest one of another negative bag over that to the nearest of its
    own bag: above 1 if the negative instances of a new bag are unlike those learned from.

    unit: ratio; range: 0 to inf; cost: distances; needs: bags, both classes, repeated bags; source: Carbonneau et al.
    2018 (non-representable negatives).
    """
    near = two_bags(probe)
    negative = near.label == 0
    distances, same = near.distances[np.ix_(negative, negative)], near.same_bag[np.ix_(negative, negative)]
    if same.all() or not (same & np.isfinite(distances)).any():
        raise NotApplicable(f"{probe.dataset.name}: too few negative bags, or none has two instances")
    inside, outside = (np.where(which, distances, np.inf).min(axis=1) for which in (same, ~same))
    paired = np.isfinite(inside)
    if root_mean(inside[paired]) <= 0:
        raise NotApplicable(f"{probe.dataset.name}: negative instances repeat in their bags")
    return root_mean(outside[paired]) / root_mean(inside[paired])


@bag_feature
def instance_overlap(probe: Probe) -> float:
    """Share of instances whose nearest neighbour in another bag is of another class, over what chance gives: 1 if
    instances are ambiguous, 0 if each tells the class of its bag.

    unit: ratio; range: 0 to inf; cost: distances; needs: bags, both classes; source: Carbonneau et al. 2018; N3.
    """
    near = two_bags(probe)
    known = near.label >= 0
    label = near.label[known]
    if len(np.unique(label)) < 2:
        raise NotApplicable(f"{probe.dataset.name} has bags of one class")
    nearest = np.where(near.same_bag, np.inf, near.distances)[np.ix_(known, known)].argmin(axis=1)
    share = np.bincount(label) / len(label)
    return (label[nearest] != label).mean() / (1 - (share**2).sum())


@bag_feature
def bag_overlap(probe: Probe) -> float:
    """Share of bags whose most alike bag (by their closest instances) is of another class, over what chance gives.

    unit: ratio; range: 0 to inf; cost: distances; needs: bags, both classes; source: Wang & Zucker 2000; N3.
    """
    distances = probe.once(bag_distances)
    label = probe.labels[: len(distances)]
    known = label >= 0
    if len(np.unique(label[known])) < 2:
        raise NotApplicable(f"{probe.dataset.name} has bags of one class")
    label, nearest = label[known], distances[np.ix_(known, known)].argmin(axis=1)
    share = np.bincount(label) / len(label)
    return (label[nearest] != label).mean() / (1 - (share**2).sum())
