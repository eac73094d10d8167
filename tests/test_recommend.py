"""Recommending: costs, cautions, wishes, known datasets, and that nothing is invented."""

import io
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import blobs
from hypothesis import given
from hypothesis import strategies as st

from metamed.dataset import ArrayImages, Card, Dataset
from metamed.errors import EmptyStore, MetamedError, NotApplicable, UnknownName
from metamed.recommend import as_kind, caution, forget, recommend, weigh_sources
from metamed.recommend.costs import Costs, parse_minutes, side_of
from metamed.recommend.wishes import Wishes, commercial
from metamed.records import Candidate, Run, Setup, Source
from metamed.store import Store
from metamed.tasks import make_task

CNN, WIDE = Setup("small_cnn", {"image_size": 16}), Setup("small_cnn", {"image_size": 16, "width": 64})
TUNED = Setup("mobilenet", {"image_size": 16}, "finetune", ("open.net",))
PROBE = Setup("probe.linear", {"image_size": 16}, None, ("closed.net",))
SETUPS = (CNN, WIDE, TUNED, PROBE)
# expected score of each setup on each dataset: the order differs between datasets, the level too
LEVEL = {CNN: 0.70, WIDE: 0.74, TUNED: 0.85, PROBE: 0.80}


def pictures(n: int, seed: int, name: str = "new") -> Dataset:
    """Images that no two of share: coarse random patterns, two per patient."""
    rng = np.random.default_rng(seed)
    images = np.kron(rng.integers(0, 255, (n, 3, 8, 8)), np.ones((2, 2))).astype(np.uint8)
    patient = np.arange(n) // 2
    return Dataset(name, ArrayImages(images), patient % (2 + seed % 2), groups=patient, card=Card(modality="synthetic"))


def evidence(n_datasets: int = 6, seeds: int = 2, device: str = "cpu") -> tuple[Store, list]:
    """Runs of four setups on datasets of their own families. Synthetic: nothing was trained."""
    from metamed.metafeatures import extract

    store, rng, datasets = Store.memory(), np.random.default_rng(0), []
    for name, corpus, sha, licence in (("open.net", "imagenet", "a", "MIT"), ("closed.net", "chest", "b", "CC BY-NC")):
        store.add(Source(name, "mobilenet_v2", "supervised", (corpus,), "imagenet", sha * 64, licence, "path"))
    for number in range(n_datasets):
        data = pictures(60 + 10 * number, number, f"set{number}")
        datasets.append(data)
        task = make_task(data)
        store.add_metafeatures(data, extract(data, ["general", "intensity"]))
        store.add(task)
        for setup in SETUPS:
            store.add(setup)
            for seed in range(seeds):
                score = min(LEVEL[setup] - 0.02 * number + float(rng.normal(0, 0.01)), 1.0)
                hashes = tuple(store.source(name).sha256 for name in setup.sources)
                store.add(Run(task.id, setup.id, seed, (1,), {"auc": (score,)}, 6.0, {"device": device}, hashes))
    return store, datasets


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METAMED_CACHE_DIR", str(tmp_path))


@pytest.fixture(scope="module")
def known():
    return evidence()


# ---- budget and cost


@pytest.mark.parametrize(("text", "minutes"), [("30m", 30), ("2h", 120), ("90s", 1.5), ("1.5 h", 90), (7, 7)])
def test_budgets_are_minutes(text, minutes):
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize("text", ["soon", "-3m", "0", "3 weeks", "", "1e3", "5m5"])
def test_what_is_no_budget_is_said(text):
    with pytest.raises(MetamedError, match="30m or 2h"):
        parse_minutes(text)


def test_cost_grows_with_samples_and_pixels(known):
    costs = Costs("classification", known[0])
    one = costs.minutes(CNN, 100, 16)
    assert set(one) == {"cpu"} and one["cpu"] > 0
    assert costs.minutes(CNN, 200, 16)["cpu"] == pytest.approx(2 * one["cpu"])
    assert costs.minutes(CNN, 100, 8)["cpu"] == pytest.approx(one["cpu"] / 4)
    assert costs.minutes(CNN, 100, 999) == one  # images are resized to image_size
    assert costs.minutes(TUNED, 100, 8) == costs.minutes(TUNED, 100, 16)  # and enlarged for a network with a source
    assert costs.minutes(Setup("never_run"), 100, 16) == {}


