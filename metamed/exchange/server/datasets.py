"""Datasets: uploaded with their ARFF file, described, edited, forked, and taken out of use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from hashlib import md5

from metamed.exchange.server.calls import Call, route
from metamed.exchange.server.checks import checked, legal
from metamed.exchange.server.documents import read_xml
from metamed.exchange.server.lookups import entity, file_of, file_url
from metamed.exchange.server.refusals import Refused
from metamed.exchange.server.tables import describe, qualities
from metamed.store.served import Entity


@route("POST", "data")
def publish_data(call: Call) -> dict:
    fields = call.described("data_set_description", 135, 131)
    _, content = call.files.get("dataset", ("", call.form.get("dataset", "").encode()))
    if fields.get("url"):
        raise Refused(140 if content else 136, "this server fetches nothing: upload the file itself")
    if not content:
        raise Refused(141, "the request has no part 'dataset'")
    if fields["format"].lower() not in ("arff", "sparse_arff"):
        raise Refused(133, f"format {fields['format']!r}")
    targets = fields.get("default_target_attribute", "").split(",")
    table = describe(content, targets[0], sparse=fields["format"].lower() == "sparse_arff")
    if lacking := {t for t in targets if t} - {f.name for f in table.features}:
        raise Refused(143, f"no attribute {', '.join(sorted(lacking))[:200]}")
    facts = {"name": fields["name"], "format": fields["format"], "status": "active", "fields": _own(fields),
             "md5": md5(content, usedforsecurity=False).hexdigest(), "qualities": qualities(table),
             "features": [asdict(f) for f in table.features]}  # fmt: skip
    with call.served.writing():
        id = add_version(call, facts, fields.get("tag", []))
        call.served.add_file("data", id, "description", "description.xml", call.description())
        call.served.add_file("data", id, "dataset", f"{fields['name']}.arff", content)
    return {"upload_data_set": {"id": id}}


def _own(fields: Mapping) -> dict:
    """The fields of a description that stay as they were uploaded; the others are the server's to say."""
    server = {"id", "name", "version", "format", "upload_date", "url", "file_id", "tag", "status", "md5_checksum"}
    return {name: value for name, value in fields.items() if name not in server}


def add_version(call: Call, facts: dict, tags: list[str]) -> int:
    """Keep a dataset as the next version of its name."""
    version = 1
    while call.served.find("data", f"{facts['name']} {version}"):
        version += 1
    identity = f"{facts['name']} {version}"
    id = call.served.add("data", call.user, facts | {"version": version}, identity)
    for tag in tags:
        call.served.tag("data", id, tag, call.user)
    return id

@route("GET", "data/{id:int}")
def get_data(call: Call, id: int) -> dict:
    data = entity(call.served, "data", id, 111)
    facts, fields, file = data.facts, data.facts["fields"], file_of(call.served, "data", id, "dataset")
    first, last = ("description",), ("creator", "contributor", "collection_date", "language", "licence")
    rest = [name for name in fields if name not in (*first, *last)]
    return {"data_set_description": {
        "id": id, "name": facts["name"], "version": facts["version"], "description": fields["description"],
        "description_version": 1, "format": facts["format"], **{n: fields.get(n) for n in last},
        "upload_date": data.created, "url": file_url(call.base, file), "file_id": file[0],
        **{n: fields[n] for n in rest}, "tag": list(call.served.tags("data", id)) or None,
        "visibility": fields.get("visibility", "public"), "status": facts["status"], "processing_date": data.created,
        "md5_checksum": facts["md5"]}}  # fmt: skip


@route("GET", "data/features/{id:int}")
def get_features(call: Call, id: int) -> dict:
    data = entity(call.served, "data", id, 271)
    fields, ontologies = data.facts["fields"], data.facts.get("ontologies", {})
    targets = fields.get("default_target_attribute", "").split(",")
    return {"data_features": {"feature": [{
        "index": index, "name": f["name"], "data_type": f["type"], "ontology": ontologies.get(str(index)),
        "nominal_value": f["values"], "is_target": f["name"] in targets,
        "is_ignore": f["name"] in fields.get("ignore_attribute", []),
        "is_row_identifier": f["name"] == fields.get("row_id_attribute"),
        "number_of_missing_values": f["missing"]} for index, f in enumerate(data.facts["features"])]}}  # fmt: skip


@route("GET", "data/qualities/{id:int}")
@route("GET", "data/qualities/{id:int}/{engine:int}")
def get_qualities(call: Call, id: int, engine: int = 1) -> dict:
    """engine: whose qualities; there is one here, whatever its number."""
    found = entity(call.served, "data", id, 361).facts["qualities"]
    return {"data_qualities": {"quality": [{"name": name, "value": value} for name, value in found.items()]}}


