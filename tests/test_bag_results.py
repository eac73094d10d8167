"""The arithmetic of docs/mil.md: ranks by family, regret, agreement with published figures, the page's parts."""

import csv
import sys
from pathlib import Path

import pytest

from metamed.records import Setup

sys.path.insert(0, str(Path(__file__).parents[1]))  # the benchmarks are not installed

from benchmarks import bags  # noqa: E402

A, B, C = Setup("attention"), Setup("single_instance"), Setup("mi_graph", {"cliques": False})
TABLE = {A: {"musk1": 0.9, "musk2": 0.8, "fox": 0.5}, B: {"musk1": 0.8, "musk2": 0.7, "fox": 0.7},
         C: {"musk1": 0.8, "musk2": 0.9, "fox": 0.6}}  # fmt: skip
SETS = ["musk1", "musk2", "fox"]


def test_sets_of_one_family_count_once():
    assert bags.ranks(TABLE, SETS) == pytest.approx({A: (1.5 + 3) / 2, B: (2.75 + 1) / 2, C: (1.75 + 2) / 2})
    assert bags.ranks(TABLE | {A: {"musk1": 1.0}}, SETS).keys() == {B, C}, "what did not run everywhere has no rank"
    four = {Setup("attention", {"width": w}): {"musk1": 1, "fox": 1} for w in (32, 64, 256)} | {A: {"musk2": 1}}
    assert bags.complete(four, SETS) == ["musk1", "fox"] and bags.complete({}, SETS) == []
    assert bags.complete(four, SETS, 2) == ["musk1", "musk2", "fox"]
    assert bags.complete(four | {B: {"musk1": 1}}, SETS, 2) == ["musk1", "fox"]


def test_regret_of_the_list_without_the_family():
    by_list, anyone, hindsight = bags.regret(TABLE, SETS)
    assert by_list == pytest.approx(((0.1 + 0.2) / 2 + 0.2) / 2)  # by Fox B is first; by Musk A
    lost = {A: (0.05 + 0.2) / 2, B: (0.15 + 0) / 2, C: (0.05 + 0.1) / 2}
    assert anyone == pytest.approx(sum(lost.values()) / 3) and hindsight == pytest.approx(min(lost.values()))


def test_agreement_within_two_spreads():
    assert bags.within([0.80, 0.82], 0.83, 0.01, 100) and not bags.within([0.80], 0.83, 0.01, 100)
    assert bags.within([0.80], 0.83, None, 100), "without a spread, the standard error of a share"


def test_literature_is_read_with_its_settings_and_protocols():
    ours = {(C, "fox", "10-fold"): [0.60, 0.62], (C, "fox", "5-fold"): [0.1], (A, "musk1", "5-fold"): [0.5]}
    found = bags.literature(bags.Runs({(Setup("miles"), "fox", "5-fold"): [0.73]}, ours))
    assert {(c.setup, c.dataset): (c.ours, c.figure, c.agrees) for c in found} == {
        (C, "fox"): ([0.60, 0.62], 0.603, True), (A, "musk1"): ([0.5], 0.892, False),
        (Setup("miles"), "fox"): ([0.73], 0.738, True),
    }  # fmt: skip
    text = bags.literature_table(found)
    assert "| mi_graph (no cliques) |" in text and "0.610 ± 0.014 / 0.603 ± 0.019" in text and "*0.500 / 0.892" in text
    assert "AUC of Chen" in text and "read in Ramsauer" in text and len(text.splitlines()) == 5
    assert bags.agreement(found).startswith("1 of the 1 figures that were found in print agree, and 1 of the 2 others")


def test_every_published_figure_says_where_it_was_read_or_that_it_was_not():
    rows = list(csv.DictReader((bags.HERE / "bag_literature.csv").open(encoding="utf-8")))
    assert len({(r["method"], r["settings"], r["dataset"], r["measure"]) for r in rows}) == len(rows)
    assert all(0 < float(r["value"]) < 1 and r["measure"] in ("accuracy", "auc") and r["paper"] for r in rows)
    page = bags.PAGE.read_text(encoding="utf-8")
    assert {r["source"].split(",")[0] for r in rows if r["source"]} == {"Waqas et al. 2024", "Ramsauer et al. 2021"}
    assert all(name in page for name in ("Waqas et al. 2024", "Ramsauer et al. 2021")) and "†" in page


def test_the_page_has_every_part_once():
    page = bags.PAGE.read_text(encoding="utf-8")
    for name in ("scores", "large", "images", "regret", "literature", "agreement"):
        assert page.count(f"<!-- bags {name} -->") == 1 and len(page.split(f"<!-- bags {name} -->")[1]) > 50
    anew = bags.filled(page, {"regret": "x | y \\1"})
    assert "<!-- bags regret -->\nx | y \\1\n<!-- end -->" in anew
    assert bags.filled(anew, {"regret": "z"}).count("z\n<!-- end -->") == 1


def test_the_table_shows_the_best_in_bold():
    lines = bags.scores_table(TABLE, SETS).splitlines()
    assert lines[0] == "| variant | musk1 | musk2 | fox | rank |" and "**0.900**" in lines[-1]
    assert bags.variant(Setup("mi_svm", {"kernel": "rbf", "c": 1.0})) == "mi_svm (rbf)"
    assert bags.variant(Setup("instance_net")) == "instance_net (max)"