def test_cost_of_a_known_run_is_its_own(known):
    store, datasets = known
    n = len(make_task(datasets[0]).folds[0].train)
    single, _ = evidence(1)
    assert Costs("classification", single).minutes(CNN, n, side_of(datasets[0]))["cpu"] == pytest.approx(6 / 60)


def test_default_image_size_is_that_of_training():
    from metamed.recommend.costs import IMAGE_SIZE
    from metamed.training import DEFAULTS

    assert DEFAULTS["image_size"] == IMAGE_SIZE


def test_gpu_minutes_only_from_gpu_runs():
    store, _ = evidence(1, device="cuda")
    assert set(Costs("classification", store).minutes(CNN, 100, 16)) == {"cuda"}


# ---- cautions


def test_warnings_name_what_is_wrong():
    data = blobs(60)
    assert any("60 labelled samples" in w for w in caution.warnings_of(data))
    assert any("no patient ids" in w for w in caution.warnings_of(replace(data, groups=None)))
    assert any("no patient ids" in w for w in caution.warnings_of(replace(data, groups=np.arange(60))))
    skewed = replace(data, target=(np.arange(60) < 3).astype(int))
    assert any("19:1" in w for w in caution.warnings_of(skewed))
    assert any("3 samples" in w for w in caution.warnings_of(skewed))
    assert caution.warnings_of(blobs(400)) == []


def test_copies_of_an_image_with_another_patient_are_a_leak():
    images = blobs(400).images.array.copy()
    images[200:240] = images[:40]
    assert any("nearly identical" in w for w in caution.warnings_of(replace(blobs(400), images=ArrayImages(images))))


def test_facts_line_counts(classification_data, mil_data):
    line = caution.facts_line(classification_data, "classification")
    assert line == "60 images 16x16x3 uint8, 2 classes (imbalance 1:1), 30 groups (classification)"
    line = caution.facts_line(mil_data, "mil")
    assert line.startswith(f"20 bags, {len(mil_data.images)} vectors of 8 features float32")


def _cloud(n, **columns):
    return {f"d{i}": (f"name{i}", f"family{i}", {k: v[i] for k, v in columns.items()}) for i in range(n)}


def test_a_dataset_far_from_all_others_is_outside_of_experience():
    cloud = _cloud(5, a=[1, 2, 3, 4, 5], b=[0.1, 0.2, 0.3, 0.2, 0.1])
    inside, outside = (caution.experience({"a": a, "b": 0.2, "c": 1.0}, cloud) for a in (2.0, 1e9))
    assert not inside.outside and inside.nearest[0] == ("name1", 0.0)
    assert outside.outside and outside.limit == inside.limit


def test_experience_needs_three_families_and_shared_columns():
    assert math.isnan(caution.experience({"a": 1.0}, _cloud(2, a=[1, 2])).limit)
    assert caution.experience({"b": 1.0}, _cloud(5, a=[1, 2, 3, 4, 5])).nearest == ()
    assert caution.experience({"a": math.nan}, _cloud(5, a=[1, 2, 3, 4, 5])).nearest == ()


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=8), st.floats(-1e6, 1e6))
def test_the_nearest_is_never_farther_than_the_next(values, own):
    near = caution.experience({"a": own}, _cloud(len(values), a=values)).nearest
    assert [d for _, d in near] == sorted(d for _, d in near) and all(d >= 0 for _, d in near)


# ---- wishes


@pytest.mark.parametrize(("licence", "free"), [
    ("Apache-2.0", True), ("MIT (repository LICENSE)", True), ("CC BY 4.0", True), ("CC0 1.0", True),
    ("BSD-3-Clause", True), ("CC BY-NC 4.0", False), ("CC-BY-NC-ND", False), ("", False), ("unknown", False),
    ("free for non-commercial use", False), ("no formal licence; offered for research", False),
])  # fmt: skip
def test_silence_is_no_permission(licence, free):
    assert commercial(licence) is free


def test_wrong_wishes_are_refused_before_any_work():
    with pytest.raises(MetamedError, match="cpu or cuda"):
        Wishes(None, "tpu", None)
    with pytest.raises(MetamedError, match="commercial"):
        Wishes(None, None, "cheap")


