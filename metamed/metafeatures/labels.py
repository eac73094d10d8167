"""What is to be outlined, label by label: measured from the masks where there are any, else told by names or asked.

Meta-features describe the foreground as a whole; two labels of one dataset may be as unlike as a liver and its tumour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from metamed.dataset import Dataset
from metamed.label_kinds import label_kind, named_kind, settled_kind
from metamed.metafeatures.masks import mask_statistics
from metamed.metafeatures.probe import Probe

SAMPLES = 100  # images that labels are measured on


@dataclass(frozen=True)
class Label:
    """A foreground class. NaN where there are no masks.

    kind: of `label_kinds.KINDS`, "" unknown. told: how it is known, "asked" | "by name" | "by shape" | "unknown".
    fraction: share of all pixels, empty images included. presence: share of the images that hold it. components,
    compactness (1 of a disc), contrast (deviations): medians over the images that hold it.
    """

    name: str
    kind: str
    told: str
    fraction: float = np.nan
    presence: float = np.nan
    components: float = np.nan
    compactness: float = np.nan
    contrast: float = np.nan

    def __str__(self) -> str:
        known = f"{self.name or 'the label'}: {self.kind or 'of unknown kind'} ({self.told})"
        if np.isnan(self.fraction):
            return known
        many = "region" if self.components == 1 else "regions"
        return (f"{known}, {self.fraction:.1%} of the pixels, in {self.presence:.0%} of the images, "
                f"{self.components:g} {many} in each, compactness {self.compactness:.2f}")  # fmt: skip


def describe_labels(
    dataset: Dataset, asked: Mapping[str, str] | None = None, *, max_samples: int = SAMPLES, seed: int = 0
) -> tuple[Label, ...]:
    """The labels of a dataset, one for each foreground class; a single nameless one where nothing names any.

    asked: class -> kind, what a person said; it goes before everything.
    """
    asked = asked or {}
    if dataset.masks is None:
        otherwise = (dataset.name, dataset.card.organ)
        names = dataset.card.classes[1:] or ("",)
        return tuple(_told(name, asked, label_kind(name) or named_kind((), *otherwise)) for name in names)
    classes = dataset.card.classes or tuple(f"class {k}" for k in range(dataset.n_classes))
    tables = _measured(Probe(dataset, max_samples, seed), len(classes))
    return tuple(_label(name, asked, tables[k], dataset.name) for k, name in enumerate(classes[1:], 1) if k in tables)


def _told(name: str, asked: Mapping[str, str], named: str) -> Label:
    said = asked.get(name, "")
    return Label(name, said or named, "asked" if said else "by name" if named else "unknown")


def _label(name: str, asked: Mapping[str, str], table: Mapping[str, np.ndarray], dataset: str) -> Label:
    there = table["fraction"] > 0
    middle = {key: _median(table[key][there]) for key in ("components", "compactness", "contrast")}
    known = _told(name, asked, label_kind(name) or label_kind(dataset))
    kind, told = known.kind, known.told
    if told != "asked":
        kind = settled_kind(known.kind, middle["compactness"], middle["components"])
        told = "unknown" if not kind else told if kind == known.kind else "by shape"
    return Label(name, kind, told, float(table["fraction"].mean()), float(there.mean()), **middle)


def _median(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else np.nan


def _measured(probe: Probe, n_classes: int) -> dict[int, dict[str, np.ndarray]]:
    """Statistics of each foreground class alone, by class: those of `masks.mask_statistics`, one value an image."""
    blocks: dict[int, list[dict]] = {k: [] for k in range(1, n_classes)}
    for level, masks in probe.labelled_blocks():
        for k, found in blocks.items():
            found.append(mask_statistics(np.where(masks == k, masks, 0), level))
    keys = ("fraction", "components", "compactness", "contrast")
    return {k: {key: np.concatenate([b[key] for b in found]) for key in keys} for k, found in blocks.items()}
