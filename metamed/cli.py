"""The command line: parses, calls one function of the library, prints. It knows nothing about images or learning."""

import inspect as signatures
import json
import os
import sys
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from metamed.errors import MetamedError, UnknownName

app = typer.Typer(name="metamed", no_args_is_help=True, pretty_exceptions_enable=False)
bench = typer.Typer(no_args_is_help=True, help="Run a suite of experiments, or see how far it is.")
store = typer.Typer(no_args_is_help=True, help="Bring evidence into the store, or out of it.")
app.add_typer(bench, name="bench")
app.add_typer(store, name="store")


# ---- options


def _option(kind: type, name: str, help: str, **more) -> Any:
    return Annotated[kind, typer.Option(name, help=help, **more)]


def _method_names(incomplete: str) -> list[str]:
    from metamed.methods import described

    return [name for name in described() if name.startswith(incomplete)]


DATASET = _option(str, "--dataset", "File or folder with the images.", show_default=False)
KIND = _option(str | None, "--kind", "classification | segmentation | mil | similarity, where more than one fits.")
TOP = _option(int, "--top", "How many setups to rank.", min=1)
BUDGET = _option(str | None, "--budget", "Longest training that is acceptable, e.g. 30m or 2h.")
DEVICE = _option(str | None, "--device", "cpu or cuda.", envvar="METAMED_DEVICE")
LICENCE = _option(str | None, "--licence", "'commercial' leaves out sources that forbid it.")
AS_UNKNOWN = _option(bool, "--as-unknown", "Forget everything known about this dataset and its family.")
MAX_SAMPLES = _option(int, "--max-samples", "Most images that meta-features are computed from.", min=10)
IMAGES = _option(str | None, "--images", "Key of the images in the file.")
LABELS = _option(str | None, "--labels", "Key of the labels in the file.")
GROUP = _option(str | None, "--group", "Key of the patients in the file.")
JSON = _option(bool, "--json", "One JSON document on stdout and nothing else.")
CSV = _option(bool, "--csv", "Comma-separated name,value rows.")
REPORT = _option(Path | None, "--report", "Also write a report: .html, .md, .json or .txt.")
EXPLAIN = _option(bool, "--explain", "Also say what moved each candidate up or down.")
FEATURES = _option(str | None, "--group", "Only this group of meta-features.")
RANK = _option(int | None, "--rank", "Run the setup that `recommend` ranks there.", min=1)
METHOD = _option(str | None, "--method", "Method to run.", autocompletion=_method_names)
SET = _option(list[str] | None, "--set", "A hyperparameter as name=value; may be repeated.")
SOURCE = _option(list[str] | None, "--source", "Weights to start from; two or more make an ensemble.")
RECIPE = _option(str | None, "--recipe", "How the source is used, e.g. finetune.")
AS_SOURCE = _option(str | None, "--as-source", "Keep the weights under this name: others can start from them.")
DOWNLOAD = _option(bool, "--download", "Fetch weights that are not on this machine.")
DATA = _option(Path, "--data", "Folder in which the suite's datasets lie.", envvar="METAMED_DATA", show_default=False)
WORKERS = _option(int, "--workers", "Processes that run at the same time.", min=1)
STORE = _option(Path | None, "--store", "Store to use instead of your own.", envvar="METAMED_STORE")
SEED = _option(int, "--seed", "Seed of everything random.")
OFFLINE = _option(bool, "--offline", "Make any use of the network an error.", envvar="METAMED_OFFLINE")
QUIET = _option(bool, "--quiet", "No progress and no warnings on stderr.")
VERBOSE = _option(bool, "--verbose", "Show where an error came from.")


@dataclass(frozen=True)
class Common:
    """The options that every command takes."""

    store: Path | None = None
    seed: int = 0
    offline: bool = False
    quiet: bool = False
    verbose: bool = False

    def evidence(self):
        """What to answer from: the shipped evidence united with the user's store. An absent --store is an error."""
        from metamed.store import Store

        if self.store is not None and not self.store.exists():
            raise MetamedError(f"{self.store}: no such store")
        return Store.united(None if self.store is None else Store(self.store))

    def own(self):
        """Where results are kept: --store, else the user's store; made if it is not there."""
        from metamed.store import Store

        return Store.default() if self.store is None else Store(self.store)

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr)

    def progress(self, epoch: int, epochs: int, loss: float) -> None:
        if not self.quiet and sys.stderr.isatty():
            print(f"\repoch {epoch}/{epochs}, validation loss {loss:.4f}", end="", file=sys.stderr, flush=True)


