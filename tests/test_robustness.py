"""Shifted and marked images: the same type and range, repeatable, and changed as they say; who falls for a mark."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import blobs
from hypothesis import given
from hypothesis import strategies as st

from metamed.dataset import ArrayImages, Dataset, take
from metamed.experiments import run_setup
from metamed.records import Setup
from metamed.robustness import MARK, RATE, SHIFTS, Marked, marks, shifted
from metamed.store import Store
from metamed.tasks import make_task


@pytest.mark.parametrize("how", SHIFTS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_type_and_range_stay(how, dtype):
    images = np.random.default_rng(0).random((6, 3, 24, 24))
    images = (images * 255).astype(np.uint8) if dtype is np.uint8 else images.astype(dtype)
    before = images.copy()
    found = shifted(images, how, seed=1)
    assert found.dtype == dtype and found.shape == images.shape and found.min() >= 0
    assert found.max() <= (255 if dtype is np.uint8 else 1) and (found != images).any()
    assert np.array_equal(images, before) and np.array_equal(found, shifted(images, how, seed=1))


def test_noise_has_the_strength_that_it_says():
    found = shifted(np.full((20, 1, 32, 32), 0.5, np.float32), "noise")
    assert found.std() == pytest.approx(0.1, rel=0.02) and found.mean() == pytest.approx(0.5, abs=0.002)


@given(st.floats(0, 1), st.integers(8, 40))
def test_blur_keeps_what_is_flat(level, side):
    images = np.full((1, 1, side, side), level, np.float32)
    assert np.allclose(shifted(images, "blur"), images, atol=1e-5)


def test_blur_spreads_a_point_by_its_standard_deviation():
    image = np.zeros((1, 1, 97, 97), np.float32)
    image[..., 48, 48] = 1
    found = shifted(image, "blur")[0, 0].astype(float)
    rows = found.sum(1) / found.sum()
    assert found.sum() == pytest.approx(1, abs=1e-4)
    assert np.sqrt((rows * (np.arange(97) - 48) ** 2).sum()) == pytest.approx(97 / 48, rel=0.05)


def test_the_mark_is_on_half_of_the_images_and_in_its_corner():
    found = shifted(np.zeros((10, 3, 24, 24), np.uint8), "mark")
    side = round(MARK * 24)
    marked = (found[:, :, :side, -side:] == 255).all(axis=(1, 2, 3))
    assert marked.sum() == 5 and found.sum() == 5 * 3 * side**2 * 255


# ---- a mark that goes with classes

SMALL = {"epochs": 8, "width": 16, "depth": 2, "learning_rate": 0.01}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_marked_images_are_read_alike_however_they_are_read(dtype):
    plain = np.random.default_rng(0).integers(0, 200, (40, 3, 24, 30)).astype(dtype)
    chosen = np.arange(40) % 3 == 0
    images = Marked(ArrayImages(plain), chosen)
    side, expected = round(MARK * 24), plain.copy()
    expected[::3, :, :side, -side:] = np.iinfo(dtype).max
    assert images.shape == plain.shape and images.dtype == dtype and len(images) == 40
    assert np.array_equal(np.concatenate([array for _, array in images.chunks(7)]), expected)
    assert np.array_equal(images[5:20], expected[5:20]) and np.array_equal(images[3], expected[3])
    assert np.array_equal(take(images, np.array([39, 0, 1])), expected[[39, 0, 1]])
    assert plain.max() < 200, "the images themselves stay as they are"


def test_of_floats_the_mark_is_as_bright_as_the_brightest_pixel():
    plain = np.random.default_rng(0).normal(0, 3, (4, 1, 12, 12))
    found = Marked(ArrayImages(plain), np.ones(4, bool))[0:4]
    assert np.array_equal(found[:, 0, 0, -1], plain.max(axis=(1, 2, 3))) and found.max() == plain.max()


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_mark_goes_with_every_second_class_and_reversed_with_the_others(multi_label):
    target = np.arange(4000) % 4
    found, odd = marks(np.stack([target % 2, target > 1], axis=1) if multi_label else target), target % 2 == 1
    assert found["confounded"][odd].mean() == pytest.approx(RATE, abs=0.02)
    assert found["confounded"][~odd].mean() == pytest.approx(1 - RATE, abs=0.02)
    assert np.array_equal(found["reversed"], ~found["confounded"]) and not found["unconfounded"].any()


def _robust(data: Dataset, setup: Setup) -> dict[str, float]:
    run = run_setup(setup, make_task(data), data, Store.memory(), robust=True, device="cpu")
    assert run.error is None, run.error
    return {how: run.score(f"auc@{how}") for how in ("confounded", "unconfounded", "reversed")} | {"": run.score("auc")}


def test_who_sees_nothing_but_the_mark_falls_below_chance_where_it_is_reversed():
    rng = np.random.default_rng(0)
    noise = ArrayImages(rng.integers(100, 140, (400, 1, 16, 16)).astype(np.uint8))
    found = _robust(Dataset("noise", noise, rng.permutation(np.arange(400) % 2)), Setup("small_cnn", SMALL))
    assert found["confounded"] > 0.8 and found["reversed"] < 0.2
    assert abs(found["unconfounded"] - 0.5) < 0.15 and abs(found[""] - 0.5) < 0.15


def test_who_can_see_the_finding_still_sees_it_without_the_mark():
    found = _robust(replace(blobs(400), groups=None), Setup("small_cnn", SMALL))
    assert found[""] > 0.95 and found["unconfounded"] > 0.9 and found["reversed"] < found["unconfounded"]
