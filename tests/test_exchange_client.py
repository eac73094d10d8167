"""The unmodified openml client, and anybody else's runs: what metamed publishes, openml can run, and back."""

import logging
import warnings
from dataclasses import asdict

import numpy as np
import pytest
from exchanged import KEY, SETUPS, add_run, images

from metamed import extract, recommend
from metamed.errors import MetamedError, NotApplicable
from metamed.exchange.images import offer
from metamed.exchange.publish import publish
from metamed.exchange.retrieve import retrieve
from metamed.exchange.runs import record_json, trace_arff
from metamed.exchange.server import running
from metamed.experiments import Suite
from metamed.records import Setup
from metamed.store import Store
from metamed.store.served import Served
from metamed.store.traces import keep_trace

openml = pytest.importorskip("openml")
logging.getLogger().setLevel(logging.ERROR)  # the client warns of every answer that is not compressed
TABLE = {"output_format": "dataframe"} if openml.__version__ < "0.16" else {}
FAST = Setup("small_cnn", {"epochs": 1, "width": 16})


@pytest.fixture
def address(tmp_path, monkeypatch):
    """A server of its own, with the client pointed at it."""
    with running(Store(tmp_path / "served.db")) as address:
        monkeypatch.setenv("METAMED_STORE", str(tmp_path / "default.db"))
        monkeypatch.setattr(openml.config, "server", f"{address}/api/v1/xml")
        monkeypatch.setattr(openml.config, "apikey", KEY)
        openml.config.set_root_cache_directory(str(tmp_path / "cache"))
        yield address


@pytest.fixture
def extension():
    import metamed.exchange.extension as extension

    return extension


# ---- the extension


