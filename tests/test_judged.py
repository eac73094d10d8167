"""What people said as learning takes it: one scale, whose answers count, and nothing of images that may not be seen."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import blobs
from hypothesis import given
from hypothesis import strategies as st
from test_similarity import triplets_by

from metamed.assessments import Ratings, Triplets
from metamed.dataset import Dataset
from metamed.errors import NotApplicable
from metamed.judged import above_chance, judged, mid_ranks, quality_of_ratings, standardised
from metamed.methods import Believed

ALL = np.arange(20)


def rated(people: dict[str, tuple[float, float]], slot: bool = False, seed: int = 0) -> Dataset:
    """20 images whose true level is their number, rated by each person as factor x level + noise."""
    rng = np.random.default_rng(seed)
    rows = [(image, who, factor * image + noise * rng.normal())
            for who, (factor, noise) in people.items() for image in ALL]  # fmt: skip
    image, who, score = (np.array(column) for column in zip(*rows, strict=True))
    marks = np.ones(len(rows), bool) if slot else None
    data = blobs(20)
    return Dataset("rated", data.images, data.target, ratings=Ratings(image, who, np.full(len(rows), "size"), score,
                                                                     slot=marks))  # fmt: skip


def test_scales_that_differ_become_one():
    said = judged(rated({"a": (1, 0), "b": (100, 0)}), ALL, Believed())
    assert said.attributes == ("size",) and said.scores.shape == (20, 1) and np.array_equal(said.index, ALL)
    assert np.array_equal(np.argsort(said.scores[:, 0]), ALL)
    assert said.scores.mean() == pytest.approx(0, abs=1e-9) and said.scores.std() == pytest.approx(1)
    assert said.weights == pytest.approx(np.ones((20, 1)))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 9))
def test_ranks_do_not_see_the_scale(scores, factor):
    scores, group = np.array(scores, float), np.arange(len(scores)) % 2
    assert np.allclose(mid_ranks(group, scores), mid_ranks(group, np.exp(factor * scores / 5)))
    level = standardised(group, scores)
    for k in np.unique(group):
        mine = level[group == k]
        assert abs(mine.mean()) < 1e-9 and (np.isclose(mine.var(), 1) or np.allclose(mine, 0))


def test_only_allowed_images_are_told_of():
    data = rated({"a": (1, 0)})
    assert np.array_equal(judged(data, np.array([3, 5, 7]), Believed()).index, [3, 5, 7])
    rows = np.array([[0, 1, 2], [3, 4, 5], [0, 1, 9]])
    data = Dataset("t", data.images, data.target, triplets=Triplets(*rows.T, np.zeros(3, int)))
    said = judged(data, np.arange(6), Believed("triplets"))
    assert np.array_equal(said.index[said.triplets], rows[:2]) and len(said) == 2
    with pytest.raises(NotApplicable, match="none of 0 triplets"):
        judged(data, np.arange(2), Believed())


def test_missing_scores_stay_missing():
    data = rated({"a": (1, 0)})
    two = np.array([f"{'size' if i < 15 else 'colour'}" for i in range(20)])
    ratings = Ratings(data.ratings.image, data.ratings.annotator, two, np.r_[np.nan, data.ratings.score[1:]])
    said = judged(Dataset("m", data.images, data.target, ratings=ratings), ALL, Believed())
    assert said.attributes == ("colour", "size") and len(said.index) == 19
    assert np.isnan(said.scores[:14, 0]).all() and (said.weights[:14, 0] == 0).all()


def test_quality_tells_careful_people_from_spammers_and_inverters():
    data = rated({"a": (1, 1), "b": (1, 1), "c": (1, 1), "spammer": (0, 1), "inverter": (-1, 1)})
    found = dict(zip(data.ratings.annotator, quality_of_ratings(data.ratings), strict=True))
    assert min(found[who] for who in "abc") > 0.8 and found["inverter"] < 0.3 < found["spammer"] < 0.75
    plain = judged(data, ALL, Believed()).scores[:, 0]
    kept = judged(data, ALL, Believed("ratings", "quality", 0.75)).scores[:, 0]
    assert np.corrcoef(kept, ALL)[0, 1] > 0.98 and np.corrcoef(kept, ALL)[0, 1] > np.corrcoef(plain, ALL)[0, 1]


def test_answers_in_slots_are_judged_one_by_one():
    data = rated({"1": (1, 0), "2": (1, 0), "3": (1, 0)}, slot=True)
    score = data.ratings.score.copy()
    score[5] = 100.0  # the first slot's answer for image 5 contradicts the two others
    ratings = Ratings(data.ratings.image, data.ratings.annotator, data.ratings.attribute, score, slot=data.ratings.slot)
    quality = quality_of_ratings(ratings)
    assert quality[5] < 0.2 and np.delete(quality, [5, 25, 45]).min() > 0.8


def test_weights_are_what_lies_above_chance():
    quality = np.array([0.4, 0.5, 0.75, 1.0, np.nan])
    assert above_chance(quality, 0.5) == pytest.approx([0, 0, 0.5, 1, 0.375])
    assert above_chance(quality, 0.8) == pytest.approx([0, 0, 0, 1, 0.25])
    assert above_chance(np.array([np.nan]), 0.5) == pytest.approx([1])


def test_triplets_of_spammers_and_inverters_are_left_out():
    """Three who look and one who answers the opposite: his answers are not believed, theirs count about equally."""
    level = np.arange(20.0)[:, None]
    parts = [triplets_by(level, 150, seed=k) for k in range(4)]
    parts[3] = replace(parts[3], closer=parts[3].farther, farther=parts[3].closer)
    who = np.repeat(["a", "b", "c", "inverter"], 150)
    columns = [np.concatenate([getattr(p, c) for p in parts]) for c in ("anchor", "closer", "farther")]
    data = blobs(20)
    data = Dataset("t", data.images, data.target, triplets=Triplets(*columns, who))
    said = judged(data, ALL, Believed("triplets", "quality", 0.6))
    assert len(said) == 450 and said.weights.min() > 0.5
    rows = said.index[said.triplets]
    assert np.array_equal(rows, np.stack(columns, axis=1)[:450])
    assert len(judged(data, ALL, Believed("triplets"))) == 600


def test_one_rating_each_has_no_quality_and_counts():
    said = judged(rated({"a": (1, 0)}), ALL, Believed("ratings", "quality", 0.9))
    assert len(said) == 20 and said.weights == pytest.approx(np.ones((20, 1)))


def test_what_is_missing_is_said():
    data = blobs(20)
    with pytest.raises(NotApplicable, match="blobs has no triplets or ratings to learn from .found: no assessments"):
        judged(data, ALL, Believed())
    with pytest.raises(NotApplicable, match="rated has no triplets to learn from .found: ratings"):
        judged(rated({"a": (1, 0)}), ALL, Believed("triplets"))
    with pytest.raises(NotApplicable, match="keep=labels leaves out triplets"):
        judged(rated({"a": (1, 0)}), ALL, Believed("ratings", "labels"))
    with pytest.raises(NotApplicable, match="none of 60 ratings.*keep=all"):
        judged(rated({"a": (0, 1), "b": (0, 1), "c": (0, 1)}), ALL, Believed("ratings", "quality", 1.0))
