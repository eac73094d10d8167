"""The unmodified openml client against `metamed serve`, over real HTTP on this machine."""

import ast
import hashlib
import logging
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metamed.errors import MetamedError, MissingExtra
from metamed.exchange import server as serving
from metamed.exchange.server.app import _TOO_LARGE
from metamed.exchange.server.evaluations import MEASURES, evaluate
from metamed.exchange.server.refusals import SENTENCES
from metamed.exchange.server.tables import Predictions
from metamed.exchange.splits import folds, splits_arff
from metamed.store import Store
from metamed.store.served import Served

openml = pytest.importorskip("openml")
logging.getLogger().setLevel(logging.ERROR)  # the client warns of every answer that is not compressed
KEY = "normaluser"


def use(address: str, cache: Path, key: str = KEY) -> None:
    """Point the client at a server."""
    openml.config.server, openml.config.apikey = f"{address}/api/v1/xml", key
    openml.config.set_root_cache_directory(str(cache))


@pytest.fixture
def server(tmp_path):
    """(address, store) of a server of its own."""
    store = Store(tmp_path / "store.db")
    with serving.running(store) as address:
        use(address, tmp_path / "cache")
        yield address, store


def frame(n: int = 60, seed: int = 0):
    import pandas as pd

    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"a": rng.normal(size=n), "patient": [f"p{i // 2}" for i in range(n)],
                          "kind": pd.Categorical(rng.choice(["x", "y", "z"], n))})  # fmt: skip
    table["b"] = table["kind"].cat.codes + rng.normal(size=n)
    table.loc[3, "a"] = np.nan
    return table


def dataset(name: str = "toy", **more):
    """A dataset made with the client, not yet published."""
    given = {"name": name, "description": "Three kinds & <two> columns", "creator": "A. Nurse", "contributor": None,
             "collection_date": "2020", "language": "English", "licence": "CC0", "attributes": "auto",
             "data": frame(), "default_target_attribute": "kind", "ignore_attribute": ["patient"],
             "citation": "none"}  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return openml.datasets.create_dataset(**(given | more))


def task(data_id: int, procedure: int = 25, **more):
    kind = openml.tasks.TaskType.SUPERVISED_CLASSIFICATION
    given = {"target_name": "kind", "evaluation_measure": "predictive_accuracy"} | more
    return openml.tasks.create_task(kind, data_id, procedure, **given)


def refused(code: int):
    return pytest.raises(openml.exceptions.OpenMLServerException, match=f"code {code}:")


def post(address: str, path: str, form: dict | None = None, **files):
    """A POST as the client sends it: status and body."""
    answer = requests.post(f"{address}/api/v1/xml/{path}", data={"api_key": KEY} | (form or {}), files=files or None,
                           timeout=30)  # fmt: skip
    return answer.status_code, answer.text


def code(answer: tuple[int, str]) -> int | None:
    """The error code of an answer; None of a good one."""
    status, body = answer
    found = re.search(r"<oml:error xmlns:oml=\"http://openml.org/openml\">\n<oml:code>(\d+)</oml:code>", body)
    assert (status == 412) == bool(found), body
    return int(found[1]) if found else None


FLOW = """<oml:flow xmlns:oml="http://openml.org/openml"><oml:name>metamed.toy</oml:name>
<oml:external_version>metamed==0.1</oml:external_version><oml:description>A flow</oml:description>
<oml:parameter><oml:name>depth</oml:name><oml:data_type>int</oml:data_type><oml:default_value>3</oml:default_value>
</oml:parameter></oml:flow>"""


def run_xml(task_id=1, flow_id=1, inside="", settings='<oml:parameter_setting><oml:name>depth</oml:name>'
            "<oml:value>5</oml:value></oml:parameter_setting>"):  # fmt: skip
    return (f'<oml:run xmlns:oml="http://openml.org/openml"><oml:task_id>{task_id}</oml:task_id>'
            f"<oml:flow_id>{flow_id}</oml:flow_id>{settings}{inside}</oml:run>")  # fmt: skip


