"""Setups that learn from bags again and again: what `metamed trust` and `metamed ask` say of them."""

import json
import re
import threading
import urllib.parse
import urllib.request
from dataclasses import replace

import h5py
import numpy as np
import pytest

from metamed.asking.questions import UNSURE, read_questions, write_questions
from metamed.asking.session import Session, classes_of
from metamed.cli import call
from metamed.dataset import ArrayImages, Card, Dataset
from metamed.errors import MetamedError, NotApplicable
from metamed.experiments import run_setup
from metamed.jobs import mil as mil_jobs
from metamed.readers.patches import png
from metamed.records import Setup
from metamed.store import Store
from metamed.tasks import make_task
from metamed.trust import TRUST
from metamed.trust.examining import as_dict, as_text, examine
from metamed.trust.known import PREDICTORS, expected_auc, family, known_models, record_of
from metamed.trust.learning import PANEL, learner


def bags(n: int = 30, size: int = 8, seed: int = 0, images: bool = False) -> Dataset:
    """A finding is a shift along the first feature, or a bright patch; two of the instances of every other bag."""
    rng = np.random.default_rng(seed)
    of, target = np.repeat(np.arange(n), size), np.arange(n) % 2
    truth = ((np.arange(n * size) % size < 2) & (target[of] == 1)).astype(int)
    if images:
        x = rng.integers(0, 100, (n * size, 3, 12, 12))
        x[truth == 1, :, 2:9, 2:9] += 150
        x = x.astype(np.uint8)
    else:
        x = rng.normal(size=(n * size, 5)).astype(np.float32)
        x[:, 0] += 4 * truth
    places = np.stack([np.arange(n * size) % size, of], axis=1)
    return Dataset("cells", ArrayImages(x), target, instance_target=truth, coordinates=places, bags=of,
                   groups=np.arange(n) // 2, card=Card(classes=("benign", "malignant")))  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Dataset:
    return bags()


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs.db")


# ---- learning again


@pytest.mark.parametrize("method", PANEL)
def test_the_panel_learns_and_scores_what_it_should(data, store, method):
    lazy, learn = learner(Setup(method), data, store, device="cpu")
    train = [lazy[b] for b in range(20)]
    model = learn(train, data.target[:20], 0)
    asked = [lazy[b] for b in range(20, 30)]
    answers = model.predict(asked)
    assert answers.shape == (10, 2) and np.allclose(np.exp(answers).sum(axis=1), 1, atol=1e-5)
    positive = [model.scores(bag) for bag, k in zip(asked, data.target[20:], strict=True) if k]
    right = np.mean([s[:2].mean() > s[2:].mean() for s in positive])
    assert all(s.shape == (8,) for s in positive)
    assert right >= 0.6 or method == "attention"  # which says where it looks, not what it sees there


def test_the_same_seed_learns_the_same_and_another_size_of_bags_is_no_matter(data, store):
    lazy, learn = learner(Setup("attention", {"epochs": 3}), data, store, device="cpu")
    some = [lazy[b] for b in range(12)] + [lazy[13][:1]]
    y = np.append(data.target[:12], 1)
    one, two, three = (learn(some, y, seed) for seed in (0, 0, 1))
    asked = [lazy[14], lazy[15][:3]]
    assert np.array_equal(one.predict(asked), two.predict(asked))
    assert not np.array_equal(one.predict(asked), three.predict(asked))


def test_images_are_learned_from_as_they_are(store):
    data = bags(12, 4, images=True)
    lazy, learn = learner(Setup("instance_net", {"epochs": 1}), data, store, device="cpu")
    model = learn([lazy[b] for b in range(12)], data.target, 0)
    assert model.scores(lazy[0]).shape == (4,)


def test_what_does_not_learn_from_bags(data, store, monkeypatch):
    with pytest.raises(NotApplicable, match="method for bags"):
        learner(Setup("small_cnn"), data, store)
    monkeypatch.setattr("metamed.trust.learning.MOST_BYTES", 1000)
    with pytest.raises(NotApplicable, match="GiB of features"):
        learner(Setup("miles"), data, store)
    with pytest.raises(NotApplicable, match="bags with labels"):
        learner(Setup("miles"), replace(data, target=None), store)


# ---- trust in a run


@pytest.fixture
def examined(data, store):
    run = run_setup(Setup("miles"), make_task(data), data, store, device="cpu")
    assert run.error is None
    return run, examine(run, data, store, resamplings=2, seeds=1, device="cpu")


def test_a_run_is_examined_on_its_own_test_bags(data, store, examined):
    run, e = examined
    task = store.get(run.task)
    assert e.n_test == len(task.folds[0].test) and e.n_train == 30 - e.n_test and e.n_instances == 8 * e.n_test
    assert {t.measure for t in e.found} == set(TRUST) and e.truth > 0.8
    assert e.values["bag_consistency"] > 0.55 and e.values["stability"] > 0.5 and np.isfinite(e.values["agreement"])
    text = as_text(e)
    assert all(name in text for name in TRUST) and "true AUC is" in text and "Expected AUC of the instances" in text
    assert set(e.panel) == {*PANEL} - {"miles"} and all(0.3 < v <= 1 for v in e.panel.values())
    assert "other variants on these bags: " in text
    plain = json.loads(json.dumps(as_dict(e)))
    assert plain["expected_instance_auc"]["low"] <= plain["expected_instance_auc"]["value"]
    again = examine(run, data, store, resamplings=2, seeds=1, device="cpu")
    assert repr(as_dict(again)) == repr(as_dict(e))


def test_instance_labels_change_no_measure(data, store, examined):
    run, e = examined
    blind = replace(data, instance_target=None)
    again = examine(run, blind, store, resamplings=2, seeds=1, device="cpu")
    assert again.values == pytest.approx(e.values, nan_ok=True) and np.isnan(again.truth)


def test_another_dataset_than_the_runs_is_refused(store, examined):
    with pytest.raises(MetamedError, match="is not what run"):
        examine(examined[0], bags(seed=1), store)


# ---- what is known


def test_what_ships_knows_its_own_models():
    rows = known_models()
    assert len(rows) >= 20 and len({family(str(r["dataset"])) for r in rows}) >= 2
    assert all(0 <= r["instance_auc"] <= 1 and np.isfinite(r["bag_consistency"]) for r in rows)
    inside = 0
    for row in rows:
        e = expected_auc({k: v for k, v in row.items() if k in TRUST})
        assert 0 <= e.low <= e.value <= e.high <= 1 and e.models <= len(rows)
        inside += e.low <= row["instance_auc"] <= e.high
    assert inside / len(rows) > 0.8


def test_a_better_model_is_expected_to_be_better_and_nothing_known_is_the_mean():
    low, high = (expected_auc(dict.fromkeys(PREDICTORS, v)) for v in (0.4, 0.9))
    assert high.value > low.value
    rows = known_models()
    assert expected_auc({}).value == pytest.approx(np.mean([r["instance_auc"] for r in rows]))


def test_records_of_variants():
    record = record_of("miles")
    assert record.low <= record.mean <= record.high and record.families >= 2 and record_of("no_such") is None


# ---- a session of questions


def test_a_session_goes_on_where_it_stopped(tmp_path, data, store):
    table = tmp_path / "q.csv"
    session = Session.of(data, table, store, device="cpu")
    assert session.choose(6, "highest") == 6 and session.choose(6, "highest") == 0
    assert all(data.target[q.bag] == 1 and data.bags[q.instance] == q.bag for q in session.questions)
    assert [q.x for q in session.questions] == [float(q.instance % 8) for q in session.questions]
    said = [replace(q, answer=classes_of(data)[data.instance_target[q.instance]]) for q in session.questions]
    said[0] = replace(said[0], answer=UNSURE)
    write_questions(table, said)
    again = Session.of(data, table, store, device="cpu")
    assert len(again.answers) == 5 and again.choose(4) == 4
    assert len({q.instance for q in again.questions}) == 10
    gains = again.gains()
    assert gains[0].measure == "bag auc" and gains[0].n == 30
    again.write_scores(tmp_path / "s.csv")
    rows = (tmp_path / "s.csv").read_text().splitlines()
    assert len(rows) == 241 and rows[0] == "instance,bag,score,answer"
    scores = np.array([float(r.split(",")[2]) for r in rows[1:]])
    assert scores[data.instance_target == 1].mean() > scores[data.instance_target == 0].mean() + 0.2


def test_a_session_needs_bags_with_a_finding(tmp_path, data, store):
    with pytest.raises(NotApplicable, match="no finding"):
        Session.of(replace(data, target=np.zeros(30, int)), tmp_path / "q.csv", store)
    with pytest.raises(NotApplicable, match="need bags"):
        Session.of(replace(data, bags=None, target=None, groups=None), tmp_path / "q.csv", store)


def test_a_page_shows_the_images_of_the_questions(tmp_path, store):
    data = bags(12, 4, images=True)
    setup = Setup("instance_net", {"epochs": 1})
    session = Session.of(data, tmp_path / "q.csv", store, setup, device="cpu")
    session.choose(2, "random")
    page = session.page()
    thread = threading.Thread(target=page.serve)
    thread.start()
    try:
        first = session.questions[0].instance
        with urllib.request.urlopen(f"{page.address}picture/{first}") as answer:
            assert answer.read() == png(data.images[first])
            near = session.beside(first)
            assert len(near) == 3 and (data.bags[near] == data.bags[first]).all() and first not in near
        body = urllib.parse.urlencode({"question": 0, "answer": "malignant"}).encode()
        urllib.request.urlopen(urllib.request.Request(page.address + "answer", body)).close()
    finally:
        page.stop()
        thread.join(5)
    assert read_questions(tmp_path / "q.csv", classes_of(data))[0].answer == "malignant"


@pytest.mark.parametrize("shape", [(3, 9, 7), (1, 9, 7), (2, 9, 7), (1, 5, 9, 7)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_any_image_becomes_a_picture(shape, dtype):
    from io import BytesIO

    from PIL import Image

    image = (np.random.default_rng(0).random(shape) * 200).astype(dtype)
    picture = Image.open(BytesIO(png(image, side=20)))
    assert picture.size == (14, 18) and picture.mode == ("RGB" if shape[0] == 3 else "L")


# ---- the commands


@pytest.fixture
def file(tmp_path, data, monkeypatch):
    monkeypatch.setenv("METAMED_STORE", str(tmp_path / "own.db"))
    path = tmp_path / "cells.h5"
    with h5py.File(path, "w") as out:
        out["features"], out["bag_ids"], out["bag_labels"] = data.images.array, data.bags, data.target
        out["instance_labels"], out["bag_group"] = data.instance_target, data.groups
        out.attrs["classes"] = '["benign", "malignant"]'
    return path


def test_trust_on_the_command_line(file, capsys):
    assert call(["run", "--dataset", str(file), "--method", "miles", "--device", "cpu", "--quiet"]) == 0
    run = re.search(r"run ([0-9a-f]{12})", capsys.readouterr().out)[1]
    assert call(["trust", "--dataset", str(file), "--run", run[:8], "--resamplings", "2", "--seeds", "1"]) == 0
    assert "bag_consistency" in capsys.readouterr().out
    assert call(["trust", "--dataset", str(file), "--run", run, "--resamplings", "2", "--seeds", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test_bags"] > 3


def test_ask_on_the_command_line(file, tmp_path, capsys):
    table = str(tmp_path / "q.csv")
    assert call(["ask", "--dataset", str(file), "--questions", "5", "--to", table, "--by", "highest", "--later"]) == 0
    assert "5 new questions" in capsys.readouterr().err
    assert call(["ask", "--dataset", str(file), "--questions", "5", "--to", table]) == 2
    assert "--page" in capsys.readouterr().err
    questions = read_questions(tmp_path / "q.csv", ("benign", "malignant"))
    write_questions(tmp_path / "q.csv", [replace(q, answer="yes" if q.instance % 8 < 2 else "no") for q in questions])
    scores = str(tmp_path / "s.csv")
    assert call(["ask", "--dataset", str(file), "--questions", "0", "--to", table, "--scores", scores]) == 0
    shown = capsys.readouterr().out
    assert "bag auc" in shown and "gain" in shown and "malignant" in shown
    assert call(["ask", "--dataset", str(file), "--by", "guess", "--to", str(tmp_path / "r.csv"), "--later"]) == 2
    assert "no strategy 'guess'" in capsys.readouterr().err


def test_ask_looks_at_images_once(tmp_path, monkeypatch, capsys):
    seen, encode = [], mil_jobs.encode
    monkeypatch.setattr(mil_jobs, "encode", lambda *given: seen.append(given[1].name) or encode(*given))
    monkeypatch.setenv("METAMED_STORE", str(tmp_path / "own.db"))
    data, path, table = bags(12, 4, images=True), tmp_path / "cells.h5", tmp_path / "q.csv"
    with h5py.File(path, "w") as out:
        out["images"], out["bag_ids"], out["bag_labels"] = data.images.array, data.bags, data.target
    ask = ["ask", "--dataset", str(path), "--to", str(table), "--later", "--device", "cpu", "--questions"]
    assert call([*ask, "2"]) == 0 and seen == ["imagenet.coral.mobilenet_v2"]
    first = read_questions(table, ("0", "1"))
    assert call([*ask, "4"]) == 0 and len(seen) == 1, "the store kept the features"
    again = read_questions(table, ("0", "1"))
    table.unlink()
    assert call([*ask, "2"]) == 0 and len(seen) == 1
    assert read_questions(table, ("0", "1")) == first == again[:2], "what was kept says the same"
    capsys.readouterr()
