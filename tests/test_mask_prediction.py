"""Kept runs that segment answer for new images as they did, in torch, as ONNX and from the command line."""

import csv
import io

import h5py
import numpy as np
import pytest
from conftest import scenes

from metamed.dataset import ArrayImages
from metamed.errors import MetamedError, NotApplicable
from metamed.experiments import run_setup
from metamed.mask_prediction import MaskPredictor
from metamed.records import Setup
from metamed.store import Store
from metamed.tasks import make_task

QUICK = {"epochs": 2, "width": 8, "depth": 1}
SETUPS = {
    "whole": Setup("unet", {**QUICK, "test_flips": True}),
    "patch": Setup("unet", {**QUICK, "view": "patch", "image_size": 28}),
    "otsu": Setup("otsu_position"),
    "forest": Setup("pixel_forest", {"trees": 16, "leaves": 64}),
}


@pytest.fixture(scope="module")
def store():
    return Store.memory()


@pytest.fixture(scope="module")
def data():
    return scenes(20)


def kept(store, data, setup):
    run = run_setup(setup, make_task(data), data, store, device="cpu", threads=1, keep_weights=True)
    assert run.error is None, run.error
    return run


@pytest.mark.parametrize("name", sorted(SETUPS))
def test_a_kept_run_answers_as_it_did(name, store, data):
    run = kept(store, data, SETUPS[name])
    with np.load(store.artifact(run, "predictions.npz")) as stored:
        index, masks = stored["test_index"], stored["test"]
    predictor = MaskPredictor.of(run, store)
    again = predictor(ArrayImages(data.images.array[index]))
    assert (again == masks).mean() > 0.999
    rows = list(csv.DictReader(io.StringIO(predictor.as_csv(again))))
    assert float(rows[0]["disc"]) == pytest.approx((again[0] == 1).mean(), abs=1e-6)


@pytest.mark.parametrize("name", ["whole", "patch"])
def test_images_of_another_size_get_masks_of_theirs(name, store, data):
    predictor = MaskPredictor.of(kept(store, data, SETUPS[name]), store)
    images = ArrayImages(np.random.default_rng(0).integers(0, 256, (2, 1, 70, 41)).astype(np.uint8))
    assert predictor(images).shape == (2, 70, 41)
    assert "70x41" in predictor.remark(images) and not predictor.remark(data.images)
    with pytest.raises(NotApplicable, match="1 channel, not 3"):
        predictor(ArrayImages(np.zeros((1, 3, 24, 24), np.uint8)))


@pytest.mark.parametrize("name", ["whole", "forest"])
def test_an_exported_model_gives_the_same_probabilities(name, store, data, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    import torch

    predictor = MaskPredictor.of(kept(store, data, SETUPS[name]), store)
    predictor.export(tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    images = data.images.array[:3]
    (probabilities,) = session.run(None, {"images": images})
    with torch.no_grad():
        expected = predictor.answer(torch.from_numpy(images)).numpy()
    assert probabilities.shape == (3, 3, 24, 24) and probabilities == pytest.approx(expected, abs=1e-4)
    assert session.get_modelmeta().custom_metadata_map["view"] == "whole"


def test_run_predict_and_export_from_the_command_line(data, tmp_path, monkeypatch, capsys):
    from metamed.cli import main

    with h5py.File(tmp_path / "scenes.h5", "w") as file:
        file["images"], file["masks"] = data.images.array[:, 0], data.masks
        file["patient_id"], file["class_names"] = data.groups, list(data.card.classes)

    def command(*words):
        monkeypatch.setattr("sys.argv", ["metamed", *map(str, words), "--store", str(tmp_path / "s.db")])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code, capsys.readouterr().err
        return capsys.readouterr().out

    file = tmp_path / "scenes.h5"
    said = command("run", "--dataset", file, "--method", "unet", "--set", "epochs=1", "--set", "width=8", "--keep")
    run = said.split()[1]
    assert "dice.2" in said and "hd95" in said
    assert command("predict", "--run", run, "--dataset", file).startswith("sample,background,disc,bar")
    command("predict", "--run", run, "--dataset", file, "--to", tmp_path / "masks.npz")
    with np.load(tmp_path / "masks.npz") as written:
        assert written["masks"].shape == data.masks.shape and written["class_names"].tolist() == list(data.card.classes)
    command("export", "--run", run, "--to", tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").stat().st_size > 1000


def test_masks_go_to_npz_alone(store, data, tmp_path):
    predictor = MaskPredictor.of(kept(store, data, SETUPS["otsu"]), store)
    with pytest.raises(MetamedError, match="masks are written as .npz"):
        predictor.write(data.masks, tmp_path / "masks.tif")
