"""Pages to look at: datasets, tasks with their leaderboards, flows, runs, studies. Nothing can be changed here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from metamed.exchange.server.lookups import TASK_TYPES, full_name
from metamed.splits import KNOWN
from metamed.store.served import Entity, Served

_MENU = (("Datasets", "/d"), ("Tasks", "/t"), ("Flows", "/f"), ("Runs", "/r"), ("Studies", "/s"))
_PAGE = 100  # rows
_LOWER_IS_BETTER = ("error", "time", "cost", "entropy", "memory", "hours", "variance", "bias")
_START = """import openml
openml.config.server = "{base}/api/v1/xml"
openml.config.apikey = "normaluser"  # or the key that `metamed serve --new-key NAME` printed
openml.datasets.list_datasets(output_format="dataframe")"""


class Cell(NamedTuple):
    text: Any
    href: str | None = None


@dataclass
class Section:
    """A table. Without columns, the first cell of a row is its heading. numeric: columns of numbers."""

    title: str
    rows: list[tuple[Cell, ...]]
    columns: tuple[str, ...] = ()
    numeric: tuple[int, ...] = ()
    note: str = ""


@dataclass
class Page:
    title: str
    sections: list[Section] = field(default_factory=list)
    lead: str = ""
    warning: str = ""
    code: str = ""
    pages: tuple[tuple[str, str], ...] = ()
    menu: tuple[tuple[str, str], ...] = _MENU


def page_routes(served: Served) -> list:
    """The routes of all pages, at the addresses that OpenML's objects link to: /d/1, /t/1, /f/1, /r/1, /s/1."""
    from starlette.routing import Route

    lists = {"d": _datasets, "t": _tasks, "f": _flows, "r": _runs, "s": _studies}
    details = {"d": _dataset, "t": _task, "f": _flow, "r": _run, "s": _study}

    def one(letter: str):
        return lambda request: details[letter](served, min(request.path_params["id"], 2**62))

    def several(letter: str):
        return lambda request: _listed(served, lists[letter], letter, request)

    home = Route("/", _endpoint(lambda request: _home(served, str(request.base_url).rstrip("/"))))
    return [home, *(Route(f"/{k}", _endpoint(several(k))) for k in lists),
            *(Route(f"/{k}/{{id:int}}", _endpoint(one(k))) for k in details)]  # fmt: skip


def _endpoint(make: Callable[..., Page | None]) -> Callable:
    async def endpoint(request):
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import HTMLResponse

        page = await run_in_threadpool(make, request)
        status = 404 if page is None else 200
        page = page or Page("Not here", lead="There is nothing of that number on this server.")
        policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return HTMLResponse(_template().render(page=page), status, headers=policy)

    return endpoint


