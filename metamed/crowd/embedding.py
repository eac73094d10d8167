"""`embed`: positions of images such that what is said to be closer is closer, with the quality of who said so."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from metamed.assessments import Triplets
from metamed.crowd.answers import Answers, usable
from metamed.crowd.fitting import most_probable, peak
from metamed.crowd.model import ALIKE, Model
from metamed.crowd.quality import Quality, asked, described, quality_of
from metamed.crowd.sampling import draw, draw_chains

FEW = 25  # answers per coordinate below which the average over the posterior beats its peak (docs/crowd.md)
SEVERAL = 15  # answers of an annotator on average, from which telling annotators apart costs nothing
HARDLY = 4  # answers of an annotator on average, below which telling them apart costs more than it gains
LARGE = 30_000  # answers from which sampling takes minutes
AROUND = 200  # rounds of sampling around the peak, for the quality of annotators
ROUNDS = 1_500_000  # of sampling, times answers: some seconds
KEPT = 1000  # samples; 300 lose .003 of accuracy where answers are few
CROWD = 400  # annotators, for every so many of whom one sample in two, in three and so on tells their quality
DREAMT = 100_000  # questions answered by samples, from which one embedding is made


@dataclass(frozen=True, eq=False)
class Embedding:
    """Where images lie, in typical distances of two of them, and who is how good.

    positions: (images, dimensions), NaN for images that no usable answer names. samples: (samples, images, dimensions),
    float32: positions drawn from the posterior where answers are few, each turned in its own way; else the positions
    alone. quality: by annotator; empty where all were taken for one. method: "posterior", "most probable", or
    "unweighted" where annotators gave too few answers each to be told apart, and count alike. found: oddities among the
    answers, by count.
    """

    positions: np.ndarray
    samples: np.ndarray
    quality: dict[Hashable, Quality]
    method: str
    found: dict[str, int]

    def probability(self, anchor: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """That `first` is closer to `anchor` than `second` is, (n,): the share of samples in which it is, so that it
        is a better prediction than `positions` give; 0.5 where an image was never judged."""
        anchor, first, second = (np.asarray(index) for index in (anchor, first, second))
        share = np.zeros(len(anchor))
        for position in self.samples:
            near, far = (np.linalg.norm(position[anchor] - position[other], axis=1) for other in (first, second))
            share += np.where(near == far, 0.5, near < far)
        unjudged = np.isnan(self.positions[:, 0])
        return np.where(unjudged[anchor] | unjudged[first] | unjudged[second], 0.5, share / len(self.samples))


def embed(
    triplets: Triplets, dimensions: int = 2, *, annotators: bool = True, seed: int = 0, images: int | None = None
) -> Embedding:
    """Positions of the images and the quality of the annotators, estimated together.

    `annotators` False takes all for one. `images`: how many the dataset has; None: as many as are named. Where answers
    are few, the average over the posterior is used, else its peak (`method` says which). Raises NotApplicable where no
    answer can be used. Sources: van der Maaten & Weinberger 2012 (triplets), Welinder et al. 2010 (annotators).
    """
    answers, found = usable(triplets, images)
    rng = np.random.default_rng(seed)
    told = annotators and not _alike(answers, dimensions, rng)
    model = Model(answers if told else answers.pooled(), dimensions)
    vectors, sampled = _vectors(model, rng)
    samples = np.array([model.position(vector) for vector in vectors], np.float32)
    positions = _one(samples, rng) if sampled else model.position(vectors[0])
    quality = {}
    if annotators:
        apart = Model(answers, dimensions)
        around = vectors if told else _vectors(apart, rng)[0]
        if not sampled:
            around = draw(apart, around[0], rng, AROUND, tempered=False)
        quality = described(triplets, answers, _qualities(apart, around))
    unjudged = np.where(answers.judged, 0, np.nan)[:, None]
    method = "unweighted" if annotators and not told else "posterior" if sampled else "most probable"
    return Embedding(positions + unjudged, samples, quality, method, found)


def _alike(answers: Answers, dimensions: int, rng: np.random.Generator) -> bool:
    """Whether annotators who gave few answers each are better taken for one: they are hardly known, or differ no more
    in agreement than chance has it (chi-squared of the answers that agree with the embedding of all, one deviation
    above)."""
    count = np.bincount(answers.annotator, minlength=len(answers.names))
    if len(answers) >= SEVERAL * (count > 0).sum() or (count > 0).sum() < 2:
        return False
    if len(answers) < HARDLY * (count > 0).sum():
        return True
    if len(answers) >= LARGE:  # too many to be averaged over, and the peak takes their chances for traits
        return True
    model = Model(answers.pooled(), dimensions)
    right = answers.gaps(model.position(peak(model, rng))) > 0
    share, agreeing = np.clip(right.mean(), 0.01, 0.99), np.bincount(answers.annotator, right, len(count))
    chance = count * share * (1 - share)
    chi = ((agreeing - count * share) ** 2 / np.maximum(chance, 1e-9)).sum()
    freedom = (count > 0).sum() - 1
    return bool(chi < freedom + (2 * freedom) ** 0.5)


def _vectors(model: Model, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """(vectors, whether they are sampled): from the posterior where answers are few, else its peak alone."""
    n, people = len(model.answers), len(model.answers.names)
    few = n < LARGE and (n < FEW * int(model.answers.judged.sum()) * model.dimensions or n < SEVERAL * people)
    vectors = draw_chains(model, rng, _rounds(model)) if few else peak(model, rng)[None]
    return vectors[:: -(-len(vectors) // KEPT)], few


def _rounds(model: Model) -> int:
    """Of each chain: the fewer answers, the wider the posterior, and the cheaper a round."""
    return int(np.clip(ROUNDS / len(model.answers), 300, 700))


def _qualities(model: Model, vectors: np.ndarray) -> np.ndarray:
    """Of each annotator by each sample, or by some of them, (samples, annotators)."""
    some, vectors = asked(model.answers), vectors[:: 1 + len(model.answers.names) // CROWD]
    return np.array([quality_of(model.traits(vector[model.coordinates :])[0], some.gaps(model.position(vector)))
                     for vector in vectors])  # fmt: skip


def _one(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The embedding that agrees best with what the samples answer to questions drawn at random: closer to the truth
    than multidimensional scaling of their mean distances, and needs no matrix of all pairs."""
    images, dimensions = samples.shape[1:]
    question = rng.integers(0, images, (3, DREAMT)).astype(np.int32)
    a, b, c = question[:, (question[0] != question[1]) & (question[0] != question[2]) & (question[1] != question[2])]
    who = rng.integers(0, len(samples), len(a))
    near, far = (np.linalg.norm(samples[who, a] - samples[who, other], axis=1) for other in (b, c))
    columns = (np.ascontiguousarray(part) for part in (a, np.where(near < far, b, c), np.where(near < far, c, b)))
    answers = Answers(*columns, np.zeros(len(a), np.int32), np.zeros(len(a)), ("samples",), images)
    model = Model(answers, dimensions)
    return model.position(most_probable(model, model.vector(samples[-1].astype(float), ALIKE)))
