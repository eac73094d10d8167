"""What masks that runs kept tell beyond scores: `python -m benchmarks.kept_masks --store S`; results/kept_masks.md.

How well the interval of a Dice that was reached holds on other images and with another seed: one half of the patients
of a test part under one seed tells the other half under another. And what a vote of the setups gains over the best of
them, both chosen on validation, as `metamed recommend` says it.
"""

from __future__ import annotations

import argparse
from itertools import permutations
from pathlib import Path

import numpy as np

from benchmarks.run import find
from benchmarks.suites import SEGMENTED
from metamed.dataset import Dataset
from metamed.ensembles import setup_ensemble, stored
from metamed.recommend import Z90, _sampling_variance
from metamed.recommend.segmentation import SPREAD, image_dice, variance_of_mean
from metamed.store import Store

RESULTS = Path(__file__).parent / "results" / "kept_masks.md"
HALVES = 20  # random divisions of a test part
WAYS = ("area under the ROC curve (as before)", "share of score x (1 - score)", "between images")


def kept_by(store: Store, dataset: Dataset, size: int = 100) -> dict[str, dict[int, tuple[np.ndarray, np.ndarray]]]:
    """Setup -> seed -> (Dice of each test image, its patient) of runs on so many images that kept their masks."""
    found: dict[str, dict[int, tuple]] = {}
    for run in store.runs("segmentation", dataset.digest):
        if run.error is None and store.get(run.task).size == size and (kept := stored(run, store)) is not None:
            found.setdefault(run.setup, {})[run.seed] = image_dice(dataset, kept)
    return found


def seed_variance(runs: dict[str, dict[int, tuple]]) -> float:
    """Variance of a Dice between seeds, pooled over the setups of a dataset."""
    scores = [[found.mean() for found, _ in seeds.values()] for seeds in runs.values() if len(seeds) > 1]
    return sum(np.var(s) * len(s) for s in scores) / max(sum(len(s) - 1 for s in scores), 1)


def held(runs: dict[str, dict[int, tuple]], dataset: Dataset, seeds: float) -> tuple[np.ndarray, np.ndarray]:
    """(how often the interval holds the other half's Dice, its half width), a value for each of `WAYS`."""
    inside, width, rng = [], [], np.random.default_rng(0)
    for by_seed in runs.values():
        for one, other in permutations(by_seed, 2):
            (found, patient), (again, _) = by_seed[one], by_seed[other]
            names = np.unique(patient)
            for _ in range(HALVES):
                half = np.isin(patient, rng.permutation(names)[: len(names) // 2])
                score, units = found[half].mean(), len(np.unique(patient[half]))
                sampling = (2 * _sampling_variance(score, dataset), 2 * SPREAD * score * (1 - score) / units,
                            2 * variance_of_mean(found[half], patient[half]))  # fmt: skip
                halves = Z90 * np.sqrt(2 * seeds + np.array(sampling))
                inside.append(abs(again[~half].mean() - score) <= halves)
                width.append(halves)
    return np.mean(inside, axis=0), np.mean(width, axis=0)


def report(store: Store) -> str:
    data = {name: find(name) for name in SEGMENTED}
    runs = {name: kept_by(store, dataset) for name, dataset in data.items()}
    runs = {name: found for name, found in runs.items() if any(len(seeds) > 1 for seeds in found.values())}
    seeds = {name: seed_variance(found) for name, found in runs.items()}
    lines, means = [], []
    for name, found in runs.items():
        others = [v for other, v in seeds.items() if data[other].family != data[name].family]
        inside, width = held(found, data[name], float(np.mean(others)))
        means.append((inside, width))
        lines.append(
            f"| {name} | " + " | ".join(f"{i:.2f}, {w:.3f}" for i, w in zip(inside, width, strict=True)) + " |"
        )
    inside, width = np.mean(means, axis=0)
    lines.append("| mean | " + " | ".join(f"{i:.2f}, {w:.3f}" for i, w in zip(inside, width, strict=True)) + " |")
    return PAGE.format(heads=" | ".join(WAYS), rules="---|" * (len(WAYS) + 1), intervals="\n".join(lines),
                       votes="\n".join(votes(store, [data[name] for name in runs])),
                       seeds=np.sqrt(np.mean(list(seeds.values()))))  # fmt: skip


def votes(store: Store, datasets: list[Dataset]) -> list[str]:
    lines, gains = [], []
    for dataset in datasets:
        weights, joined = setup_ensemble(dataset, store)
        gains.append(joined.test - joined.single[2])
        lines.append(f"| {dataset.name} | {len(weights)} | {joined.single[2]:.3f} | {joined.test:.3f} | "
                     f"{gains[-1]:+.3f} | {joined.gain:+.3f} | {('no', 'yes')[joined.one_is_enough]} |")  # fmt: skip
    better = f"{sum(g > 0 for g in gains)} of {len(gains)} sets"
    return [*lines, f"| mean | | | | {np.mean(gains):+.3f} | | |", "", f"The vote is the better one on {better}."]


PAGE = """# What kept masks tell

Made by `python -m benchmarks.kept_masks --store S`, from runs with up to 100 images for training and validation.

## The interval of a Dice that was reached

How often the 90 % interval around a setup's Dice on half of the test patients holds its Dice with another seed on the
other half, and the interval's half width; seeds vary as on the other families of datasets (standard deviation
{seeds:.3f}). The share was set to the most of these very datasets, so its column is no untouched test.

| dataset | {heads} |
|{rules}
{intervals}

## A vote

Setups joined by a vote of their masks, weights chosen on validation, beside the best single one by validation; Dice on
the test part.

| dataset | setups | best one | vote | gain | told by validation | one is enough |
|---|---|---|---|---|---|---|
{votes}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    RESULTS.write_text(report(Store(parser.parse_args().store)), encoding="utf-8")
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
