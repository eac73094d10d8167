"""From models of bags to the questions that promise most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from metamed.asking.constraints import constrained
from metamed.asking.strategies import STRATEGIES, Standing
from metamed.errors import NotApplicable, UnknownName
from metamed.trust import Learn, Model, finding_probability

COMMITTEE, SHARE = 4, 0.8  # models that ask together, each learned on that share of the bags
CANDIDATES = 4000  # instances looked at in one go


def choose(
    learn: Learn,
    bags: Sequence[np.ndarray],
    target: np.ndarray,
    members: Sequence[np.ndarray],
    n: int,
    *,
    by: str = "uncertain_diverse",
    answers: Mapping[int, int] | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """(numbers of `n` instances to ask about, their score as place 0-1 in the order of all) by a strategy.

    bags: arrays (instances, …) with their classes in `target`, -1 unknown. members: numbers of their instances.
    answers: number -> class of those that were asked about already. Only instances of bags with a finding are asked
    about: those of other bags are known to be none. Raises NotApplicable where none is left.
    """
    if by not in STRATEGIES:
        raise UnknownName("strategy", by, STRATEGIES)
    rng, answers = np.random.default_rng(seed), answers or {}
    learned = np.flatnonzero(np.asarray(target) >= 0)
    models = committee(learn, bags, target, members, learned, answers, rng)
    standing = standing_of(models, bags, target, members, answers, rng)
    chosen = STRATEGIES[by](standing, n, rng)
    return standing.instance[chosen], standing.place.mean(axis=0)[chosen]


def committee(
    learn: Learn, bags: Sequence[np.ndarray], target: np.ndarray, members: Sequence[np.ndarray], learned: np.ndarray,
    answers: Mapping[int, int], rng: np.random.Generator, size: int = COMMITTEE,
) -> list[Model]:  # fmt: skip
    """Models learned on different parts of the bags, each with a share of every class and all answers about them."""
    models = []
    for seed in range(size):
        part = np.concatenate([_share(learned[target[learned] == k], rng) for k in np.unique(target[learned])])
        taken = constrained([bags[b] for b in part], target[part], [members[b] for b in part], answers)
        models.append(learn(*taken, seed))
    return models


def _share(bags: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(bags)[: max(2, round(SHARE * len(bags)))]


def standing_of(
    models: Sequence[Model], bags: Sequence[np.ndarray], target: np.ndarray, members: Sequence[np.ndarray],
    answers: Mapping[int, int], rng: np.random.Generator,
) -> Standing:  # fmt: skip
    """What the models say of the instances of bags with a finding that have no answer yet."""
    able = [b for b in range(len(bags)) if target[b] > 0]
    places = [(b, i) for b in able for i, number in enumerate(members[b]) if int(number) not in answers]
    if not places:
        raise NotApplicable("no instance is left to ask about: all of bags with a finding have an answer")
    if len(places) > CANDIDATES:
        places = [places[i] for i in np.sort(rng.permutation(len(places))[:CANDIDATES])]
    bag = np.array([b for b, _ in places])
    alone = [bags[b][i : i + 1] for b, i in places]
    scores = [{b: np.asarray(model.scores(bags[b])).reshape(-1) for b in np.unique(bag)} for model in models]
    asked = [bags[b][i] for b in range(len(bags)) for i, number in enumerate(members[b]) if int(number) in answers]
    features, known = _standardised(np.concatenate(alone), np.array(asked))
    return Standing(
        np.array([members[b][i] for b, i in places]),
        bag,
        features,
        np.array([[of[b][i] for b, i in places] for of in scores], np.float64),
        np.mean([finding_probability(model, alone) for model in models], axis=0),
        known,
    )


def _standardised(x: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flat features with mean 0 and deviation 1 each, over a root of their number, so that lengths are about 1."""
    x = x.reshape(len(x), -1).astype(np.float32)
    known = known.reshape(len(known), -1).astype(np.float32) if len(known) else np.empty((0, x.shape[1]), np.float32)
    mean, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6) * np.sqrt(x.shape[1])
    return (x - mean) / scale, (known - mean) / scale
