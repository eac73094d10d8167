"""What every reader, measure, meta-feature and method has to fulfil, over all that are registered."""

import math
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import blobs
from PIL import Image

from metamed.dataset import KINDS, ArrayImages
from metamed.measures import MEASURES, PRIMARY
from metamed.metafeatures import METAFEATURES, PAIR_METAFEATURES, extract, extract_pair
from metamed.methods import described, sample_setups
from metamed.readers import READERS, read

# ---- readers


def _h5(path):
    data, path = blobs(24), path / "blobs.h5"
    with h5py.File(path, "w") as file:
        file["images"], file["labels"] = data.images.array.transpose(0, 2, 3, 1), data.target
        file["patient_id"] = data.groups
    return path


def _npz(path):
    data, path = blobs(24), path / "blobs.npz"
    np.savez(path, images=data.images.array.transpose(0, 2, 3, 1), labels=data.target, patient_id=data.groups)
    return path


def _folder(path):
    for i, (image, k) in enumerate(zip(blobs(24).images.array, blobs(24).target, strict=True)):
        (path / "blobs" / "ab"[k]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(path / "blobs" / "ab"[k] / f"{i:02}.png")
    return path / "blobs"


WRITERS = {"hdf5": _h5, "npz": _npz, "images": _folder}
# readers of other things than labelled images: the test file with their round trip
ELSEWHERE = dict.fromkeys(["slides", "torchmil", "bag_table"], "test_readers_bags.py")
ELSEWHERE |= dict.fromkeys(["decathlon", "nnunet", "dataset_json", "image_masks", "nifti"], "test_cases.py")


def test_every_reader_is_read_back():
    assert WRITERS.keys() | ELSEWHERE.keys() == READERS.keys()
    for name, file in ELSEWHERE.items():
        assert f"def test_{name}_gives_back_what_was_written(" in (Path(__file__).parent / file).read_text("utf-8")


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_reader_gives_back_what_was_written(name, tmp_path):
    written, data = blobs(24), read(WRITERS[name](tmp_path))
    order = np.argsort(written.target, kind="stable") if name == "images" else np.arange(24)
    assert data.kind == "classification" and data.name == "blobs" and data.images.shape == (24, 3, 16, 16)
    assert np.array_equal(np.concatenate([b for _, b in data.images.chunks(7)]), written.images.array[order])
    assert np.array_equal(data.images[3], written.images.array[order][3])
    assert np.array_equal(data.target, written.target[order])
    assert READERS[name].description and data.digest == read(WRITERS[name](tmp_path)).digest


# ---- measures


def _perfect(truth):
    return np.clip(np.eye(3)[truth], 1e-6, 1)


@pytest.mark.parametrize("name", [n for n, m in MEASURES.items() if set(m.kinds) & {"classification", "mil"}])
def test_measure_is_best_when_perfect_and_does_not_see_the_order(name):
    measure, rng = MEASURES[name], np.random.default_rng(0)
    truth = rng.integers(0, 3, 60)
    noise = rng.dirichlet(np.ones(3), 60)
    best, worse = measure(truth, _perfect(truth)), measure(truth, noise)
    assert (best > worse) if measure.higher else (best < worse)
    assert measure.higher == (best == pytest.approx(1, abs=1e-4)) or best == pytest.approx(0, abs=1e-4)
    order = rng.permutation(60)
    assert measure(truth[order], noise[order]) == pytest.approx(worse)
    assert (measure.function.__doc__ or "").strip()


@pytest.mark.parametrize("kind", sorted(set(PRIMARY) & set(KINDS)))
def test_what_is_recommended_by_is_a_share_where_more_is_better(kind):
    name = PRIMARY[kind]
    if name in MEASURES:
        assert MEASURES[name].higher and kind in MEASURES[name].kinds


# ---- meta-features


@pytest.fixture(scope="module")
def vectors():
    data = blobs(40)
    order = np.random.default_rng(0).permutation(40)
    shuffled = replace(data, images=ArrayImages(data.images.array[order]), target=data.target[order],
                       groups=data.groups[order])  # fmt: skip
    return extract(data), extract(data), extract(shuffled)


@pytest.mark.parametrize("name", sorted(n for n, f in METAFEATURES.items() if not f.deep))
def test_meta_feature_is_a_float_the_same_again_and_in_any_order(name, vectors):
    for column in METAFEATURES[name].columns:
        first, again, shuffled = (v[column] for v in vectors)
        assert isinstance(first, float) and not math.isinf(first)
        assert first == again or math.isnan(first) and math.isnan(again)
        assert shuffled == pytest.approx(first, rel=1e-6, abs=1e-9, nan_ok=True)
    assert all(METAFEATURES[name].facts.values()), "the docstring lacks unit, range, cost, needs or source"


@pytest.mark.parametrize("name", sorted(PAIR_METAFEATURES))
def test_pair_meta_feature_is_a_float_and_documented(name, vectors):
    words = {"modality": "ct", "organ": "lung", "modality_group": "ct"}
    value = extract_pair(vectors[0] | words, vectors[2] | words)[name]
    assert isinstance(value, float) and not math.isinf(value) and PAIR_METAFEATURES[name].facts["definition"]


# ---- methods, as described to whoever has no torch


@pytest.mark.parametrize("name", sorted(described()))
def test_described_method_has_its_defaults_inside_its_space(name):
    method = described()[name]
    assert set(method.space) == set(method.defaults) and method.version >= 1 and method.description
    assert all(method.defaults[k] in domain for k, domain in method.space.items())
    for setup in sample_setups(method, 5, seed=1):
        assert setup.method == name and all(setup.hyperparameters[k] in d for k, d in method.space.items())
    assert sample_setups(method, 5, seed=1) == sample_setups(method, 5, seed=1)