def predictions_arff(right: float = 0.8) -> str:
    """Predictions of the toy task: the truth is given `right`, the other two classes share the rest."""
    classes, lines = list("xyz"), []
    truth = frame()["kind"].cat.codes.to_numpy()
    for repeat, fold, _, test in folds(25, truth, 60):
        for row in test:
            p = [right if k == truth[row] else (1 - right) / 2 for k in range(3)]
            lines.append(f"{repeat},{fold},0,{row},{classes[int(np.argmax(p))]},{classes[truth[row]]}," +
                         ",".join(map(str, p)))  # fmt: skip
    head = ["@relation p"] + [f"@attribute {n} numeric" for n in ("repeat", "fold", "sample", "row_id")]
    head += [f"@attribute {n} {{x,y,z}}" for n in ("prediction", "correct")]
    head += [f"@attribute confidence.{k} numeric" for k in classes]
    return "\n".join([*head, "@data", *lines, ""])


@pytest.fixture
def toy(server):
    """A server with dataset 1, task 1 (4-fold) and flow 1."""
    address, store = server
    data = dataset().publish()
    assert task(data.dataset_id).publish().task_id == 1
    assert code(post(address, "flow/", description=FLOW)) is None
    return address, store


# ---- the client's own ways


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


# ---- what is refused


def test_limits_of_a_run(toy):
    address, store = toy
    good = ("predictions.arff", predictions_arff())

    def measured(name="predictive_accuracy", where='repeat="0" fold="0"'):
        return (f"<oml:output_data><oml:evaluation {where}><oml:name>{name}</oml:name><oml:value>1</oml:value>"
                "</oml:evaluation></oml:output_data>")  # fmt: skip

    setting = "<oml:parameter_setting><oml:name>depth</oml:name><oml:value>{}</oml:value></oml:parameter_setting>"
    for description, wanted in (
        (run_xml(inside=measured("dice")), 217), (run_xml(inside=measured(where='fold="0"')), 216),
        (run_xml(inside=measured(where='repeat="0" fold="4"')), 216), (run_xml(task_id=9), 204),
        (run_xml(flow_id=9), 205), (run_xml(settings=setting.format("1" * 2049)), 202),
        (run_xml(settings=setting.format("µ")), 202), (run_xml(settings=setting.format(1).replace("depth", "no")), 213),
        (run_xml(inside=f"<oml:tag>{'t' * 65}</oml:tag>"), 202), (run_xml(inside="<oml:tag>a b</oml:tag>"), 202),
        (run_xml(inside="<oml:error_message>" + "e" * 129 + "</oml:error_message>"), 202),
        (run_xml(inside="<oml:setup_string>late</oml:setup_string>"), 202),  # out of order
        (run_xml(inside="<oml:run_details>a=b</oml:run_details>", settings=""), 202),
        ("<run/>", 202), ("no xml", 202), ("", 201),
    ):  # fmt: skip
        assert code(post(address, "run/", description=("d.xml", description), predictions=good)) == wanted, description
    for part, wanted in ((("model", b"x"), 206), (("../../etc/passwd", b"x"), 206), (("a/b.zip", b"x"), 206),
                         (("empty.zip", b""), 207)):  # fmt: skip
        assert code(post(address, "run/", description=run_xml(), predictions=good, more=part)) == wanted
    head = "@relation t\n" + "".join(f"@attribute {n} numeric\n" for n in ("repeat", "fold", "iteration", "evaluation"))
    head += "@attribute selected {true,false}\n"
    long = head + f"@attribute parameter_x string\n@data\n0,0,0,1,true,{'a' * 1100}\n"
    for trace in (head + "@data\n0,0,0,1,true\n", long):
        assert code(post(address, "run/", description=run_xml(), predictions=good, trace=("t.arff", trace))) == 561
    assert Served(store).counts()["run"] == 0 and "setup" not in Served(store).counts()
    assert code(post(address, "run/", description=run_xml(), predictions=good)) is None


