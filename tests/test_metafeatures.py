"""Meta-features: contracts over the registry, known answers, agreement with the field's libraries, real files."""

import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import blobs
from hypothesis import given, settings
from hypothesis import strategies as st

from metamed.dataset import ArrayImages, Card, Dataset
from metamed.errors import UnknownName
from metamed.metafeatures import METAFEATURES, PAIR_METAFEATURES, extract, extract_pair, kernels, metafeature
from metamed.metafeatures import landmarking as marks
from metamed.metafeatures.probe import Probe

CANONICAL = ("n_samples", "n_classes", "n_channels", "height", "width", "imbalance_ratio", "samples_per_class")
STORAGE = {"bit_depth", "n_channels", "n_features", "dimensionality"}  # what tells copies of the same images apart


def of(images, target=None, **fields) -> Dataset:
    return Dataset("made", ArrayImages(np.asarray(images)), None if target is None else np.asarray(target), **fields)


def noise(n: int, *shape: int, seed: int = 0, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape)).astype(dtype)


def made() -> dict[str, Dataset]:
    """Datasets of every shape and with every lack that the features have to bear."""
    data, rng = blobs(), np.random.default_rng(1)
    images, bags = data.images.array, np.arange(60) // 6
    sizes = ArrayImages(images)
    sizes.sizes = rng.integers(20, 60, (60, 2))
    return {
        "colour": data,
        "grey": blobs(channels=1),
        "uint16": replace(data, images=ArrayImages(images.astype(np.uint16) * 257)),
        "float in 0-1": replace(data, images=ArrayImages((images / 255).astype(np.float32))),
        "float beyond": replace(data, images=ArrayImages(rng.normal(-500, 300, (60, 1, 12, 12)))),
        "float with holes": replace(data, images=ArrayImages(np.where(images < 9, np.nan, images / 255))),
        "five channels": replace(data, images=ArrayImages(noise(60, 5, 12, 12))),
        "volumes": replace(data, images=ArrayImages(noise(60, 1, 6, 12, 14))),
        "8 x 8": replace(data, images=ArrayImages(noise(60, 1, 8, 8))),
        "1 x 1": replace(data, images=ArrayImages(noise(60, 1, 1, 1))),
        "2 x 40": replace(data, images=ArrayImages(noise(60, 1, 2, 40))),
        "constant": replace(data, images=ArrayImages(np.full((60, 3, 16, 16), 77, np.uint8))),
        "black": replace(data, images=ArrayImages(np.zeros((60, 1, 16, 16), np.uint8))),
        "copies": replace(data, images=ArrayImages(np.repeat(images[::2], 2, axis=0)), target=np.arange(60) % 2),
        "two": of(noise(2, 1, 9, 9), [0, 1]),
        "one": of(noise(1, 1, 9, 9), [0]),
        "one per class": of(noise(5, 3, 9, 9), range(5)),
        "one class": of(noise(9, 3, 9, 9), [0] * 9),
        "no labels": of(noise(9, 3, 9, 9)),
        "some labels": replace(data, target=np.where(np.arange(60) % 3 == 0, -1, data.target)),
        "multi-label": replace(data, target=rng.integers(0, 2, (60, 4))),
        "one patient": replace(data, groups=np.zeros(60, int)),
        "spacing and sizes": replace(data, images=sizes, card=Card(spacing=(5.0, 0.5, 1.0)), groups=None),
        "segmentation": of(images[:20], masks=(images[:20].mean(1) > 150).astype(np.uint8)),
        "vectors": of(rng.normal(size=(40, 8)), rng.integers(0, 3, 40)),
        "wide vectors": of(rng.normal(size=(40, 700)).astype(np.float32), rng.integers(0, 2, 40)),
        "bags of vectors": of(rng.normal(size=(60, 8)), np.arange(10) % 2, bags=bags),
        "bags of images": of(images, np.arange(10) % 2, bags=bags),
    }


MADE = made()


@cache
def vector(name: str) -> dict[str, float]:
    return extract(MADE[name])


