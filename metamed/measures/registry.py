"""What a measure is, and all that there are by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from metamed.dataset import Kind


@dataclass(frozen=True)
class Measure:
    """A registered measure. higher: is more better? openml: its name on OpenML servers, None if they have none."""

    name: str
    kinds: tuple[Kind, ...]
    higher: bool
    openml: str | None
    function: Callable[[np.ndarray, np.ndarray], float]

    def __call__(self, truth: np.ndarray, prediction: np.ndarray) -> float:
        return float(self.function(np.asarray(truth), np.asarray(prediction)))

    def spaced(self, spacing: Sequence[float]) -> Measure:
        """The same measure of masks whose pixels lie so many millimetres apart; any other measure as it is."""
        if "segmentation" not in self.kinds:
            return self
        return replace(self, function=partial(self.function, spacing=spacing))


MEASURES: dict[str, Measure] = {}


def measure(*kinds: Kind, higher: bool = True, openml: str | None = None):
    """Register a function of truth and prediction: classes, int (n,) or 0/1 (n, K), and probabilities (n, K); of
    segmentations label images, int (n, H, W), both, and the spacing of their pixels."""

    def register(function):
        MEASURES[function.__name__] = Measure(function.__name__, kinds, higher, openml, function)
        return function

    return register
