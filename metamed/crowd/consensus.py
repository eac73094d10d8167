"""What ratings of one attribute agree on, with each annotator's errors: Dawid & Skene's model, converged, and others.

Models disagree, so show more than one: "dawid-skene" (an annotator has a table of errors), "majority" (all alike),
"glad" (annotators have a skill, images a difficulty: Whitehill et al. 2009) and "mace" (who does not know guesses, in
his own way: Hovy et al. 2013). The last two are crowd-kit's, in the extra `crowd`; its Dawid-Skene stops after a few
rounds and knows one start, therefore ours.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from metamed.assessments import Ratings
from metamed.crowd.answers import people
from metamed.crowd.quality import Quality, kind_of, named
from metamed.errors import MissingExtra, NotApplicable, UnknownName

LEAST = 1e-10  # probability, so that logarithms stay finite
ROUNDS, TOLERANCE = 20_000, 1e-10  # of a start: rounds at most, gain in log-likelihood of an answer
TRIAL = 30  # rounds after which the best of the random starts goes on
CLEARLY = 2.0  # log-likelihood: what a few answers more or less can turn round is no reason to leave the majority
DRAWS = 300  # of the tables of errors, for the quality of annotators


@dataclass(frozen=True, eq=False)
class Scores:
    """Ratings of one attribute: index of the image, of the annotator and of the score of each answer, int (n,)."""

    image: np.ndarray
    who: np.ndarray
    score: np.ndarray
    images: np.ndarray  # as the dataset numbers them
    names: tuple[Hashable, ...]
    values: np.ndarray  # of the scores, ascending

    @property
    def shape(self) -> tuple[int, int, int]:
        """(images, annotators, values)."""
        return len(self.images), len(self.names), len(self.values)


@dataclass(frozen=True, eq=False)
class Consensus:
    """The true scores of images, as far as ratings tell.

    images: those that were rated, (n,). values: the scores there are, (K,). probability: of each, (n, K). prevalence:
    (K,). errors: by annotator, his answers (columns) where the truth is known (rows), (annotators, K, K); None for
    models that have no such table. quality: by annotator, of answers such as were given; slots have none of their own.
    likelihood: log of it, NaN where the model gives none; elsewhere: the best that a random start came to.
    """

    images: np.ndarray
    values: np.ndarray
    probability: np.ndarray
    prevalence: np.ndarray
    errors: np.ndarray | None
    quality: dict[Hashable, Quality]
    likelihood: float
    elsewhere: float

    @property
    def label(self) -> np.ndarray:
        """The most probable score of each image, (n,)."""
        return self.values[self.probability.argmax(axis=1)]


def consensus(
    ratings: Ratings, attribute: Hashable | None = None, *, model: str = "dawid-skene", starts: int = 10, seed: int = 0
) -> Consensus:
    """What ratings agree on; `attribute` may be left out if there is one. Scores are taken as names, not as numbers.

    starts: the majority vote, and so many minus one at random, of which one that comes clearly further is taken.
    Slots are one annotator.
    Source: Dawid & Skene 1979. Raises UnknownName for other models and attributes, NotApplicable without scores.
    """
    scores = _scores(ratings, attribute)
    rng = np.random.default_rng(seed)
    if model == "dawid-skene":
        found, likelihood, elsewhere = _best(scores, starts, rng)
    elif model == "majority":
        found, likelihood, elsewhere = _votes(scores), np.nan, np.nan
    elif model in ("glad", "mace"):
        found, likelihood, elsewhere = _by_crowdkit(scores, model, seed), np.nan, np.nan
    else:
        raise UnknownName("model of ratings", model, ("dawid-skene", "majority", "glad", "mace"))
    prevalence, errors = _tables(scores, found)
    errors = errors if model == "dawid-skene" else None
    quality = named(ratings, scores.names, _qualities(scores, found, rng))
    return Consensus(scores.images, scores.values, found, prevalence, errors, quality, likelihood, elsewhere)


def _scores(ratings: Ratings, attribute: Hashable | None) -> Scores:
    named = np.asarray(ratings.attribute)
    there = list(dict.fromkeys(named.tolist()))
    if attribute is None and len(there) > 1:
        raise NotApplicable(f"ratings of {len(there)} attributes: {', '.join(map(str, there))}. Name one")
    if attribute is not None and attribute not in there:
        raise UnknownName("attribute", attribute, there)
    rows = np.isfinite(np.asarray(ratings.score, float))
    rows &= True if attribute is None else named == attribute
    if not rows.any():
        raise NotApplicable("no ratings to agree on: no score of this attribute is a number")
    kept = ratings.take(rows)
    images, image = np.unique(kept.image, return_inverse=True)
    values, score = np.unique(kept.score, return_inverse=True)
    names, who = people(kept, kept)
    return Scores(image.ravel(), who, score.ravel(), images, names, values)


# -- Dawid and Skene ---------------------------------------------------------------------------------------------------


def _votes(scores: Scores) -> np.ndarray:
    """Share of the answers of each image for each value, (images, values)."""
    n, _, k = scores.shape
    count = np.bincount(scores.image * k + scores.score, minlength=n * k).reshape(n, k)
    return count / count.sum(axis=1, keepdims=True)


def _tables(scores: Scores, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(prevalence (K,), errors (annotators, K truths, K answers)), as probable scores give them."""
    _, people, k = scores.shape
    cell = scores.who * k + scores.score
    count = np.stack([np.bincount(cell, part[scores.image], people * k) for part in truth.T], axis=1)
    count = np.maximum(count.reshape(people, k, k).swapaxes(1, 2), LEAST)
    return truth.mean(axis=0), count / count.sum(axis=2, keepdims=True)


