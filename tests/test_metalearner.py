"""The meta-learner: closed forms against naive ones, what it learns and refuses to learn, and what it keeps."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from metamed import metalearner
from metamed.errors import NotApplicable, ReadError
from metamed.exams import Prediction, exam
from metamed.exams.examples import tables_from, tables_of
from metamed.exams.scales import (
    common_scale,
    design,
    fact_distance,
    family_weights,
    normal_scores,
    spread_ranks,
    weighted_mean,
)
from metamed.exams.tables import Table
from metamed.metalearner import MetaLearner, answer, crossfit, fit, fit_predict, list_only, ungated
from metamed.metalearner.correctors import base_of, corrections, gaussian_process, item_kernels, matched
from metamed.metalearner.gate import gains
from metamed.metalearner.levels import expected_scores, two_way
from metamed.metalearner.told import moved_by_runs
from metamed.metalearner.trees import contributions, evaluate, grow
from metamed.records import Published, Run, Setup
from metamed.store import Store
from metamed.tasks import make_task


def table(n=14, m=8, *, effect=0.1, order=0.01, seed=0) -> Table:
    """Items whose merit depends on the size of the dataset by `effect`, beside a common `order` and noise."""
    rng = np.random.default_rng(seed)
    size, tilt = rng.normal(size=n), np.where(np.arange(m) % 2, 1.0, -1.0)
    level = 0.6 + 0.03 * rng.normal(size=(n, 1)) + order * np.arange(m)
    scores = np.clip(level + effect * size[:, None] * tilt + rng.normal(0, 0.02, (n, m)), 0, 1)
    names = tuple(f"d{i}" for i in range(n))
    facts = {"log_n": size, "modality": np.array(["ct", "mri"] * n, dtype=object)[:n]}
    descriptors = {"kind": np.array(["a", "b"] * m, dtype=object)[:m], "width": np.arange(m, dtype=float)}
    return Table("toy", "auc", names, tuple(f"i{j}" for j in range(m)), scores, names, facts, descriptors)


def sources(n=10, seed=0) -> Table:
    """Datasets that are each other's sources; hints that tell half of the truth. None is a source for itself."""
    rng = np.random.default_rng(seed)
    scores = np.clip(0.7 + 0.02 * np.arange(n) + rng.normal(0, 0.06, (n, n)), 0, 1)
    scores[np.diag_indices(n)] = np.nan
    facts = {"log_n": rng.normal(3, 1, n), "log_classes": rng.normal(2, 1, n),
             "modality": np.array(["ct", "mri"] * n, dtype=object)[:n]}  # fmt: skip
    names = tuple(f"d{i}" for i in range(n))
    hints = {"leep": scores + rng.normal(0, 0.06, (n, n)), "fid": scores + rng.normal(0, 0.06, (n, n))}
    return Table("toy", "auc", names, names, scores, names, facts, {}, facts, hints)


def sparse(n=12, own=6, m=8) -> Table:
    """A common order of `m` items, and items that one dataset alone ran and that are all alike."""
    data = table(n, m, effect=0.0, order=0.03)
    alone = np.full((n, n * own), np.nan)
    for i in range(n):
        alone[i, i * own : (i + 1) * own] = 0.5 + 0.01 * np.arange(own)
    items = data.items + tuple(f"alone{j}" for j in range(n * own))
    kinds = np.array(["a", "b"] * (m + n * own), dtype=object)[: m + n * own]
    return replace(data, items=items, scores=np.hstack([data.scores, alone]), descriptors={"kind": kinds})


# ---- scales and closed forms


def test_common_scale_is_by_rows_and_skips_holes():
    got = common_scale(np.array([[1.0, 2, 3, np.nan], [10, 20, 30, np.nan]]))
    assert got[0, :3] == pytest.approx(got[1, :3]) and np.isnan(got[:, 3]).all()
    z = np.sqrt(1.5)
    assert got[0, :3] == pytest.approx([(-0.5 / 0.3 - z) / 2, 0, (0.5 / 0.3 + z) / 2])


