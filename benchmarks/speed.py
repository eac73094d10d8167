"""Speed as ratios against a peer in the same session: `python -m benchmarks.speed [NAME ...]`.

Each function does the same work twice, ours and the peer's, in turn, and returns their median seconds.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from metamed.exams import knn, prior_list
from metamed.exams.tables import Table
from metamed.metalearner import trees

REPEATS = 5


def _child_seconds(*command: str) -> float:
    """CPU seconds (user and system) of a command: other work on the machine does not count."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_one_thread())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _one_thread() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _in_turn(ours: Callable[[], float], peers: Callable[[], float]) -> tuple[float, float]:
    pairs = [(ours(), peers()) for _ in range(REPEATS + 1)][1:]  # the first one fills the file cache
    return tuple(statistics.median(side) for side in zip(*pairs, strict=True))


def cold_recommend() -> tuple[float, float]:
    """A cold `metamed recommend` on 1000 x 28 x 28 x 3 in a gzip HDF5, against `import torch`; bar: at most 1.2."""
    with tempfile.TemporaryDirectory() as folder:
        path, rng = Path(folder) / "fresh.h5", np.random.default_rng(0)
        smooth = rng.normal(size=(1000, 7, 7, 3)).repeat(4, axis=1).repeat(4, axis=2)
        with h5py.File(path, "w") as file:
            images = np.clip(128 + 40 * smooth + 10 * rng.normal(size=smooth.shape), 0, 255).astype(np.uint8)
            file.create_dataset("images", data=images, chunks=(64, 28, 28, 3), compression="gzip")
            file["labels"] = np.arange(1000) % 4
        command = (sys.executable, "-m", "metamed", "recommend", "--dataset", str(path))
        return _in_turn(lambda: _child_seconds(*command), lambda: _child_seconds(sys.executable, "-c", "import torch"))


def _seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def _large_table(datasets: int = 200, items: int = 100, facts: int = 20) -> Table:
    """Synthetic scores: an order of the items that moves with the facts. Nothing was trained."""
    rng = np.random.default_rng(0)
    known, names = rng.normal(size=(datasets, facts)), tuple(f"d{i}" for i in range(datasets))
    scores = rng.normal(size=items) + known[:, :5] @ rng.normal(size=(5, items)) + rng.normal(size=(datasets, items))
    columns = {f"fact.{k}": column for k, column in enumerate(known.T)}
    return Table("synthetic", "score", names, tuple(f"s{j}" for j in range(items)), scores, names, columns)


def _rows_of_an_exam(folds: int) -> tuple:
    """200 datasets x 100 setups x 100 features as rows for the trees, with the masks of some families."""
    rng, datasets, items = np.random.default_rng(0), 200, 100
    features = rng.normal(size=(datasets * items, 100))
    target = features[:, :5].sum(1) + rng.normal(size=len(features))
    masks = [np.repeat(np.arange(datasets) == fold, items) for fold in range(folds)]
    return features, target, np.ones(len(features)), masks


DEEP = {"rounds": 60, "max_depth": 4}  # the size of trees that the bar is about
FOLDS = 10  # of 200: both sides take as long for each


def _anew(features, target, weights, masks) -> None:
    """Bin and grow for every fold what is left of the rows."""
    import xgboost

    for mask in masks:
        data = xgboost.QuantileDMatrix(features[~mask], target[~mask], weight=weights[~mask])
        booster = xgboost.train(trees.TREES | {"max_depth": DEEP["max_depth"], "seed": 0}, data, DEEP["rounds"])
        booster.predict(xgboost.DMatrix(features[mask]))


def exam_of_trees() -> tuple[float, float]:
    """Leaving out 10 of 200 families by weights of one binned matrix, against binning anew; bar: at most 0.75."""
    rows = _rows_of_an_exam(FOLDS)
    return _in_turn(
        lambda: _seconds(lambda: trees.out_of_fold(*rows, range(1), **DEEP)), lambda: _seconds(lambda: _anew(*rows))
    )


def _baseline(ranker) -> tuple[float, float]:
    table, rows = _large_table(), _rows_of_an_exam(FOLDS)

    def ours() -> float:
        return _seconds(lambda: [ranker(table.rows(~f), table.rows(f).hidden()) for f in table.family_folds()[:FOLDS]])

    return _in_turn(ours, lambda: _seconds(lambda: _anew(*rows)))


def exam_of_prior_list() -> tuple[float, float]:
    """The prior list in 10 of 200 folds, against trees that are binned and grown anew; bar: at most 0.001."""
    return _baseline(prior_list)


def exam_of_knn() -> tuple[float, float]:
    """Nearest neighbours in 10 of 200 folds, against trees that are binned and grown anew; bar: at most 0.02."""
    return _baseline(knn)


BENCHMARKS = {f.__name__: f for f in (cold_recommend, exam_of_trees, exam_of_prior_list, exam_of_knn)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], metavar="NAME", help=", ".join(BENCHMARKS))
    for name in parser.parse_args().names or BENCHMARKS:
        ours, peer = BENCHMARKS[name]()
        print(f"{name}: {ours / peer:.2g} x  (ours {ours:.3f} s, peer {peer:.3f} s; median of {REPEATS}, CPU seconds)")
        print(f"  {BENCHMARKS[name].__doc__.splitlines()[0]}")


if __name__ == "__main__":
    main()
