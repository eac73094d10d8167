"""Whether people's assessments of the images are worth learning, how, and what gain to expect: from measured runs."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from metamed.assessments import gold_of_labels
from metamed.dataset import Dataset
from metamed.judged import judged
from metamed.measures import binary_auc
from metamed.methods import Believed, described
from metamed.records import TEST_SHARE, Setup

FILTERED = ", filtered"
UNNOTICED = 0.005  # a gain in AUC below this is none for all that anybody will notice


@dataclass(frozen=True)
class Gain:
    """What one way of learning assessments gained on one dataset with so many expert labels, with 90 % intervals.

    assessments: triplets or ratings. how: pre-train, auxiliary or joint, perhaps filtered. plain: AUC of labels alone.
    gain: AUC beyond it. saved: labels that labels alone would have needed more. knows: how far the answers tell the
    label without any image: share of triplets, or AUC of the best attribute.
    """

    assessments: str
    how: str
    method: str
    settings: str
    dataset: str
    family: str
    knows: float
    labels: float
    answers: float
    plain: float
    gain: float
    gain_low: float
    gain_high: float
    saved: float
    saved_low: float
    saved_high: float


def measured(without: Iterable[str] = ()) -> list[Gain]:
    """The gains that ship (`python -m benchmarks.crowd_learning_report` makes them), but those on some families."""
    text = files("metamed").joinpath("data/assessments.csv").read_text(encoding="utf-8")
    words, gone = list(Gain.__annotations__)[:6], set(without)
    rows = [{k: v if k in words else float(v) for k, v in row.items()} for row in csv.DictReader(text.splitlines())]
    return [Gain(**row) for row in rows if row["family"] not in gone]


def possible(setups: Iterable[Setup], dataset: Dataset) -> list[Setup]:
    """The setups but those that learn from assessments which the dataset does not have."""
    learns = {name for name, method in described().items() if method.assessed}
    there = {name for name in ("triplets", "ratings") if len(getattr(dataset, name) or ())}
    there |= {"any"} if there else set()
    return [s for s in setups if not learns & {s.method, s.recipe}
            or _NEEDS.get(s.method, s.hyperparameters.get("learns", "any")) in there]  # fmt: skip


_NEEDS = {"probe.attributes": "ratings", "probe.triplets": "triplets"}


def advice(dataset: Dataset, gains: Sequence[Gain]) -> list[str]:
    """Lines on the dataset's triplets and ratings beside its labels; none where it has none of both."""
    lines = []
    for name, answers in (("triplets", dataset.triplets), ("ratings", dataset.ratings)):
        if len(answers or ()) and len(dataset.labelled):
            lines += [_there(name, dataset), *_gains(name, dataset, [g for g in gains if g.assessments == name])]
    return lines


def _there(name: str, dataset: Dataset) -> str:
    """How many answers there are, and how far they tell the label here."""
    answers = dataset.triplets if name == "triplets" else dataset.ratings
    text, persist = f"{len(answers)} {name}", answers.persistent.mean()
    text += "" if persist == 1 else f", {1 - persist:.0%} of them by annotators who do not persist"
    known = knows(name, dataset)
    return text + ("" if math.isnan(known) else f"; without any image they tell the label to {known:.2f} (0.5: not)")


def knows(name: str, dataset: Dataset) -> float:
    """Share of the triplets between classes that choose the anchor's class; of ratings, the greatest AUC of an
    attribute's mean score in either direction. NaN where it cannot be said: not two classes, no such answers."""
    if dataset.multi_label or dataset.bags is not None:
        return math.nan
    if name == "triplets":
        gold = gold_of_labels(dataset.triplets, dataset.target)
        return float((gold[gold >= 0] == 1).mean()) if (gold >= 0).any() else math.nan
    told = judged(dataset, dataset.labelled, Believed("ratings"))
    target = dataset.target[told.index]
    if len(np.unique(target)) != 2:
        return math.nan
    found = [binary_auc(target[s == s] == target.max(), s[s == s]) for s in told.scores.T]
    return max((max(a, 1 - a) for a in found if math.isfinite(a)), default=math.nan)