def permuted(data: Dataset, seed: int = 3) -> Dataset:
    order = np.random.default_rng(seed).permutation(len(data.images))
    images = ArrayImages(data.images.array[order])
    images.sizes = None if data.images.sizes is None else data.images.sizes[order]
    per_image = {"images": images} | {k: v[order] for k in ("masks", "bags") if (v := getattr(data, k)) is not None}
    if data.bags is None:
        per_image |= {k: v[order] for k in ("target", "groups") if (v := getattr(data, k)) is not None}
    return replace(data, **per_image)


def assert_equal(found: dict, expected: dict, rtol: float, but: set = frozenset()) -> None:
    assert found.keys() == expected.keys()
    for name in found.keys() - but:
        np.testing.assert_allclose(found[name], expected[name], rtol=rtol, atol=rtol, err_msg=name)


# -- contracts ---------------------------------------------------------------------------------------------------------


def present(need: str, data: Dataset) -> bool | None:
    """Whether a dataset has what a feature needs; None where that is not to be told from here: then it may be NaN."""
    known = data.labelled
    first = data.target if data.target is None or data.target.ndim == 1 else data.target[:, 0]
    classes = 0 if first is None else len(np.unique(first[known]))
    groups = len(known) if data.groups is None else len(np.unique(data.groups[known]))
    answers = {
        "nothing": True,
        "images": len(data.images.shape) >= 4,
        "colour": len(data.images.shape) >= 4 and data.images.shape[1] in (1, 3),
        "target": len(known) > 0,
        "labels": len(known) > 0 or data.masks is not None,
        "spacing": bool(data.card.spacing),
        "two samples": data.n_samples > 1,
        "classes": classes > 1,
        "two groups with classes": classes > 1 and groups > 1,
    }
    maybe = {"variety", "variety within classes", "pairs within classes", "repeated groups"}
    assert need in answers or need in maybe, f"'{need}' is not a known need"
    return answers.get(need)


@pytest.mark.parametrize("name", MADE)
def test_values_are_floats_in_their_range_and_missing_only_where_a_need_is(name):
    data, values = MADE[name], vector(name)
    for feature in METAFEATURES.values():
        needs = [present(need.strip(), data) for need in feature.facts["needs"].split(",")]
        low, high = map(float, feature.facts["range"].split(" to "))
        for column in feature.columns:
            value = values[column]
            assert type(value) is float
            if False in needs:
                assert np.isnan(value), f"{column} should be missing"
            elif None not in needs:
                assert np.isfinite(value), f"{column} is {value}"
            if np.isfinite(value) and not column.endswith(".sd"):
                assert low - 1e-6 <= value <= high + 1e-6, f"{column} = {value} is outside {feature.facts['range']}"
            assert not np.isinf(value)


def test_every_dataset_has_the_same_names():
    assert len({tuple(vector(name)) for name in MADE}) == 1
    assert set(CANONICAL) <= vector("colour").keys()
    assert len(METAFEATURES) >= 50 and len(PAIR_METAFEATURES) >= 8


@pytest.mark.parametrize("name", MADE)
def test_order_of_the_images_does_not_matter(name):
    assert_equal(extract(permuted(MADE[name])), vector(name), rtol=1e-9)


