"""Run a suite, or go on with it: `python -m benchmarks.run first --store benchmarks.db --workers 2`.

Finds the datasets in $METAMED_SHARED (default ../shared). A run that the store already holds is skipped.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

from benchmarks.suites import FAMILIES, SUITES
from metamed.experiments import run_suite
from metamed.readers import read
from metamed.store import Store

SHARED = Path(os.environ.get("METAMED_SHARED", Path(__file__).parents[2] / "shared"))


@cache
def find(name: str):
    """A dataset of the shared folder by its name, with the family that it may not be split from."""
    dataset = read(next((SHARED / "data").glob(f"*/{name}.h5")))
    return replace(dataset, card=replace(dataset.card, family=FAMILIES.get(name, "")))


def open_store(path: str) -> Store:
    """The suite's store, knowing the sources that ship."""
    store = Store(path)
    store.add_all(Store.embedded().records("source"))
    return store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=sorted(SUITES))
    parser.add_argument("--store", default="benchmarks.db")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1, help="processes at once, each with one thread")
    options = parser.parse_args()
    start = time.time()

    def report(run, job) -> None:
        score = run.error or f"{run.score(job.task.measure):.3f}"
        print(
            f"{time.time() - start:7.0f} s  {job.dataset.name:20s} {job.setup.label}  seed {run.seed}: {score}",
            flush=True,
        )

    context = multiprocessing.get_context("spawn")  # forked processes would share torch's threads
    with open_store(options.store) as store, ProcessPoolExecutor(options.workers, mp_context=context) as executor:
        done = run_suite(SUITES[options.suite], store, find, device=options.device, executor=executor,
                         workers=options.workers, threads=1, report=report)  # fmt: skip
    print(f"{len(done)} new runs, {sum(run.error is not None for run in done)} of them failed")


if __name__ == "__main__":
    main()
