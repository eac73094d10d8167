"""Measures of label images: known answers, MONAI's answers, and empty masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metamed.measures import MEASURES, evaluate, get_measure
from metamed.measures.masks import classes_of, outline, outline_distances, scores

MASKS = [name for name, m in MEASURES.items() if "segmentation" in m.kinds]
DIAGONAL = 9 * 2**0.5  # of images of 10 x 10 pixels


def square(top: int, left: int, side: int = 4, size: int = 10, value: int = 1) -> np.ndarray:
    image = np.zeros((1, size, size), np.uint8)
    image[:, top : top + side, left : left + side] = value
    return image


def smooth_labels(rng, n=4, size=24, classes=3) -> np.ndarray:
    """Label images of a few blots."""
    rows, columns = np.mgrid[:size, :size]
    out = np.zeros((n, size, size), np.uint8)
    for image in out:
        for k in range(1, classes):
            y, x, r = rng.uniform(4, size - 4, 2).tolist() + [rng.uniform(2, 7)]
            image[(rows - y) ** 2 + (columns - x) ** 2 < r**2] = k
    return out


def test_known_answers_for_a_square_that_moved_by_one():
    truth, said = square(2, 2), square(2, 3)
    values = evaluate("segmentation", truth, said)
    assert values["dice"] == pytest.approx(24 / 32) and values["iou"] == pytest.approx(12 / 20)
    assert values["hd95"] == 1 and values["boundary_f1"] == 1 and values["volume_difference"] == 0
    assert set(values) == set(MASKS), "a single class has no measures of its own"
    assert get_measure("volume_difference")(truth, square(2, 2, 2)) == pytest.approx(12 / 20)
    assert get_measure("boundary_f1")(square(0, 0, 2), square(8, 8, 2)) == 0


@pytest.mark.parametrize("name", MASKS)
def test_perfect_is_best_and_the_order_of_images_does_not_matter(name):
    measure, rng = MEASURES[name], np.random.default_rng(0)
    truth, said = smooth_labels(rng), smooth_labels(rng)
    best, worse = measure(truth, truth), measure(truth, said)
    assert best == (1 if measure.higher else 0)
    assert worse < best if measure.higher else worse > best
    order = rng.permutation(len(truth))
    assert measure(truth[order], said[order]) == pytest.approx(worse)
    assert (measure.function.__doc__ or "").strip()


def test_empty_masks_are_right_together_and_as_wrong_as_can_be_alone():
    empty, there = np.zeros((1, 10, 10), np.uint8), square(2, 2)
    worst = {"dice": 0, "iou": 0, "boundary_f1": 0, "volume_difference": 1}
    worst |= {"hd95": DIAGONAL, "surface_distance": DIAGONAL}
    for name in MASKS:
        best = 1 if MEASURES[name].higher else 0
        assert scores(empty, empty, [1], name)[name].tolist() == [[best]]
        assert scores(empty, there, [1], name)[name][0, 0] == pytest.approx(worst[name])
        assert scores(there, empty, [1], name)[name][0, 0] == pytest.approx(worst[name])
        assert np.isnan(MEASURES[name](empty, there)), "without any foreground in the truth nothing is measured"
    assert evaluate("segmentation", empty, there) == {}


def test_every_class_has_its_own_value_and_counts_alike():
    truth = square(0, 0, 3) + square(5, 5, 3, value=3)
    values = evaluate("segmentation", truth, square(0, 0, 3))
    assert classes_of(truth) == [1, 3]
    assert values["dice.1"] == 1 and values["dice.3"] == 0 and values["dice"] == 0.5
    table = scores(np.concatenate([truth, truth]), np.concatenate([truth, square(0, 0, 3)]), [1, 3])["dice"]
    assert table.tolist() == [[1, 1], [1, 0]]


def test_volumes_have_outlines_too():
    truth, said = np.zeros((1, 5, 9, 9), int), np.zeros((1, 5, 9, 9), int)
    truth[0, 1:4, 2:6, 2:6], said[0, 1:4, 2:6, 3:7] = 1, 1
    assert evaluate("segmentation", truth, said)["hd95"] == 1
    assert outline(truth[0] > 0).sum() == 48 - 4  # all but the middle of the middle slice


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 20), st.integers(2, 20))
def test_distances_are_those_of_all_pairs(seed, height, width):
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, height, width)) < rng.random((2, 1, 1)) / 2
    a[0, 0] = b[-1, -1] = True
    for sides in ((1, 1), (1, 3), (1.5, 1)):
        _as_of_all_pairs(a, b, sides)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_distances_in_volumes_are_those_of_all_pairs(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 4, 6, 5)) < 0.3
    a[0, 0, 0] = b[-1, -1, -1] = True
    for sides in ((1, 1, 1), (5, 1, 1.4)):
        _as_of_all_pairs(a, b, sides)


def _as_of_all_pairs(a: np.ndarray, b: np.ndarray, sides: tuple[float, ...]) -> None:
    there, here = outline_distances(a, b, sides)
    apart = np.argwhere(outline(a))[:, None] - np.argwhere(outline(b))[None]
    pairs = np.linalg.norm(apart * np.array(sides), axis=2)
    assert there == pytest.approx(pairs.min(1)) and here == pytest.approx(pairs.min(0))


@pytest.mark.parametrize("spacing", [(), (0.7, 0.7), (0.4, 1.5)])
def test_monai_says_the_same(spacing):
    metrics = pytest.importorskip("monai.metrics")
    import torch

    rng = np.random.default_rng(3)
    truth, said = smooth_labels(rng, 6), smooth_labels(rng, 6)
    ours = scores(truth, said, [1, 2], spacing=spacing)

    def one_hot(masks):
        return torch.nn.functional.one_hot(torch.from_numpy(masks).long(), 3).movedim(-1, 1)

    pair, widths = (one_hot(said), one_hot(truth)), {"spacing": list(spacing) or None}
    theirs = {
        "dice": metrics.compute_dice(*pair, include_background=False),
        "iou": metrics.compute_iou(*pair, include_background=False),
        "hd95": metrics.compute_hausdorff_distance(*pair, percentile=95, **widths),
        "surface_distance": metrics.compute_average_surface_distance(*pair, symmetric=True, **widths),
    }
    for name, values in theirs.items():
        values, known = values.numpy(), np.isfinite(values.numpy()) & np.stack([
            (truth == k).any((1, 2)) & (said == k).any((1, 2)) for k in (1, 2)], axis=1)  # fmt: skip
        assert known.sum() >= 6
        assert ours[name][known] == pytest.approx(values[known], rel=1e-5), name


def test_monai_says_the_same_of_volumes_with_thick_slices():
    metrics = pytest.importorskip("monai.metrics")
    import torch

    planes, spacing = smooth_labels(np.random.default_rng(4), 8, classes=2), (5.0, 0.8, 0.8)
    truth, said = np.stack([planes[:4], planes[1:5]]), np.stack([planes[4:], planes[2:6]])
    pair = [torch.from_numpy(m)[:, None] for m in (said, truth)]
    own = {"hd95": metrics.compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing),
           "surface_distance": metrics.compute_average_surface_distance(
               *pair, include_background=True, symmetric=True, spacing=spacing)}  # fmt: skip
    for name, values in own.items():
        assert scores(truth, said, [1], name, spacing)[name] == pytest.approx(values.numpy(), rel=1e-5)


def test_millimetres_where_the_spacing_is_known_and_pixels_where_not():
    truth, said = square(2, 2), square(2, 3)
    assert [get_measure("hd95").spaced(s)(truth, said) for s in ((), (3, 0.5), (9, 3, 0.5))] == [1, 0.5, 0.5]
    assert get_measure("surface_distance").spaced((2, 2))(truth, said) == pytest.approx(
        2 * get_measure("surface_distance")(truth, said))  # fmt: skip
    for nonsense in ((0.5,), (0, 1), (np.nan, 1), (-1, 1)):
        assert get_measure("hd95").spaced(nonsense)(truth, said) == 1
    values = evaluate("segmentation", truth, said, (3, 0.5))
    assert values["hd95"] == 0.5 and values["dice"] == pytest.approx(24 / 32)
    alone = evaluate("segmentation", truth, 0 * said, (3, 4))
    assert alone["hd95"] == alone["surface_distance"] == pytest.approx(9 * 5), "the diagonal, in millimetres too"
    assert get_measure("auc").spaced((3, 4)) is get_measure("auc")


def test_two_pixels_of_the_narrower_side_are_tolerated():
    truth, said = square(2, 2), square(2, 4)
    assert get_measure("boundary_f1").spaced((1, 1))(truth, said) == get_measure("boundary_f1")(truth, said) == 1
    assert get_measure("boundary_f1").spaced((0.3, 0.3))(truth, said) == 1
    assert get_measure("boundary_f1").spaced((0.3, 0.9))(truth, said) < 1


def test_boundary_f1_from_monais_outlines_and_distances():
    utils = pytest.importorskip("monai.metrics.utils")
    rng = np.random.default_rng(5)
    for truth, said in zip(smooth_labels(rng, 5, classes=2), smooth_labels(rng, 5, classes=2), strict=True):
        edges = utils.get_mask_edges(said > 0, truth > 0, crop=False)
        said_edge, true_edge = (np.asarray(e) > 0 for e in edges)
        precision = (np.asarray(utils.get_surface_distance(said_edge, true_edge)) <= 2).mean()
        recall = (np.asarray(utils.get_surface_distance(true_edge, said_edge)) <= 2).mean()
        expected = 2 * precision * recall / (precision + recall) if precision + recall else 0
        assert scores(truth[None], said[None], [1], "boundary_f1")["boundary_f1"][0, 0] == pytest.approx(expected)
