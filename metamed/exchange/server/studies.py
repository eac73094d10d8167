"""Studies, which hold runs, and suites, which hold tasks."""

from __future__ import annotations

from collections.abc import Mapping

from metamed.exchange.server.calls import Call, route
from metamed.exchange.server.checks import number
from metamed.exchange.server.datasets import owned
from metamed.exchange.server.lookups import entity
from metamed.exchange.server.refusals import Refused
from metamed.store.served import Entity, Served


@route("POST", "study")
def publish_study(call: Call) -> dict:
    fields = call.described("study", 1031, 1032)
    kind = fields["main_entity_type"]
    for group, held in (("runs", "run"), ("tasks", "task")):
        if fields.get(group) and held != kind:
            raise Refused(1034, f"a study of {kind}s with {group}")
    members = [int(i) for i in fields.get(f"{kind}s", {}).get(f"{kind}_id", [])]
    with call.served.writing():
        facts = {name: fields.get(name) for name in ("alias", "name", "description")} | {
            "entity": kind, "suite": _suite(call.served, fields), "status": "in_preparation", "members": []}
        if facts["alias"] and call.served.find("study", facts["alias"]):
            raise Refused(1038, facts["alias"])
        facts["members"] = with_members(call.served, kind, [], members)
        id = call.served.add("study", call.user, facts, facts["alias"])
    return {"study_upload": {"id": id}}


def _suite(served: Served, fields: Mapping) -> int | None:
    if not fields.get("benchmark_suite"):
        return None
    if fields["main_entity_type"] != "run":
        raise Refused(1035)
    suite = entity(served, "study", int(fields["benchmark_suite"]), 1036)
    if suite.facts["entity"] != "task":
        raise Refused(1037)
    return suite.id


def with_members(served: Served, kind: str, members: list[int], more: list[int]) -> list[int]:
    """The members of a study with more of them; each has to exist and to be new."""
    known = {row[0] for row in served.runs(id=more, errors=True)} if kind == "run" else {
        e.id for e in served.entities("task", ids=more)}  # fmt: skip
    if unknown := [id for id in more if id not in known]:
        raise Refused(1045, f"there is no {kind} {unknown[0]}")
    if len(set(members) | set(more)) < len(members) + len(more):
        raise Refused(1045, "some are attached already")
    return members + more


@route("GET", "study/{name}")
def get_study(call: Call, name: str) -> dict:
    """A study by number or alias, with all that its members are about."""
    id = int(name) if name.isdecimal() and len(name) < 19 else call.served.find("study", name)
    study = entity(call.served, "study", -1 if id is None else id, 601)
    facts, members = study.facts, study.facts["members"]
    runs = call.served.runs(id=members, errors=True) if facts["entity"] == "run" else []
    tasks = sorted({run[1] for run in runs}) if facts["entity"] == "run" else members
    data = sorted({task.facts["data"] for task in call.served.entities("task", ids=tasks)})
    groups = {"data": data, "task": tasks, "flow": sorted({r[2] for r in runs}), "setup": sorted({r[3] for r in runs}),
              "run": members if facts["entity"] == "run" else []}  # fmt: skip
    held = {("data" if kind == "data" else f"{kind}s"): {f"{kind}_id": ids} for kind, ids in groups.items() if ids}
    return {"study": {
        "id": study.id, "alias": facts["alias"], "main_entity_type": facts["entity"], "benchmark_suite": facts["suite"],
        "name": facts["name"], "description": facts["description"] or "", "status": facts["status"],
        "creation_date": study.created, "creator": study.uploader, **held}}  # fmt: skip


@route("POST", "study/{id:int}/attach")
def attach(call: Call, id: int) -> dict:
    with call.served.writing():
        study, ids = _open(call, id)
        return _changed(call, study, with_members(call.served, study.facts["entity"], study.facts["members"], ids),
                        "study_attach")  # fmt: skip


@route("POST", "study/{id:int}/detach")
def detach(call: Call, id: int) -> dict:
    with call.served.writing():
        study, ids = _open(call, id)
        if absent := set(ids) - set(study.facts["members"]):
            raise Refused(1046, f"{study.facts['entity']} {min(absent)} is not attached")
        return _changed(call, study, [m for m in study.facts["members"] if m not in ids], "study_detach")


def _open(call: Call, id: int) -> tuple[Entity, list[int]]:
    """A study that may still change, and the numbers that the request names."""
    study = entity(call.served, "study", id, 1041)
    if not call.form.get("ids"):
        raise Refused(1043)
    ids = [number(word.strip(), 1044, "ids") for word in call.form["ids"].split(",")]
    if study.facts["status"] != "in_preparation":
        raise Refused(1047, f"study {id} is {study.facts['status']}")
    owned(call, study, 1053)
    return study, ids


def _changed(call: Call, study: Entity, members: list[int], answer: str) -> dict:
    call.served.change("study", study.id, study.facts | {"members": members})
    return {answer: {"id": study.id, "linked_entities": len(members)}}


@route("POST", "study/status/update")
def update_study_status(call: Call) -> dict:
    id, status = call.number("study_id", 1052), call.form.get("status", "")
    if status not in ("active", "deactivated"):
        raise Refused(1051, f"{status[:60]!r}: active or deactivated")
    with call.served.writing():
        study = owned(call, entity(call.served, "study", id, 1052), 1053)
        call.served.change("study", id, study.facts | {"status": status})
    return {"study_status_update": {"id": id, "status": status}}


@route("DELETE", "study/{id:int}")
def delete_study(call: Call, id: int) -> dict:
    with call.served.writing():
        study = owned(call, entity(call.served, "study", id, 592), 594)
        if study.facts["entity"] == "task" and study.facts["status"] != "in_preparation":
            raise Refused(595)
        call.served.delete("study", id)
    return {"study_delete": {"id": id}}
