"""Retrieving: runs of an OpenML server become evidence of a store, whoever made them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from metamed.dataset import Card, Kind, Split
from metamed.errors import MetamedError, NotApplicable, ReadError
from metamed.exchange import checking
from metamed.exchange.checking import as_list
from metamed.exchange.client import Document, Refusal, Server, find_server
from metamed.exchange.entities import CLASSIFICATION, setup_from
from metamed.exchange.measuring import Scores, measured, read_predictions, right
from metamed.exchange.metatables import read_metatable
from metamed.exchange.reading import read_table
from metamed.exchange.runs import RECORD, read_record
from metamed.exchange.tables import DATASET_TAG, TAG
from metamed.measures import MEASURES, PRIMARY
from metamed.records import Run, Setup, Source, Task, content_id
from metamed.splits import PROCEDURES
from metamed.store import Store
from metamed.store.evidence import DatasetFacts
from metamed.store.limits import FLOW_NAME, SETTING, dataset_name, latin, legal_name, setup_string
from metamed.store.outbox import Outbox

PAGE = 10000  # runs a listing is asked for at once
Report = Callable[[str, int, int], None]


@dataclass
class Retrieved:
    """new: runs that the store did not have. known: those that it had. left_out: why not -> how many."""

    server: str
    new: int = 0
    known: int = 0
    left_out: dict[str, int] = field(default_factory=dict)


def retrieve(
    store: Store,
    *,
    server: str | None = None,
    tag: str | None = None,
    suite: str | None = None,
    task: int | None = None,
    report: Report | None = None,
) -> Retrieved:
    """Take over the runs with a tag, of a suite or study (number or alias), or on a task; by default those of metamed.

    server: as `to` of `publish`.
    Runs of metamed come back as they were stored, with their setup, task, dataset and its meta-features. Anybody
    else's become runs of an opaque setup: compared with the others, never run here. Raises PublishError without an
    answer; what came by then stays.
    """
    if sum(given is not None for given in (tag, suite, task)) > 1:
        raise MetamedError("give one of tag, suite and task: each says which runs")
    asked = find_server(server)
    if suite is not None:
        numbers = _suite_runs(asked, suite)
    else:
        numbers = _listed(asked, f"task/{task}" if task is not None else f"tag/{tag or TAG}")
    return _Reader(store, asked, report or (lambda what, done, total: None)).read(numbers)


def _listed(server: Server, which: str) -> Iterator[int]:
    offset = 0
    while rows := server.rows(f"run/list/{which}/limit/{PAGE}/offset/{offset}", "run"):
        yield from (int(row["run_id"]) for row in rows)
        offset += len(rows)


def _suite_runs(server: Server, suite: str) -> Iterator[int]:
    """The runs of a study, or all on the tasks of a benchmark suite."""
    try:
        study = server.get(f"study/{suite}") or {}
    except Refusal:
        raise MetamedError(f"{server.base} has no suite or study '{suite}'") from None
    if study.get("main_entity_type") == "run" or checking.members(study, "run"):
        yield from sorted(checking.members(study, "run"))
    elif tasks := sorted(checking.members(study, "task")):
        yield from _listed(server, f"task/{','.join(map(str, tasks))}")


def dataset_content(server: Server, number: int) -> str:
    """The file of a dataset, byte for byte as it was published."""
    shown = server.get(f"data/{number}") or {}
    name = str(shown.get("url", "")).rsplit("/", 1)[-1] or "dataset.arff"
    return server.file(int(shown["file_id"]), name).decode("utf-8", "replace")


class _Skip(Exception):
    """Why a run is no evidence (yet)."""


class _Reader:
    """Reads one server's runs into a store; tasks, flows and datasets are asked for once."""

    def __init__(self, store: Store, server: Server, report: Report):
        self.store, self.server, self.report = store, server, report
        self.outbox, self._tasks, self._flows = Outbox(store, server.base), {}, {}
        self._measured: set[str] = set()
        self.tables: dict[str, int] = {}  # digest -> number of the dataset that told it

    def read(self, numbers: Iterator[int]) -> Retrieved:
        numbers, known = list(dict.fromkeys(numbers)), self.outbox.runs()
        found = Retrieved(self.server.base, known=len(known.keys() & set(numbers)))
        asked = [n for n in numbers if n not in known]
        for done, number in enumerate(asked):
            self.report("runs", done, len(asked))
            try:
                found.new += self._run(number)
            except (_Skip, ReadError, Refusal) as why:
                found.left_out[str(why)] = found.left_out.get(str(why), 0) + 1
        self.report("runs", len(asked), len(asked))
        found.known += len(asked) - found.new - sum(found.left_out.values())
        return found

    def _run(self, number: int) -> bool:
        """Keep a run with all that it rests on; was it new?"""
        shown = self.server.get(f"run/{number}")
        if shown is None:
            raise _Skip("gone since they were listed")
        facts, task = self._task(int(shown["task_id"]))
        record = checking.run_file(self.server, number, RECORD, shown) or checking.run_file(
            self.server, number, "record", shown)  # fmt: skip
        predictions = checking.run_file(self.server, number, "predictions", shown) or b""
        if record:
            run, setup, sources = self._own(record, predictions, facts, task, shown)
        else:
            run, setup, sources = self._others(number, predictions, facts, task, shown)
        new = not self.store.has(run.id)
        try:
            self.store.add_all([facts, task, setup, *sources, run])
        except ReadError:
            raise
        except MetamedError as error:
            raise _Skip(f"refused by the store: {error}") from None
        self._metafeatures(facts)
        self.outbox.keep(run.id, number)
        return new

    # runs of metamed

    def _own(self, record: bytes, predictions: bytes, facts: DatasetFacts, task: Task,
             shown: Document) -> tuple[Run, Setup, list[Source]]:  # fmt: skip
        """As it was stored; a record that contradicts its predictions or the server is not believed."""
        run, setup, sources = read_record(record.decode("utf-8", "replace"))
        if run.task != task.id or run.setup != setup.id:
            raise _Skip("its record belongs to another task or setup")
        if checking.contradictions("run", run, predictions, facts.n_classes, shown):
            raise _Skip("its record says other scores than its predictions or the server")
        return run, setup, sources

    def _metafeatures(self, facts: DatasetFacts) -> None:
        """Once a dataset, from whoever uploaded it, and only those that the store has not computed itself."""
        if facts.digest in self._measured or facts.digest not in self.tables:
            return
        self._measured.add(facts.digest)
        rows = self.server.rows(f"data/list/tag/{DATASET_TAG}{facts.digest}/status/all", "dataset")
        own_table = f"data/list/data_id/{self.tables[facts.digest]}/status/all"
        owner = {row.get("uploader") for row in self.server.rows(own_table, "dataset")}
        mine = [int(row["did"]) for row in rows if row.get("uploader") in owner]
        for number in sorted(mine, reverse=True)[:1]:
            values = read_metatable(dataset_content(self.server, number))
            own = self.store.measured().get(facts.digest, {})
            self.store.add_metafeatures(facts.digest, {k: v for k, v in values.items() if k not in own})

    # everybody's

    def _task(self, number: int) -> tuple[DatasetFacts, Task]:
        if number not in self._tasks:
            shown = self.server.get(f"task/{number}") or {}
            self._tasks[number] = _ShownTask(self, number, shown)
        return self._tasks[number].records

    def _others(self, number: int, predictions: bytes, facts: DatasetFacts, task: Task,
                shown: Document) -> tuple[Run, Setup, list[Source]]:  # fmt: skip
        """A run of somebody else's flow, or of one of metamed's by another client. Its seed is not known: the number
        that the server gave to it stands in, so that no two are taken for one."""
        evaluations = _evaluations(shown, facts) | _measured(predictions, shown, facts.kind)
        if not evaluations:
            raise _Skip("not evaluated yet")
        setup = self._setup(shown)
        seconds = sum(evaluations.get("openml.usercpu_time_millis", ())) / 1000
        environment = {"origin": self.server.base, "uploader": str(shown.get("uploader_name") or shown.get("uploader"))}
        return Run(task.id, setup.id, number, (), evaluations, seconds, environment), setup, []

    def _setup(self, shown: Document) -> Setup:
        settings = {p["name"]: p.get("value") or "" for p in as_list(shown.get("parameter_setting"))}
        name, version = self._flow(int(shown["flow_id"]))
        try:
            return setup_from(name, settings) if version.startswith("metamed==") else opaque(name, version, settings)
        except NotApplicable:  # a method of metamed that is not installed here
            return opaque(name, version, settings)

    def _flow(self, number: int) -> tuple[str, str]:
        """Name and external version; a run tells the name only with the server's own version behind it."""
        if number not in self._flows:
            shown = self.server.get(f"flow/{number}") or {}
            self._flows[number] = str(shown.get("name") or ""), str(shown.get("external_version") or "")
        return self._flows[number]


