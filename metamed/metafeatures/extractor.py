"""Meta-features for other people's meta-learning: a scikit-learn transformer of datasets, and pymfe's own features."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np

from metamed.dataset import Dataset
from metamed.errors import MetamedError, MissingExtra, NotApplicable
from metamed.metafeatures import extract, feature_names
from metamed.metafeatures.deep import embedded
from metamed.metafeatures.probe import ROWS, Embed, Probe

TABULAR_GROUPS = ("general", "statistical", "info-theory", "complexity")


class MetaFeatureExtractor:
    """A list of `Dataset`s becomes a DataFrame: a row a dataset, by its name; a column a meta-feature.

    A transformer as scikit-learn's are (`get_params`, `clone`, pipelines, `get_feature_names_out`), and learns nothing:
    `fit` only fixes the columns. Parameters are those of `extract`. Missing values stay NaN: impute them next.
    """

    def __init__(
        self, groups: Sequence[str] | str | None = None, *, max_samples: int | None = 5000, seed: int = 0,
        deep: bool = False, embed: Embed | None = None,
    ):  # fmt: skip
        self.groups, self.max_samples, self.seed, self.deep, self.embed = groups, max_samples, seed, deep, embed

    def fit(self, datasets: Iterable[Dataset], y=None) -> MetaFeatureExtractor:
        """Fix the columns. Raises UnknownName for a group that does not exist."""
        self.feature_names_out_ = feature_names(self.groups, deep=self.deep)
        return self

    def transform(self, datasets: Iterable[Dataset]):
        """The DataFrame (datasets, columns), float."""
        import pandas as pd

        datasets = [datasets] if isinstance(datasets, Dataset) else list(datasets)
        if wrong := [type(d).__name__ for d in datasets if not isinstance(d, Dataset)]:
            raise MetamedError(f"MetaFeatureExtractor takes Datasets, not {wrong[0]}. Read them with metamed.read")
        rows = [extract(d, self.groups, max_samples=self.max_samples, seed=self.seed, deep=self.deep, embed=self.embed)
                for d in datasets]  # fmt: skip
        names = [dataset.name for dataset in datasets]
        return pd.DataFrame(rows, index=names, columns=list(self.get_feature_names_out()), dtype=float)

    def fit_transform(self, datasets: Iterable[Dataset], y=None):
        """`fit` and `transform` in one."""
        datasets = [datasets] if isinstance(datasets, Dataset) else list(datasets)
        return self.fit(datasets).transform(datasets)

    def get_feature_names_out(self, input_features=None) -> np.ndarray:
        """The columns, as an array of words."""
        return np.array(feature_names(self.groups, deep=self.deep), dtype=object)

    def get_params(self, deep: bool = True) -> dict:
        """The parameters by name; none of them has parameters of its own."""
        return {name: getattr(self, name) for name in ("groups", "max_samples", "seed", "deep", "embed")}

    def set_params(self, **parameters) -> MetaFeatureExtractor:
        """Change parameters by name; raises MetamedError for one that does not exist."""
        if unknown := sorted(set(parameters) - set(self.get_params())):
            raise MetamedError(f"no parameter '{unknown[0]}'. Known: {', '.join(self.get_params())}")
        for name, value in parameters.items():
            setattr(self, name, value)
        return self

    def set_output(self, *, transform: str | None = None) -> MetaFeatureExtractor:
        """As scikit-learn asks of every step of a pipeline; this one gives a DataFrame, MetamedError for another."""
        if transform not in (None, "default", "pandas"):
            raise MetamedError(f"MetaFeatureExtractor gives pandas DataFrames, not '{transform}'. Convert them after")
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self):
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        inputs = InputTags(one_d_array=True, two_d_array=False, allow_nan=True)
        return Tags(estimator_type=None, target_tags=TargetTags(required=False), transformer_tags=TransformerTags(),
                    requires_fit=False, input_tags=inputs)  # fmt: skip

    def __repr__(self) -> str:
        return f"MetaFeatureExtractor({', '.join(f'{k}={v!r}' for k, v in self.get_params().items())})"


def extract_tabular(
    dataset: Dataset, groups: Sequence[str] = TABULAR_GROUPS, *, components: int = 16, max_samples: int = ROWS,
    seed: int = 0, embed: Embed | np.ndarray | None = None,
) -> dict[str, float]:  # fmt: skip
    """pymfe's meta-features of the dataset as a table: its first principal components with the class of each sample.

    The table holds thumbnails, feature vectors or means of bags, or embeddings where `embed` is given, of at most 2000
    labelled samples. Names are pymfe's, as `pymfe.<name>`; NaN where pymfe gives none. Raises MissingExtra without
    pymfe, NotApplicable without two classes.
    """
    try:
        from pymfe.mfe import MFE
    except ImportError:
        raise MissingExtra("extract_tabular", "pymfe", "pymfe") from None
    table, labels = table_of(dataset, components, max_samples, seed, embed)
    mfe = MFE(groups=list(groups), random_state=seed, suppress_warnings=True)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # one for each feature that a table does not have
        mfe.fit(table, labels, transform_cat=None)
        names, values = mfe.extract(suppress_warnings=True)
    return {f"pymfe.{name}": float(value) for name, value in zip(names, values, strict=True)}


def table_of(dataset: Dataset, components: int, max_samples: int, seed: int, embed) -> tuple[np.ndarray, np.ndarray]:
    """(principal components of the labelled rows, (n, at most `components`); their classes)."""
    probe = Probe(dataset, max_samples, seed, embed)
    probe = probe if embed is None else probe.once(embedded)
    if probe.one_hot.shape[1] < 2:
        raise NotApplicable(f"{dataset.name} has fewer than two labelled classes")
    known = probe.labels >= 0
    rows = probe.rows[known].astype(np.float64)
    left, singular, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    kept = min(components, int((singular > 1e-9 * singular[0]).sum())) or 1
    return left[:, :kept] * singular[:kept], probe.labels[known]
