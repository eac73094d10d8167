"""Triplets as samples: how they are divided, what learns from them, and what comes out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import blobs

from metamed.assessments import Triplets
from metamed.dataset import Dataset
from metamed.embedding_prediction import EmbeddingPredictor
from metamed.errors import MetamedError, NotApplicable
from metamed.experiments import run_setup
from metamed.flows.similarity.metric import LinearMetric
from metamed.judged import judged, questions
from metamed.methods import Believed
from metamed.records import Setup
from metamed.sources import as_source, random_source
from metamed.store import Store
from metamed.tasks import make_task
from metamed.training.assessed import preferred, triplet_loss

QUICK = {"network": "small_cnn_16x2", "epochs": 6, "learning_rate": 0.01, "augment": "none"}


def triplets_by(values: np.ndarray, n: int, seed: int = 0, annotator=None) -> Triplets:
    """Triplets that are all true of distances between rows of `values`."""
    rng = np.random.default_rng(seed)
    rows = np.array([rng.choice(len(values), 3, replace=False) for _ in range(n)])
    near, far = (np.linalg.norm(values[rows[:, 0]] - values[rows[:, k]], axis=1) for k in (1, 2))
    rows = np.where((near > far)[:, None], rows[:, [0, 2, 1]], rows)
    return Triplets(*rows.T, np.zeros(n, int) if annotator is None else annotator)


@pytest.fixture(scope="module")
def compared() -> Dataset:
    """Images without labels, compared by where their bright square lies."""
    data = blobs(60)
    every = triplets_by(data.target[:, None] + np.zeros((60, 1)), 900)
    said = every.take(data.target[every.closer] != data.target[every.farther])
    return Dataset("compared", data.images, triplets=said.take(np.arange(300)))


def test_questions_hide_the_answer_and_their_truth_finds_it(compared):
    rows, answer = questions(compared.triplets)
    t = compared.triplets
    assert 0.4 < answer.mean() < 0.6 and np.array_equal(questions(compared.triplets)[1], answer)
    assert np.array_equal(rows[np.arange(300), 1 + answer], t.closer)
    assert np.array_equal(rows[np.arange(300), 2 - answer], t.farther) and np.array_equal(rows[:, 0], t.anchor)


@pytest.mark.parametrize("procedure", ["holdout", "5-fold"])
def test_a_similarity_task_divides_triplets_and_no_anchor(compared, procedure):
    task = make_task(compared, procedure=procedure)
    assert task.kind == "similarity" and task.measure == "accuracy" and task.digest == compared.digest
    tested = []
    for split in task.folds:
        parts = [np.array(getattr(split, part)) for part in ("train", "validation", "test")]
        assert sorted(np.concatenate(parts)) == list(range(300))
        anchors = [set(compared.triplets.anchor[part]) for part in parts]
        assert not anchors[0] & anchors[2] and not anchors[1] & anchors[2]
        tested.append(parts[2])
    assert len(np.unique(np.concatenate(tested))) == sum(map(len, tested))


def test_triplets_follow_their_anchors_group_and_own_split(compared):
    groups, split = np.arange(60) // 10, np.where(np.arange(60) < 40, 0, 2)
    given = make_task(replace(compared, split=split)).folds[0]
    assert set(split[compared.triplets.anchor[list(given.test)]]) == {2}
    grouped = make_task(replace(compared, groups=groups)).folds[0]
    patients = [set(groups[compared.triplets.anchor[list(part)]]) for part in (grouped.train, grouped.test)]
    assert not patients[0] & patients[1]


def test_too_few_triplets_are_said(compared):
    few = replace(compared, triplets=compared.triplets.take(np.arange(5)))
    with pytest.raises(NotApplicable, match="compared has 5 labelled samples; at least 10"):
        make_task(few)


def test_more_answers_are_another_dataset(compared):
    fewer = replace(compared, triplets=compared.triplets.take(np.arange(200)))
    named = replace(compared, triplets=replace(compared.triplets, annotator=np.full(300, "ann")))
    assert len({compared.digest, fewer.digest, named.digest}) == 3
    assert replace(compared, name="other").digest == compared.digest


def test_a_triplet_network_learns_what_people_compared(compared):
    store = Store.memory()
    run = run_setup(Setup("triplet", QUICK), make_task(compared), compared, store, keep_weights=True, precision="fp32")
    assert run.error is None and run.score("accuracy") > 0.8
    assert run.score("validation_accuracy") > 0.8
    with np.load(store.artifact(run, "predictions.npz")) as kept:
        truth = questions(compared.triplets)[1][kept["test_index"]]
        assert (kept["test"].argmax(1) == truth).mean() == pytest.approx(run.score("accuracy"))
        assert np.allclose(kept["test"].sum(1), 1, atol=1e-3)


def test_what_learned_from_triplets_is_a_source_for_labels(compared):
    store = Store.memory()
    run = run_setup(Setup("triplet", QUICK), make_task(compared), compared, store, keep_weights=True, precision="fp32")
    source = as_source(run, "crowd", store)
    assert source.network == "small_cnn_16x2" and source.objective == "triplets" and source.corpus == ("compared",)
    target = replace(blobs(60, seed=5), name="target")
    settings = {"width": 16, "depth": 2, "epochs": 2}
    done = run_setup(Setup("small_cnn", settings, "finetune", ("crowd",)), make_task(target), target, store)
    assert done.error is None and done.weights == (source.sha256,)


def test_recipes_start_a_triplet_network_from_a_source(compared):
    store = Store.memory()
    store.add(random_source("small_cnn_16x2", 0))
    for recipe in ("finetune", "batchnorm"):
        setup = Setup("triplet", QUICK | {"image_size": 28}, recipe, ("random0.small_cnn_16x2",))
        run = run_setup(setup, make_task(compared), compared, store, precision="fp32")
        assert run.error is None and run.score("accuracy") > 0.6, recipe
    with pytest.raises(NotApplicable, match="beside its target"):
        setup = Setup("triplet", QUICK, "joint", ("random0.small_cnn_16x2",))
        run_setup(setup, make_task(compared), compared, store, precision="fp32")


def test_a_metric_finds_the_directions_that_people_look_at():
    """Of 20 features only the two that vary least matter to those who answer; the metric weighs them up."""
    rng = np.random.default_rng(0)
    x = (np.linalg.qr(rng.normal(size=(150, 20)))[0] * np.geomspace(2, 1, 20)).astype(np.float32)
    said = triplets_by(x[:, 18:], 1500)
    rows = np.stack([said.anchor, said.closer, said.farther], axis=1)
    learned = LinearMetric(256, 10.0, "none").fit(x, rows[:1000])
    right = (preferred(learned.embed(x), rows[1000:]) > 0.5).mean()
    plain = (preferred(x, rows[1000:]) > 0.5).mean()
    assert right > 0.93 > plain + 0.2
    loud = np.linalg.norm(learned.matrix, axis=1)
    assert loud[18:].min() > 3 * loud[:18].max()


def test_without_a_price_the_metric_keeps_equal_weights():
    x = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    said = triplets_by(x, 50)
    rows = np.stack([said.anchor, said.closer, said.farther], axis=1)
    embedded = LinearMetric(256, 1e-4, "equal").fit(x, rows).embed(x)
    distances = [np.linalg.norm(v[:, None] - v[None], axis=2) for v in (x, embedded)]
    assert np.corrcoef(distances[0].ravel(), distances[1].ravel())[0, 1] > 0.9999


def test_a_probe_of_triplets_is_run_on_frozen_features(compared):
    store = Store.memory()
    store.add(random_source("small_cnn_16x2", 0))
    setup = Setup("probe.metric", {"network": "small_cnn_16x2", "image_size": 28}, None, ("random0.small_cnn_16x2",))
    run = run_setup(setup, make_task(compared, procedure="5-fold"), compared, store)
    assert run.error is None and len(run.evaluations["accuracy"]) == 5 and run.score("accuracy") > 0.6


def test_the_loss_is_the_likelihood_of_the_answers():
    a, c, f = (torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 7.0]]))
    assert float(triplet_loss(a, c, f)) == pytest.approx(np.log1p(np.exp(5 - 7)))
    embedding = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 7.0]])
    assert preferred(embedding, np.array([[0, 1, 2]]))[0] == pytest.approx(1 / (1 + np.exp(5 - 7)))
    assert float(triplet_loss(a, c, f, torch.tensor([0.0]))) == 0


def test_a_network_says_how_many_sources_it_takes(compared):
    store = Store.memory()
    for seed in (0, 1):
        store.add(random_source("small_cnn_16x2", seed))
    names = tuple(s.name for s in store.records("source"))
    with pytest.raises(MetamedError, match="starts from one source, not 2"):
        run_setup(Setup("triplet", QUICK, "ensemble", names), make_task(compared), compared, store)


def test_answers_that_are_not_believed_are_left_out(compared):
    target = blobs(60).target
    both = replace(compared, target=target)
    wrong = both.triplets.take(np.arange(300))
    half = np.arange(300) % 2 == 0
    flipped = replace(wrong, closer=np.where(half, wrong.farther, wrong.closer),
                      farther=np.where(half, wrong.closer, wrong.farther))  # fmt: skip
    said = judged(replace(both, triplets=flipped), np.arange(60), Believed("triplets", "labels"), target)
    rows = said.index[said.triplets]
    assert not ((target[rows[:, 2]] == target[rows[:, 0]]) & (target[rows[:, 1]] != target[rows[:, 0]])).any()
    assert len(said) < 300
    with pytest.raises(NotApplicable, match="one class for each image"):
        judged(both, np.arange(60), Believed("triplets", "labels"))


@pytest.mark.parametrize("setup", [Setup("triplet", QUICK),
                                   Setup("probe.metric", {"network": "small_cnn_16x2", "image_size": 28}, None,
                                         ("random0.small_cnn_16x2",))])  # fmt: skip
def test_a_kept_run_embeds_new_images(compared, setup, tmp_path):
    store = Store.memory()
    store.add(random_source("small_cnn_16x2", 0))
    run = run_setup(setup, make_task(compared), compared, store, keep_weights=True, precision="fp32")
    predictor = EmbeddingPredictor.of(run, store)
    embedding = predictor(compared.images)
    assert embedding.shape[0] == 60 and np.isfinite(embedding).all()
    rows, answer = questions(compared.triplets)
    with np.load(store.artifact(run, "predictions.npz")) as kept:
        asked = kept["test_index"]
        assert np.allclose(preferred(embedding, rows[asked]), kept["test"][:, 0], atol=5e-3)
    table = predictor.as_csv(embedding).splitlines()
    assert table[0].startswith("sample,x0,x1") and len(table) == 61
    predictor.export(tmp_path / "model.safetensors")
    with pytest.raises(MetamedError, match="no classes"):
        _ = predictor.classes
