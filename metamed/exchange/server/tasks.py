"""Tasks: a dataset, a target and an estimation procedure; never the same twice."""

from __future__ import annotations

from collections.abc import Mapping

from metamed.exchange.server.calls import Call, Pieces, route
from metamed.exchange.server.checks import number
from metamed.exchange.server.datasets import owned
from metamed.exchange.server.evaluations import MEASURES
from metamed.exchange.server.lookups import TASK_TYPES, entity, task_classes
from metamed.exchange.server.refusals import Refused
from metamed.records import content_id
from metamed.splits import KNOWN, Procedure, splits_arff
from metamed.store.served import Entity, Served

_ROWS = 50_000_000  # of a split file, beyond which a task is refused
_INPUTS = {1: ("source_data", "target_feature", "estimation_procedure"),
           2: ("source_data", "target_feature", "estimation_procedure"),
           5: ("source_data", "estimation_procedure")}  # fmt: skip
_OPTIONAL = ("evaluation_measures", "cost_matrix", "target_feature")


@route("POST", "task")
def publish_task(call: Call) -> dict:
    fields = call.described("task_inputs", 611, 613)
    type = int(fields["task_type_id"])
    if type not in _INPUTS:
        raise Refused(622, f"task type {type}: this server has {', '.join(map(str, _INPUTS))}")
    names = [i.get("@name", "") for i in fields["input"]]
    inputs = {i.get("@name", ""): i["#text"] for i in fields["input"] if i["#text"]}
    if len(set(names)) < len(names):
        raise Refused(617, ", ".join(names)[:200])
    if illegal := set(names) - {*_INPUTS[type], *_OPTIONAL}:
        raise Refused(616, ", ".join(sorted(illegal))[:200])
    if missing := set(_INPUTS[type]) - set(inputs):
        raise Refused(618, ", ".join(sorted(missing)))
    with call.served.writing():
        facts = {"type": type, "inputs": inputs, **_sound(call.served, type, inputs)}
        identity = content_id("task", type, inputs)
        if known := call.served.find("task", identity):
            raise Refused(614, f"matched id(s): [{known}]")
        id = call.served.add("task", call.user, facts, identity)
        for tag in fields.get("tag", []):
            call.served.tag("task", id, tag, call.user)
    return {"upload_task": {"id": id}}


def _sound(served: Served, type: int, inputs: Mapping[str, str]) -> dict:
    """{data, target} of a task whose inputs fit each other."""
    procedure = KNOWN.get(number(inputs["estimation_procedure"], 621, "estimation_procedure"))
    if procedure is None or procedure.task_type != type:
        raise Refused(622, f"estimation_procedure {inputs['estimation_procedure']} is none of task type {type}")
    if (measure := inputs.get("evaluation_measures")) and measure not in MEASURES:
        raise Refused(622, f"evaluation_measures {measure[:60]!r} is no evaluation measure")
    if "cost_matrix" in inputs:
        raise Refused(622, "cost_matrix: this server does not evaluate by cost")
    data = entity(served, "data", number(inputs["source_data"], 621, "source_data"), 622)
    if data.facts["status"] != "active":
        raise Refused(623, f"dataset {data.id} is {data.facts['status']}")
    target = inputs.get("target_feature")
    kinds = {f["name"]: f["type"] for f in data.facts["features"]}
    wanted = {1: "nominal", 2: "numeric"}.get(type)
    if target and (target not in kinds or (wanted and kinds[target] != wanted)):
        raise Refused(622, f"target_feature {target[:60]!r} is no {wanted or ''} attribute of dataset {data.id}")
    rows = data.facts["qualities"]["NumberOfInstances"]
    if rows * procedure.repeats * (procedure.folds or (rows if procedure.type == "leaveoneout" else 1)) > _ROWS:
        raise Refused(622, f"{procedure.name} of {rows} rows has more than {_ROWS} rows of splits")
    if rows < max(2, procedure.folds or 0):
        raise Refused(622, f"{procedure.name} cannot divide {rows} rows")
    return {"data": data.id, "target": target}

