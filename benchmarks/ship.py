"""Make a suite's runs part of what ships: `python -m benchmarks.ship first --store benchmarks.db`.

Describes the suite's datasets by meta-features, writes scores (no predictions, no images) into metamed/data, and fits
the learners of all kinds that have evidence.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import metamed
from benchmarks.run import find
from benchmarks.suites import SUITES
from metamed.dataset import KINDS
from metamed.errors import NotApplicable
from metamed.metafeatures import extract
from metamed.metalearner import MetaLearner
from metamed.store import Store, evidence

DATA = Path(metamed.__file__).parent / "data"


def describe(suite: str, store: Store) -> None:
    """Meta-features and cards of a suite's datasets."""
    for name in SUITES[suite].datasets:
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
    parser.add_argument("suite", choices=sorted(SUITES))
    parser.add_argument("--store", default="benchmarks.db")
    options = parser.parse_args()
    with Store(options.store) as store:
        describe(options.suite, store)
        evidence.write(store, DATA, options.suite)
    fit_learners()


if __name__ == "__main__":
    main()