@pytest.mark.parametrize("name", ["colour", "bags of images", "vectors"])
def test_the_same_seed_gives_the_same_values_and_a_subsample_depends_on_it(name):
    first, again, other = (extract(MADE[name], max_samples=25, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_equal(first, again)
    assert any(first[k] != other[k] for k in first if np.isfinite(first[k]))


@pytest.mark.parametrize("feature", [*METAFEATURES.values(), *PAIR_METAFEATURES.values()], ids=lambda f: f.name)
def test_every_feature_is_documented(feature):
    facts = feature.facts
    assert all(facts.values()), facts
    assert facts["definition"].endswith(".")
    assert facts["cost"] in {"facts", "pixels", "distances", "models", "stored vectors"}


def test_the_documentation_is_current():
    root = Path(__file__).parents[1]
    if not (root / "benchmarks" / "metafeature_docs.py").exists():
        pytest.skip("not in a checkout")
    run = "from benchmarks.metafeature_docs import PAGE, page; assert PAGE.read_text('utf-8') == page(), 'run it again'"
    subprocess.run([sys.executable, "-c", run], cwd=root, check=True)


def test_a_copy_in_16_bits_has_the_same_values():
    assert_equal(vector("uint16"), vector("colour"), rtol=1e-9, but=STORAGE)


def test_a_copy_in_floats_has_the_same_values():
    assert_equal(vector("float in 0-1"), vector("colour"), rtol=1e-5, but=STORAGE)


def test_grey_stored_as_colour_has_the_same_values():
    grey = MADE["grey"]
    colour = replace(grey, images=ArrayImages(np.repeat(grey.images.array, 3, axis=1)))
    assert_equal(extract(colour), vector("grey"), rtol=1e-5, but=STORAGE)


def test_volumes_are_seen_on_their_middle_slice():
    data = MADE["volumes"]
    flat = replace(data, images=ArrayImages(data.images.array[:, :, 3]))
    assert_equal(extract(flat), vector("volumes"), rtol=1e-9, but=STORAGE | {"depth"})


def test_groups_are_chosen_by_name_and_an_unknown_one_is_told():
    values = extract(blobs(8), "texture")
    assert set(values) == {c for f in METAFEATURES.values() if f.group == "texture" for c in f.columns}
    with pytest.raises(UnknownName, match="no meta-feature group 'textur' .*texture"):
        extract(blobs(8), ["textur"])


def test_registering_and_what_extract_does_with_it(monkeypatch):
    monkeypatch.setattr("metamed.metafeatures.METAFEATURES", dict(METAFEATURES))
    from metamed.metafeatures import METAFEATURES as registry

    @metafeature("trial", kinds=["mil"])
    def only_bags(probe) -> float:
        """Always one."""
        return 1

    @metafeature("failing", deep=True)
    def bound_to_fail(probe) -> np.ndarray:
        """Always an error."""
        raise ZeroDivisionError("no")

    assert extract(MADE["bags of vectors"], "trial") == {"only_bags": 1.0}
    assert np.isnan(extract(MADE["colour"], "trial")["only_bags"])
    assert "bound_to_fail" in registry and "bound_to_fail.mean" not in extract(blobs(4))  # deep: only when asked for
    with pytest.raises(ZeroDivisionError, match="no") as caught:
        extract(blobs(4), "failing")
    assert caught.value.__notes__ == ["in meta-feature 'bound_to_fail' of dataset 'blobs'"]

    with pytest.raises(ValueError, match="'entropy' is registered twice"):

        @metafeature("trial")
        def entropy(probe) -> float:
            """A name that is taken."""
            return 2


def test_nothing_heavy_is_imported():
    code = """if True:
        import sys, numpy as np
        from metamed.dataset import ArrayImages, Dataset
        from metamed.metafeatures import extract
        images = np.random.default_rng(0).integers(0, 256, (20, 3, 16, 16)).astype(np.uint8)
        extract(Dataset("x", ArrayImages(images), np.arange(20) % 2))
        heavy = {"scipy", "sklearn", "skimage", "pandas", "torch", "xgboost", "openml", "h5py"} & sys.modules.keys()
        assert not heavy, heavy"""
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=True)


class Stream:
    """Images that exist one chunk at a time."""

    sizes, dtype = None, np.dtype(np.uint8)

    def __init__(self, *shape: int):
        self.shape, self.largest = shape, 0

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index):
        raise AssertionError("features are to read chunks")

    def chunks(self, size: int = 256):
        for start in range(0, len(self), size):
            part = slice(start, min(start + size, len(self)))
            chunk = np.random.default_rng(start).integers(0, 256, (part.stop - start, *self.shape[1:]), np.uint8)
            self.largest = max(self.largest, chunk.nbytes)
            yield part, chunk


def test_memory_does_not_grow_with_the_images():
    import tracemalloc

    images = Stream(800, 3, 128, 128)
    tracemalloc.start()
    extract(Dataset("stream", images, np.arange(800) % 2), "texture")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    whole = int(np.prod(images.shape))
    assert images.largest <= 2**25
    assert peak - images.largest < 0.9 * whole  # as floats the images alone are four times `whole`


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


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_intrinsic_dimension(dimension):
    rng = np.random.default_rng(0)
    points = rng.random((1500, dimension)) @ np.linalg.qr(rng.normal(size=(20, 20)))[0][:dimension]
    values = extract(of(points, rng.integers(0, 2, 1500)), "structure")
    assert values["two_nn"] == pytest.approx(dimension, rel=0.1)
    assert values["mle_dimension"] == pytest.approx(dimension, rel=0.2)
    assert values["pca_dimension"] == dimension


