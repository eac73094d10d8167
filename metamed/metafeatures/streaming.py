"""Meta-features of pixels over any number of images: a block at a time, in memory that does not grow with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metamed.dataset import Dataset, spread
from metamed.errors import NotApplicable
from metamed.metafeatures.probe import Probe

GROUPS = ("intensity", "texture")  # groups whose features look at one image at a time
TOGETHER = ("histogram_spread",)  # but for these, which compare every image with all
KEPT = 5000  # images whose histograms are kept for that


def streams(probe: Probe, features: Sequence) -> bool:
    """Whether `streamed` may stand for the features' own values: nothing is asked that needs more than one image."""
    return probe.has_images and all(f.group in GROUPS for f in features)


@dataclass
class _Block:
    """Some images, as these features see a Probe."""

    dataset: Dataset
    statistics: dict[str, np.ndarray]

    @property
    def histograms(self) -> np.ndarray:
        return self.statistics["histogram"]


def streamed(probe: Probe, features: Sequence) -> dict[str, float]:
    """Every column of these features, mean and standard deviation over all images, in one pass (Chan et al. 1979).

    Features of TOGETHER are of all images up to KEPT, evenly spaced ones beyond.
    """
    single = [f for f in features if f.name not in TOGETHER]
    n, mean, square = 0, 0.0, 0.0
    kept = spread(len(probe.indices), KEPT)
    histograms = np.empty((len(kept), 256), np.float32)
    for statistics in probe.measured_blocks():
        values = _values(single, _Block(probe.dataset, statistics))
        more = values.shape[1]
        off = values.mean(axis=1) - mean
        mean = mean + off * more / (n + more)
        square = square + ((values - values.mean(axis=1)[:, None]) ** 2).sum(axis=1) + off**2 * n * more / (n + more)
        here = slice(*np.searchsorted(kept, [n, n + more]))
        histograms[here] = statistics["histogram"][kept[here] - n]
        n += more
    table = {f.name: (m, np.sqrt(s / n)) for f, m, s in zip(single, mean, square, strict=True)}
    for f in features:
        if f.name in TOGETHER:
            values = f.function(_Block(probe.dataset, {"histogram": histograms}))
            table[f.name] = values.mean(), values.std()
    return {column: float(v) for f in features for column, v in zip(f.columns, table[f.name], strict=True)}


def _values(features: Sequence, block: _Block) -> np.ndarray:
    """Value of each feature for each image of the block, (features, images); NaN where it does not apply."""
    n = len(block.histograms)
    out = np.full((len(features), n), np.nan)
    for row, feature in zip(out, features, strict=True):
        try:
            row[:] = feature.function(block)
        except NotApplicable:
            continue
    return out
