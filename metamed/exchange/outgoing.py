"""What would leave this machine: the runs of a store that OpenML can hold, with all that they rest on, and the rest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from metamed.errors import NotApplicable, UnknownName
from metamed.exchange.entities import (
    Flow,
    dataset_document,
    make_flow,
    settings_of,
    setup_from,
    study_document,
    task_document,
)
from metamed.exchange.measuring import Scores
from metamed.exchange.metatables import MetaTable
from metamed.exchange.runs import (
    RECORD,
    environment_of,
    overlap,
    predictions_arff,
    record_json,
    run_document,
    server_measures,
    trace_arff,
)
from metamed.exchange.tables import Publishable, Table, make_table
from metamed.experiments import Suite
from metamed.measures import MEASURES
from metamed.records import Run, Setup, Source, Task, content_id
from metamed.store import Store
from metamed.store.labels import labels_file, read_labels
from metamed.store.limits import latin
from metamed.store.traces import FILE as TRACE
from metamed.store.traces import read_trace

JACCARD = "jaccard"  # a measure that servers keep and do not compute
Columns = Mapping[str, Mapping[str, list[str]]]  # digest -> name of a column -> a word for each sample


@dataclass(frozen=True, eq=False)
class Parcel:
    """A run with its setup, flow, table and files."""

    run: Run
    setup: Setup
    flow: Flow
    table: Table
    sources: tuple[Source, ...]
    predictions: Path
    tried: tuple[tuple[Setup, float, bool], ...] = ()

    @cached_property
    def files(self) -> dict[str, tuple[str, bytes]]:
        """Part of the upload -> file name and content; the description is added when the server's numbers are known."""
        found = {"predictions": ("predictions.arff", predictions_arff(self.run, self.table, self.predictions).encode()),
                 "record": (RECORD, record_json(self.run, self.setup, self.sources).encode())}  # fmt: skip
        trace = trace_arff(self.tried) if self.tried else None
        return found | ({"trace": ("trace.arff", trace.encode())} if trace else {})

    def measures(self, known: Iterable[str]) -> Scores:
        """By OpenML's names, those that a server knows; of masks also their overlap on the pixels that are rows."""
        found = server_measures(self.run, len(self.table.classes), known)
        if self.table.task.kind != "segmentation" or JACCARD not in known:
            return found
        return found | ({JACCARD: self._overlap} if self._overlap else {})

    @cached_property
    def _overlap(self) -> tuple[float, ...]:
        return overlap(self.table, self.predictions)


@dataclass(frozen=True, eq=False)
class Plan:
    """parcels: what can be published, in the order of the store. offline: why not -> the runs that stay for it."""

    parcels: tuple[Parcel, ...]
    metatables: tuple[MetaTable, ...]
    offline: Mapping[str, list[Run]]
    suite: Suite | None = None

    @cached_property
    def tables(self) -> dict[str, Table]:
        """By the id of their task."""
        return {p.run.task: p.table for p in self.parcels}

    @cached_property
    def flows(self) -> dict[str, Flow]:
        return {p.flow.key: p.flow for p in self.parcels}

    def documents(self) -> Iterator[tuple[str, bytes]]:
        """Every byte that would be sent, as (file name, content); numbers that only a server gives are 0."""
        datasets: list[Publishable] = [*self.tables.values(), *self.metatables]
        for table in datasets:
            folder = f"dataset/{table.name}-{table.key[:8]}"
            yield f"{folder}/description.xml", dataset_document(table).encode()
            yield f"{folder}/dataset.arff", table.arff.encode()
        for id, table in self.tables.items():
            yield f"task/{id[:12]}/description.xml", task_document(table, 0).encode()
        for flow in self.flows.values():
            yield f"flow/{flow.name}-{flow.key[:8]}/description.xml", flow.document.encode()
        known = [JACCARD, *(m.openml for m in MEASURES.values() if m.openml)]
        for parcel in self.parcels:
            folder = f"run/{parcel.run.id[:12]}"
            text = run_document(parcel.run, parcel.setup, parcel.measures(known), 0, 0)
            yield f"{folder}/description.xml", text.encode()
            for name, content in parcel.files.values():
                yield f"{folder}/{name}", content
        if self.suite:
            yield from ((f"study/{of}.xml", study_document(*words, [0], of=of).encode())
                        for of, words in study_words(self.suite).items())  # fmt: skip

    def describe(self) -> list[str]:
        """In lines: what would leave this machine, what would not, and what cannot be published."""
        sizes = {name: len(content) for name, content in self.documents()}
        lines = [f"{len(self.parcels)} runs on {len(self.tables)} tasks with {len(self.flows)} flows, "
                 f"{sum(sizes.values()) / 1e6:.1f} MB in {len(sizes)} documents:"]  # fmt: skip
        for table in self.tables.values():
            columns = ", ".join((*table.ignored, *table.inputs, table.target))
            lines.append(f"  dataset {table.name}: {len(table.rows)} rows of {columns}; classes "
                         f"{', '.join(table.classes[:8])}{' ...' if len(table.classes) > 8 else ''}; with its digest, "
                         "card and sizes" + (f"; {len(table.beyond)} training rows find no place in the server's "
                         "procedure" if len(table.beyond) else ""))  # fmt: skip
        lines += [f"  dataset {t.name}: {len(t.values)} numbers" for t in self.metatables]
        lines += [f"  flow {flow.name}: {len(flow.parameters)} parameters" for flow in self.flows.values()]
        found: dict[str, set[str]] = {}
        for name, word in (item for p in self.parcels for item in environment_of(p.run).items()):
            found.setdefault(name, set()).add(word)
        words = [f"{name} {' / '.join(sorted(of)) if len(of) < 4 else '...'}" for name, of in sorted(found.items())]
        lines += [f"  run: settings, scores, predictions by row, seed, seconds, environment ({', '.join(words)})"]
        more = sorted({name for t in self.tables.values() for name in t.more})
        lines.append(f"also, as asked for: {', '.join(more)} of every image" if more else
                     "no pixel values, paths, file names, patient ids or headers are among it")  # fmt: skip
        return lines + [f"stays offline: {len(runs)} runs: {why}" for why, runs in self.offline.items()]

    def write(self, folder: Path) -> int:
        """Write every document into a folder, to be read before anything is sent; how many."""
        count = 0
        for count, (name, content) in enumerate(self.documents(), 1):  # noqa: B007
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return count


