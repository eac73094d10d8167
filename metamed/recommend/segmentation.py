"""What a recommendation for segmentation says beyond the ranking: the labels, and what more masks would bring."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metamed.dataset import Dataset, Kind
from metamed.errors import NotApplicable
from metamed.exams.examples import tables_of
from metamed.exams.tables import Table
from metamed.label_kinds import ASKED, asked_kinds, common_kind
from metamed.measures import PRIMARY
from metamed.metafeatures.labels import Label, describe_labels
from metamed.metalearner.levels import half_width
from metamed.recommend.reference import affordable, reference_of
from metamed.records import TEST_SHARE, Candidate
from metamed.store import Store

STEPS = (20, 50, 100)  # masks that somebody might outline first
LABEL_FACTS = ("label_kind", "log_fraction")  # columns of a table that describe the label
LEAST_ERROR, FEWEST = 0.01, 3  # below it a curve has ended; families of datasets that a curve is fitted on


# ---- the labels


def labels_of(
    dataset: Dataset, kind: Kind, asked: Iterable[str] = (), *, seed: int = 0
) -> tuple[tuple[Label, ...], dict[str, float | str]]:
    """(the labels to be outlined, what they add to the dataset's facts); nothing for other kinds.

    asked: kinds that a person told, as `label_kinds.asked_kinds` takes them.
    """
    if kind != "segmentation":
        if asked := list(asked):
            raise NotApplicable(f"{dataset.name}: label kinds ({asked[0]}) are of segmentations, and this is {kind}")
        return (), {}
    classes = dataset.card.classes
    labels = describe_labels(dataset, asked_kinds(asked, classes), seed=seed)
    facts: dict[str, float | str] = {"label_kind": common_kind(label.kind for label in labels)}
    if dataset.masks is None and len(classes) > 1:
        facts["n_classes"] = float(len(classes))
    return labels, facts


def warnings_of(dataset: Dataset, labels: Sequence[Label]) -> list[str]:
    """What is not known of the labels, and what would tell it."""
    found = []
    if labels and dataset.masks is None:
        found.append("no masks: scores are those expected if every image were outlined")
    if unknown := [label.name for label in labels if not label.kind]:
        names = ", ".join(filter(None, unknown)) or "what is to be outlined"
        found.append(f"the kind of label decides how hard a segmentation is, and that of {names} is unknown: say it "
                     f"with --label-kind ({' | '.join(ASKED)})")  # fmt: skip
    return found


# ---- more masks


@dataclass(frozen=True)
class Curve:
    """How the error 1 - Dice falls with the masks n: as n to the power of -c, c being that of other datasets.

    Power laws describe learning curves over decades of n (Hestness et al. 2017, arXiv 1712.00409); where the curve has
    flattened already they promise too much, so c is that between the two largest sizes of each dataset. slope, low,
    high: mean over families of datasets, and where nine families of ten lie.
    """

    slope: float
    low: float
    high: float
    families: int

    @classmethod
    def of(cls, rows: Sequence[Mapping], samples: Mapping[str, float], method: str = "") -> Curve | None:
        """From own runs with several sizes; None below three families. samples: images of each dataset, by digest.

        method: the one that the curve is to be of; a threshold gains nothing from what a network learns much from.
        """
        rows = [row for row in rows if row["method"] == method] if method else rows
        slopes = np.array(list(curve_slopes(steps_of(rows, samples)).values()))
        if len(slopes) < FEWEST:
            return None
        return cls(float(slopes.mean()), *map(float, np.quantile(slopes, (0.05, 0.95))), len(slopes))

    def at(self, score: float, factor: float) -> tuple[float, float, float]:
        """(expected score, low, high) with `factor` times the masks that `score` was expected with."""
        middle, low, high = (1 - (1 - score) * factor**-c for c in (self.slope, self.low, self.high))
        return middle, min(low, high), max(low, high)


def steps_of(rows: Sequence[Mapping], samples: Mapping[str, float]) -> list[tuple[str, float, float, float]]:
    """(family, score with fewer samples, score with the most, how many times as many) of each dataset and setup.

    Own runs alone, the two largest numbers of samples of those that were run with several.
    """
    scores: dict[tuple, dict[float, list]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        n = masks_of(row, samples)
        if row["study"] == "metamed" and math.isfinite(n):
            scores[row["family"], row["dataset"], row["setup"]][n].append(row["score"])
    found = []
    for (family, *_), by_size in scores.items():
        if len(by_size) > 1:
            few, many = sorted(by_size)[-2:]
            found.append((family, float(np.mean(by_size[few])), float(np.mean(by_size[many])), many / few))
    return found


def curve_slopes(steps: Iterable[tuple[str, float, float, float]]) -> dict[str, float]:
    """Family -> mean slope c of its steps."""
    slopes: dict[str, list[float]] = defaultdict(list)
    for family, few, many, factor in steps:
        errors = [max(1 - score, LEAST_ERROR) for score in (few, many)]
        slopes[family].append(math.log(errors[0] / errors[1]) / math.log(factor))
    return {family: float(np.mean(found)) for family, found in slopes.items()}


def more_masks(first: Candidate | None, stands: int, usable: int, curve: Curve | None, outlined: bool) -> list[str]:
    """One line for each number of masks that might be had: what the first setup is expected to reach with them.

    stands: masks to learn from that the candidate's score stands for. usable: those that are there beside a test part,
    or would be if every image were outlined.
    """
    if first is None or not math.isfinite(first.score):
        return []
    if curve is None:
        return [f"{first.setup.method} was not run with fewer and with more masks on three families of datasets: what "
                "more masks would bring cannot be said"]  # fmt: skip
    wanted = {usable: " (all that are here)", 2 * usable: "", 4 * usable: ""} if outlined else (
        dict.fromkeys((k for k in STEPS if k < usable), "") | {usable: " (if every image were outlined)"})  # fmt: skip
    lines = [f"{k} masks to learn from{words}: {first.setup.method} {middle:.3f} [{low:.3f}, {high:.3f}]"
             for k, words in wanted.items() for middle, low, high in [curve.at(first.score, k / stands)]]  # fmt: skip
    return [*lines, f"as its error falls with the masks in {curve.families} families of datasets; the brackets are "
            "about the masks alone, not about how hard the target is"]  # fmt: skip


def masks_meant(rows: Sequence[Mapping], samples: Mapping[str, float], usable: int) -> int:
    """Masks to learn from that expected scores stand for: as many as there are, but no more than runs usually had."""
    most: dict[str, float] = {}
    for row in rows:
        if row["study"] == "metamed" and math.isfinite(n := masks_of(row, samples)):
            most[row["dataset"]] = max(most.get(row["dataset"], 0.0), n)
    return min(usable, round(float(np.median(list(most.values()))))) if most else usable


def masks_of(row: Mapping, samples: Mapping[str, float]) -> float:
    """Masks that a run could learn from, NaN where that is unknown. samples: images of each dataset, by digest."""
    return row["size"] or (1 - TEST_SHARE) * samples.get(row["dataset"], math.nan)


def explained(
    dataset: Dataset, labels: Sequence[Label], ranking: Sequence[Candidate], store: Store, n_train: int,
    own: Sequence[Mapping] = (),
) -> dict[str, list[str]]:  # fmt: skip
    """The parts of a recommendation that are about labels and masks, as lines of text. own: runs on this dataset."""
    usable = round((1 - TEST_SHARE) * len(dataset.images))
    samples = {f.digest: f.n_samples for f in store.records("dataset") if f.n_samples}
    rows = store.example_rows("segmentation", PRIMARY["segmentation"])
    stands = masks_meant(own or rows, samples, usable)
    curve = Curve.of(rows, samples, ranking[0].setup.method)
    lines = more_masks(ranking[0], stands, usable, curve, dataset.masks is not None)
    found = affordable("segmentation", store, dataset, n_train)
    table = tables_of(store, "segmentation", PRIMARY["segmentation"])[0] if found is None else found[0]
    lines.append(value_of_masks(table, None if found is None else reference_of(*found)))
    return {"labels": [str(label) for label in labels], "masks": lines}


# ---- what is known of the target


def known_of_label(table: Table, reference: str | None = None) -> list[tuple[str, float]]:
    """(what is known of a target, half width of the 90 % interval then), from families left out of the evidence."""
    plain = table.knowing([n for n in table.facts if n not in LABEL_FACTS])
    steps = [("nothing of the label", plain, ())]
    if "label_kind" in table.facts:
        steps.append(("the kind of the label", table.knowing([n for n in table.facts if n != "log_fraction"]), ()))
    if "log_fraction" in table.facts:
        steps.append(("masks, which tell the label's share of the pixels", table, ()))
    if reference is not None:
        steps.append(("masks and one reference run", table, (reference,)))
    return [(words, half_width(known, shown)) for words, known, shown in steps]


def value_of_masks(table: Table, reference: str | None = None) -> str:
    """One line on how much narrower the intervals are where more is known."""
    parts = [f"{width:.2f} knowing {words}" for words, width in known_of_label(table, reference)]
    return "half width of the 90 % intervals: " + ", ".join(parts)
