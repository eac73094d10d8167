"""How fast `metamed serve` lists evaluations, beside the client's own way of writing the same XML, row by row.

`python -m benchmarks.serving [--runs 100000]` fills a store with runs, then asks the server for pages of 10,000 and has
`xmltodict.unparse`, which is what openml's objects write themselves with, produce the same rows from the client's own
`OpenMLEvaluation`. Both in one process, as process CPU time, medians of five; the server's figure is the whole answer:
the query, the XML, its bytes, compression. Results go to benchmarks/results/serving.md.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PAGE = 10_000
RESULT = Path(__file__).parent / "results" / "serving.md"


def fill(store, runs: int) -> None:
    """A store with so many runs, of 200 flows on 50 tasks, each with four measures on the whole and on ten folds."""
    from metamed.store.served import GLOBAL, Score, Served

    served = Served(store)
    with served.writing():
        data = [served.add("data", 1, {"name": f"dataset_{i}", "version": 1}, f"d{i} 1") for i in range(50)]
        tasks = [served.add("task", 1, {"type": 1, "data": d, "target": "y", "inputs": {}}, f"t{d}") for d in data]
        flows = [served.add("flow", 1, {"name": f"metamed.classification.net_{i}", "version": 1}, f"f{i} 1")
                 for i in range(200)]  # fmt: skip
        setups = [served.add("setup", 1, {"flow": f, "settings": []}, f"s{f}") for f in flows]
        for i in range(runs):
            value = (i * 2654435761 % 2**32) / 2**32
            places = [GLOBAL, *((0, fold, 0) for fold in range(10))]
            scores = [Score(m, *p, value) for m in ("predictive_accuracy", "kappa", "f_measure") for p in places]
            served.add_run(tasks[i % 50], flows[i % 200], setups[i % 200], 1, f"run {i}", None, {}, scores)


def answer(app, path: str) -> bytes:
    """The body of the server's answer to a GET, as it would go over the wire."""
    sent: list[bytes] = []

    async def receive():
        return {"type": "http.disconnect"} if sent else {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        if message["type"] == "http.response.start" and message["status"] != 200:
            raise RuntimeError(f"{path}: answered {message['status']}")
        sent.append(message.get("body", b""))

    headers = [(b"host", b"localhost"), (b"accept-encoding", b"gzip")]
    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "scheme": "http",
             "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
             "headers": headers, "server": ("localhost", 8000), "client": ("localhost", 1)}  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return b"".join(sent)


def row_by_row(evaluations: list) -> str:
    """The same rows as XML with what the client writes its own objects with."""
    import xmltodict

    fields = ("run_id", "task_id", "setup_id", "flow_id", "flow_name", "data_id", "data_name", "function",
              "upload_time", "uploader", "value")  # fmt: skip
    rows = [xmltodict.unparse({"oml:evaluation": {f"oml:{f}": getattr(e, f) for f in fields}}, full_document=False)
            for e in evaluations]  # fmt: skip
    return '<oml:evaluations xmlns:oml="http://openml.org/openml">' + "".join(rows) + "</oml:evaluations>"


def parsed(xml: str) -> list:
    """Rows of an answer as openml's own objects."""
    import xmltodict
    from openml.evaluations.evaluation import OpenMLEvaluation

    rows = xmltodict.parse(xml, force_list=("oml:evaluation",))["oml:evaluations"]["oml:evaluation"]
    names = ("run_id", "task_id", "setup_id", "flow_id", "flow_name", "data_id", "data_name", "function", "upload_time")
    return [OpenMLEvaluation(*(r[f"oml:{n}"] for n in names), uploader=r["oml:uploader"], uploader_name="",
                             value=r["oml:value"], values=None) for r in rows]  # fmt: skip


def cost(work: Callable[[], object], times: int = 5) -> float:
    """Process CPU seconds of some work, all threads, the median of several times."""
    found = []
    for _ in range(times):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return statistics.median(found)


def measure(runs: int) -> list[tuple[str, float, float]]:
    """(page, the server's seconds, the client's way's seconds) of the first, a middle and the last page."""
    from metamed.exchange.server import make_application
    from metamed.store import Store

    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store.db")
        fill(store, runs)
        app, found = make_application(store), []
        for offset in (0, runs // 2 // PAGE * PAGE, max(runs - PAGE, 0)):
            path = f"/api/v1/xml/evaluation/list/function/predictive_accuracy/limit/{PAGE}/offset/{offset}"
            evaluations = parsed(gzip.decompress(answer(app, path)).decode())
            if [vars(e) for e in parsed(row_by_row(evaluations))] != [vars(e) for e in evaluations]:
                raise RuntimeError("both ways have to write the same rows")
            ours, theirs = cost(lambda p=path: answer(app, p)), cost(lambda e=evaluations: row_by_row(e))
            found.append((f"{offset + 1:,} to {offset + len(evaluations):,}", ours, theirs))
        return found


def page(runs: int, found: list[tuple[str, float, float]]) -> str:
    lines = [f"| {name} | {ours:.3f} s | {theirs:.3f} s | {theirs / ours:.1f}× |" for name, ours, theirs in found]
    said = ("Generated by `python -m benchmarks.serving`. A page of 10,000 evaluations: process CPU seconds, medians of"
            " five, one process.\n")  # fmt: skip
    head = "| evaluations | `metamed serve`, from query to compressed answer | client's classes, row by row | ratio |"
    return "\n".join([f"# Serving {runs:,} runs", "", said, head, "|---|---|---|---|", *lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    runs = parser.parse_args().runs
    text = page(runs, measure(runs))
    print(text)
    if runs == 100_000:
        RESULT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
