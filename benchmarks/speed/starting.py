"""What a user waits for before the first answer."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

from benchmarks.speed.timing import bar, child_seconds, in_turn


@bar(at_most=1.2)
def cold_recommend() -> tuple[float, float]:
    """A cold `metamed recommend` on 1000 x 28 x 28 x 3 in a gzip HDF5, against `import torch`."""
    with tempfile.TemporaryDirectory() as folder:
        path, rng = Path(folder) / "fresh.h5", np.random.default_rng(0)
        smooth = rng.normal(size=(1000, 7, 7, 3)).repeat(4, axis=1).repeat(4, axis=2)
        with h5py.File(path, "w") as file:
            images = np.clip(128 + 40 * smooth + 10 * rng.normal(size=smooth.shape), 0, 255).astype(np.uint8)
            file.create_dataset("images", data=images, chunks=(64, 28, 28, 3), compression="gzip")
            file["labels"] = np.arange(1000) % 4
        command = (sys.executable, "-m", "metamed", "recommend", "--dataset", str(path))
        return in_turn(lambda: child_seconds(*command), lambda: child_seconds(sys.executable, "-c", "import torch"))
