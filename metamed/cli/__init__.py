"""The command line: parses, calls one function of the library, prints. It knows nothing about images or learning."""

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from typer import Exit, Option, Typer

from metamed.cli import exchanging
from metamed.cli import options as o
from metamed.cli.options import Common, command
from metamed.errors import MetamedError, UnknownName

app = Typer(name="metamed", no_args_is_help=True, pretty_exceptions_enable=False)
bench = Typer(no_args_is_help=True, help="Run a suite of experiments, or see how far it is.")
store = Typer(no_args_is_help=True, help="Bring evidence into the store, or out of it.")
app.add_typer(bench, name="bench")
app.add_typer(store, name="store")



def _version(asked: bool) -> None:
    if asked:
        from metamed import __version__

        print(f"metamed {__version__}")
        raise Exit


@app.callback()
def root(
    version: Annotated[bool, Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
):
    """Which network, transfer source and multiple-instance variant to try on a medical image dataset, from evidence."""


# ---- a dataset: what it is, and what to try on it


@command(app)
def recommend(
    common: Common, dataset: o.DATASET, top: o.TOP = 5, kind: o.KIND = None, budget: o.BUDGET = None,
    device: o.DEVICE = None, licence: o.LICENCE = None, as_unknown: o.AS_UNKNOWN = False,
    max_samples: o.MAX_SAMPLES = 5000, images: o.IMAGES = None, labels: o.LABELS = None, group: o.GROUP = None,
    as_json: o.JSON = False, report: o.REPORT = None, explain: o.EXPLAIN = False,
):  # fmt: skip
    """Rank the setups most likely to work on a dataset, with score, interval, cost and reasons."""
    from metamed.recommend import recommend as answer
    from metamed.report import render, write

    data = _read(dataset, images, labels, group, kind)
    r = answer(data, common.evidence(), top=top, budget=budget, device=device, licence=licence, as_unknown=as_unknown,
               max_samples=max_samples or None, seed=common.seed, explain=explain)  # fmt: skip
    if report:
        write(r, report)
    print(render(r, "json" if as_json else "text", given=dataset))


@command(app)
def inspect(
    common: Common, dataset: o.DATASET, images: o.IMAGES = None, labels: o.LABELS = None, group: o.GROUP = None,
    kind: o.KIND = None,
):  # fmt: skip
    """Show what is read from a dataset and what is assumed about it: keys, axes, labels, groups, leaks."""
    from metamed.readers import inspect as look

    print(_columns(look(_read(dataset, images, labels, group, kind))))


@command(app)
def features(
    common: Common, dataset: o.DATASET, group: o.FEATURES = None, images: o.IMAGES = None, labels: o.LABELS = None,
    kind: o.KIND = None, deep: o.DEEP = False, device: o.DEVICE = None, max_samples: o.MAX_SAMPLES = 5000,
    as_json: o.JSON = False, csv: o.CSV = False,
):  # fmt: skip
    """Compute the meta-features of a dataset."""
    from metamed.metafeatures import extract
    from metamed.metafeatures.sampling import remark

    data, embed = _read(dataset, images, labels, None, kind), None
    if deep or group == "deep":
        from metamed.sources import embedder

        embed = embedder(store=common.evidence(), device=device or "auto")
    values = extract(data, group, max_samples=max_samples or None, seed=common.seed, deep=deep, embed=embed)
    if unseen := remark(data, max_samples or None):
        common.say(unseen)
    if csv:
        values = [("name", "value"), *((name, repr(value)) for name, value in values.items())]
        print("\n".join(map(",".join, values)))
    else:
        print(_json(values) if as_json else _columns([(name, f"{value:.6g}") for name, value in values.items()]))


# ---- experiments


@command(app)
def run(
    common: Common, dataset: o.DATASET, rank: o.RANK = None, method: o.METHOD = None, set: o.SET = None,
    source: o.SOURCE = None, recipe: o.RECIPE = None, as_source: o.AS_SOURCE = None, device: o.DEVICE = None,
    images: o.IMAGES = None, labels: o.LABELS = None, group: o.GROUP = None, kind: o.KIND = None,
    download: o.DOWNLOAD = False,
):  # fmt: skip
    """Train and evaluate one setup on a dataset, and keep the run in the store."""
    from metamed.experiments import make_task, run_setup
    from metamed.sources import as_source as keep

    if download:
        common.need_network("--download")
    data, mine = _read(dataset, images, labels, group, kind), common.own()
    setup = _setup(data, common, rank, method, set or [], source or [], recipe)
    _bring_sources([setup], common, mine)
    done = run_setup(setup, make_task(data), data, mine, seed=common.seed, device=device or "auto", download=download,
                     keep_weights=as_source is not None, progress=common.progress)  # fmt: skip
    _show_run(done, setup)
    if as_source:
        common.say(f"kept as source {keep(done, as_source, mine).name}")


@command(bench, "run")
def bench_run(common: Common, suite: str, data: o.DATA, device: o.DEVICE = None, workers: o.WORKERS = 1):
    """Run what is missing of a suite; a run that is stored is skipped."""
    from metamed.experiments import run_suite

    def tell(done, job) -> None:
        score = done.error or f"{job.task.measure} {done.score(job.task.measure):.3f}"
        common.say(f"{job.task.dataset}  {job.setup.label}  seed {done.seed}: {score}")

    chosen, find, mine = _suite(suite, data, common)
    with _executor(workers) as executor:
        done = run_suite(chosen, mine, find, device=device or "auto", executor=executor, workers=workers, report=tell)
    print(f"{suite}: {len(done)} new runs, {sum(r.error is not None for r in done)} of them failed")


@command(bench, "status")
def bench_status(common: Common, suite: str, data: o.DATA):
    """Say how many runs of a suite are stored and how many are missing."""
    from metamed.experiments import pending

    chosen, find, mine = _suite(suite, data, common)
    total = len(chosen.datasets) * len(chosen.setups) * len(chosen.seeds) * len(chosen.sizes)
    missing = sum(1 for _ in pending(chosen, mine, find))
    print(f"{suite}: {total - missing} of {total} runs stored, {missing} missing")


# ---- evidence


@command(app)
def exam(
    common: Common, table: o.TABLE = None, kind: o.KIND = None, facts: o.FACTS = None, datasets: o.DATASETS = None,
    families: o.FAMILIES = None, distances: o.DISTANCES = None, scores: o.SCORES = None, items: o.ITEMS = None,
    by: o.BY = None, train: o.TRAIN = None, as_json: o.JSON = False,
):  # fmt: skip
    """Examine the recommender beside its baselines: one family of datasets left out at a time."""
    from metamed.cli.examining import examine, not_shipped, read, stored
    from metamed.exams import as_json as plain
    from metamed.exams import as_markdown

    if train and not table:
        raise MetamedError("--train needs --table: what is learned from one table is judged on another")
    given = {"datasets": datasets, "families": families, "distances": [p for p in (distances, scores) if p],
             "items": _words(items), "by": _words(by)}  # fmt: skip
    asked = read(table, facts, given) if table else stored(common, kind)
    asked += not_shipped(facts, given, common) if facts and not (table or kind) else []
    results = examine(asked, read(train, facts, given) if train else [], common)
    print(_json(plain(results, seed=common.seed)) if as_json else as_markdown(results, seed=common.seed))


@command(app, "list")
def list_(common: Common, what: str, as_json: o.JSON = False):
    """List methods, metafeatures, readers, measures, datasets, sources or runs."""
    from metamed.cli.inventory import rows

    found = rows(what, common.evidence)
    print(_json(found) if as_json else _columns([row.values() for row in found]))


@command(store, "import")
def store_import(common: Common, table: Path):
    """Import a table of results (CSV, one figure a row) as evidence."""
    print(f"{table.name}: {common.own().import_table(table)} new figures")


@command(store, "merge")
def store_merge(common: Common, other: Path):
    """Take over everything that another store holds."""
    print(f"{other.name}: {common.own().merge(other)} new runs and figures")


@command(store, "export")
def store_export(common: Common, folder: Path):
    """Write your store as reviewable text tables into a folder."""
    common.own().export(folder)
    print(f"written to {folder}")


command(app)(exchanging.serve)
command(app)(exchanging.publish)
command(app)(exchanging.retrieve)


@command(app)
def doctor(common: Common, as_json: o.JSON = False):
    """Show versions, device, store and extras: what to paste into a bug report. A key is never printed."""
    from metamed.cli.inventory import examine

    facts = examine(common.evidence())
    print(_json(facts) if as_json else _columns(list(facts.items())))


# ---- what the commands share


def _read(path: str, images=None, labels=None, group=None, kind=None):
    from metamed.readers import read

    return read(path, images=images, labels=labels, group=group, kind=kind)


def _json(value) -> str:
    from metamed.report import finite

    return json.dumps(finite(value), indent=1, allow_nan=False, ensure_ascii=False)


def _columns(rows: list) -> str:
    """Rows of values as aligned columns of text."""
    rows = [[str(cell) for cell in row] for row in rows]
    width = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True)).rstrip() for row in rows)


