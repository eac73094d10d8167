"""The unmodified openml client against `metamed serve`, over real HTTP on this machine."""

import ast
import hashlib
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
from toy_server import (
    KEY,
    code,
    dataset,
    empty,
    filled,
    frame,
    openml,
    post,
    predictions_arff,
    refused,
    run_xml,
    task,
    use,
)

from metamed.errors import MetamedError, MissingExtra
from metamed.exchange import server as serving
from metamed.exchange.server.app import _TOO_LARGE
from metamed.exchange.server.refusals import SENTENCES
from metamed.splits import folds
from metamed.store import Store
from metamed.store.served import Served

server, toy = pytest.fixture(empty), pytest.fixture(filled)


def test_dataset_create_publish_list_get_data(server):
    data = dataset().publish()
    listed = openml.datasets.list_datasets(output_format="dataframe")
    assert listed.loc[data.dataset_id, ["name", "status", "NumberOfInstances", "NumberOfClasses"]].tolist() == [
        "toy", "active", 60, 3]  # fmt: skip
    got = openml.datasets.get_dataset(data.dataset_id, download_data=True, download_qualities=True,
                                      download_features_meta_data=True)  # fmt: skip
    x, y, categorical, names = got.get_data(target="kind")
    assert names == ["a", "b"] and categorical == [False, False] and list(y) == list(frame()["kind"])
    assert np.allclose(x["a"], frame()["a"], equal_nan=True)
    assert got.description == "Three kinds & <two> columns" and got.creator == "A. Nurse" and got.licence == "CC0"
    assert got.qualities["NumberOfMissingValues"] == 1 and got.features[2].nominal_values == ["x", "y", "z"]
    assert dataset().publish().dataset_id == 2  # as on openml.org: the same again is a new version
    assert openml.datasets.get_dataset(2).version == 2
    assert openml.datasets.check_datasets_active([1, 2]) == {1: True, 2: True}
    assert openml.datasets.get_dataset("toy").dataset_id == 1
    assert "NumberOfInstances" in openml.datasets.list_qualities()
    assert "predictive_accuracy" in openml.evaluations.list_evaluation_measures()
    assert "20% Holdout (Ordered)" in openml.evaluations.functions.list_estimation_procedures()


def test_task_create_splits_and_duplicate(toy):
    got = openml.tasks.get_task(1, download_splits=True)
    assert got.class_labels == ["x", "y", "z"] and got.get_split_dimensions() == (1, 4, 1)
    classes = frame()["kind"].cat.codes.to_numpy()
    for repeat, fold, train, test in folds(25, classes, 60):
        ours = got.get_train_test_split_indices(fold=fold, repeat=repeat)
        assert [list(rows) for rows in ours] == [list(train), list(test)]
    with refused(614) as error:
        task(1).publish()
    assert "matched id(s): [1]" in str(error.value)
    listed = openml.tasks.list_tasks(output_format="dataframe")
    assert listed.loc[1, "estimation_procedure"] == "4-fold Crossvalidation" and listed.loc[1, "did"] == 1
    for procedure, n_repeats, n_folds in ((1, 1, 10), (2, 5, 2), (4, 1, 60), (6, 1, 1), (28, 1, 1)):
        made = openml.tasks.get_task(task(1, procedure).publish().task_id, download_splits=True)
        assert made.get_split_dimensions()[:2] == (n_repeats, n_folds)