# -- agreement with the field's libraries ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    """Smooth and rough grey images, uint8 (6, 40, 31)."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(5)
    rough = rng.integers(0, 256, (3, 40, 31))
    smooth = gaussian_filter(rng.normal(size=(3, 40, 31)), (0, 2, 2)) * 400 + 128
    return np.concatenate([rough, np.clip(smooth, 0, 255)]).astype(np.uint8)


def test_moments_and_quantiles_are_those_of_numpy_and_scipy(sample):
    from scipy import stats

    found, flat = statistics(sample), sample.reshape(6, -1) / 255
    np.testing.assert_allclose(found["mean"], flat.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found["variance"], flat.var(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found["skewness"], stats.skew(flat, axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["kurtosis"], stats.kurtosis(flat, axis=1), rtol=1e-5, atol=1e-6)
    expected = np.percentile(flat, np.array(kernels.QUANTILES) * 100, axis=1).T
    np.testing.assert_allclose(found["quantiles"], expected, rtol=1e-5)


def test_entropy_and_otsu_are_those_of_scikit_image(sample):
    from skimage.filters import threshold_otsu
    from skimage.measure import shannon_entropy

    values = Probe(of(sample[:, None]))
    found = np.sort(METAFEATURES["entropy"].function(values))
    np.testing.assert_allclose(found, np.sort([shannon_entropy(image) for image in sample]), rtol=1e-5)
    expected = []
    for image in sample / 255.0:
        above = image > threshold_otsu((image * 255).astype(int)) / 255
        share = above.mean()
        expected.append(share * (1 - share) * (image[above].mean() - image[~above].mean()) ** 2 / image.var())
    found = np.sort(METAFEATURES["otsu_separability"].function(values))
    np.testing.assert_allclose(found, np.sort(expected), rtol=1e-4)


def test_cooccurrence_is_that_of_scikit_image(sample):
    from skimage.feature import graycomatrix, graycoprops

    found = statistics(sample)
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    for k, image in enumerate(sample >> 3):
        matrix = graycomatrix(image, [1], angles, levels=32, symmetric=True, normed=True)
        for name in ("contrast", "dissimilarity", "homogeneity", "energy", "correlation"):
            np.testing.assert_allclose(found[f"glcm_{name}"][k], graycoprops(matrix, name).mean(), rtol=1e-5)


def test_local_patterns_are_those_of_scikit_image(sample):
    from skimage.feature import local_binary_pattern

    for image, found in zip(sample[:3], kernels.local_patterns(sample[:3]), strict=True):
        np.testing.assert_array_equal(found, local_binary_pattern(image, 8, 1, "uniform")[1:-1, 1:-1])


def test_gradients_are_those_of_numpy_and_scipy(sample):
    from scipy.ndimage import convolve, laplace

    found = statistics(sample)
    inner = (slice(None), slice(1, -1), slice(1, -1))
    level = sample / 255.0
    dy, dx = np.gradient(level, axis=(1, 2))
    np.testing.assert_allclose(found["gradient_energy"], (dx**2 + dy**2)[inner].mean(axis=(1, 2)), rtol=1e-5)
    laplacian = np.stack([laplace(image) for image in level])[inner]
    np.testing.assert_allclose(found["laplacian_energy"], (laplacian**2).mean(axis=(1, 2)), rtol=1e-5)
    mask = np.outer([1, -2, 1], [1, -2, 1])  # Immerkaer's
    answer = np.stack([convolve(image, mask) for image in level])[inner]
    expected = np.sqrt(np.pi / 2) * np.abs(answer).sum(axis=(1, 2)) / (6 * 38 * 29)
    np.testing.assert_allclose(found["noise_sigma"], expected, rtol=1e-5)


def test_morans_i_is_its_definition(sample):
    found = statistics(sample)["moran"]
    for image, value in zip(sample.astype(float), found, strict=True):
        z = image - image.mean()
        pairs = 2 * ((z[1:] * z[:-1]).sum() + (z[:, 1:] * z[:, :-1]).sum())
        weights = 2 * (39 * 31 + 40 * 30)
        assert value == pytest.approx(image.size / weights * pairs / (z**2).sum(), rel=1e-5)


@pytest.fixture(scope="module")
def points() -> Probe:
    from sklearn.datasets import make_classification

    x, y = make_classification(240, 12, n_informative=6, n_classes=3, n_clusters_per_class=1, random_state=0)
    return Probe(of(x, y))


def test_structure_is_that_of_scikit_learn(points):
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import NearestNeighbors

    names = ("class_separability", "hubness", "neighbour_error", "pca_first", "effective_rank", "sample_correlation")
    value = {name: METAFEATURES[name].function(points) for name in names}
    x, y = points.rows.astype(float), points.labels
    assert value["class_separability"] == pytest.approx(silhouette_score(x, y), rel=1e-4)
    near = NearestNeighbors(n_neighbors=10).fit(x).kneighbors(return_distance=False)
    count = np.bincount(near.ravel(), minlength=len(x))
    assert value["hubness"] == pytest.approx(((count - 10.0) ** 3).mean() / ((count - 10.0) ** 2).mean() ** 1.5)
    nearest = near[:, 0]
    assert value["neighbour_error"] == pytest.approx((y[nearest] != y).mean())
    singular = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
    share = singular / singular.sum()
    assert value["pca_first"] == pytest.approx(share[0], rel=1e-5)
    assert value["effective_rank"] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-5)
    pairs = np.corrcoef(x)[np.triu_indices(len(x), 1)]
    assert value["sample_correlation"] == pytest.approx(pairs.mean(), abs=1e-6)


def test_the_fisher_ratio_is_the_f_statistic(points):
    from sklearn.feature_selection import f_classif

    f = f_classif(points.rows.astype(float), points.labels)[0] * 2 / (240 - 3)  # degrees of freedom taken out
    assert METAFEATURES["fisher_best"].function(points) == pytest.approx(1 / (1 + f.max()), rel=1e-4)


def test_landmarkers_are_those_of_scikit_learn(points):
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import Ridge
    from sklearn.neighbors import NearestCentroid

    x, y = points.rows.astype(float), points.labels
    train, test = np.arange(240) < 180, np.arange(240) >= 180
    one_hot = np.eye(3, dtype=np.float32)[y[train]]
    found = marks.nearest_mean(x[train], one_hot, x[test]).argmax(axis=1)
    np.testing.assert_array_equal(found, NearestCentroid().fit(x[train], y[train]).predict(x[test]))

    counts = one_hot.sum(axis=0)
    weight = (1 / counts / 3)[y[train]]
    centred = x[train] - weight @ x[train]
    alpha = marks.RIDGE * np.trace((weight * centred.T) @ centred) / 12
    reference = Ridge(alpha=alpha).fit(x[train], one_hot, sample_weight=weight).predict(x[test])
    np.testing.assert_allclose(marks.ridge(x[train], one_hot, x[test]), reference, rtol=1e-5, atol=1e-5)

    same = np.concatenate([np.flatnonzero(train & (y == k))[:50] for k in range(3)])  # equal classes: one covariance
    model = LinearDiscriminantAnalysis("lsqr", shrinkage=marks.SHRINKAGE, priors=[1 / 3] * 3)
    model.fit(x[same], y[same])
    found = marks.discriminant(x[same], np.eye(3)[y[same]], x[test])
    expected = model.decision_function(x[test])
    np.testing.assert_allclose(np.diff(found, axis=1), np.diff(expected, axis=1), rtol=1e-5, atol=1e-5)


def test_the_stump_finds_the_cut_that_a_tree_finds():
    from sklearn.tree import DecisionTreeClassifier

    rng = np.random.default_rng(0)
    x, y = rng.random((200, 4)), np.arange(200) % 2
    x[:, 2] += 0.3 * y
    found = marks.stump(x, np.eye(2)[y], x).argmax(axis=1)
    tree = DecisionTreeClassifier(max_depth=1, class_weight="balanced").fit(x, y)
    assert tree.tree_.feature[0] == 2
    assert (found == y).mean() >= tree.score(x, y) - 0.05 and (found == y).mean() > 0.6


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 4), st.integers(4, 40), st.integers(0, 10**6))
def test_accuracy_and_area_are_those_of_scikit_learn(classes, n, seed):
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(classes), rng.integers(0, classes, n)])
    predicted = rng.integers(0, classes, len(truth))
    assert marks.balanced_accuracy(truth, predicted) == pytest.approx(balanced_accuracy_score(truth, predicted))
    scores = rng.integers(0, 5, (len(truth), classes)).astype(float)  # with ties
    expected = np.mean([roc_auc_score(truth == k, scores[:, k]) for k in range(classes)])
    assert marks.area_under_curve(truth, scores) == pytest.approx(expected)


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


