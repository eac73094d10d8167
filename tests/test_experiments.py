import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from conftest import blobs

from metamed import experiments, training
from metamed.errors import MetamedError, NotApplicable, UnknownName
from metamed.experiments import Suite, make_job, perform, run_setup, run_suite
from metamed.records import Setup, Source
from metamed.sources import as_source, find_weights
from metamed.store import Store
from metamed.tasks import make_task

QUICK = {"epochs": 2, "width": 16, "depth": 2}


@pytest.fixture
def store():
    return Store.memory()


@pytest.fixture
def quick(classification_data, store):
    return run_setup(Setup("small_cnn", QUICK), make_task(classification_data), classification_data, store)


def find(name):
    return replace(blobs(seed=len(name)), name=name)


SUITE = Suite(
    "tiny", ("a", "bb"), (Setup("small_cnn", QUICK), Setup("small_cnn", {**QUICK, "epochs": 1})), seeds=(0, 1)
)


def test_a_run_is_kept_with_its_predictions(quick, classification_data, store):
    task = make_task(classification_data)
    assert store.get(quick.id) == quick and quick.error is None and quick.seconds > 0
    assert {"auc", "accuracy", "validation_auc"} <= set(quick.evaluations)
    with np.load(store.artifact(quick, "predictions.npz")) as kept:
        assert kept["test_index"].tolist() == list(task.folds[0].test)
        assert kept["test"].shape == (len(task.folds[0].test), 2)
        assert np.allclose(kept["test"].sum(1), 1, atol=1e-2)


def test_the_same_run_twice_is_one_run(quick, classification_data, store):
    again = run_setup(Setup("small_cnn", QUICK), make_task(classification_data), classification_data, store)
    assert again.id == quick.id and again.evaluations == quick.evaluations and len(store.runs()) == 1


def test_a_failure_is_a_run_too(classification_data, store, monkeypatch):
    def explode(*args, **kwargs):
        raise RuntimeError("CUDA out of memory. Tried to allocate\nmore")

    monkeypatch.setattr(training, "fit", explode)
    run = run_setup(Setup("small_cnn", QUICK), make_task(classification_data), classification_data, store)
    assert run.error == "RuntimeError: CUDA out of memory. Tried to allocate"
    assert store.get(run.id).error == run.error


def test_nonsense_is_refused_before_any_work(classification_data, store):
    task = make_task(classification_data)
    with pytest.raises(UnknownName, match="did you mean epochs"):
        run_setup(Setup("small_cnn", {"epoch": 3}), task, classification_data, store)
    with pytest.raises(UnknownName, match="source"):
        run_setup(Setup("mobilenet", {}, "finetune", ("nowhere",)), task, classification_data, store)
    assert not store.runs()


