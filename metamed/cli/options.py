"""The options of the command line, each written once, and how a function of them becomes a command."""

import inspect as signatures
import os
import sys
import warnings
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from metamed.errors import MetamedError, PublishError


def option(kind: type, name: str, help: str, **more) -> Any:
    return Annotated[kind, typer.Option(name, help=help, **more)]


def _method_names(incomplete: str) -> list[str]:
    from metamed.methods import described

    return [name for name in described() if name.startswith(incomplete)]


DATASET = option(str, "--dataset", "File or folder with the images.", show_default=False)
KIND = option(str | None, "--kind", "classification | segmentation | mil | similarity, where more than one fits.")
TOP = option(int, "--top", "How many setups to rank.", min=1)
BUDGET = option(str | None, "--budget", "Longest training that is acceptable, e.g. 30m or 2h.")
DEVICE = option(str | None, "--device", "cpu or cuda.", envvar="METAMED_DEVICE")
LICENCE = option(str | None, "--licence", "'commercial' leaves out sources that forbid it.")
AS_UNKNOWN = option(bool, "--as-unknown", "Forget everything known about this dataset and its family.")
MAX_SAMPLES = option(int, "--max-samples", "Most images that meta-features are computed from; 0: all.", min=0)
IMAGES = option(str | None, "--images", "Key of the images in the file.")
LABELS = option(str | None, "--labels", "Key of the labels in the file.")
GROUP = option(str | None, "--group", "Key of the patients in the file.")
JSON = option(bool, "--json", "One JSON document on stdout and nothing else.")
DEEP = option(bool, "--deep", "Also what needs a frozen network, on its embeddings of the images.")
CSV = option(bool, "--csv", "Comma-separated name,value rows.")
REPORT = option(Path | None, "--report", "Also write a report: .html, .md, .json or .txt.")
EXPLAIN = option(bool, "--explain", "Also say what moved each candidate up or down.")
LABEL_KIND = option(
    list[str] | None, "--label-kind", "What masks outline, e.g. tumour, or liver=organ for one class; may be repeated:"
    " tool | thin structure | cells | tumour | lesion | organ | part of an organ | part of a tumour.",
)  # fmt: skip
REFERENCE_RUN = option(bool, "--reference-run", "Make one short run on the dataset first; it moves all scores.")
FEATURES = option(str | None, "--group", "Only this group of meta-features.")
RANK = option(int | None, "--rank", "Run the setup that `recommend` ranks there.", min=1)
METHOD = option(str | None, "--method", "Method to run.", autocompletion=_method_names)
SET = option(list[str] | None, "--set", "A hyperparameter as name=value; may be repeated.")
SOURCE = option(list[str] | None, "--source", "Weights to start from; two or more make an ensemble.")
RECIPE = option(str | None, "--recipe", "How the source is used, e.g. finetune.")
AS_SOURCE = option(str | None, "--as-source", "Keep the weights under this name: others can start from them.")
DOWNLOAD = option(bool, "--download", "Fetch weights that are not on this machine.")
DATA = option(Path, "--data", "Folder in which the suite's datasets lie.", envvar="METAMED_DATA", show_default=False)
WORKERS = option(int, "--workers", "Processes that run at the same time.", min=1)
TABLE = option(Path | None, "--table", "Table of results (CSV, one figure a row) instead of the store's evidence.")
FACTS = option(
    Path | None, "--facts", "Folder with families.csv, label_facts.csv, networks.csv, datasets.csv and <study>_*.csv;"
    " without --table and --kind its result tables that do not ship are examined too."
)
DATASETS = option(Path | None, "--datasets", "CSV of facts about the datasets.")
FAMILIES = option(Path | None, "--families", "CSV of (dataset, family): families are left out together.")
DISTANCES = option(Path | None, "--distances", "CSV of (source, target, value), scores or distances.")
SCORES = option(Path | None, "--scores", "CSV of published transferability scores, each a ranker by its name.")
ITEMS = option(str | None, "--items", "Columns that name what is ranked, e.g. method,setting.")
BY = option(str | None, "--by", "Columns that separate the table into several exams.")
TRAIN = option(Path | None, "--train", "Learn from this table, and be judged on --table.")
STORE = option(Path | None, "--store", "Store to use instead of your own ($METAMED_STORE).")
SEED = option(int, "--seed", "Seed of everything random.")
OFFLINE = option(bool, "--offline", "Make any use of the network an error.", envvar="METAMED_OFFLINE")
QUIET = option(bool, "--quiet", "No progress and no warnings on stderr.")
VERBOSE = option(bool, "--verbose", "Show where an error came from.")


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

    def need_network(self, doing: str) -> None:
        if self.offline:
            raise PublishError(f"{doing} needs the network, which --offline forbids")

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr)

    def progress(self, epoch: int, epochs: int, loss: float) -> None:
        if not self.quiet and sys.stderr.isatty():
            print(f"\repoch {epoch}/{epochs}, validation loss {loss:.4f}", end="", file=sys.stderr, flush=True)


COMMON = {"store": STORE, "seed": SEED, "offline": OFFLINE, "quiet": QUIET, "verbose": VERBOSE}


def command(group: typer.Typer, name: str | None = None):
    """Register a function of a `Common` and its own options as a command that also takes the common options."""

    def register(function):
        own = list(signatures.signature(function).parameters.values())[1:]
        more = [signatures.Parameter(n, signatures.Parameter.KEYWORD_ONLY, default=getattr(Common, n), annotation=a)
                for n, a in COMMON.items()]  # fmt: skip

        @wraps(function)
        def run(**given):
            common = Common(**{n: given.pop(n) for n in COMMON})
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
        warnings.simplefilter("ignore")
