"""Make a store's runs part of what ships: `python -m benchmarks.ship transfer --store benchmarks.db`.

Describes the datasets by meta-features, writes scores (no predictions, no images) into metamed/data, and fits the
learners of all kinds that have evidence. The store may hold several suites: runs that no other file of
metamed/data/runs holds go to the file of the name that is given.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import metamed
from benchmarks.run import find
from metamed.dataset import KINDS
from metamed.errors import NotApplicable
from metamed.metafeatures import extract
from metamed.metalearner import MetaLearner
from metamed.store import Store, evidence

DATA = Path(metamed.__file__).parent / "data"


def describe(store: Store) -> None:
    """Meta-features and cards of the datasets that the store has runs of; variants are known by what they vary."""
    for name in sorted({task.dataset for task in store.records("task") if "." not in task.dataset}):
        dataset = find(name)
        store.add(dataset)
        store.add_metafeatures(dataset, extract(dataset))


def fit_learners(folder: Path = DATA) -> None:
    """Fit a learner for every kind to the evidence of a folder, and write it there."""
    store = Store.memory()
    evidence.read(store, folder)
    for kind in KINDS:
        try:
            learner = MetaLearner(kind).fit(store)
        except NotApplicable as nothing:
            print(f"{kind}: no learner ({nothing})")
            continue
        print(f"{kind}: {learner.save(folder / 'learner' / f'{kind}.json').name}: {learner.basis}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the file in metamed/data/runs, e.g. of the suite")
    parser.add_argument("--store", default="benchmarks.db")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of evidence to write to")
    options = parser.parse_args()
    with Store(options.store) as store:
        describe(store)
        evidence.write(store, options.data, options.name)
    fit_learners(options.data)


if __name__ == "__main__":
    main()
