"""The experiments that we chose are well-formed, and start from a checkout."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]


def _suites():
    sys.path.insert(0, str(CHECKOUT))
    from benchmarks.suites import SUITES

    return SUITES


def _made() -> set[str]:
    """Names of the sources that suites make, or that learned nothing."""
    _suites()
    from benchmarks.suites import RANDOM, SUITES, made

    learned = [s for s in SUITES.values() if s.keep_weights]
    names = {made(d, setup.method, n) for s in learned for d in s.datasets for setup in s.setups for n in s.sizes}
    return names | {f"random{seed}.{network}" for network, seed in RANDOM}


@pytest.mark.parametrize("name", sorted(_suites()))
def test_every_setup_of_a_suite_can_be_run(name):
    from metamed.jobs import settings_of
    from metamed.methods import checked
    from metamed.store import Store

    known = {s.name for s in Store.embedded().records("source")} | _made()
    suite = _suites()[name]
    assert len(set(suite.datasets)) == len(suite.datasets) and len(set(suite.setups)) == len(suite.setups)
    for setup in suite.setups:
        assert checked(setup, *settings_of(setup)) == setup, "write only what differs from the defaults"
        assert set(setup.sources) <= known


@pytest.mark.parametrize("module", ["run", "ship", "exams", "speed"])
def test_benchmarks_start_from_a_checkout(module):
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", "--help"], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "usage" in done.stdout, done.stderr


def test_every_dataset_is_a_source_and_every_source_a_dataset():
    _suites()
    from benchmarks.suites import CLASSIFICATION, COMPACT, IN_TURN

    assert sorted(IN_TURN) == sorted(CLASSIFICATION) and set(COMPACT) < set(CLASSIFICATION)


def test_the_loop_comes_to_the_loss_of_a_plain_one(monkeypatch):
    import torch

    _suites()
    from benchmarks.speed import timing, training

    monkeypatch.setattr(timing, "REPEATS", 1)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    assert all(side > 0 for side in training._loops("small_cnn"))  # raises where the losses differ