@route("DELETE", "data/{id:int}")
def delete_data(call: Call, id: int) -> dict:
    with call.served.writing():
        owned(call, entity(call.served, "data", id, 352), 353)
        if _tasks_on(call, id):
            raise Refused(354, f"tasks {_tasks_on(call, id)}")
        call.served.delete("data", id)
    return {"data_delete": {"id": id}}


def _tasks_on(call: Call, id: int) -> list[int]:
    return [task.id for task in call.served.entities("task") if task.facts["data"] == id]


def owned(call: Call, found: Entity, code: int) -> Entity:
    """The entity, if whoever calls has uploaded it."""
    if found.uploader != call.user:
        raise Refused(code, f"it belongs to user {found.uploader}")
    return found


@route("POST", "data/status/update")
def update_status(call: Call) -> dict:
    id, status = call.number("data_id", 692), call.form.get("status", "")
    if status not in ("active", "deactivated"):
        raise Refused(691, f"{status[:60]!r}: active or deactivated")
    with call.served.writing():
        data = owned(call, entity(call.served, "data", id, 692), 693)
        if data.facts["status"] == status:
            raise Refused(694, f"dataset {id} is {status}")
        call.served.change("data", id, data.facts | {"status": status})
    return {"data_status_update": {"id": id, "status": status}}


_CRITICAL = {"default_target_attribute", "row_id_attribute", "ignore_attribute"}


@route("POST", "data/edit")
def edit_data(call: Call) -> dict:
    """Anybody may say more about a dataset; what learning depends on is its owner's, until there are tasks."""
    id, content = call.number("data_id", 111), call.description("edit_parameters")
    if not content:
        raise Refused(1055, "the request has no part 'edit_parameters'")
    fields = checked(read_xml(content, "data_edit_parameters", 131), 131)
    if not fields:
        raise Refused(1055)
    with call.served.writing():
        data = entity(call.served, "data", id, 111)
        if _CRITICAL & set(fields):
            owned(call, data, 353)
            if _tasks_on(call, id):
                raise Refused(354, f"tasks {_tasks_on(call, id)}: fork the dataset to edit {', '.join(_CRITICAL)}")
            names = {f["name"] for f in data.facts["features"]}
            named = {*fields.get("default_target_attribute", "").split(","), fields.get("row_id_attribute", "")}
            if lacking := {n for n in named if n} - names:
                raise Refused(143, f"no attribute {', '.join(sorted(lacking))[:200]}")
        call.served.change("data", id, data.facts | {"fields": data.facts["fields"] | fields})
    return {"data_edit": {"id": id}}


@route("POST", "data/fork")
def fork_data(call: Call) -> dict:
    """A new version of the same content, owned by whoever calls."""
    id = call.number("data_id", 111)
    with call.served.writing():
        data = entity(call.served, "data", id, 111)
        new = add_version(call, data.facts, [])
        for number, part, name in call.served.files("data", id):
            path, _ = call.served.file(number)
            call.served.add_file("data", new, part, name, path.read_bytes())
    return {"data_fork": {"id": new}}


@route("POST", "data/topicadd")
@route("POST", "data/topicdelete")
@route("POST", "data/features")
@route("POST", "data/qualities")
@route("POST", "run/evaluate")
@route("POST", "run/trace")
@route("GET", "data/unprocessed/{path:path}")
@route("GET", "evaluation/request/{path:path}")
def admins_only(call: Call, path: str = "") -> dict:
    """What only OpenML's own engine and administrators may do. Here nobody is one: the server does it itself."""
    raise Refused(106)


@route("POST", "data/feature/ontology/add")
def add_ontology(call: Call) -> dict:
    return _ontology(call, add=True)


@route("POST", "data/feature/ontology/remove")
def remove_ontology(call: Call) -> dict:
    return _ontology(call, add=False)


def _ontology(call: Call, add: bool) -> dict:
    id, index = call.number("data_id", 111), call.number("index", 1105)
    url = legal(call.form.get("ontology", ""), "url", 256, 1105, "ontology")
    with call.served.writing():
        data = entity(call.served, "data", id, 111)
        if index >= len(data.facts["features"]) or not url:
            raise Refused(1105, f"dataset {id} has no feature {index}, or no ontology was given")
        ontologies = data.facts.get("ontologies", {})
        of_feature = ontologies.get(str(index), [])
        if add == (url in of_feature):
            raise Refused(1106, f"feature {index} of dataset {id} {'has' if add else 'does not have'} it")
        of_feature = [*of_feature, url] if add else [u for u in of_feature if u != url]
        call.served.change("data", id, data.facts | {"ontologies": ontologies | {str(index): of_feature}})
    name = "data_feature_ontology_add" if add else "data_feature_ontology_remove"
    return {name: {"id": id}}
