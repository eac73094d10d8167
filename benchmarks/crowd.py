"""Simulated crowds whose truth is known: `python -m benchmarks.crowd [SEEDS]` goes on where it stopped, and reports.

200 images, 40 annotators: 24 skilled (slopes log-normal around 6 in two dimensions, 9 in five, lapses from
Beta(1, 12)), 8 spammers, 4 who press one side in 95 of 100, 4 inverters. The side shown is known. Every seed of every
row is a line of results/crowd.csv; results/crowd.md is made of it.
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks import crowd_losses
from benchmarks.crowd_page import report
from metamed.assessments import Triplets
from metamed.crowd import embed, embedding
from metamed.crowd.answers import Answers, usable
from metamed.crowd.fitting import most_probable, peak
from metamed.crowd.model import LEAST, MEAN, SD, Model
from metamed.crowd.quality import quality_of

RESULTS = Path(__file__).parent / "results"
IMAGES, TESTED, SEEDS = 200, 10_000, 10
ROWS = [(2, 50), (2, 100), (2, 200), (5, 50), (5, 100), (5, 200)]
KINDS = np.repeat(["skilled", "spammer", "one-sided", "inverter"], [24, 8, 4, 4])
FILTERED = 0.6  # agreement with the embedding of all, below which an annotator is left out


class Truth:
    """A crowd: `triplets` as it answered, `test` questions (anchor, closer, farther), (3, n), `quality` and `part`, the
    traits of its annotators as `Model` has them in a vector."""

    def __init__(self, dimensions: int, each: int, seed: int):
        rng = np.random.default_rng(seed)
        self.position = rng.normal(size=(IMAGES, dimensions)) / np.sqrt(2 * dimensions)
        slope = rng.lognormal(np.log(6 if dimensions == 2 else 9), 0.5, len(KINDS))
        slope[KINDS == "inverter"] *= -1
        slope[(KINDS == "spammer") | (KINDS == "one-sided")] = 0
        lapse = np.where(slope != 0, rng.beta(1, 12, len(KINDS)), LEAST + 1e-6)
        bias = np.where(KINDS == "one-sided", rng.choice([-1, 1], len(KINDS)) * np.log(0.95 / 0.05), 0)
        share = (np.maximum(lapse, LEAST + 1e-6) - LEAST) / (1 - LEAST)
        self.part = ((np.column_stack([slope, bias, np.log(share / (1 - share))]) - MEAN) / SD).ravel()
        who = np.repeat(np.arange(len(KINDS)), each)
        anchor, left, right = _questions(rng, len(who))
        gap = self._distance(anchor, right) - self._distance(anchor, left)
        says_left = (1 - lapse[who]) / (1 + np.exp(-slope[who] * gap - bias[who])) + lapse[who] / 2
        chosen = rng.random(len(who)) < says_left
        closer, farther = np.where(chosen, (left, right), (right, left))
        self.triplets = Triplets(anchor, closer, farther, who, np.where(chosen, 0, 1))
        anchor, first, second = _questions(rng, TESTED)
        turned = self._distance(anchor, first) > self._distance(anchor, second)
        self.test = np.stack([anchor, np.where(turned, second, first), np.where(turned, first, second)])
        gap = self._distance(anchor, first) - self._distance(anchor, second)
        self.quality = quality_of(np.column_stack([slope, bias, lapse]), gap)

    def _distance(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.linalg.norm(self.position[first] - self.position[second], axis=1)

    def accuracy(self, position: np.ndarray) -> float:
        """Share of the test questions that positions answer as the truth does."""
        near, far = (np.linalg.norm(position[self.test[0]] - position[other], axis=1) for other in self.test[1:])
        return float((near < far).mean())


def _questions(rng: np.random.Generator, n: int) -> np.ndarray:
    """Three different images each, (3, n)."""
    return np.argsort(rng.random((n, IMAGES)), axis=1)[:, :3].T


def one(dimensions: int, each: int, seed: int) -> dict[str, float]:
    """All columns of a row of the table, for one seed."""
    truth = Truth(dimensions, each, seed)
    answers, _ = usable(truth.triplets, IMAGES)
    started = time.process_time()
    ours = embed(truth.triplets, dimensions, seed=seed)
    seconds = time.process_time() - started
    quality = list(ours.quality.values())
    covered = [each.low <= true <= each.high for each, true in zip(quality, truth.quality, strict=True)]
    predicted = float((ours.probability(*truth.test) > 0.5).mean())
    return {
        "dimensions": dimensions, "each": each, "seed": seed, **_unweighted(truth, answers, dimensions, seed),
        "told": truth.accuracy(_told(truth, answers, dimensions, seed)),
        "joint": truth.accuracy(_peak(answers, dimensions, seed)),
        "predicted": predicted, "embedded": truth.accuracy(ours.positions), "sampled": float(len(ours.samples) > 1),
        "quality": _ranks(np.array(quality, float), truth.quality), "covered": float(np.mean(covered)),
        "quality_told": _ranks(_qualities_told(truth, answers, dimensions), truth.quality), "seconds": seconds,
    }  # fmt: skip


def _ranks(found: np.ndarray, true: np.ndarray) -> float:
    """Spearman's correlation."""
    from scipy.stats import spearmanr

    return float(spearmanr(found, true)[0])


