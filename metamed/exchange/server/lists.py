"""Lists and their filters: what clients page through. Long ones are sent piece by piece."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from metamed.exchange.server.calls import Call, Pieces, route
from metamed.exchange.server.documents import NAMESPACE, as_json, text
from metamed.exchange.server.flows import setup_document
from metamed.exchange.server.lookups import DISPLAYED, TASK_TYPES, entity, file_of, flow_tree, full_name
from metamed.exchange.server.refusals import Refused
from metamed.store.served import Entity, Served

_FORMS = {
    "number": r"[0-9]{1,18}",
    "numbers": r"[0-9]{1,18}(,[0-9]{1,18})*",
    "word": r"[a-zA-Z0-9_\-.]{1,128}",
    "name": r"[a-zA-Z0-9_\-.(),]{1,128}",
    "range": r"-?[0-9]{1,18}(\.[0-9]+)?(\.\.-?[0-9]{1,18}(\.[0-9]+)?)?",
    "truth": r"(?i:true|false)",
}
_PAGED = {"limit": "number", "offset": "number"}
_RANGES = {"number_instances": "NumberOfInstances", "number_features": "NumberOfFeatures",
           "number_classes": "NumberOfClasses", "number_missing_values": "NumberOfMissingValues"}  # fmt: skip


@dataclass(frozen=True)
class _Codes:
    """The codes of a list: unknown filter, value not of its form, offset without limit, no results, limit too high."""

    filter: int
    value: int
    offset: int
    none: int
    limit: int | None = None


def _filters(path: str, legal: Mapping[str, str], codes: _Codes, most: int | None = None) -> dict:
    """`name/value/name/value` as a dictionary; numbers become lists of int, words stay words."""
    parts = [p for p in path.split("/") if p]
    given = dict(zip(parts[::2], parts[1::2], strict=False))
    if unknown := [name for name in parts[::2] if name not in legal]:
        raise Refused(codes.filter, f"{unknown[0][:60]!r} (the known ones: {', '.join(sorted(legal))})")
    if len(parts) % 2:
        raise Refused(codes.value, f"filter {parts[-1]} has no value")
    found: dict = {}
    for name, value in given.items():
        if not re.fullmatch(_FORMS[legal[name]], value):
            raise Refused(codes.value, f"{name}: {value[:60]!r} is not of the form {_FORMS[legal[name]]}")
        found[name] = {"number": lambda v: int(v), "numbers": lambda v: [int(i) for i in v.split(",")],
                       "truth": lambda v: v.lower() == "true"}.get(legal[name], str)(value)  # fmt: skip
    if found.get("offset") and "limit" not in found:
        raise Refused(codes.offset)
    if most and found.get("limit", 0) > most:
        raise Refused(codes.limit, f"limit {found['limit']}, at most {most}")
    return found


def _page(rows: list, chosen: Mapping, codes: _Codes) -> list:
    """The asked part of rows; an empty one is refused, as clients expect."""
    start = chosen.get("offset", 0)
    rows = rows[start : start + chosen["limit"]] if "limit" in chosen else rows[start:]
    if not rows:
        raise Refused(codes.none)
    return rows


# ---- datasets and tasks

_DATA = _Codes(370, 371, 373, 372)
_TASK = _Codes(480, 481, 483, 482)
_OF_DATA = {"status": "name", "data_name": "name", **dict.fromkeys(_RANGES, "range")}


@route("GET", "data/list")
@route("GET", "data/list/{path:path}")
def list_data(call: Call, path: str = "") -> dict:
    legal = {**_PAGED, **_OF_DATA, "tag": "word", "data_id": "numbers", "data_version": "number", "uploader": "numbers"}
    chosen = _filters(path, legal, _DATA)
    found = call.served.entities("data", ids=chosen.get("data_id"), tag=chosen.get("tag"),
                                 uploader=chosen.get("uploader"))  # fmt: skip
    version = chosen.get("data_version")
    found = [d for d in found if _fits(d, chosen) and version in (None, d.facts["version"])]
    return {"data": {"dataset": [{
        "did": d.id, "name": d.facts["name"], "version": d.facts["version"], "uploader": d.uploader,
        "status": d.facts["status"], "format": d.facts["format"],
        "md5_checksum": d.facts["md5"], "file_id": file_of(call.served, "data", d.id, "dataset")[0],
        "quality": _displayed(d)} for d in _page(found, chosen, _DATA)]}}  # fmt: skip


def _fits(data: Entity, chosen: Mapping) -> bool:
    """Has a dataset the status, the name and the sizes that a list was asked for? Only active ones unless asked."""
    status = chosen.get("status", "active").split(",")
    if "all" not in status and data.facts["status"] not in status:
        return False
    if chosen.get("data_name", data.facts["name"]) != data.facts["name"]:
        return False
    return all(_within(data.facts["qualities"].get(quality, 0), chosen[name]) for name, quality in _RANGES.items()
               if name in chosen)  # fmt: skip


def _within(value: float, wanted: str) -> bool:
    low, dots, high = wanted.partition("..")
    return float(low) <= value <= float(high) if dots else value == float(low)


def _displayed(data: Entity) -> list[dict]:
    found = data.facts["qualities"]
    return [{"@name": name, "#text": found[name]} for name in DISPLAYED if name in found]


@route("GET", "data/qualities/list")
def list_qualities(call: Call) -> dict:
    from metamed.exchange.server.tables import QUALITIES

    return {"data_qualities_list": {"quality": QUALITIES}}


@route("GET", "task/list")
@route("GET", "task/list/{path:path}")
def list_tasks(call: Call, path: str = "") -> dict:
    legal = {**_PAGED, **_OF_DATA, "tag": "word", "data_tag": "word", "type": "number", "task_id": "numbers",
             "data_id": "numbers", "uploader": "numbers"}  # fmt: skip
    chosen = _filters(path, legal, _TASK)
    data = {d.id: d for d in call.served.entities("data", ids=chosen.get("data_id"), tag=chosen.get("data_tag"))
            if _fits(d, chosen)}  # fmt: skip
    found = [t for t in call.served.entities("task", ids=chosen.get("task_id"), tag=chosen.get("tag"),
                                             uploader=chosen.get("uploader"))
             if t.facts["data"] in data and chosen.get("type", t.facts["type"]) == t.facts["type"]]  # fmt: skip
    return {"tasks": {"task": [_listed_task(t, data[t.facts["data"]]) for t in _page(found, chosen, _TASK)]}}


def _listed_task(task: Entity, data: Entity) -> dict:
    inputs = [{"@name": name, "#text": value} for name, value in task.facts["inputs"].items()]
    return {"task_id": task.id, "task_type_id": task.facts["type"], "task_type": TASK_TYPES[task.facts["type"]],
            "did": data.id, "name": data.facts["name"], "status": data.facts["status"], "format": data.facts["format"],
            "input": inputs, "quality": _displayed(data)}  # fmt: skip


# ---- flows, setups, studies, users

_FLOW = _Codes(501, 502, 503, 500)
_SETUP = _Codes(671, 672, 675, 674, 676)
_STUDY = _Codes(596, 597, 598, 599)


@route("GET", "flow/list")
@route("GET", "flow/list/{path:path}")
def list_flows(call: Call, path: str = "") -> dict:
    chosen = _filters(path, {**_PAGED, "tag": "word", "uploader": "numbers"}, _FLOW)
    found = call.served.entities("flow", tag=chosen.get("tag"), uploader=chosen.get("uploader"))
    return {"flows": {"flow": [{
        "id": f.id, "full_name": full_name(f), "name": f.facts["name"], "version": f.facts["version"],
        "external_version": f.facts["external_version"], "uploader": f.uploader}
        for f in _page(found, chosen, _FLOW)]}}  # fmt: skip


@route("GET", "setup/list")
@route("GET", "setup/list/{path:path}")
def list_setups(call: Call, path: str = "") -> dict:
    chosen = _filters(path, {**_PAGED, "setup": "numbers", "flow": "numbers", "tag": "word"}, _SETUP, most=1000)
    found = call.served.entities("setup", ids=chosen.get("setup"), tag=chosen.get("tag"))
    found = _page([s for s in found if s.facts["flow"] in chosen.get("flow", [s.facts["flow"]])], chosen, _SETUP)
    if len(found) > 1000:
        raise Refused(673, f"{len(found)} setups, at most 1000")
    trees = {flow: flow_tree(call.served, flow, 181) for flow in {s.facts["flow"] for s in found}}
    return {"setups": {"setup": [setup_document(s, trees[s.facts["flow"]]) for s in found]}}


@route("GET", "study/list")
@route("GET", "study/list/{path:path}")
def list_studies(call: Call, path: str = "") -> dict:
    legal = {**_PAGED, "status": "name", "main_entity_type": "word", "uploader": "numbers", "benchmark_suite": "number"}
    chosen = _filters(path, legal, _STUDY)
    status = chosen.get("status", "active").split(",")
    found = [s for s in call.served.entities("study", uploader=chosen.get("uploader"))
             if ("all" in status or s.facts["status"] in status)
             and chosen.get("main_entity_type", s.facts["entity"]) == s.facts["entity"]
             and chosen.get("benchmark_suite", s.facts["suite"]) == s.facts["suite"]]  # fmt: skip
    return {"study_list": {"study": [{
        "id": s.id, "alias": s.facts["alias"], "main_entity_type": s.facts["entity"],
        "benchmark_suite": s.facts["suite"], "name": s.facts["name"], "status": s.facts["status"],
        "creation_date": s.created, "creator": s.uploader} for s in _page(found, chosen, _STUDY)]}}  # fmt: skip


@route("GET", "user/list")
@route("GET", "user/list/{path:path}")
def list_users(call: Call, path: str = "") -> dict:
    codes = _Codes(901, 901, 901, 901)
    chosen = _filters(path, {**_PAGED, "user_id": "numbers"}, codes)
    found = [{"id": id, "username": name} for id, name in call.served.users().items()
             if id in chosen.get("user_id", [id])]  # fmt: skip
    return {"users": {"user": _page(found, chosen, codes)}}


# ---- runs and evaluations

_RUN = _Codes(514, 511, 515, 512, 516)
_EVALUATION = _Codes(544, 541, 545, 542, 546)
_MOST = 10_000
_NARROW = {"task", "setup", "flow", "uploader", "run", "tag", "study"}  # one of them, where no measure is named
_OF_RUN = {**_PAGED, **dict.fromkeys(("task", "setup", "flow", "uploader", "run"), "numbers"), "tag": "word",
           "study": "number"}  # fmt: skip


def _chosen_runs(served: Served, chosen: Mapping, no_study: int) -> dict:
    """The filters of a list of runs as `Served.runs` takes them: at most one page, and a row that tells of more."""
    ids = {name: chosen[name] for name in ("task", "setup", "flow", "uploader") if name in chosen}
    if "run" in chosen:
        ids["id"] = chosen["run"]
    if "study" in chosen:
        study = entity(served, "study", chosen["study"], no_study)
        if study.facts["entity"] != "run":
            raise Refused(no_study)
        ids["id"] = sorted(set(study.facts["members"]) & set(ids.get("id", study.facts["members"])))
    if "type" in chosen:
        tasks = {t.id for t in served.entities("task") if t.facts["type"] == chosen["type"]}
        ids["task"] = sorted(tasks & set(ids.get("task", tasks)))
    return ids | {"tag": chosen.get("tag"), "limit": chosen.get("limit", _MOST + 1), "offset": chosen.get("offset", 0)}


def _not_too_many(rows: list, too_many: int, none: int) -> list:
    if not rows:
        raise Refused(none)
    if len(rows) > _MOST:
        raise Refused(too_many, f"more than {_MOST}: ask for pages with limit and offset")
    return rows


@route("GET", "run/list")
@route("GET", "run/list/{path:path}")
def list_runs(call: Call, path: str = "") -> dict | Pieces:
    chosen = _filters(path, {**_OF_RUN, "task_type": "number", "show_errors": "truth"}, _RUN, most=_MOST)
    which = _chosen_runs(call.served, chosen | {"type": chosen["task_type"]} if "task_type" in chosen else chosen, 517)
    rows = _not_too_many(call.served.runs(errors=chosen.get("show_errors", False), **which), 513, 512)
    types = {t.id: t.facts["type"] for t in call.served.entities("task")}
    names = ("run_id", "task_id", "setup_id", "flow_id", "uploader", "task_type_id", "upload_time", "error_message")
    said = (lambda error: error) if call.as_json else text
    values = ((run, task, setup, flow, user, types.get(task, 1), created, said(error or ""))
              for run, task, flow, setup, user, created, error in rows)  # fmt: skip
    return _sent(call, "runs", "run", names, values)


@route("GET", "evaluation/list/{path:path}")
def list_evaluations(call: Call, path: str = "") -> dict | Pieces:
    legal = {**_OF_RUN, "function": "word", "per_fold": "word", "sort_order": "word"}
    chosen = _filters(path, legal, _EVALUATION, most=_MOST)
    per_fold, order, measure = chosen.get("per_fold", "false").lower(), chosen.get("sort_order"), chosen.get("function")
    if measure is None and (per_fold == "true" or not set(chosen) & _NARROW):
        raise Refused(540, "or function/<measure>")
    if per_fold not in ("true", "false"):
        raise Refused(547, per_fold[:60])
    if order not in (None, "asc", "desc"):
        raise Refused(549, order[:60])
    which = _chosen_runs(call.served, chosen, 555)
    rows = call.served.evaluations(measure, per_fold=per_fold == "true", order=order, **which)
    _not_too_many(rows, 543, 542)
    names = ("run_id", "task_id", "setup_id", "flow_id", "flow_name", "data_id", "data_name", "function",
             "upload_time", "uploader", "value", "values" if per_fold == "true" else "array_data")  # fmt: skip
    return _sent(call, "evaluations", "evaluation", names, _evaluations(call, rows))


def _evaluations(call: Call, rows: list[tuple]) -> Iterator[tuple]:
    served, said = call.served, (lambda word: word) if call.as_json else text  # each name once, not in every row
    flows = {f.id: said(full_name(f)) for f in served.entities("flow", ids={row[2] for row in rows})}
    tasks = {t.id: t.facts["data"] for t in served.entities("task", ids={row[1] for row in rows})}
    data = {d.id: said(d.facts["name"]) for d in served.entities("data", ids=set(tasks.values()))}
    for run, task, flow, setup, user, created, measure, value, more in rows:
        of = tasks.get(task)
        if flow in flows and of in data:  # else it was deleted a moment ago
            yield (run, task, setup, flow, flows[flow], of, data[of], measure, created, user, value,
                   more if more is None else json.dumps(more) if isinstance(more, list) else said(more))  # fmt: skip


def _sent(call: Call, root: str, name: str, columns: tuple[str, ...], rows: Iterable[tuple]) -> Pieces:
    """A list of rows whose columns become elements; None leaves one out. Words in XML are escaped already."""
    if call.as_json:
        whole = {root: {name: [dict(zip(columns, row, strict=True)) for row in rows]}}
        return Pieces([as_json(whole)], "application/json")
    return Pieces(_as_xml(root, name, columns, rows), "text/xml")


def _as_xml(root: str, name: str, columns: tuple[str, ...], rows: Iterable[tuple]) -> Iterator[str]:
    """The same XML as `documents.as_xml` would write, by one template: a page of 10,000 rows takes a moment."""
    templates: dict[tuple, str] = {}
    yield f'<oml:{root} xmlns:oml="{NAMESPACE}">\n'
    pieces = []
    for row in rows:
        present = tuple([value is not None for value in row])
        if present not in templates:
            inner = "".join(f"<oml:{c}>%s</oml:{c}>" for c, here in zip(columns, present, strict=True) if here)
            templates[present] = f"<oml:{name}>{inner}</oml:{name}>\n"
        pieces.append(templates[present] % tuple([v for v in row if v is not None]))
        if len(pieces) == 500:
            yield "".join(pieces)
            pieces = []
    yield "".join(pieces) + f"</oml:{root}>\n"
