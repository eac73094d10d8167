"""What meta-features have to be: known answers, honest landmarkers, properties. Libraries: the file beside."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_metafeatures import CANONICAL, noise, of, vector

from metamed.metafeatures import extract, kernels
from metamed.metafeatures.probe import Probe

# -- known answers -----------------------------------------------------------------------------------------------------


def statistics(images: np.ndarray) -> dict[str, np.ndarray]:
    return kernels.image_statistics(images[:, None], 0.0, 255.0)


def test_white_noise():
    rng = np.random.default_rng(0)
    images = np.clip(rng.normal(128, 20, (20, 1, 128, 128)), 0, 255).round().astype(np.uint8)
    values = extract(of(images))
    assert values["noise_sigma.mean"] == pytest.approx(20 / 255, rel=0.02)
    assert values["spectrum_slope.mean"] == pytest.approx(0, abs=0.05)
    assert values["moran.mean"] == pytest.approx(0, abs=0.01)
    assert values["kurtosis.mean"] == pytest.approx(0, abs=0.05)
    assert values["orientation_coherence.mean"] == pytest.approx(0, abs=0.03)
    assert values["blockiness.mean"] == pytest.approx(1, abs=0.02)
    assert values["contrast.mean"] == pytest.approx(20 / 255, rel=0.01)
    assert values["sample_correlation"] == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
def test_the_slope_of_coloured_noise(exponent):
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128))
    frequency[0, 0] = 1
    spectrum = np.exp(2j * np.pi * rng.random((30, *frequency.shape))) / frequency**exponent
    images = np.fft.irfft2(spectrum, s=(128, 128))
    assert extract(of(images[:, None]))["spectrum_slope.mean"] == pytest.approx(-2 * exponent, abs=0.12)


def test_a_checkerboard():
    board = (np.indices((16, 16)).sum(axis=0) % 2 * 255).astype(np.uint8)
    values = extract(of(board[None, None].repeat(2, axis=0)))
    assert values["moran.mean"] == pytest.approx(-1)
    assert values["entropy.mean"] == pytest.approx(1)
    assert values["glcm_contrast.mean"] == pytest.approx(31**2 / 2)  # all straight neighbours differ, no diagonal one
    assert values["laplacian_energy.mean"] == pytest.approx(16)
    assert values["noise_sigma.mean"] == pytest.approx(np.sqrt(np.pi / 2) / 6 * 8)
    assert values["clipped.mean"] == 1 and values["otsu_separability.mean"] == pytest.approx(1)
    assert values["spectrum_high.mean"] == pytest.approx(1, abs=1e-3)


def test_a_ramp():
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
    values = extract(of(ramp[None, None]))
    assert values["gradient_energy.mean"] == pytest.approx((4 / 255) ** 2, rel=1e-5)
    assert values["laplacian_energy.mean"] == pytest.approx(0, abs=1e-10)
    assert values["noise_sigma.mean"] == pytest.approx(0, abs=1e-6)
    assert values["orientation_coherence.mean"] == pytest.approx(1)
    assert values["skewness.mean"] == pytest.approx(0, abs=1e-5)
    assert values["median.mean"] == pytest.approx(126 / 255) and values["entropy.mean"] == pytest.approx(6)


def test_a_constant_image():
    values = vector("constant")
    zero = ("contrast", "entropy", "skewness", "kurtosis", "gradient_energy", "noise_sigma", "spectrum_slope", "moran")
    assert [values[f"{name}.mean"] for name in zero] == pytest.approx([0] * len(zero), abs=1e-6)
    one = ("glcm_energy", "glcm_homogeneity", "glcm_correlation", "lbp_energy", "background", "blockiness")
    assert [values[f"{name}.mean"] for name in one] == pytest.approx([1] * len(one))
    assert values["brightness.mean"] == pytest.approx(77 / 255)


def test_colour():
    image = np.zeros((1, 3, 8, 8), np.uint8)
    image[:, 0] = 255
    values = extract(of(image), "intensity")
    assert (values["red.mean"], values["blue.mean"], values["saturation.mean"]) == (1, 0, 1)
    assert values["colourfulness.mean"] == pytest.approx(0.3 * np.hypot(1, 0.5))  # Hasler & Suesstrunk, no spread
    assert values["brightness.mean"] == pytest.approx(0.299)


def test_jpeg_blocks_are_seen():
    tiles = np.kron(noise(1, 8, 8)[0], np.ones((8, 8))) * 0.5 + noise(1, 64, 64, seed=1)[0] * 0.1
    assert extract(of(tiles[None, None].astype(np.uint8)))["blockiness.mean"] > 3


def test_the_general_facts():
    values = vector("spacing and sizes")
    assert [values[name] for name in CANONICAL] == [60, 2, 3, 16, 16, 1, 30]
    assert (values["spacing"], values["anisotropy"], values["n_groups"]) == (0.75, 10, 60)
    assert values["size_spread"] > 0 and values["class_entropy"] == 1
    values = extract(of(noise(10, 1, 6, 8), [0] * 6 + [1] * 2 + [-1] * 2, groups=np.arange(10) // 2))
    facts = {"n_samples": 8, "imbalance_ratio": 3, "samples_per_class": 4, "smallest_class": 2, "missing_labels": 0.2,
             "minority_fraction": 0.25, "n_groups": 5, "samples_per_group": 2, "aspect_ratio": 8 / 6,
             "class_entropy": 0.8112781244591328, "n_features": 48, "dimensionality": 4.8, "bit_depth": 8}  # fmt: skip
    assert {name: values[name] for name in facts} == pytest.approx(facts)


def test_bags_and_masks_have_their_facts():
    values = vector("bags of images")
    assert (values["n_samples"], values["images_per_sample"], values["samples_per_class"]) == (10, 6, 5)
    masks = np.zeros((4, 8, 8), np.uint8)
    masks[:, :2] = 1
    values = extract(of(noise(4, 1, 8, 8), masks=masks), "general")
    assert (values["n_samples"], values["n_classes"], values["imbalance_ratio"]) == (4, 2, 3)


def test_near_duplicates_are_counted():
    images = noise(40, 1, 32, 32)
    images[10:20] = np.clip(images[:10].astype(int) + 3, 0, 255)
    assert extract(of(images), "general")["near_duplicate_rate"] == 0.5
    assert vector("copies")["near_duplicate_rate"] == 1 and vector("black")["near_duplicate_rate"] == 0


def test_copies_across_classes_and_patients_are_told_from_others():
    images, target, groups = noise(40, 1, 32, 32), np.arange(40) % 2, np.arange(40)
    images[10:20] = images[:10]
    target[15:20], groups[10:18] = 1 - target[5:10], groups[:8]  # five copies of another class, two of another patient
    values = extract(of(images, target, groups=groups))
    assert (values["near_duplicate_rate"], values["class_duplicates"], values["group_duplicates"]) == (0.5, 0.25, 0.1)
    target[5:10] = -1
    values = extract(of(images, target, groups=groups))
    assert values["class_duplicates"] == 0 and values["near_duplicate_rate"] == 0.5
    assert np.isnan(extract(of(images, target))["group_duplicates"])
    assert np.isnan(extract(of(images))["class_duplicates"])


def test_tiny_images_are_not_taken_for_copies():
    from sklearn.datasets import load_digits

    digits = load_digits()
    values = extract(of(digits.images[:, None].astype(np.float32), digits.target), ["general", "structure"])
    assert values["near_duplicate_rate"] < 0.01 and values["class_duplicates"] == 0


def test_many_images_are_asked_about_by_a_spread_thousand():
    images = noise(2600, 1, 16, 16)
    images[1300:] = images[:1300]
    assert extract(of(images), "general")["near_duplicate_rate"] == 1


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_intrinsic_dimension(dimension):
    rng = np.random.default_rng(0)
    points = rng.random((1500, dimension)) @ np.linalg.qr(rng.normal(size=(20, 20)))[0][:dimension]
    values = extract(of(points, rng.integers(0, 2, 1500)), "structure")
    assert values["two_nn"] == pytest.approx(dimension, rel=0.1)
    assert values["mle_dimension"] == pytest.approx(dimension, rel=0.2)
    assert values["pca_dimension"] == dimension


def test_borders():
    line = np.array([0.0, 1, 2, 3, 10, 11, 12, 13])[:, None]
    apart = extract(of(line, [0, 0, 0, 0, 1, 1, 1, 1]), "structure")
    assert apart["border_points"] == 2 / 8 and apart["local_sets"] == 1 - 8 * 4 / 64
    mixed = extract(of(line, [0, 1, 0, 1, 0, 1, 0, 1]), "structure")
    assert mixed["border_points"] == 1 and mixed["local_sets"] == 1 - 8 / 64


# -- landmarking is honest ---------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 12), st.integers(2, 4), st.integers(0, 10**6))
def test_folds_never_divide_a_patient(n, patients, classes, seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, patients, n)
    probe = Probe(of(rng.normal(size=(n, 3)), rng.integers(0, classes, n), groups=groups))
    if len(np.unique(groups)) < 2:
        return
    assert all(len(np.unique(probe.folds[probe.patients == p])) == 1 for p in np.unique(probe.patients))
    assert len(np.unique(probe.folds)) == min(5, len(np.unique(groups)))


def test_a_patients_own_copies_do_not_help():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(60), 4)
    images = noise(60, 1, 16, 16)[patient]
    target = rng.permutation(np.arange(60) % 2)[patient]
    assert extract(of(images, target), "landmarking")["one_nn.mean"] > 0.95
    values = extract(of(images, target, groups=patient), "landmarking")
    assert max(values[f"{name}.mean"] for name in ("one_nn", "lda", "linear_probe", "statistics_probe")) < 0.7


def test_what_is_easy_is_solved():
    values = vector("colour")
    assert all(values[f"{name}.mean"] > 0.9 for name in ("one_nn", "nearest_centroid", "lda", "linear_probe_auc"))
    images = noise(60, 1, 16, 16)
    images[::2] //= 3
    values = extract(of(images, np.arange(60) % 2), "landmarking")
    assert values["decision_stump.mean"] == 1 and values["statistics_auc.mean"] == 1


# -- properties --------------------------------------------------------------------------------------------------------

TURNING = ("mean", "variance", "skewness", "kurtosis", "glcm_contrast", "glcm_homogeneity", "glcm_energy", "moran",
           "glcm_correlation", "gradient_energy", "laplacian_energy", "noise_sigma", "spectrum_slope", "spectrum_high",
           "orientation_coherence", "histogram", "patterns", "quantiles")  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 200))
def test_turning_an_image_changes_nothing_that_has_no_direction(seed, spread):
    image = np.random.default_rng(seed).integers(0, spread + 1, (1, 16, 16)).astype(np.uint8)
    found, turned = statistics(image), statistics(np.rot90(image, axes=(1, 2)).copy())
    for name in TURNING:
        np.testing.assert_allclose(found[name], turned[name], rtol=1e-4, atol=1e-6, err_msg=name)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_the_negative_of_an_image(seed):
    image = np.random.default_rng(seed).integers(0, 256, (2, 12, 15)).astype(np.uint8)
    found, negative = statistics(image), statistics(255 - image)
    np.testing.assert_allclose(negative["mean"], 1 - found["mean"], rtol=1e-5)
    np.testing.assert_allclose(negative["skewness"], -found["skewness"], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(negative["quantiles"], 1 - found["quantiles"][:, ::-1], rtol=1e-5, atol=1e-6)
    for name in ("variance", "kurtosis", "glcm_contrast", "glcm_energy", "gradient_energy", "noise_sigma", "moran"):
        np.testing.assert_allclose(negative[name], found[name], rtol=1e-4, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))
def test_an_images_statistics_do_not_depend_on_its_company(seed, height, width, channels):
    images = np.random.default_rng(seed).integers(0, 256, (5, channels, height, width)).astype(np.uint8)
    together, alone = kernels.image_statistics(images, 0, 255), kernels.image_statistics(images[3:4], 0, 255)
    for name, values in together.items():
        np.testing.assert_allclose(values[3:4], alone[name], rtol=1e-6, atol=1e-9, err_msg=name)
