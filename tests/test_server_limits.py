"""What `metamed serve` refuses: limits, unknown filters, keys, hosts, sizes."""

import re

import pytest
import requests
from toy_server import FLOW, KEY, code, dataset, empty, filled, openml, post, predictions_arff, run_xml

from metamed.errors import MetamedError
from metamed.exchange import server as serving
from metamed.store import Store
from metamed.store.served import Served

server, toy = pytest.fixture(empty), pytest.fixture(filled)


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
        "task/list/colour/1": 480, "task/list/type/x": 481, "task/list/type/5": 482,
        "flow/list/uploader/x": 502, "flow/list/tag/none": 500, "run/list": 512, "run/list/limit/10001": 516,
        "run/list/study/7": 517, "evaluation/list/limit/5": 540, "evaluation/list/task/1": 542,
        "evaluation/list/function/kappa/per_fold/no": 547,
        "evaluation/list/function/kappa/sort_order/up": 549, "evaluation/list/function/kappa": 542,
        "evaluation/list/function/kappa/limit/10001": 546, "setup/list": 674, "setup/list/limit/1001": 676,
        "study/list": 599, "study/nothing": 601, "data/99999999999999999999999": 111, "data/7": 111, "task/7": 151,
        "flow/7": 181, "run/7": 236, "setup/7": 281, "data/features/7": 271, "data/qualities/7": 361, "nothing": 100,
        "data/unprocessed/1/normal": 106, "evaluation/request/1/normal/5": 106,
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