def _truth(scores: Scores, prevalence: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, float]:
    """(probability of each score of each image, log-likelihood)."""
    n, _, k = scores.shape
    given = np.log(errors)[scores.who, :, scores.score]
    joint = np.stack([np.bincount(scores.image, given[:, c], n) for c in range(k)], axis=1)
    joint += np.log(np.maximum(prevalence, LEAST))
    highest = joint.max(axis=1, keepdims=True)
    share = np.exp(joint - highest)
    total = share.sum(axis=1, keepdims=True)
    return share / total, float((highest + np.log(total)).sum())


def _climb(scores: Scores, truth: np.ndarray, rounds: int) -> tuple[np.ndarray, float]:
    """Expectation and maximisation in turn, until nothing is gained."""
    likelihood = -np.inf
    for _ in range(rounds):
        truth, now = _truth(scores, *_tables(scores, truth))
        if now - likelihood < TOLERANCE * len(scores.image):
            break
        likelihood = now
    return truth, now


def _best(scores: Scores, starts: int, rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
    """(probable scores, their likelihood, the best likelihood from a random start): from the majority vote, unless a
    random start comes further by more than CLEARLY. There true scores have no names: they get those they are given."""
    from scipy.optimize import linear_sum_assignment

    votes = _votes(scores)
    truth, likelihood = _climb(scores, votes, ROUNDS)
    trials = [_climb(scores, rng.dirichlet(np.ones(votes.shape[1]), len(votes)), TRIAL) for _ in range(starts - 1)]
    if not trials:
        return truth, likelihood, np.nan
    other, elsewhere = _climb(scores, max(trials, key=lambda each: each[1])[0], ROUNDS)
    if elsewhere < likelihood + CLEARLY:
        return truth, likelihood, elsewhere
    return other[:, linear_sum_assignment(-votes.T @ other)[1]], elsewhere, elsewhere


# -- quality -----------------------------------------------------------------------------------------------------------


def _qualities(scores: Scores, truth: np.ndarray, rng: np.random.Generator) -> list[Quality]:
    """Of each annotator: how probable his answer is the truth, from tables of errors drawn with the truth (Dirichlet,
    half an answer in each cell beforehand). What he is like is judged by the mean over true scores, which is 1 / K for
    whoever answers without looking, whatever the prevalence."""
    _, people, k = scores.shape
    count = np.bincount(scores.who, minlength=people)
    cumulated, cell = truth.cumsum(axis=1), (scores.who * k) * k + scores.score
    right, even = np.empty((2, DRAWS, people))
    for draw in range(DRAWS):
        true = (cumulated < rng.random((len(truth), 1))).sum(axis=1).clip(max=k - 1)
        table = np.bincount(cell + k * true[scores.image], minlength=people * k * k).reshape(people, k, k)
        gamma = rng.gamma(table + 0.5)
        diagonal = np.diagonal(gamma / gamma.sum(axis=2, keepdims=True), axis1=1, axis2=2)
        seen = table.sum(axis=2)
        right[draw] = (seen * diagonal).sum(axis=1) / np.maximum(count, 1)
        known = (seen > 0) | (seen.sum(axis=1, keepdims=True) == 0)
        even[draw] = (diagonal * known).sum(axis=1) / known.sum(axis=1) - 1 / known.sum(axis=1)
    often = np.array([np.bincount(scores.score[scores.who == one], minlength=1).max() for one in range(people)])
    limits = [np.quantile(each, [0.025, 0.975], axis=0) for each in (right, even)]
    kinds = [kind_of(*limits[1][:, one] + 0.5, often[one] / max(count[one], 1)) for one in range(people)]
    columns = right.mean(axis=0).tolist(), *limits[0].tolist(), count.tolist(), [np.nan] * people, kinds
    return [Quality(*each) for each in zip(*columns, strict=True)]


# -- the models of crowd-kit -------------------------------------------------------------------------------------------


def _by_crowdkit(scores: Scores, model: str, seed: int) -> np.ndarray:
    """Probable scores, (images, values)."""
    try:
        from crowdkit.aggregation import GLAD, MACE
    except ImportError as error:
        raise MissingExtra(f"consensus(model={model!r})", "crowd-kit", "crowd") from error
    import pandas as pd

    answers = pd.DataFrame({"task": scores.image, "worker": scores.who, "label": scores.score})
    engine = GLAD(n_iter=1000, tol=1e-6) if model == "glad" else MACE(random_state=seed)
    found = engine.fit_predict_proba(answers)
    return found.reindex(index=range(scores.shape[0]), columns=range(scores.shape[2])).fillna(0).to_numpy()
