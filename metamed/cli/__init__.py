"""The command line: parses, calls one function of the library, prints. It knows nothing about images or learning."""

import os
import sys
from pathlib import Path
from typing import Annotated

from typer import Exit, Option, Typer

from metamed.cli import crowd, exchanging, instances, running
from metamed.cli import options as o
from metamed.cli.given import columns, json_text, read, words
from metamed.cli.options import Common, command
from metamed.errors import MetamedError

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
    as_json: o.JSON = False, report: o.REPORT = None, explain: o.EXPLAIN = False, label_kind: o.LABEL_KIND = None,
    reference_run: o.REFERENCE_RUN = False,
):  # fmt: skip
    """Rank the setups most likely to work on a dataset, with score, interval, cost and reasons."""
    from metamed.recommend import recommend as answer
    from metamed.report import render, write

    data = read(dataset, images, labels, group, kind)
    r = answer(data, common.evidence(), kind=kind, top=top, budget=budget, device=device, licence=licence,
               as_unknown=as_unknown, max_samples=max_samples or None, seed=common.seed, explain=explain,
               label_kind=label_kind or (), reference_run=common.own() if reference_run else None,
               progress=common.progress)  # fmt: skip
    if report:
        write(r, report, data if r.kind == "segmentation" else None)
    print(render(r, "json" if as_json else "text", given=dataset))


@command(app)
def inspect(
    common: Common, dataset: o.DATASET, images: o.IMAGES = None, labels: o.LABELS = None, group: o.GROUP = None,
    kind: o.KIND = None,
):  # fmt: skip
    """Show what is read from a dataset and what is assumed about it: keys, axes, labels, groups, leaks."""
    from metamed.readers import inspect as look

    print(columns(look(read(dataset, images, labels, group, kind))))


@command(app)
def features(
    common: Common, dataset: o.DATASET, group: o.FEATURES = None, images: o.IMAGES = None, labels: o.LABELS = None,
    kind: o.KIND = None, deep: o.DEEP = False, device: o.DEVICE = None, max_samples: o.MAX_SAMPLES = 5000,
    as_json: o.JSON = False, csv: o.CSV = False,
):  # fmt: skip
    """Compute the meta-features of a dataset."""
    from metamed.metafeatures import extract
    from metamed.metafeatures.sampling import remark

    data, embed = read(dataset, images, labels, None, kind), None
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
        print(json_text(values) if as_json else columns([(name, f"{value:.6g}") for name, value in values.items()]))


# ---- experiments

command(app)(running.run)
command(bench, "run")(running.bench_run)
command(bench, "status")(running.bench_status)
command(app)(running.tune)
command(app)(running.predict)
command(app)(running.export)


# ---- instances of bags

command(app)(instances.trust)
command(app)(instances.ask)


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
             "items": words(items), "by": words(by)}  # fmt: skip
    asked = read(table, facts, given) if table else stored(common, kind)
    asked += not_shipped(facts, given, common) if facts and not (table or kind) else []
    results = examine(asked, read(train, facts, given) if train else [], common)
    print(json_text(plain(results, seed=common.seed)) if as_json else as_markdown(results, seed=common.seed))


@command(app, "list")
def list_(common: Common, what: str, as_json: o.JSON = False):
    """List methods, metafeatures, readers, measures, datasets, sources or runs."""
    from metamed.cli.inventory import rows

    found = rows(what, common.evidence)
    print(json_text(found) if as_json else columns([row.values() for row in found]))


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


command(app)(crowd.assess)
command(app)(crowd.collect)
command(app)(exchanging.serve)
command(app)(exchanging.publish)
command(app)(exchanging.retrieve)


@command(app)
def doctor(common: Common, as_json: o.JSON = False):
    """Show versions, device, store and extras: what to paste into a bug report. A key is never printed."""
    from metamed.cli.inventory import examine

    facts = examine(common.evidence())
    print(json_text(facts) if as_json else columns(list(facts.items())))


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
