"""What a recommendation for bags says beyond the order: which setups fit, and how far instances can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metamed.dataset import Dataset
from metamed.errors import NotApplicable
from metamed.methods import described
from metamed.records import Candidate, Setup
from metamed.trust.known import Record, known_models, record_of

FEW_FAMILIES = 3


def possible(setups: Sequence[Setup], dataset: Dataset) -> list[Setup]:
    """The setups that can learn from what the instances are: features that are there need no source, and an estimator
    needs features. Of other kinds all. Raises NotApplicable where none is left."""
    left = [s for s in setups if dataset.bags is None or _fits(s, dataset)]
    if setups and not left:
        what = "features" if len(dataset.images.shape) == 2 else "images"
        raise NotApplicable(f"{dataset.name}: no setup that somebody ran learns from bags of {what}")
    return left


def _fits(setup: Setup, dataset: Dataset) -> bool:
    if len(dataset.images.shape) == 2:
        return not setup.sources
    method = described("mil").get(setup.method)
    return bool(setup.sources) or method is None or not method.estimator


def explained(dataset: Dataset, ranking: Sequence[Candidate]) -> dict:
    """`instances`: lines on how far each ranked variant's instances can be trusted, from sets where they are known.

    Empty for other kinds. What is said is of the variants on those sets; of this dataset only `metamed trust` can say.
    """
    if dataset.bags is None or not known_models():
        return {}
    records = {c.setup.method: record_of(c.setup.method) for c in ranking}
    lines = [_encoder(dataset, ranking)]
    lines += [_told(ranks_of(ranking, method), method, record) for method, record in records.items()]
    lines.append(f"{_spread()} metamed trust says it of a run of yours, without any instance's label; metamed ask "
                 "improves it by questions to an expert")  # fmt: skip
    return {"instances": [line for line in lines if line]}


def ranks_of(ranking: Sequence[Candidate], method: str) -> str:
    return ", ".join(f"#{i}" for i, c in enumerate(ranking, start=1) if c.setup.method == method)


def _told(places: str, method: str, record: Record | None) -> str:
    if record is None:
        return f"{places}: {method}: how well it tells instances was not examined"
    few = f" on {record.families} families of sets only" if record.families < FEW_FAMILIES else ""
    told = "tells instances hardly better than chance" if record.mean < 0.6 else "tells instances"
    between = f"{record.low:.2f} to {record.high:.2f}{few}"
    return (f"{places}: {method} {told}: AUC {record.mean:.2f} on average ({between}), {record.bag_auc:.2f} for whole "
            "bags")  # fmt: skip


def _encoder(dataset: Dataset, ranking: Sequence[Candidate]) -> str:
    """What the instances are seen through."""
    if len(dataset.images.shape) == 2:
        return f"encoder: none is chosen, the instances are {dataset.images.shape[1]} features already"
    named = list(dict.fromkeys(" + ".join(c.setup.sources) or "learned with the bags" for c in ranking))
    return f"encoder of the instances, best first: {', '.join(named)}"


def _spread() -> str:
    """How little the AUC of bags says of instances: on the known sets, its rank correlation with the instances' AUC."""
    rows = known_models()
    gaps = [abs(float(r["bag_auc"]) - float(r["instance_auc"])) for r in rows if np.isfinite(float(r["bag_auc"]))]
    return f"Bags and instances differ in AUC by {np.mean(gaps):.2f} on average, either way."