def test_multi_label(store):
    data = blobs()
    both = np.stack([data.target, 1 - data.target, np.arange(60) // 2 % 3 == 0], axis=1).astype(int)
    data = replace(data, target=both)
    run = run_setup(Setup("small_cnn", QUICK), make_task(data), data, store)
    assert run.error is None and 0 <= run.score("auc") <= 1


@pytest.mark.parametrize("executor", [None, "threads", "processes"])
def test_a_suite_runs_once_and_resumes(executor, store):
    pools = {
        "threads": lambda: ThreadPoolExecutor(2),
        "processes": lambda: ProcessPoolExecutor(1, get_context("spawn")),
    }
    suite = SUITE if executor != "processes" else replace(SUITE, datasets=("a",), setups=SUITE.setups[:1])
    expected = len(suite.datasets) * len(suite.setups) * len(suite.seeds)
    pool = pools[executor]() if executor else None
    done = run_suite(suite, store, find, executor=pool, workers=2, threads=1)
    assert len(done) == expected == len({run.id for run in done})
    assert run_suite(suite, store, find, executor=pool, workers=2) == []
    if pool:
        pool.shutdown()


def test_an_interrupted_suite_goes_on(store):
    class Stop(Exception):
        pass

    def stop(run, job):
        raise Stop

    with pytest.raises(Stop):
        run_suite(SUITE, store, find, report=stop)
    assert len(store.runs()) == 1
    assert len(run_suite(SUITE, store, find)) == 7 and len(store.runs()) == 8


def test_a_trained_network_becomes_a_source(classification_data, store):
    run = run_setup(
        Setup("small_cnn", QUICK), make_task(classification_data), classification_data, store, keep_weights=True
    )
    source = as_source(run, "blobs.small_cnn", store)
    assert source.network == "small_cnn_16x2" and source.corpus == ("blobs",)
    target = find("target")
    tuned = Setup("small_cnn", QUICK, "finetune", (source.name,))
    again = run_setup(tuned, make_task(target), target, store)
    assert again.error is None and again.weights == (source.sha256,)
    with pytest.raises(MetamedError, match="does not fit resnet18"):
        run_setup(Setup("resnet", {}, "finetune", (source.name,)), make_task(target), target, store)


def test_a_suite_never_transfers_within_a_family(classification_data, store):
    run = run_setup(
        Setup("small_cnn", QUICK), make_task(classification_data), classification_data, store, keep_weights=True
    )
    source = as_source(run, "s", store)
    suite = Suite("x", ("blobs",), (Setup("small_cnn", QUICK, "finetune", (source.name,)),))
    assert run_suite(suite, store, lambda name: classification_data) == []


def test_missing_weights_say_where_they_were_looked_for(store, monkeypatch):
    source = Source("s", "resnet18", "supervised", (), "half_same", "0" * 64, "", "shipped")
    with pytest.raises(MetamedError, match="METAMED_WEIGHTS"):
        find_weights(source, store)
    store.add(tv := Source("t", "resnet18", "supervised", (), "imagenet", "f37072fd", "", "torchvision"))
    monkeypatch.setenv("TORCH_HOME", "/nonexistent")
    with pytest.raises(MetamedError, match="--download"):
        find_weights(tv, store)


CHECKOUT = Path(experiments.__file__).parents[1]


@pytest.fixture
def shipped(store):
    if not (CHECKOUT / "benchmarks" / "weights").is_dir():
        pytest.skip("the shipped weights lie in the checkout only")
    store.add_all(Store.embedded().records("source"))
    return store


def test_probes_keep_their_features(shipped, classification_data):
    names = ("imagenet.coral.mobilenet_v2", "inatbird.coral.mobilenet_v2")
    task = make_task(classification_data)
    for sources in (names[:1], names):
        run = run_setup(Setup("probe.linear", {"image_size": 32}, None, sources), task, classification_data, shipped)
        assert run.error is None
    job = make_job(Setup("probe.knn", {"image_size": 32}, None, names), task, classification_data, shipped)
    assert len(job.features) == 2 and perform(job).features == {}


def test_altered_weights_are_refused(shipped, classification_data, tmp_path, monkeypatch):
    name = "imagenet.coral.mobilenet_v2"
    job = make_job(Setup("probe.knn", {"image_size": 32}, None, (name,)), make_task(classification_data),
                   classification_data, shipped)  # fmt: skip
    altered = tmp_path / "w.safetensors"
    altered.write_bytes(job.weights[0].read_bytes() + b" ")
    with pytest.raises(MetamedError, match="sha256 differs"):
        perform(replace(job, weights=(altered,)))


NODE = """
import builtins, sys
sys.path[:0] = [{checkout!r}, {tests!r}]
ours, blocked = builtins.__import__, set({blocked!r})
def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    caller = (globals or {{}}).get("__name__", "")
    if level == 0 and name.split(".")[0] in blocked and caller.startswith("metamed"):
        raise ImportError(f"{{caller}} imported {{name}}")
    return ours(name, globals, locals, fromlist, level)
builtins.__import__ = guarded
import numpy as np
from dataclasses import replace
from metamed.dataset import ArrayImages, Dataset
from metamed.experiments import Suite, run_suite
from metamed.records import Setup
from metamed.sources import as_source, find_weights
from metamed.store import Store
y = np.arange(40) % 2
data = Dataset("d", ArrayImages(np.random.default_rng(0).integers(0, 99, (40, 1, 16, 16), dtype=np.uint8)), y)
suite = Suite("s", ("d",), (Setup("small_cnn", {{"epochs": 1, "width": 16, "depth": 2}}),))
with Store({store!r}) as store:
    (run,) = run_suite(suite, store, lambda name: data)
print(run.error, run.score("auc"))
"""


def test_a_gpu_node_needs_little(tmp_path):
    """Such nodes have no network and few packages: a suite must run on the standard library, numpy, h5py and torch."""
    blocked = ["pandas", "sklearn", "xgboost", "openml", "optuna", "scipy", "skimage", "safetensors", "platformdirs",
               "typer", "rich", "matplotlib", "requests"]  # fmt: skip
    code = NODE.format(
        checkout=str(CHECKOUT), tests=str(Path(__file__).parent), blocked=blocked, store=str(tmp_path / "s.db")
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith("None"), done.stderr


def test_a_run_of_several_folds_keeps_a_score_and_the_predictions_of_each(classification_data, store):
    task = make_task(classification_data, procedure="5-fold")
    run = run_setup(Setup("small_cnn", {"epochs": 1}), task, classification_data, store)
    assert len(run.evaluations["auc"]) == len(run.evaluations["validation_auc"]) == 5
    with np.load(store.artifact(run, "predictions.npz")) as kept:
        assert sorted(kept["test_index"]) == sorted(s for fold in task.folds for s in fold.test)
        assert len(kept["test"]) == len(kept["test_fold"]) and set(kept["test_fold"]) == set(range(5))
    with pytest.raises(MetamedError, match="no one model"):
        run_setup(Setup("small_cnn", {"epochs": 1}), task, classification_data, store, seed=1, keep_weights=True)


def test_a_kind_without_a_way_is_refused(classification_data, store):
    task = replace(make_task(classification_data), kind="astrology")
    with pytest.raises(NotApplicable, match="nothing can be trained for astrology"):
        run_setup(Setup("small_cnn"), task, classification_data, store)