def _peak(answers: Answers, dimensions: int, seed: int) -> np.ndarray:
    model = Model(answers, dimensions)
    return model.position(peak(model, np.random.default_rng(seed)))


def _unweighted(truth: Truth, answers: Answers, dimensions: int, seed: int) -> dict[str, float]:
    """Losses that take all annotators for one; and the best of them for those whom it finds to agree with it."""
    logistic = _peak(answers.pooled(), dimensions, seed)
    found = {"logistic": logistic, **crowd_losses.embeddings(answers, dimensions, seed)}
    agrees = np.bincount(answers.annotator, answers.gaps(logistic) > 0) / np.bincount(answers.annotator)
    kept = answers.take((agrees >= FILTERED)[answers.annotator])
    found["filtered"] = _peak(kept.pooled(), dimensions, seed) if len(kept) else logistic
    return {name: truth.accuracy(position) for name, position in found.items()}


def _told(truth: Truth, answers: Answers, dimensions: int, seed: int) -> np.ndarray:
    """Positions of the highest density where the annotators' true traits are given."""
    model = Model(answers, dimensions)
    start = model.random(np.random.default_rng(seed))
    start[model.coordinates :] = truth.part
    return model.position(most_probable(model, start, traits=False))


def _qualities_told(truth: Truth, answers: Answers, dimensions: int) -> np.ndarray:
    """Most probable quality of annotators where the true positions are given."""
    from scipy.optimize import minimize

    model = Model(answers, dimensions)
    vector = model.vector(truth.position, embedding.ALIKE)

    def loss(part: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = model.density(np.concatenate([vector[: model.coordinates], part]))
        return -value, -gradient[model.coordinates :]

    part = minimize(loss, vector[model.coordinates :], jac=True, method="L-BFGS-B").x
    return quality_of(model.traits(part)[0], answers.gaps(truth.position))


def main() -> None:
    path, seeds = RESULTS / "crowd.csv", int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS
    done = list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []
    known = {(int(row["dimensions"]), int(row["each"]), int(row["seed"])) for row in done}
    for seed in range(seeds):
        for dimensions, each in ROWS:
            if (dimensions, each, seed) in known:
                continue
            row = {name: value if isinstance(value, int) else f"{value:.4f}"
                   for name, value in one(dimensions, each, seed).items()}  # fmt: skip
            new = not path.exists()
            with path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, row, lineterminator="\n")
                if new:
                    writer.writeheader()
                writer.writerow(row)
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    (RESULTS / "crowd.md").write_text(report(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