def test_sources_are_weighed_by_how_far_above_chance_they_are_predicted():
    candidates = [Candidate(PROBE, 0.6, 0.5, 0.7), Candidate(TUNED, 0.9, 0.8, 1.0), Candidate(CNN, 0.99, 0, 1)]
    found, how = weigh_sources(candidates, pictures(20, 1), Store.memory())
    assert dict(found) == {"open.net": pytest.approx(0.8), "closed.net": pytest.approx(0.2)} and "predicted" in how[0]
    assert [name for name, _ in found] == ["open.net", "closed.net"]
    unknown = [Candidate(TUNED, math.nan, math.nan, math.nan)]
    assert weigh_sources(unknown, pictures(20, 1), Store.memory()) == ((), [])


@pytest.mark.parametrize(("score", "weights"), [(0.98, [1.0]), (0.97, [0.5, 0.5]), (0.4, [0.5, 0.5])])
def test_one_source_is_enough_where_it_is_expected_to_solve_the_task(score, weights):
    candidates = [Candidate(PROBE, score, 0, 1), Candidate(TUNED, score, 0, 1)]
    found, how = weigh_sources(candidates, pictures(20, 1), Store.memory())
    assert [weight for _, weight in found] == weights and ("one source is enough" in how[0]) == (len(weights) == 1)


def test_no_ensemble_is_told_of_masks(segmentation_data):
    candidates = [Candidate(PROBE, 0.6, 0.5, 0.7), Candidate(TUNED, 0.9, 0.8, 1.0)]
    assert weigh_sources(candidates, segmentation_data, Store.memory()) == ((("open.net", 1.0),), [])


# ---- ensembles of sources


def test_sources_of_a_dataset_with_runs_are_weighed_on_validation():
    store, datasets = evidence(1)
    data, index = datasets[0], np.arange(10)
    right, wrong = np.eye(2)[data.target[:10]], np.eye(2)[1 - data.target[:10]]
    for run in store.runs():
        answers = right if run.setup == TUNED.id else wrong
        file = io.BytesIO()
        np.savez(file, validation=answers, test=answers, validation_index=index, test_index=index + 20)
        store.add(run, artifacts={"predictions.npz": file.getvalue()})
    found, how = weigh_sources([], data, store)
    assert found == (("open.net", 1.0),) and "validation" in how[0] and "one source is enough" in how[0]


# ---- kinds


def test_a_dataset_can_be_seen_as_another_kind(segmentation_data):
    both = replace(segmentation_data, target=np.arange(20) % 2)
    assert both.kind == "segmentation" and as_kind(both, "classification").kind == "classification"
    assert as_kind(both, None) is both
    with pytest.raises(NotApplicable, match="cannot be seen as mil: it has no bags"):
        as_kind(both, "mil")
    with pytest.raises(UnknownName, match="did you mean segmentation"):
        as_kind(both, "segmentations")


# ---- the whole path


def test_the_best_setups_elsewhere_come_first_and_only_what_was_run_is_named(known):
    store, _ = known
    answer = recommend(pictures(100, 99), store)
    assert answer.ranking[0].setup == TUNED and answer.ranking[-1].setup == CNN
    assert {c.setup for c in answer.ranking} <= set(SETUPS)
    runs = {r.id for r in store.runs()}
    assert answer.explanation["known"] == []
    for c in answer.ranking:
        assert c.evidence and set(c.evidence) <= runs and 0 <= c.low <= c.score <= c.high <= 1 and c.cost["cpu"] > 0
    assert answer.measure == "auc" and answer.basis and len(answer.explanation["why"]) in (2, 3)
    assert any("GPU" in a for a in recommend(pictures(100, 99), store, device="cuda").assumptions)


def test_the_same_question_has_the_same_answer(known):
    assert repr(recommend(pictures(100, 99), known[0])) == repr(recommend(pictures(100, 99), known[0]))


def test_a_fitted_learner_is_kept_for_the_same_evidence_and_for_no_other(known, tmp_path):
    first = recommend(pictures(100, 99), known[0])
    (kept,) = tmp_path.rglob("*.json")
    before = kept.stat().st_mtime_ns
    assert repr(recommend(pictures(100, 99), known[0])) == repr(first) and kept.stat().st_mtime_ns == before
    other, _ = evidence(5)
    recommend(pictures(100, 99), other)
    assert len(list(tmp_path.rglob("*.json"))) == 2
    kept.write_text("{}")
    assert repr(recommend(pictures(100, 99), known[0])) == repr(first)


def test_top_cuts_the_list(known):
    assert len(recommend(pictures(100, 99), known[0], top=2).ranking) == 2