def _gains(name: str, dataset: Dataset, gains: Sequence[Gain]) -> list[str]:
    """What was measured elsewhere, read off at this dataset's number of labels."""
    n, curves = round((1 - TEST_SHARE) * len(dataset.labelled)), _curves(gains)
    if not curves:
        return [f"whether {name} help where labels are {n} was not measured on any other dataset"]
    best = max((c for c in curves if not c[0].how.endswith(FILTERED)), key=lambda c: np.mean([g.gain for g in c]))
    gain, low, high = _at(best, n)
    nothing = gain <= 0 or high < UNNOTICED
    verdict = "use them" if low > 0 else "they are not worth learning" if nothing else "try them, but expect little"
    first = best[0]
    there = f"{first.answers:.0f} {name} that tell the label to {first.knows:.2f}; one dataset is little evidence"
    lines = [f"{verdict}: with {n} labels, {first.how} by {first.method} gained {gain:+.3f} AUC "
             f"[{low:+.3f}, {high:+.3f}] on {first.dataset} ({there})"]  # fmt: skip
    lines += _range(best) + _fewer(best, curves, n) + _filter(best, curves, n)
    if not nothing or low > 0:
        settings = "".join(f" --set {s}" for s in first.settings.split(",") if s)
        lines.append(f"to try: metamed run --method {first.method}{settings} --source imagenet.coral.mobilenet_v2")
    return lines


def _curves(gains: Sequence[Gain]) -> list[list[Gain]]:
    """The gains of each way with each number of answers on each dataset, by number of labels."""
    found = defaultdict(list)
    for g in sorted(gains, key=lambda g: g.labels):
        found[g.how, g.method, g.settings, g.dataset, g.answers].append(g)
    return list(found.values())


def _at(curve: Sequence[Gain], n: int) -> tuple[float, float, float]:
    """(gain, low, high) at `n` labels, between measured numbers on a logarithmic axis, beyond them as at the ends."""
    log = np.log([g.labels for g in curve])
    return tuple(float(np.interp(math.log(max(n, 1)), log, [getattr(g, c) for g in curve]))
                 for c in ("gain", "gain_low", "gain_high"))  # fmt: skip


def _range(curve: Sequence[Gain]) -> list[str]:
    """Where on the curve the gain is beyond doubt, and what one label is worth there."""
    sure = [g for g in curve if g.gain_low > 0]
    if not sure:
        return [f"with no number of labels from {curve[0].labels:.0f} to {curve[-1].labels:.0f} was it beyond doubt"]
    worth = [g for g in sure if g.saved_low > 0]
    lines = [f"the gain was beyond doubt with {', '.join(f'{g.labels:.0f}' for g in sure)} labels, of those measured"]
    return lines + [f"beside {g.labels:.0f} labels {g.answers:.0f} answers stood for {g.saved:.0f} more "
                    f"[{g.saved_low:.0f}, {g.saved_high:.0f}]: {g.answers / g.saved:.0f} answers a label"
                    for g in worth[-1:]]  # fmt: skip


def _fewer(best: Sequence[Gain], curves: Sequence[Sequence[Gain]], n: int) -> list[str]:
    """What the same way gained with a part of the answers."""
    same = [c for c in curves if _way(c[0]) == _way(best[0]) and c[0].answers < best[0].answers]
    found = [f"{c[0].answers:.0f} of them {_at(c, n)[0]:+.3f}" for c in sorted(same, key=lambda c: -c[0].answers)]
    return ["with fewer answers there: " + ", ".join(found)] if found else []


def _way(g: Gain) -> tuple[str, ...]:
    return g.how, g.method, g.settings, g.dataset


def _filter(best: Sequence[Gain], curves: Sequence[Sequence[Gain]], n: int) -> list[str]:
    """What leaving out answers did to the same way."""
    same = [c for c in curves if c[0].how == best[0].how + FILTERED and c[0].dataset == best[0].dataset]
    return [f"filtering them ({c[0].settings}) changed that by {_at(c, n)[0] - _at(best, n)[0]:+.3f}" for c in same]