@pytest.mark.parametrize("tune", [False, True])
def test_sklearn_run_model_on_task(toy, tmp_path, tune):
    """run → publish → get → evaluations, whole and per fold → trace → setups → model back; to and from files."""
    from sklearn.impute import SimpleImputer
    from sklearn.metrics import cohen_kappa_score, f1_score
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.tree import DecisionTreeClassifier

    model = make_pipeline(SimpleImputer(), DecisionTreeClassifier(max_depth=2, random_state=0))
    if tune:
        model = GridSearchCV(model, {"decisiontreeclassifier__max_depth": [1, 2]}, cv=2)
    given = openml.tasks.get_task(1)
    run = openml.runs.run_model_on_task(model, given, avoid_duplicate_runs=True).publish()
    first = run.run_id
    assert run.publish().run_id == first  # a lost answer and a second try: one run
    run.to_filesystem(tmp_path / "run", store_model=False)
    back = openml.runs.OpenMLRun.from_filesystem(tmp_path / "run", expect_model=False)
    assert all(a[4:6] == b[4:6] and a[:4] == pytest.approx(b[:4]) and a[6:] == pytest.approx(b[6:])
               for a, b in zip(back.data_content, run.data_content, strict=True))  # fmt: skip

    got = openml.runs.get_run(first, ignore_cache=True)
    assert got.task_id == 1 and got.flow_name.endswith("(1)") and got.setup_string.startswith("Python_")
    predicted = np.array([row[4] for row in run.data_content]), np.array([row[5] for row in run.data_content])
    mean = np.mean(predicted[0] == predicted[1])
    assert got.evaluations["predictive_accuracy"] == pytest.approx(mean)
    assert got.evaluations["f_measure"] == pytest.approx(f1_score(*predicted[::-1], average="weighted"))
    assert got.evaluations["kappa"] == pytest.approx(cohen_kappa_score(*predicted))
    assert got.fold_evaluations["predictive_accuracy"].keys() == {0} and len(
        got.fold_evaluations["usercpu_time_millis_training"][0]) == 4  # fmt: skip
    scores = run.get_metric_fn(lambda t, p: np.mean(np.array(t) == np.array(p)))
    listed = openml.evaluations.list_evaluations("predictive_accuracy", output_format="dataframe")
    assert listed["value"].tolist() == [pytest.approx(mean)] and listed["uploader_name"].tolist() == [KEY]
    per_fold = openml.evaluations.list_evaluations("predictive_accuracy", per_fold=True, output_format="dataframe")
    assert per_fold["values"][0] == pytest.approx(scores.tolist(), abs=1e-6)

    with_setups = openml.evaluations.list_evaluations_setups("predictive_accuracy")
    assert any(name.endswith("_max_depth") for name in with_setups["parameters"][0])
    again = openml.setups.initialize_model(got.setup_id)
    assert type(again) is type(model) and again.get_params().keys() == model.get_params().keys()
    assert type(openml.flows.get_flow(got.flow_id, reinstantiate=True).model) is type(model)
    with pytest.raises(openml.exceptions.OpenMLRunsExistError):
        openml.runs.run_model_on_task(model, given)
    if tune:
        trace = openml.runs.get_run_trace(first)
        assert len(trace.trace_iterations) == 8 and sum(i.selected for i in trace) == 4
        assert {i.get_parameters()["decisiontreeclassifier__max_depth"] for i in trace} == {1, 2}
        chosen = openml.runs.initialize_model_from_trace(first, 0, 0)
        assert chosen.get_params()["decisiontreeclassifier__max_depth"] in (1, 2)
    else:
        with refused(572):
            openml.runs.get_run_trace(first)


def test_flow_publish_exists_get(server):
    def flow(name: str, **components):
        return openml.flows.OpenMLFlow(
            name, "what it does", model=None, components=components, parameters={"depth": "3", "none": None},
            parameters_meta_info={n: {"description": "how deep", "data_type": "int"} for n in ("depth", "none")},
            external_version="metamed==0.1", tags=["first"], language="English", dependencies="numpy",
            class_name="metamed.toy", custom_name=None)  # fmt: skip

    top = flow("metamed.finetune(toy)", net=flow("metamed.toy"))
    top.publish()
    assert top.flow_id == openml.flows.flow_exists("metamed.finetune(toy)", "metamed==0.1") == 2
    assert openml.flows.flow_exists("metamed.finetune(toy)", "metamed==0.2") is False
    got = openml.flows.get_flow(2)
    openml.flows.assert_flows_equal(got, top)
    assert got.components["net"].flow_id == 1 and got.parameters == {"depth": "3", "none": None}
    assert flow("metamed.toy").publish().flow_id == 1  # known as a component already
    listed = openml.flows.list_flows(output_format="dataframe", tag="first")
    assert listed["full_name"].tolist() == ["metamed.toy(1)", "metamed.finetune(toy)(1)"]
    assert openml.flows.get_flow(1).tags in ("first", ["first"])


