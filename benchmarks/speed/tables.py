"""Statistical meta-features of a wide table against pymfe (pip install pymfe)."""

from __future__ import annotations

import numpy as np

from benchmarks.speed.images import textured
from benchmarks.speed.timing import bar, in_turn, seconds
from metamed.metafeatures.tabular import statistical

FEATURES = ["cor", "cov", "iq_range", "kurtosis", "mad", "max", "mean", "median", "min", "nr_outliers", "range", "sd",
            "skewness", "sparsity", "t_mean", "var"]  # fmt: skip


def _by_pymfe(table: np.ndarray) -> dict[str, float]:
    from pymfe.mfe import MFE

    mfe = MFE(groups=["statistical"], features=FEATURES, summary=["mean", "sd"], suppress_warnings=True)
    mfe.fit(table, np.arange(len(table)) % 2, transform_num=False, transform_cat=None, suppress_warnings=True)
    return dict(zip(*mfe.extract(suppress_warnings=True), strict=True))


@bar(faster=15)
def table_statistics() -> tuple[float, float]:
    """16 statistical meta-features of 1000 x 28 x 28 x 3 as a table of 2352 columns, equal to 1e-6, against pymfe."""
    table = textured(1000, 28).reshape(1000, -1).astype(np.float64)
    ours, peers = statistical(table), _by_pymfe(table)
    assert ours.keys() == peers.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], peers[name], rtol=1e-6, err_msg=name)
    return in_turn(lambda: seconds(lambda: statistical(table)), lambda: seconds(lambda: _by_pymfe(table)))
