"""What a recommendation for segmentation says beyond the ranking: the labels, and what more masks would bring."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metamed.dataset import Dataset, Kind
from metamed.ensembles import setup_ensemble, stored
from metamed.errors import NotApplicable
from metamed.exams.examples import tables_of
from metamed.exams.tables import Table
from metamed.label_kinds import ASKED, asked_kinds, common_kind
from metamed.measures import PRIMARY
from metamed.measures.masks import classes_of, scores
from metamed.metafeatures.labels import Label, describe_labels
from metamed.metalearner.levels import half_width
from metamed.recommend.reference import affordable, reference_of
from metamed.records import TEST_SHARE, Candidate, Run
from metamed.store import Store

STEPS = (20, 50, 100)  # masks that somebody might outline first
LABEL_FACTS = ("label_kind", "log_fraction")  # columns of a table that describe the label
Z90 = 1.645  # normal quantile of a 90 % interval
# Variance of Dice between images, or patients, as a share of score x (1 - score): the most of nine families of datasets
# whose masks were kept, 0.01 to 0.29.
SPREAD = 0.29
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


Ask = Callable[[Mapping, Mapping[str, float]], Candidate]  # facts, scores by setup on the target -> what is expected


def by_label(
    dataset: Dataset, labels: Sequence[Label], first: Candidate, own: Sequence[Mapping], store: Store, ask: Ask
) -> list[str]:
    """One line a label; of several each with the Dice that the first setup reached here on it alone, else that is
    expected of it from the label's own facts and from the label's Dice in other runs on these very masks."""
    if len(labels) < 2 or not math.isfinite(first.score):
        return [str(label) for label in labels]
    runs = [run for row in own if store.get((run := store.get(row["evidence"])).task).digest == dataset.digest]
    lines = []
    for k, label in enumerate(labels, start=1):
        reached = _reached(runs, f"dice.{k}")
        facts = {"label_kind": label.kind, "foreground_fraction.mean": label.fraction * len(labels)}
        if first.setup.id in reached:
            said = f"{reached[first.setup.id]:.3f} reached here"
        else:
            c = ask({n: v for n, v in facts.items() if v == v}, reached)
            said = f"{c.score:.3f} [{c.low:.3f}, {c.high:.3f}] expected"
        lines.append(f"{label}; {first.setup.method}: Dice {said}")
    return lines


def _reached(runs: Sequence[Run], measure: str) -> dict[str, float]:
    """Mean score by a measure of each setup that was run."""
    found: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        found[run.setup] += run.evaluations.get(measure, ())
    return {setup: float(np.mean(values)) for setup, values in found.items() if values}


# ---- own runs


def sampling_variance(score: float, rows: Sequence[Mapping], dataset: Dataset, store: Store) -> float:
    """Variance of the difference of a setup's Dice on two test parts: the one that it was measured on, and another.

    A Dice is a mean over images, so each part adds the variance between its images (patients, where known) over their
    number: from the masks that a run kept, else `SPREAD` of the most that numbers between 0 and 1 can vary.
    """
    for run in (store.get(row["evidence"]) for row in rows):
        if store.get(run.task).digest == dataset.digest and (kept := stored(run, store)) is not None:
            return 2 * variance_of_mean(*image_dice(dataset, kept))
    units = dataset.n_samples if dataset.groups is None else len(np.unique(dataset.groups))
    return 2 * SPREAD * score * (1 - score) / max(TEST_SHARE * units, 1)


def image_dice(dataset: Dataset, kept: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(Dice of each image of a test part, the mean over its labels, from the masks that a run kept; its patient)."""
    samples = kept["test_index"]
    truth = np.stack([np.asarray(dataset.masks[int(i)]) for i in samples])
    found = scores(truth, kept["test"], classes_of(truth), "dice")["dice"].mean(axis=1)
    return found, samples if dataset.groups is None else dataset.groups[samples]


def variance_of_mean(found: np.ndarray, patient: np.ndarray) -> float:
    """Variance of the mean of what was found on images of some patients, widened where few patients tell it."""
    apart = [float((found[patient == p] - found.mean()).sum()) for p in np.unique(patient)]
    freedom = max(len(apart) - 1, 1)
    student = (1 + (Z90**2 + 1) / (4 * freedom)) ** 2  # of the quantiles of t and of the normal distribution
    return student * float(np.square(apart).sum()) * len(apart) / freedom / len(found) ** 2


def vote(dataset: Dataset, store: Store) -> list[str]:
    """One line on what the setups that were run here reach together, by the masks that they kept."""
    if dataset.masks is None or (found := setup_ensemble(dataset, store)) is None:
        return []
    weights, joined = found
    names = [f"{store.get(id).method} {weight:.2f}" for id, weight in weights.items()]
    names = [*names[:FEWEST], f"{len(names) - FEWEST} more"] if len(names) > FEWEST else names
    verdict = f"{joined.gain:+.3f} by validation" if joined.gain > 0 else "one is enough, says validation"
    return [f"a vote of the setups that were run here ({', '.join(names)}) reaches {joined.test:.3f}, the best of them "
            f"alone {joined.single[2]:.3f}: {verdict}"]  # fmt: skip


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
        """(expected score, low, high) with `factor` times the masks that `score` was expected with, 0-1."""
        middle, low, high = (max(1 - (1 - score) * factor**-c, 0.0) for c in (self.slope, self.low, self.high))
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
    own: Sequence[Mapping], ask: Ask,
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
    return {"labels": by_label(dataset, labels, ranking[0], own, store, ask), "masks": [*lines, *vote(dataset, store)]}


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
