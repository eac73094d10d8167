"""The benchmark of predicted Dice: its errors are the exam's, references help all alike, and the page is written."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_recommend_segmentation import LARGE, SMALL, known  # noqa: F401  a store of synthetic runs

from metamed.exams import exam, prior_list
from metamed.store import Store

sys.path.append(str(Path(__file__).parents[1]))  # the benchmarks are not installed

from benchmarks import segmentation as bench  # noqa: E402


@pytest.fixture(scope="module")
def decathlon():
    return bench.published(Store.embedded(), "msd2018")


def test_errors_are_those_of_the_exam(decathlon):
    told = decathlon.items[:1]
    for shown in ((), told):
        held = bench.held_out(decathlon, bench.metamed, lambda train, shown=shown: shown)
        marks = exam(decathlon, {"metamed": bench.metamed}, shown=shown, beside={"prior_list": prior_list})
        errors = dict(zip(marks.datasets, marks.marks["metamed"]["mae"], strict=True))
        assert held.errors(decathlon) == pytest.approx([errors[d] for d in decathlon.datasets])
        assert held.asked[:, 0].any() == (not shown)


def test_bars_of_the_decathlon(decathlon):
    """G4d: 0.12 from what is said of the label, 0.09 after one run of nnU-Net on the target."""
    names = {s.id: s.method for s in Store.embedded().records("setup")}
    nnunet = next(item for item in decathlon.items if names[item] == "nnunet")
    for told, bar in (((), 0.12), ((nnunet,), 0.09)):
        held = bench.held_out(decathlon, bench.metamed, lambda train, told=told: told)
        assert round(bench.by_family(decathlon, held.errors(decathlon)).mean(), 3) <= bar


def test_a_reference_run_informs_the_baselines_too(decathlon):
    plain = bench.held_out(decathlon, prior_list)
    informed = bench.held_out(decathlon, bench.moved(prior_list), lambda train: decathlon.items[:1])
    assert informed.errors(decathlon).mean() < plain.errors(decathlon).mean()
    first = replace(decathlon, scores=decathlon.scores.copy())
    first.scores[:, 1:] += 0.1  # what the reference does not show, it cannot tell
    again = bench.held_out(first, bench.moved(prior_list), lambda train: decathlon.items[:1])
    assert again.score[:, 1:] == pytest.approx(informed.score[:, 1:] + 0.1)


def test_own_runs_are_judged_with_all_masks(known):  # noqa: F811
    table = bench.own_table(known)
    assert len(table.datasets) == 6 and set(table.items) == {SMALL.id, LARGE.id}
    measured = bench.on_metafeatures(table, known)
    assert len(measured.facts) > 10 and all(np.isfinite(c).all() for c in measured.facts.values())
    by_curve, by_nothing = bench.curve_errors(known)
    assert len(by_curve) == 6 and (by_curve < 0.01).all() and (by_nothing > by_curve).all()
    assert "6 families" in bench.curve_lines(known)[1]


def test_rows_say_who_is_better_and_by_how_much(known):  # noqa: F811
    table = bench.own_table(known)
    rows = bench.rows_of(table, bench.rankers_of(table, bench.on_metafeatures(table, known)))
    assert rows[0].name == bench.MEAN and (rows[0].errors == rows[0].against).all()
    assert [r.name for r in rows][-1] == "metamed" and len(rows) == 8
    assert rows[0].cells().count("|") == bench.HEAD.split("\n")[0].count("|")