_COMMON = {"store": STORE, "seed": SEED, "offline": OFFLINE, "quiet": QUIET, "verbose": VERBOSE}


def command(group: typer.Typer = app, name: str | None = None):
    """Register a function of a `Common` and its own options as a command that also takes the common options."""

    def register(function):
        own = list(signatures.signature(function).parameters.values())[1:]
        more = [signatures.Parameter(n, signatures.Parameter.KEYWORD_ONLY, default=getattr(Common, n), annotation=a)
                for n, a in _COMMON.items()]  # fmt: skip

        @wraps(function)
        def run(**given):
            common = Common(**{n: given.pop(n) for n in _COMMON})
            _settle(common)
            return function(common, **given)

        run.__signature__ = signatures.Signature([p.replace(kind=p.KEYWORD_ONLY) for p in own] + more)
        run.__annotations__ = {p.name: p.annotation for p in own + more}
        group.command(name or function.__name__)(run)
        return function

    return register


def _settle(common: Common) -> None:
    if common.offline:
        os.environ["METAMED_OFFLINE"] = "1"
    if common.quiet:
        import warnings

        warnings.simplefilter("ignore")


def _version(asked: bool) -> None:
    if asked:
        from metamed import __version__

        print(f"metamed {__version__}")
        raise typer.Exit


VERSION = _option(bool, "--version", "Print the version.", callback=_version, is_eager=True)


@app.callback()
def options(version: VERSION = False):
    """Which network, transfer source and multiple-instance variant to try on a medical image dataset, from evidence."""


# ---- a dataset: what it is, and what to try on it


@command()
def recommend(
    common: Common, dataset: DATASET, top: TOP = 5, kind: KIND = None, budget: BUDGET = None, device: DEVICE = None,
    licence: LICENCE = None, as_unknown: AS_UNKNOWN = False, max_samples: MAX_SAMPLES = 5000, images: IMAGES = None,
    labels: LABELS = None, group: GROUP = None, as_json: JSON = False, report: REPORT = None, explain: EXPLAIN = False,
):  # fmt: skip
    """Rank the setups most likely to work on a dataset, with score, interval, cost and reasons."""
    from metamed.recommend import recommend as answer
    from metamed.report import render, write

    data = _read(dataset, images=images, labels=labels, group=group)
    r = answer(data, common.evidence(), kind=kind, top=top, budget=budget, device=device, licence=licence,
               explain=explain, as_unknown=as_unknown, max_samples=max_samples, seed=common.seed)  # fmt: skip
    if report:
        write(r, report)
    print(render(r, "json" if as_json else "text", given=dataset))


@command()
def inspect(common: Common, dataset: DATASET, images: IMAGES = None, labels: LABELS = None, group: GROUP = None):
    """Show what is read from a dataset and what is assumed about it: keys, axes, labels, groups, leaks."""
    from metamed.readers import inspect as look

    print(look(dataset, images=images, labels=labels, group=group))


@command()
def features(
    common: Common, dataset: DATASET, group: FEATURES = None, max_samples: MAX_SAMPLES = 5000, as_json: JSON = False,
    csv: CSV = False,
):  # fmt: skip
    """Compute the meta-features of a dataset."""
    from metamed.metafeatures import extract

    values = extract(_read(dataset), [group] if group else None, max_samples=max_samples, seed=common.seed)
    if as_json:
        print(_json(values))
    elif csv:
        print("\n".join(["name,value", *(f"{name},{value!r}" for name, value in values.items())]))
    else:
        print(_columns([(name, f"{value:.6g}") for name, value in values.items()]))


# ---- experiments


