"""Meta-features: numbers that describe a dataset, or a pair of a source and a target dataset.

Only numpy is imported on this path: `metamed recommend` has to start in a fraction of a second, and importing
scikit-learn, scipy or scikit-image would cost more than all features together. The tests compare with them instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules

import numpy as np

from metamed.dataset import KINDS, Dataset, Kind
from metamed.errors import NotApplicable, UnknownName
from metamed.metafeatures import streaming
from metamed.metafeatures.probe import Embed, Probe

Value = float | str | None
UNREGISTERED = {"distances", "transferability", "extractor", "sampling", "fingerprint", "tabular", "labels"}
FACTS = ("unit", "range", "cost", "needs", "source")


@dataclass(frozen=True)
class MetaFeature:
    """A registered meta-feature: `function(probe)` gives one number, or one per image (or fold) where `per_image`."""

    name: str
    group: str
    kinds: tuple[Kind, ...]
    deep: bool
    per_image: bool
    function: Callable[[Probe], float | np.ndarray]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names in the vector of `extract`: `name`, or `name.mean` and `name.sd` over images (or folds)."""
        return (f"{self.name}.mean", f"{self.name}.sd") if self.per_image else (self.name,)

    @property
    def facts(self) -> dict[str, str]:
        """The docstring as data: definition, unit, range, cost, needs, source."""
        return facts_of(self.function)

    def values(self, probe: Probe) -> tuple[float, ...]:
        """One value per column; NaN where the feature does not apply to the dataset."""
        if probe.dataset.kind not in self.kinds:
            return (np.nan,) * len(self.columns)
        try:
            value = self.function(probe)
        except NotApplicable:
            return (np.nan,) * len(self.columns)
        except Exception as error:
            error.add_note(f"in meta-feature '{self.name}' of dataset '{probe.dataset.name}'")
            raise
        if not self.per_image:
            return (float(value),)
        value = np.asarray(value, np.float64)
        return float(value.mean()), float(value.std())


@dataclass(frozen=True)
class PairMetaFeature:
    """A registered pair meta-feature: `function(pair)` gives one number from two stored vectors."""

    name: str
    group: str
    function: Callable[[Pair], float]

    @property
    def facts(self) -> dict[str, str]:
        """The docstring as data: definition, unit, range, cost, needs, source."""
        return facts_of(self.function)


METAFEATURES: dict[str, MetaFeature] = {}
PAIR_METAFEATURES: dict[str, PairMetaFeature] = {}


@dataclass(frozen=True)
class Pair:
    """Two stored vectors (names of `extract`, and card facts as words) and the scale of each column."""

    source: Mapping[str, Value]
    target: Mapping[str, Value]
    scale: Mapping[str, float]

    def numbers(self, name: str) -> tuple[float, float]:
        """(source, target) value of a column, NaN where missing."""
        return _number(self.source.get(name)), _number(self.target.get(name))

    def words(self, name: str) -> tuple[str, str]:
        """(source, target) word of a card fact; raises NotApplicable where one is unknown."""
        words = self.source.get(name), self.target.get(name)
        if not all(isinstance(word, str) and word for word in words):
            raise NotApplicable(f"{name} is unknown")
        return words


def _number(value: Value) -> float:
    return np.nan if value is None or isinstance(value, str) else float(value)


def metafeature(group: str, kinds: Iterable[Kind] = KINDS, deep: bool = False):
    """Register a function of a `Probe`. Its return annotation, float or np.ndarray, says which columns it makes.

    deep: needs a network; computed only where its group is asked for by name.
    """

    def register(function):
        annotation = function.__annotations__["return"]
        per_image = {"float": False, float: False, "np.ndarray": True, np.ndarray: True}[annotation]
        feature = MetaFeature(function.__name__, group, tuple(kinds), deep, per_image, function)
        if METAFEATURES.setdefault(feature.name, feature) is not feature:
            raise ValueError(f"meta-feature '{feature.name}' is registered twice; rename one")
        return function

    return register


