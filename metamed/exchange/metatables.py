"""Meta-features of a dataset as an OpenML dataset of their own, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isfinite, nan

from metamed.errors import ReadError
from metamed.exchange.tables import DATASET_TAG, HEAD, TAG, Publishable
from metamed.store.evidence import DatasetFacts
from metamed.store.limits import dataset_name


@dataclass(frozen=True, eq=False)
class MetaTable(Publishable):
    """The meta-features of a dataset as a dataset of its own: one row a meta-feature; undefined ones are missing."""

    facts: DatasetFacts
    values: Mapping[str, float]

    @property
    def name(self) -> str:
        return dataset_name(f"metafeatures.{self.facts.name}")

    @property
    def tags(self) -> list[str]:
        return [TAG, DATASET_TAG + self.facts.digest]

    @cached_property
    def arff(self) -> str:
        import arff

        rows = [[name, value if isfinite(value) else None] for name, value in sorted(self.values.items())]
        return arff.dumps({"description": f"{HEAD}digest {json.dumps(self.facts.digest)}", "relation": self.name,
                           "attributes": [("feature", "STRING"), ("value", "REAL")], "data": rows})  # fmt: skip

    ignored = ()

    @property
    def description(self) -> str:
        return f"{len(self.values)} meta-features of the images of {self.facts.name}, computed by metamed."


def read_metatable(text: str) -> dict[str, float]:
    """The meta-features of an ARFF that `MetaTable.arff` wrote. Raises ReadError where it is anything else."""
    import arff

    try:
        return {str(name): nan if value is None else float(value) for name, value in arff.loads(text)["data"]}
    except (arff.ArffException, TypeError, ValueError) as error:
        raise ReadError(f"meta-features that cannot be read ({type(error).__name__}: {error})") from None
