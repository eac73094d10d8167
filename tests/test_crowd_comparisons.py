"""An order from comparisons by people of different skill."""

import numpy as np
import pytest

from metamed.crowd.comparisons import _Skills, order
from metamed.errors import NotApplicable

SKILL = {"expert": 5.0, "fair": 2.0, "guesser": 0.0, "inverter": -3.0}


def compared(items: int = 25, each: int = 150, seed: int = 0):
    rng = np.random.default_rng(seed)
    score = rng.normal(size=items)
    first, second = np.array([rng.choice(items, 2, replace=False) for _ in range(each * len(SKILL))]).T
    who = np.repeat(list(SKILL), each)
    gap = np.array([SKILL[name] for name in who]) * (score[first] - score[second])
    wins = rng.random(len(gap)) < 1 / (1 + np.exp(-gap))
    return score, np.where(wins, first, second), np.where(wins, second, first), who


def test_the_order_and_the_skills_are_found():
    score, *answers = compared()
    found = order(*answers)
    assert np.corrcoef(found.score, score)[0, 1] > 0.93
    assert np.mean((found.low <= score) & (score <= found.high)) > 0.8
    assert [found.quality[name].kind for name in SKILL] == ["informed", "informed", "guesser", "inverter"]
    for name, skill in SKILL.items():
        gap = np.abs(score[answers[0]] - score[answers[1]])
        true = (1 / (1 + np.exp(-skill * gap))).mean()
        assert found.quality[name].low - 0.02 <= true <= found.quality[name].high + 0.02


def test_the_gradient_is_that_of_the_density():
    _, better, worse, who = compared(6, 10)
    model = _Skills(better, worse, np.unique(who, return_inverse=True)[1], 6, 4)
    vector = np.random.default_rng(0).normal(size=model.size)
    _, gradient = model.density(vector, 0.5)
    for k, step in enumerate(np.eye(model.size) * 1e-5):
        numeric = (model.density(vector + step, 0.5)[0] - model.density(vector - step, 0.5)[0]) / 2e-5
        assert gradient[k] == pytest.approx(numeric, abs=1e-5)


def test_an_item_against_itself_says_nothing():
    with pytest.raises(NotApplicable, match="no comparison of two different items"):
        order(np.array([1, 2]), np.array([1, 2]), np.array(["a", "b"]))