def test_normal_scores_are_bloms():
    from scipy.stats import norm

    got = normal_scores(np.array([[5.0, 1.0, 3.0, np.nan]]))[0]
    assert got[:3] == pytest.approx(norm.ppf((np.array([3, 1, 2]) - 0.375) / 3.25))


def test_families_weigh_the_same():
    assert family_weights(("a", "a", "b"), 1.0).tolist() == [0.5, 0.5, 1]
    assert family_weights(("a", "a", "b"), 0.5)[0] == pytest.approx(0.5**0.5)


def test_gaussian_process_equals_the_full_solve():
    rng, data = np.random.default_rng(0), table(6, 4)
    own, near = (np.exp(-fact_distance(data.facts, f)) for f in (data.facts, data.rows([1, 3]).facts))
    items, _ = item_kernels(data.descriptors, 4)
    residual = rng.normal(size=(6, 4))
    full = np.kron(own, items) + 1.5 * np.eye(24)
    expected = (np.kron(near, items) @ np.linalg.solve(full, residual.ravel())).reshape(2, 4)
    assert gaussian_process(near, own, np.linalg.eigh(items), residual, 1.5) == pytest.approx(expected)


def test_distance_of_facts_by_hand():
    known = {"n": np.array([0.0, 2.0]), "m": np.array(["ct", "mri"], dtype=object)}
    asked = {"n": np.array([1.0]), "m": np.array(["ct"], dtype=object)}
    assert fact_distance(known, asked) == pytest.approx(np.array([[0.5, 1.5]]))
    assert fact_distance(known, {"n": np.array([np.nan])}) == pytest.approx(
        np.array([[0.5, 0.5]])
    )  # unknown is average
    assert design(known, asked)[1][0] == pytest.approx([0, 0.5, -0.5])


def test_without_facts_nothing_is_corrected():
    data = replace(table(), facts={})
    assert corrections(data, data.rows([0]), common_scale(data.scores)) == {}
    base = base_of(data, data.rows([0]).hidden())
    assert (base.order == base.anchor).all() and base.list[0] == pytest.approx(spread_ranks(data.scores).mean(0))


# ---- trees


def test_numpy_reads_trees_as_xgboost_does():
    import xgboost

    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 5))
    features[rng.random(features.shape) < 0.2] = np.nan
    target = np.nan_to_num(features[:, 0]) * 2 + np.where(features[:, 1] > 0, 1, 0)
    models = grow(features, target, np.ones(300), range(3))
    asked = rng.normal(size=(7, 40, 5))
    asked[rng.random(asked.shape) < 0.2] = np.nan
    expected = []
    for model in models:
        booster = xgboost.Booster()
        booster.load_model(bytearray(json.dumps(model), "utf-8"))
        expected.append(booster.predict(xgboost.DMatrix(asked.reshape(-1, 5))))
    got = evaluate(models, asked)
    assert got.shape == (7, 40) and np.ptp(got) > 0.5
    assert np.abs(got.ravel() - np.mean(expected, axis=0)).max() < 1e-6
    parts = contributions(models, asked.reshape(-1, 5))
    assert parts.sum(1) == pytest.approx(got.ravel(), abs=1e-5)


# ---- what is learned


def test_crossfit_never_sees_its_own_family():
    data = table()
    changed = data.scores.copy()
    changed[2] = changed[2, ::-1]
    before, after = crossfit(data), crossfit(replace(data, scores=changed))
    assert (before.order[2] == after.order[2]).all() and (before.features[2] == after.features[2]).all()
    assert (before.order[3] != after.order[3]).any()


@pytest.mark.parametrize("make", [table, sources])
def test_hidden_scores_do_not_move_the_answer(make):
    data = make()
    train, target = data.rows(np.arange(len(data.datasets)) != 4), data.rows([4])
    changed = replace(target, scores=1 - target.scores)
    got, other = (fit_predict(train, t.hidden()) for t in (target, changed))
    assert (got.order == other.order).all() and (got.score == other.score).all()


