"""What the tests of the server share: a server with a small dataset, a task and a flow, and how to talk to it."""

import logging
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import requests

from metamed.exchange import server as serving
from metamed.splits import folds
from metamed.store import Store

openml = pytest.importorskip("openml")
logging.getLogger().setLevel(logging.ERROR)  # the client warns of every answer that is not compressed
KEY = "normaluser"


def use(address: str, cache: Path, key: str = KEY) -> None:
    """Point the client at a server."""
    openml.config.server, openml.config.apikey = f"{address}/api/v1/xml", key
    openml.config.set_root_cache_directory(str(cache))


def empty(tmp_path):
    """Fixture: (address, store) of a server of its own."""
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


def filled(server):
    """Fixture: a server with dataset 1, task 1 (4-fold) and flow 1."""
    address, store = server
    data = dataset().publish()
    assert task(data.dataset_id).publish().task_id == 1
    assert code(post(address, "flow/", description=FLOW)) is None
    return address, store
