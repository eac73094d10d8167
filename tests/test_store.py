"""The store: what goes in comes out, once, whoever writes, and whatever dies meanwhile."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metamed.dataset import ArrayImages, Card, Dataset, Split
from metamed.errors import MetamedError, UnknownName
from metamed.records import Published, Run, Setup, Source, Task
from metamed.store import Store
from metamed.store.evidence import DatasetFacts, folds_to_text, pseudo_digest, text_to_folds

ROOT = Path(__file__).parents[1]


def task(dataset: Dataset, **changes) -> Task:
    n = dataset.n_samples
    fold = Split(tuple(range(0, n, 2)), tuple(range(1, n, 4)), tuple(range(3, n, 4)))
    return replace(
        Task(dataset.name, dataset.digest, dataset.kind, "target", None, "holdout", "auc", (fold,)), **changes
    )


def run(task: Task, setup: Setup, score: float = 0.75, **changes) -> Run:
    return replace(Run(task.id, setup.id, 0, (1, 1), {"auc": (score,)}, 1.5, {"device": "cpu"}), **changes)


def filled(dataset: Dataset, store: Store | None = None) -> tuple[Store, Task, Setup, Run]:
    store = store or Store.memory()
    t, s = task(dataset), Setup("resnet", {"depth": 18})
    r = run(t, s)
    for record in (dataset, t, s, r):
        store.add(record)
    return store, t, s, r


def test_every_record_comes_back_equal(classification_data, tmp_path):
    store, t, s, r = filled(classification_data, Store(tmp_path / "a" / "metamed.db"))
    source = Source("weights.x", "resnet18", "dino", ("a", "b"), "imagenet", "0" * 64, "MIT", "path")
    figure = Published("paper", "official split", "blobs", "target", s.id, "auc", 0.9, None, 3, "arXiv:1", "table 2")
    store.add_all([source, figure])
    again = Store(tmp_path / "a" / "metamed.db")
    for record in (t, s, r, source, figure):
        assert again.get(record.id) == record
        assert again.get(record.id[:8]) == record
        assert again.has(record.id)
    facts = again.get(classification_data.digest)
    assert (facts.name, facts.n_samples, facts.n_classes, facts.n_channels, facts.height) == ("blobs", 60, 2, 3, 16)
    assert facts.card == replace(classification_data.card, family="")
    assert again.dataset("blobs") == facts
    assert again.source("weights.x") == source


def test_unknown_and_ambiguous_ids_say_so(classification_data):
    store, *_ = filled(classification_data)
    with pytest.raises(UnknownName, match="no record .* 'deadbeef'"):
        store.get("deadbeef")
    with pytest.raises(UnknownName):
        store.get("resnet")
    with pytest.raises(UnknownName, match="no source 'imagnet'"):
        store.source("imagnet")
    with pytest.raises(UnknownName, match="no dataset 'blob' .did you mean blobs"):
        store.dataset("blob")
    store.add_rows("setup", [("abcdef12" + c * 32, "m", None, "[]", "{}") for c in "12"])
    with pytest.raises(MetamedError, match="abcdef12 is the start of 2 ids"):
        store.get("abcdef12")


def test_a_failure_gives_way_to_a_success_and_a_success_to_nothing(classification_data):
    store, t, s, good = filled(classification_data)
    failed = run(t, s, seed=1, evaluations={}, error="CUDA out of memory")
    store.add(failed)
    assert store.get(failed.id).error == "CUDA out of memory"
    success = run(t, s, 0.8, seed=1)
    assert store.add(success) == failed.id
    assert store.get(failed.id) == success
    store.add(failed)
    store.add(run(t, s, 0.1, seed=1))
    assert store.get(failed.id) == success
    assert len(store) == 2


def test_what_openml_refuses_is_cut_or_refused(classification_data):
    store, t, s, _ = filled(classification_data)
    failed = run(t, s, seed=3, evaluations={}, error="Überlauf\n in layer " + "x" * 300)
    store.add(failed)
    error = store.get(failed.id).error
    assert len(error) == 128 and error.isascii() and "\n" not in error
    with pytest.raises(MetamedError, match="illegal name 'learning rate'"):
        store.add(Setup("resnet", {"learning rate": 0.1}))
    with pytest.raises(MetamedError, match="illegal name 'résnet'"):
        store.add(Setup("résnet"))
    with pytest.raises(MetamedError, match="2048"):
        store.add(Setup("resnet", {"note": "x" * 2100}))
    with pytest.raises(MetamedError, match="lr=inf"):
        store.add(Setup("resnet", {"lr": float("inf")}))
    with pytest.raises(MetamedError, match="auc is not finite"):
        store.add(run(t, s, float("nan"), seed=4))
    digest = store.add(DatasetFacts("f" * 40, "my data set", "classification", Card(license="é" * 80)))
    assert store.get(digest).name == "my_data_set"
    assert len(store.get(digest).card.license) == 64


def test_numpy_numbers_are_stored_as_plain_ones(classification_data):
    store = Store.memory()
    t, s = task(classification_data), Setup("resnet", {"lr": float(np.float32(0.5)), "depth": 18})
    id = store.add(Setup("resnet", {"lr": np.float32(0.5), "depth": np.int64(18)}))
    assert id == s.id
    store.add_all([t, run(t, s, np.float32(0.5))])
    assert store.runs()[0].evaluations == {"auc": (0.5,)}


def test_runs_are_found_by_kind_dataset_and_publication(classification_data, mil_data):
    store, t, s, r = filled(classification_data)
    other = task(mil_data)
    second = run(other, s)
    store.add_all([mil_data, other, second])
    assert store.runs() == [r, second]
    assert store.runs("mil") == [second]
    assert store.runs(dataset="blobs") == store.runs(dataset=classification_data.digest) == [r]
    assert store.remote(r.id, "test.openml.org") is None
    store.set_remote(r.id, "test.openml.org", 77)
    assert store.remote(r.id, "test.openml.org") == 77
    assert store.runs(unpublished=True) == [second]


def test_artifacts_lie_beside_the_file(classification_data, tmp_path):
    store, t, s, r = filled(classification_data, Store(tmp_path / "s.db"))
    r = run(t, s, seed=5)
    store.add(r, artifacts={"predictions.npz": b"first"})
    store.add(r, artifacts={"predictions.npz": b"second", "weights.safetensors": b"w"})
    path = store.artifact(r, "predictions.npz")
    assert path.is_relative_to(tmp_path / "s.db.files")
    assert path.read_bytes() == b"first", "a stored success keeps the files that its figures came from"
    assert store.artifact(r.id, "weights.safetensors").read_bytes() == b"w"
    with pytest.raises(UnknownName, match="no artifact of run .* 'model.onnx' .did you mean predictions.npz"):
        store.artifact(r, "model.onnx")
    with pytest.raises(MetamedError, match="illegal name"):
        store.add(r, artifacts={"../evil": b""})


def test_a_retried_failure_gets_the_new_files(classification_data):
    store, t, s, _ = filled(classification_data)
    store.add(run(t, s, seed=6, evaluations={}, error="killed"), artifacts={"log.txt": b"old"})
    store.add(run(t, s, seed=6), artifacts={"log.txt": b"new"})
    assert store.artifact(run(t, s, seed=6), "log.txt").read_bytes() == b"new"


def test_features_are_kept_exactly(tmp_path):
    store = Store(tmp_path / "s.db")
    features = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float16)
    assert store.features("imagenet.x-abc-64", "d" * 40) is None
    store.add_features("imagenet.x-abc-64", "d" * 40, features)
    found = Store(tmp_path / "s.db").features("imagenet.x-abc-64", "d" * 40)
    assert found.dtype == np.float16 and np.array_equal(found, features)
    with pytest.raises(MetamedError, match="int64"):
        store.add_features("x", "d" * 40, np.arange(3))


def test_weights_are_those_of_the_best_run_on_validation(classification_data):
    store, t, s, _ = filled(classification_data)
    for seed, (validation, test) in enumerate([(0.7, 0.9), (0.8, 0.6)], 10):
        r = run(t, s, seed=seed, evaluations={"validation_auc": (validation,), "auc": (test,)})
        store.add(r, artifacts={"weights.safetensors": str(validation).encode()})
    assert store.weights("blobs", "resnet").read_bytes() == b"0.8"
    with pytest.raises(UnknownName, match="no run of unet with weights on dataset 'blobs'"):
        store.weights("blobs", "unet")
    made = Source("chosen", "resnet18", "supervised", ("blobs",), "own", sha256(b"0.7").hexdigest(), "", "train")
    store.add(made)
    assert store.weights("chosen", "resnet18").read_bytes() == b"0.7"


def test_metafeatures_are_one_row_a_dataset(classification_data, mil_data):
    store = Store.memory()
    store.add_metafeatures(classification_data, {"entropy.mean": 1.0, "bag_size.mean": float("nan")})
    store.add_metafeatures(classification_data.digest, {"entropy.mean": 2.0})
    store.add(mil_data)
    store.add(
        DatasetFacts(
            pseudo_digest("far"),
            "far",
            "classification",
            Card("chest X-ray", family="f"),
            100,
            facts={"label_kind": "organ"},
        )
    )
    frame = store.metafeatures()
    assert len(frame) == 3 and frame.index.name == "digest"
    row = frame.loc[classification_data.digest]
    assert row["entropy.mean"] == 2 and np.isnan(row["bag_size.mean"]) and row["n_classes"] == 2
    far = frame.loc[pseudo_digest("far")]
    assert (far["family"], far["modality_group"], far["n_samples"], far["label_kind"]) == ("f", "x-ray", 100, "organ")
    store.add_pair("imagenet", classification_data.digest, {"fid": 3.0, "leep": float("nan")})
    assert store.pair("imagenet", classification_data.digest)["fid"] == 3
    assert store.pair("imagenet", "other") == {}


def test_examples_are_runs_and_figures(classification_data, mil_data):
    store, t, s, r = filled(classification_data)
    small = task(classification_data, size=20)
    second = run(small, s, seed=1, evaluations={"auc": (0.5, 0.7), "accuracy": (0.1, 0.1)})
    failed = run(t, s, seed=2, evaluations={}, error="x")
    store.add_all([small, second, failed, DatasetFacts(pseudo_digest("far"), "far", "classification")])
    store.add(Published("paper", "official", "far", "target", s.id, "auc", 0.9, 0.1, 3, "p", "t"))
    store.add_all(
        [
            DatasetFacts(pseudo_digest("bags2"), "bags2", "mil"),
            Published("paper", "official", "bags2", "target", s.id, "auc", 0.8, 0.1, 3, "p", "t"),
        ]
    )
    frame = store.examples("classification", "auc")
    assert list(frame["evidence"])[:2] == [r.id, second.id] and len(frame) == 3
    assert list(frame["score"]) == [0.75, pytest.approx(0.6), 0.9]
    assert list(frame["protocol"]) == ["holdout", "holdout, n=20", "official"]
    assert list(frame["study"]) == ["metamed", "metamed", "paper"]
    assert frame["dataset"][2] == pseudo_digest("far") and frame["name"][2] == frame["family"][2] == "far"
    assert frame["hyperparameters"][0] == {"depth": 18} and frame["sources"][0] == ()
    assert len(store.examples("mil", "auc")) == 1
    assert len(store.examples("classification", "accuracy")) == 1
    assert list(store.examples("similarity", "auc").columns) == list(frame.columns)


def test_what_ships_can_be_run_and_the_rest_says_that_it_cannot(classification_data, monkeypatch):
    methods = import_module("metamed.methods")  # `metamed.methods` itself is the public function
    space = {"depth": methods.Choice(18, 50)}
    known = {
        "resnet": methods.Method("resnet", "classification", None, space, {"depth": 18}, "", 1),
        "finetune": methods.Method("finetune", "transfer", None, {}, {}, "", 1),
    }
    monkeypatch.setattr(methods, "described", lambda: known)
    store, t, _, _ = filled(classification_data)
    store.add(Source("here", "resnet18", "supervised", (), "imagenet", "0", "MIT", "torchvision"))
    setups = {
        Setup("resnet", {"depth": 18}): True,
        Setup("resnet", {"depth": 50, "image_size": 64}): True,
        Setup("resnet", {"depth": 34}): False,
        Setup("resnet", {"width": 64}): False,
        Setup("resnet", {"loss": "dice"}): False,
        Setup("vgg16"): False,
        Setup("resnet", {}, "finetune", ("here",)): True,
        Setup("resnet", {}, "finetune", ("elsewhere",)): False,
        Setup("resnet", {}, "gradual", ("here",)): False,
    }
    for setup in setups:
        store.add_all([setup, run(t, setup, seed=3)])
    frame = store.examples("classification", "auc").query("seed == 3")
    assert dict(zip(frame["setup"], frame["runnable"], strict=True)) == {s.id: can for s, can in setups.items()}


def test_a_dataset_is_recognised_at_another_size(classification_data):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (40, 1, 12, 12))
    large = Dataset("large", ArrayImages(np.kron(coarse, np.ones((1, 1, 8, 8))).astype(np.uint8)), np.arange(40) % 2)
    copy = Dataset(
        "copy", ArrayImages(np.kron(coarse[5:25], np.ones((1, 1, 4, 4))).astype(np.uint8)), np.arange(20) % 2
    )
    store = Store.memory()
    store.add(large)
    store.add(classification_data)
    assert store.known(large) == [(large.digest, "large", 1.0)]
    ((digest, name, share),) = store.known(copy)
    assert (digest, name) == (large.digest, "large") and share > 0.9
    fresh = rng.integers(0, 255, (30, 1, 32, 32)).astype(np.uint8)
    assert store.known(Dataset("new", ArrayImages(fresh), np.arange(30) % 2)) == []


scores = st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=12)


def _of(plan, dataset) -> Store:
    store, t, s = Store.memory(), task(dataset), Setup("resnet", {"depth": 18})
    store.add_all([t, s])
    for seed, failed in plan:
        store.add(run(t, s, seed / 10, seed=seed) if not failed else run(t, s, seed=seed, evaluations={}, error="oom"))
    return store


def _content(store: Store) -> set:
    return {(r.id, r.error, json.dumps(r.evaluations, sort_keys=True)) for r in store.runs()}


@settings(max_examples=30, deadline=None)
@given(scores, scores)
def test_merging_is_a_union(a, b):
    data = Dataset("d", ArrayImages(np.zeros((8, 1, 4, 4), np.uint8)), np.arange(8) % 2)
    one, two, other = _of(a, data), _of(b, data), _of(a, data)
    ids = {r.id for r in one.runs()}
    new = one.merge(two)
    other_way = two.merge(other)
    assert _content(one) == _content(two), "the order of merging makes no difference"
    assert new == len(one) - len(ids) and other_way == len(two) - len({s for s, _ in b})
    assert one.merge(two) == 0 == one.merge(one)
    assert {r.seed for r in one.runs() if r.error} == {s for s, _ in a + b} - {s for s, failed in a + b if not failed}


setup_values = st.dictionaries(
    st.text("abc_", min_size=1, max_size=5),
    st.one_of(
        st.integers(-9, 9),
        st.floats(allow_nan=False, allow_infinity=False),
        st.booleans(),
        st.text(max_size=5),
        st.none(),
    ),
    max_size=4,
)


@settings(max_examples=50, deadline=None)
@given(setup_values, st.booleans())
def test_setups_keep_their_id_and_their_values(values, sourced):
    setup = Setup("resnet", values, "finetune" if sourced else None, ("a", "b") if sourced else ())
    store = Store.memory()
    assert store.add(setup) == store.add(setup) == setup.id
    assert store.records("setup") == [setup]
    shuffled = Setup("resnet", dict(reversed(values.items())), setup.recipe, setup.sources)
    assert shuffled.id == setup.id


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from("tve-"), max_size=30), max_size=3), st.randoms())
def test_folds_survive_as_text_in_any_order(letters, rng):
    def fold(word):
        parts = [[i for i, c in enumerate(word) if c == part] for part in "tve"]
        if rng.random() < 0.3:
            rng.shuffle(parts[0])
        return Split(*map(tuple, parts))

    folds = tuple(fold(word) for word in letters)
    assert text_to_folds(folds_to_text(folds)) == folds


def test_merging_takes_files_along(classification_data, tmp_path):
    store, t, s, _ = filled(classification_data, Store(tmp_path / "gpu.db"))
    r = run(t, s, seed=9)
    store.add(r, artifacts={"predictions.npz": b"p"})
    store.add_features("x", classification_data.digest, np.ones((2, 2), np.float32))
    here = Store(tmp_path / "here.db")
    assert here.merge(tmp_path / "gpu.db") == 2
    assert here.artifact(r, "predictions.npz").read_bytes() == b"p"
    assert here.features("x", classification_data.digest).shape == (2, 2)
    assert here.known(classification_data)[0][1] == "blobs"
    with pytest.raises(MetamedError, match="no such store"):
        here.merge(tmp_path / "absent.db")


def test_united_answers_from_both_and_changes_neither(classification_data, tmp_path, monkeypatch):
    monkeypatch.setenv("METAMED_STORE", str(tmp_path / "user.db"))
    shipped = len(Store.embedded())
    assert len(Store.united()) == shipped and not (tmp_path / "user.db").exists()
    user, t, s, r = filled(classification_data, Store.default())
    user.add(run(t, s, seed=8), artifacts={"weights.safetensors": b"w"})
    both = Store.united()
    assert len(both) == shipped + 2 and len(user) == 2 and len(Store.embedded()) == shipped
    assert both.artifact(run(t, s, seed=8), "weights.safetensors").read_bytes() == b"w"
    both.add(run(t, s, seed=9), artifacts={"weights.safetensors": b"mine"})
    assert both.artifact(run(t, s, seed=9), "weights.safetensors").read_bytes() == b"mine"
    assert not list((tmp_path / "user.db.files").glob(f"*/{run(t, s, seed=9).id}"))


def test_what_is_no_store_is_not_opened(tmp_path):
    (tmp_path / "notes.db").write_text("this is no database, just a text that is long enough to be looked at" * 20)
    with pytest.raises(MetamedError, match="notes.db: not a store"):
        Store(tmp_path / "notes.db")
    store = Store(tmp_path / "new.db")
    store.close()
    with sqlite3.connect(tmp_path / "new.db") as db:
        db.execute("INSERT INTO migration VALUES (99)")
    with pytest.raises(MetamedError, match="newer metamed"):
        Store(tmp_path / "new.db")


def test_a_migration_is_applied_once_to_old_stores(classification_data, tmp_path, monkeypatch):
    from metamed.store import database

    store, _, _, r = filled(classification_data, Store(tmp_path / "old.db"))
    store.close()
    calls = []
    monkeypatch.setattr(
        database,
        "MIGRATIONS",
        [*database.MIGRATIONS, lambda db: calls.append(db.execute("ALTER TABLE run ADD COLUMN added REAL"))],
    )
    Store(tmp_path / "old.db").close()
    Store(tmp_path / "old.db").close()
    assert len(calls) == 1


WRITER = """
import sys
from metamed.records import Run, Setup, Task
from metamed.store import Store
path, who, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store = Store(path)
task, setup = Task("d", "0" * 40, "classification", "target", None, "holdout", "auc", ()), Setup("resnet")
store.add_all([task, setup])
for k in range(n):
    run = Run(task.id, setup.id, 10**6 * who + k, (1,), {"auc": (k / n,), "accuracy": (0.5,)}, 1.0)
    store.add(run, artifacts={"predictions.npz": run.id.encode()})
    print(run.id, flush=True)
