"""Many people of few answers, two in five of whom guess: `python -m benchmarks.crowd_few [SEEDS]` goes on.

200 images in two dimensions, 6,000 answers, slopes of the others log-normal around 6. Accuracy on 10,000 questions
whose truth is known: of the peak and of the posterior with all taken for one, of the posterior with everybody told
apart; and which of the latter two `embed` chooses (its rule was found on other crowds). Every crowd is a line of
results/crowd_few.csv.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from benchmarks.crowd_page import mean_of
from metamed.assessments import Triplets
from metamed.crowd import embedding
from metamed.crowd.answers import usable
from metamed.crowd.fitting import peak
from metamed.crowd.model import Model

TABLE = Path(__file__).parent / "results" / "crowd_few.csv"
IMAGES, ANSWERS, TESTED, EACH, SEEDS = 200, 6_000, 10_000, (3, 5, 10), 5
GUESSING = 0.4
WAYS = ("peak, alike", "posterior, alike", "posterior, apart")


class Crowd:
    """`answers` of people who gave `each` of them, and questions whose truth is known."""

    def __init__(self, each: int, seed: int):
        rng, people = np.random.default_rng(100 + seed), ANSWERS // each
        self.position = rng.normal(size=(IMAGES, 2)) / 2  # mean squared distance 1
        slope = np.where(rng.random(people) < GUESSING, 0, rng.lognormal(np.log(6), 0.5, people))
        who = np.repeat(np.arange(people), each)
        anchor, left, right = _questions(rng, len(who))
        chosen = rng.random(len(who)) < 1 / (1 + np.exp(-slope[who] * _gap(self.position, anchor, left, right)))
        closer, farther = np.where(chosen, (left, right), (right, left))
        self.answers, _ = usable(Triplets(anchor, closer, farther, who, np.where(chosen, 0, 1)), IMAGES)
        self.test = _questions(rng, TESTED)
        self.truth = _gap(self.position, *self.test) > 0

    def accuracy(self, model: Model, vectors: np.ndarray) -> float:
        """Of the majority of vectors."""
        votes = sum(_gap(model.position(vector), *self.test) > 0 for vector in vectors)
        return float(((votes > len(vectors) / 2) == self.truth).mean())


def _questions(rng: np.random.Generator, n: int) -> np.ndarray:
    """Three different images each, (3, n)."""
    return np.argsort(rng.random((n, IMAGES)), axis=1)[:, :3].T


def _gap(position: np.ndarray, anchor: np.ndarray, near: np.ndarray, far: np.ndarray) -> np.ndarray:
    """How much farther from the anchor the second lies."""
    to_near, to_far = (np.linalg.norm(position[anchor] - position[other], axis=1) for other in (near, far))
    return to_far - to_near


def one(each: int, seed: int) -> dict[str, float | int | str]:
    crowd, rng = Crowd(each, seed), np.random.default_rng(seed)
    alike, apart = Model(crowd.answers.pooled(), 2), Model(crowd.answers, 2)
    found = {"peak, alike": crowd.accuracy(alike, peak(alike, rng)[None]),
             "posterior, alike": crowd.accuracy(alike, embedding._vectors(alike, rng)[0]),
             "posterior, apart": crowd.accuracy(apart, embedding._vectors(apart, rng)[0])}  # fmt: skip
    chosen = "alike" if embedding._alike(crowd.answers, 2, rng) else "apart"
    return {"each": each, "seed": seed, **{name: f"{value:.4f}" for name, value in found.items()}, "chosen": chosen}


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS
    rows = list(csv.DictReader(TABLE.open(encoding="utf-8"))) if TABLE.exists() else []
    done = {(int(row["each"]), int(row["seed"])) for row in rows}
    for seed, each in ((seed, each) for seed in range(seeds) for each in EACH if (each, seed) not in done):
        row, new = one(each, seed), not TABLE.exists()
        with TABLE.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, row, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(row, flush=True)
        rows.append(row)
    for each in EACH:
        own = [row for row in rows if int(row["each"]) == each]
        print(each, *(f"{way} {mean_of([float(row[way]) for row in own])}" for way in WAYS))


if __name__ == "__main__":
    main()
