"""Runs on `metamed serve`: kept exactly once, evaluated, divided as on openml.org."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
from toy_server import FLOW, code, dataset, empty, filled, frame, openml, post, predictions_arff, run_xml

from metamed.exchange.server.evaluations import MEASURES, evaluate
from metamed.exchange.server.tables import Predictions
from metamed.splits import folds, splits_arff
from metamed.store.served import Served

server, toy = pytest.fixture(empty), pytest.fixture(filled)


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


def test_many_clients_at_once_make_one_task_and_one_flow(server):
    """What gave three tasks and half a flow on the public server's code."""
    address, store = server
    dataset().publish()
    inputs = {"source_data": 1, "target_feature": "kind", "estimation_procedure": 1}
    rows = "".join(f'<oml:input name="{k}">{v}</oml:input>' for k, v in inputs.items())
    wanted = (f'<oml:task_inputs xmlns:oml="http://openml.org/openml"><oml:task_type_id>1</oml:task_type_id>{rows}'
              "</oml:task_inputs>")  # fmt: skip
    part = FLOW[FLOW.index("<oml:name>") : FLOW.index("</oml:flow>")]
    pair = FLOW.replace("metamed.toy", "metamed.pair").replace(
        "</oml:flow>", f"<oml:component><oml:identifier>net</oml:identifier><oml:flow>{part}</oml:flow></oml:component>"
        "</oml:flow>")  # fmt: skip
    with ThreadPoolExecutor(8) as pool:
        tasks = list(pool.map(lambda _: code(post(address, "task/", description=wanted)), range(8)))
        flows = list(pool.map(lambda _: code(post(address, "flow/", description=pair)), range(8)))
    assert sorted(tasks, key=str) == [614] * 7 + [None] and sorted(flows, key=str) == [171] * 7 + [None]
    assert Served(store).counts() == {"data": 1, "task": 1, "flow": 2, "run": 0}
    assert openml.flows.get_flow(2).components["net"].name == "metamed.toy"


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
