"""Seconds of processor time, taken in turn on both sides: other work on the machine does not count."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

REPEATS = 5


@dataclass(frozen=True)
class Bar:
    """A benchmark gives (ours, the peer's) in a unit; the bar is the largest ratio of the two."""

    run: Callable[[], tuple[float, float]]
    at_most: float
    unit: str


BARS: dict[str, Bar] = {}


def bar(at_most: float | None = None, faster: float | None = None, unit: str = "s"):
    """Register a benchmark: its ratio may be `at_most` so much, or one over `faster`."""

    def register(run: Callable[[], tuple[float, float]]) -> Callable[[], tuple[float, float]]:
        BARS[run.__name__] = Bar(run, at_most or 1 / faster, unit)
        return run

    return register


def child_seconds(*command: str) -> float:
    """CPU seconds (user and system) of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=one_thread())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def one_thread() -> dict[str, str]:
    """The environment, for processes that shall keep to one core."""
    return os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process, all its threads."""
    started = time.process_time()
    work()
    return time.process_time() - started


def wall(work: Callable[[], object]) -> float:
    """Seconds on the clock: for what several threads share."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_turn(ours: Callable[[], float], peers: Callable[[], float], summary=statistics.median) -> tuple[float, float]:
    """Medians of what both give, called in turn; the first time fills caches and is left out."""
    pairs = [(ours(), peers()) for _ in range(REPEATS + 1)][1:]
    return tuple(summary(side) for side in zip(*pairs, strict=True))
