"""What a setup costs on a dataset: the compute of stored runs, scaled to its number of samples and pixels."""

from __future__ import annotations

import re
from collections import defaultdict
from statistics import median

from metamed.dataset import Dataset, Kind
from metamed.errors import MetamedError
from metamed.records import Run, Setup, Task

IMAGE_SIZE = 64  # what training resizes to by default (training imports torch; a test compares)
_UNITS = {"": 1.0, "s": 1 / 60, "m": 1.0, "min": 1.0, "h": 60.0, "d": 1440.0}


def parse_minutes(text: str | float) -> float:
    """Minutes meant by "30m", "2h", "90s" or a plain number of minutes. Raises MetamedError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(text).lower())
    if not match or match[2] not in _UNITS or float(match[1]) <= 0:
        raise MetamedError(f"budget '{text}': expected a time such as 30m or 2h")
    return float(match[1]) * _UNITS[match[2]]


class Costs:
    """Compute per sample and pixel of each setup, from the runs of a kind; core-seconds on a CPU, seconds on a GPU.

    Compute grows with the samples and with the pixels that the network sees, so runs on other datasets tell what to
    expect. Where there is no run on a device there is no figure for it.
    """

    def __init__(self, kind: Kind, store):
        tasks = {t.id: t for t in store.records("task") if t.kind == kind}
        setups = {s.id: s for s in store.records("setup")}
        self._known = {f.digest: f for f in store.records("dataset")}
        self._rates: dict[tuple, list[float]] = defaultdict(list)
        for (work, device, _), rates in self._by_dataset(store.runs(kind), tasks, setups).items():
            self._rates[work, device].append(rates)

    def _by_dataset(self, runs: list[Run], tasks: dict[str, Task], setups: dict[str, Setup]) -> dict[tuple, float]:
        """(work, device, dataset) -> the most that it took there: features already known cost nothing again."""
        most: dict[tuple, float] = {}
        for run in runs:
            task, setup = tasks.get(run.task), setups.get(run.setup)
            if run.error is None and run.seconds > 0 and task and setup and "device" in run.environment:
                units = self._units(setup, task)
                key = (_work(setup), run.environment["device"], task.digest)
                most[key] = max(most.get(key, 0.0), run.seconds / max(units, 1))
        return most

    def _units(self, setup: Setup, task: Task) -> float:
        of = self._known.get(task.digest)
        side = max(of.height or 1, of.width or 1) if of else 1
        n_train = len(task.folds[0].train)
        return _samples(setup, n_train, (of and of.n_samples) or n_train) * _pixels(setup, side)

    def minutes(self, setup: Setup, n_train: int, side: int, n_samples: int | None = None) -> dict[str, float]:
        """Expected minutes by device ("cpu", "cuda") for `n_train` of `n_samples` images `side` pixels long."""
        units = _samples(setup, n_train, n_samples or n_train) * _pixels(setup, side)
        devices = {device for work, device in self._rates if work == _work(setup)}
        return {d: median(self._rates[_work(setup), d]) * units / 60 for d in sorted(devices)}


def side_of(dataset: Dataset) -> int:
    """The longer side of a dataset's images in pixels; 1 for feature vectors."""
    shape = dataset.images.shape
    return max(shape[-2:]) if len(shape) >= 4 else 1


def _samples(setup: Setup, n_train: int, n_samples: int) -> int:
    """Images that decide the compute: of a probe all, for it reads the features of every one."""
    return n_samples if _is_probe(setup) else n_train


def _is_probe(setup: Setup) -> bool:
    return bool(setup.sources) and setup.recipe is None


def _pixels(setup: Setup, side: int) -> int:
    """Pixels of an image as the network sees it: nothing is enlarged for a network without a source."""
    size = setup.hyperparameters.get("image_size", IMAGE_SIZE)
    return (size if setup.sources else min(size, side)) ** 2


def _work(setup: Setup) -> tuple:
    """What decides the compute: of a probe, the features of its sources; else everything."""
    if _is_probe(setup):
        return (setup.sources, setup.hyperparameters.get("image_size"))
    return (setup.id,)
