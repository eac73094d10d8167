"""What a setup costs on a dataset: the compute of stored runs, scaled to its number of samples and pixels."""

from __future__ import annotations

import re
from collections import defaultdict
from statistics import median

from metamed.dataset import Dataset, Kind
from metamed.errors import MetamedError
from metamed.records import Setup

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
        setups = {s.id: s for s in store.records("setup")}
        known = {f.digest: f for f in store.records("dataset")}
        most: dict[tuple, float] = {}  # on each dataset the most: features already known cost nothing again
        for id, digest, n_train, seconds, device in store.cost_rows(kind):
            if (setup := setups.get(id)) is not None:
                of = known.get(digest)
                side, n = (max(of.height or 1, of.width or 1), of.n_samples) if of else (1, None)
                key = (_work(setup), device, digest)
                most[key] = max(most.get(key, 0.0), seconds / max(_units(setup, n_train, side, n), 1))
        self._rates: dict[tuple, list[float]] = defaultdict(list)
        for (work, device, _), rate in most.items():
            self._rates[work, device].append(rate)

    def minutes(self, setup: Setup, n_train: int, side: int, n_samples: int | None = None) -> dict[str, float]:
        """Expected minutes by device ("cpu", "cuda") for `n_train` of `n_samples` images `side` pixels long."""
        units = _units(setup, n_train, side, n_samples)
        devices = {device for work, device in self._rates if work == _work(setup)}
        return {d: median(self._rates[_work(setup), d]) * units / 60 for d in sorted(devices)}


def side_of(dataset: Dataset) -> int:
    """The longer side of a dataset's images in pixels; 1 for feature vectors."""
    shape = dataset.images.shape
    return max(shape[-2:]) if len(shape) >= 4 else 1


def _units(setup: Setup, n_train: int, side: int, n_samples: int | None) -> float:
    """Samples times pixels that decide the compute: of a probe all samples, for it reads the features of every one."""
    return (n_samples or n_train if _is_probe(setup) else n_train) * _pixels(setup, side)


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