def test_study_and_suite(toy):
    address, _ = toy
    for right in (0.6, 0.7):
        post(address, "run/", description=run_xml(), predictions=("p.arff", predictions_arff(right)))
    suite = openml.study.create_benchmark_suite("Suite", "Tasks", [1], alias="all").publish()
    second = task(1, 1).publish().task_id
    assert openml.study.attach_to_suite(suite.id, [second]) == 2
    assert openml.study.get_suite("all").tasks == [1, second] and openml.study.get_suite("all").data == [1]
    study = openml.study.create_study("Study", "Runs", [1], benchmark_suite=suite.id).publish()
    assert openml.study.attach_to_study(study.id, [2]) == 2
    got = openml.study.get_study(study.id)
    assert (got.runs, got.tasks, got.flows, got.setups, got.data) == ([1, 2], [1], [1], [1], [1])
    assert list(openml.runs.list_runs(study=study.id, output_format="dataframe")["run_id"]) == [1, 2]
    assert len(openml.evaluations.list_evaluations("kappa", study=study.id, output_format="dataframe")) == 2
    for absent in ([99], [1]):  # no such run; attached already
        with refused(1045):
            openml.study.attach_to_study(study.id, absent)
    assert openml.study.detach_from_study(study.id, [1]) == 1
    openml.study.update_suite_status(suite.id, "active")
    with refused(1047):
        openml.study.detach_from_suite(suite.id, [1])
    assert openml.study.list_suites(output_format="dataframe")["alias"].tolist() == ["all"]
    assert openml.study.list_studies(status="all", output_format="dataframe")["id"].tolist() == [study.id]
    assert openml.study.delete_study(study.id)
    with refused(1038):
        openml.study.create_benchmark_suite("Other", "Tasks", [1], alias="all").publish()


def test_tags_and_deletes(toy):
    address, store = toy
    assert code(post(address, "run/", description=run_xml(inside="<oml:tag>mine</oml:tag>"),
                     predictions=("predictions.arff", predictions_arff()))) is None  # fmt: skip
    assert openml.runs.list_runs(tag="mine", output_format="dataframe")["run_id"].tolist() == [1]
    for entity in (openml.datasets.get_dataset(1), openml.tasks.get_task(1), openml.flows.get_flow(1),
                   openml.runs.get_run(1)):  # fmt: skip
        entity.push_tag("good")
        with refused(473):
            entity.push_tag("good")
        entity.remove_tag("good")
        with refused(475):
            entity.remove_tag("good")
    openml.datasets.get_dataset(1).push_tag("kept")
    assert openml.datasets.list_datasets(tag="kept", output_format="dataframe")["did"].tolist() == [1]
    for delete, what in ((openml.datasets.delete_dataset, "data"), (openml.tasks.delete_task, "task"),
                         (openml.flows.delete_flow, "flow")):  # fmt: skip
        with pytest.raises(openml.exceptions.OpenMLNotAuthorizedError, match=f"{what} can not be deleted"):
            delete(1)
    other = requests.delete(f"{address}/api/v1/run/1", params={"api_key": serving.new_key(store, "anna")}, timeout=30)
    assert code((other.status_code, other.text)) == 393
    kept = sorted(p for p in Path(f"{store.path}.served").rglob("*") if p.is_file())
    assert openml.runs.delete_run(1) and openml.tasks.delete_task(1) and openml.flows.delete_flow(1)
    assert openml.datasets.delete_dataset(1)
    left = [p for p in Path(f"{store.path}.served").rglob("*") if p.is_file()]
    assert len(kept) == 5 and left == []  # what is deleted is gone from the disk
    assert dataset().publish().dataset_id == 2  # a number is never given twice