def test_limits_of_datasets_tasks_and_flows(toy):
    address, store = toy
    before = Served(store).counts()
    head = '<oml:data_set_description xmlns:oml="http://openml.org/openml">{}</oml:data_set_description>'
    fields = {"name": "n", "description": "d", "format": "arff"}
    arff = ("d.arff", "@relation r\n@attribute a numeric\n@attribute k {x,y}\n@data\n1,x\n2,y\n")

    def described(**more):
        return head.format("".join(f"<oml:{k}>{v}</oml:{k}>" for k, v in (fields | more).items()))

    for description, file, wanted in (
        (described(name="a b"), arff, 131), (described(name="n" * 129), arff, 131),
        (described(description="d" * 16385), arff, 131), (described(description="ü"), arff, 131),
        (described(licence="l" * 65), arff, 131), (described(licence="CC BY"), arff, 131),
        (described(citation="c" * 1025), arff, 131), (described(format="parquet"), arff, 133),
        (described(colour="red"), arff, 131), (described(url="http://x.org/d.arff"), None, 136),
        (described(url="http://x.org/d.arff"), arff, 140), (described(), None, 141),
        (described(default_target_attribute="no"), arff, 143), (described(), ("d.arff", "no arff"), 145),
        (described(), ("d.arff", arff[1] + "3,z\n"), 145), (described(), ("d.arff", arff[1] + "3\n"), 145),
        (described(), ("d.arff", b"\xff\xfe"), 145), (head.format("<oml:name>n</oml:name>"), arff, 131),
    ):  # fmt: skip
        files = {"description": description} | ({"dataset": file} if file else {})
        assert code(post(address, "data/", **files)) == wanted, description[:200]

    def inputs(type=1, **given):
        given = {"source_data": 1, "target_feature": "kind", "estimation_procedure": 1} | given
        rows = "".join(f'<oml:input name="{k}">{v}</oml:input>' for k, v in given.items() if v is not None)
        return (f'<oml:task_inputs xmlns:oml="http://openml.org/openml"><oml:task_type_id>{type}</oml:task_type_id>'
                f"{rows}</oml:task_inputs>")  # fmt: skip

    for description, wanted in (
        (inputs(type=99), 622), (inputs(colour=1), 616), (inputs(target_feature=None), 618),
        (inputs(source_data="x"), 621), (inputs(source_data=9), 622), (inputs(target_feature="no"), 622),
        (inputs(target_feature="a"), 622), (inputs(estimation_procedure=99), 622),
        (inputs(estimation_procedure=7), 622), (inputs(evaluation_measures="dice"), 622),
        (inputs().replace("</oml:task_inputs>", '<oml:input name="source_data">1</oml:input></oml:task_inputs>'), 617),
    ):  # fmt: skip
        assert code(post(address, "task/", description=description)) == wanted, description
    for changed, wanted in (
        (FLOW, 171), (FLOW.replace("metamed.toy", "n" * 1025), 163), (FLOW.replace("metamed.toy", "a b"), 163),
        (FLOW.replace("metamed==0.1", "v" * 129), 163), (FLOW.replace("A flow", "ä"), 163),
        (FLOW.replace("A flow", "d" * 1025), 163), (FLOW.replace(">3<", f">{'3' * 2049}<"), 163),
        (FLOW.replace("metamed.toy", "two").replace("<oml:parameter>", "<oml:parameter><oml:name>depth</oml:name>"
                                                    "</oml:parameter><oml:parameter>", 1), 163),
    ):  # fmt: skip
        assert code(post(address, "flow/", description=changed)) == wanted, changed[:200]
    assert Served(store).counts() == before


