"""Sending a plan to a server: looked up before it is sent, sent once, looked up again if no answer came.

Servers keep every run that they are sent, also the same one twice. So the number of whatever lies there is kept in the
store's outbox as soon as it is known, and a publisher that was killed anywhere just begins again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from metamed.errors import PublishError
from metamed.exchange import checking
from metamed.exchange.client import Lost, Refusal, Server
from metamed.exchange.entities import CLASSIFICATION, Flow, dataset_document, study_document, task_document
from metamed.exchange.outgoing import Parcel, Plan, study_words
from metamed.exchange.runs import KEY_TAG, run_document
from metamed.exchange.tables import Publishable, Table
from metamed.store import Store
from metamed.store.outbox import Outbox

ATTEMPTS = 4  # times that something is sent, each after a look-up that did not find it
PAUSE = 1.0  # seconds after a lost answer: the server may still be working
POLL = (1.0, 30.0)  # seconds between looks whether datasets are active: at first, at most

Report = Callable[[str, int, int], None]  # what, done, of how many


@dataclass
class Outcome:
    """numbers: run id -> its number on the server. sent: how many of them are new there.

    waiting: datasets whose runs wait until the server has looked at them. differences: what reading back found to be
    otherwise than it was sent. offline: why not -> how many runs.
    """

    server: str
    numbers: dict[str, int] = field(default_factory=dict)
    sent: int = 0
    waiting: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    offline: dict[str, int] = field(default_factory=dict)


class Publisher:
    """Sends a plan to one server."""

    def __init__(self, store: Store, server: Server, report: Report | None = None):
        self.server, self.outbox = server, Outbox(store, server.base)
        self.report = report or (lambda what, done, total: None)
        self.outcome = Outcome(server.base)
        self._datasets: dict[str, int] = {}
        self._flows: dict[str, int] = {}

    def publish(self, plan: Plan, wait: float) -> Outcome:
        self.outcome.offline = {why: len(runs) for why, runs in plan.offline.items()}
        pending = [p for p in plan.parcels if self._known(p) is None]
        needed = {p.run.task: p.table for p in pending}
        self._each("datasets", [*needed.values(), *(plan.metatables if pending else ())], self._dataset)
        self._each("flows", {p.flow.key: p.flow for p in pending}.values(), self._flow)
        self._runs(needed, pending, time.monotonic() + wait)
        if plan.suite and self.outcome.numbers:
            self._studies(plan)
        return self.outcome

    def _known(self, parcel: Parcel) -> int | None:
        number = self.outbox.number(parcel.run.id)
        if number is not None:
            self.outcome.numbers[parcel.run.id] = number
        return number

    def _each(self, what: str, things: Iterable, send: Callable) -> None:
        things = list(things)
        for done, thing in enumerate(things):
            self.report(what, done, len(things))
            send(thing)
        if things:
            self.report(what, len(things), len(things))

    def _once(self, key: str, look_up: Callable[[], int | None], send: Callable[[], int]) -> tuple[int, bool]:
        """(number, was it sent now?) of something that is to be on the server once.

        The number that the outbox knows, else the one found on the server, else the answer to one sending.
        """
        if (number := self.outbox.number(key)) is not None:
            return number, False
        for attempt in range(ATTEMPTS):
            number = look_up()
            if sending := number is None:
                self.outbox.begin(key)
                try:
                    number = send()
                except Lost as lost:
                    last = lost
                    time.sleep(PAUSE * (attempt + 1))
                    continue
            self.outbox.keep(key, number)
            return number, sending
        if (number := look_up()) is None:
            raise PublishError(f"{last}, {ATTEMPTS} times, and nothing there afterwards. Publish again later") from None
        self.outbox.keep(key, number)
        return number, False

    # datasets

    def _dataset(self, table: Publishable) -> int:
        number = self.outbox.number(table.key)
        if number is not None and self._md5(number) != table.md5:
            self.outbox.forget(table.key)  # another server answers at this address now, or it was deleted there
        content = {"description": ("description.xml", dataset_document(table).encode()),
                   "dataset": ("dataset.arff", table.arff.encode())}  # fmt: skip
        number, sent = self._once(table.key, lambda: self._find_dataset(table),
                                  lambda: int(self.server.post("data/", content)["id"]))  # fmt: skip
        if sent:
            self.outcome.differences += checking.dataset(self.server, number, table)
        self._datasets[table.key] = number
        return number

    def _md5(self, number: int) -> str | None:
        try:
            return (self.server.get(f"data/{number}") or {}).get("md5_checksum")
        except Refusal:
            return None

    def _find_dataset(self, table: Publishable) -> int | None:
        versions = self.server.rows(f"data/list/data_name/{table.name}/status/all", "dataset")
        numbers = sorted(int(version["did"]) for version in versions)
        return next((n for n in numbers if self._md5(n) == table.md5), None)

    def _active(self, number: int) -> bool:
        return (self.server.get(f"data/{number}") or {}).get("status") == "active"

    # flows

    def _flow(self, flow: Flow) -> int:
        if self.outbox.number(flow.key) not in (None, found := self._find_flow(flow)):
            self.outbox.forget(flow.key)
        number, sent = self._once(flow.key, lambda: found or self._find_flow(flow), lambda: self._send_flow(flow))
        self.outcome.differences += checking.flow(self.server, number, flow)
        self._flows[flow.key] = number
        return number

    def _find_flow(self, flow: Flow) -> int | None:
        found = self.server.ask("flow/exists", name=flow.name, external_version=flow.version)
        return int(found["id"]) if found["exists"] == "true" else None

    def _send_flow(self, flow: Flow) -> int:
        return int(self.server.post("flow/", {"description": ("description.xml", flow.document.encode())})["id"])

    # tasks and runs

    def _runs(self, tables: dict[str, Table], pending: list[Parcel], until: float) -> None:
        """Runs of each task as soon as its dataset is active; the others do not wait for it."""
        measures = {row["name"] if isinstance(row, dict) else row
                    for row in self.server.rows("evaluationmeasure/list", "measures", "measure")}  # fmt: skip
        waiting, poll, done = dict(tables), POLL[0], 0
        while waiting:
            ready = {id: t for id, t in waiting.items() if self._active(self._datasets[t.key])}
            for id, table in ready.items():
                del waiting[id]
                task = self._task(table)
                for parcel in (p for p in pending if p.run.task == id):
                    self.report("runs", done, len(pending))
                    if task is not None:
                        self._run(parcel, task, measures)
                    done += 1
            if ready:
                poll = POLL[0]
            elif time.monotonic() + poll < until:
                self.report(f"waiting for {len(waiting)} datasets to become active", done, len(pending))
                time.sleep(poll)
                poll = min(2 * poll, POLL[1])
            else:
                break
        self.outcome.waiting = sorted({t.name for t in waiting.values()})
        if pending:
            self.report("runs", done, len(pending))

    def _task(self, table: Table) -> int | None:
        """The number of a task; None if the server's folds are not ours, so that no run is sent to it."""
        dataset = self._datasets[table.key]
        if (number := self.outbox.number(table.task.id)) and not self._same_task(number, table, dataset):
            self.outbox.forget(table.task.id)
        number, _ = self._once(table.task.id, lambda: self._find_task(table, dataset),
                               lambda: self._send_task(table, dataset))  # fmt: skip
        wrong = checking.folds(self.server, number, table)
        self.outcome.differences += wrong
        return None if wrong else number

    def _find_task(self, table: Table, dataset: int) -> int | None:
        rows = self.server.rows(f"task/list/type/{CLASSIFICATION}/data_id/{dataset}", "task")
        numbers = sorted(int(row["task_id"]) for row in rows)
        return next((n for n in numbers if self._same_task(n, table, dataset)), None)

    def _same_task(self, number: int, table: Table, dataset: int) -> bool:
        try:
            task = checking.task_inputs(self.server, number)
        except Refusal:
            return False
        return task == (dataset, table.procedure, table.measure)

    def _send_task(self, table: Table, dataset: int) -> int:
        files = {"description": ("description.xml", task_document(table, dataset).encode())}
        try:
            return int(self.server.post("task/", files)["id"])
        except Refusal as refusal:
            numbers = re.findall(r"\d+", str(refusal).partition("[")[2].partition("]")[0])
            if refusal.code != 614 or not numbers:
                raise
            return min(map(int, numbers))

    def _run(self, parcel: Parcel, task: int, measures: set[str]) -> None:
        flow = self._flows[parcel.flow.key]
        text = run_document(parcel.run, parcel.setup, parcel.measures(measures), task, flow)
        files = {"description": ("description.xml", text.encode()), **parcel.files}
        try:
            number, sent = self._once(parcel.run.id, lambda: self._find_run(parcel, task, flow),
                                      lambda: int(self.server.post("run/", files)["run_id"]))  # fmt: skip
        except Refusal as refusal:  # one run that a server does not take must not keep back the others
            self.outcome.differences.append(f"run {parcel.run.id[:12]}: {refusal}")
            return
        self.outcome.numbers[parcel.run.id] = number
        self.outcome.sent += sent
        self.outcome.differences += checking.run(self.server, number, parcel, task, flow, measures)

    def _find_run(self, parcel: Parcel, task: int, flow: int) -> int | None:
        """By its tag; after a sending without answer also by its predictions, since the tag comes after the run."""
        begun = self.outbox.begun(parcel.run.id)
        found = self.server.rows(f"run/list/tag/{KEY_TAG}{parcel.run.id}/show_errors/true", "run")
        if not found and begun:
            rows = self.server.rows(f"run/list/task/{task}/flow/{flow}/show_errors/true", "run")
            found = [row for row in rows if checking.is_untagged(self.server, int(row["run_id"]), parcel)]
        return min((int(row["run_id"]) for row in found), default=None)

    # suites and studies

    def _studies(self, plan: Plan) -> None:
        """The tasks of a suite as a benchmark suite, its runs as a study; what is missing in them is attached."""
        words = study_words(plan.suite)
        tasks = [n for id in plan.tables if (n := self.outbox.number(id)) is not None]
        suite = self._study(words["task"], "task", tasks, None)
        self._study(words["run"], "run", sorted(self.outcome.numbers.values()), suite)

    def _study(self, words: tuple[str, str, str], of: str, members: list[int], suite: int | None) -> int:
        def look_up() -> int | None:
            found = self._study_at(words[0])
            return int(found["id"]) if found else None

        text = study_document(*words, members, of=of, suite=suite)
        files = {"description": ("description.xml", text.encode())}
        self.outbox.forget(words[0])  # an alias can be looked up each time
        number, _ = self._once(words[0], look_up, lambda: int(self.server.post("study/", files)["id"]))
        missing = sorted(set(members) - checking.members(self._study_at(words[0]) or {}, of))
        if missing:
            self.server.post(f"study/{number}/attach", ids=",".join(map(str, missing)))
        return number

    def _study_at(self, alias: str) -> dict | None:
        try:
            return self.server.get(f"study/{alias}")
        except Refusal:  # no such study
            return None
