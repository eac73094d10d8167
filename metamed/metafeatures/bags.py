"""What bags are like: sizes, how instances lie within and between them, and which simple idea of a bag works.

Instances are the feature vectors, or the statistics of the images, standardised and projected onto their first 32
principal components. Distances between instances use at most 2500 of them: whole bags, of each bag at most 40. Class 0
is the negative one; with more classes all others count as positive where only two are asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from metamed.dataset import spread
from metamed.errors import NotApplicable
from metamed.metafeatures import metafeature
from metamed.metafeatures.general import class_counts
from metamed.metafeatures.landmarking import balanced_accuracy, labelled_folds, nearest_mean, ridge, validate
from metamed.metafeatures.probe import Probe

COMPONENTS = 32
INSTANCES, PER_BAG = 2500, 40  # a distance matrix of 25 MB, which holds bags of any size
NOVEL = 0.95  # quantile of the negative instances' distances beyond which an instance counts as a witness

bag_feature = metafeature("bags", kinds=["mil"])


# -- what several features need ----------------------------------------------------------------------------------------


def _sizes(probe: Probe) -> np.ndarray:
    counts = np.bincount(probe.dataset.bags)
    return counts[counts > 0]


def _instances(probe: Probe) -> np.ndarray:
    """All instances looked at, as (n, at most 32), in the probe's order of content."""
    values = probe.instance_values
    gram = values.T @ values if values.shape[0] >= values.shape[1] else values @ values.T
    energy, vectors = np.linalg.eigh(gram)
    energy, vectors = energy[::-1][:COMPONENTS], vectors[:, ::-1][:, :COMPONENTS]
    if values.shape[0] >= values.shape[1]:
        return values @ vectors
    return vectors * np.sqrt(np.maximum(energy, 0))


def _pooled(probe: Probe) -> dict[str, np.ndarray]:
    """Mean, minimum and maximum of each bag's instances, in the order of the probe's rows, (bags, d)."""
    values = probe.once(_instances)
    return {name: probe.pooled(values, function) for name, function in
            (("mean", np.add), ("low", np.minimum), ("high", np.maximum))}  # fmt: skip


@dataclass(frozen=True)
class _Near:
    """Some bags' instances: `row` of each among the probe's rows, squared `distances` between them, infinite to itself,
    and the class of each instance's bag (-1 unknown)."""

    row: np.ndarray
    label: np.ndarray
    distances: np.ndarray

    @property
    def same_bag(self) -> np.ndarray:
        return self.row[:, None] == self.row[None]


def _near(probe: Probe) -> _Near:
    chosen, rows, room = [], [], INSTANCES
    for row, members in enumerate(probe.members):
        members = members[spread(len(members), PER_BAG)]
        if len(members) > room:
            break
        chosen.append(members)
        rows.append(np.full(len(members), row))
        room -= len(members)
    chosen, row = np.concatenate(chosen), np.concatenate(rows)
    values = probe.once(_instances)[chosen]
    length = (values**2).sum(axis=1)
    squared = np.maximum(length[:, None] + length[None] - 2 * values @ values.T, 0)
    squared[squared < 1e-9 * max(length.max(), 1e-9)] = 0  # equal but for rounding
    np.fill_diagonal(squared, np.inf)
    return _Near(row, probe.labels[row], squared)


def _two_bags(probe: Probe) -> _Near:
    near = probe.once(_near)
    if near.row[0] == near.row[-1]:
        raise NotApplicable(f"{probe.dataset.name} has fewer than two bags")
    return near


def _root_mean(squared: np.ndarray) -> float:
    return float(np.sqrt(squared).mean())


def _bag_distances(probe: Probe) -> np.ndarray:
    """Smallest distance between the instances of two bags (minimal Hausdorff), infinite to itself, (bags, bags)."""
    near = _two_bags(probe)
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
    value = intraclass_correlation(probe.once(_instances), probe.instance_rows)
    if np.isnan(value):
        raise NotApplicable(f"{probe.dataset.name}: instances do not repeat in bags, or do not vary")
    return value


@bag_feature
def instance_similarity(probe: Probe) -> float:
    """Mean distance between instances of one bag over that between instances of different bags: small if a bag is of
    one kind.

    unit: ratio; range: 0 to inf; cost: distances; needs: bags, repeated bags; source: Carbonneau et al. 2018.
    """
    near = _two_bags(probe)
    inside = near.distances[near.same_bag & np.isfinite(near.distances)]
    outside = near.distances[~near.same_bag]
    if len(inside) == 0 or _root_mean(outside) <= 0:
        raise NotApplicable(f"{probe.dataset.name}: no two instances of one bag, or all are equal")
    return _root_mean(inside) / _root_mean(outside)


@bag_feature
def bag_similarity(probe: Probe) -> float:
    """Mean over bags of the distance to the most alike other bag (by their closest instances), over the mean distance
    between instances of different bags: small if bags share instances.

    unit: ratio; range: 0 to inf; cost: distances; needs: bags, repeated bags; source: Wang & Zucker 2000 (distance).
    """
    outside = _root_mean(_two_bags(probe).distances[~_two_bags(probe).same_bag])
    if outside <= 0:
        raise NotApplicable(f"{probe.dataset.name}: all instances are equal")
    return _root_mean(probe.once(_bag_distances).min(axis=1)) / outside


