"""Experts' labels and everybody's assessments: networks and probes learn both, and see nothing of the test part."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import blobs
from test_similarity import triplets_by

from metamed import training
from metamed.assessments import Ratings
from metamed.errors import MetamedError, NotApplicable
from metamed.experiments import make_job, run_setup
from metamed.flows.heads import head_from, head_of
from metamed.judged import Judged, judged
from metamed.measures import binary_auc
from metamed.methods import Believed, Shape, get_method
from metamed.prediction import Predictor
from metamed.records import Setup
from metamed.sources import random_source
from metamed.store import Store
from metamed.tasks import make_task

QUICK = {"width": 16, "depth": 2, "epochs": 3, "learning_rate": 0.01}
RANDOM = "random0.small_cnn_16x2"


@pytest.fixture(scope="module")
def both():
    """Labelled images, of each of which two people also said where the square lies, and which were compared by it."""
    data = blobs(60)
    image, level = np.tile(np.arange(60), 2), np.tile(data.target, 2) + np.random.default_rng(0).normal(size=120) * 0.1
    ratings = Ratings(image, np.repeat(["ann", "bob"], 60), np.full(120, "place"), level)
    every = triplets_by(data.target[:, None] + np.zeros((60, 1)), 900)
    said = every.take(data.target[every.closer] != data.target[every.farther])
    return replace(data, name="both", ratings=ratings, triplets=said)


@pytest.mark.parametrize("recipe", ["pretrain", "joint"])
@pytest.mark.parametrize("learns", ["triplets", "ratings"])
def test_recipes_learn_assessments_from_scratch(both, recipe, learns):
    store = Store.memory()
    setup = Setup("small_cnn", QUICK | {"learns": learns}, recipe)
    run = run_setup(setup, make_task(both), both, store, precision="fp32", keep_weights=True)
    assert run.error is None and 0 <= run.score("auc") <= 1 and setup.label.startswith("small_cnn")
    assert recipe in setup.label and "from scratch" in setup.label
    assert Predictor.of(run, store)(both.images).shape == (60, 2)


def test_recipes_learn_assessments_from_a_source(both):
    store = Store.memory()
    store.add(random_source("small_cnn_16x2", 0))
    settings = QUICK | {"image_size": 28}
    run = run_setup(Setup("small_cnn", settings, "joint", (RANDOM,)), make_task(both), both, store, precision="fp32")
    assert run.error is None
    with pytest.raises(MetamedError, match="'finetune' needs a source"):
        run_setup(Setup("small_cnn", settings, "finetune"), make_task(both), both, store)


def test_without_assessments_the_recipe_says_so(classification_data):
    with pytest.raises(NotApplicable, match="no triplets or ratings"):
        task = make_task(classification_data)
        run_setup(Setup("small_cnn", QUICK, "joint"), task, classification_data, Store.memory())


def _fitted(both, recipe, assessed: bool, **settings):
    """Weights of a small network after a recipe, and its own head's; `assessed`: with what people said."""
    training.seed_everything(0)
    net = get_method("small_cnn").build(Shape(3, (16, 16), 2), width=16, depth=2)
    plan = get_method(recipe).build(net, (), Shape(3, (16, 16), 2), **settings)
    plan = plan if assessed else replace(plan, assessed=None)
    x, y, said = both.images.array, both.target, judged(both, np.arange(60), Believed("ratings"))
    setting = training.DEFAULTS | {"epochs": 2, "augment": "none"}
    done = training.fit(plan, x, y, (x, y), setting=setting, precision="fp32", assessed=(x[said.index], said))
    return done, plan


@pytest.mark.parametrize("recipe", ["pretrain", "joint"])
def test_what_people_said_moves_the_encoder(both, recipe):
    (with_them, _), (without, _) = (_fitted(both, recipe, assessed) for assessed in (True, False))
    moved = with_them.model.state_dict(), without.model.state_dict()
    assert not torch.equal(moved[0]["net.encoder.net.0.0.weight"], moved[1]["net.encoder.net.0.0.weight"])
    assert set(moved[0]) == set(moved[1]), "heads for assessments are no part of the model"


def test_pretraining_lowers_the_loss_on_what_people_said(both):
    """After pre-training alone, the ratings are estimated better than by their mean."""
    from metamed.training.assessed import Lesson

    training.seed_everything(0)
    net = get_method("small_cnn").build(Shape(3, (16, 16), 2), width=16, depth=2)
    plan = get_method("pretrain").build(net, (), Shape(3, (16, 16), 2), pretrain_epochs=20)
    x, said = both.images.array, judged(both, np.arange(60), Believed("ratings"))
    setting = training.DEFAULTS | {"augment": "none", "learning_rate": 0.003}
    lesson = Lesson(plan.assessed, said, x, training.Model(net, *training.pixel_statistics(x)), setting)
    generator, rows = torch.Generator().manual_seed(0), np.arange(60)
    before = float(lesson.loss(rows, generator).detach())
    lesson.before("fp32", generator)
    assert float(lesson.loss(rows, generator).detach()) < 0.3 * before