def study_words(suite: Suite) -> dict[str, tuple[str, str, str]]:
    """Alias, name and description of a suite's tasks and of its runs."""
    about = f"{len(suite.datasets)} datasets, {len(suite.setups)} setups, {len(suite.seeds)} seeds; made by metamed"
    name = latin(suite.name, 200)
    return {"task": (_alias(suite.name, ""), f"metamed {name}", about),
            "run": (_alias(suite.name, ".runs"), f"metamed {name}, runs", about)}  # fmt: skip


def _alias(name: str, end: str) -> str:
    """At most 32 of A-Z a-z 0-9 _ . -, and still one alias a name."""
    alias = "metamed." + re.sub(r"[^A-Za-z0-9_.-]", "_", name) + end
    return alias if len(alias) <= 32 and name in alias else f"metamed.{content_id(name)[:16]}{end}"


def make_plan(store: Store, suite: Suite | None = None, columns: Columns | None = None) -> Plan:
    """Translate a store's runs, or those of a suite. columns: what `--with-images` adds to the tables of a dataset."""
    return _Planner(store, columns or {}).plan(suite)


@dataclass
class _Planner:
    store: Store
    columns: Columns
    tables: dict[str, Table | NotApplicable] = field(default_factory=dict)

    def plan(self, suite: Suite | None) -> Plan:
        parcels, offline = [], {}
        tasks, setups, self._sources = ({r.id: r for r in self.store.records(t)} for t in ("task", "setup", "source"))
        chosen = _Choice(suite) if suite else None
        for run in self.store.runs():
            try:
                if run.task not in tasks or run.setup not in setups:
                    raise NotApplicable("its task or its setup is not in this store")
                if not chosen or chosen(run, tasks[run.task], setups[run.setup]):
                    parcels.append(self._parcel(run, tasks[run.task], setups[run.setup]))
            except NotApplicable as why:
                offline.setdefault(str(why), []).append(run)
        values, facts = self.store.measured(), {p.table.facts.digest: p.table.facts for p in parcels}
        metatables = tuple(MetaTable(f, values[digest]) for digest, f in facts.items() if values.get(digest))
        return Plan(tuple(parcels), metatables, offline, suite)

    def _parcel(self, run: Run, task: Task, setup: Setup) -> Parcel:
        if run.error:
            raise NotApplicable("a failed run has no predictions, and servers hide it")
        table = self._table(run.task, task)
        flow = make_flow(setup, run.versions, run.environment.get("metamed", "0"))
        if setup_from(flow.name, settings_of(setup)).sources != setup.sources:
            raise NotApplicable("its sources have names that cannot be told apart")
        sources = tuple(s for s in self._sources.values() if s.name in setup.sources and s.sha256 in run.weights)
        try:
            predictions = self.store.artifact(run, "predictions.npz")
        except UnknownName:
            raise NotApplicable("its predictions are not in this store (it was made elsewhere)") from None
        return Parcel(run, setup, flow, table, sources, predictions, self._tried(run))

    def _tried(self, run: Run) -> tuple[tuple[Setup, float, bool], ...]:
        """The search that a run came of."""
        try:
            return tuple(read_trace(self.store.artifact(run, TRACE)))
        except UnknownName:
            return ()

    def _table(self, id: str, task: Task) -> Table:
        """The table of a task, made once; what stands against it is remembered too. id: the task's, dear to compute."""
        if id not in self.tables:
            try:
                facts = self.store.dataset(task.digest)
                labels = read_labels(self.store.artifact(task.digest, labels_file(task.kind)))
                self.tables[id] = make_table(task, facts, labels, self.columns.get(task.digest))
            except UnknownName:
                why = "the labels of its dataset are not in this store (run something on it, or pass it to Store.add)"
                self.tables[id] = NotApplicable(why)
            except NotApplicable as why:
                self.tables[id] = why
        if isinstance(self.tables[id], NotApplicable):
            raise self.tables[id]
        return self.tables[id]


class _Choice:
    """Does a run belong to a suite? Setups are compared with their defaults left out, as runs are stored."""

    def __init__(self, suite: Suite):
        self.suite, self.setups = suite, {_canonical(setup) for setup in suite.setups}

    def __call__(self, run: Run, task: Task, setup: Setup) -> bool:
        s = self.suite
        return (task.dataset in s.datasets and task.size in s.sizes and run.seed in s.seeds
                and _canonical(setup) in self.setups and s.procedure in (None, task.procedure))  # fmt: skip


def _canonical(setup: Setup) -> Setup:
    try:
        return setup_from(make_flow(setup, (), "0").name, settings_of(setup))
    except NotApplicable:
        return setup

