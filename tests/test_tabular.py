"""Sixteen features of a table against their definitions; streams of images against tables of them."""

import numpy as np
import pytest
from test_kernels import smooth

from metamed.dataset import ArrayImages, Dataset
from metamed.errors import MetamedError
from metamed.metafeatures import METAFEATURES, extract, streaming
from metamed.metafeatures.probe import Probe
from metamed.metafeatures.tabular import statistical


def _by_definition(table: np.ndarray) -> dict[str, np.ndarray]:
    from scipy import stats

    n, below = len(table), np.tril_indices(table.shape[1], -1)
    quartiles = np.percentile(table, [25, 75], axis=0)
    return {
        "cor": np.abs(np.corrcoef(table, rowvar=False))[below], "cov": np.abs(np.cov(table, rowvar=False))[below],
        "iq_range": stats.iqr(table, axis=0), "mad": stats.median_abs_deviation(table, axis=0, scale=1 / 1.4826),
        "kurtosis": (stats.kurtosis(table, axis=0) + 3) * (1 - 1 / n) ** 2 - 3, "max": table.max(axis=0),
        "skewness": stats.skew(table, axis=0) * ((n - 1) / n) ** 1.5, "mean": table.mean(axis=0),
        "median": np.median(table, axis=0), "min": table.min(axis=0), "range": np.ptp(table, axis=0),
        "sd": table.std(axis=0, ddof=1), "var": table.var(axis=0, ddof=1), "t_mean": stats.trim_mean(table, 0.2),
        "sparsity": np.array([(n / len(np.unique(column)) - 1) / (n - 1) for column in table.T]),
        "nr_outliers": np.array(((table < quartiles[0] - 1.5 * np.ptp(quartiles, axis=0))
                                 | (table > quartiles[1] + 1.5 * np.ptp(quartiles, axis=0))).any(axis=0).sum()),
    }  # fmt: skip


@pytest.mark.parametrize("rows", [2, 7, 50, 101])
def test_statistical_features_are_their_definitions(rows):
    rng = np.random.default_rng(rows)
    table = np.column_stack([rng.normal(3, 2, (rows, 4)), rng.integers(0, 4, (rows, 2)) + np.eye(rows, 2),
                             rng.standard_t(2, rows)])  # fmt: skip
    found, expected = statistical(table), _by_definition(table)
    assert len(expected) == 16 and len(found) == 31
    for name, values in expected.items():
        if name == "nr_outliers":
            assert found[name] == values
            continue
        assert found[f"{name}.mean"] == pytest.approx(values.mean(), rel=1e-9), name
        assert found[f"{name}.sd"] == pytest.approx(values.std(ddof=1), rel=1e-7, abs=1e-12), name


def test_constant_columns_have_no_shape():
    found = statistical(np.column_stack([np.ones(9), np.arange(9.0)]))
    assert np.isnan(found["skewness.mean"]) and np.isnan(found["cor.mean"]) and found["sd.mean"] > 0


@pytest.mark.parametrize("table", [np.ones(5), np.ones((1, 5)), np.ones((5, 1)), np.full((5, 5), np.nan)])
def test_what_is_no_table_is_refused(table):
    with pytest.raises(MetamedError, match="at least 2 rows and columns"):
        statistical(table)


def test_a_stream_gives_the_values_of_a_table():
    images = np.random.default_rng(0).permutation(smooth(300, 3, 12, 15))
    data = Dataset("x", ArrayImages(images))
    found = extract(data, streaming.GROUPS)
    probe = Probe(data)
    for feature in METAFEATURES.values():
        if feature.group in streaming.GROUPS:
            expected = feature.values(probe)
            np.testing.assert_allclose([found[c] for c in feature.columns], expected, rtol=1e-6, err_msg=feature.name)


def test_what_a_stream_compares_with_all_images_is_of_some(monkeypatch):
    monkeypatch.setattr(streaming, "KEPT", 50)
    data = Dataset("x", ArrayImages(smooth(200, 1, 12, 15)))
    exact = METAFEATURES["histogram_spread"].values(Probe(data))
    assert extract(data, "intensity")["histogram_spread.mean"] == pytest.approx(exact[0], rel=0.05)


def test_colour_of_five_channels_is_missing_in_a_stream_too():
    found = extract(Dataset("x", ArrayImages(smooth(20, 5, 12, 12))), "intensity")
    assert np.isnan(found["red.mean"]) and np.isnan(found["saturation.sd"]) and found["brightness.mean"] > 0
