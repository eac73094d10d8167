"""`metamed features`: what it prints, what it leaves out and says so; how exact a sample is."""

import json

import h5py
import numpy as np
import pytest
from conftest import blobs
from hypothesis import given, settings
from hypothesis import strategies as st

from metamed.cli import call
from metamed.dataset import ArrayImages, Dataset
from metamed.metafeatures import extract, feature_names
from metamed.metafeatures.sampling import remark, standard_error


@pytest.fixture(scope="module")
def retina(tmp_path_factory):
    data, path = blobs(80), tmp_path_factory.mktemp("data") / "retina.h5"
    with h5py.File(path, "w") as file:
        file["images"], file["labels"] = data.images.array.transpose(0, 2, 3, 1), data.target
    return path


def asked(capsys, *arguments) -> tuple[str, str]:
    assert call(["features", *map(str, arguments)]) == 0
    return capsys.readouterr()


def test_everything_is_looked_at_with_zero_and_a_sample_is_said(capsys, retina):
    whole, silent = asked(capsys, "--dataset", retina, "--group", "intensity", "--json", "--max-samples", 0)
    default, quiet = asked(capsys, "--dataset", retina, "--group", "intensity", "--json")
    part, said = asked(capsys, "--dataset", retina, "--group", "intensity", "--json", "--max-samples", 20)
    assert whole == default and silent == quiet == "" and json.loads(part) != json.loads(whole)
    assert "looked at 20 of 80 images (--max-samples 0: all)" in said and f"{standard_error(80, 20):.3f}" in said
    assert asked(capsys, "--dataset", retina, "--json", "--max-samples", 20, "--quiet")[1] == ""


def test_forms_hold_the_same_numbers_under_the_listed_names(capsys, retina):
    plain = json.loads(asked(capsys, "--dataset", retina, "--json")[0])
    rows = [line.split(",") for line in asked(capsys, "--dataset", retina, "--csv")[0].splitlines()]
    assert rows[0] == ["name", "value"] and tuple(name for name, _ in rows[1:]) == tuple(plain) == feature_names()
    for name, value in rows[1:]:
        np.testing.assert_equal(float(value), np.nan if plain[name] is None else plain[name])


def test_a_remark_is_empty_where_nothing_is_left_out():
    assert remark(blobs(20), 5000) == remark(blobs(20), None) == remark(blobs(20), 20) == ""
    many = Dataset("many", ArrayImages(np.zeros((2500, 2))))
    assert remark(many, None).startswith("distances and quick models use 2,000 of 2,500 samples")
    assert "looked at 100 of 2,500 images" in remark(many, 100)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 60), st.integers(0, 1000))
def test_the_standard_error_is_that_of_drawing_without_replacement(n, seed):
    rng = np.random.default_rng(seed)
    seen, values = int(rng.integers(1, n + 1)), rng.normal(size=n)
    means = rng.permuted(np.tile(values, (4000, 1)), axis=1)[:, :seen].mean(axis=1)
    error = np.sqrt(((means - values.mean()) ** 2).mean())
    assert error == pytest.approx(standard_error(n, seen) * values.std(), rel=0.1, abs=1e-9)


def test_a_sample_errs_as_much_as_is_said():
    fade = np.arange(600)[:, None, None, None] / 600
    data = Dataset("noise", ArrayImages((np.random.default_rng(0).random((600, 1, 6, 6)) * fade).astype(np.float32)))
    whole = extract(data, "intensity")
    errors = [extract(data, "intensity", max_samples=60, seed=s)["brightness.mean"] - whole["brightness.mean"]
              for s in range(40)]  # fmt: skip
    said = standard_error(600, 60) * whole["brightness.sd"]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(said, rel=0.4)
