"""Kept runs answer for new bags, as they did when they were trained, and say what each instance counts."""

import io

import h5py
import numpy as np
import pytest
import torch
from test_mil import image_bags, witnesses

from metamed.bag_prediction import BagPredictor, instances_as_csv
from metamed.errors import MetamedError, NotApplicable
from metamed.experiments import run_setup
from metamed.prediction import Predictor
from metamed.records import Setup
from metamed.store import Store
from metamed.tasks import make_task
from metamed.training import load_images, read_weights

SHORT = {"epochs": 2}


@pytest.mark.parametrize("setup", [Setup("clam", SHORT), Setup("transmil", SHORT), Setup("mi_graph"), Setup("miles")])
def test_a_kept_run_says_the_same_of_its_test_bags_as_when_it_was_trained(setup):
    data, store = witnesses(), Store.memory()
    task = make_task(data)
    run = run_setup(setup, task, data, store, device="cpu", keep_weights=True)
    answers, scores = BagPredictor.of(run, store)(data)
    found = np.load(io.BytesIO(store.artifact(run, "predictions.npz").read_bytes()))
    assert answers[list(task.folds[0].test)] == pytest.approx(found["test"].astype(float), abs=2e-3)
    assert scores[found["instance"]] == pytest.approx(found["instance_score"].astype(float), rel=2e-3, abs=2e-3)


def test_frozen_features_of_images_are_computed_for_new_bags_too(shared):
    data, store = image_bags(), Store.united(Store.memory())
    setup = Setup("single_instance", {"image_size": 32}, None, ("imagenet.coral.mobilenet_v2",))
    run = run_setup(setup, make_task(data), data, store, device="cpu", keep_weights=True)
    answers, scores = BagPredictor.of(run, store)(data)
    assert answers.shape == (24, 2) and len(scores) == 72 and run.score("auc") == 1


def test_tables_of_bags_and_of_instances():
    data, store = witnesses(20), Store.memory()
    run = run_setup(Setup("bag_statistics"), make_task(data), data, store, keep_weights=True)
    predictor = BagPredictor.of(run.id[:10], store)
    answers, scores = predictor(data)
    lines = predictor.as_csv(answers).splitlines()
    assert lines[0] == "bag,0,1,predicted" and len(lines) == 21
    lines = instances_as_csv(data, scores).splitlines()
    assert lines[0] == "instance,bag,score" and len(lines) == len(data.images) + 1


def test_what_does_not_fit_is_said():
    data, store = witnesses(), Store.memory()
    run = run_setup(Setup("bag_statistics"), make_task(data), data, store, keep_weights=True)
    with pytest.raises(NotApplicable, match="takes instances of 6 features, not of shape"):
        BagPredictor.of(run, store)(witnesses(d=5))
    with pytest.raises(NotApplicable, match="takes instances of 6 features"):
        BagPredictor.of(run, store)(image_bags())
    with pytest.raises(NotApplicable, match="learned from bags"):
        Predictor.of(run, store)
    bare = run_setup(Setup("bag_statistics"), make_task(data), data, store, seed=1)
    with pytest.raises(MetamedError, match="kept no weights"):
        BagPredictor.of(bare, store)


def onnx_of(predictor, path):
    """What the written file answers, as a function of instances and mask."""
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    predictor.export(path)
    session = runtime.InferenceSession(path)
    return session, lambda instances, mask: session.run(None, {"instances": instances, "mask": mask})


def alike(answer, predictor, data, instances):
    """Is the answer about all bags, padded to the largest, and about one alone, what the predictor says?"""
    answers, scores = predictor(data)
    members = [np.flatnonzero(data.bags == b) for b in range(data.n_samples)]
    for chosen, noise in ((members, 7), (members[3:4], 0)):
        mask = np.arange(max(map(len, chosen))) < np.array([[len(m)] for m in chosen])
        given = np.full((*mask.shape, *instances.shape[1:]), noise, instances.dtype)
        given[mask] = np.concatenate([instances[m] for m in chosen])
        found, told = answer(given, mask)
        first = 0 if len(chosen) > 1 else 3
        assert np.allclose(found, answers[first : first + len(chosen)], atol=1e-5)
        assert np.allclose(told[mask], np.concatenate([scores[m] for m in chosen]), atol=1e-4)
        assert (told[~mask] == -np.inf).all()


