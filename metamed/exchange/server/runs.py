"""Runs: kept exactly once, evaluated when they come, with every file as it was sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256

from metamed.exchange.server.calls import Call, route
from metamed.exchange.server.checks import legal
from metamed.exchange.server.evaluations import MEASURES, evaluate
from metamed.exchange.server.flows import FILE_NAME, settings_of, setup_identity
from metamed.exchange.server.lookups import (
    TASK_TYPES,
    class_labels,
    entity,
    file_of,
    file_url,
    flow_tree,
    full_name,
    n_splits,
    target_column,
    test_sets,
)
from metamed.exchange.server.refusals import Refused
from metamed.exchange.server.tables import predictions, trace
from metamed.records import content_id
from metamed.store.served import Entity, Score, Served, ServedRun

_KEY_TAG = re.compile(r"metamed\.k\.[0-9a-f]{40}").fullmatch


@route("POST", "run")
def publish_run(call: Call) -> dict:
    """A run with its files. Posting the same run again gives the number that it has: an answer may get lost."""
    fields = call.described("run", 201, 202)
    task = entity(call.served, "task", int(fields.get("task_id", 0)), 204)
    tree = flow_tree(call.served, int(fields["flow_id"]), 205)
    settings, files = settings_of(fields, tree, 213), _run_files(call)
    claims = _claims(fields, task)
    identity = _run_identity(call, fields, task, settings, files)
    if known := call.served.find_run(identity):
        return {"upload_run": {"run_id": known}}
    if "trace" in files:
        trace(files["trace"][1])
    scores, error = _evaluated(call.served, task, files)
    scores, warning = _with_claims(scores, claims, error)
    facts = {name: fields.get(name) for name in ("setup_string", "error_message", "run_details")} | {"warning": warning}
    with call.served.writing():
        if not (id := call.served.find_run(identity)):
            entity(call.served, "task", task.id, 204)  # unless deleted in the meantime
            setup = _keep_setup(call, next(iter(flow_tree(call.served, next(iter(tree)), 205))), settings)
            error = error if error is None else fields.get("error_message") or error
            id = call.served.add_run(task.id, int(fields["flow_id"]), setup, call.user, identity, error, facts, scores)
            for tag in fields.get("tag", []):
                call.served.tag("run", id, tag, call.user)
            for part, (name, content) in files.items():
                call.served.add_file("run", id, part, name, content)
    return {"upload_run": {"run_id": id}}


def _keep_setup(call: Call, flow: int, settings: list) -> int:
    identity = setup_identity(flow, settings)
    known = call.served.find("setup", identity)
    return known or call.served.add("setup", call.user, {"flow": flow, "settings": settings}, identity)


def _run_files(call: Call) -> dict[str, tuple[str, bytes]]:
    files = {"description": ("description.xml", call.description())}
    for part, (name, content) in call.files.items():
        if part == "description":
            continue
        legal(part, "setting", 128, 206, "the name of a part")
        if not FILE_NAME(name):
            raise Refused(206, f"part {part}: file name {name[:60]!r} has no extension, or characters that no name has")
        if not content:
            raise Refused(207, f"part {part}: Filesize is 0 bytes")
        files[part] = (name, content)
    return files


def _run_identity(call: Call, fields: Mapping, task: Entity, settings: list, files: Mapping) -> str:
    """What makes a run one that was posted before: metamed's content key where it has one, else all of its content."""
    key = next((tag for tag in fields.get("tag", []) if _KEY_TAG(tag)), None)
    content = key or [call.user, sorted((part, name, sha256(c).hexdigest()) for part, (name, c) in files.items())]
    return content_id("run", task.id, int(fields["flow_id"]), settings, content)


def _claims(fields: Mapping, task: Entity) -> list[Score]:
    """The scores that a client brings along, each at a place that the task has."""
    repeats, n_folds = n_splits(task)
    found = []
    for e in fields.get("output_data", {}).get("evaluation", []):
        if e["name"] not in MEASURES:
            raise Refused(217, f"{e['name'][:60]!r} (the known ones: evaluationmeasure/list)")
        place = [int(e[f"@{name}"]) if f"@{name}" in e else -1 for name in ("repeat", "fold", "sample")]
        repeat, fold, sample = place
        legal_place = place == [-1, -1, -1] or (0 <= repeat < repeats and (0 <= fold < n_folds or not n_folds
                                                and fold >= 0) and -1 <= sample < 2**31)  # fmt: skip
        if not legal_place or any(f"@{n}" in e and p < 0 for n, p in zip(("repeat", "fold", "sample"), place,
                                                                         strict=True)):  # fmt: skip
            raise Refused(216, f"repeat {repeat}, fold {fold}, sample {sample}: the task has {repeats} repeats "
                               f"of {n_folds} folds")  # fmt: skip
        if "value" in e or "array_data" in e:
            value = float(e["value"].replace("INF", "inf")) if "value" in e else None
            sample = max(sample, 0) if repeat >= 0 else -1
            found.append(Score(e["name"], repeat, fold, sample, value, e.get("array_data")))
    return found


