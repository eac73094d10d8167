"""Statistics of pixels: compiled and in numpy alike, known answers, the field's libraries, invariances."""

import importlib.metadata
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metamed.metafeatures import kernels

SIZES = {np.uint8: 255.0, np.uint16: 65535.0, np.float32: 1.0}
needs_build = pytest.mark.skipif(kernels.COMPILED is None, reason="not built: a checkout that was never installed")


def smooth(n: int, channels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise of 1/f amplitude, uint8 (n, C, H, W)."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1
    phases = np.exp(2j * np.pi * rng.random((n, channels, *frequency.shape)))
    images = np.fft.irfft2(phases / frequency, s=(height, width))
    return np.clip(images / images.std() * 40 + 128, 0, 255).astype(np.uint8)


def of_type(images: np.ndarray, dtype) -> np.ndarray:
    return (images / 255).astype(dtype) if dtype == np.float32 else images.astype(dtype) * dtype(SIZES[dtype] // 255)


def assert_alike(found: dict, expected: dict, rtol: float, atol: float = 1e-12) -> None:
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=rtol, atol=atol, err_msg=name)


# -- compiled and plain ------------------------------------------------------------------------------------------------


def test_installing_builds_the_kernel_where_there_is_a_compiler():
    try:
        importlib.metadata.version("metamed")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("a checkout that was never installed")
    assert kernels.COMPILED is not None or not (shutil.which("cc") or shutil.which("gcc"))


@needs_build
@pytest.mark.parametrize("dtype", SIZES)
@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 33, 20), (3, 5, 70), (1, 1, 3), (5, 12, 17), (1, 64, 3)])
def test_both_ways_give_the_same_values(dtype, shape):
    for images in (smooth(4, *shape), np.random.default_rng(1).integers(0, 256, (4, *shape)).astype(np.uint8)):
        images = of_type(images, dtype)
        plain = kernels.image_statistics(images, 0, SIZES[dtype], compiled=None)
        assert_alike(kernels.image_statistics(images, 0, SIZES[dtype]), plain, rtol=1e-6)


@needs_build
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), st.integers(0, 2**31), st.integers(1, 256))
def test_both_ways_on_any_images(height, width, channels, seed, levels):
    images = np.random.default_rng(seed).integers(0, levels, (3, channels, height, width)).astype(np.uint8)
    plain = kernels.image_statistics(images, 0, 255, compiled=None)
    assert_alike(kernels.image_statistics(images, 0, 255), plain, rtol=1e-6, atol=1e-9)


@needs_build
def test_a_large_image_and_floats_beyond_zero_and_one():
    image = np.random.default_rng(0).normal(-500, 300, (1, 1, 700, 600)).astype(np.float32)
    low, span = float(image.min()), float(np.ptp(image))
    plain = kernels.image_statistics(image, low, span, compiled=None)
    assert_alike(kernels.image_statistics(image, low, span), plain, rtol=1e-6)


@needs_build
def test_colours_side_by_side_are_those_in_planes():
    images = smooth(3, 3, 40, 24)
    side_by_side = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    found, expected = (kernels.image_statistics(i, 0, 255) for i in (side_by_side, images))
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


@needs_build
@pytest.mark.parametrize("shape", [(4, 4), (5, 7), (97, 33), (101, 8), (16, 227), (64, 50), (30, 45)])
def test_the_power_of_rings_is_that_of_numpy_for_any_length(shape):
    """Powers of two, small odd factors, and prime lengths that take Bluestein's detour."""
    images = np.random.default_rng(0).random((2, 1, *shape)).astype(np.float32)
    found, expected = (kernels.image_statistics(images, 0, 1, compiled=c) for c in (kernels.COMPILED, None))
    for name in ("spectrum_slope", "spectrum_high"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-11)


@needs_build
def test_a_wrong_buffer_is_refused():
    with pytest.raises((ValueError, TypeError)):
        kernels.COMPILED.measure(b"12", "B", (1, 1, 4, 4), 0.0, 1.0, np.zeros(16, np.float32), b"", b"", b"",
                                 *[bytearray(9)] * 8)  # fmt: skip


# -- known answers -----------------------------------------------------------------------------------------------------


def statistics(images: np.ndarray) -> dict[str, np.ndarray]:
    return kernels.image_statistics(np.atleast_3d(images)[None, None] if images.ndim == 2 else images, 0, 255)


