"""Flows and setups: a flow is known by its name and version, a setup by its flow and settings."""

from __future__ import annotations

import re
from collections.abc import Mapping

from metamed.exchange.server.calls import Call, route
from metamed.exchange.server.datasets import owned
from metamed.exchange.server.lookups import entity, file_of, file_url, flow_tree, full_name
from metamed.exchange.server.refusals import Refused
from metamed.records import content_id
from metamed.store.served import Entity

FILE_NAME = re.compile(r"[A-Za-z0-9_\-.,():]{1,120}\.[A-Za-z0-9]{1,16}").fullmatch


@route("POST", "flow")
def publish_flow(call: Call) -> dict:
    fields = call.described("flow", 161, 163)
    others = {part: file for part, file in call.files.items() if part != "description"}
    if illegal := [part for part, (name, _) in others.items()
                   if part not in ("source", "binary") or not FILE_NAME(name)]:  # fmt: skip
        raise Refused(167, f"part {illegal[0][:60]!r}: expected source or binary, with a file name")
    with call.served.writing():
        if known := call.served.find("flow", flow_identity(fields)):
            raise Refused(171, f"id: {known}")
        id = _keep_flow(call, fields)
        call.served.add_file("flow", id, "description", "description.xml", call.description())
        for part, (name, content) in others.items():
            call.served.add_file("flow", id, part, name, content)
    return {"upload_flow": {"id": id}}


def flow_identity(fields: Mapping) -> str:
    """Name and external version are what a flow is known by; without a version, its content is."""
    return f"{fields['name']} {fields.get('external_version') or content_id(fields)}"


def _keep_flow(call: Call, fields: dict) -> int:
    """Keep a flow and those below it; a component that is known already is the known one."""
    identity = flow_identity(fields)
    if known := call.served.find("flow", identity):
        return known
    components = [[c["identifier"], _keep_flow(call, c["flow"])] for c in fields.get("component", [])]
    parameters = fields.get("parameter", [])
    if len({p["name"] for p in parameters}) < len(parameters):
        raise Refused(163, f"{fields['name'][:60]}: a parameter occurs twice")
    ids = call.served.numbers("input", len(parameters))
    server = ("id", "uploader", "version", "upload_date", "parameter", "component", "tag")
    facts = {"name": fields["name"], "version": call.served.numbers(f"version of {fields['name']}", 1)[0],
             "external_version": fields.get("external_version") or content_id(fields), "components": components,
             "parameters": [p | {"id": i} for p, i in zip(parameters, ids, strict=True)],
             "fields": {name: value for name, value in fields.items() if name not in server}}  # fmt: skip
    id = call.served.add("flow", call.user, facts, identity)
    for tag in fields.get("tag", []):
        call.served.tag("flow", id, tag, call.user)
    return id


@route("POST", "flow/exists")
def flow_exists_post(call: Call) -> dict:
    if not (call.form.get("name") and call.form.get("external_version")):
        raise Refused(330, "name and external_version are needed")
    return flow_exists(call, call.form["name"], call.form["external_version"])


@route("GET", "flow/exists/{name}/{external_version}")
def flow_exists(call: Call, name: str, external_version: str) -> dict:
    known = call.served.find("flow", f"{name} {external_version}")
    return {"flow_exists": {"exists": known is not None, "id": known or -1}}


@route("POST", "setup/exists")
def setup_exists(call: Call) -> dict:
    fields = call.described("run", 581, 582)
    tree = flow_tree(call.served, int(fields["flow_id"]), 584)
    known = call.served.find("setup", setup_identity(int(fields["flow_id"]), settings_of(fields, tree, 586)))
    return {"setup_exists": {"exists": known is not None, "id": known or -1}}