def test_facts_that_matter_are_used():
    result = exam(table(10, effect=0.1), {"metamed": fit_predict})
    assert result.difference("metamed", "tau").mean() > 0.2
    assert all("corrected" in basis for basis in result.basis["metamed"])


def test_hints_that_matter_are_used():
    result = exam(sources(8), {"metamed": fit_predict})
    assert result.mean("metamed", "tau") > result.mean("prior_list", "tau") + 0.05


def test_facts_of_other_datasets_gain_nothing():
    data, gains = table(effect=0.03, order=0.03), []
    for seed in range(6):
        order = np.random.default_rng(seed).permutation(14)
        mixed = replace(data, facts={name: column[order] for name, column in data.facts.items()})
        rankers = {"metamed": ungated, "list": lambda a, b: Prediction(base_of(a, b).list)}
        gains.append(exam(mixed, rankers).difference("metamed", "tau", "list").mean())
    assert abs(np.mean(gains)) < 0.02
    assert exam(data, {"metamed": ungated}).difference("metamed", "tau").mean() > 0.02


def test_the_gate_falls_back_to_the_list_on_noise():
    shut = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        data = replace(table(seed=seed), scores=rng.random((14, 8)))
        fitted = fit(data)
        target = table(1, seed=99).hidden()
        got = answer(fitted, data, target)
        plain = base_of(data, target).list
        shut.append(not fitted.open)
        assert ((got.order == plain).all() and "alone" in got.basis) == (not fitted.open)
    assert sum(shut) >= 4


def test_few_families_are_answered_by_the_list():
    fitted = fit(table(4))
    assert not fitted.open and "too few families" in fitted.basis and fitted.models == ()


def test_the_same_seed_gives_the_same_answer():
    data = table()
    one, two, other = (fit(data, seed=seed) for seed in (0, 0, 5))
    assert one.models == two.models != other.models
    target = data.rows([0]).hidden()
    assert (answer(one, data, target).order == answer(two, data, target).order).all()


# ---- expected scores


def test_expected_scores_follow_the_order_and_cover():
    result = exam(table(16), {"metamed": lambda a, b: answer(list_only(a), a, b)})
    assert 0.82 < result.mean("metamed", "coverage") < 0.98
    data = table()
    got = fit_predict(data, table(1, seed=3).hidden())
    assert (np.argsort(-got.order[0]) == np.argsort(-got.score[0], kind="stable")).all()
    assert ((got.low >= 0) & (got.low <= got.score) & (got.score <= got.high) & (got.high <= 1)).all()


def test_a_score_known_on_the_target_moves_the_others():
    data, target = table(), table(1, seed=3)
    told = target.hidden(["i3"])
    told = replace(told, scores=np.where(np.isfinite(told.scores), 0.99, told.scores))
    free, moved = (fit_predict(data, t) for t in (target.hidden(), told))
    assert (moved.score > free.score).all() and (moved.order == free.order).all()


def test_runs_on_the_target_order_what_was_not_run_there():
    """Two kinds of setups; each dataset suits one kind. Three runs tell which kind suits the target."""
    rng, kind = np.random.default_rng(0), np.arange(8) % 2
    suits = rng.choice([-1, 1], 20)[:, None] * np.where(kind, 1, -1) * 0.1
    scores = 0.7 + suits + rng.normal(0, 0.01, (20, 8))
    names = tuple(f"d{i}" for i in range(20))
    data = Table("t", "auc", names, tuple(f"i{j}" for j in range(8)), scores, names)
    train, target = data.rows(np.arange(20) > 0), data.rows([0])
    order = moved_by_runs(np.zeros((1, 8)), train, target.hidden(["i0", "i1", "i2"]))
    assert (order[0, kind == (suits[0, 1] > 0)].min() > order[0, kind != (suits[0, 1] > 0)].max())
    assert (moved_by_runs(np.arange(8.0)[None], train, target.hidden(["i0", "i1"])) == np.arange(8)).all()


def test_measures_that_are_no_fractions_are_rated_too():
    data = table()
    got = fit_predict(replace(data, scores=data.scores * 10 - 20), table(1, seed=3).hidden())
    assert got.score.min() > -20 and got.score.max() < -10


