"""Meta-features: contracts over the registry, pairs, real files. Single values: test_metafeature_values.py."""

import os
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import blobs

from metamed.assessments import Triplets
from metamed.dataset import ArrayImages, Card, Dataset
from metamed.errors import UnknownName
from metamed.metafeatures import METAFEATURES, PAIR_METAFEATURES, extract, extract_pair, metafeature

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
        "triplets": of(images, triplets=Triplets(*np.arange(12).reshape(3, 4), np.zeros(4))),
        "vectors": of(rng.normal(size=(40, 8)), rng.integers(0, 3, 40)),
        "vectors with holes": of(np.where(rng.random((40, 8)) < 0.2, np.nan, 1.0) * np.inf, rng.integers(0, 3, 40)),
        "nothing labelled": of(noise(9, 3, 9, 9), [-1] * 9),
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
        "masks": data.kind == "segmentation",
        "bags": data.kind == "mil",
        "groups": data.groups is not None,
        "coordinates": data.coordinates is not None,
        "assessments": data.triplets is not None or data.ratings is not None,
        "triplets": data.triplets is not None,
    }
    maybe = {"variety", "variety within classes", "pairs within classes", "repeated groups", "foreground", "outline",
             "repeated bags", "both classes", "repeated answers", "sides", "witnesses"}  # fmt: skip
    assert need in answers or need in maybe, f"'{need}' is not a known need"
    return answers.get(need)


def assert_kept(data: Dataset, values: dict[str, float]) -> None:
    """Every value is a float within its range, missing where a need is and nowhere else."""
    for feature in (f for f in METAFEATURES.values() if not f.deep):
        needs = [present(need.strip(), data) for need in feature.facts["needs"].split(",")]
        low, high = map(float, feature.facts["range"].split(" to "))
        for column in feature.columns:
            value, about = values[column], f"{column} of {data.name}"
            assert type(value) is float
            if False in needs:
                assert np.isnan(value), f"{about} should be missing"
            elif None not in needs:
                assert np.isfinite(value), f"{about} is {value}"
            if np.isfinite(value) and not column.endswith(".sd"):
                assert low - 1e-6 <= value <= high + 1e-6, f"{about} = {value} is outside {feature.facts['range']}"
            assert not np.isinf(value), about


@pytest.mark.parametrize("name", MADE)
def test_values_are_floats_in_their_range_and_missing_only_where_a_need_is(name):
    assert_kept(MADE[name], vector(name))


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
    assert facts["cost"] in {"facts", "pixels", "distances", "models", "network", "stored vectors"}


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


# -- pairs -------------------------------------------------------------------------------------------------------------


def test_a_dataset_is_like_itself():
    itself = vector("colour") | {"modality": "chest X-ray", "organ": "lung"}
    for other in ("segmentation", "bags of images"):  # what images with classes do not have
        itself |= {k: v for k, v in vector(other).items() if np.isnan(itself[k])}
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


FULL = os.environ.get("METAMED_FULL_TESTS") == "1"  # every image of every file: minutes instead of seconds


def test_every_shared_file_keeps_the_contract(shared):
    from metamed.readers import read

    files = sorted(path for kind in ("cls", "seg", "mil", "crowd") for path in (shared / "data" / kind).glob("*.h5"))
    assert files
    for path in files:
        data = read(path)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            values = extract(data, max_samples=None if FULL else 60)
        assert values.keys() == vector("colour").keys()
        assert_kept(data, values)