@bag_feature
def instance_novelty(probe: Probe) -> float:
    """Share of instances whose nearest neighbour is of their own bag: bags are worlds of their own if high, and the
    negative instances of new bags are then unlike those learned from.

    unit: share; range: 0 to 1; cost: distances; needs: bags, repeated bags; source: Carbonneau et al. 2018.
    """
    near = _two_bags(probe)
    inside = np.where(near.same_bag, near.distances, np.inf).min(axis=1)
    outside = np.where(near.same_bag, np.inf, near.distances).min(axis=1)
    paired = np.isfinite(inside)
    if not paired.any():
        raise NotApplicable(f"{probe.dataset.name} has no two instances of one bag")
    return (inside < outside)[paired].mean()


# -- classes -----------------------------------------------------------------------------------------------------------


@bag_feature
def witness_rate(probe: Probe) -> float:
    """Estimated share of instances of positive bags that make them positive: those farther from all negative instances
    than 95 % of the negative ones are from those of other bags, chance subtracted. Instance labels are not used.

    unit: share; range: 0 to 1; cost: distances; needs: bags, both classes; source: here, after Carbonneau et al. 2018.
    """
    near = _two_bags(probe)
    negative, positive = near.label == 0, near.label > 0
    if len(np.unique(near.row[negative])) < 2 or not positive.any():
        raise NotApplicable(f"{probe.dataset.name} has too few bags of one class")
    usual = np.where(near.same_bag, np.inf, near.distances)[np.ix_(negative, negative)].min(axis=1)
    unusual = near.distances[np.ix_(positive, negative)].min(axis=1)
    beyond = (unusual > np.quantile(usual, NOVEL) * (1 + 1e-9)).mean()
    return max(0.0, (beyond - (1 - NOVEL)) / NOVEL)


@bag_feature
def instance_overlap(probe: Probe) -> float:
    """Share of instances whose nearest neighbour in another bag is of another class, over what chance gives: 1 if
    instances are ambiguous, 0 if each tells the class of its bag.

    unit: ratio; range: 0 to inf; cost: distances; needs: bags, both classes; source: Carbonneau et al. 2018; N3.
    """
    near = _two_bags(probe)
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
    distances = probe.once(_bag_distances)
    label = probe.labels[: len(distances)]
    known = label >= 0
    if len(np.unique(label[known])) < 2:
        raise NotApplicable(f"{probe.dataset.name} has bags of one class")
    label, nearest = label[known], distances[np.ix_(known, known)].argmin(axis=1)
    share = np.bincount(label) / len(label)
    return (label[nearest] != label).mean() / (1 - (share**2).sum())


# -- behaviour of simple classifiers -----------------------------------------------------------------------------------


