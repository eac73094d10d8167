"""Kept weights answer as the run did: networks, ensembles and probes, in torch and as ONNX."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import blobs

from metamed.dataset import ArrayImages, take
from metamed.errors import MetamedError, NotApplicable, UnknownName
from metamed.experiments import Suite, repeat, run_setup, run_suite
from metamed.prediction import Predictor
from metamed.records import Setup
from metamed.sources import as_source
from metamed.store import Store
from metamed.tasks import make_task
from metamed.training import Model, weights_bytes

QUICK = {"epochs": 1, "width": 16, "depth": 2}
DATA = blobs(60, classes=3)
LABELS = replace(DATA, target=np.stack([DATA.target == 0, DATA.target < 2, np.arange(60) < 0], axis=1).astype(int))


@pytest.fixture(scope="module")
def store():
    """A store with two sources of one architecture."""
    store = Store.memory()
    for seed in (5, 6):
        other = replace(blobs(40, seed=seed), name=f"other{seed}")
        run = run_setup(Setup("small_cnn", QUICK), make_task(other), other, store, keep_weights=True, device="cpu")
        as_source(run, f"s{seed}", store)
    return store


def kept(store, setup, data=DATA, **options):
    run = run_setup(setup, make_task(data), data, store, device="cpu", keep_weights=True, **options)
    assert run.error is None, run.error
    return run


def probe(name, **hyperparameters):
    return Setup(f"probe.{name}", {"image_size": 28, **hyperparameters}, None, ("s5", "s6"))


SETUPS = {
    "scratch": (Setup("small_cnn", QUICK), DATA),
    "labels": (Setup("small_cnn", QUICK), LABELS),
    "finetune": (Setup("small_cnn", {**QUICK, "image_size": 28}, "finetune", ("s5",)), DATA),
    "ensemble": (Setup("small_cnn", {**QUICK, "image_size": 28}, "ensemble", ("s5", "s6")), DATA),
    "soup": (Setup("small_cnn", {**QUICK, "image_size": 28, "combine": "soup"}, "ensemble", ("s5", "s6")), DATA),
    "linear": (probe("linear"), DATA),
    "linear of labels": (probe("linear"), LABELS),
    "linear of two": (probe("linear"), blobs(60)),
    "mlp": (probe("mlp"), DATA),
    "mlp of labels": (probe("mlp"), LABELS),
    "knn": (probe("knn", neighbours=5), DATA),
    "knn of labels": (probe("knn", neighbours=5), LABELS),
}


def stored_answers(run, store):
    with np.load(store.artifact(run, "predictions.npz")) as file:
        return file["test_index"], file["test"].astype(np.float32)


@pytest.mark.parametrize("name", SETUPS)
def test_a_predictor_answers_as_its_run_did(name, store):
    setup, data = SETUPS[name]
    run = kept(store, setup, data)
    index, before = stored_answers(run, store)
    predictor = Predictor.of(run.id[:10], store)
    again = predictor(ArrayImages(take(data.images, index)))
    assert np.abs(again - before).max() < 1e-3  # predictions are stored in half precision
    assert predictor.multi_label == data.multi_label and predictor.classes == ("a", "b", "c")[: data.n_classes]


@pytest.mark.parametrize("name", ["scratch", "ensemble", "labels", "linear", "knn of labels"])
def test_an_exported_model_says_the_same(name, store, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    setup, data = SETUPS[name]
    predictor = Predictor.of(kept(store, setup, data), store)
    raw = take(data.images, np.arange(7))
    expected = predictor(ArrayImages(raw))
    for images, given in (("uint8", raw), ("float", raw.astype(np.float32) / 255)):
        if images == "float" and name != "scratch":
            continue
        predictor.export(tmp_path / "model.onnx", images)
        session = runtime.InferenceSession(tmp_path / "model.onnx")
        side = predictor.side
        if side != raw.shape[-1]:  # other sizes are brought to the model's first
            from metamed.training import load_images

            given = load_images(ArrayImages(raw), np.arange(7), side)
        for n in (1, 7):
            (said,) = session.run(["probabilities"], {"images": given[:n]})
            assert np.abs(said - expected[:n]).max() < 1e-4
        about = session.get_modelmeta().custom_metadata_map
        assert json.loads(about["classes"]) == ["a", "b", "c"] and about["side"] == str(side)


def test_exported_tensors_say_what_they_are(store, tmp_path):
    from safetensors import safe_open

    run = kept(store, SETUPS["scratch"][0])
    Predictor.of(run, store).export(tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata()["run"] == run.id and "models.0.net.head.weight" in file.keys()  # noqa: SIM118
    with pytest.raises(MetamedError, match="model.pt: a model is written as .onnx or .safetensors"):
        Predictor.of(run, store).export(tmp_path / "model.pt")


def test_the_table_of_predictions(store):
    predictor = Predictor.of(kept(store, SETUPS["scratch"][0]), store)
    rows = list(csv.DictReader(io.StringIO(predictor.as_csv(np.array([[0.2, 0.5, 0.3], [0.9, 0.1, 0.0]])))))
    assert rows[0] == {"sample": "0", "a": "0.200000", "b": "0.500000", "c": "0.300000", "predicted": "b"}
    assert rows[1]["predicted"] == "a"
    labels = Predictor.of(kept(store, *SETUPS["labels"]), store)
    rows = list(csv.DictReader(io.StringIO(labels.as_csv(np.array([[0.7, 0.5, 0.3], [0.1, 0.1, 0.0]])))))
    assert [row["predicted"] for row in rows] == ["a;b", ""]


def test_images_that_do_not_fit_are_refused_in_one_line(store):
    predictor = Predictor.of(kept(store, SETUPS["scratch"][0]), store)
    with pytest.raises(NotApplicable, match="takes images of 3 channels, not 1"):
        predictor(ArrayImages(np.zeros((2, 1, 16, 16), np.uint8)))
    with pytest.raises(NotApplicable, match="takes 2-D images"):
        predictor(ArrayImages(np.zeros((2, 8), np.float32)))
    other = ArrayImages(np.zeros((2, 3, 40, 30), np.uint8))
    assert predictor(other).shape == (2, 3)
    assert "40x30 pixels, but the run learned from 16x16" in predictor.remark(other)
    assert predictor.remark(DATA.images) == ""


def test_a_run_without_weights_says_how_to_make_them():
    store = Store.memory()
    run = run_setup(Setup("small_cnn", QUICK), make_task(DATA), DATA, store, device="cpu")
    with pytest.raises(MetamedError, match=f"metamed run --from {run.id[:12]} --dataset blobs --keep"):
        Predictor.of(run, store)
    with pytest.raises(UnknownName):
        Predictor.of("0" * 12, store)
    with pytest.raises(MetamedError, match="is a setup, not a run"):
        Predictor.of(run.setup, store)
    repeat(run, DATA, store, keep_weights=True)
    assert Predictor.of(run, store)(DATA.images).shape == (60, 3)


# ---- stored runs again, and on shifted images


def test_a_run_repeats_exactly(store):
    run = kept(store, SETUPS["finetune"][0])
    again = repeat(run, DATA, Store.memory(), store)
    assert again.differences == {} and again.notes == () and again.again.id == run.id
    assert again.again.evaluations == run.evaluations


def test_the_probe_of_precisions_moves_nothing(store, monkeypatch):
    """Dropout draws random numbers while the faster precision is looked for; training must not notice."""
    setup = Setup("small_cnn", {**QUICK, "dropout": 0.5})
    monkeypatch.setattr("metamed.training.precision._PROBED", {})
    first, second = (run_setup(setup, make_task(DATA), DATA, Store.memory(), device="cpu") for _ in range(2))
    assert first.evaluations == second.evaluations


def test_what_has_changed_since_is_said(store):
    run = kept(store, SETUPS["scratch"][0])
    older = replace(run, versions=(0, 0), evaluations={"auc": (run.score("auc") - 0.25,)},
                    environment=run.environment | {"torch": "1.0"})  # fmt: skip
    found = repeat(older, DATA, Store.memory(), store)
    assert found.differences == {"auc": (pytest.approx(run.score("auc") - 0.25), run.score("auc"))}
    assert "versions (0, 0) then" in found.notes[0] and "torch: 1.0 then" in found.notes[1]


def test_another_dataset_is_not_the_one(store):
    run = kept(store, SETUPS["scratch"][0])
    with pytest.raises(MetamedError, match="is not what run .* was made on"):
        repeat(run, blobs(60, seed=3), Store.memory(), store)


def test_weights_by_another_hash_are_not_the_same_source(store):
    run = kept(store, SETUPS["finetune"][0])
    with pytest.raises(MetamedError, match="which are not known here"):
        repeat(replace(run, weights=("f" * 64,)), DATA, Store.memory(), store)


def test_a_source_that_was_learned_again_may_have_come_out_otherwise(tmp_path):
    """Another processor rounds differently: what was started from such weights is made again, and that is said."""
    with Store(tmp_path / "s.db") as own:
        first = run_setup(Setup("small_cnn", QUICK), make_task(blobs(40, seed=5)), blobs(40, seed=5), own,
                          keep_weights=True, device="cpu")  # fmt: skip
        source, target = as_source(first, "mine", own), replace(DATA, name="target")
        run = kept(own, Setup("small_cnn", {**QUICK, "image_size": 28}, "finetune", ("mine",)), target)
        path = own.artifact(first, "weights.safetensors")
        model = Predictor.of(first, own).answer.models[0]
        path.write_bytes(weights_bytes(Model(model.net, model.mean + 0.01, model.sd)))
        found = repeat(run, target, Store.memory(), own)
        assert found.again.weights != run.weights and found.again.error is None
        assert f"weights of mine: sha256 {source.sha256[:12]} then" in found.notes[-1]
        path.unlink()
        with pytest.raises(MetamedError, match=f"`metamed run --from {first.id[:12]} --keep` learns them again"):
            repeat(run, target, Store.memory(), own)


@pytest.mark.parametrize("name", ["scratch", "linear"])
def test_robustness_is_evaluated_when_asked_for(name, store):
    setup, data = SETUPS[name]
    fresh = Store.memory()
    fresh.merge(store)
    run = run_setup(setup, make_task(data, seed=1), data, fresh, device="cpu", robust=True)
    shifts = {f"auc@{how}" for how in ("noise", "blur", "mark", "confounded", "unconfounded", "reversed")}
    assert shifts <= set(run.evaluations) and not shifts & set(kept(store, setup, data).evaluations)
    assert fresh.get(run.id).evaluations == run.evaluations


def test_a_suite_can_ask_for_robustness():
    suite = Suite("r", ("blobs",), (Setup("small_cnn", QUICK),), robust=True)
    (run,) = run_suite(suite, Store.memory(), lambda name: DATA, device="cpu")
    assert "auc@noise" in run.evaluations