def opaque(flow: str, version: str, settings: Mapping[str, str]) -> Setup:
    """A setup whose flow nobody here knows: told apart from others by its name, version and settings.

    Settings too long to be kept stand as their hash.
    """
    flow = "".join(c if c.isalnum() and c.isascii() or c in "_.,():=-" else "_" for c in flow) or "unknown"
    flow = flow if len(flow) < 900 else f"{flow[:880]}.{content_id(flow)[:12]}"
    told = {"version": version[:128], "settings": content_id(dict(settings))[:12]}
    kept = {f"p.{k}"[:100]: v for k, v in sorted(settings.items())}
    whole = Setup(legal_name(flow, FLOW_NAME), {"version": version[:128], **kept})
    names_fit = all(c.isalnum() and c.isascii() or c in "_.,():-" for k in kept for c in k)
    return whole if names_fit and len(setup_string(whole)) <= SETTING else Setup(flow, told)


def _measured(predictions: bytes, shown: Document, kind: Kind) -> Scores:
    """metamed's measures of a run's own predictions, so that they compare; none where it gave no probabilities.

    Measures of masks are none of a few pixels': of these only what the server says is kept.
    """
    try:
        folds = read_predictions(predictions.decode("utf-8", "replace"))
    except ReadError:
        return {}
    if checking.scores("run", {"predictive_accuracy": right(folds)}, shown):
        raise _Skip("its predictions say other scores than the server")
    return {name: values for name, values in measured(folds).items() if kind in MEASURES[name].kinds}