def test_a_checkerboard_seen_from_three_pixels_away():
    board = (np.indices((1, 1, 16, 16)).sum(axis=0) % 2 * 255).astype(np.uint8)
    found = statistics(board)
    assert found["glcm_contrast_3"] == pytest.approx(31**2 / 2)  # odd steps along an axis, none along a diagonal
    assert found["glcm_homogeneity_3"] == pytest.approx((1 + 1 / (1 + 31**2)) / 2)
    assert found["glcm_correlation_3"] == pytest.approx(0, abs=1e-12)
    assert found["glcm_anisotropy"] == pytest.approx(0.5)
    assert (found["minimum"], found["maximum"]) == (0, 1)


def test_a_ramp_has_one_slope():
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))[None, None]
    found = statistics(ramp)
    assert found["gradient_mean"] == pytest.approx(4 / 255, rel=1e-12)
    assert found["gradient_energy"] == pytest.approx((4 / 255) ** 2, rel=1e-12)
    assert found["noise_sigma"] == 0 and found["laplacian_energy"] == 0 and found["orientation_coherence"] == 1


def test_a_constant_image():
    found = statistics(np.full((2, 3, 20, 20), 77, np.uint8))
    for name in ("variance", "skewness", "kurtosis", "moran", "spectrum_slope", "spectrum_high", "noise_sigma",
                 "red_sd", "green_skewness", "glcm_contrast_3", "glcm_anisotropy", "colourfulness"):  # fmt: skip
        assert found[name] == pytest.approx(0, abs=1e-7), name
    assert np.all(found["quantiles"] == 77 / 255) and np.all(found["glcm_correlation_3"] == 1)


def test_faint_texture_has_its_own_shape():
    faint = np.random.default_rng(0).normal(100, 1, (1, 1, 64, 64)).astype(np.float32)
    found = kernels.image_statistics(faint, 0, 65535)
    assert found["kurtosis"] == pytest.approx(0, abs=0.2) and found["noise_sigma"] * 65535 == pytest.approx(1, rel=0.1)


# -- agreement with the field's libraries ------------------------------------------------------------------------------


def test_quantiles_are_those_of_numpy():
    images = smooth(6, 3, 30, 41)
    luma = images[:, 0] * 0.299 + images[:, 1] * 0.587 + images[:, 2] * 0.114
    expected = np.percentile(luma.reshape(6, -1) / 255, np.array(kernels.QUANTILES) * 100, axis=1).T
    np.testing.assert_allclose(statistics(images)["quantiles"], expected, rtol=1e-12)


def test_distant_cooccurrence_is_that_of_scikit_image():
    from skimage.feature import graycomatrix, graycoprops

    images = smooth(4, 1, 40, 31)
    found = statistics(images)
    for k, image in enumerate(images[:, 0] >> 3):
        matrix = graycomatrix(image, [3], [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4], 32, symmetric=True, normed=True)
        for name in kernels.GLCM:
            np.testing.assert_allclose(found[f"glcm_{name}_3"][k], graycoprops(matrix, name).mean(), rtol=1e-9)


def test_colour_moments_are_those_of_scipy():
    from scipy import stats

    images = smooth(5, 3, 20, 30)
    found = statistics(images)
    for channel, name in enumerate(("red", "green", "blue")):
        flat = images[:, channel].reshape(5, -1) / 255
        np.testing.assert_allclose(found[f"{name}_sd"], flat.std(axis=1), rtol=1e-9)
        np.testing.assert_allclose(found[f"{name}_skewness"], stats.skew(flat, axis=1), rtol=1e-7, atol=1e-9)


# -- invariances -------------------------------------------------------------------------------------------------------


def test_depth_and_storage_do_not_matter():
    images = smooth(4, 1, 32, 24)
    found = statistics(images)
    deep = kernels.image_statistics(images.astype(np.uint16) * 257, 0, 65535)
    assert_alike(deep, found, rtol=1e-12)
    coloured = statistics(images.repeat(3, axis=1))
    assert_alike(coloured, found, rtol=1e-9, atol=1e-7)


def test_the_order_of_images_does_not_matter():
    images = smooth(7, 3, 20, 20)
    forward, backward = statistics(images), statistics(images[::-1])
    for name in forward:
        np.testing.assert_array_equal(forward[name], backward[name][::-1])
