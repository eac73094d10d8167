"""Segmentation meta-features: drawn shapes with known answers, scikit-image, invariances, real masks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metamed.dataset import ArrayImages, Card, Dataset
from metamed.metafeatures import METAFEATURES, extract, masks


def of(labels, images=None) -> Dataset:
    labels = np.asarray(labels)
    images = np.zeros((len(labels), 1, *labels.shape[1:]), np.uint8) if images is None else images
    return Dataset("drawn", ArrayImages(np.asarray(images)), masks=labels, card=Card(classes=("no", "a", "b")))


def shapes(labels, images=None) -> dict[str, float]:
    return extract(of(labels, images), "segmentation")


def disc(side: int = 128, radius: float = 40, at: tuple[float, float] = (64, 64)) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    return ((y - at[0]) ** 2 + (x - at[1]) ** 2 <= radius**2).astype(np.uint8)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 20), st.floats(0.1, 0.9))
def test_components_and_outlines_are_those_of_scikit_image(seed, height, width, density):
    from skimage.measure import label, perimeter_crofton

    rng = np.random.default_rng(seed)
    drawn = np.where(rng.random((3, height, width)) < density, rng.integers(1, 3, (3, height, width)), 0)
    found, k = masks.components(drawn)
    expected = [label(image, connectivity=2) for image in drawn]
    assert k == sum(image.max() for image in expected)
    for image, other in zip(found, expected, strict=True):
        assert len(np.unique(np.stack([image, other]).reshape(2, -1), axis=1).T) == len(np.unique(other))
    whole = np.where(drawn > 0, 0, -1)
    outline = sum(perimeter_crofton(np.pad(image > 0, 1), directions=4) for image in drawn)
    assert masks.perimeters(whole, 1)[0] == pytest.approx(outline)


def test_a_snake_is_one_component():
    snake = np.zeros((1, 41, 41), np.uint8)
    snake[0, ::2] = 1
    snake[0, 1::4, -1] = snake[0, 3::4, 0] = 1
    assert masks.components(snake)[1] == 1


def test_counting():
    labels = np.zeros((4, 20, 20), np.uint8)
    labels[0, 2:6, 2:6] = 1  # 16 pixels
    labels[0, 10:12, 10:14] = 1  # 8 pixels
    labels[1, 2:6, 2:6], labels[1, 2:6, 6:8] = 1, 2  # two that touch: 16 and 8 pixels
    labels[2, 0:4, 0:4] = 1  # in the corner
    values = shapes(labels)
    assert values["empty_masks"] == 0.25
    assert values["foreground_fraction.mean"] == pytest.approx((24 + 24 + 16) / 1600)
    assert values["classes_per_image.mean"] == pytest.approx((1 + 2 + 1) / 4)
    assert values["component_count.mean"] == pytest.approx(5 / 4)
    assert values["component_size.mean"] == pytest.approx((12 + 12 + 16) / 3 / 400)
    assert values["component_spread.mean"] == pytest.approx((1 / 3 + 1 / 3 + 0) / 3)
    assert values["largest_component.mean"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert values["border_touch"] == pytest.approx(1 / 3)
    borders = 4 + 2 * 4 + 2 * 2 + 4 + 4 - 4  # of image 1: around both, with the shared side in it
    assert values["class_adjacency.mean"] == pytest.approx(4 / (borders + 4) / 3)
    assert values["boundary_ratio.mean"] == pytest.approx(((12 + 8) / 24 + (12 + 8) / 24 + 7 / 16) / 3)


def test_a_disc_is_compact_a_thread_is_not():
    assert shapes([disc()])["compactness.mean"] == pytest.approx(1, abs=0.02)
    square = np.zeros((1, 100, 100), np.uint8)
    square[0, 20:80, 20:80] = 1
    assert shapes(square)["compactness.mean"] == pytest.approx(np.pi / 4, rel=0.15)  # four directions cut corners
    thread = np.zeros((1, 100, 100), np.uint8)
    thread[0, 50, 5:95] = 1
    assert shapes(thread)["compactness.mean"] < 0.05


def test_fractal_dimensions():
    row = np.arange(64)
    triangle = ((row[:, None] & row[None]) == 0).astype(np.uint8)  # Sierpinski's
    counted = masks.box_dimension(triangle[None] > 0)
    assert counted[0] == pytest.approx(np.log2(3))
    assert masks.box_dimension(np.eye(64, dtype=bool)[None])[0] == pytest.approx(1)
    assert masks.box_dimension(np.ones((1, 64, 64), bool))[0] == pytest.approx(2)
    assert shapes([disc(256, 90, (128, 128))])["fractal_dimension.mean"] == pytest.approx(1, abs=0.07)
    noise = np.random.default_rng(0).integers(0, 2, (4, 64, 64))
    assert shapes(noise)["fractal_dimension.mean"] > 1.7


def test_contrast():
    labels = np.stack([disc(64, 20, (32, 32))] * 8)
    noise = np.random.default_rng(0).normal(100, 10, (8, 1, 64, 64))
    images = np.clip(noise + 40 * labels[:, None], 0, 255).round().astype(np.uint8)
    values = shapes(labels, images)
    assert values["foreground_contrast.mean"] == pytest.approx(4, rel=0.03)
    assert values["foreground_brighter"] == 1
    assert values["edge_contrast.mean"] == pytest.approx(40 / (10 * 2 / np.pi**0.5), rel=0.05)
    negative = shapes(labels, 255 - images)
    assert negative["foreground_brighter"] == 0
    assert negative["foreground_contrast.mean"] == pytest.approx(values["foreground_contrast.mean"])
    unseen = shapes(labels, noise.round().astype(np.uint8))
    assert unseen["edge_contrast.mean"] == pytest.approx(1, abs=0.03) and unseen["foreground_contrast.mean"] < 0.1
    assert np.isnan(shapes(labels)["foreground_contrast.mean"])  # black images


def test_places():
    same = np.stack([disc(64, 12, (20, 32))] * 6)
    values = shapes(same)
    assert values["position_spread"] == pytest.approx(0, abs=1e-9)
    assert values["location_entropy"] < 0.35 and values["mask_symmetry.mean"] > 0.9
    rng = np.random.default_rng(0)
    anywhere = rng.random((200, 32, 32)) < 0.3
    assert shapes(anywhere.astype(int))["location_entropy"] == pytest.approx(1, abs=0.005)
    halves = np.zeros((2, 32, 32), int)
    halves[:, :16] = 1
    assert shapes(halves)["location_entropy"] == 0
    corners = np.zeros((2, 10, 10), int)
    corners[0, 0, 0] = corners[1, 9, 9] = 1
    assert shapes(corners)["position_spread"] == pytest.approx(0.45 * 2**0.5)
    left = np.zeros((1, 10, 10), int)
    left[0, :, :5] = 1
    assert shapes(left)["mask_symmetry.mean"] == 0


def test_empty_and_full_masks():
    empty, full = shapes(np.zeros((3, 16, 16), int)), shapes(np.ones((3, 16, 16), int))
    assert empty["empty_masks"] == 1 and empty["component_count.mean"] == 0 and full["compactness.mean"] > 0.6
    for name in ("component_size.mean", "boundary_ratio.mean", "location_entropy", "border_touch"):
        assert np.isnan(empty[name])
    assert full["boundary_ratio.mean"] == 0 and full["border_touch"] == 1
    assert np.isnan(full["location_entropy"]) and np.isnan(full["foreground_contrast.mean"])


def test_volumes_show_their_middle_slice():
    rng = np.random.default_rng(0)
    volume, labels = rng.integers(0, 256, (5, 1, 7, 16, 16)), rng.integers(0, 3, (5, 7, 16, 16))
    volume = volume.astype(np.uint8)
    assert shapes(labels, volume) == shapes(labels[:, 3], volume[:, :, 3])


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**6))
def test_turning_and_order_change_nothing_that_has_no_direction(seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random((4, 1, 32, 32)) < 0.4).repeat(2, axis=1).reshape(8, 32, 32).astype(int)
    images = rng.integers(0, 256, (8, 1, 32, 32)).astype(np.uint8)
    found = shapes(labels, images)
    order = rng.permutation(8)
    turned = shapes(np.rot90(labels, axes=(1, 2))[order], np.rot90(images, axes=(2, 3))[order])
    for name in found.keys() - {"mask_symmetry.mean", "mask_symmetry.sd"}:
        np.testing.assert_allclose(turned[name], found[name], rtol=1e-6, atol=1e-9, err_msg=name)


def test_masks_are_read_in_chunks_and_a_subsample_is_a_subset():
    class Stream(ArrayImages):
        def __getitem__(self, index):
            raise AssertionError("masks are to be read in chunks")

        def chunks(self, size=256):
            yield from super().chunks(7)

    rng = np.random.default_rng(0)
    labels, images = rng.integers(0, 3, (30, 16, 16)), rng.integers(0, 256, (30, 1, 16, 16)).astype(np.uint8)
    data = of(labels, images)
    lazy = replace(data, masks=Stream(labels), images=Stream(images))
    assert extract(lazy, "segmentation") == extract(data, "segmentation")
    some = extract(lazy, "segmentation", max_samples=9)
    chosen = np.sort(np.random.default_rng(0).choice(30, 9, replace=False))
    assert some == extract(of(labels[chosen], images[chosen]), "segmentation")
    assert extract(lazy, "segmentation", max_samples=None) == extract(data, "segmentation")


def test_real_masks(shared):
    from metamed.readers import read

    files = sorted((shared / "data" / "seg").glob("*.h5"))
    values = {path.stem: extract(read(path), "segmentation", max_samples=16) for path in files}
    names = [c for f in METAFEATURES.values() if f.group == "segmentation" for c in f.columns]
    assert len(values) >= 10 and all(np.isfinite([v[n] for n in names]).all() for v in values.values())
    assert values["dsb2018_nuclei"]["component_count.mean"] > 5 * values["kvasir_seg_polyps"]["component_count.mean"]
    assert values["msd_hippocampus_slices"]["location_entropy"] < values["dsb2018_nuclei"]["location_entropy"]
    assert values["isbi2012_em_membranes"]["compactness.mean"] < 0.2 < values["wbc_tecom"]["compactness.mean"]