@cache
def _template():
    from jinja2 import Environment

    source = files("metamed").joinpath("data", "served.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True).from_string(source)


def _home(served: Served, base: str) -> Page:
    counts = served.counts()
    rows = [(Cell(name, href), Cell(counts.get(kind, 0))) for (name, href), kind in
            zip(_MENU, ("data", "task", "flow", "run", "study"), strict=True)]  # fmt: skip
    latest = _runs(served, [r[0] for r in served.runs(limit=10, newest=True)])
    return Page("An OpenML server", [Section("What is here", rows, ("", "number"), (1,)),
                                     Section("Latest runs", latest.rows, latest.columns, latest.numeric)],
                lead="Any OpenML client can use it:", code=_START.format(base=base))  # fmt: skip


def _listed(served: Served, make: Callable[[Served, list[int]], Section], letter: str, request) -> Page:
    """One page of a list, the newest entries first."""
    kind, name = {"d": ("data", "Datasets"), "t": ("task", "Tasks"), "f": ("flow", "Flows"), "r": ("run", "Runs"),
                  "s": ("study", "Studies")}[letter]  # fmt: skip
    word = request.query_params.get("page", "1")
    number = int(word) if word.isdecimal() and 0 < len(word) < 10 else 1
    number, total = max(number, 1), served.counts().get(kind, 0)
    ids = served.newest(kind, _PAGE, (number - 1) * _PAGE)
    section = make(served, ids)
    pages = tuple((word, f"/{letter}?page={n}") for word, n, there in (
        ("« newer", number - 1, number > 1), ("older »", number + 1, number * _PAGE < total)) if there)  # fmt: skip
    return Page(name, [section], lead=f"{total} in all", pages=pages)


# ---- lists


def _datasets(served: Served, ids: Iterable[int]) -> Section:
    rows = []
    for d in reversed(served.entities("data", ids=ids)):
        q = d.facts["qualities"]
        sizes = [Cell(f"{int(q.get(n, 0)):,}") for n in ("NumberOfInstances", "NumberOfFeatures", "NumberOfClasses")]
        name = Cell(f"{d.facts['name']} ({d.facts['version']})", f"/d/{d.id}")
        rows.append((Cell(d.id), name, *sizes, Cell(d.facts["status"])))
    return Section("", rows, ("id", "dataset", "rows", "features", "classes", "status"), (0, 2, 3, 4))


def _tasks(served: Served, ids: Iterable[int]) -> Section:
    tasks = served.entities("task", ids=ids)
    data = {d.id: d for d in served.entities("data", ids={t.facts["data"] for t in tasks})}
    counts, rows = served.n_runs("task"), []
    for t in reversed(tasks):
        d = data[t.facts["data"]]
        rows.append((Cell(t.id), Cell(f"{TASK_TYPES[t.facts['type']]} of {t.facts['target'] or 'all'}", f"/t/{t.id}"),
                     Cell(d.facts["name"], f"/d/{d.id}"), Cell(_procedure(t).name), Cell(counts.get(t.id, 0))))
    return Section("", rows, ("id", "task", "dataset", "procedure", "runs"), (0, 4))


def _flows(served: Served, ids: Iterable[int]) -> Section:
    counts = served.n_runs("flow")
    rows = [(Cell(f.id), Cell(f.facts["name"], f"/f/{f.id}"), Cell(f.facts["external_version"]),
             Cell(counts.get(f.id, 0))) for f in reversed(served.entities("flow", ids=ids))]  # fmt: skip
    return Section("", rows, ("id", "flow", "version", "runs"), (0, 3))


def _runs(served: Served, ids: Iterable[int]) -> Section:
    found = served.runs(id=list(ids), errors=True)
    flows = {f.id: f for f in served.entities("flow", ids={r[2] for r in found})}
    names, users = _names_of_tasks(served, {r[1] for r in found}), served.users()
    rows = [(Cell(run, f"/r/{run}"), Cell(flows[flow].facts["name"], f"/f/{flow}"), Cell(names[task], f"/t/{task}"),
             Cell(users.get(user, "")), Cell(_when(created)), Cell(error or "ok"))
            for run, task, flow, _, user, created, error in reversed(found)]  # fmt: skip
    return Section("", rows, ("run", "flow", "task", "by", "uploaded (UTC)", "state"), (0,))


def _studies(served: Served, ids: Iterable[int]) -> Section:
    rows = [(Cell(s.id), Cell(s.facts["name"], f"/s/{s.id}"), Cell(s.facts["alias"] or ""),
             Cell(f"{len(s.facts['members'])} {s.facts['entity']}s"), Cell(s.facts["status"]))
            for s in reversed(served.entities("study", ids=ids))]  # fmt: skip
    return Section("", rows, ("id", "study", "alias", "members", "status"), (0,))


def _names_of_tasks(served: Served, ids: Iterable[int]) -> dict[int, str]:
    tasks = served.entities("task", ids=ids)
    data = {d.id: d.facts["name"] for d in served.entities("data", ids={t.facts["data"] for t in tasks})}
    return {t.id: f"{data[t.facts['data']]}, {_procedure(t).name}" for t in tasks}


def _procedure(task: Entity):
    return KNOWN[int(task.facts["inputs"]["estimation_procedure"])]


# ---- single entities


def _dataset(served: Served, id: int) -> Page | None:
    data = served.get("data", id)
    if data is None:
        return None
    facts, fields = data.facts, data.facts["fields"]
    about = [(n, fields[n]) for n in ("creator", "licence", "citation", "original_data_url", "paper_url",
                                      "default_target_attribute", "ignore_attribute") if fields.get(n)]  # fmt: skip
    about += [("uploaded", _when(data.created)), ("status", facts["status"]), ("MD5", facts["md5"])]
    file = next((n, name) for n, part, name in served.files("data", id) if part == "dataset")
    features = [(Cell(i), Cell(f["name"]), Cell(f["type"]), Cell(_few(f["values"] or ())), Cell(f["missing"]))
                for i, f in enumerate(facts["features"][:_PAGE])]  # fmt: skip
    more = f"{len(facts['features']) - _PAGE} more" if len(facts["features"]) > _PAGE else ""
    tasks = _tasks(served, [t.id for t in served.entities("task") if t.facts["data"] == id])
    tasks.title = "Tasks"
    return Page(f"{facts['name']} (version {facts['version']})", [
        tasks, Section("About", [*_pairs(about), (Cell("file"), Cell(file[1], f"/data/download/{file[0]}/{file[1]}"))]),
        Section("Features", features, ("", "name", "type", "values", "missing"), (0, 4), more),
        Section("Qualities", _pairs((n, f"{v:.6g}") for n, v in facts["qualities"].items()))],
        lead=fields["description"][:2000])  # fmt: skip


def _task(served: Served, id: int) -> Page | None:
    task = served.get("task", id)
    if task is None:
        return None
    data, inputs = served.get("data", task.facts["data"]), task.facts["inputs"]
    measure = inputs.get("evaluation_measures") or ("root_mean_squared_error" if task.facts["type"] == 2 else
                                                    "predictive_accuracy")  # fmt: skip
    order = "asc" if any(word in measure for word in _LOWER_IS_BETTER) else "desc"
    found = served.evaluations(measure, order=order, limit=_PAGE, task=[id])
    flows = {f.id: f.facts["name"] for f in served.entities("flow", ids={r[2] for r in found})}
    settings = {s.id: _few((f"{name}={value}" for _, name, value in s.facts["settings"]), 4)
                for s in served.entities("setup", ids={r[3] for r in found})}  # fmt: skip
    users = served.users()
    board = [(Cell(place), Cell(f"{value:.4f}" if value is not None else ""), Cell(flows[flow], f"/f/{flow}"),
              Cell(settings[setup]), Cell(run, f"/r/{run}"), Cell(users.get(user, "")), Cell(_when(created)))
             for place, (run, _, flow, setup, user, created, _, value, _) in enumerate(found, 1)]  # fmt: skip
    about = [("target", task.facts["target"] or ""), ("procedure", _procedure(task).name), ("measure", measure)]
    return Page(f"Task {id}: {data.facts['name']}", [
        Section("Leaderboard", board, ("", measure, "flow", "settings", "run", "by", "uploaded (UTC)"), (0, 1, 4)),
        Section("About", [(Cell("dataset"), Cell(data.facts["name"], f"/d/{data.id}")), *_pairs(about),
                          (Cell("splits"), Cell("split file", f"/api_splits/get/{id}/Task_{id}_splits.arff"))])],
        lead=TASK_TYPES[task.facts["type"]])  # fmt: skip


def _flow(served: Served, id: int) -> Page | None:
    flow = served.get("flow", id)
    if flow is None:
        return None
    facts = flow.facts
    parameters = [(Cell(p["name"]), Cell(p.get("default_value") or ""), Cell((p.get("description") or "")[:300]))
                  for p in facts["parameters"]]  # fmt: skip
    below = {f.id: f for f in served.entities("flow", ids=[c for _, c in facts["components"]])}
    components = [(Cell(name), Cell(full_name(below[c]), f"/f/{c}")) for name, c in facts["components"]]
    runs = _runs(served, [r[0] for r in served.runs(flow=[id], errors=True, limit=_PAGE, newest=True)])
    runs.title = "Latest runs"
    about = [("version here", facts["version"]), ("external version", facts["external_version"]),
             *((n, facts["fields"][n]) for n in ("language", "dependencies", "licence") if facts["fields"].get(n))]
    sections = [runs, Section("About", _pairs(about)),
                Section("Parameters", parameters, ("name", "default", "description"))]  # fmt: skip
    return Page(facts["name"], sections + [Section("Components", components)] * bool(components),
                lead=facts["fields"].get("description", "")[:2000])  # fmt: skip


def _run(served: Served, id: int) -> Page | None:
    run = served.run(id)
    if run is None:
        return None
    flow, setup = served.get("flow", run.flow), served.get("setup", run.setup)
    settings = [(Cell(name), Cell(value)) for _, name, value in setup.facts["settings"]]
    scores = served.scores(id)
    whole = [(Cell(s.measure), Cell(f"{s.value:.6g}")) for s in scores if s.repeat < 0 and s.value is not None]
    folds = [(Cell(s.measure), Cell(s.repeat), Cell(s.fold), Cell(f"{s.value:.6g}")) for s in scores
             if s.repeat >= 0 and s.value is not None]  # fmt: skip
    kept = [(Cell(part), Cell(name, f"/data/download/{n}/{name}")) for n, part, name in served.files("run", id)]
    about = [(Cell("flow"), Cell(full_name(flow), f"/f/{flow.id}")),
             (Cell("task"), Cell(_names_of_tasks(served, [run.task])[run.task], f"/t/{run.task}")),
             *_pairs([("by", served.users().get(run.uploader, "")), ("uploaded (UTC)", _when(run.created)),
                      ("tags", _few(tuple(served.tags("run", id))))])]  # fmt: skip
    per_fold = Section("Scores per fold", folds[:1000], ("measure", "repeat", "fold", "value"), (1, 2, 3))
    return Page(f"Run {id}", [Section("", about), Section("Scores", whole), Section("Settings", settings), per_fold,
                              Section("Files", kept)], warning=run.error or run.facts["warning"] or "")  # fmt: skip


def _study(served: Served, id: int) -> Page | None:
    study = served.get("study", id)
    if study is None:
        return None
    make = _runs if study.facts["entity"] == "run" else _tasks
    members = make(served, study.facts["members"][:1000])
    return Page(study.facts["name"], [members], lead=study.facts["description"] or "")


def _when(created: str) -> str:
    return created.replace("T", " ")


def _pairs(pairs: Iterable[tuple[str, Any]]) -> list[tuple[Cell, Cell]]:
    return [(Cell(name), Cell(_few(value) if isinstance(value, list | tuple) else value)) for name, value in pairs]


def _few(values: Iterable[str], most: int = 12) -> str:
    values = list(values)
    return ", ".join(map(str, values[:most])) + (f" … ({len(values)})" if len(values) > most else "")