def pair_metafeature(group: str):
    """Register a function of a `Pair`."""

    def register(function):
        feature = PairMetaFeature(function.__name__, group, function)
        if PAIR_METAFEATURES.setdefault(feature.name, feature) is not feature:
            raise ValueError(f"pair meta-feature '{feature.name}' is registered twice; rename one")
        return function

    return register


def extract(
    dataset: Dataset, groups: Iterable[str] | str | None = None, *, max_samples: int | None = 5000, seed: int = 0,
    deep: bool = False, embed: Embed | np.ndarray | None = None,
) -> dict[str, float]:  # fmt: skip
    """The meta-features of a dataset: every column of `groups` (None: all but the deep ones), NaN where not applicable.

    The names are the same for every dataset. At most `max_samples` samples are looked at, drawn with `seed`; up to
    that many, the values do not depend on the order of the images. None looks at every one, but for distances and
    landmarkers, whose cost grows with the square: they keep to at most 2000 (docs/meta-features.md says what a
    sample costs in exactness). The groups intensity and texture alone need no more memory for more images. deep: the
    deep ones too. embed: what those are computed from, a function of `Images` or an array, one embedding an image
    (n, d). Raises UnknownName for a group that does not exist, MetamedError for deep features without `embed`.
    """
    probe = Probe(dataset, max_samples, seed, embed)
    chosen = _chosen(groups, deep)
    if streaming.streams(probe, chosen):
        return streaming.streamed(probe, chosen)
    return {name: value for f in chosen for name, value in zip(f.columns, f.values(probe), strict=True)}


def _chosen(groups: Iterable[str] | str | None, deep: bool) -> list[MetaFeature]:
    known = {feature.group for feature in METAFEATURES.values()}
    groups = [groups] if isinstance(groups, str) else groups if groups is None else list(groups)
    for group in groups or ():
        if group not in known:
            raise UnknownName("meta-feature group", group, known)
    return [f for f in METAFEATURES.values()
            if (f.deep and deep) or (not f.deep if groups is None else f.group in groups)]  # fmt: skip


def feature_names(
    groups: Iterable[str] | str | None = None, *, kind: Kind | None = None, deep: bool = False
) -> tuple[str, ...]:
    """The columns that `extract` gives for these groups, in its order; only those of one kind of dataset, if named."""
    return tuple(name for f in _chosen(groups, deep) if kind is None or kind in f.kinds for name in f.columns)


def extract_pair(
    source: Mapping[str, Value], target: Mapping[str, Value], *, scale: Mapping[str, float] | None = None
) -> dict[str, float]:
    """The pair meta-features of a source and a target dataset, from their stored vectors alone; NaN where unknown.

    A vector is what `extract` gives, or the few facts known of a published dataset; `modality` and `organ` are words.
    scale: spread of each column over many datasets, to standardise the distances; without it, differences are relative.
    """
    pair = Pair(source, target, scale or {})
    return {name: _pair_value(feature, pair) for name, feature in PAIR_METAFEATURES.items()}


def _pair_value(feature: PairMetaFeature, pair: Pair) -> float:
    try:
        return float(feature.function(pair))
    except NotApplicable:
        return np.nan
    except Exception as error:
        error.add_note(f"in pair meta-feature '{feature.name}'")
        raise


def facts_of(function: Callable) -> dict[str, str]:
    """A docstring as data: definition, unit, range, cost, needs, source."""
    definition, _, rest = (function.__doc__ or "").partition("\n\n")
    text = " ".join(rest.split()).rstrip(".")
    found = dict(re.findall(r"(\w+): ([^;]+)(?:; |$)", text))
    return {"definition": " ".join(definition.split()), **{fact: found.get(fact, "") for fact in FACTS}}


for _module in iter_modules(__path__):  # every file of this folder registers what it defines: adding one is enough
    if _module.name not in UNREGISTERED:
        import_module(f"{__name__}.{_module.name}")