def test_a_network_of_bags_leaves_as_onnx_and_says_the_same(tmp_path):
    data, store = witnesses(), Store.memory()
    run = run_setup(Setup("attention", SHORT | {"gated": True}), make_task(data), data, store, device="cpu",
                    keep_weights=True)  # fmt: skip
    predictor = BagPredictor.of(run, store)
    session, answer = onnx_of(predictor, tmp_path / "model.onnx")
    alike(answer, predictor, data, data.images.array.astype(np.float32))
    about = session.get_modelmeta().custom_metadata_map
    assert about["method"] == "attention" and about["instance"] == "6" and about["images"] == "float32"


def test_frozen_sources_lie_inside_the_module_that_leaves(shared):
    data, store = image_bags(), Store.united(Store.memory())
    setup = Setup("instance_net", SHORT | {"image_size": 32}, None, ("imagenet.coral.mobilenet_v2",))
    run = run_setup(setup, make_task(data), data, store, device="cpu", keep_weights=True)
    predictor = BagPredictor.of(run, store)
    assert predictor.instance == (data.images.shape[1], 32, 32)
    module = predictor.module().eval()

    def answer(instances, mask):
        with torch.no_grad():
            return [part.numpy() for part in module(torch.from_numpy(instances), torch.from_numpy(mask))]

    alike(answer, predictor, data, load_images(data.images, np.arange(len(data.images)), 32))


def test_what_has_no_graph_leaves_as_tensors_only(tmp_path):
    data, store = witnesses(20), Store.memory()
    for setup, why in ((Setup("miles"), "it is no network"), (Setup("transmil", SHORT), "square of its own size")):
        run = run_setup(setup, make_task(data), data, store, device="cpu", keep_weights=True)
        predictor = BagPredictor.of(run, store)
        with pytest.raises(NotApplicable, match=f"cannot be written as ONNX .*{why}.* goes to .safetensors"):
            predictor.export(tmp_path / "model.onnx")
        predictor.export(tmp_path / "model.safetensors")
        kept = read_weights(tmp_path / "model.safetensors")
        assert kept.keys() == predictor.state.keys()
        assert all(np.array_equal(kept[name], value) for name, value in predictor.state.items())
    with pytest.raises(MetamedError, match="a model is written as"):
        predictor.export(tmp_path / "model.pt")


def test_the_commands_run_and_predict_take_bags(tmp_path, capsys):
    from metamed.cli import call

    data = witnesses()
    for name, labelled in (("known", True), ("new", False)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["features"], file["bag_ids"] = data.images.array, data.bags
            if labelled:
                file["bag_labels"] = data.target
    store = ("--store", str(tmp_path / "s.db"))
    assert call(["run", "--dataset", str(tmp_path / "known.h5"), "--method", "bag_statistics", "--keep", *store]) == 0
    run = capsys.readouterr().out.split()[1]
    new = ("--dataset", str(tmp_path / "new.h5"), "--instances", str(tmp_path / "i.csv"))
    assert call(["predict", "--run", run, *new, *store]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("bag,0,1")
    assert len((tmp_path / "i.csv").read_text().splitlines()) == len(data.images) + 1
    assert call(["export", "--run", run, "--to", str(tmp_path / "m.safetensors"), *store]) == 0
    assert "bags n x instances x 6 and their mask" in capsys.readouterr().err
    assert call(["export", "--run", run, "--to", str(tmp_path / "m.onnx"), *store]) == 4
    assert "bag_statistics cannot be written as ONNX" in capsys.readouterr().err
