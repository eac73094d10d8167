"""Whatever comes to `metamed serve`: 4xx with a body that clients understand, and nothing is changed."""

import re
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_server import FLOW, KEY, code, dataset, post, predictions_arff, run_xml, task, use

from metamed.exchange import server as serving
from metamed.store import Store

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
       form=st.dictionaries(st.sampled_from([
           "data_id", "run_id", "setup_id", "study_id", "tag", "status", "ids", "name", "external_version", "index",
           "ontology"]), st.one_of(st.text(max_size=80), st.just("9" * 40), st.just("-1"), st.just("x" * 100_000))))
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
