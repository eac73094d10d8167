"""Statistics of images in a gzip HDF5, reading included; how time and memory grow with their number."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import h5py
import numpy as np

from benchmarks.speed.images import GROUPS, textured
from benchmarks.speed.timing import bar, in_turn, one_thread, seconds, wall
from metamed.metafeatures import extract
from metamed.readers import read


def write(path: Path, n: int, side: int, channels: int, chunk: int) -> None:
    """n images in a gzip HDF5, as they are usually stored: (n, H, W, C), whole images in a chunk. Some repeat."""
    block = textured(min(n, 2**22 // side**2), side)[:, :channels].transpose(0, 2, 3, 1)
    with h5py.File(path, "w") as file:
        shape = (side, side, channels)
        out = file.create_dataset("images", (n, *shape), "u1", chunks=(chunk, *shape), compression="gzip")
        for start in range(0, n, len(block)):
            out[start : start + len(block)] = block[: n - start]


@contextmanager
def _file(n: int, side: int):
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "images.h5", n, side, 3, 8)
        yield Path(folder) / "images.h5"


def _read_by_h5py(path: Path) -> None:
    with h5py.File(path) as file:
        for start in range(0, len(file["images"]), 64):
            file["images"][start : start + 64]


@contextmanager
def _threads(n: int):
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(n)
    yield
    if before is None:
        del os.environ["OMP_NUM_THREADS"]
    else:
        os.environ["OMP_NUM_THREADS"] = before


@bar(at_most=1.6)
def hdf5_on_one_core() -> tuple[float, float]:
    """Reading and describing 1000 x 224 x 224 x 3 in a gzip HDF5 on one core, against h5py only reading it."""
    with _file(1000, 224) as path, _threads(1):
        return in_turn(lambda: seconds(lambda: extract(read(path), GROUPS, max_samples=None)),
                       lambda: seconds(lambda: _read_by_h5py(path)))  # fmt: skip


@bar(at_most=1.0)
def hdf5_on_two_cores() -> tuple[float, float]:
    """The same on two cores, by the clock: best of several, as this is about a machine with nothing else to do."""
    with _file(1000, 224) as path, _threads(2):
        return in_turn(lambda: wall(lambda: extract(read(path), GROUPS, max_samples=None)),
                       lambda: wall(lambda: _read_by_h5py(path)), min)  # fmt: skip


GROWTH = """
import sys, time
from metamed.metafeatures import extract
from metamed.readers import read
extract(read(sys.argv[2]), ("intensity", "texture"), max_samples=None)  # what is done once, whatever the images
images = read(sys.argv[1])
started = time.process_time()
extract(images, ("intensity", "texture"), max_samples=None)
cpu = time.process_time() - started
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(cpu, int(peak) / 1024)
"""


@cache
def _growth() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(images, CPU seconds, peak MB) of 28 x 28 grey images read from disk, each in a process of its own.

    The peak is Linux's VmHWM: getrusage counts what the parent held when it started the child.
    """
    sizes, found = np.array([1_000, 10_000, 100_000]), []
    with tempfile.TemporaryDirectory() as folder:
        few = Path(folder) / "few.h5"
        write(few, 700, 28, 1, 250)
        for n in sizes:
            path = Path(folder) / f"{n}.h5"
            write(path, n, 28, 1, 250)
            command = [sys.executable, "-c", GROWTH, str(path), str(few)]
            runs = [subprocess.run(command, check=True, capture_output=True, text=True, env=one_thread()).stdout.split()
                    for _ in range(5 if n < 100_000 else 1)]  # fmt: skip
            found.append(np.median(np.array(runs, float), axis=0))
    return sizes, *np.array(found).T


@bar(at_most=1.05, unit="as an exponent")
def growth_in_time() -> tuple[float, float]:
    """Exponent of CPU time in the number of images, 1,000 to 100,000 of 28 x 28 read from disk, against 1."""
    sizes, cpu, _ = _growth()
    exponent = np.polyfit(np.log(sizes), np.log(cpu), 1)[0]
    assert exponent >= 0.95, f"exponent {exponent}: something does not grow with the images"
    return exponent, 1.0


@bar(at_most=1.0, unit="MB")
def growth_in_memory() -> tuple[float, float]:
    """Difference of the peak memory between 1,000 and 100,000 images of 28 x 28 read from disk, against 20 MB."""
    return float(np.ptp(_growth()[2])), 20.0
