"""The own runs of a store as a frame, a row a run, and paired comparisons of its rows with intervals over families."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from metamed.dataset import modality_group
from metamed.exams import interval
from metamed.records import Source
from metamed.robustness import SHIFTS
from metamed.store import Store

MEASURE = "auc"
SIZES = {50: "50", 100: "100", 200: "200", 400: "400", 600: "600", None: "all"}
ELSEWHERE = (*SHIFTS, "confounded", "unconfounded", "reversed")  # images that some runs were also judged on
NAMED = {"imagenet": "ImageNet", "inaturalist2017.birds": "birds", "inaturalist2017.insects": "insects"}


def frame(store: Store) -> pd.DataFrame:
    """One row a successful run of classification.

    Columns: run, task, target, family, medical, channels (of the target), size (text), method, recipe, source (its
    name, "" for none), start (what weights it starts from: see `learned`), origin (the dataset that a source made here
    learned from, with variant, e.g. "shuffled"), origin_size (images it learned from, as text), medical_origin, score
    (AUC on the test part), chosen (on the validation part), seconds; one of `ELSEWHERE` each: AUC there, NaN where
    nobody asked.
    """
    tasks, setups = ({r.id: r for r in store.records(t)} for t in ("task", "setup"))
    facts = {f.digest: f for f in store.records("dataset")}
    by_name = {f.name: f for f in facts.values()}
    known = {s.name: learned(s, store) for s in store.records("source")}
    rows = []
    for run in store.runs(kind="classification"):
        task, setup = tasks[run.task], setups[run.setup]
        if run.error or len(setup.sources) > 1 or "." in task.dataset or not np.isfinite(run.score(MEASURE)):
            continue
        source = setup.sources[0] if setup.sources else ""
        start, origin, size = known.get(source, ("nothing", "", ""))
        origin, _, variant = origin.partition(".")
        of, medical = facts[task.digest], origin in by_name and is_medical(by_name[origin].card.modality)
        rows.append({
            "run": run.id, "task": run.task, "target": task.dataset, "digest": task.digest, "family": of.family,
            "medical": is_medical(of.card.modality), "channels": of.n_channels, "size": SIZES.get(task.size, "other"),
            "setup": run.setup, "method": setup.method, "recipe": setup.recipe or "",
            "settings": str(sorted(setup.hyperparameters.items())), "source": source, "start": start, "origin": origin,
            "variant": variant, "origin_size": size, "medical_origin": medical, "score": run.score(MEASURE),
            "chosen": run.score(f"validation_{MEASURE}"), "seconds": run.seconds,
            **{how: run.score(f"{MEASURE}@{how}") for how in ELSEWHERE},
        })  # fmt: skip
    return pd.DataFrame(rows)


def is_medical(modality: str) -> bool:
    return modality_group(modality) != "natural"


def learned(source: Source, store: Store) -> tuple[str, str, str]:
    """(start, the dataset learned from last, how many of its images) of a source; the latter two of those made here.

    start: ImageNet, birds or insects (MobileNetV2 as it is published), chained (ImageNet's MobileNetV2, tuned on the
    dataset), scratch (a small network that saw nothing else), random (nothing learned).
    """
    if not source.origin.startswith("train:"):
        return NAMED.get("".join(source.corpus[:1]), "random"), "", ""
    run = store.get(source.origin.removeprefix("train:"))
    setup, task = store.get(run.setup), store.get(run.task)
    return "chained" if setup.sources else "scratch", task.dataset, "all" if task.size is None else str(task.size)


@dataclass(frozen=True)
class Effect:
    """A mean over families of targets with its 95 % bootstrap interval; runs: how many it rests on."""

    mean: float
    ends: tuple[float, float] | None
    families: int
    runs: int = 0

    @classmethod
    def of(cls, values: pd.Series, runs: int = 0) -> Effect:
        """values: one figure a family."""
        values = values.dropna().to_numpy()
        if len(values) == 0:
            return cls(float("nan"), None, 0, 0)
        return cls(float(values.mean()), interval(values), len(values), runs)

    @property
    def verdict(self) -> str:
        """more, less, or none that these families can show."""
        if self.ends is None or self.ends[0] <= 0 <= self.ends[1]:
            return "no difference shown"
        return "more" if self.mean > 0 else "less"

    def text(self, digits: int = 3) -> str:
        if self.ends is None:
            return "–" if np.isnan(self.mean) else f"{self.mean:+.{digits}f} ({self.families} families)"
        return f"{self.mean:+.{digits}f} [{self.ends[0]:+.{digits}f}, {self.ends[1]:+.{digits}f}]"


def contrast(runs: pd.DataFrame, first: Callable | pd.Series, second: Callable | pd.Series) -> Effect:
    """Score of the first kind of run minus that of the second, on the same task (same training and test images):
    means inside each task, then inside each family."""
    masks = (m(runs) if callable(m) else m for m in (first, second))
    first, second = (m.reindex(runs.index, fill_value=False) for m in masks)
    parts = [runs[m].groupby(["family", "task"])["score"].mean() for m in (first, second)]
    difference = (parts[0] - parts[1]).dropna()
    used = runs["task"].isin(difference.index.get_level_values("task")) & (first | second)
    return Effect.of(difference.groupby("family").mean(), int(used.sum()))


def contrast_of(runs: pd.DataFrame, first: str, second: str) -> Effect:
    """One column minus another of the same runs: means inside each task, then inside each family."""
    difference = (runs[first] - runs[second]).dropna()
    means = difference.groupby([runs["family"], runs["task"]]).mean()
    return Effect.of(means.groupby(level=0).mean(), len(difference))


def per_family(runs: pd.DataFrame, figure: Callable[[pd.DataFrame], float], by: str = "task") -> Effect:
    """A figure of each task's runs (NaN where it has none), averaged inside families."""
    found = {(family, task): figure(part) for (family, task), part in runs.groupby(["family", by])}
    values = pd.Series(found, dtype=float)
    return Effect.of(values.groupby(level=0).mean(), len(runs))