# ---- of a store


FROM, TO = Setup("small_cnn"), Setup("mobilenet", {"learning_rate": 0.003}, "finetune", ("imagenet.net",))
THIRD, PAPER = Setup("probe.linear", {"c": 1.0}, None, ("imagenet.net",)), Setup("vgg16")


@cache
def store() -> Store:
    """Nine datasets with three setups each, and a paper with another one. Synthetic: nothing was trained."""
    from conftest import blobs

    kept, rng = Store.memory(), np.random.default_rng(0)
    for number in range(9):
        data = replace(blobs(60 + 40 * number, classes=2 + number % 3, seed=number), name=f"set{number}")
        kept.add_metafeatures(data, {"n_samples": len(data.target), "n_classes": 2 + number % 3, "n_channels": 3})
        task = make_task(data)
        kept.add_all([task, FROM, TO, THIRD, PAPER])
        for setup, merit in ((FROM, 0.02 * number), (TO, 0.1), (THIRD, 0.05)):
            for seed in (0, 1):
                score = float(np.clip(0.75 + merit + rng.normal(0, 0.01), 0, 1))
                kept.add(Run(task.id, setup.id, seed, (1,), {"auc": (score,)}, 1.0, {"device": "cpu"}))
        for setup, value in ((PAPER, 0.9 - 0.01 * number), (FROM, 0.8)):
            kept.add(
                Published("study", "split", f"set{number}", "target", setup.id, "auc", value, None, 1, "a paper", "T1")
            )
    return kept


ASKED = {"n_samples": 400.0, "n_classes": 3.0, "n_channels": 3.0}


def test_own_runs_lead_and_published_setups_follow_without_a_figure():
    setups = [FROM, TO, THIRD, PAPER, Setup("never_run")]
    got = MetaLearner("classification").fit(store()).predict(ASKED, setups, store())
    assert [c.setup for c in got[3:]] == [PAPER] and {c.setup for c in got[:3]} == {FROM, TO, THIRD}
    assert all(0 <= c.low <= c.score <= c.high <= 1 and not c.note for c in got[:3])
    assert np.isnan(got[3].score) and got[3].note == "published: study split"
    assert [c.score for c in got[:3]] == sorted((c.score for c in got[:3]), reverse=True)


def test_evidence_is_runs_of_that_setup_on_the_nearest_datasets():
    got = MetaLearner("classification").fit(store()).predict(ASKED, [TO], store())[0]
    runs = [store().get(id) for id in got.evidence]
    assert len(runs) == 3 and all(r.setup == TO.id for r in runs)
    sizes = {store().get(r.task).dataset: len(store().get(r.task).folds[0].train) for r in runs}
    assert len(sizes) == 2 and all(abs(size - 400 * 0.64) < 120 for size in sizes.values())


def test_tables_of_a_store_are_means_of_seeds():
    own, paper = tables_of(store(), "classification", "auc")
    assert own.name.startswith("metamed ") and own.scores.shape == (9, 3) and paper.name == "study split auc"
    runs = [r for r in store().runs(dataset="set0") if r.setup == FROM.id]
    assert own.scores[0, own.items.index(FROM.id)] == pytest.approx(np.mean([r.evaluations["auc"][0] for r in runs]))
    assert own.facts["log_n"][0] == pytest.approx(np.log10(60)) and set(own.descriptors) >= {"method"}


def test_runs_of_sources_that_cannot_be_had_stand_behind():
    rows = store().example_rows("classification", "auc")
    gone = [row | {"runnable": row["setup"] != TO.id} for row in rows]
    own, every, _ = tables_from(gone, {})
    assert set(own.items) == {FROM.id, THIRD.id} and set(every.items) == {FROM.id, TO.id, THIRD.id}
    assert every.name == "metamed all runs auc"
    lost = [row | {"runnable": False} for row in rows]
    assert [t.name for t in tables_from(lost, {})][0] == "metamed all runs auc"


