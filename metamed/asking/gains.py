"""What answers were worth: held out bags, judged by models that know the answers and by models that do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metamed.asking.constraints import constrained
from metamed.errors import NotApplicable
from metamed.measures import binary_auc
from metamed.trust import Learn, Model, finding_probability
from metamed.trust.measures import ranks

FOLDS, REPEATS, BOOTSTRAPS, LEVEL = 4, 2, 1000, 0.9


@dataclass(frozen=True)
class Gain:
    """A measure without and with the answers, and the 90 % interval of the difference over bags (or instances).

    measure: "bag auc", or "instance auc" of the instances that were asked about. n: how many bags or instances.
    """

    measure: str
    before: float
    after: float
    low: float
    high: float
    n: int

    @property
    def difference(self) -> float:
        return self.after - self.before


def gain(
    learn: Learn,
    bags: Sequence[np.ndarray],
    target: np.ndarray,
    members: Sequence[np.ndarray],
    answers: Mapping[int, int],
    *,
    groups: np.ndarray | None = None,
    folds: int = FOLDS,
    repeats: int = REPEATS,
    seed: int = 0,
) -> list[Gain]:
    """What the answers gained on bags that were held out, with intervals by drawing bags (instances) anew in pairs.

    Bags of one group are held out together; answers about instances of held out bags are not learned from, so those
    instances judge too. They were not drawn at random: their AUC says how well the model tells hard cases. Raises
    NotApplicable below two bags of each side.
    """
    target = np.asarray(target)
    labelled, finding = np.flatnonzero(target >= 0), target > 0
    if min(finding[labelled].sum(), (~finding[labelled]).sum()) < 2:
        raise NotApplicable("two bags with a finding and two without are needed to say what answers gained")
    of_bags, of_instances = np.zeros((2, len(bags))), dict.fromkeys(answers, np.zeros(2))
    for repeat in range(repeats):
        for held in held_out(target, labelled, groups, folds, np.random.default_rng(seed + repeat)):
            train = np.setdiff1d(labelled, held)
            part = [bags[b] for b in train], target[train], [members[b] for b in train]
            asked, numbers = [bags[b] for b in held], np.concatenate([members[b] for b in held])
            places = []
            for way, known in enumerate(({}, answers)):
                model = learn(*constrained(*part, known), seed + repeat)
                of_bags[way, held] += finding_probability(model, asked)
                places.append(_places(model, asked))
            for number, pair in zip(numbers.tolist(), np.transpose(places), strict=True):
                if number in answers:
                    of_instances[number] = of_instances[number] + pair
    found = [_gain("bag auc", finding[labelled], of_bags[:, labelled], seed)]
    numbers = [number for number, values in of_instances.items() if values.any()]
    known = np.array([answers[number] > 0 for number in numbers], bool)
    if len({*known.tolist()}) == 2:
        found.append(_gain("instance auc", known, np.array([of_instances[n] for n in numbers]).T, seed))
    return found


def _places(model: Model, bags: Sequence[np.ndarray]) -> np.ndarray:
    """Places 0-1 of the bags' instances in the order of their scores: models score in units of their own."""
    scores = np.concatenate([np.asarray(model.scores(bag)).reshape(-1) for bag in bags])
    return ranks(scores)[0] / len(scores)


def held_out(
    target: np.ndarray, labelled: np.ndarray, groups: np.ndarray | None, folds: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Labelled bags in `folds` parts: groups whole, sides as even as they allow; parts without bags are left out."""
    group = labelled if groups is None else np.asarray(groups)[labelled]
    names, of = np.unique(group, return_inverse=True)
    findings = np.bincount(of, np.asarray(target)[labelled] > 0) / np.bincount(of)
    order = np.lexsort((rng.random(len(names)), findings > 0.5))  # those without a finding are dealt first
    fold = np.empty(len(names), int)
    fold[order] = np.arange(len(names)) % folds
    return [labelled[fold[of] == k] for k in range(folds) if (fold[of] == k).any()]


def _gain(measure: str, positive: np.ndarray, values: np.ndarray, seed: int) -> Gain:
    """values: without and with the answers (2, n)."""
    rng = np.random.default_rng(seed)
    before, after = (binary_auc(positive, row) for row in values)
    sides = [np.flatnonzero(positive == side) for side in (False, True)]
    drawn = []
    for _ in range(BOOTSTRAPS):
        at = np.concatenate([rng.choice(side, len(side)) for side in sides])
        drawn.append(binary_auc(positive[at], values[1, at]) - binary_auc(positive[at], values[0, at]))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Gain(measure, before, after, float(low), float(high), len(positive))