def test_lists_refuse_what_they_do_not_know(toy):
    address, _ = toy
    for path, wanted in {
        "data/list/colour/red": 370, "data/list/limit/x": 371, "data/list/offset/5": 373, "data/list/tag/none": 372,
        "task/list/colour/1": 480, "task/list/type/x": 481, "task/list/type/5": 482, "flow/list/uploader/x": 502,
        "flow/list/tag/none": 500, "run/list": 512, "run/list/limit/10001": 516, "run/list/study/7": 517,
        "evaluation/list/task/1": 540, "evaluation/list/function/kappa/per_fold/no": 547,
        "evaluation/list/function/kappa/sort_order/up": 549, "evaluation/list/function/kappa": 542,
        "evaluation/list/function/kappa/limit/10001": 546, "setup/list": 674, "setup/list/limit/1001": 676,
        "study/list": 599, "study/nothing": 601, "data/99999999999999999999999": 111, "data/7": 111, "task/7": 151,
        "flow/7": 181, "run/7": 236, "setup/7": 281, "data/features/7": 271, "data/qualities/7": 361, "nothing": 100,
        "data/list/limit": 371, "estimationprocedure/77": 731, "tasktype/4": 241, "user/list/user_id/7": 901,
    }.items():  # fmt: skip
        answer = requests.get(f"{address}/api/v1/xml/{path}", timeout=30)
        assert code((answer.status_code, answer.text)) == wanted, path
    answer = requests.get(f"{address}/data/download/77/../../x", timeout=30)
    assert code((answer.status_code, answer.text)) in (100, 113)


def test_keys(server):
    address, store = server
    assert code(post(address, "data/", {"api_key": ""})) == 102
    assert code(post(address, "data/", {"api_key": "x"})) == 103
    key = serving.new_key(store, "anna")
    assert re.fullmatch("[0-9a-f]{32}", key) and key.encode() not in store.path.read_bytes()
    openml.config.apikey = key
    assert dataset().publish().dataset_id == 1
    openml.config.apikey = KEY
    with pytest.raises(openml.exceptions.OpenMLNotAuthorizedError):
        openml.datasets.delete_dataset(1)
    with pytest.raises(MetamedError, match="user 'a b'"):
        serving.new_key(store, "a b")
    assert serving.new_key(store, "anna") != key
    assert code(post(address, "data/", {"api_key": key})) == 103  # a new key replaces the old one


def test_the_open_key_and_foreign_hosts(tmp_path):
    store = Store(tmp_path / "s.db")
    with serving.running(store) as address:
        port = address.rsplit(":", 1)[1]
        for headers in ({"Origin": "http://evil.example"}, {"Host": f"evil.example:{port}"}):
            answer = requests.post(f"{address}/api/v1/data/", data={"api_key": KEY}, headers=headers, timeout=30)
            assert code((answer.status_code, answer.text)) == 102
        answer = requests.get(f"{address}/", headers={"Host": "evil.example"}, timeout=30)
        assert code((answer.status_code, answer.text)) == 102
    with serving.running(store, host="0.0.0.0") as address:
        port = address.rsplit(":", 1)[1]
        assert code(post(f"http://127.0.0.1:{port}", "data/")) == 103  # known, but not for other machines
        assert requests.get(f"http://127.0.0.1:{port}/", timeout=30).status_code == 200