def test_a_known_dataset_is_recognised_and_answered_from_its_own_runs(known):
    store, datasets = known
    answer = recommend(datasets[2], store)
    assert answer.explanation["known"][0][1] == "set2"
    assert "shares 100% of its images with set2: 8 runs" in answer.explanation["why"][0]
    scores = {c.setup: c.score for c in answer.ranking}
    task = make_task(datasets[2])
    observed = [r.score("auc") for r in store.runs(dataset="set2") if r.setup == TUNED.id and r.task == task.id]
    assert scores[TUNED] == pytest.approx(np.mean(observed))
    width = {c.setup: c.high - c.low for c in answer.ranking}
    assert 0.1 < width[TUNED] < 0.6  # a test part of 16 samples says little


def test_as_unknown_leaves_the_family_out(known):
    store, datasets = known
    answer = recommend(datasets[2], store, as_unknown=True)
    assert answer.explanation["known"] == [] and "set2" not in [n for n, _ in answer.explanation["nearest"]]
    own = {r.id for r in store.runs(dataset="set2")}
    assert not own & {id for c in answer.ranking for id in c.evidence}


def test_forgetting_a_family_takes_what_was_learned_from_it(known):
    store, _ = known
    rest = forget(store, {"set1", "set2"})
    assert len(rest.runs()) == len(store.runs()) * 4 // 6 and not rest.runs(dataset="set1")
    assert len(store.runs(dataset="set1")) > 0  # the evidence itself is untouched


def test_commercial_licences_only(known):
    answer = recommend(pictures(100, 99), known[0], licence="commercial")
    assert PROBE not in [c.setup for c in answer.ranking] and TUNED in [c.setup for c in answer.ranking]
    assert any("1 of 4 setups were left out" in a for a in answer.assumptions)


def test_a_source_that_learned_from_the_dataset_is_not_offered(known):
    chest = replace(pictures(100, 99), name="chest")
    assert PROBE not in [c.setup for c in recommend(chest, known[0]).ranking]


def test_a_budget_that_nothing_fits_says_the_cheapest(known):
    with pytest.raises(NotApplicable, match=r"no setup fits.*cheapest known needs"):
        recommend(pictures(100, 99), known[0], budget="0.1s")
    assert len(recommend(pictures(100, 99), known[0], budget="10h").ranking) == 4


def test_without_evidence_there_is_no_answer(known):
    with pytest.raises(EmptyStore, match="no runs"):
        recommend(blobs(100), Store.memory())
    data = blobs(40)
    masked = replace(data, target=None, groups=None, masks=(data.images.array[:, 0] > 150).astype(np.uint8))
    with pytest.raises(NotApplicable, match="no evidence for segmentation"):
        recommend(masked, known[0])


@pytest.mark.parametrize(("change", "words"), [
    ({"target": None}, "no labels"),
    ({"target": np.zeros(100, int)}, "one class"),
    ({"target": np.r_[0, 1, 0, 1, np.full(96, -1)]}, "at least 10"),
])  # fmt: skip
def test_what_cannot_be_learned_is_refused(known, change, words):
    with pytest.raises(NotApplicable, match=words) as error:
        recommend(replace(blobs(100), **change), known[0])
    assert error.value.exit_code == 4


def test_nothing_heavy_is_imported_on_the_way(tmp_path):
    """With the evidence and the learner that ship: an outdated learner would be fitted again, which imports xgboost."""
    root = Path(__file__).parents[1]
    code = (
        "import sys\n"
        "from metamed.cli import call\n"
        "assert call(['recommend', '--dataset', 'docs/examples/retina.h5', '--json']) == 0\n"
        "heavy = {'torch', 'sklearn', 'pandas', 'xgboost', 'scipy', 'openml', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    environment = os.environ | {"METAMED_STORE": str(tmp_path / "none.db"), "METAMED_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=environment)
    assert done.stderr == "" and json.loads(done.stdout)["ranking"]


def test_a_known_dataset_answers_from_runs_of_about_its_size():
    from metamed.recommend import Evidence
    from metamed.store.evidence import DatasetFacts

    store = Store.embedded()
    facts = store.dataset("dr_fundus_rahim")
    assert isinstance(facts, DatasetFacts)
    evidence = Evidence.of(store, "classification")

    def sizes(n: int) -> set[str]:
        return {row["protocol"] for rows in evidence.own(facts, n).values() for row in rows}

    assert all("n=100" in protocol for protocol in sizes(90)) and all("n=50" in protocol for protocol in sizes(30))
    assert not any("n=" in protocol for protocol in sizes(facts.n_samples))