LEARNERS = (Setup("small_cnn", QUICK, "joint"), Setup("small_cnn", QUICK, "pretrain"),
            Setup("probe.triplets", {"network": "small_cnn_16x2"}, None, (RANDOM,)))  # fmt: skip


@pytest.mark.parametrize("setup", LEARNERS)
def test_nothing_that_was_said_of_test_images_is_learned(both, setup, monkeypatch):
    from metamed.jobs import classification, perform

    seen = []

    def spy(*arguments):
        seen.append(judged(*arguments))
        return seen[-1]

    monkeypatch.setattr(classification, "judged", spy)
    store = Store.memory()
    store.add(random_source("small_cnn_16x2", 0))
    task = make_task(both, size=20)
    assert perform(make_job(setup, task, both, store, precision="fp32")).run.error is None
    test = np.array(task.folds[0].test)
    patients = set(both.groups[test].tolist())
    assert seen and not any(patients & set(both.groups[said.index].tolist()) for said in seen)
    labelled = len(task.folds[0].train) + len(task.folds[0].validation)
    assert all(len(said.index) > labelled for said in seen), "images without a label are learned from too"


# ---- probes


@pytest.fixture(scope="module")
def vectors():
    """400 feature vectors whose class hangs on one direction of 40, which people rate and compare by."""
    rng = np.random.default_rng(0)
    x, direction = rng.normal(size=(400, 40)).astype(np.float32), rng.normal(size=40)
    level = x @ direction / np.linalg.norm(direction)
    y = (level + rng.normal(size=400) * 0.3 > 0).astype(int)
    said = triplets_by(level[:300, None], 1500)
    rows = np.stack([said.anchor, said.closer, said.farther], axis=1)
    scores = level[:300, None] + rng.normal(size=(300, 1)) * 0.3
    return x, y, {"triplets": Judged(np.arange(300), np.ones(1500), triplets=rows),
                  "ratings": Judged(np.arange(300), np.ones((300, 1)), scores=scores, attributes=("a",))}  # fmt: skip


def _auc(probe, x, y, said: Judged | None, n: int = 25) -> float:
    if said is not None:
        probe.assessed(x[:300], said)
    return binary_auc(y[300:] == 1, probe.fit(x[:n], y[:n]).predict(x[300:])[:, 1])


@pytest.mark.parametrize(("name", "learns"), [("probe.attributes", "ratings"), ("probe.multitask", "ratings"),
                                              ("probe.multitask", "triplets")])  # fmt: skip
def test_assessments_that_know_the_class_help_where_labels_are_few(vectors, name, learns):
    x, y, said = vectors
    alone = _auc(get_method("probe.linear").build(Shape(40, (), 2)), x, y, None)
    assert _auc(get_method(name).build(Shape(40, (), 2)), x, y, said[learns]) > alone + 0.08


def test_a_metric_along_principal_components_helps_where_people_look_along_one(vectors):
    _, y, _ = vectors
    rng = np.random.default_rng(1)
    x = (np.linalg.qr(rng.normal(size=(400, 40)))[0] * np.geomspace(20, 10, 40)).astype(np.float32)
    y = (x[:, 39] > 0).astype(int)
    compared = triplets_by(x[:300, 39:], 1500)
    rows = np.stack([compared.anchor, compared.closer, compared.farther], axis=1)
    alone = _auc(get_method("probe.linear").build(Shape(40, (), 2)), x, y, None)
    probe = get_method("probe.triplets").build(Shape(40, (), 2), towards="none", violation_price=10.0)
    assert _auc(probe, x, y, Judged(np.arange(300), np.ones(1500), triplets=rows)) > alone + 0.15


@pytest.mark.parametrize("name", ["probe.attributes", "probe.triplets", "probe.multitask"])
def test_what_such_a_probe_learned_is_kept_in_tensors(vectors, name):
    x, y, said = vectors
    probe = get_method(name).build(Shape(40, (), 2))
    probe.assessed(x[:300], said["triplets" if name == "probe.triplets" else "ratings"])
    probe.fit(x[:50], y[:50])
    head = head_of(probe)
    again = head_from(head.state_dict())
    assert np.allclose(again(torch.from_numpy(x)).numpy(), np.exp(probe.predict(x)), atol=1e-4)


@pytest.mark.parametrize("name", ["probe.attributes", "probe.triplets", "probe.multitask"])
def test_such_a_probe_is_run_kept_and_asked_again(both, name):
    store = Store.memory()
    store.add(random_source("small_cnn_16x2", 0))
    setup = Setup(name, {"network": "small_cnn_16x2"}, None, (RANDOM,))
    run = run_setup(setup, make_task(both), both, store, keep_weights=True)
    assert run.error is None
    said = Predictor.of(run, store)(both.images)
    with np.load(store.artifact(run, "predictions.npz")) as kept:
        assert np.allclose(said[kept["test_index"]], kept["test"], atol=2e-3)
