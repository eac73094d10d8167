"""What a subsample costs in exactness: `python -m benchmarks.metafeature_error FOLDER` writes a table.

The error of a column is the difference between a subsample and all images, over the deviation of that column over the
datasets: an error of 1 is as large as the difference between two datasets usually is.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from metamed.metafeatures import METAFEATURES, extract
from metamed.readers import read

TABLE = Path(__file__).parent / "results" / "metafeature_error.csv"
SIZES, SEEDS, LEAST = (100, 300, 1000), (0,), 1000
GROUPS = ("general", "intensity", "texture", "structure", "landmarking", "segmentation", "bags")


def errors(folder: Path) -> list[tuple]:
    """(group, size, datasets, median error, 90 % quantile) of every group and size, over datasets, seeds, columns."""
    paths = sorted((*folder.glob("cls/*.h5"), *folder.glob("mil/*.h5"), *folder.glob("seg/*.h5")))
    data = {path.stem: read(path) for path in paths}
    whole = {name: extract(d, max_samples=None) for name, d in data.items()}
    deviation = {c: _deviation([v[c] for v in whole.values()]) for c in next(iter(whole.values()))}
    found = defaultdict(list)
    for name, d in data.items():
        least = LEAST if d.masks is None else 2 * SIZES[0]  # no segmentation here has a thousand images
        for size in (s for s in SIZES if len(d.images) >= max(least, 2 * s)):
            for seed in SEEDS:
                values = extract(d, max_samples=size, seed=seed)
                for feature in METAFEATURES.values():
                    if feature.group in GROUPS and not feature.deep:
                        columns = [c for c in feature.columns if deviation[c] > 0]
                        off = [abs(values[c] - whole[name][c]) / deviation[c] for c in columns]
                        off = [error for error in off if np.isfinite(error)]
                        if off:
                            found[feature.group, size].append((name, off))
    return [_row(group, size, found[group, size]) for group in GROUPS for size in SIZES if (group, size) in found]


def _deviation(values: list[float]) -> float:
    known = np.array([value for value in values if np.isfinite(value)])
    return float(known.std()) if len(known) > 1 else 0.0


def _row(group: str, size: int, parts: list[tuple[str, list[float]]]) -> tuple:
    values = np.array([value for _, off in parts for value in off])
    return group, size, len({name for name, _ in parts}), f"{np.median(values):.3f}", f"{np.quantile(values, 0.9):.3f}"


if __name__ == "__main__":
    found = [("group", "samples", "datasets", "median", "quantile90"), *errors(Path(sys.argv[1]))]
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(found)
