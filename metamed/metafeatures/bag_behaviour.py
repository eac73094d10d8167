"""Which simple idea of a bag works: six classifiers of bags, and how they differ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from metamed.errors import NotApplicable
from metamed.metafeatures.bags import bag_distances, bag_feature, instances
from metamed.metafeatures.landmarking import balanced_accuracy, labelled_folds, nearest_mean, ridge, validate
from metamed.metafeatures.probe import Probe


def _pooled(probe: Probe) -> dict[str, np.ndarray]:
    """Mean, minimum and maximum of each bag's instances, in the order of the probe's rows, (bags, d)."""
    values = probe.once(instances)
    return {name: probe.pooled(values, function) for name, function in
            (("mean", np.add), ("low", np.minimum), ("high", np.maximum))}  # fmt: skip


def _instance_scores(probe: Probe, pool: np.ufunc) -> Callable:
    """Ridge regression on instances that inherit their bag's class; scores of a bag are pooled over its instances."""
    values, row = probe.once(instances), probe.instance_rows

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
    distances = probe.once(bag_distances)

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
    """Class scores of the bags of each fold, by classifier, and the true classes; of those bags that all can judge."""
    pooled, few = probe.once(_pooled), len(probe.once(bag_distances))
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
            found[name].append(scores(train, test & judged))
    if not found["truth"]:
        raise NotApplicable(f"{probe.dataset.name} has too few labelled bags")
    return found


def _accuracy(probe: Probe, name: str) -> np.ndarray:
    found = probe.once(_outcomes)
    return np.array([balanced_accuracy(t, s.argmax(axis=1)) for t, s in zip(found["truth"], found[name], strict=True)])


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


def _pairs(values: list[np.ndarray]) -> float:
    """Mean absolute difference of two of the arrays, mean over pairs of them."""
    return float(np.mean([np.abs(a - b).mean() for i, a in enumerate(values) for b in values[i + 1 :]]))


@bag_feature
def classifier_disagreement(probe: Probe) -> float:
    """Share of bags on which two of six simple classifiers differ, mean over the pairs of classifiers.

    unit: share; range: 0 to 1; cost: models; needs: bags, two groups with classes; source: Cheplygina & Tax 2018,
    arXiv 1806.08186.
    """
    found = probe.once(_outcomes)
    answers = [np.concatenate([s.argmax(axis=1) for s in found[name]]) for name in found if name != "truth"]
    return float(np.mean([(a != b).mean() for i, a in enumerate(answers) for b in answers[i + 1 :]]))


def roc(score: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Share of positives found at each share 0, 0.01 .. 1 of false alarms, (101,); of tied scores half count."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)  # a tie is one step, taken straight
    hits, alarms = (np.append(0, np.cumsum(part[order])[last] / part.sum()) for part in (positive, ~positive))
    return np.interp(np.linspace(0, 1, 101), alarms, hits)


@bag_feature
def roc_difference(probe: Probe) -> float:
    """Mean absolute difference of the ROC curves (class 0 against all others) of two of six simple classifiers, mean
    over the pairs of classifiers and the folds: large if it matters which idea of a bag is right.

    unit: share; range: 0 to 1; cost: models; needs: bags, both classes, two groups with classes; source: Cheplygina &
    Tax 2018, arXiv 1806.08186.
    """
    found, differences = probe.once(_outcomes), []
    for k, truth in enumerate(found["truth"]):
        positive = truth > 0
        if positive.any() and not positive.all():
            scores = [found[name][k] for name in found if name != "truth"]
            differences.append(_pairs([roc(s[:, 1:].max(axis=1) - s[:, 0], positive) for s in scores]))
    if not differences:
        raise NotApplicable(f"{probe.dataset.name}: no fold has bags of both classes")
    return float(np.mean(differences))
