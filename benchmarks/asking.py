"""What questions to an expert are worth, simulated: python -m benchmarks.asking SHARED.

On bags whose instances are known (`known_instances`) every strategy of `metamed.asking` asks about instances of the
training bags in rounds; the truth answers, the variant learns again with the answers, and the test bags say how well it
tells bags and instances. Every seed divides images and bags anew, the same for all strategies. Rows are appended to
results/asking.csv as they are made: an interrupted run goes on. `python -m benchmarks.asking_results` reads them.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.known_instances import MADE, MOST_IMAGES, REAL, SIDE, made_of
from benchmarks.trust import append
from metamed.asking import STRATEGIES, choose, learn_with
from metamed.dataset import ArrayImages, Dataset, Images, take
from metamed.measures import binary_auc
from metamed.readers import read
from metamed.records import Setup
from metamed.sources import embedder
from metamed.store import Store
from metamed.trust import finding_probability
from metamed.trust.learning import Learn, components, learner

TABLE = Path(__file__).parent / "results" / "asking.csv"
ROUNDS, SEEDS = (10, 20, 40), 10  # questions asked after each round, all together
SETS = (REAL, "bccd_cells@0.1", "ham10000_derm@0.3", "lc25000_lung@0.1", "busi_breast_us@0.3")
SETUPS = (Setup("mi_svm_bags"), Setup("miles"), Setup("single_instance"))
COLUMNS = ("dataset", "method", "strategy", "seed", "questions", "findings", "bag_auc", "instance_auc")


class Bags:
    """A set of bags that can be divided anew by a seed; frozen features are computed once."""

    def __init__(self, name: str, shared: Path, embed):
        self.name, self.real = name, name == REAL
        data = read(shared / "data" / ("mil" if self.real else "cls") / f"{name.partition('@')[0]}.h5")
        if self.real:
            self.data = replace(data, images=ArrayImages(components(embed(data.images))))
            return
        kept = np.sort(np.random.default_rng(0).permutation(data.labelled)[:MOST_IMAGES])
        images: Images = ArrayImages(take(data.images, kept))
        self.features, self.witness = components(embed(images)), data.target[kept] == MADE[name].witness
        self.groups = kept if data.groups is None else data.groups[kept]

    def divided(self, seed: int) -> Dataset:
        if not self.real:
            return made_of(MADE[self.name], self.features, self.witness, self.groups, seed)
        blocks = np.random.default_rng(seed).permutation(10)  # ten images in a row, often of one patient, together
        test = np.isin(np.arange(self.data.n_samples) // 10, blocks[:4])
        return replace(self.data, split=np.where(test, 2, 0))


def simulate(data: Dataset, setup: Setup, strategy: str, seed: int, rounds: tuple[int, ...] = ROUNDS) -> list[dict]:
    """One row before any question and one after every round."""
    bags, learn = learner(setup, data, Store.memory(), device="cpu")
    train, test = np.flatnonzero(data.split == 0), np.flatnonzero(data.split == 2)
    known = [bags[b] for b in train], data.target[train], [bags.members(b) for b in train]
    answers: dict[int, int] = {}
    rows = [_row(learn, known, answers, data, bags, test, seed)]
    for asked in rounds:
        more = asked - len(answers)
        numbers, _ = choose(learn, *known, more, by=strategy, answers=answers, seed=100 * seed + asked)
        answers |= {int(n): int(data.instance_target[n]) for n in numbers}
        rows.append(_row(learn, known, answers, data, bags, test, seed))
    about = {"dataset": data.name, "method": setup.method, "strategy": strategy, "seed": seed}
    return [about | row for row in rows]


def _row(learn: Learn, known: tuple, answers: dict, data: Dataset, bags, test: np.ndarray, seed: int) -> dict:
    model = learn_with(learn, *known, answers, seed)
    asked = [bags[b] for b in test]
    truth = np.concatenate([data.instance_target[bags.members(b)] for b in test]) > 0
    return {"questions": len(answers), "findings": sum(answers.values()),
            "bag_auc": binary_auc(data.target[test] > 0, finding_probability(model, asked)),
            "instance_auc": binary_auc(truth, np.concatenate([model.scores(bag) for bag in asked]))}  # fmt: skip


def main(shared: Path, names: tuple[str, ...] = SETS, table: Path = TABLE, seeds: int = SEEDS) -> None:
    rows = list(csv.DictReader(table.open(encoding="utf-8"))) if table.exists() else []
    done = {(row["dataset"], row["method"], row["strategy"], int(row["seed"])) for row in rows}
    embed = embedder(image_size=SIDE, device="cpu")
    for name in names:
        sets = Bags(name, shared, embed)
        for seed in range(seeds):
            data = sets.divided(seed)
            for setup in SETUPS:
                for strategy in STRATEGIES:
                    if (name, setup.method, strategy, seed) not in done:
                        append(table, simulate(data, setup, strategy, seed), COLUMNS)
        print(name, flush=True)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    main(Path(sys.argv[1]), tuple(sys.argv[2:]) or SETS)