def test_a_request_that_is_too_large(tmp_path):
    import threading

    import uvicorn

    store = Store(tmp_path / "s.db")
    app = serving.make_application(store, max_body=50_000)
    config = uvicorn.Config(app, port=0, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        pass
    address = f"http://localhost:{server.servers[0].sockets[0].getsockname()[1]}"
    assert code(post(address, "data/", description=FLOW, dataset=("d.arff", b"x" * 60_000))) == 130
    assert code(post(address, "run/", description=FLOW, predictions=("d.arff", b"x" * 5_000_000))) == 207
    assert code(post(address, "data/", description=FLOW, dataset=("d.arff", b"x" * 40_000))) == 131
    server.should_exit = True
    thread.join()


# ---- runs: exactly once, evaluated


def test_a_run_is_kept_once(toy):
    address, store = toy
    key = "<oml:tag>metamed.k." + "a1" * 20 + "</oml:tag>"
    good = ("predictions.arff", predictions_arff())
    first = post(address, "run/", description=run_xml(inside=key), predictions=good)
    assert "<oml:run_id>1</oml:run_id>" in first[1]
    again = post(address, "run/", description=run_xml(inside=key), predictions=good, notes=("n.txt", b"now with notes"))
    assert again == first  # the same content key
    plain = post(address, "run/", description=run_xml(), predictions=good)
    assert plain == post(address, "run/", description=run_xml(), predictions=good) and ">2<" in plain[1]
    assert ">3<" in post(address, "run/", description=run_xml(), predictions=("p.arff", predictions_arff(0.7)))[1]
    other = run_xml(inside=key, settings="")  # the same key on another setup is another run
    assert ">4<" in post(address, "run/", description=other, predictions=good)[1]
    with ThreadPoolExecutor(8) as pool:
        new = list(pool.map(lambda _: post(address, "run/", description=run_xml(inside=key.replace("a1", "b2")),
                                           predictions=good), range(8)))  # fmt: skip
    assert len(set(new)) == 1 and Served(store).counts()["run"] == 5


def test_runs_that_cannot_be_evaluated_are_hidden(toy):
    address, store = toy
    lines = predictions_arff().splitlines()
    short, twice = "\n".join(lines[:-1]), "\n".join([*lines[:-1], lines[-2]])
    for predictions in (short, twice, short.replace("confidence.x", "confidence.q"), "nonsense"):
        answer = post(address, "run/", description=run_xml(), predictions=("p.arff", predictions))
        assert code(answer) is None
    assert code(post(address, "run/", description=run_xml())) is None  # none at all
    failed = run_xml(inside="<oml:output_data/>", settings="<oml:error_message>out of memory</oml:error_message>")
    assert code(post(address, "run/", description=failed)) is None
    with pytest.warns(FutureWarning):
        assert openml.runs.list_runs() == {}
    shown = openml.runs.list_runs(display_errors=True, output_format="dataframe")["error_message"].tolist()
    assert len(shown) == 6 and "59 predictions, expected 60" in shown[0] and shown[-1] == "out of memory"
    assert "confidence.x" in shown[2]


def test_client_scores_are_kept_beside_the_servers_own(toy):
    address, _ = toy
    row = "<oml:evaluation {}><oml:name>{}</oml:name><oml:value>{}</oml:value></oml:evaluation>"
    first = 'repeat="0" fold="1"'
    rows = [row.format(*r) for r in ((first, "jaccard", 0.25), ("", "jaccard", 0.5), (first, "kappa", 0.123))]
    inside = f"<oml:output_data>{''.join(rows)}</oml:output_data>"
    good = ("p.arff", predictions_arff())
    assert code(post(address, "run/", description=run_xml(inside=inside), predictions=good)) is None
    got = openml.runs.get_run(1)
    assert got.fold_evaluations["jaccard"] == {0: {1: 0.25}} and got.evaluations["jaccard"] == 0.5
    assert got.fold_evaluations["kappa"][0][1] == 1.0  # every prediction is right
    assert "Inconsistent Evaluation score: kappa" in requests.get(f"{address}/api/v1/run/1", timeout=30).text


def test_scores_are_those_of_sklearn():
    from sklearn import metrics

    rng = np.random.default_rng(0)
    n, k = 300, 4
    truth, p = rng.integers(0, k, n), rng.dirichlet(np.ones(k), n)
    tests = [(0, f, np.arange(f, n, 3)) for f in range(3)]
    rows = np.concatenate([t for *_, t in tests])
    fold = np.repeat(np.arange(3), [len(t) for *_, t in tests])
    scores, error = evaluate(Predictions(np.zeros(n, int), fold, rows, p[rows]), truth, tests, k)
    whole = {s.measure: s.value for s in scores if s.repeat < 0}
    called = p.argmax(1)
    average = {"average": "weighted", "zero_division": 0}
    wanted = {"predictive_accuracy": metrics.accuracy_score(truth, called),
              "kappa": metrics.cohen_kappa_score(truth, called),
              "f_measure": metrics.f1_score(truth, called, **average),
              "precision": metrics.precision_score(truth, called, **average),
              "recall": metrics.recall_score(truth, called, **average),
              "unweighted_recall": metrics.balanced_accuracy_score(truth, called),
              "area_under_roc_curve": metrics.roc_auc_score(truth, p, multi_class="ovr", average="weighted"),
              "root_mean_squared_error": np.sqrt(((np.eye(k)[truth] - p) ** 2).mean())}  # fmt: skip
    assert error is None and {m: whole[m] for m in wanted} == pytest.approx(wanted)
    of_fold = {s.fold: s.value for s in scores if s.measure == "predictive_accuracy" and s.repeat == 0}
    assert of_fold == pytest.approx({f: (called[t] == truth[t]).mean() for _, f, t in tests})
    assert {s.measure for s in scores} <= set(MEASURES) and len(set(MEASURES)) == 72


def test_a_regression_is_evaluated(server):
    address, _ = server
    data = dataset(default_target_attribute="b").publish()
    kind = openml.tasks.TaskType.SUPERVISED_REGRESSION
    made = openml.tasks.create_task(kind, data.dataset_id, 7, target_name="b").publish()
    got = openml.tasks.get_task(made.task_id, download_splits=True)
    assert got.get_split_dimensions() == (1, 10, 1)
    post(address, "flow/", description=FLOW)
    rows = [(f, r) for f in range(10) for r in got.get_train_test_split_indices(fold=f)[1]]
    truth = frame()["b"].to_numpy()
    lines = [f"0,{f},{r},{truth[r] + 0.5},{truth[r]}" for f, r in rows]
    head = ["@relation p"] + [f"@attribute {n} numeric" for n in ("repeat", "fold", "row_id", "prediction", "truth")]
    arff = "\n".join([*head, "@data", *lines])
    assert code(post(address, "run/", description=run_xml(made.task_id), predictions=("p.arff", arff))) is None
    scores = openml.runs.get_run(1).evaluations
    assert scores["mean_absolute_error"] == scores["root_mean_squared_error"] == pytest.approx(0.5)
    assert scores["mean_prior_absolute_error"] == pytest.approx(np.abs(truth - truth.mean()).mean())


# ---- splits


@pytest.mark.parametrize(("name", "sizes", "md5"), [
    ("iris", [50, 50, 50], "478a48e90ec98ea54c76425cebc992ea"),
    ("tic-tac-toe", [626, 332], "b5c7370f3ebde16f6203c0af8f2f565e"),
    ("splice", [767, 768, 1655], "8cb8a8586289cf38046b8279998586ef"),
])  # fmt: skip
def test_split_files_are_the_official_ones(name, sizes, md5):
    """Hashes of openml.org's split files (tasks 59, 49, 45), of datasets whose rows are sorted by class."""
    classes = np.repeat(np.arange(len(sizes)), sizes)
    text = "".join(splits_arff(name, 1, classes, sum(sizes)))
    assert hashlib.md5(text.encode()).hexdigest() == md5


def test_ordered_holdout_has_one_training_row_more():
    ((_, _, train, test),) = folds(28, None, 40)
    assert list(train) == list(range(33)) and list(test) == list(range(33, 40))


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
    assert board.index("1.0000") < board.index("0.0000") and "run 1" in board
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


# ---- fuzz: whatever comes, 4xx with a body that clients understand, and nothing is changed

SESSION = requests.Session()  # keeps its connection


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    """A server with content, and a function that gives the whole state of its store."""
    folder = tmp_path_factory.mktemp("fuzzed")
    store = Store(folder / "store.db")
    with serving.running(store) as address:
        use(address, folder / "cache")
        task(dataset().publish().dataset_id).publish()
        post(address, "flow/", description=FLOW)
        post(address, "run/", description=run_xml(), predictions=("p.arff", predictions_arff()))

        def state() -> tuple:
            tables = ("entity", "run", "score", "tag", "file", "user", "last")
            rows = [store._db.all(f"SELECT * FROM served_{table}") for table in tables]
            return rows, sorted(p.name for p in Path(f"{store.path}.served").rglob("*"))

        yield address, state


UPLOADS = {"data/": "data_set_description", "task/": "task_inputs", "flow/": "flow", "run/": "run", "study/": "study",
           "setup/exists/": "run", "data/edit": "data_edit_parameters"}  # fmt: skip
BOMB = ("<!DOCTYPE x [<!ENTITY a 'ha'>" + "".join(f"<!ENTITY {c} '&{p};&{p};&{p};&{p};&{p};'>" for p, c in
        zip("abcdefgh", "bcdefghi", strict=True)) + "]>")  # fmt: skip
FILE = "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>"
VALID = {"run/": run_xml(), "flow/": FLOW.replace("metamed.toy", "another"), "setup/exists/": run_xml(),
         "task/": '<oml:task_inputs xmlns:oml="http://openml.org/openml"><oml:task_type_id>1</oml:task_type_id>'
                  '<oml:input name="source_data">1</oml:input><oml:input name="target_feature">kind</oml:input>'
                  '<oml:input name="estimation_procedure">25</oml:input></oml:task_inputs>'}  # fmt: skip


def refusal(answer: requests.Response) -> int:
    """The code of an answer that has to be a refusal that clients understand."""
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:500])
    assert "Traceback" not in answer.text and 'File "' not in answer.text
    return code((412, answer.text))


