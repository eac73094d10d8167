"""Run suites, or go on with them: `python -m benchmarks.run first probes --store benchmarks.db --workers 2`.

Finds the datasets in $METAMED_SHARED (default ../shared). A run that the store already holds is skipped. Runs of a
suite that keeps weights become sources, for the suites after it.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

from benchmarks.suites import FAMILIES, RANDOM, SUITES, made
from benchmarks.variants import varied
from metamed.executors import executor_at
from metamed.experiments import Suite, run_suite
from metamed.readers import read
from metamed.sources import as_source, random_source
from metamed.store import Store

SHARED = Path(os.environ.get("METAMED_SHARED", Path(__file__).parents[2] / "shared"))


@cache
def find(name: str):
    """A dataset of the shared folder by its name, with the family that it may not be split from, or a variant of it."""
    name, _, variant = name.partition(".")
    dataset = read(next((SHARED / "data").glob(f"*/{name}.h5")))
    dataset = replace(dataset, card=replace(dataset.card, family=FAMILIES.get(name, "")))
    return varied(dataset, variant) if variant else dataset


def open_store(path: str) -> Store:
    """The suite's store, knowing the sources that ship and those that learned nothing."""
    store = Store(path)
    store.add_all([*Store.embedded().records("source"), *(random_source(*r) for r in RANDOM)])
    return store


def bring_sources(setups, other: Store, store: Store) -> None:
    """Make the sources that setups name known to a store, with the runs and the weights that they come from."""
    for name in {name for setup in setups for name in setup.sources}:
        source = other.source(name)
        if source.origin.startswith("train:"):
            run = other.get(source.origin.removeprefix("train:"))
            task = other.get(run.task)
            store.add_all([other.dataset(task.digest), task, other.get(run.setup)])
            weights = "weights.safetensors"
            store.add(run, artifacts={weights: other.artifact(run, weights).read_bytes()})
        store.add(source)


def execute(suite: Suite, store: Store, executor, **options) -> None:
    """Run what is missing of a suite, a line for every run; what kept its weights becomes a source."""
    start = time.time()

    def report(run, job) -> None:
        score = run.error or f"{run.score(job.task.measure):.3f}"
        what = f"{job.dataset.name:20s} n={job.task.size} {job.setup.label}  seed {run.seed}: {score}"
        print(f"{time.time() - start:7.0f} s  {what}", flush=True)
        if suite.keep_weights and not run.error:
            as_source(run, made(job.dataset.name, job.setup.method, job.task.size), store)

    done = run_suite(suite, store, find, executor=executor, threads=1, report=report, **options)
    failed = sum(run.error is not None for run in done)
    print(f"{suite.name}: {len(done)} new runs, {failed} of them failed", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="+", choices=sorted(SUITES), metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--store", default="benchmarks.db")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1, help="processes at once, each with one thread")
    parser.add_argument("--sources", help="another store, some of whose sources the suites start from")
    options = parser.parse_args()
    with open_store(options.store) as store, executor_at("local", options.workers) as (executor, at_once):
        if options.sources:
            bring_sources({s for name in options.suites for s in SUITES[name].setups}, Store(options.sources), store)
        for name in options.suites:
            execute(SUITES[name], store, executor, device=options.device, workers=at_once)


if __name__ == "__main__":
    main()