def _evaluated(served: Served, task: Entity, files: Mapping) -> tuple[list[Score], str | None]:
    """(scores, what is wrong) of a run's predictions. What cannot be evaluated is kept, and hidden from lists."""
    if "predictions" not in files:
        return [], "Run does not contain predictions"
    if task.facts["type"] == 5:
        return [], None
    data = entity(served, "data", task.facts["data"], 211)
    classes = class_labels(data, task.facts["target"])
    try:
        given = predictions(files["predictions"][1], classes)
    except Refused as refused:
        return [], refused.detail
    truth = target_column(served, data, task.facts["target"])
    return evaluate(given, truth, test_sets(served, task), len(classes) if classes else None)


def _with_claims(scores: list[Score], claims: list[Score], error: str | None) -> tuple[list[Score], str | None]:
    """(the server's own scores and those that only the client has, where both differ or None)."""
    if error is not None:
        return [], None
    own = {s[:4]: s.value for s in scores}
    differing = [c for c in claims if (mine := own.get(c[:4])) is not None and c.value is not None
                 and not abs(mine - c.value) <= 1e-4 * max(1, abs(mine))]  # fmt: skip
    kept = scores + [c for c in claims if c[:4] not in own and (c.value is None or abs(c.value) < float("inf"))]
    if not differing:
        return kept, None
    c = differing[0]
    return kept, (f"Inconsistent Evaluation score: {c.measure} of repeat {c.repeat}, fold {c.fold} is {c.value:.6g} of "
                  f"the client and {own[c[:4]]:.6g} here ({len(differing)} such)")  # fmt: skip

def run_of(call: Call, id: int, code: int) -> ServedRun:
    """The run of that number; refused with `code` if there is none."""
    run = call.served.run(id)
    if run is None:
        raise Refused(code, f"there is no run {id}")
    return run


@route("GET", "run/{id:int}")
def get_run(call: Call, id: int) -> dict:
    run = run_of(call, id, 236)
    task, setup = entity(call.served, "task", run.task, 204), entity(call.served, "setup", run.setup, 281)
    data, flow = entity(call.served, "data", task.facts["data"], 211), entity(call.served, "flow", run.flow, 205)
    settings = [{"name": name, "value": value, "component": of} for of, name, value in setup.facts["settings"]]
    files = [{"did": -1, "file_id": number, "name": part, "url": file_url(call.base, (number, name))}
             for number, part, name in call.served.files("run", id)]  # fmt: skip
    dataset = {"did": data.id, "name": data.facts["name"],
               "url": file_url(call.base, file_of(call.served, "data", data.id, "dataset"))}  # fmt: skip
    return {"run": {
        "run_id": id, "uploader": run.uploader, "uploader_name": call.served.users().get(run.uploader, ""),
        "task_id": task.id, "task_type": TASK_TYPES[task.facts["type"]],
        "task_evaluation_measure": task.facts["inputs"].get("evaluation_measures"), "flow_id": flow.id,
        "flow_name": full_name(flow), "setup_id": setup.id, "setup_string": run.facts["setup_string"] or "",
        "error": run.error, "warning": run.facts["warning"], "error_message": run.facts["error_message"],
        "run_details": run.facts["run_details"], "parameter_setting": settings,
        "tag": list(call.served.tags("run", id)),
        "input_data": {"dataset": dataset},
        "output_data": {"file": files, "evaluation": [_score(s) for s in call.served.scores(id)]}}}  # fmt: skip


def _score(score: Score) -> dict:
    place = {} if score.repeat < 0 else {"@repeat": score.repeat, "@fold": score.fold}
    value = None if score.value is None else repr(score.value)
    return place | {"name": score.measure, "value": value, "array_data": score.array}


@route("GET", "run/trace/{id:int}")
def get_trace(call: Call, id: int) -> dict:
    run_of(call, id, 571)
    file = file_of(call.served, "run", id, "trace")
    if file is None:
        raise Refused(572, f"run {id} has none")
    path, _ = call.served.file(file[0])
    return {"trace": {"run_id": id, "trace_iteration": trace(path.read_bytes())}}


@route("DELETE", "run/{id:int}")
def delete_run(call: Call, id: int) -> dict:
    with call.served.writing():
        run = run_of(call, id, 392)
        if run.uploader != call.user:
            raise Refused(393, f"it belongs to user {run.uploader}")
        for study in call.served.entities("study"):
            if study.facts["entity"] == "run" and id in study.facts["members"]:
                members = [m for m in study.facts["members"] if m != id]
                call.served.change("study", study.id, study.facts | {"members": members})
        call.served.delete("run", id)
    return {"run_delete": {"id": id}}