def test_the_size_that_runs_got_is_a_fact():
    rows = [row | {"size": 40} for row in store().example_rows("classification", "auc") if row["study"] == "metamed"]
    digests = dict.fromkeys(row["dataset"] for row in rows)
    table = tables_from(rows, {d: {"n_samples": 1000.0 if i % 2 else 20.0} for i, d in enumerate(digests)})[0]
    assert set(np.round(10 ** table.facts["log_n"], 6)) == {20.0, 50.0}  # 50 samples leave 40 beside the test part


def test_saved_and_read_again_it_answers_the_same(tmp_path):
    learner = MetaLearner("classification", seed=2).fit(store())
    again = MetaLearner.read(learner.save(tmp_path / "learner.json"))
    assert again.fitted == learner.fitted
    setups = [FROM, TO, THIRD]
    assert again.predict(ASKED, setups, store()) == learner.predict(ASKED, setups, store())
    assert again.seed == 2 and (tmp_path / "learner.json").stat().st_size < 200_000


def test_a_file_that_is_no_learner_is_named(tmp_path):
    (tmp_path / "x.json").write_text('{"kind": "mil"}')
    with pytest.raises(ReadError, match="x.json: not a learner"):
        MetaLearner.read(tmp_path / "x.json")


def test_what_ships_is_used_only_for_the_evidence_that_it_learned_from(tmp_path, monkeypatch):
    monkeypatch.setattr(metalearner, "SHIPPED", tmp_path)
    monkeypatch.setattr(metalearner, "_KNOWN", {})
    MetaLearner("classification").fit(store()).save()
    calls = []
    monkeypatch.setattr(metalearner, "fit", lambda *a, **k: calls.append(a) or fit(*a, **k))
    learner = MetaLearner.load("classification", store())
    assert not calls and "families of datasets" in learner.basis
    more = Store.memory()
    more.merge(store())
    task = next(t for t in more.records("task") if t.dataset == "set0")
    more.add(Run(task.id, FROM.id, 7, (1,), {"auc": (0.5,)}, 1.0))
    assert MetaLearner.load("classification", more).evidence != learner.evidence and calls


def test_what_ships_is_what_the_shipped_evidence_teaches():
    for path in metalearner.SHIPPED.glob("*.json"):
        shipped, again = MetaLearner.read(path), MetaLearner(path.stem).fit(Store.embedded())
        assert shipped.evidence == again.evidence, f"{path.name} is stale: fit it to Store.embedded() and save it"
        features = np.random.default_rng(0).normal(size=(50, len(shipped.fitted.names)))
        assert evaluate(shipped.fitted.models, features) == pytest.approx(
            evaluate(again.fitted.models, features), abs=1e-4
        )


def test_what_ships_is_known_on_other_processors():
    """Logarithms differ in their last digit: without care the shipped learner would be fitted again at each start."""
    code = (
        "from metamed.metalearner import MetaLearner, _digest; from metamed.store import Store\n"
        "learners = map(MetaLearner, ('classification', 'segmentation'))\n"
        "print([_digest(learner._tables(Store.embedded())[0][0]) for learner in learners])"
    )
    older = {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX2 FMA3 AVX512F AVX512_SKX AVX512_ICL AVX512_SPR"}
    answers = [
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True,
                       env=os.environ | more).stdout
        for more in ({}, older)
    ]  # fmt: skip
    assert answers[0] == answers[1] != ""


