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
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

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


BENCHMARKS = {function.__name__: function for function in (cold_recommend,)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], metavar="NAME", help=", ".join(BENCHMARKS))
    for name in parser.parse_args().names or BENCHMARKS:
        ours, peer = BENCHMARKS[name]()
        print(f"{name}: {ours / peer:.2f} x  (ours {ours:.3f} s, peer {peer:.3f} s; median of {REPEATS}, CPU seconds)")
        print(f"  {BENCHMARKS[name].__doc__.splitlines()[0]}")


if __name__ == "__main__":
    main()
