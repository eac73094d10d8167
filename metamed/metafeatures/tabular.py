"""Sixteen `statistical` meta-features of a wide table, by pymfe's names and definitions, in time that grows with it.

A decision: generic meta-features of tables come from pymfe (`extractor.extract_tabular`, on a few principal components,
where its speed does not matter), and are not part of a dataset's vector. On raw pixels or embeddings, thousands of
columns, pymfe works column by column; these sixteen are cheap there because one sort and one product serve them all.
"""

from __future__ import annotations

import numpy as np

from metamed.errors import MetamedError

_MANY = 500  # columns from which on products are in single precision: errors of 1e-7 average out over 100,000 pairs


def statistical(table: np.ndarray) -> dict[str, float]:
    """Mean and standard deviation (n - 1) over columns, or over pairs of them, of a table (rows, columns), both >= 2.

    cor, cov: without sign. iq_range, kurtosis, mad (times 1.4826), max, mean, median, min, range, sd, skewness, t_mean
    (a fifth cut off at each end), var. nr_outliers: columns with a value beyond 1.5 interquartile ranges. sparsity:
    (rows over distinct values - 1) / (rows - 1). Source: pymfe (Alcobaca et al. 2020), Michie et al. 1994, Castiello
    et al. 2005. Undefined for constant columns are cor, skewness, kurtosis: NaN. Raises MetamedError for other tables.
    """
    table = np.asarray(table, np.float64)
    if table.ndim != 2 or min(table.shape) < 2 or not np.isfinite(table).all():
        raise MetamedError(f"a table of shape {table.shape}: expected at least 2 rows and columns, all values finite")
    columns = np.ascontiguousarray(table.T)
    orders, moments = _orders(columns), _moments(columns)
    found = {name: summary for name, values in (orders | moments).items()
             for name, summary in ((f"{name}.mean", values.mean()), (f"{name}.sd", values.std(ddof=1)))}  # fmt: skip
    outliers = found.pop("nr_outliers.mean") * len(columns)
    del found["nr_outliers.sd"]
    return {name: float(value) for name, value in (found | _pairs(columns) | {"nr_outliers": outliers}).items()}


def _orders(columns: np.ndarray) -> dict[str, np.ndarray]:
    """What the sorted values of each column (d, n) tell."""
    n = columns.shape[1]
    ordered = np.sort(columns, axis=1)
    first, middle, third = (_quantile(ordered, share) for share in (0.25, 0.5, 0.75))
    reach, cut = 1.5 * (third - first), int(0.2 * n)
    low, high = ordered[:, 0], ordered[:, -1]
    return {
        "iq_range": third - first, "max": high, "min": low, "median": middle, "range": high - low,
        "mad": 1.4826 * _median_around(ordered, middle), "t_mean": ordered[:, cut : n - cut].mean(axis=1),
        "nr_outliers": (low < first - reach) | (high > third + reach),
        "sparsity": (n / (1 + (np.diff(ordered, axis=1) > 0).sum(axis=1)) - 1) / (n - 1),
    }  # fmt: skip


def _quantile(ordered: np.ndarray, share: float) -> np.ndarray:
    place = share * (ordered.shape[1] - 1)
    below, above = ordered[:, int(place)], ordered[:, min(int(place) + 1, ordered.shape[1] - 1)]
    return below + (above - below) * (place - int(place))


def _median_around(ordered: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Median of the distances from `middle`."""
    n = ordered.shape[1]
    distance = np.abs(ordered - middle[:, None])
    distance.partition([(n - 1) // 2, n // 2], axis=1)
    return (distance[:, (n - 1) // 2] + distance[:, n // 2]) / 2


def _moments(columns: np.ndarray) -> dict[str, np.ndarray]:
    n = columns.shape[1]
    mean = columns.mean(axis=1)
    z = columns - mean[:, None]
    square = z * z
    second, third, fourth = (np.einsum("dn,dn->d", a, b) / n for a, b in ((z, z), (square, z), (square, square)))
    varied = second > (np.finfo(float).eps * np.abs(mean)) ** 2  # as scipy.stats
    safe, variance = np.where(varied, second, np.nan), second * n / (n - 1)
    return {
        "mean": mean, "var": variance, "sd": np.sqrt(variance),
        "skewness": third / safe**1.5 * ((n - 1) / n) ** 1.5,
        "kurtosis": fourth / safe**2 * (1 - 1 / n) ** 2 - 3,
    }  # fmt: skip


def _pairs(columns: np.ndarray) -> dict[str, float]:
    """Absolute covariance and correlation of all pairs of columns."""
    d, n = columns.shape
    z = columns - columns.mean(axis=1, keepdims=True)
    if d > _MANY:
        z = z.astype(np.float32)
    covariance = z @ z.T
    np.abs(covariance, out=covariance)
    covariance /= n - 1
    deviation = np.sqrt(covariance.diagonal().copy())
    found = _summary("cov", covariance)
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance /= deviation[:, None]
        covariance /= deviation
    return found | _summary("cor", covariance)


def _summary(name: str, symmetric: np.ndarray) -> dict[str, float]:
    """Mean and standard deviation of what lies below the diagonal."""
    d = len(symmetric)
    pairs = d * (d - 1) / 2
    diagonal = symmetric.diagonal().astype(np.float64)
    mean = (symmetric.sum(axis=1).sum(dtype=np.float64) - diagonal.sum()) / 2 / pairs
    off = symmetric - symmetric.dtype.type(mean)
    squares = np.einsum("ij,ij->i", off, off).sum(dtype=np.float64) - ((diagonal - mean) ** 2).sum()
    variance = squares / 2 / max(pairs - 1, 1)
    return {f"{name}.mean": mean, f"{name}.sd": np.sqrt(max(variance, 0))}