def test_answering_needs_numpy_alone(tmp_path):
    kept = Store(tmp_path / "evidence.db")
    kept.merge(store())
    path = MetaLearner("classification").fit(kept).save(tmp_path / "classification.json")
    code = (
        "import sys; from metamed.metalearner import MetaLearner; from metamed.store import Store\n"
        f"store = Store({str(tmp_path / 'evidence.db')!r}); learner = MetaLearner.read({str(path)!r})\n"
        f"found = learner.predict({ASKED!r}, store.records('setup'), store)\n"
        "heavy = {'xgboost', 'sklearn', 'pandas', 'scipy', 'torch'} & set(sys.modules)\n"
        "assert len(found) == 4 and not heavy, (len(found), heavy)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_explaining_adds_up():
    learner = MetaLearner("classification").fit(store())
    moved = learner.explain(ASKED, [FROM, TO], store())
    assert moved.keys() == {FROM.id, TO.id}
    for parts in moved.values():
        assert set(parts) == {"list", "correction", "trees"} and np.isfinite(parts["correction"])


def test_a_store_without_comparisons_is_refused():
    with pytest.raises(NotApplicable, match="no two setups were compared"):
        MetaLearner("mil").fit(store())


# ---- expected scores


def test_landmarks_tell_how_hard_a_dataset_is():
    rng = np.random.default_rng(0)
    hard = np.linspace(-1.5, 1.5, 14)
    scores = 1 / (1 + np.exp(-(hard[:, None] + 0.1 * np.arange(8) + rng.normal(0, 0.1, (14, 8)))))
    quick = 1 / (1 + np.exp(-(0.8 * hard - 0.5)))
    plain = replace(table(), scores=scores, facts={})
    told = replace(plain, landmarks={"quick": quick, "unknown": np.full(14, np.nan)})
    errors = {}
    for name, data in (("plain", plain), ("told", told)):
        train, target = data.rows(np.arange(14) > 1), data.rows([0, 1])
        errors[name] = np.abs(expected_scores(train, target.hidden()) - target.scores).mean()
    assert errors["told"] < 0.3 * errors["plain"]
    missing = replace(told.rows([0]).hidden(), landmarks={"quick": np.array([np.nan])})
    assert np.isfinite(expected_scores(told.rows(np.arange(14) > 1), missing)).all()


# ---- thin evidence


def unbalanced(n=12, m=8, seed=0) -> np.ndarray:
    """Scores that are dataset + item exactly; every second dataset ran only the three weakest items, and is hard."""
    rng = np.random.default_rng(seed)
    scores = 0.5 + 0.02 * rng.normal(size=(n, 1)) + 0.04 * np.arange(m)
    scores[::2, 3:] = np.nan
    scores[::2] -= 0.2
    return scores


def test_a_row_that_ran_only_the_weak_does_not_praise_them():
    scores, weights = unbalanced(), np.ones(12)
    naive = weighted_mean(common_scale(scores), weights)
    fair = weighted_mean(matched(common_scale(scores), weights), weights)
    assert np.argsort(fair).tolist() == list(range(8)) and np.argsort(naive).tolist() != list(range(8))


def test_rows_without_holes_stay_as_they_are():
    scale = common_scale(table().scores)
    assert matched(scale, np.ones(14)) is scale
    scale = common_scale(unbalanced())
    assert matched(scale, np.ones(12))[1::2] == pytest.approx(scale[1::2])


def test_hardness_of_datasets_and_merit_of_items_are_told_apart():
    scores = unbalanced()
    hardness, medians = two_way(scores)
    known = np.isfinite(scores)
    assert (hardness[:, None] + medians)[known] == pytest.approx(scores[known], abs=1e-3)


def test_items_that_nobody_else_ran_stand_last_and_alike():
    data = sparse()
    train, target = data.rows(np.arange(len(data.datasets)) > 0), data.rows([0]).hidden()
    for ranker in (fit_predict, ungated):
        order = ranker(train, target).order[0]
        alone = order[8:14]  # what the asked dataset alone ran
        assert len(set(alone)) == 1 and alone[0] < order[:8].min()


def test_the_gate_counts_only_what_another_family_ran():
    data = sparse()
    better = np.where(np.isfinite(data.scores), data.scores, -1.0)  # a perfect order, of lonely items too
    shared, lonely = better[:, :8], better[:, 8:]
    scrambled = np.hstack([-shared, lonely])
    assert (gains(data, scrambled, better)[:, 0] < 0).all()
    assert (gains(data, np.hstack([shared, -lonely]), better) == 0).all()
    alone = data.columns(np.arange(data.scores.shape[1]) >= 8)
    assert gains(alone, -lonely, lonely).shape == (0, 2) and not fit(alone).open
