"""Reading back what was published: every difference between what was sent and what a server shows, in one line each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from metamed.errors import PublishError
from metamed.exchange.client import Document, Server
from metamed.exchange.entities import Flow, settings_of
from metamed.exchange.measuring import Scores, measured, read_predictions, undecided
from metamed.exchange.outgoing import JACCARD, Parcel
from metamed.exchange.runs import KEY_TAG, server_measures
from metamed.exchange.tables import Publishable, Table
from metamed.records import Run
from metamed.splits import PROCEDURES

TOLERANCE = 0.01  # between scores of the same predictions: ties differ by class, and servers weigh classes by size
ROUNDING = 0.05  # between a run's scores and those of its stored probabilities, which have three digits and so ties


def as_list(value) -> list:
    """What may stand in a document once, several times or not at all."""
    return value if isinstance(value, list) else [] if value is None else [value]


def dataset(server: Server, number: int, table: Publishable) -> list[str]:
    shown = server.get(f"data/{number}") or {}
    wanted = {"name": table.name, "md5_checksum": table.md5, "default_target_attribute": table.target}
    return _differences(f"dataset {number}", wanted, {name: shown.get(name) for name in wanted})


def flow(server: Server, number: int, flow: Flow) -> list[str]:
    shown = server.get(f"flow/{number}") or {}
    defaults = {p["name"]: p.get("default_value") for p in as_list(shown.get("parameter"))}
    wanted = {"name": flow.name, "external_version": flow.version}
    found = _differences(f"flow {number}", wanted, {name: shown.get(name) for name in wanted})
    return found + _differences(f"flow {number}", {k: v[1] for k, v in flow.parameters.items()}, defaults)


def task_inputs(server: Server, number: int) -> tuple[int, int, str | None]:
    """Dataset, number of the estimation procedure, and measure of a task."""
    inputs = {i["@name"]: i for i in as_list((server.get(f"task/{number}") or {}).get("input"))}
    measures = (inputs.get("evaluation_measures") or {}).get("evaluation_measures") or {}
    measure = as_list(measures.get("evaluation_measure"))
    procedure = int(inputs["estimation_procedure"]["estimation_procedure"]["id"])
    return int(inputs["source_data"]["data_set"]["data_set_id"]), procedure, measure[0] if measure else None


def folds(server: Server, number: int, table: Table) -> list[str]:
    """A server whose folds are not those of the task would compare what cannot be compared: nothing is sent to it."""
    theirs = test_rows(server, number)
    name = next(name for name, n in PROCEDURES.items() if n == table.procedure)
    same = theirs == table.test_rows
    return [] if same else [f"task {number}: the server's folds ({name}) test on other rows; no run was sent to it"]


def test_rows(server: Server, number: int) -> list[list[int]]:
    """Ascending rows that each fold of a task tests on, repeats after one another."""
    import arff

    inputs = {i["@name"]: i for i in as_list((server.get(f"task/{number}") or {}).get("input"))}
    address = inputs["estimation_procedure"]["estimation_procedure"]["data_splits_url"]
    try:
        split = arff.loads(server.page(address).decode())
    except (arff.ArffException, UnicodeDecodeError) as error:
        raise PublishError(f"{server.base}: folds of task {number} that cannot be read ({error})") from None
    columns = {name.lower(): i for i, (name, _) in enumerate(split["attributes"])}
    found: dict[tuple[int, int], list[int]] = {}
    for row in split["data"]:
        if row[columns["type"]] == "TEST":
            fold = int(row[columns["repeat"]]), int(row[columns["fold"]])
            found.setdefault(fold, []).append(int(row[columns["rowid"]]))
    return [sorted(found[fold]) for fold in sorted(found)]


def run(server: Server, number: int, parcel: Parcel, task: int, flow: int, measures: Iterable[str]) -> list[str]:
    shown, what = server.get(f"run/{number}") or {}, f"run {number}"
    wanted = {"task_id": str(task), "flow_id": str(flow)}
    found = _differences(what, wanted, {name: shown.get(name) for name in wanted})
    settings = {p["name"]: p.get("value") for p in as_list(shown.get("parameter_setting"))}
    found += _differences(what, settings_of(parcel.setup), settings)
    predictions, n_classes = parcel.files["predictions"][1], len(parcel.table.classes)
    found += contradictions(what, parcel.run, predictions, n_classes, shown, measures)
    found += scores(what, {n: v for n, v in parcel.measures(measures).items() if n == JACCARD}, shown)
    files = {"predictions": parcel.files["predictions"], "record": parcel.files["record"]}
    return found + [f"{what}: file {name} came back otherwise" for part, (name, content) in files.items()
                    if run_file(server, number, part, shown) != content]  # fmt: skip


def contradictions(what: str, run: Run, predictions: bytes, n_classes: int | None, shown: Document,
                   known: Iterable[str] = ()) -> list[str]:  # fmt: skip
    """Where a run's own scores, those of its predictions and the server's evaluation of these do not agree."""
    folds = read_predictions(predictions.decode("utf-8", "replace"))
    again, leeway = measured(folds), undecided(folds)
    theirs, theirs_leeway = (server_measures(replace(run, evaluations=of), n_classes, known) for of in (again, leeway))
    found = scores(what, theirs, shown, theirs_leeway)
    for name, slack in leeway.items():
        pairs = zip(run.evaluations.get(name, ()), again.get(name, ()), slack, strict=False)
        for fold, (said, is_, by) in enumerate(pairs):
            if abs(said - is_) > max(ROUNDING, by):
                found.append(f"{what}: {name} of fold {fold} is {said:.6g} by the run and {is_:.6g} by its predictions")
    return found


def scores(what: str, wanted: Scores, shown: Document, leeway: Scores | None = None) -> list[str]:
    """Only what the server shows by fold: it evaluates on its own, some of it later. leeway: by how much rounding may
    have changed the scores of a fold."""
    found = []
    for entry in as_list((shown.get("output_data") or {}).get("evaluation")):
        name, fold = entry.get("name"), entry.get("@fold")
        if name not in wanted or fold is None or entry.get("value") is None or int(fold) >= len(wanted[name]):
            continue
        ours, theirs = wanted[name][int(fold)], float(entry["value"])
        by = (leeway or {}).get(name, ())
        if not abs(ours - theirs) <= max(TOLERANCE, by[int(fold)] if by else 0):
            found.append(f"{what}: {name} of fold {fold} is {theirs:.6g} there and {ours:.6g} here")
    return found


def run_file(server: Server, number: int, part: str, shown: Document | None = None) -> bytes | None:
    """A file of a run by the name of its part or of the file; None if it has none of that name."""
    shown = shown or server.get(f"run/{number}") or {}
    for file in as_list((shown.get("output_data") or {}).get("file")):
        if part in (file.get("name"), str(file.get("url", "")).rsplit("/", 1)[-1]):
            return server.file(int(file["file_id"]), str(file.get("url", "x")).rsplit("/", 1)[-1] or part)
    return None


def is_untagged(server: Server, number: int, parcel: Parcel) -> bool:
    """Is this the run of the parcel, without any tag that tells whose it is?"""
    shown = server.get(f"run/{number}") or {}
    if any(str(tag).startswith(KEY_TAG) for tag in as_list(shown.get("tag"))):
        return False
    return run_file(server, number, "predictions", shown) == parcel.files["predictions"][1]


def members(study: Document, of: str) -> set[int]:
    """Numbers of the tasks or runs of a study."""
    return {int(n) for n in as_list((study.get(f"{of}s") or {}).get(f"{of}_id"))}


def _differences(what: str, wanted: dict, shown: dict) -> list[str]:
    return [f"{what}: {name} is {shown.get(name)!r} there and {value!r} here"
            for name, value in wanted.items() if shown.get(name) != value]  # fmt: skip