def send(address: str, path: str, **more) -> requests.Response:
    return SESSION.post(f"{address}/api/v1/{path}", timeout=30, **more)


@pytest.mark.parametrize("path", UPLOADS)
def test_entity_bombs_and_files_are_not_read(fuzzed, path):
    address, state = fuzzed
    before = state()
    for head in (BOMB, FILE):
        document = f'{head}<oml:{UPLOADS[path]} xmlns:oml="http://openml.org/openml">&a;</oml:{UPLOADS[path]}>'
        part = "edit_parameters" if "edit" in path else "description"
        answer = send(address, path, data={"api_key": KEY, "data_id": 1}, files={part: document})
        assert refusal(answer) and "no document type declaration" in answer.text and "root:" not in answer.text
    assert state() == before


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(sorted(VALID)), data=st.data())
def test_damaged_documents_change_nothing(fuzzed, path, data):
    """One thing is wrong in a document: a character, a cut, an element twice or nowhere, a huge text."""
    address, state = fuzzed
    whole = VALID[path]
    place = data.draw(st.integers(0, len(whole) - 1))
    tags = re.findall(r"<oml:\w+[^>]*>[^<]*</oml:\w+>", whole)
    damaged = data.draw(st.sampled_from([
        whole[:place], whole[:place] + "<" + whole[place:], whole[:place] + "\x00" + whole[place:],
        whole[:place] + "&nope;" + whole[place:], whole.replace("openml.org/openml", "example.org"),
        whole.replace(tags[0], tags[0] * 2), whole.replace(tags[0], ""),
        whole.replace(tags[-1], tags[-1] * 2 + "<oml:x/>"),
        whole.replace(tags[0], tags[0].replace("</", "9" * 70_000 + "</")), "\ufeff" + whole + "tail"]))
    before = state()
    answer = send(address, path, data={"api_key": KEY}, files={"description": damaged.encode("utf-8", "surrogatepass")})
    if answer.status_code != 200:  # a character inside free text may be legal: then it is kept, or found again
        refusal(answer)
        assert state() == before


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(sorted(UPLOADS)), body=st.binary(max_size=300), kind=st.sampled_from([
    "multipart/form-data", "multipart/form-data; boundary=x", "multipart/form-data; boundary=", "text/xml",
    "application/x-www-form-urlencoded", "application/json", "multipart/form-data; boundary=\"; charset=nope", ""]))
