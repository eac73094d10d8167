"""The science of meta-features: redundancy and ablation are reckoned right, and leak no score."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

from metamed.exams.tables import Table

ROOT = Path(__file__).parents[1]
if not (ROOT / "benchmarks" / "metafeature_groups.py").exists():
    pytest.skip("not in a checkout", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks import metafeature_ablation as ablation  # noqa: E402
from benchmarks import metafeature_groups as groups  # noqa: E402
from benchmarks import metafeature_redundancy as redundancy  # noqa: E402
from benchmarks.metafeature_docs import _cell, _sure  # noqa: E402


def table(n: int = 8, m: int = 4, seed: int = 0) -> Table:
    rng = np.random.default_rng(seed)
    names = tuple(f"d{k}" for k in range(n))
    sources = np.array(["", "", "imagenet", "birds"], object)[:m]
    return Table("metamed runs auc", "auc", names, tuple("abcd")[:m], rng.random((n, m)), names,
                 {"log_n": rng.random(n)}, {"sources": sources}, landmarks={"lda": rng.random(n)})  # fmt: skip


def vectors(n: int = 8, seed: int = 0) -> dict[str, dict]:
    rng = np.random.default_rng(seed)
    names = [c for g in ("intensity", "landmarking") for c in redundancy.columns_of(g)]
    return {f"d{k}": dict(zip(names, rng.normal(size=len(names)), strict=True)) for k in range(n)}


def test_the_effective_number_counts_what_is_unrelated():
    assert redundancy.effective_number(np.eye(7)) == pytest.approx(7)
    assert redundancy.effective_number(np.ones((7, 7))) == pytest.approx(1)
    assert redundancy.effective_number(np.kron(np.eye(3), np.ones((2, 2)))) == pytest.approx(3)


def test_rank_correlations_are_those_of_scipy_over_the_rows_that_have_both():
    from scipy.stats import spearmanr

    values = np.random.default_rng(0).normal(size=(30, 4))
    values[:, 3] = np.exp(values[:, 0])
    values[:10, 1] = np.nan
    found = redundancy.spearman(values)
    assert found[0, 3] == pytest.approx(1) and found[1, 2] == pytest.approx(spearmanr(values[10:, [1, 2]]).statistic)
    values[5:, 2] = np.nan
    assert np.isnan(redundancy.spearman(values)[0, 2])  # five rows are too few
    assert np.isnan(redundancy.spearman(values[:15], list("aabb"))[0, 3])  # and fifteen for columns of two groups


def test_clusters_are_found_whatever_the_sign():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 40))
    values = np.stack([one, other, -one, one**3], axis=1)
    found = redundancy.Map(list("abcd"), ["bags"] * 3 + ["general"], redundancy.spearman(values), {})
    assert redundancy.clusters(found) == [["a", "c", "d"], ["b"]]
    assert redundancy.clusters(found.block("bags")) == [["a", "c"], ["b"]] and found.block("general").names == ["d"]


def test_components_hold_the_group_and_do_not_depend_on_the_scores():
    t, known = table(), vectors()
    told = ablation.variants(t, known)
    other = ablation.variants(Table(**{**vars(t), "scores": -t.scores}), known)
    assert {name for name, part in told.items() if part.landmarks} == {
        *(name for name in told if name.startswith("all") and name != "all but landmarking"), ablation.USED,
        "only landmarking"}  # fmt: skip
    told, other = ({name: part.facts for name, part in found.items()} for found in (told, other))
    for name, facts in told.items():
        assert facts.keys() == other[name].keys()
        for column in facts:
            np.testing.assert_array_equal(facts[column], other[name][column])
    assert len(told["only intensity"]) == 5 and len(told["only general"]) == 1 and told["nothing"] == {}
    assert set(told["all but intensity"]) == set(told["all groups"]) - set(told["only intensity"])
    first, ranks = told["only landmarking"], ablation.ranks_of(t, known, redundancy.columns_of("landmarking"))
    whole = np.array(list(ranks.values())).T
    singular = np.linalg.svd(whole - whole.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(list(first.values()), axis=1), singular[:5])


def test_a_column_that_tells_how_hard_a_dataset_is_stands_out():
    t, known = table(30), vectors(30)
    hard = dict(zip(t.datasets, t.scores.mean(axis=1), strict=True))
    for name, vector in known.items():
        vector["entropy.mean"] = np.exp(5 * hard[name])
    found, limits, looked = groups.difficulty(t, known)
    assert ("entropy.mean", "level of scores", pytest.approx(1)) in found and looked > 40
    assert 0.4 < limits["level of scores"] < 0.8 and set(limits) == {"level of scores", "gain of transfer"}
    assert len(found) <= 3  # the limit holds for all columns at once


def test_the_level_of_a_row_does_not_depend_on_what_was_run_there():
    rng = np.random.default_rng(0)
    rows, items = rng.random((12, 1)), rng.random((1, 6))
    scores = np.where(rng.random((12, 6)) < 0.4, np.nan, rows + items)
    found = groups._levels(scores)
    np.testing.assert_allclose(found - found.mean(), (rows - rows.mean())[:, 0], atol=1e-6)


def test_rows_of_one_dataset_are_one_vote():
    """A dataset run at five sizes does not make chance five times smaller, and hands its facts on as a whole."""
    t, known = table(8), vectors(8)
    rows = np.repeat(np.arange(8), 5)
    many = t.rows(rows)
    np.testing.assert_allclose(groups.difficulty(many, known)[1]["level of scores"],
                               groups.difficulty(t, known)[1]["level of scores"])  # fmt: skip
    order = ablation.exchanged(many, {d: v for d, v in known.items() if d != "d3"}, seed=0)
    taken = [set(rows[order[rows == k]]) for k in range(8)]
    assert all(len(other) == 1 for other in taken) and taken[3] == {3}
    assert sorted(other.pop() for other in taken) == list(range(8))


def test_what_an_exam_can_be_told_is_counted():
    known = ablation.known_of(table(), vectors())
    assert known["intensity"][0] == 8 and known["intensity"][1] > 40
    assert known["crowd"] == known["deep"] == (0, 0)


def test_a_group_that_nothing_is_known_of_has_no_number():
    nothing = redundancy.Map([], [], np.zeros((0, 0)), {"crowd": 2})
    assert redundancy.summary(nothing) == [("crowd", 2, 0, "0.0", 0)]


def test_pairs_are_compared_over_all_sources_and_targets():
    rng = np.random.default_rng(0)
    described = [redundancy.Described(f"d{k}", f"d{k}", {c: float("nan") for c in redundancy.every_column()}
                                      | {"n_samples": n, "n_classes": 2 * n, "modality": "mri", "organ": "brain"})
                 for k, n in enumerate(rng.integers(10, 1000, 9))]  # fmt: skip
    found = redundancy.pair_correlations(described)
    size, classes = (found.names.index(name) for name in ("size_ratio", "class_ratio"))
    assert found.correlation[size, classes] == pytest.approx(1) and found.datasets == {"pairs": 9}


def test_what_counts_as_sure():
    row = {"measure": "tau", "value": "0.1", "low": "0.01", "high": "0.2"}
    assert _sure(row) == 1 and _cell(row) == "**+0.100** [+0.010, +0.200]"
    assert _sure(row | {"measure": "mae"}) == -1 and _sure(row | {"low": "-0.01"}) == 0
    assert _sure(row | {"low": "nan", "high": "nan"}) == 0


def test_the_shipped_figures_are_whole():
    with (ROOT / "benchmarks" / "results" / "metafeature_groups.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    told = {r["told"] for r in rows}
    assert {"nothing", "all groups", "only landmarking", "all but landmarking", ablation.USED} <= told
    assert all(float(r["value"]) == 0 for r in rows if r["told"] == "nothing")