# -- pairs -------------------------------------------------------------------------------------------------------------


def test_a_dataset_is_like_itself():
    itself = vector("colour") | {"modality": "chest X-ray", "organ": "lung"}
    for name, value in extract_pair(itself, itself).items():
        assert value == (1 if name.startswith("same") else 0), name


def test_pairs_of_what_is_known():
    source = {"n_samples": 800.0, "n_classes": 8, "height": 64, "width": 64, "n_channels": 3, "modality": "chest X-ray"}
    target = {"n_samples": 100.0, "n_classes": 2, "height": 32, "width": 32, "n_channels": 1, "modality": "radiograph"}
    values = extract_pair(source, target)
    known = {"size_ratio": 3, "class_ratio": 2, "resolution_ratio": 2, "same_channels": 0, "same_modality": 1}
    assert {name: value for name, value in values.items() if not np.isnan(value)} == known
    assert extract_pair(source, target | {"modality": "MRI"})["same_modality"] == 0
    assert np.isnan(extract_pair(source, {"modality": ""})["same_modality"])
    assert all(np.isnan(value) for value in extract_pair({}, {"n_samples": np.nan, "organ": None}).values())


def test_distances_are_standardised_by_the_scale():
    source, target = {"brightness.mean": 0.2, "entropy.mean": 5.0}, {"brightness.mean": 0.5, "entropy.mean": 7.0}
    values = extract_pair(source, target, scale={"brightness.mean": 0.1, "entropy.mean": 2.0, "moran.mean": 1.0})
    assert values["intensity_distance"] == pytest.approx(np.sqrt((3**2 + 1**2) / 2))
    assert np.isnan(values["texture_distance"])
    relative = np.sqrt(((3 / 7) ** 2 + (2 / 12) ** 2) / 2)
    assert extract_pair(source, target)["intensity_distance"] == pytest.approx(relative)