@command()
def run(
    common: Common, dataset: DATASET, rank: RANK = None, method: METHOD = None, set: SET = None, source: SOURCE = None,
    recipe: RECIPE = None, as_source: AS_SOURCE = None, device: DEVICE = None, download: DOWNLOAD = False,
):  # fmt: skip
    """Train and evaluate one setup on a dataset, and keep the run in the store."""
    from metamed.experiments import as_source as keep
    from metamed.experiments import make_task, run_setup

    data, mine = _read(dataset), common.own()
    setup = _setup(data, common, rank, method, set or [], source or [], recipe)
    _bring_sources(setup, common, mine)
    done = run_setup(setup, make_task(data), data, mine, seed=common.seed, device=device or "auto", download=download,
                     keep_weights=as_source is not None, progress=common.progress)  # fmt: skip
    _show_run(done, setup)
    if as_source:
        common.say(f"kept as source {keep(done, as_source, setup, data, mine).name}")


@command(bench, "run")
def bench_run(common: Common, suite: str, data: DATA, device: DEVICE = None, workers: WORKERS = 1):
    """Run what is missing of a suite; a run that is stored is skipped."""
    from metamed.experiments import run_suite

    def tell(done, job) -> None:
        common.say(f"{job.task.dataset}  {job.setup.label}  {done.error or done.evaluations}")

    mine, chosen = common.own(), _suite(suite)
    with _executor(workers) as executor:
        done = run_suite(chosen, mine, _finder(data), device=device or "auto", executor=executor, workers=workers,
                         report=tell)  # fmt: skip
    print(f"{suite}: {len(done)} new runs, {sum(r.error is not None for r in done)} of them failed")


@command(bench, "status")
def bench_status(common: Common, suite: str, data: DATA):
    """Say how many runs of a suite are stored and how many are missing."""
    from metamed.experiments import pending

    chosen = _suite(suite)
    total = len(chosen.datasets) * len(chosen.setups) * len(chosen.seeds) * len(chosen.sizes)
    missing = sum(1 for _ in pending(chosen, common.own(), _finder(data)))
    print(f"{suite}: {total - missing} of {total} runs stored, {missing} missing")


# ---- evidence


@command(name="list")
def list_(common: Common, what: str, as_json: JSON = False):
    """List methods, metafeatures, readers, measures, datasets, sources or runs."""
    from metamed.inventory import rows

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


@command()
def doctor(common: Common, as_json: JSON = False):
    """Show versions, device, store and extras: what to paste into a bug report. A key is never printed."""
    from metamed.inventory import examine

    facts = examine(common.evidence())
    print(_json(facts) if as_json else _columns(list(facts.items())))


# ---- what the commands share


def _read(path: str, **keys: str | None):
    from metamed.readers import read

    return read(path, **{name: key for name, key in keys.items() if key is not None})


def _json(value) -> str:
    from metamed.report import finite

    return json.dumps(finite(value), indent=1, allow_nan=False, ensure_ascii=False)


def _columns(rows: list) -> str:
    """Rows of values as aligned columns of text."""
    rows = [[str(cell) for cell in row] for row in rows]
    width = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True)).rstrip() for row in rows)


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


def _bring_sources(setup, common: Common, mine) -> None:
    """Shipped sources that the setup names become known to the store that the run will lie in."""
    evidence = common.evidence() if setup.sources else None
    for name in setup.sources:
        mine.add(evidence.source(name))


def _show_run(done, setup) -> None:
    if done.error:
        raise MetamedError(f"{setup.label} failed: {done.error} (kept in the store as run {done.id[:12]})")
    print(f"run {done.id[:12]}  {setup.label}  {done.seconds:.0f} s")
    print(_columns([(name, f"{done.score(name):.4f}") for name in done.evaluations if "." not in name]))


def _suite(name: str):
    """A suite of `benchmarks.suites` in the working folder, else of the entry points `metamed.suites`."""
    from importlib import import_module
    from importlib.metadata import entry_points

    sys.path.insert(0, os.getcwd())
    try:
        suites = import_module("benchmarks.suites").SUITES
    except ModuleNotFoundError:
        suites = {entry.name: entry.load() for entry in entry_points(group="metamed.suites")}
    if name not in suites:
        raise UnknownName("suite", name, suites)
    return suites[name]


def _finder(folder: Path):
    """Finds a suite's dataset: the file or folder below `folder` that is called like it."""

    def find(name: str):
        found = [p for p in sorted(folder.rglob("*")) if name in (p.name, p.stem)]
        if not found:
            raise UnknownName(f"dataset in {folder}", name, [p.stem for p in folder.rglob("*")])
        return _read(str(found[0]))

    return find


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
