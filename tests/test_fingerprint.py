"""The fingerprint of volumes: scipy's fill_holes and nnU-Net's own steps give the same."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks.speed.volumes import body, by_nnunet
from metamed.errors import MetamedError
from metamed.metafeatures import kernels
from metamed.metafeatures.fingerprint import fill_holes, fingerprint

WAYS = [None] + [kernels.COMPILED] * (kernels.COMPILED is not None)


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(1, 9)] * 3), st.floats(0, 1), st.integers(0, 999))
def test_holes_are_those_of_scipy(way, shape, density, seed):
    from scipy.ndimage import binary_fill_holes

    mask = np.random.default_rng(seed).random(shape) < density
    before, kernels.COMPILED = kernels.COMPILED, way
    try:
        np.testing.assert_array_equal(fill_holes(mask), binary_fill_holes(mask))
    finally:
        kernels.COMPILED = before


def test_a_fingerprint_is_that_of_nnunet():
    image, mask = body(32)
    image = np.concatenate([image, image * 2 + 1 * (image > 0)])
    found = fingerprint(image, mask)
    region, box, intensities, samples = by_nnunet(image, mask)
    assert found.box == box and 0 < found.relative_size < 1
    np.testing.assert_array_equal(found.region, region)
    np.testing.assert_array_equal(found.intensities, intensities)
    np.testing.assert_array_equal(found.samples, samples)
    assert region.sum() > (image[0] != 0).sum()


def test_a_volume_without_foreground():
    found = fingerprint(np.zeros((1, 4, 5, 6)), np.zeros((4, 5, 6), int))
    assert found.relative_size == 1 and not found.region.any() and np.isnan(found.intensities).all()
    with pytest.raises(MetamedError, match="expected C,D,H,W"):
        fingerprint(np.zeros((4, 5, 6)), np.zeros((4, 5, 6), int))