def test_files_come_back_byte_for_byte(toy):
    address, _ = toy
    parts = {"predictions": ("predictions.arff", predictions_arff().encode()),
             "masks": ("masks.zip", bytes(range(256)) * 5000), "notes": ("notes.txt", "µ\r\n\x00end".encode())}
    sent = {"description": ("description.xml", run_xml().encode())} | parts
    assert code(post(address, "run/", **sent)) is None
    files = openml.runs.get_run(1).output_files
    assert set(files) == set(sent)
    for part, (name, content) in sent.items():
        for url in (f"{address}/data/download/{files[part]}", f"{address}/data/v1/download/{files[part]}/{name}"):
            assert requests.get(url, timeout=30).content == content
    data = openml.datasets.get_dataset(1, download_data=True)
    assert hashlib.md5(Path(data.data_file).read_bytes()).hexdigest() == data.md5_checksum


def test_edit_fork_status_and_topics(toy):
    assert openml.datasets.edit_dataset(1, description="better", creator="B") == 1
    got = requests.get(f"{toy[0]}/api/v1/data/1", timeout=30).text
    assert "<oml:description>better</oml:description>" in got and "<oml:creator>B</oml:creator>" in got
    with refused(354):  # there is a task
        openml.datasets.edit_dataset(1, default_target_attribute="a")
    fork = openml.datasets.fork_dataset(1)
    assert openml.datasets.edit_dataset(fork, default_target_attribute="a") == fork
    assert openml.datasets.get_dataset(fork).default_target_attribute == "a"
    openml.datasets.status_update(fork, "deactivated")
    with refused(623):
        task(fork).publish()
    assert openml.datasets.functions.data_feature_add_ontology(1, 0, "http://x.org/a") is True
    features = requests.get(f"{toy[0]}/api/v1/data/features/1", timeout=30).text
    assert "<oml:ontology>http://x.org/a</oml:ontology>" in features
    assert openml.datasets.functions.data_feature_remove_ontology(1, 0, "http://x.org/a") is True
    with refused(106):
        openml.datasets.functions._topic_add_dataset(1, "medicine")


# ---- the protocol beyond the client


def test_with_and_without_the_xml_segment_doubled_slashes_and_json(toy):
    address, _ = toy
    a, b, c = (requests.get(f"{address}{path}", timeout=30) for path in (
        "/api/v1/xml/data/1", "/api/v1/data/1", "//api/v1/xml//data/1/"))  # fmt: skip
    assert a.text == b.text == c.text and a.headers["Content-Encoding"] == "gzip"
    assert a.headers["Content-Type"] == "text/xml; charset=utf-8"
    listed = requests.get(f"{address}/api/v1/json/data/list/limit/5", timeout=30).json()["data"]["dataset"]
    assert listed[0]["did"] == "1" and {"name": "NumberOfClasses", "value": "3"} in listed[0]["quality"]
    got = requests.get(f"{address}/api/v1/json/data/features/1", timeout=30).json()["data_features"]["feature"]
    assert [f["is_target"] for f in got] == ["false", "false", "true", "false"]
    wrong = requests.get(f"{address}/api/v1/json/data/7", timeout=30)
    assert wrong.status_code == 412 and wrong.json()["error"]["code"] == "111"
    post(address, "run/", description=run_xml(), predictions=("p.arff", predictions_arff()))
    rows = requests.get(f"{address}/api/v1/json/evaluation/list/function/kappa", timeout=30).json()["evaluations"]
    assert rows["evaluation"][0]["value"] == "1.0"
    rows = requests.get(f"{address}/api/v1/json/evaluation/list/task/1", timeout=30).json()["evaluations"]
    functions = [row["function"] for row in rows["evaluation"]]  # as the R client asks: all measures of some runs
    assert functions == sorted(functions) and {"kappa", "confusion_matrix"} < set(functions)


def test_local_services_mode_is_where_the_client_looks():
    assert serving.PORT == 8000 and serving.OPEN_USER == "normaluser"


