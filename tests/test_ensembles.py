"""Ensembles of stored runs: chosen on validation, reported on test."""

import io
from dataclasses import replace

import numpy as np
import pytest
from conftest import blobs, scenes
from hypothesis import given, settings
from hypothesis import strategies as st

from metamed import ensembles
from metamed.ensembles import HOW, ensemble, gain, greedy, mixed, setup_ensemble, source_ensemble, weigh
from metamed.errors import MetamedError, NotApplicable, UnknownName
from metamed.measures import get_measure
from metamed.records import Run, Setup, Source
from metamed.store import Store
from metamed.tasks import make_task

AUC = get_measure("auc")


def drawn(seed: int, members: int, n: int = 24, classes: int = 3):
    """Truth and members that know more or less of it."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.arange(n) % classes)
    knows = rng.uniform(0, 0.6, members)
    found = {f"m{i}": (1 - k) * rng.dirichlet(np.ones(classes), n) + k * np.eye(classes)[truth]
             for i, k in enumerate(knows)}  # fmt: skip
    return truth, found


cases = {"seed": st.integers(0, 10_000), "members": st.integers(1, 5), "how": st.sampled_from(sorted(HOW)),
         "measure": st.sampled_from(["auc", "accuracy", "log_loss", "kappa"])}  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(**cases)
def test_weights_sum_to_one_in_any_order(seed, members, how, measure):
    truth, found = drawn(seed, members)
    weights = weigh(how, found, truth, get_measure(measure))
    assert sum(weights.values()) == pytest.approx(1) and all(w > 0 for w in weights.values())
    assert list(weights.values()) == sorted(weights.values(), reverse=True) and set(weights) <= set(found)
    assert weigh(how, dict(reversed(found.items())), truth, get_measure(measure)) == weights


@settings(max_examples=60, deadline=None)
@given(seed=cases["seed"], members=cases["members"], measure=cases["measure"])
def test_greedy_is_never_worse_than_the_best_single_where_it_is_chosen(seed, members, measure):
    truth, found = drawn(seed, members)
    measure = get_measure(measure)
    sign = 1 if measure.higher else -1
    alone = max(sign * measure(truth, p) for p in found.values())
    assert sign * measure(truth, mixed(found, greedy(found, truth, measure))) >= alone - 1e-9


@settings(max_examples=30, deadline=None)
@given(seed=cases["seed"], how=cases["how"], measure=cases["measure"])
def test_identical_members_are_one(seed, how, measure):
    truth, found = drawn(seed, 1)
    twins, measure = {name: found["m0"] for name in "abc"}, get_measure(measure)
    together = mixed(twins, weigh(how, twins, truth, measure))
    assert np.allclose(together, found["m0"]) and gain(how, twins, truth, measure)[0] == pytest.approx(0, abs=1e-6)


def test_greedy_takes_the_perfect_member_alone_and_both_of_two_that_complete_each_other():
    truth = np.arange(40) % 2
    perfect, noise = np.eye(2)[truth], np.random.default_rng(0).dirichlet([1, 1], 40)
    assert greedy({"a": noise, "b": perfect}, truth, AUC) == {"b": 1.0}
    half = np.arange(40) < 20
    one, other = (np.where(part[:, None], perfect, 0.5) for part in (half, ~half))
    both = {"a": one, "b": other}
    assert greedy(both, truth, AUC) == {"a": 0.5, "b": 0.5}
    assert greedy({"a": noise, "b": perfect}, truth, get_measure("log_loss")) == {"b": 1.0}
    assert gain("greedy", both, truth, AUC)[0] > 0.1 and gain("mean", both, truth, AUC)[0] > 0.1


def test_weights_grow_with_what_is_reached_beyond_chance():
    truth = np.arange(60) % 2
    good, fair, useless = (k * np.eye(2)[truth] + (1 - k) * np.eye(2)[np.arange(60) // 7 % 2] for k in (1, 0.5, 0))
    weights = weigh("weighted", {"a": fair * 0 + 0.5, "b": good, "c": useless}, truth, AUC)
    assert weights["b"] > 0.8 > 0.2 > weights.get("c", 0) and "a" not in weights
    assert weigh("weighted", {"a": fair * 0 + 0.5}, truth, AUC) == {"a": 1.0}


def test_several_labels():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (50, 4))
    found = {name: np.clip(truth + rng.normal(0, s, truth.shape), 0, 1) for name, s in (("a", 0.5), ("b", 0.9))}
    assert weigh("weighted", found, truth, AUC)["a"] > 0.5 and np.isfinite(gain("greedy", found, truth, AUC)).all()


@settings(max_examples=40, deadline=None)
@given(seed=cases["seed"], per_group=st.integers(1, 3))
def test_halves_divide_no_group_and_share_every_class(seed, per_group):
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(12), per_group))
    truth = groups % 3
    half = ensembles._half(truth, groups, rng)
    assert not set(groups[half]) & set(groups[~half])
    assert set(truth[half]) == set(truth[~half]) == {0, 1, 2}


def test_unknown_ways_are_refused():
    with pytest.raises(UnknownName, match="did you mean greedy"):
        weigh("greed", *reversed(drawn(0, 1)), AUC)


# ---- of stored runs


def keep(store, task, setup, seed, validation, test=None, **changes) -> Run:
    """A run with these predictions in the store."""
    split, file = task.folds[0], io.BytesIO()
    test, compact = validation if test is None else test, np.uint8 if task.kind == "segmentation" else np.float16
    np.savez(file, validation=validation.astype(compact), test=test.astype(compact),
             validation_index=np.array(split.validation), test_index=np.array(split.test))  # fmt: skip
    run = Run(task.id, setup.id, seed, (1, 1), {"auc": (0.5,)}, 1.0, **changes)
    store.add_all([task, setup])
    store.add(run, artifacts={"predictions.npz": file.getvalue()})
    return run


@pytest.fixture
def two():
    """A store with runs from two sources, each right on one half of the samples."""
    data, store = blobs(400, size=8), Store.memory()
    task = make_task(data)
    split, runs = task.folds[0], []
    store.add(data)
    for k, name in enumerate("ab"):
        store.add(Source(name, "small_cnn_16x2", "supervised", (name,), "own", name * 8, "", "path"))
        answers = []
        for part in (split.validation, split.test):
            truth = np.eye(2)[data.target[list(part)]]
            right = (np.arange(len(part)) // 4 % 2 == k)[:, None]
            answers.append(np.where(right, truth, 0.5))
        runs.append(keep(store, task, Setup("small_cnn", {}, "finetune", (name,)), k, *answers))
    return data, store, task, runs


def test_two_halves_make_a_whole(two):
    data, store, _, runs = two
    for how in ("greedy", "mean", "weighted"):
        found = ensemble(runs, data, store, how=how)
        assert set(found.weights) == {run.id for run in runs} and found.measure == "auc"
        assert found.validation == found.test == 1 > found.single[2] and found.gain > 0 and not found.one_is_enough
        assert ensemble(runs[::-1], data, store, how=how) == found
    weights, found = source_ensemble(data, store)
    assert set(weights) == {"a", "b"} and not found.one_is_enough


def test_the_test_part_decides_nothing(two):
    data, store, task, runs = two
    split, other = task.folds[0], Store.memory()
    for run in runs:
        kept = ensembles.stored(run, store)
        rubbish = np.random.default_rng(run.seed).dirichlet([1, 1], len(split.test))
        keep(other, task, store.get(run.setup), run.seed, kept["validation"], rubbish)
    before, after = ensemble(runs, data, store), ensemble(runs, data, other)
    assert after.weights == before.weights and after.gain == before.gain and after.test < before.test


def test_one_source_is_enough_where_the_other_knows_nothing_new(two):
    data, store, task, runs = two
    truth = np.eye(2)[data.target[list(task.folds[0].validation)]]
    test = np.eye(2)[data.target[list(task.folds[0].test)]]
    best = keep(store, task, Setup("small_cnn", {}, "finetune", ("a",)), 7, truth, test)
    weights, found = source_ensemble(data, store)
    assert found.one_is_enough and found.single == (best.id, 1.0, 1.0) and weights["a"] > weights["b"]


def test_runs_of_two_tasks_or_without_predictions_are_refused(two):
    data, store, task, runs = two
    other = make_task(data, size=100)
    more = keep(store, other, Setup("small_cnn"), 0, np.full((len(other.folds[0].validation), 2), 0.5))
    with pytest.raises(MetamedError, match="of one task, these are of 2"):
        ensemble([*runs, more], data, store)
    bare = Store.memory()
    bare.add_all([task, *(store.get(run.setup) for run in runs), *runs])
    with pytest.raises(NotApplicable, match="none of 2 runs on blobs has stored predictions"):
        ensemble(runs, data, bare)
    assert source_ensemble(data, bare) is None


# ---- masks are voted on


def test_each_pixel_gets_the_class_with_most_weight():
    masks = {name: np.array([[row]], np.uint8) for name, row in
             {"a": [0, 1, 1, 2], "b": [0, 1, 2, 0], "c": [0, 2, 2, 1]}.items()}  # fmt: skip
    assert mixed(masks, dict.fromkeys("abc", 1 / 3)).tolist() == [[[0, 1, 2, 0]]], "the majority, of equals the lowest"
    assert mixed(masks, {"a": 0.6, "b": 0.2, "c": 0.2}).tolist() == masks["a"].tolist()
    assert mixed(masks, {"b": 0.5, "c": 0.3, "a": 0.2}).tolist() == [[[0, 1, 2, 0]]]
    assert mixed(masks, {"a": 1.0}).dtype == np.uint8


@settings(max_examples=15, deadline=None)
@given(seed=cases["seed"], how=cases["how"], measure=st.sampled_from(["dice", "hd95"]))
def test_weights_of_masks(seed, how, measure):
    rng, truth, measure = np.random.default_rng(seed), scenes(6).masks, get_measure(measure)
    found = {f"m{i}": np.where(rng.random(truth.shape) < rng.uniform(0, 0.4), 0, truth) for i in range(3)}
    weights = weigh(how, found, truth, measure)
    assert sum(weights.values()) == pytest.approx(1) and weights == weigh(
        how, dict(reversed(found.items())), truth, measure
    )
    twins = {name: found["m0"] for name in "ab"}
    assert np.array_equal(mixed(twins, weigh(how, twins, truth, measure)), found["m0"])


def test_a_member_that_finds_nothing_has_no_weight():
    truth = scenes(6).masks
    assert weigh("weighted", {"a": truth, "b": 0 * truth}, truth, get_measure("dice")) == {"a": 1.0}
    assert weigh("weighted", {"a": truth, "b": 0 * truth}, truth, get_measure("hd95")) == {"a": 1.0}


@pytest.fixture
def three():
    """A store with masks from three setups, each of which misses everything in another third of the images."""
    data, store = scenes(60), Store.memory()
    task = make_task(data)
    split, runs = task.folds[0], []
    store.add(data)
    for k in range(3):
        store.add(Source(f"s{k}", "small_cnn_16x2", "supervised", ("x",), "own", f"{k}" * 8, "", "path"))
        blind = [np.arange(len(part)) % 3 == k for part in (split.validation, split.test)]
        answers = [np.where(not_seen[:, None, None], 0, data.masks[list(part)])
                   for not_seen, part in zip(blind, (split.validation, split.test), strict=True)]  # fmt: skip
        runs.append(keep(store, task, Setup("unet_encoder", {}, "finetune", (f"s{k}",)), 0, *answers))
    return data, store, task, runs


def test_the_majority_knows_what_each_alone_does_not(three):
    data, store, task, runs = three
    for how in ("mean", "weighted"):
        found = ensemble(runs, data, store, how=how)
        assert found.measure == "dice" and found.validation == found.test == 1 > found.single[2]
        assert found.gain > 0.2 and not found.one_is_enough and set(found.weights) == {run.id for run in runs}
    weights, found = setup_ensemble(data, store)
    assert set(weights) == {run.setup for run in runs} and found.test == 1
    assert set(source_ensemble(data, store)[0]) == {"s0", "s1", "s2"}
    other = Store.memory()
    for run in runs:
        kept = ensembles.stored(run, store)
        keep(other, task, store.get(run.setup), run.seed, kept["validation"], 0 * kept["test"])
    after = ensemble(runs, data, other)
    assert after.test == 0 and after.weights == ensemble(runs, data, store).weights, "the test part decides nothing"


def test_what_has_neither_classes_nor_masks_is_refused(three):
    data, store, _, runs = three
    with pytest.raises(
        NotApplicable, match="scenes: an ensemble joins answers to classes or masks, and it has neither"
    ):
        ensemble(runs, replace(data, masks=None), store)