def _words(text: str | None) -> list[str] | None:
    return text.split(",") if text else None


def _setup(data, common: Common, rank: int | None, method: str | None, settings: list, sources: list, recipe):
    """The setup that --rank or --method names. Exactly one of them is needed."""
    from metamed.recommend import recommend as answer
    from metamed.records import Setup

    if (rank is None) == (method is None):
        raise MetamedError("say what to run: --rank N, as `metamed recommend` ranks, or --method NAME")
    if method:
        return Setup(method, dict(map(_setting, settings)), recipe, tuple(sources))
    ranking = answer(data, common.evidence(), top=rank, seed=common.seed).ranking
    if len(ranking) < rank:
        raise MetamedError(f"--rank {rank}: only {len(ranking)} setups are ranked")
    return ranking[rank - 1].setup


def _setting(text: str) -> tuple[str, Any]:
    """`name=value` as a pair; the value is a number, true, false or null where it reads as one, else a word."""
    name, equals, value = text.partition("=")
    if not equals:
        raise MetamedError(f"--set {text}: expected name=value, e.g. --set epochs=5")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _bring_sources(setups: Iterable, common: Common, mine) -> None:
    """Shipped sources that the setups name become known to the store that their runs will lie in."""
    names = {name for setup in setups for name in setup.sources}
    evidence = common.evidence() if names else None
    mine.add_all([evidence.source(name) for name in sorted(names)])