def test_a_published_run_becomes_a_setup_that_openml_runs(address, extension):
    store, data = Store.memory(), images(n=60)
    run = add_run(store, data, FAST)
    number = publish(store).numbers[run.id]
    shown = openml.runs.get_run(number, ignore_cache=True)
    assert shown.flow_name.startswith("metamed.classification.small_cnn") and shown.setup_string
    flow = openml.flows.get_flow(shown.flow_id, reinstantiate=True)
    assert flow.model == Setup("small_cnn") and openml.flows.flow_exists(flow.name, flow.external_version)
    setup = openml.runs.initialize_model_from_run(number)
    assert setup == FAST and setup.id == run.setup
    task = openml.tasks.get_task(shown.task_id)
    assert task.class_labels == ["class 0", "class 1"]
    offer(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error", category=RuntimeWarning)
        done = openml.runs.run_model_on_task(setup, task, seed=1, avoid_duplicate_runs=False)
    published = openml.runs.get_run(done.publish().run_id, ignore_cache=True)
    ours, theirs = (r.fold_evaluations["area_under_roc_curve"][0][0] for r in (done, published))
    assert abs(ours - theirs) < 1e-3 and "metamed_0.1.0" in published.tags
    flow.model = setup
    again = openml.runs.run_flow_on_task(flow, task, seed=1, avoid_duplicate_runs=False)
    assert again.setup_string == done.setup_string and len(again.data_content) == len(done.data_content) == 12
    with pytest.raises(openml.exceptions.OpenMLRunsExistError):
        openml.runs.run_model_on_task(setup, task, seed=1, avoid_duplicate_runs=True)
    fresh = Store.memory()
    assert retrieve(fresh, task=task.task_id).new == 2
    assert [fresh.get(r.setup) for r in fresh.runs()] == [FAST, FAST] and len({r.task for r in fresh.runs()}) == 1


def test_a_search_becomes_a_trace_and_its_iterations_setups(address, extension):
    store, data = Store.memory(), images(n=60)
    tried = [FAST, Setup("resnet", {"epochs": 2}), Setup("small_cnn", {"epochs": 4, "augment": "none"})]
    run = add_run(store, data, tried[2])
    keep_trace(store, run.id, [(setup, 0.5 + k / 10) for k, setup in enumerate(tried)], 2)
    outcome = publish(store)
    assert outcome.differences == []
    number = outcome.numbers[run.id]
    trace = openml.runs.get_run_trace(number)
    assert len(trace.trace_iterations) == 3 and trace.get_selected_iteration(0, 0) == 2
    assert [i.evaluation for i in trace] == [0.5, 0.6, 0.7]
    found = [openml.runs.initialize_model_from_trace(number, 0, 0, k) for k in range(3)]
    assert found == tried and openml.runs.initialize_model_from_trace(number, 0, 0) == tried[2]
    assert trace_arff([(FAST, 0.5, True)]) is None, "nothing differs"


def test_the_extension_claims_its_own_and_nothing_else(extension):
    from sklearn.tree import DecisionTreeClassifier

    extension.register()
    mine = [e for e in openml.extensions.extensions if e.__name__ == "MetamedExtension"]
    assert mine == [extension.MetamedExtension]
    assert type(openml.extensions.get_extension_by_model(FAST)) is mine[0]
    assert type(openml.extensions.get_extension_by_model(DecisionTreeClassifier())) is not mine[0]
    tree = openml.extensions.get_extension_by_model(DecisionTreeClassifier()).model_to_flow(DecisionTreeClassifier())
    assert type(openml.extensions.get_extension_by_flow(tree)) is not mine[0]
    flow = mine[0]().model_to_flow(FAST)
    assert type(openml.extensions.get_extension_by_flow(flow)) is mine[0] and not flow.components
    assert openml.extensions.get_extension_by_model(np.zeros(3)) is None


def test_every_duty_of_an_extension_is_done(extension):
    from openml.extensions import Extension
    from openml.runs.trace import OpenMLTraceIteration

    ours = extension.MetamedExtension()
    assert all(name in vars(type(ours)) for name in Extension.__abstractmethods__)
    seeded = ours.seed_model(FAST, 5)
    assert seeded.seed == 5 and seeded.id == FAST.id and ours.seed_model(seeded, None).seed == 5
    assert hash(seeded) == hash(FAST) and ours.is_estimator(seeded) and not ours.check_if_model_fitted(seeded)
    tried = OpenMLTraceIteration(0, 0, 0, 0.5, True, parameters={
        "parameter_epochs": "7", "parameter_augment": '"none"'})  # fmt: skip
    assert ours.instantiate_model_from_hpo_class(FAST, tried) == Setup(
        "small_cnn", {"augment": "none", "epochs": 7, "width": 16})  # fmt: skip
    tag = ours.get_version_information()[1]
    assert all(c.isalnum() or c in "_.-" for c in tag)
    flow = ours.model_to_flow(FAST)
    assert ours.flow_to_model(flow) == Setup("small_cnn")
    flow.external_version = "metamed==0.0.1,sha=0"
    with pytest.raises(MetamedError, match="Pass strict_version=False"):
        ours.flow_to_model(flow)
    assert ours.flow_to_model(flow, strict_version=False) == Setup("small_cnn")


def test_images_that_are_not_here_are_asked_for(address, extension, tmp_path, monkeypatch):
    store, data = Store.memory(), images("elsewhere", n=60, seed=9)
    run = add_run(store, data, FAST)
    number = publish(store).numbers[run.id]
    task = openml.tasks.get_task(openml.runs.get_run(number).task_id)
    monkeypatch.delenv("METAMED_DATA", raising=False)
    with pytest.raises(NotApplicable, match="the images of elsewhere .* METAMED_DATA is not set"):
        openml.runs.run_model_on_task(FAST, task, avoid_duplicate_runs=False)
    np.savez(tmp_path / "elsewhere.npz", images=data.images.array[:, 0], labels=data.target, patient=data.groups)
    monkeypatch.setenv("METAMED_DATA", str(tmp_path))
    done = openml.runs.run_model_on_task(FAST, task, avoid_duplicate_runs=False)
    assert len(done.data_content) == 12, "found by its name, recognised by its digest"


# ---- anybody's runs


def test_runs_of_scikit_learn_are_evidence_beside_ours(address):
    from sklearn.tree import DecisionTreeClassifier

    rng = np.random.default_rng(0)
    import pandas as pd

    table = pd.DataFrame({"a": rng.normal(size=60), "kind": pd.Categorical(rng.choice(["x", "y"], 60))})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = openml.datasets.create_dataset(
            name="toy", description="A toy", creator="A", contributor=None, collection_date="2020", language="English",
            licence="CC0", attributes="auto", data=table, default_target_attribute="kind", ignore_attribute=None,
            citation="none")  # fmt: skip
        kind = openml.tasks.TaskType.SUPERVISED_CLASSIFICATION
        task = openml.tasks.create_task(kind, made.publish().dataset_id, 25, target_name="kind",
                                        evaluation_measure="area_under_roc_curve").publish()  # fmt: skip
        task = openml.tasks.get_task(task.task_id)
        numbers = [openml.runs.run_model_on_task(DecisionTreeClassifier(max_depth=d, random_state=0), task,
                                                 upload_flow=True).publish().run_id for d in (1, 2)]  # fmt: skip
    store = Store.memory()
    found = retrieve(store, task=task.task_id)
    assert found.new == 2 and not found.left_out
    assert retrieve(store, task=task.task_id).known == 2 and len(store) == 2
    frame = openml.evaluations.list_evaluations("predictive_accuracy", tasks=[task.task_id], per_fold=True, **TABLE)
    values = {int(r): v for r, v in zip(frame["run_id"], frame["values"], strict=True)}
    for number, run in zip(numbers, store.runs(), strict=True):
        setup, kept = store.get(run.setup), store.get(run.task)
        assert setup.method.startswith("sklearn.tree") and setup.hyperparameters["p.max_depth"] in ("1", "2")
        assert run.evaluations["accuracy"] == pytest.approx(values[number], abs=0.1), "but for ties"
        assert "openml.kappa" in run.evaluations
        assert len(run.evaluations["auc"]) == len(run.evaluations["log_loss"]) == 4, "measured again, from predictions"
        assert kept.procedure == "4-fold" and kept.measure == "auc" and len(kept.folds) == 4
        assert sorted(i for f in kept.folds for i in f.test) == list(range(60))
    rows = store.example_rows("classification", "auc")
    assert len(rows) == 2 and not any(row["runnable"] for row in rows) and rows[0]["name"] == "toy"
    own = Store.memory()
    assert retrieve(own).new == 0, "by default the runs of metamed"


def test_a_record_that_contradicts_the_server_is_not_believed(address, monkeypatch):
    store, data = Store.memory(), images()
    add_run(store, data, FAST)
    false = lambda run, *rest: record_json(run, *rest).replace('"auc": [', '"auc": [0.0000001, ')  # noqa: E731
    monkeypatch.setattr("metamed.exchange.outgoing.record_json", false)
    publish(store)
    found = retrieve(Store.memory())
    assert found.new == 0 and found.left_out == {"its record says other scores than its predictions or the server": 1}


def test_meta_features_are_taken_from_whoever_uploaded_the_dataset(address, monkeypatch, tmp_path):
    store, data = Store.memory(), images()
    add_run(store, data, FAST)
    store.add_metafeatures(data, {"entropy.mean": 3.0})
    publish(store)
    served = Served(Store(tmp_path / "served.db"))
    monkeypatch.setattr(openml.config, "apikey", served.add_user("mallory"))
    store.add_metafeatures(data, {"entropy.mean": 666.0})
    add_run(store, data, FAST, seed=1)
    assert publish(store).sent == 1, "and with it another table of meta-features"
    fresh = Store.memory()
    assert retrieve(fresh).new == 2 and fresh.measured()[data.digest] == {"entropy.mean": 3.0}


def test_a_record_of_another_task_is_not_taken(address, monkeypatch):
    store, data = Store.memory(), images()
    task = add_run(store, data, FAST).task
    other = lambda *given: record_json(*given).replace(task, "f" * 40)  # noqa: E731
    monkeypatch.setattr("metamed.exchange.outgoing.record_json", other)
    publish(store)
    assert retrieve(Store.memory()).left_out == {"its record belongs to another task or setup": 1}


# ---- a suite on its way to another house


def test_a_suite_published_and_retrieved_is_the_same_evidence(address):
    """Published to an empty server, retrieved into an empty store: equal score for score, and the same answer."""
    here, names = Store.memory(), [f"house.{k}" for k in range(5)]
    for k, name in enumerate(names):
        data = images(name, n=40 + 4 * k, seed=k, size=16)
        here.add_metafeatures(data, extract(data, ["general", "intensity"]))
        for setup in SETUPS:
            for seed in (0, 1):
                add_run(here, data, setup, seed)
    suite = Suite("house", tuple(names), SETUPS, (0, 1))
    assert publish(here, suite=suite).sent == 30
    there = Store.memory()
    found = retrieve(there, suite="metamed.house.runs")
    assert found.new == 30 and found.left_out == {}
    ours, theirs = ({r.id: r for r in s.runs()} for s in (here, there))
    assert ours.keys() == theirs.keys()
    for id, run in ours.items():
        assert theirs[id].evaluations == run.evaluations and theirs[id].seconds == run.seconds
        assert there.get(run.task) == here.get(run.task) and there.get(run.setup) == here.get(run.setup)
    assert {f.id: f for f in there.records("dataset")} == {f.id: f for f in here.records("dataset")}
    assert all(np.array_equal(list(a.values()), list(b.values()), equal_nan=True)
               for a, b in zip(*(s.measured().values() for s in (here, there)), strict=True))  # fmt: skip
    new = images("new", n=50, seed=77, size=16)
    answers = [asdict(recommend(new, store)) for store in (here, there)]
    assert repr(answers[0]) == repr(answers[1]) and answers[0]["ranking"]
