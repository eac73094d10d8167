"""Clients that are not here to be run: their requests, as their sources make them, byte for byte on the wire."""

import gzip
import http.client
import json
import re
from urllib.parse import quote, urlsplit

import pytest
from toy_server import FLOW, KEY, empty, filled, predictions_arff, run_xml

server, toy = pytest.fixture(empty), pytest.fixture(filled)
ARFF = "@relation two\n@attribute a numeric\n@attribute kind {x,y}\n@data\n" + "1,x\n2,y\n" * 10
DATA = """<oml:data_set_description xmlns:oml="http://openml.org/openml"><oml:name>two</oml:name>
<oml:version>1</oml:version><oml:description>Two kinds</oml:description><oml:format>ARFF</oml:format>
<oml:default_target_attribute>kind</oml:default_target_attribute></oml:data_set_description>"""
TASK = """<oml:task_inputs xmlns:oml="http://openml.org/openml"><oml:task_type_id>1</oml:task_type_id>
<oml:input name="source_data">1</oml:input><oml:input name="target_feature">kind</oml:input>
<oml:input name="estimation_procedure">1</oml:input></oml:task_inputs>"""
STUDY = """<oml:study xmlns:oml="http://openml.org/openml"><oml:alias>mine</oml:alias>
<oml:main_entity_type>run</oml:main_entity_type><oml:name>Mine</oml:name><oml:description>All of it</oml:description>
</oml:study>"""
BOUNDARY = "nZxkzCkUhs7tPdD-wGA5"
COMPRESSED = {"Accept-Encoding": "gzip,deflate"}