def test_wrong_bodies_change_nothing(fuzzed, path, body, kind):
    address, state = fuzzed
    before = state()
    whole = b"--x\r\nContent-Disposition: form-data; name=\"api_key\"\r\n\r\n" + KEY.encode() + b"\r\n"
    parts = (b"--x\r\nContent-Disposition: form-data; name=\"description\"; filename=\"../d\"\r\n\r\n" + body
             + b"\r\n--x--\r\n")  # fmt: skip
    for content in (body, whole + parts, (whole + parts)[: len(whole) + len(body)]):
        refusal(send(address, path, data=content, headers={"Content-Type": kind}))
    assert state() == before


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from([
    "data/tag", "run/untag", "data/status/update", "data/fork", "study/1/attach", "flow/exists", "setup/tag",
    "study/status/update", "data/feature/ontology/add", "data/edit"]),
       form=st.dictionaries(st.sampled_from(["data_id", "run_id", "setup_id", "study_id", "tag", "status", "ids", "name",
                                             "external_version", "index", "ontology"]),
                            st.one_of(st.text(max_size=80), st.just("9" * 40), st.just("-1"), st.just("x" * 100_000))))
def test_wrong_fields_change_nothing(fuzzed, path, form):
    address, state = fuzzed
    before = state()
    form = {k: v.encode("utf-8", "replace") for k, v in form.items()}
    if path == "data/fork" and form.get("data_id", b"").strip() == b"1":
        return
    answer = send(address, path, data={"api_key": KEY, **form})
    assert (answer.status_code == 200 and path == "flow/exists") or refusal(answer)
    assert state() == before


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(method=st.sampled_from(["GET", "DELETE", "PUT", "PATCH"]), start=st.sampled_from([
    "data/list/", "run/list/", "evaluation/list/", "task/", "study/", "setup/list/", "flow/exists/", "user/list/", "",
    "data/download/", "run/trace/", "../", "xml/data/"]), rest=st.text(max_size=40))  # fmt: skip
