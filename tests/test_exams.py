"""Exams: known answers of every measure, nothing leaks, tables are read as they are meant."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metamed.errors import NotApplicable, ReadError, UnknownName
from metamed.exams import (
    Prediction,
    as_json,
    as_markdown,
    exam,
    exam_across,
    interval,
    marks_of,
    pooled,
    prior_list,
    prior_list_modality,
    regret,
    scales,
    weighted_tau,
)
from metamed.exams.reading import read_tables, select
from metamed.exams.scales import spread_ranks
from metamed.exams.tables import Table

ROW_KEYS = {
    "ranker",
    "tau",
    "nreg1",
    "regret1",
    "regret3",
    "gap_closed",
    "gap_closed_ci",
    "dtau_ci",
    "dnreg1_ci",
    "mae",
    "coverage",
}


def table(scores, families=None, **more) -> Table:
    scores = np.array(scores, dtype=float)
    n, m = scores.shape
    names = tuple(f"d{i}" for i in range(n))
    return Table("toy", "auc", names, tuple(f"i{j}" for j in range(m)), scores, tuple(families or names), **more)


def noisy(n=9, m=6, seed=0) -> Table:
    """A common order of items with noise, two facts, a hint; families of one and two datasets."""
    rng = np.random.default_rng(seed)
    scores = np.clip(0.6 + 0.03 * np.arange(m) + rng.normal(0, 0.08, (n, m)), 0, 1)
    facts = {"log_n": rng.normal(size=n), "modality": np.array(["ct", "mri", "oct"] * n, dtype=object)[:n]}
    families = [f"f{i // 2}" if i < 4 else f"f{i}" for i in range(n)]
    return table(scores, families, facts=facts, hints={"score": scores + rng.normal(0, 0.1, (n, m))})


# ---- measures


def test_a_perfect_and_a_reversed_order():
    truth = np.array([0.9, 0.5, 0.7, 0.6])
    assert weighted_tau(truth, truth) == pytest.approx(1)
    assert weighted_tau(truth, -truth) == pytest.approx(-1)
    assert [regret(truth, truth, k) for k in (1, 3)] == [0, 0]
    assert regret(truth, -truth) == pytest.approx(0.4)
    assert regret(truth, -truth, 3) == pytest.approx(0.2)
    assert weighted_tau(truth, np.zeros(4)) == 0


def test_marks_of_an_answer_by_hand():
    truth, score = np.array([0.9, 0.5, 0.7]), np.array([0.8, 0.6, 0.7])
    marks = marks_of(truth, np.array([1.0, 2.0, 3.0]), score, score - 0.05, score + 0.05)
    assert marks["regret1"] == pytest.approx(0.2) and marks["nreg1"] == pytest.approx(0.5) and marks["regret3"] == 0
    assert marks["mae"] == pytest.approx(0.2 / 3) and marks["coverage"] == pytest.approx(1 / 3)


def test_a_ranker_without_figures_has_no_error():
    marks = marks_of(np.array([0.9, 0.5]), np.array([1.0, 0.0]), None, None, None)
    assert np.isnan(marks["mae"]) and np.isnan(marks["coverage"])


def test_several_draws_are_averaged():
    truth = np.array([0.9, 0.5])
    assert marks_of(truth, np.array([[1, 0], [0, 1]]), None, None, None)["regret1"] == pytest.approx(0.2)


def test_ranks_are_spread_evenly_and_ties_share():
    ranks = spread_ranks(np.array([[3.0, 1.0, 2.0, np.nan], [1.0, 1.0, 2.0, 0.0]]))
    assert ranks[0].tolist()[:3] == [0.5, -0.5, 0.0] and np.isnan(ranks[0, 3])
    assert ranks[1] == pytest.approx([0, 0, 0.5, -0.5])


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=12))
def test_ranks_do_not_depend_on_the_scale(values):
    row = np.array([values], dtype=float)
    assert spread_ranks(row) == pytest.approx(spread_ranks(np.exp(row / 10)))
    assert spread_ranks(-row) == pytest.approx(-spread_ranks(row))


def test_bootstrap_interval_holds_the_mean_and_repeats_itself():
    values = np.random.default_rng(0).normal(1, 1, 40)
    low, high = interval(values)
    assert low < values.mean() < high and (low, high) == interval(values)
    assert interval(values[:2]) is None


# ---- baselines


def test_prior_list_by_hand():
    train = table([[3, 2, 1, np.nan], [1, 3, 2, np.nan], [3, 1, 2, np.nan]])
    got = prior_list(train, table([[0, 0, 0, 0]]))
    means = [(0.5 - 0.5 + 0.5) / 3, (0 + 0.5 - 0.5) / 3, (-0.5 + 0 + 0) / 3]
    assert got.order[0] == pytest.approx([*means, means[2]])  # what nobody ran takes the worst mean
    assert got.score[0, :3] == pytest.approx([7 / 3, 2, 5 / 3])


def test_list_in_modality_asks_the_like():
    train = table([[1, 2], [2, 1], [2, 1]], facts={"modality": np.array(["ct", "mri", "mri"], dtype=object)})
    asked = table([[0, 0]] * 2, facts={"modality": np.array(["ct", "oct"], dtype=object)})
    order = prior_list_modality(train, asked).order
    assert order[0, 1] > order[0, 0] and order[1, 0] > order[1, 1]


def test_every_baseline_is_there_and_the_oracle_is_perfect():
    result = exam(noisy(), {})
    assert set(result.marks) == {"prior_list", "prior_list_modality", "knn", "svr", "random", "score", "oracle"}
    assert result.mean("oracle", "tau") == pytest.approx(1) and result.mean("oracle", "regret1") == 0
    assert abs(result.mean("random", "tau")) < 0.15 < result.mean("prior_list", "tau")
    rows = {row["ranker"]: row for row in as_json([result])["exams"][0]["rows"]}
    assert rows["prior_list"]["gap_closed"] == 0 and rows["prior_list"]["dtau_ci"] == [0, 0]
    assert rows["oracle"]["gap_closed"] == 1 and rows["score"]["mae"] is None


# ---- the exam


def test_a_ranker_never_sees_the_family_that_it_answers_for():
    seen = []

    def spy(train, target):
        seen.append((set(train.families), set(target.families), target.scores))
        return Prediction(np.zeros((len(target.datasets), len(target.items))))

    data = noisy()
    exam(data, {"spy": spy})
    assert len(seen) == len(set(data.families))
    for train, target, scores in seen:
        assert len(target) == 1 and not train & target and not np.isfinite(scores).any()


def test_scores_of_the_target_do_not_move_the_answers():
    answers = []

    def keep(train, target):
        answers.append(prior_list(train, target).order)
        return Prediction(answers[-1])

    data = noisy()
    exam(data, {"keep": keep})
    first, last = answers[0], np.flatnonzero(np.array(data.families) == data.families[0])
    changed = data.scores.copy()
    changed[last] = 1 - changed[last]
    answers.clear()
    exam(replace(data, scores=changed), {"keep": keep})
    assert (answers[0] == first).all()


def test_family_means_weigh_families_the_same():
    data = table([[1, 2, 3]] * 3 + [[3, 2, 1]], ["a", "a", "a", "b"])
    result = exam(data, {"up": lambda train, target: Prediction(np.tile([0.0, 1, 2], (len(target.datasets), 1)))})
    assert result.mean("up", "tau") == pytest.approx(0)


def test_items_that_are_no_candidates_are_not_judged():
    result = exam(table([[1, 2, np.nan], [1, 2, 5], [2, np.nan, 1]]), {})
    assert result.mean("oracle", "tau") == pytest.approx(1)


def test_scores_that_are_shown_are_not_counted_as_predicted():
    data = noisy()

    def repeat(train, target):
        return Prediction(np.zeros(target.scores.shape), np.where(np.isfinite(target.scores), 99.0, 0.0))

    result = exam(data, {"repeat": repeat}, shown=["i2"])
    others = np.delete(data.scores, 2, axis=1)
    assert result.marks["repeat"]["mae"].mean() == pytest.approx(others.mean(1).mean())


def test_one_family_cannot_be_examined():
    with pytest.raises(NotApplicable, match="1 family"):
        exam(table([[1, 2], [2, 1]], ["a", "a"]), {})


def test_across_tables_shared_families_are_left_out():
    seen = []

    def spy(train, target):
        seen.append((train.families, target.families))
        return prior_list(train, target)

    train = noisy(seed=1)
    test = replace(train.rows([0, 1, 4, 5]), families=("f0", "new", "f4", "d7"))
    result = exam_across(train, test, {"spy": spy})
    assert len(result.datasets) == 4
    for known, asked in seen:
        assert asked[0] not in known
    with pytest.raises(NotApplicable, match="0 items in common"):
        exam_across(train, replace(test, items=tuple("abcdef")), {})


def test_json_has_exactly_the_fields_and_no_nan():
    answer = as_json([exam(noisy(), {"metamed": prior_list})])
    json.dumps(answer, allow_nan=False)
    (only,) = answer["exams"]
    assert set(only) == {"name", "datasets", "items", "rows"} and (only["datasets"], only["items"]) == (9, 6)
    assert all(set(row) == ROW_KEYS for row in only["rows"])
    assert {row["ranker"] for row in only["rows"]} >= {"metamed", "prior_list", "random", "oracle", "score"}
    text = as_markdown([exam(noisy(), {})])
    assert "9 datasets in 7 families" in text and text.count("\n| ") == 8


def test_pooling_counts_a_family_of_one_table_once():
    result = exam(noisy(), {"metamed": prior_list})
    mean, ends = pooled([result, result], "tau")
    assert mean == 0 and ends == (0, 0)


# ---- tables


def write(tmp_path, rows, header="dataset,method,pretraining_source,setting,metric,value"):
    path = tmp_path / "results.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def grid(metric="auc", values=((0.9, 0.8), (0.7, 0.6))):
    return [f"d{i},m{j},none,s,{metric},{v}" for i, row in enumerate(values) for j, v in enumerate(row)]


def test_items_are_the_fewest_columns(tmp_path):
    (one,) = read_tables(write(tmp_path, grid()))
    assert one.items == ("m0", "m1") and one.scores.tolist() == [[0.9, 0.8], [0.7, 0.6]]
    rows = [f"d{i},m{j},none,s{k},auc,0.{i + 1}{j}{k}" for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    (both,) = read_tables(write(tmp_path, rows))
    assert both.items[0] == "m0 | s0" and both.scores.shape == (2, 4)
    (asked,) = read_tables(write(tmp_path, rows), items=["setting"])
    assert asked.items == ("s0", "s1") and "mean is used" in asked.notes[0]
    assert len(read_tables(write(tmp_path, rows), by=["setting"])) == 2


def test_metrics_and_scenarios_are_exams_of_their_own(tmp_path):
    rows = [f"d{i},m{j},x,scenario {s},{t},0.{i}{j}{k}" for i in (1, 2) for j in (1, 2)
            for k, (s, t) in enumerate([("arch", "auc"), ("arch", "accuracy"), ("tune", "auc")])]  # fmt: skip
    tables = read_tables(write(tmp_path, rows))
    assert [t.name for t in tables] == ["results auc arch", "results accuracy arch", "results auc tune"]
    assert select(tables, "tune").scores[0, 0] == pytest.approx(0.112)
    with pytest.raises(UnknownName):
        select(tables, "auc")


def test_percents_become_fractions_and_that_is_said(tmp_path):
    (table,) = read_tables(write(tmp_path, grid(values=((90, 80), (0.7, 0.6)))))
    assert table.scores.tolist() == [[0.9, 0.8], [0.7, 0.6]] and "percents were divided" in table.notes[0]


def test_less_is_better_is_turned(tmp_path):
    (table,) = read_tables(write(tmp_path, grid("log_loss")))
    assert table.scores[0].tolist() == [-0.9, -0.8] and "minus sign" in table.notes[0]


@pytest.mark.parametrize(("rows", "message"), [
    (grid(values=((0.5, 0.5), (0.5, 0.5))), "constant measure"),
    (grid(values=((0.5, 0.6),)), r"1 dataset\(s\) x 2"),
    (grid(values=((90, 0.8), (0.7, 0.6))), "percents and fractions mixed"),
    (["d0,m0,x,s,auc,none"], "no figures"),
])  # fmt: skip
def test_bad_tables_are_named(tmp_path, rows, message):
    with pytest.raises(ReadError, match=message) as error:
        read_tables(write(tmp_path, rows))
    assert "\n" not in str(error.value)


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(ReadError, match=r"^results.csv: no column metric, value \(found: dataset, score\)"):
        read_tables(write(tmp_path, ["a,1"], "dataset,score"))


def test_a_bad_exam_does_not_hide_the_good_ones(tmp_path):
    tables = read_tables(write(tmp_path, grid() + ["d0,m0,none,s,dice,0.5"]))
    assert len(tables) == 1 and "an order needs two" in tables[0].notes[-1]


def test_facts_and_hints_come_from_their_files(tmp_path):
    facts, far, families = (tmp_path / name for name in ("facts.csv", "far.csv", "families.csv"))
    facts.write_text("dataset,n_train,n_classes,modality\nd0,100,2,CT (axial)\nd1,1000,4,skin photography\n")
    far.write_text("distance_name,source,target,distance\nFID,m1,d0,5\nFID,m0,d0,2\n")
    families.write_text("dataset,family\nd0,one\nd1,one\n")
    path = write(tmp_path, grid())
    (table,) = read_tables(path, datasets=facts, distances=far, families=families)
    assert table.facts["log_n"].tolist() == [2, 3] and table.facts["modality"].tolist() == ["ct", "dermoscopy"]
    assert table.hints["FID"][0].tolist() == [-2, -5] and np.isnan(table.hints["FID"][1]).all()
    assert table.families == ("one", "one")


# ---- the published baselines: if these move, the protocol is wrong


@pytest.mark.parametrize(("name", "measure", "mean", "by_family"), [
    ("G2", "tau", 0.539, False), ("G2", "nreg1", 0.114, False), ("G2b", "tau", 0.325, False),
    ("G1 AUC", "tau", 0.274, True), ("G3 acc", "tau", 0.760, True), ("G3 auc", "tau", 0.693, True),
    ("G3 auc", "regret1", 0.0116, True), ("G4", "tau", 0.383, True), ("G4", "regret1", 0.0077, True),
    ("G4d", "mae", 0.216, False), ("nnU-Net revisited", "tau", 0.731, True),
])  # fmt: skip
def test_list_baselines_are_reproduced(published, name, measure, mean, by_family):
    result = published(name)
    got = result.mean("prior_list", measure) if by_family else result.marks["prior_list"][measure].mean()
    assert got == pytest.approx(mean, abs=0.0006)


@pytest.fixture(scope="module")
def published(shared):
    from functools import cache

    from benchmarks.exams import published_tables

    tables = published_tables(shared / "facts")
    return cache(lambda name: exam(tables[name], {}))


def test_runs_near_the_targets_size_count_most():
    """Two sizes of one dataset, one of another: of the first, the near row counts four times the far one."""
    sizes = {"log_n": np.log10([50.0, 200.0, 200.0])}
    known = replace(table([[3, 2, 1], [1, 2, 3], [1, 3, 2]]), datasets=("a", "a", "b"), facts=sizes)
    asked = replace(known.rows([0, 1]), facts={"log_n": np.log10([50.0, 200.0])})
    near = scales.nearness(known, asked)
    np.testing.assert_allclose(near, [[1.6, 0.4, 1], [0.4, 1.6, 1]])
    assert scales.plain_list(known, asked)[0, 0] > scales.plain_list(known, asked)[1, 0]  # the first item won at 50
    half = replace(known, scores=np.array([[3, 2, np.nan], [1, 2, 3], [1, 3, 2]]))
    assert scales.nearness(half, asked)[0, 0] < 1.6  # a row counts by how many items it compares
    empty = replace(known, scores=np.array([[np.nan] * 3, [np.nan] * 3, [1, 3, 2]]))
    np.testing.assert_array_equal(scales.nearness(empty, asked), [[0, 0, 1], [0, 0, 1]])
    alone = replace(known, datasets=("a", "c", "b"))
    np.testing.assert_array_equal(scales.nearness(alone, asked), 1)
    np.testing.assert_array_equal(scales.nearness(replace(known, facts={}), asked), 1)
