"""Tuning starts from what is recommended, goes on where it stopped, and chooses by validation alone."""

import pytest
from conftest import blobs

from metamed import tuning
from metamed.errors import MetamedError
from metamed.methods import Choice, Float, Int
from metamed.records import Setup
from metamed.store import Store
from metamed.tasks import make_task
from metamed.tuning import Branch, tune

QUICK = {"epochs": 2, "width": 16, "depth": 2, "image_size": 28}
DATA = blobs(60)
STARTS = (Setup("small_cnn", QUICK), Setup("small_cnn", {**QUICK, "learning_rate": 0.01, "epochs": 1}))


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "own.db") as store:
        yield store


def test_the_space_is_that_of_the_signatures():
    space = Branch(Setup("small_cnn")).space
    assert space["depth"] == ("small_cnn.depth", Int(2, 5), 3)
    assert space["learning_rate"] == ("learning_rate", Float(1e-5, 1e-1, log=True), 1e-3)
    assert isinstance(space["augment"][1], Choice) and not set(tuning.FIXED) & set(space)


def test_what_comes_from_a_source_keeps_its_architecture():
    tuned = Branch(Setup("small_cnn", {"width": 16}, "finetune", ("s",)))
    assert {"width", "depth"}.isdisjoint(tuned.space) and {"dropout", "encoder_factor"} <= set(tuned.space)
    assert tuned.fixed == {"width": 16}
    assert set(Branch(Setup("probe.linear", {"image_size": 28}, None, ("s",))).space) == {"c", "scaling"}


def test_starts_are_tried_first_and_every_completed_trial_is_a_run(store):
    told = []
    found = tune(DATA, store, trials=4, starts=STARTS, device="cpu", report=told.append)
    runs = {run.id: run for run in store.runs()}
    assert [t.setup for t in found.trials[:2]] == [
        "small_cnn(depth=2, epochs=2, image_size=28, width=16) · from scratch",
        "small_cnn(depth=2, epochs=1, image_size=28, learning_rate=0.01, width=16) · from scratch",
    ]
    assert len(found.trials) == 4 == len(told)
    for trial in found.trials:
        if trial.state == "complete":
            assert runs[trial.run].score("validation_auc") == trial.score and runs[trial.run].seed == 0
    best = max(t.score for t in found.trials if t.state == "complete")
    assert found.run.score("validation_auc") == best and store.get(found.run.id) == found.run


def test_it_goes_on_where_it_stopped(store, monkeypatch):
    tune(DATA, store, trials=2, starts=STARTS, device="cpu")
    monkeypatch.setattr(tuning, "recommend", None)  # the space is the one that the study began with
    done = []
    found = tune(DATA, store, trials=3, device="cpu", report=done.append)
    assert len(found.trials) == 3 and [t.number for t in done] == [2]
    assert tune(DATA, store, trials=3, device="cpu", report=done.append).trials == found.trials and len(done) == 1


def test_an_interrupted_trial_is_tried_again(store, monkeypatch):
    ours, calls = tuning.run_setup, []

    def stopped(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return ours(*args, **kwargs)

    monkeypatch.setattr(tuning, "run_setup", stopped)
    with pytest.raises(KeyboardInterrupt):
        tune(DATA, store, trials=2, starts=STARTS, device="cpu")
    found = tune(DATA, store, trials=2, device="cpu")
    done = [t for t in found.trials if t.state == "complete"]
    assert len(done) == 2 and calls[1][0] == calls[2][0]


def test_a_run_that_the_store_holds_is_not_made_again(store, monkeypatch):
    found = tune(DATA, store, trials=2, starts=STARTS, device="cpu")
    monkeypatch.setattr(tuning, "run_setup", None)
    scratch = tune(DATA, store, trials=0, starts=STARTS, device="cpu", from_scratch=False)
    assert scratch.run == found.run
    monkeypatch.setattr(tuning, "_storage", lambda store: None)  # a new study on the same store
    again = tune(DATA, store, trials=2, starts=STARTS, device="cpu")
    assert again.run == found.run and len(store.runs()) == 2


def test_the_test_score_is_never_chosen_by(store, monkeypatch):
    """Two runs, the better one by validation the worse one by test: validation wins."""
    ours = tuning.run_setup

    def turned(setup, *args, **kwargs):
        from dataclasses import replace

        first = setup.hyperparameters["learning_rate"] != 0.01
        values = {"validation_auc": (0.9 if first else 0.8,), "auc": (0.1 if first else 0.99,)}
        return replace(ours(setup, *args, **kwargs), evaluations=values)

    monkeypatch.setattr(tuning, "run_setup", turned)
    found = tune(DATA, store, trials=2, starts=STARTS, device="cpu")
    assert found.trials[0].score == 0.9 and found.run.id == found.trials[0].run


def test_a_trial_that_is_behind_is_pruned(store):
    """After five trials that learn, one whose loss is far above theirs is stopped in the middle, and is no run."""
    long = {**QUICK, "epochs": 6, "augment": "none"}
    good = [Setup("small_cnn", {**long, "learning_rate": rate}) for rate in (0.002, 0.003, 0.004, 0.005, 0.006)]
    slow = Setup("small_cnn", {**long, "learning_rate": 1e-5})
    found = tune(DATA, store, trials=6, starts=(*good, slow), device="cpu")
    assert [t.state for t in found.trials] == ["complete"] * 5 + ["pruned"]
    assert found.trials[5].run is None and len(store.runs()) == 5


def test_recommended_setups_are_the_start(store, monkeypatch):
    class Answer:
        def __init__(self, setups):
            self.ranking = [type("Candidate", (), {"setup": s, "runnable": True}) for s in setups]

    asked = {}
    monkeypatch.setattr(tuning, "recommend", lambda data, evidence, **o: asked.update(o) or Answer(STARTS[:1]))
    found = tune(DATA, store, trials=1, top=4, device="cpu")
    assert asked["top"] == 4 and found.setup.hyperparameters["width"] == 16


def test_failures_are_trials_too_and_all_failing_is_an_error(store, monkeypatch):
    def explode(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("metamed.training.fit", explode)
    with pytest.raises(MetamedError, match="none of 2 trials"):
        tune(DATA, store, trials=2, starts=STARTS, device="cpu")
    assert [run.error for run in store.runs()] == ["RuntimeError: out of memory"] * len(store.runs())


def test_trials_share_the_task(store):
    task = make_task(DATA, size=30)
    found = tune(DATA, store, trials=1, starts=STARTS, task=task, device="cpu")
    assert found.task == task and found.run.task == task.id


def test_the_benchmark_counts_trials_to_the_lower_final_score(tmp_path):
    import sys
    from pathlib import Path

    import numpy as np

    sys.path.append(str(Path(__file__).parents[1]))  # the benchmarks are not installed
    from benchmarks.tuning import Pair, page, plot

    rising = np.linspace(0.5, 0.9, 15)
    early = Pair("a", 0, np.maximum(rising, 0.8), rising - 0.1, (0.8, 0.7))
    late = Pair("b", 0, np.full(15, 0.7), np.full(15, 0.9), (0.7, 0.9))
    assert early.needed() == (1, 15) and late.needed() == (1, 1)
    text = page([early, late])
    assert "| a | 1 | 15 | 0.800 0.800 0.900 | 0.400 0.514 0.800 | 0.800 | 0.700 |" in text
    assert "earlier in 50% of 2 pairs, later in 0%" in text
    plot([early, late], tmp_path / "x.svg")
    assert (tmp_path / "x.svg").read_text().startswith("<?xml")