def test_wrong_paths_change_nothing(fuzzed, method, start, rest):
    address, state = fuzzed
    before = state()
    url = f"{address}/api/v1/{start}{quote(rest.encode('utf-8', 'replace'), safe='/.%,')}"
    answer = SESSION.request(method, url, params={"api_key": KEY}, timeout=30)
    assert (method == "GET" and answer.status_code == 200) or refusal(answer)
    assert state() == before


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(cut=st.integers(0, 400), junk=st.text(max_size=30))
def test_damaged_tables_change_nothing(fuzzed, cut, junk):
    address, state = fuzzed
    before = state()
    arff = "@relation r\n@attribute a numeric\n@attribute 'k k' {x,'y z'}\n@data\n1,x\n?,'y z'\n"
    head = ('<oml:data_set_description xmlns:oml="http://openml.org/openml"><oml:name>n</oml:name><oml:description>d'
            "</oml:description><oml:format>{}</oml:format></oml:data_set_description>")  # fmt: skip
    cut = min(cut, len(arff))
    for kind in ("arff", "sparse_arff", "zip"):
        damaged = (arff[:cut] + junk + "{1 2 3,,'" + arff[cut + 1 :]).encode("utf-8", "replace")
        answer = send(address, "data/", data={"api_key": KEY}, files={"description": head.format(kind),
                                                                      "dataset": ("d.arff", damaged)})  # fmt: skip
        if answer.status_code == 200:  # inside a comment or a name
            before = state()
        else:
            refusal(answer)
            assert state() == before