"""


def _writer(path: Path, who: int, n: int) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(who), str(n)], stdout=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.parametrize("after", [1, 40])
def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path, after):
    writer = _writer(tmp_path / "s.db", 0, 100_000)
    acknowledged = [writer.stdout.readline().strip() for _ in range(after)]
    time.sleep(0.02 * (after > 1))
    writer.send_signal(signal.SIGKILL)
    acknowledged += writer.stdout.read().split()
    writer.wait()
    acknowledged = [a for a in acknowledged if len(a) == 40]
    store = Store(tmp_path / "s.db")
    found = {r.id: r for r in store.runs()}
    assert set(acknowledged) <= set(found)
    for id, r in found.items():  # neither a torn row nor a row whose file is missing
        assert set(r.evaluations) == {"auc", "accuracy"}
        assert store.artifact(id, "predictions.npz").read_bytes() == id.encode()
    with sqlite3.connect(tmp_path / "s.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert store.add(Setup("still.writable")) == Setup("still.writable").id


def test_two_processes_may_write_at_once(tmp_path):
    writers = [_writer(tmp_path / "s.db", who, 60) for who in (1, 2)]
    ids = {id for w in writers for id in w.communicate()[0].split()}
    assert [w.returncode for w in writers] == [0, 0]
    assert {r.id for r in Store(tmp_path / "s.db").runs()} == ids and len(ids) == 120


def test_it_needs_numpy_alone():
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {'pandas', 'platformdirs', 'sklearn', 'scipy', 'torch', 'h5py', 'PIL', 'openml'}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from metamed.store import Store
store = Store.embedded()
assert len(store) > 9000 and store.example_rows('classification', 'auc')
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT)