def test_unlike_images_are_farther():
    near = extract_pair(vector("colour"), vector("float in 0-1"))
    far = extract_pair(vector("colour"), vector("black"))
    for name in ("intensity_distance", "texture_distance", "image_distance"):
        assert near[name] < 0.01 < far[name]


# -- real files --------------------------------------------------------------------------------------------------------


def load(path: Path) -> Dataset:
    """A file of the shared datasets, without going through the readers."""
    import h5py

    with h5py.File(path) as file:
        part = {key: file[key][:] for key in file if key not in ("images", "features")}
        images = file["images" if "images" in file else "features"][:]
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4:
        images = np.moveaxis(images, 3, 1)
    fields = {}
    if path.parent.name == "seg":
        fields = {"masks": part["masks"]}
    elif path.parent.name == "mil":
        fields = {"bags": part["bag_ids"], "target": part["bag_labels"].astype(int)}
    else:
        fields = {"target": part["labels"], "groups": part.get("patient_id", part.get("group_id"))}
    return Dataset(path.stem, ArrayImages(images), **fields)


def test_every_shared_file_has_meta_features(shared):
    files = sorted(path for kind in ("cls", "seg", "mil") for path in (shared / "data" / kind).glob("*.h5"))
    assert files
    for path in files:
        data = load(path)
        values = extract(data, max_samples=100)
        assert values.keys() == vector("colour").keys()
        assert not any(np.isinf(value) for value in values.values()), path.name
        pixels = [c for f in METAFEATURES.values() if f.facts["needs"] == "images" for c in f.columns]
        assert np.isnan([values[c] for c in pixels]).all() == (data.images.array.ndim == 2), path.name
