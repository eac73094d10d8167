"""Axes, labels, splits, groups and bags: every way of writing them means the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from metamed.dataset import UNLABELLED
from metamed.errors import ReadError
from metamed.readers.encodings import encode_bags, encode_groups, encode_labels, encode_split, find_axes


def tried(item: tuple[int, ...]):
    return find_axes([(5, *item)], np.uint8, "x").shape[1:]


@given(h=st.integers(8, 300), w=st.integers(8, 300), c=st.sampled_from([1, 3, 4]))
def test_channels_are_found_first_or_last(h, w, c):
    assert tried((h, w, c)) == (c, h, w) == tried((c, h, w))
    assert tried((h, w)) == (1, h, w)


@pytest.mark.parametrize(
    "item, expected",
    [
        ((28, 28, 28), (1, 28, 28, 28)),
        ((16, 128, 128), (1, 16, 128, 128)),
        ((64, 64, 13), (13, 64, 64)),
        ((28, 28, 28, 3), (3, 28, 28, 28)),
        ((1, 20, 30, 30), (1, 20, 30, 30)),
        ((4, 4, 3), (3, 4, 4)),
        ((3, 4, 4), (3, 4, 4)),
        ((1, 1, 3), (3, 1, 1)),
        ((512,), (512,)),
    ],
)
def test_axes_known_cases(item, expected):
    assert tried(item) == expected


@given(target=st.lists(st.integers(0, 4), min_size=8, max_size=40).filter(lambda t: set(t) == set(range(max(t) + 1))))
def test_every_way_of_writing_labels_means_the_same(target):
    target = np.array(target)
    names = np.array(["a", "b", "c", "d", "e"])[target]
    one_hot = np.eye(5, dtype=int)[target]
    for written in (target, target[:, None], target.reshape(-1, 1, 1, 1), target.astype(float), target.astype(np.uint8),
                    target + 0 * 10, names, names.astype("S"), names.astype(object), target.astype(str), one_hot,
                    one_hot.astype(bool)):  # fmt: skip
        assert np.array_equal(encode_labels(written)[0], target)
    spaced, classes, notes = encode_labels(target * 10 + 7)
    assert np.array_equal(spaced, target)
    assert classes == tuple(str(k * 10 + 7) for k in range(target.max() + 1)) and "renumbered" in notes[0]


@given(arrays(np.int8, st.tuples(st.integers(2, 20), st.integers(2, 6)), elements=st.integers(0, 1)))
def test_multi_label_stays(rows):
    rows[0] = 1  # more than one 1 in a row: no one-hot
    target, _, notes = encode_labels(rows)
    assert np.array_equal(target, rows) and "multi-label" in notes[0]


def test_missing_labels():
    for written in ([0.0, np.nan, 1], [0, -1, 1], ["a", "", "b"], [0, -9, 1], [[1.0, 0], [np.nan, 0], [0, 1]]):
        target, _, notes = encode_labels(np.array(written))
        assert target.tolist() == [0, UNLABELLED, 1] and "1 of 3 labels missing" in notes[-1]
    target, _, _ = encode_labels(np.array([[1.0, 1], [np.nan, 1]]))
    assert target.tolist() == [[1, 1], [-1, -1]]


def test_class_names():
    assert encode_labels(np.array([2, 0]), ("x", "y", "z"))[:2][1] == ("x", "y", "z")  # absent classes keep their name
    target, classes, _ = encode_labels(np.array([1, 2, 3]), ("x", "y", "z"))  # counted from one
    assert target.tolist() == [0, 1, 2] and classes == ("x", "y", "z")
    target, classes, _ = encode_labels(np.array(["z", "x"]), ("x", "y", "z"))
    assert target.tolist() == [2, 0] and classes == ("x", "y", "z")
    assert encode_labels(np.array([0, 1, 2]), ("x", "y"))[1] == ()


@pytest.mark.parametrize("written", [[0.5, 1], [np.inf, 1], [[0, 2], [1, 1]], np.zeros((2, 2, 2)), [None, 1]])
def test_what_is_no_label(written):
    with pytest.raises(ReadError):
        encode_labels(np.array(written, dtype=object if None in np.ravel(written) else float))


def test_split_and_groups():
    assert encode_split(np.array([b"train", b"Val", b"TEST"]))[0].tolist() == [0, 1, 2]
    assert encode_split(np.array([0, 1, 2, 3]))[0] is None
    groups, note = encode_groups(np.array(["p1", "", "p0", "p1", ""]))
    assert groups[0] == groups[3] and len(set(groups.tolist())) == 4 and "2 samples" in note


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.permutations(range(6)))
def test_bags_keep_their_labels(ids, labels):
    ids, labels = np.array(ids), np.array(labels)
    bags, place, _ = encode_bags(ids, None, 6)  # label of bag i at i, bags without instances left out
    assert np.array_equal(labels[place][bags], labels[ids])
    names = np.array([f"bag{i}" for i in labels])
    bags, place, _ = encode_bags(np.array([f"bag{i}" for i in ids]), names, 6)
    assert np.array_equal(names[place][bags], [f"bag{i}" for i in ids])
