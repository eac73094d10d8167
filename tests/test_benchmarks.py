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


@pytest.mark.parametrize("name", sorted(_suites()))
def test_every_setup_of_a_suite_can_be_run(name):
    from metamed import training
    from metamed.methods import checked
    from metamed.store import Store

    suite, known = _suites()[name], {s.name for s in Store.embedded().records("source")}
    assert len(set(suite.datasets)) == len(suite.datasets) and len(set(suite.setups)) == len(suite.setups)
    for setup in suite.setups:
        assert checked(setup, training.SPACE, training.DEFAULTS) == setup, "write only what differs from the defaults"
        assert set(setup.sources) <= known


@pytest.mark.parametrize("module", ["run", "ship", "exams", "speed"])
def test_benchmarks_start_from_a_checkout(module):
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", "--help"], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "usage" in done.stdout, done.stderr