@route("GET", "task/{id:int}")
def get_task(call: Call, id: int) -> dict:
    task = entity(call.served, "task", id, 151)
    data, type = entity(call.served, "data", task.facts["data"], 111), task.facts["type"]
    inputs = [{"@name": "source_data", "data_set": {"data_set_id": data.id, "target_feature": task.facts["target"]}},
              {"@name": "estimation_procedure", "estimation_procedure": _estimation(call, task)},
              {"@name": "cost_matrix", "cost_matrix": ""},
              {"@name": "evaluation_measures", "evaluation_measures": {
                  "evaluation_measure": task.facts["inputs"].get("evaluation_measures", "")}}]  # fmt: skip
    features = [{"@name": name, "@type": kind} for name, kind in _PREDICTED[type].items()]
    output = {"@name": "predictions", "predictions": {"format": "ARFF", "feature": features}}
    return {"task": {
        "task_id": id, "task_name": f"Task {id}: {data.facts['name']} ({TASK_TYPES[type]})", "task_type_id": type,
        "task_type": TASK_TYPES[type], "input": inputs, "output": output, "tag": list(call.served.tags("task", id))}}


_WHERE = {"repeat": "integer", "fold": "integer", "row_id": "integer"}
_PREDICTED = {1: _WHERE | {"confidence.classname": "numeric", "prediction": "string"},
              2: _WHERE | {"prediction": "string"}, 5: _WHERE | {"cluster": "numeric"}}  # fmt: skip


def _estimation(call: Call, task: Entity) -> dict:
    p = KNOWN[int(task.facts["inputs"]["estimation_procedure"])]
    values = {"number_repeats": p.repeats, "number_folds": p.folds, "percentage": p.percent,
              "stratified_sampling": p.stratified}  # fmt: skip
    parameters = [{"@name": name, "#text": "" if value is None else value} for name, value in values.items()]
    url = f"{call.base}/api_splits/get/{task.id}/Task_{task.id}_splits.arff"
    return {"id": p.id, "type": p.type, "data_splits_url": url, "parameter": parameters}


@route("GET", "splits/{id:int}")
def get_splits(call: Call, id: int) -> Pieces:
    """The split file of a task, as OpenML's engine would make it."""
    task = entity(call.served, "task", id, 151)
    data = entity(call.served, "data", task.facts["data"], 111)
    procedure = int(task.facts["inputs"]["estimation_procedure"])
    return Pieces(splits_arff(data.facts["name"], procedure, *task_classes(call.served, task)), "text/plain")


@route("DELETE", "task/{id:int}")
def delete_task(call: Call, id: int) -> dict:
    with call.served.writing():
        owned(call, entity(call.served, "task", id, 452), 453)
        if call.served.used("task", id):
            raise Refused(454)
        if suites := [s.id for s in call.served.entities("study") if s.facts["entity"] == "task"
                      and id in s.facts["members"]]:  # fmt: skip
            raise Refused(454, f"suites {suites} hold it")
        call.served.delete("task", id)
    return {"task_delete": {"id": id}}


@route("GET", "estimationprocedure/list")
def list_procedures(call: Call) -> dict:
    return {"estimationprocedures": {"estimationprocedure": [_procedure(p) for p in KNOWN.values()]}}


@route("GET", "estimationprocedure/{id:int}")
def get_procedure(call: Call, id: int) -> dict:
    if id not in KNOWN:
        raise Refused(731, f"{id}: see estimationprocedure/list")
    return {"estimationprocedure": _procedure(KNOWN[id])}


def _procedure(p: Procedure) -> dict:
    return {"id": p.id, "ttid": p.task_type, "name": p.name, "type": p.type, "repeats": p.repeats, "folds": p.folds,
            "percentage": p.percent, "stratified_sampling": p.stratified}  # fmt: skip


@route("GET", "tasktype/list")
def list_task_types(call: Call) -> dict:
    types = [{"id": id, "name": TASK_TYPES[id], "description": "", "creator": "OpenML"} for id in _INPUTS]
    return {"task_types": {"task_type": types}}


@route("GET", "tasktype/{id:int}")
def get_task_type(call: Call, id: int) -> dict:
    if id not in _INPUTS:
        raise Refused(241, f"{id}: this server has {', '.join(map(str, _INPUTS))}")
    inputs = [{"@name": name, "#text": ""} for name in (*_INPUTS[id], *_OPTIONAL) if name in _INPUTS[id] or id != 5]
    return {"task_type": {"id": id, "name": TASK_TYPES[id], "description": "", "input": inputs}}


@route("GET", "evaluationmeasure/list")
def list_measures(call: Call) -> dict:
    return {"evaluation_measures": {"measures": {"measure": MEASURES}}}