def _evaluations(shown: Document, facts: DatasetFacts) -> Scores:
    """Measures by our names where they are ours, else as `openml.<name>`; a value for each fold, else one for all."""
    names = {m.openml: m.name for m in MEASURES.values()
             if m.openml and facts.kind in m.kinds and (m.name != "auc" or facts.n_classes == 2)}  # fmt: skip
    found: dict[str, dict[tuple[int, int], float]] = {}
    for entry in as_list((shown.get("output_data") or {}).get("evaluation")):
        try:
            value = float(entry["value"])
        except (KeyError, TypeError, ValueError):  # a list by class, or nothing
            continue
        at = int(entry.get("@repeat", -1)), int(entry.get("@fold", -1))
        if math.isfinite(value):
            found.setdefault(names.get(entry["name"], f"openml.{entry['name']}"), {})[at] = value
    by_fold = {name: {k: v for k, v in of.items() if k[1] >= 0} or of for name, of in found.items()}
    return {name: tuple(of[k] for k in sorted(of)) for name, of in by_fold.items()}


def _folds(test_rows: list[list[int]], n: int) -> Iterator[Split]:
    for test in test_rows:
        yield Split(tuple(sorted(set(range(n)) - set(test))), (), tuple(test))


class _ShownTask:
    """A task of a server as records: metamed's own exactly, anybody else's by what the server tells of it."""

    def __init__(self, reader: _Reader, number: int, shown: Document):
        self.reader, self.number, self.shown = reader, number, shown

    @cached_property
    def records(self) -> tuple[DatasetFacts, Task]:
        if int(self.shown.get("task_type_id") or 0) != CLASSIFICATION:
            raise _Skip("their tasks are no classification")
        inputs = {i["@name"]: i for i in as_list(self.shown.get("input"))}
        source = inputs["source_data"]["data_set"]
        dataset = self.reader.server.get(f"data/{source['data_set_id']}") or {}
        if TAG in as_list(dataset.get("tag")):
            own = read_table(dataset_content(self.reader.server, int(dataset["id"])))
            if own:
                self.reader.tables[own.facts.digest] = int(dataset["id"])
                return own.facts, own.task
        return self._foreign(dataset, source.get("target_feature") or "class", inputs)

    def _foreign(self, dataset: Document, target: str, inputs: Mapping) -> tuple[DatasetFacts, Task]:
        name = dataset_name(dataset["name"])
        digest = content_id("openml", name, dataset.get("md5_checksum"))
        sizes = self._qualities(int(dataset["id"]))
        facts = DatasetFacts(digest, name, "classification", Card(license=latin(str(dataset.get("licence") or ""), 64)),
                             n_samples=sizes.get("NumberOfInstances"), n_classes=sizes.get("NumberOfClasses"))
        procedure = inputs["estimation_procedure"]["estimation_procedure"]
        known = {number: word for word, number in PROCEDURES.items()}
        words = known.get(int(procedure["id"])) or latin(str(procedure.get("type") or procedure["id"]), 64)
        measures = {m.openml: m.name for m in MEASURES.values() if m.openml}
        measure = measures.get(checking.task_inputs(self.reader.server, self.number)[2], PRIMARY["classification"])
        folds = tuple(_folds(checking.test_rows(self.reader.server, self.number), sizes.get("NumberOfInstances", 0)))
        return facts, Task(name, digest, "classification", target, None, words, measure, folds)

    def _qualities(self, number: int) -> dict[str, int]:
        try:
            rows = self.reader.server.rows(f"data/qualities/{number}", "quality")
        except Refusal:  # not computed yet
            return {}
        values = {row["name"]: row.get("value") for row in rows}
        return {name: int(json.loads(v)) for name, v in values.items()
                if name in ("NumberOfInstances", "NumberOfClasses") and v}  # fmt: skip
