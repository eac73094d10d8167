"""Records of answers: what cannot be right is counted, repeats are kept, rankings become triplets or ratings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metamed.assessments import (
    Rankings,
    Ratings,
    Triplets,
    checked,
    checked_ratings,
    comparisons,
    gold_of_labels,
    informative,
    ratings_of_rankings,
    triplets_of_rankings,
)
from metamed.errors import ReadError


def triplets(rows, annotator, **more) -> Triplets:
    return Triplets(*np.array(rows).T, np.array(annotator), **more)


def test_columns_must_be_of_one_length():
    with pytest.raises(ReadError, match="differ in length"):
        Triplets(np.zeros(2, int), np.ones(2, int), np.ones(2, int), np.zeros(3))
    with pytest.raises(ReadError, match="'score': 1"):
        Ratings(np.zeros(2, int), np.zeros(2), np.zeros(2), np.zeros(1))


def test_taking_rows_takes_all_columns():
    t = triplets([(0, 1, 2), (0, 2, 1), (1, 0, 2)], list("aab"), time=np.array([1.0, 2, 3]))
    part = t.take(np.array([False, False, True]))
    assert len(part) == 1 and part.time[0] == 3 and part.annotator[0] == "b" and part.side is None


def test_what_cannot_be_right_is_counted():
    rows = [(0, 1, 2), (0, 2, 1), (1, 1, 2), (1, 2, 1), (9, 0, 1), (2, 1, 1), (0, 1, 2), (-1, 0, 1)]
    kept, found = checked(triplets(rows, list("aabbcaad")), 5)
    assert found == {"unknown image": 2, "same candidates": 1, "attention check": 2, "repeated": 1, "contradictory": 2}
    assert kept.gold.tolist() == [-1, -1, 1, 0, -1]  # the check that b passed, and the one that b failed
    assert informative(kept).annotator.tolist() == ["a", "a", "a"]


def test_ratings_that_cannot_be_right_are_counted():
    ratings = Ratings(np.array([0, 0, 0, 7, 1, 2]), np.array(list("aaaabb")), np.array(["size"] * 6),
                      np.array([1, 1, 2, 1, np.nan, 3.0]))  # fmt: skip
    kept, found = checked_ratings(ratings, 5)
    assert found == {"unknown image": 1, "no score": 1, "repeated": 1, "contradictory": 1, "single answer": 1}
    assert kept.score.tolist() == [1, 1, 2, 3]


def test_slots_are_not_counted_as_people():
    t = triplets([(0, 1, 2)], ["first"], slot=np.array([True]))
    assert not t.persistent.any() and "single answer" not in checked(t, 3)[1]


@given(st.lists(st.tuples(*[st.integers(-2, 6)] * 3, st.integers(0, 3)), max_size=40))
def test_nothing_disappears_uncounted(rows):
    table = np.array(rows, int).reshape(-1, 4)
    kept, found = checked(Triplets(*table.T), 5)
    assert len(kept) + found.get("unknown image", 0) + found.get("same candidates", 0) == len(rows)
    assert checked(kept, 5)[1].get("unknown image") is None


def test_gold_by_class():
    t = triplets([(0, 1, 2), (0, 2, 1), (0, 1, 3), (0, 2, 4)], list("aaaa"))
    assert gold_of_labels(t, np.array([0, 0, 1, 0, -1])).tolist() == [1, 0, -1, -1]


RANKED = Rankings(
    np.array([0, 0, 0, 1, 1]), np.array(list("aaabb")), np.array([1, 2, 3, 0, 2]), np.array([0, 0, 1, 1, 0])
)


def test_rankings_become_triplets_without_the_ties():
    t = triplets_of_rankings(RANKED)
    rows = {(*map(int, r),) for r in zip(t.anchor, t.closer, t.farther, strict=True)}
    assert rows == {(0, 1, 3), (0, 2, 3), (1, 2, 0)}
    assert [a.size for a in comparisons(RANKED.take(slice(0, 0)))] == [0, 0]


def test_rankings_become_ratings():
    r = ratings_of_rankings(RANKED)
    assert r.image.tolist() == [0, 0, 0, 1, 1] and r.attribute.tolist() == [1, 2, 3, 0, 2] and r.score[2] == 1
