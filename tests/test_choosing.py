"""The comparisons behind docs/choosing-a-source.md: paired, by family, and words that follow the interval."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.choosing.questions import ALL, CHANGED, association, foresight, probes, robustness, shortcuts
from benchmarks.choosing.results import ELSEWHERE, Effect, contrast, frame, per_family
from benchmarks.choosing.summary import said
from metamed.store import Store


def runs(rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["family", "target", "task", "source", "score"])


def test_a_contrast_is_paired_within_tasks_and_averaged_within_families():
    found = runs(
        [(f, f, f"{f}{split}", source, base + (0.1 if source == "a" else 0.0) * (2 if f == "x" else 1))
         for f, base in (("x", 0.5), ("y", 0.7), ("z", 0.9))
         for split in range(4 if f == "y" else 1) for source in ("a", "b")]
        + [("w", "w", "w0", "a", 0.99)]
    )  # fmt: skip
    effect = contrast(found, found["source"] == "a", found["source"] == "b")
    assert effect.mean == pytest.approx(0.4 / 3) and effect.families == 3 and effect.runs == 12
    assert effect.ends[0] == pytest.approx(0.1) and effect.ends[1] == pytest.approx(0.2) and effect.verdict == "more"


def test_without_a_common_task_nothing_is_said():
    found = runs([("x", "x", "x0", "a", 0.5), ("y", "y", "y0", "b", 0.6)])
    effect = contrast(found, found["source"] == "a", found["source"] == "b")
    assert effect.families == 0 and effect.text() == "–" and effect.verdict == "no difference shown"


def test_the_best_source_is_known_from_other_splits_only():
    rows = []
    for family in "xyz":
        for split in range(3):
            for k in range(10):  # k = 1 is always good by 0.1; every split has another lucky one
                lucky = 0.5 if k == 3 + split else 0.0
                source = "imagenet.net" if k == 0 else f"s{k}"
                rows.append((family, family, f"{family}{split}", source, 0.3 + 0.1 * (k == 1) + 0.1 * lucky))
    effect = foresight(runs(rows), best=True)
    assert effect.mean == pytest.approx(0.1) and effect.verdict == "more"


def test_associations_are_rank_correlations_within_tasks():
    rng = np.random.default_rng(0)
    rows = [(f, f, f, f"s{k}", k / 10) for f in "xyz" for k in range(8)]
    found = runs(rows).assign(order=[k**3 for _ in "xyz" for k in range(8)], noise=rng.random(24))
    known = dict(association(found, ["order", "noise"]))
    assert known["order"][0].mean == pytest.approx(1.0)
    assert abs(known["noise"][0].mean) < 0.9
    assert per_family(found, lambda part: part["score"].max()).mean == pytest.approx(0.7)


def _judged(start: str, method: str, recipe: str, settings: str, reversed_: float) -> pd.DataFrame:
    """Runs of one kind on three families, at 50 images and all; AUC 0.8 as they are, 0.9 where the mark helps."""
    found = runs([(f, f, f"{f}{size}", start, 0.8) for f in "xyz" for size in ("50", "all")])
    changed = dict.fromkeys(CHANGED, 0.7) | {"reversed": reversed_, "confounded": 0.9}
    return found.assign(size=["50", "all"] * 3, start=start, method=method, recipe=recipe, settings=settings, **changed)


def test_shortcuts_are_falls_against_a_probe_of_imagenet_on_the_same_task():
    mobile = "mobilenet", "finetune", "[('learning_rate', 0.003)]"
    found = pd.concat([_judged("ImageNet", "probe.linear", "", ALL, 0.6), _judged("ImageNet", *mobile, 0.2),
                       _judged("random", "probe.linear", "", ALL, np.nan)], ignore_index=True)  # fmt: skip
    rows = dict(robustness(found))
    assert list(rows) == ["probe of ImageNet, n = 50", "fine-tuned from ImageNet, n = 50",
                          "probe of ImageNet, all images", "fine-tuned from ImageNet, all images"]  # fmt: skip
    assert [e.mean for e in rows["fine-tuned from ImageNet, n = 50"]] == pytest.approx([-0.1] * 4 + [-0.6])
    falls = dict(shortcuts(found))
    assert list(falls) == ["fine-tuned from ImageNet, n = 50", "fine-tuned from ImageNet, all images"]
    assert falls["fine-tuned from ImageNet, n = 50"][0].mean == pytest.approx(0.4)
    assert robustness(found.assign(reversed=np.nan)) == shortcuts(found.assign(reversed=np.nan)) == []


def test_words_follow_the_interval():
    words = "better", "worse", "cannot say"
    assert said(Effect(0.1, (0.05, 0.2), 9), *words).startswith("better (+0.100")
    assert said(Effect(-0.1, (-0.2, -0.05), 9), *words).startswith("worse")
    assert said(Effect(0.1, (-0.1, 0.2), 9), *words).startswith("cannot say")


def test_the_shipped_evidence_makes_a_frame():
    found = frame(Store.embedded())
    assert len(found) > 400 and found["target"].nunique() >= 15 and found["score"].between(0, 1).all()
    assert {"ImageNet", "birds", "insects", "nothing"} <= set(found["start"])
    assert not found.loc[found["source"] == "", "start"].ne("nothing").any()
    assert set(probes(found, "ImageNet")["method"]) <= {"probe.linear"}
    assert set(ELSEWHERE) <= set(found)