def _instance_scores(probe: Probe, pool: np.ufunc) -> Callable:
    """Ridge regression on instances that inherit their bag's class; scores of a bag are pooled over its instances."""
    values, row = probe.once(_instances), probe.instance_rows

    def scores(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        learn = train[row] & (row >= 0)
        of_all = ridge(values[learn], probe.one_hot[row[learn]], values)
        if pool is np.add or of_all.shape[1] > 2:
            return probe.pooled(of_all, pool)[test]
        highest = probe.pooled(of_all[:, 1:] - of_all[:, :1], pool)  # of two classes the positive one has witnesses
        cut = _cut(highest[train, 0], probe.labels[train])
        return np.concatenate([cut - highest, highest - cut], axis=1)[test]

    return scores


def _cut(score: np.ndarray, label: np.ndarray) -> float:
    """The threshold halfway between the class means: a maximum over many instances is high for negative bags too."""
    return float(np.mean([score[label == k].mean() for k in np.unique(label)]))


def _citation(probe: Probe) -> Callable:
    """Votes of the two nearest training bags and of those that have the test bag among their two nearest."""
    distances = probe.once(_bag_distances)

    def scores(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        few = len(distances)
        learn, ask = np.flatnonzero(train[:few]), np.flatnonzero(test[:few])
        between = distances[np.ix_(ask, learn)]
        votes = np.zeros((len(ask), probe.one_hot.shape[1]))
        for place in np.argsort(between, axis=1, kind="stable")[:, :2].T:
            votes += probe.one_hot[learn[place]]
        second = np.sort(distances[np.ix_(learn, learn)], axis=1)[:, min(1, len(learn) - 1)]
        cited = between <= second
        prior = probe.one_hot[learn].sum(axis=0)
        return (votes + cited @ probe.one_hot[learn]) / np.maximum(prior, 1)  # every class weighs the same

    return scores


def _outcomes(probe: Probe) -> dict[str, list[np.ndarray]]:
    """Predicted classes of the bags of each fold, by classifier, and the truth; of those bags that all can judge."""
    pooled, few = probe.once(_pooled), len(probe.once(_bag_distances))
    models = {
        "mean": lambda train, test: ridge(pooled["mean"][train], probe.one_hot[train], pooled["mean"][test]),
        "extremes": lambda train, test: ridge(ends[train], probe.one_hot[train], ends[test]),
        "nearest": lambda train, test: nearest_mean(pooled["mean"][train], probe.one_hot[train], pooled["mean"][test]),
        "citation": _citation(probe),
        "instances": _instance_scores(probe, np.add),
        "witness": _instance_scores(probe, np.maximum),
    }
    ends = np.concatenate([pooled["low"], pooled["high"]], axis=1)
    judged = np.arange(len(probe.labels)) < few
    found = {name: [] for name in ("truth", *models)}
    for train, test in labelled_folds(probe):
        if not (test & judged).any() or not (train & judged).any():
            continue
        found["truth"].append(probe.labels[test & judged])
        for name, scores in models.items():
            found[name].append(scores(train, test & judged).argmax(axis=1))
    if not found["truth"]:
        raise NotApplicable(f"{probe.dataset.name} has too few labelled bags")
    return found


def _accuracy(probe: Probe, name: str) -> np.ndarray:
    found = probe.once(_outcomes)
    return np.array([balanced_accuracy(t, p) for t, p in zip(found["truth"], found[name], strict=True)])


def _gain(probe: Probe, name: str) -> float:
    return (_accuracy(probe, name) - _accuracy(probe, "mean")).mean()


@bag_feature
def mean_pool_ridge(probe: Probe) -> np.ndarray:
    """Balanced accuracy of ridge regression on the mean instance of each bag.

    unit: share; range: 0 to 1; cost: models; needs: bags, two groups with classes; source: Cheplygina et al. 2015.
    """
    return _accuracy(probe, "mean")


@bag_feature
def extremes_ridge(probe: Probe) -> np.ndarray:
    """Balanced accuracy of ridge regression on the smallest and largest value of each component in a bag.

    unit: share; range: 0 to 1; cost: models; needs: bags, two groups with classes; source: Gaertner et al. 2002.
    """
    return _accuracy(probe, "extremes")


@bag_feature
def citation_nn(probe: Probe) -> np.ndarray:
    """Balanced accuracy of the two nearest bags and those that count the bag among their two nearest (minimal Hausdorff
    distance, classes weighted).

    unit: share; range: 0 to 1; cost: models; needs: bags, two groups with classes; source: Wang & Zucker 2000.
    """
    return _accuracy(probe, "citation")


@bag_feature
def instance_ridge(probe: Probe) -> np.ndarray:
    """Balanced accuracy of ridge regression on instances that inherit their bag's class, summed over the bag.

    unit: share; range: 0 to 1; cost: models; needs: bags, two groups with classes; source: Ray & Craven 2005 (SIL).
    """
    return _accuracy(probe, "instances")


@bag_feature
def witness_ridge(probe: Probe) -> np.ndarray:
    """Balanced accuracy of the same instance scores where the highest one decides for the bag.

    unit: share; range: 0 to 1; cost: models; needs: bags, two groups with classes; source: Ray & Craven 2005 (SIL).
    """
    return _accuracy(probe, "witness")


@bag_feature
def size_probe(probe: Probe) -> np.ndarray:
    """Balanced accuracy of ridge regression on the logarithm of the bag size alone: a shortcut if high.

    unit: share; range: 0 to 1; cost: models; needs: bags, two groups with classes; source: here.
    """
    return validate(probe, np.log(probe.row_sizes)[:, None], ridge)


@bag_feature
def extremes_gain(probe: Probe) -> float:
    """Accuracy of `extremes_ridge` less that of `mean_pool_ridge`: above 0 if few instances decide.

    unit: share; range: -1 to 1; cost: models; needs: bags, two groups with classes; source: Cheplygina & Tax 2018.
    """
    return _gain(probe, "extremes")


@bag_feature
def citation_gain(probe: Probe) -> float:
    """Accuracy of `citation_nn` less that of `mean_pool_ridge`: above 0 if bags share particular instances.

    unit: share; range: -1 to 1; cost: models; needs: bags, two groups with classes; source: Cheplygina & Tax 2018.
    """
    return _gain(probe, "citation")


@bag_feature
def witness_gain(probe: Probe) -> float:
    """Accuracy of `witness_ridge` less that of `instance_ridge`: above 0 if one instance decides, below if all do.

    unit: share; range: -1 to 1; cost: models; needs: bags, two groups with classes; source: Cheplygina & Tax 2018.
    """
    return (_accuracy(probe, "witness") - _accuracy(probe, "instances")).mean()


@bag_feature
def classifier_disagreement(probe: Probe) -> float:
    """Share of bags on which two of six simple classifiers differ, mean over the pairs of classifiers.

    unit: share; range: 0 to 1; cost: models; needs: bags, two groups with classes; source: Cheplygina & Tax 2018,
    arXiv 1806.08186 (there by ROC curves).
    """
    found = probe.once(_outcomes)
    answers = np.array([np.concatenate(found[name]) for name in found if name != "truth"])
    differ = [(a != b).mean() for i, a in enumerate(answers) for b in answers[i + 1 :]]
    return float(np.mean(differ))
