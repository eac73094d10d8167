"""Annotators judged by the others, and by themselves."""

import numpy as np
import pytest
from test_crowd import PEOPLE, crowd
from test_crowd_consensus import RIGHT, rated

from metamed.assessments import Triplets
from metamed.crowd import embedding, left_out, sampling, transitivity


def test_others_predict_the_informed(monkeypatch):
    monkeypatch.setattr(sampling, "CHAINS", 1)
    monkeypatch.setattr(embedding, "ROUNDS", 0)
    triplets, _ = crowd(12, 150)
    found = left_out(triplets.take(triplets.annotator != "inverter"))  # else he is the majority
    assert tuple(found) == PEOPLE[:-1]
    assert found["careful"].low > 0.5 and found["careful"].kind == "informed"
    assert 0.35 < found["guesser"].value < 0.65


def test_others_predict_ratings():
    found = left_out(rated()[0], "border")
    assert set(found) == set(RIGHT)
    assert found["good"].value == pytest.approx(0.9 * 0.85, abs=0.15)  # the others are not always right
    assert found["inverter"].high < 0.5 < found["good"].low


def test_nobody_else_says_nothing():
    ratings, _ = rated()
    alone = ratings.take(ratings.annotator == "good")
    assert np.isnan(left_out(alone)["good"].value)


def triplets(rows: list, **more) -> Triplets:
    anchor, closer, farther = np.array(rows).T
    return Triplets(anchor, closer, farther, np.full(len(rows), "a"), **more)


def test_circles_are_found():
    straight = [(0, 1, 2), (0, 2, 3), (0, 1, 3)]
    assert transitivity(triplets(straight)) == {"a": 1.0}
    assert transitivity(triplets([*straight, (0, 3, 1)])) == {"a": 0.0}
    assert transitivity(triplets([(0, 1, 2), (1, 2, 0), (2, 0, 1)])) == {"a": 0.0}  # 01 < 02 < 12 < 01 the other way
    assert np.isnan(transitivity(triplets([(0, 1, 2), (0, 2, 3)]))["a"])
    assert transitivity(triplets(straight, slot=np.ones(3, bool))) == {}
