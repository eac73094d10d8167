"""Shifted test images: the same type and range, repeatable, and changed as they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metamed.robustness import MARK, SHIFTS, shifted


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
    found = shifted(np.zeros((10, 3, 24, 24), np.uint8), "confounder")
    side = round(MARK * 24)
    marked = (found[:, :, :side, -side:] == 255).all(axis=(1, 2, 3))
    assert marked.sum() == 5 and found.sum() == 5 * 3 * side**2 * 255