def _show_run(done, setup) -> None:
    if done.error:
        raise MetamedError(f"{setup.label} failed: {done.error} (kept in the store as run {done.id[:12]})")
    print(f"run {done.id[:12]}  {setup.label}  {done.seconds:.0f} s")
    print(_columns([(name, f"{done.score(name):.4f}") for name in done.evaluations]))


def _suite(name: str, folder: Path, common: Common) -> tuple:
    """(suite, how its datasets are found, the store for its runs).

    Suites are those of `benchmarks.suites` in the working folder, else of the entry points `metamed.suites`. A dataset
    is the file or folder below `folder` called like it; `FAMILIES` beside the suites says what belongs together.
    """
    suites, families = _suites()
    if name not in suites:
        raise UnknownName("suite", name, suites)

    def find(dataset: str):
        found = [p for p in sorted(folder.rglob("*")) if dataset in (p.name, p.stem)]
        if not found:
            raise UnknownName(f"dataset in {folder}", dataset, {p.stem for p in folder.rglob("*")})
        data = _read(str(found[0]))
        return replace(data, card=replace(data.card, family=families.get(dataset, data.card.family)))

    mine = common.own()
    _bring_sources(suites[name].setups, common, mine)
    return suites[name], find, mine


def _suites() -> tuple[dict, dict]:
    from importlib import import_module
    from importlib.metadata import entry_points

    sys.path.insert(0, os.getcwd())
    try:
        module = import_module("benchmarks.suites")
    except ModuleNotFoundError:
        return {entry.name: entry.load() for entry in entry_points(group="metamed.suites")}, {}
    return module.SUITES, getattr(module, "FAMILIES", {})


def _executor(workers: int):
    from concurrent.futures import ProcessPoolExecutor
    from contextlib import nullcontext
    from multiprocessing import get_context

    return ProcessPoolExecutor(workers, get_context("spawn")) if workers > 1 else nullcontext()


# ---- the entry point


def main() -> None:
    """The command `metamed`: runs it and leaves with the exit code of house rules (docs/cli.md)."""
    sys.exit(call(sys.argv[1:]))


def call(arguments: list[str]) -> int:
    """Run one command line; the exit code. Errors are one line on stderr, a traceback only if asked for."""
    try:
        code = app(arguments, prog_name="metamed", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:  # the reader has seen enough, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if os.environ.get("METAMED_DEBUG") or "--verbose" in arguments:
            import traceback

            traceback.print_exc()
        return _fail(error)


def _fail(error: Exception) -> int:
    """Say in one line what went wrong, and return the exit code that belongs to it."""
    if isinstance(error, MetamedError):
        text, code = str(error), error.exit_code
    elif hasattr(error, "format_message"):  # typer's: a wrong option, a missing argument
        text, code = error.format_message(), error.exit_code
    elif isinstance(error, OSError) and error.filename:
        text, code = f"{error.filename}: {error.strerror}", 2
    elif type(error).__name__ == "Abort":
        return 130
    else:
        text, code = f"{type(error).__name__}: {error} (a bug; METAMED_DEBUG=1 shows where)", 1
    if text:  # empty where help was printed instead
        print("error: " + " ".join(text.split()), file=sys.stderr)
    return code
