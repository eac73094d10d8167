"""What the page of ideas counts: an idea that knows the truth gains, one that knows nothing does not."""

import sys
from pathlib import Path

import numpy as np

from metamed.exams.tables import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.ideas import _profile, by_runs, gains, networks_of  # noqa: E402


def table(n: int = 12, m: int = 10) -> Table:
    """Two kinds of items; each dataset suits one kind."""
    rng, kind = np.random.default_rng(0), np.arange(m) % 2
    scores = 0.7 + np.where(np.arange(n) % 2, 1, -1)[:, None] * np.where(kind, 1, -1) * 0.1
    scores = scores + rng.normal(0, 0.01, (n, m))
    names = tuple(f"d{i}" for i in range(n))
    return Table("t", "auc", names, tuple(f"i{j}" for j in range(m)), scores, names)


def rows(data: Table) -> list:
    masks = [np.arange(len(data.datasets)) == i for i in range(len(data.datasets))]
    return [(data.rows(~m), data.rows(m), np.zeros((1, len(data.items)))) for m in masks]


def test_runs_on_the_target_gain_and_the_shown_ones_are_not_counted():
    seen = []

    def nothing(train, target, order):
        seen.append(by_runs(4)(train, target, order)[1].sum())
        return order, np.ones(order.shape, bool)

    told = gains(rows(table()), by_runs(4))
    assert told.shape == (12, 2) and (told[:, 0] > 0).all() and told[:, 1].mean() < 0
    assert (gains(rows(table()), nothing) == 0).all() and set(seen) == {6}


def test_networks_are_known_by_their_family():
    words = np.array(["U-Net encoder resnet18", "DenseNet121", "something else"], dtype=object)
    data = Table("t", "auc", ("d",), ("a", "b", "c"), np.zeros((1, 3)), ("d",), descriptors={"method.0": words})
    assert networks_of(data).tolist() == ["resnet", "densenet", ""]


def test_a_profile_says_how_setups_differ_and_not_how_hard_a_dataset_is():
    logits = np.random.default_rng(0).normal(size=(4, 3))
    assert np.allclose(_profile(logits)[:4], _profile(logits + 5)[:4])