def settings_of(fields: Mapping, tree: Mapping[int, Entity], code: int) -> list[list]:
    """[flow, parameter, value] of each setting of a run, sorted; refused where the flow has no such parameter."""
    top, found = next(iter(tree)), {}
    for setting in fields.get("parameter_setting", []):
        flow, name = int(setting.get("component", top)), setting["name"]
        if flow not in tree or name not in {p["name"] for p in tree[flow].facts["parameters"]}:
            raise Refused(code, f"flow {flow} has no parameter {name[:60]!r}")
        if found.setdefault((flow, name), setting["value"]) != setting["value"]:
            raise Refused(code, f"parameter {name[:60]!r} of flow {flow} is set twice")
    return [[flow, name, value] for (flow, name), value in sorted(found.items())]


def setup_identity(flow: int, settings: list) -> str:
    return content_id("setup", flow, settings)

@route("GET", "flow/{id:int}")
def get_flow(call: Call, id: int) -> dict:
    return {"flow": _flow(call, id)}


def _flow(call: Call, id: int) -> dict:
    flow = entity(call.served, "flow", id, 181)
    facts, fields = flow.facts, flow.facts["fields"]
    urls = {f"{part}_url": file_url(call.base, file) for part in ("source", "binary")
            if (file := file_of(call.served, "flow", id, part))}  # fmt: skip
    first, after = ("custom_name", "class_name"), ("description", "creator", "contributor")
    rest = {n: v for n, v in fields.items() if n not in (*first, *after, "name", "external_version", *urls, "quality")}
    keys = ("name", "data_type", "default_value", "description", "recommendedRange")
    return {"id": id, "uploader": flow.uploader, "name": facts["name"], **{n: fields.get(n) for n in first},
            "version": facts["version"], "external_version": facts["external_version"],
            **{n: fields.get(n) for n in after}, "upload_date": flow.created, **rest,
            "parameter": [{k: p.get(k, "" if k == "default_value" else None) for k in keys}
                          for p in facts["parameters"]],
            "component": [{"identifier": i, "flow": _flow(call, c)} for i, c in facts["components"]],
            "quality": fields.get("quality"), "tag": list(call.served.tags("flow", id)), **urls}  # fmt: skip


@route("DELETE", "flow/{id:int}")
def delete_flow(call: Call, id: int) -> dict:
    with call.served.writing():
        owned(call, entity(call.served, "flow", id, 322), 323)
        if call.served.used("flow", id):
            raise Refused(324)
        if above := [f.id for f in call.served.entities("flow") if id in dict(map(reversed, f.facts["components"]))]:
            raise Refused(328, f"flows {above}")
        for setup in call.served.entities("setup"):
            if setup.facts["flow"] == id:
                call.served.delete("setup", setup.id)
        call.served.delete("flow", id)
    return {"flow_delete": {"id": id}}


@route("GET", "setup/{id:int}")
def get_setup(call: Call, id: int) -> dict:
    setup = entity(call.served, "setup", id, 281)
    return {"setup_parameters": setup_document(setup, flow_tree(call.served, setup.facts["flow"], 181))}


def setup_document(setup: Entity, tree: Mapping[int, Entity]) -> dict:
    """A setup with its parameters, each under the number that the flow's input has on this server."""
    inputs = {(flow.id, p["name"]): p for flow in tree.values() for p in flow.facts["parameters"]}
    parameters = []
    for flow, name, value in setup.facts["settings"]:
        known, of = inputs[flow, name], full_name(tree[flow])
        parameters.append({"id": known["id"], "flow_id": flow, "flow_name": of, "full_name": f"{of}_{name}",
                           "parameter_name": name, "data_type": known.get("data_type", ""),
                           "default_value": known.get("default_value", ""), "value": value})  # fmt: skip
    return {"setup_id": setup.id, "flow_id": setup.facts["flow"], "parameter": parameters}


@route("DELETE", "setup/{id:int}")
def delete_setup(call: Call, id: int) -> dict:
    with call.served.writing():
        owned(call, entity(call.served, "setup", id, 402), 404)
        if call.served.used("setup", id):
            raise Refused(404)
        call.served.delete("setup", id)
    return {"setup_delete": {"id": id}}