def test_pages(toy):
    address, _ = toy
    post(address, "run/", description=run_xml(), predictions=("p.arff", predictions_arff(0.9)))
    post(address, "run/", description=run_xml(), predictions=("p.arff", predictions_arff(0.1)))
    openml.study.create_benchmark_suite("<script>alert(1)</script>", "Tasks", [1], alias="s").publish()
    for path in ("/", "/d", "/t", "/f", "/r", "/s", "/d/1", "/t/1", "/f/1", "/r/1", "/s/1", "/r?page=2", "/r?page=x"):
        page = requests.get(address + path, timeout=30)
        assert page.status_code == 200 and "<h1>" in page.text and "<script" not in page.text, path
        for link in set(re.findall(r'href="(/[^"]*)"', page.text)):
            assert requests.get(address + link, timeout=30).status_code == 200, link
    board = requests.get(f"{address}/t/1", timeout=30).text
    assert board.index("1.0000") < board.index("0.0000") and ">1</a>" in board
    assert requests.get(f"{address}/t/99", timeout=30).status_code == 404


def test_an_empty_store_has_a_page(server):
    page = requests.get(server[0], timeout=30)
    assert page.status_code == 200 and "None yet" in page.text and "openml.config.server" in page.text


def test_one_store_serves_again(tmp_path):
    """A server may be stopped and started: what clients were told stays true."""
    for round in (1, 2):
        with serving.running(Store(tmp_path / "s.db")) as address:
            use(address, tmp_path / f"cache{round}")
            assert dataset().publish().dataset_id == round
    assert Store(tmp_path / "s.db").records("run") == []


def test_the_command(tmp_path):
    """`metamed serve` as a process: a key made by another one is known at once, Ctrl-C ends it."""
    command = [sys.executable, "-m", "metamed", "serve", "--store", str(tmp_path / "s.db")]
    with subprocess.Popen([*command, "--port", "0"], stderr=subprocess.PIPE, text=True) as process:
        address = re.search(r"serving .*s\.db at (http://localhost:\d+) ", process.stderr.readline())[1]
        key = subprocess.run([*command, "--new-key", "anna"], capture_output=True, text=True, check=True).stdout.strip()
        assert code(post(address, "data/", {"api_key": key})) == 135  # let in, without a description
        assert code(post(address, "data/", {"api_key": key[::-1]})) == 103
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130 and "Traceback" not in process.stderr.read()


def test_a_port_in_use_is_said_in_one_line(tmp_path):
    with serving.running(Store.memory()) as address:
        port = int(address.rsplit(":", 1)[1])
        with pytest.raises(MetamedError, match=f"localhost:{port}: .*in use.*--port"):
            serving.serve(Store(tmp_path / "s.db"), port=port)


def test_every_code_has_its_sentence():
    """Whatever number is handed to something that refuses."""
    takers = {"Refused", "entity", "described", "read_xml", "checked", "number", "flow_tree", "owned", "run_of",
              "settings_of", "read_arff", "_Codes"}  # fmt: skip
    used = set(_TOO_LARGE.values())
    for file in Path(serving.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in takers:
                used |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, int)}
    assert len(used) > 100 and used - set(SENTENCES) == set()


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(serving, "find_spec", lambda name: None if name == "starlette" else name)
    with pytest.raises(MissingExtra, match=r"starlette.*metamed\[serve\]"):
        serving.make_application(Store.memory())


def test_fifty_readers_while_one_publishes(toy):
    address, store = toy
    paths = ["data/list", "task/list", "flow/1", "data/1", "data/features/1", "task/1", "setup/list",
             "run/list/limit/100", "evaluation/list/function/predictive_accuracy", "run/1",
             "evaluation/list/function/predictive_accuracy/per_fold/true"]  # fmt: skip
    assert code(post(address, "run/", description=run_xml(), predictions=("p.arff", predictions_arff()))) is None

    def read(i: int) -> set[int]:
        with requests.Session() as session:
            mine = [paths[(i + j) % len(paths)] for j in range(6)]
            return {session.get(f"{address}/api/v1/xml/{path}", timeout=60).status_code for path in mine}

    with ThreadPoolExecutor(50) as pool:
        answers = [pool.submit(read, i) for i in range(50)]
        for i in range(10):
            arff = ("p.arff", predictions_arff(0.4 + i / 100))
            assert code(post(address, "run/", description=run_xml(), predictions=arff)) is None
        assert set().union(*(a.result() for a in answers)) == {200}
    assert Served(store).counts()["run"] == 11