def ask(address: str, method: str, path: str, body: bytes = b"", headers: dict | None = None) -> tuple[int, str]:
    """Status and text of one answer, read as it came."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    connection.request(method, path, body or None, headers or {})
    answer = connection.getresponse()
    content = answer.read()
    zipped = answer.getheader("Content-Encoding") == "gzip"
    assert not zipped or "gzip" in (headers or {}).get("Accept-Encoding", ""), "compressed where nobody asked for it"
    connection.close()
    return answer.status, (gzip.decompress(content) if zipped else content).decode()


def number(answer: tuple[int, str], name: str = "id") -> int:
    assert answer[0] == 200, answer
    return int(re.search(rf"<oml:{name}>(\d+)</oml:{name}>", answer[1])[1])


def multipart(parts: list[bytes]) -> bytes:
    return b"".join(b"--" + BOUNDARY.encode() + b"\r\n" + part + b"\r\n" for part in parts) + (
        b"--" + BOUNDARY.encode() + b"--\r\n")  # fmt: skip


# ---- Java: Apache's HttpClient with strict multipart, /api_new/v1, the key as the last part or in the address


def java_file(name: str, file: str, content: str) -> bytes:
    return (f'Content-Disposition: form-data; name="{name}"; filename="{file}"\r\n'
            "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n"
            f"{content}").encode()  # fmt: skip


def java_text(name: str, content: str) -> bytes:
    return (f'Content-Disposition: form-data; name="{name}"\r\nContent-Type: text/plain; charset=US-ASCII\r\n'
            f"Content-Transfer-Encoding: 8bit\r\n\r\n{content}").encode()  # fmt: skip


def java_post(address: str, path: str, *parts: bytes) -> tuple[int, str]:
    headers = COMPRESSED | {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
                            "User-Agent": "Apache-HttpClient/4.5.13 (Java/17)"}  # fmt: skip
    return ask(address, "POST", f"/api_new/v1/{path}", multipart([*parts, java_text("api_key", KEY)]), headers)


def java_get(address: str, path: str) -> tuple[int, str]:
    return ask(address, "GET", f"/api_new/v1/{path}?api_key={KEY}", headers=COMPRESSED)


def test_the_calls_of_the_java_client(server):
    address, _ = server
    data = java_post(address, "data/", java_file("description", "d.xml", DATA), java_file("dataset", "d.arff", ARFF))
    assert number(data) == 1
    shown = java_get(address, "data/1")[1]
    assert "<oml:status>active</oml:status>" in shown
    file = re.search(r"<oml:file_id>(\d+)<", shown)[1]
    assert ask(address, "GET", f"/data/v1/download/{file}/two?api_key={KEY}") == (200, ARFF), "by a plain URL, unpacked"
    assert "kind" in java_get(address, "data/features/1")[1]
    assert java_get(address, "data/qualities/1")[1] == java_get(address, "data/qualities/1/1")[1]
    assert "NumberOfInstances" in java_get(address, "data/qualities/list")[1]
    assert number(java_post(address, "task/", java_file("description", "t.xml", TASK))) == 1
    splits = re.search(r"<oml:data_splits_url>(.*?)<", java_get(address, "task/1")[1])[1]
    assert ask(address, "GET", urlsplit(splits).path)[1].count("TEST,") == 20
    assert number(java_post(address, "flow", java_file("description", "f.xml", FLOW),
                            java_file("source", "Weka.java", "class Weka {}"))) == 1  # fmt: skip
    assert number(java_get(address, f"flow/exists/metamed.toy/{quote('metamed==0.1')}")) == 1
    exists = java_get(address, "flow/exists/weka.J48/Weka_3.9")[1]
    assert "<oml:exists>false</oml:exists>" in exists and "<oml:id>-1</oml:id>" in exists
    assert "<oml:did>1</oml:did>" in java_get(address, "data/list/status/active/limit/5/")[1]
    for kind in ("data", "task", "flow"):
        tagged = java_post(address, f"{kind}/tag", java_text(f"{kind}_id", "1"), java_text("tag", "weka"))
        assert tagged[0] == 200 and "<oml:tag>weka</oml:tag>" in tagged[1]
        assert java_post(address, f"{kind}/untag", java_text(f"{kind}_id", "1"), java_text("tag", "weka"))[0] == 200


def test_runs_of_the_java_client(toy):
    address, _ = toy
    run = java_post(address, "run/", java_file("description", "run.xml", run_xml()),
                    java_file("predictions", "predictions123.arff", predictions_arff()))  # fmt: skip
    assert number(run, "run_id") == 1
    assert "predictive_accuracy" in java_get(address, "run/1")[1]
    assert "<oml:run_id>1</oml:run_id>" in java_get(address, "run/list/task/1/limit/10/offset/0")[1]
    rows = java_get(address, "evaluation/list/task/1/function/predictive_accuracy/limit/10")[1]
    assert "<oml:value>1.0</oml:value>" in rows
    exists = java_post(address, "setup/exists", java_file("description", "s.xml", run_xml()))
    assert number(exists) == 1 and "depth" in java_get(address, "setup/1")[1]
    study = java_post(address, "study/", java_file("description", "study.xml", STUDY))
    assert number(study) == 1
    assert java_post(address, "study/1/attach", java_text("ids", "1"))[0] == 200
    assert "<oml:run_id>1</oml:run_id>" in java_get(address, "study/mine")[1]
    assert java_post(address, "study/1/detach", java_text("ids", "1"))[0] == 200
    gone = ask(address, "DELETE", f"/api_new/v1/run/1?api_key={KEY}", headers=COMPRESSED)
    assert gone[0] == 200 and "run_delete" in gone[1]
    status, body = java_get(address, "run/1")
    assert status == 412 and "<oml:code>236</oml:code>" in body


# ---- R: httr over libcurl, /api/v1 and /api/v1/json, the key always in the address, files of tempfile()


def r_post(address: str, path: str, *parts: bytes, key: str = KEY) -> tuple[int, str]:
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Accept-Encoding": "deflate, gzip",
               "Accept": "application/json, text/xml, application/xml, */*", "User-Agent": "libcurl/7.88 r-curl/5.0"}
    return ask(address, "POST", f"/api/v1/{path}?api_key={key}", multipart(list(parts)), headers)


def r_file(name: str, file: str, content: str) -> bytes:
    kind = {"xml": "application/xml"}.get(file.rpartition(".")[2], "text/plain")
    return (f'Content-Disposition: form-data; name="{name}"; filename="{file}"\r\nContent-Type: {kind}\r\n\r\n'
            + content).encode()  # fmt: skip


def r_text(name: str, content: str) -> bytes:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n{content}'.encode()


def r_list(address: str, path: str) -> dict:
    status, text = ask(address, "GET", f"/api/v1/json/{path}?api_key={KEY}", headers={"Accept-Encoding": "gzip"})
    assert status == 200, text
    return json.loads(text)


def test_the_calls_of_the_r_client(server):
    address, _ = server
    data = r_post(address, "data", r_file("description", "file1a2b", DATA), r_file("dataset", "file3c4d", ARFF))
    assert number(data) == 1
    (row,) = r_list(address, "data/list/status/active/limit/5000")["data"]["dataset"]
    assert row["name"] == "two" and row["format"] == "ARFF"
    assert r_list(address, "tasktype/list")["task_types"]["task_type"]
    assert r_list(address, "estimationprocedure/list")["estimationprocedures"]["estimationprocedure"]
    assert "kappa" in r_list(address, "evaluationmeasure/list")["evaluation_measures"]["measures"]["measure"]
    exists = ask(address, "GET", f"/api/v1/flow/exists/metamed.toy/metamed==0.1?api_key={KEY}")[1]
    assert "<oml:exists>false</oml:exists>" in exists
    assert number(r_post(address, "flow", r_file("description", "file5e6f.xml", FLOW))) == 1
    assert r_post(address, "flow/tag", r_text("flow_id", "1"), r_text("tag", "mlr"))[0] == 200
    (row,) = r_list(address, "flow/list/tag/mlr")["flows"]["flow"]
    assert row["id"] == "1" and row["external_version"] == "metamed==0.1"
    status, body = r_post(address, "data/tag", r_text("data_id", "7"), r_text("tag", "mlr"))
    assert status == 412 and "<oml:error" in body
    status, body = r_post(address, "flow/tag", r_text("flow_id", "1"), r_text("tag", "mlr"), key="0" * 32)
    assert status == 412 and "<oml:code>103</oml:code>" in body


def test_runs_of_the_r_client(toy):
    address, _ = toy
    run = r_post(address, "run", r_file("description", "file1.xml", run_xml()),
                 r_file("predictions", "file2.arff", predictions_arff()))  # fmt: skip
    assert number(run, "run_id") == 1
    assert r_list(address, "run/list/task/1/limit/100")["runs"]["run"][0]["run_id"] == "1"
    rows = r_list(address, "evaluation/list/task/1")["evaluations"]["evaluation"]
    assert {row["function"] for row in rows} > {"kappa", "confusion_matrix"}
    shown = ask(address, "GET", f"/api/v1/run/1?api_key={KEY}")[1]
    url = re.search(r"<oml:name>predictions</oml:name>\s*<oml:url>(.*?)<", shown)[1]
    assert ask(address, "GET", urlsplit(url).path) == (200, predictions_arff())
    assert "run_delete" in ask(address, "DELETE", f"/api/v1/run/1?api_key={KEY}")[1]


# ---- openml 0.16 for Python: paths joined to the server's address, which loses /xml where no slash ends it


@pytest.mark.parametrize("base", ["/api/v1/xml/", "/api/v1/"])
def test_the_calls_of_the_coming_python_client(server, base):
    import requests

    address, _ = server

    def send(path: str, data: dict | None = None, **files) -> tuple[int, str]:
        answer = requests.post(f"{address}{base}{path}", data={"api_key": KEY} | (data or {}), files=files or None,
                               headers={"User-Agent": "openml-python/0.16.0"}, timeout=30)  # fmt: skip
        return answer.status_code, answer.text

    assert number(send("data/", description=("description.xml", DATA), dataset=("dataset.arff", ARFF))) == 1
    assert number(send("task/", description=("description.xml", TASK))) == 1
    assert number(send("flow/", description=("description.xml", FLOW))) == 1
    assert number(send("flow/exists", {"name": "metamed.toy", "external_version": "metamed==0.1"})) == 1
    assert "<oml:exists>false</oml:exists>" in send("setup/exists/", description=("description.arff", run_xml()))[1]
    assert "<oml:tag>mine</oml:tag>" in send("data/tag", {"data_id": 1, "tag": "mine"})[1]
    for path in ("data/1", "data/features/1", "data/list/limit/10/offset/0/data_id/1", "data/qualities/list", "task/1",
                 "task/list/limit/10/offset/0", "flow/1", "flow/list/limit/10/offset/0", "estimationprocedure/list",
                 "evaluationmeasure/list"):  # fmt: skip
        answer = requests.get(f"{address}{base}{path}", timeout=30)
        assert answer.status_code == 200 and answer.headers["Content-Encoding"] == "gzip", path
        assert answer.headers["Content-Type"].startswith("text/xml"), path
    listed = requests.get(f"{address}{base}evaluation/list/function/kappa/limit/10/offset/0", timeout=30)
    assert listed.status_code == 412 and "<oml:code>542</oml:code>" in listed.text, "which it takes as nothing found"
    gone = requests.delete(f"{address}{base}task/1", params={"api_key": KEY}, timeout=30)
    assert gone.status_code == 200 and "oml:task_delete" in gone.text
