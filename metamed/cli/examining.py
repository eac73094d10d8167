"""What `metamed exam` examines, and how it goes on."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from metamed.cli.options import Common
from metamed.errors import MetamedError, NotApplicable, ReadError, UnknownName

MARK = "read from a file: not among the evidence that ships, and the shipped learner was fitted without it"


def read(table: Path, folder: Path | None, given: dict) -> list:
    """The tables of a file, marked where they do not ship.

    given: what the command line says; a folder of facts fills in what it leaves open.
    """
    from metamed.exams.reading import read_tables
    from metamed.store.evidence import shipped_studies

    said = {name: value for name, value in given.items() if value}
    tables = read_tables(table, **(fact_files(folder, table) | said))
    if table.stem in shipped_studies():
        return tables
    return [replace(t, notes=(f"{t.name}: {MARK}", *t.notes)) for t in tables]


def not_shipped(folder: Path, given: dict, common: Common) -> list:
    """The tables in a folder of facts that do not ship, such as those that may not be redistributed."""
    from metamed.store.evidence import shipped_studies

    found = []
    for path in sorted(folder.glob("*.csv")):
        if path.stem in shipped_studies():
            continue
        try:
            found += read(path, folder, given)
        except ReadError as error:
            common.say(f"left out: {error}")
    return found


def fact_files(folder: Path | None, table: Path) -> dict:
    """Files of a folder of facts: datasets, families, networks, label_facts; and, where their name begins with the same
    word as the table's, the same study's own *_task_infos, *_distances and *_scores."""
    if folder is None:
        return {}
    if not folder.is_dir():
        raise MetamedError(f"--facts {folder}: no such folder")
    study = table.stem.split("_")[0]
    own = {end: sorted(folder.glob(f"{study}_*{end}.csv")) for end in ("task_infos", "distances", "scores")}
    names = {"families": "families", "networks": "networks", "labels": "label_facts"}
    found = {k: folder / f"{n}.csv" for k, n in names.items() if (folder / f"{n}.csv").exists()}
    datasets = [p for p in (folder / "datasets.csv",) if p.exists()] + own["task_infos"]
    return found | {"datasets": datasets, "distances": own["distances"] + own["scores"]}


def stored(common: Common, kind: str | None) -> list:
    """The tables of the evidence of a kind, or of all kinds."""
    from metamed.dataset import KINDS
    from metamed.exams.examples import tables_of
    from metamed.measures import PRIMARY

    evidence, found = common.evidence(), []
    for one in [kind] if kind else KINDS:
        if one not in PRIMARY:
            raise UnknownName("kind", one, PRIMARY)
        try:
            found += tables_of(evidence, one, PRIMARY[one])
        except NotApplicable as error:
            common.say(f"left out: {error}")
    if not found:
        raise NotApplicable("there is no evidence to examine: no two setups were compared on two datasets")
    return found


def examine(tables: list, training: list, common: Common) -> list:
    """The exam of each table; one that cannot be held is said on stderr, unless none can."""
    from metamed.exams import exam, exam_across
    from metamed.exams.reading import counterpart
    from metamed.metalearner import fit_predict

    results, refused, rankers = [], [], {"metamed": fit_predict}
    for table in tables:
        more = {"seed": common.seed, "progress": _progress(table.name, common)}
        for note in table.notes:
            common.say(note)
        try:
            results.append(exam_across(counterpart(training, table), table, rankers, **more) if training
                           else exam(table, rankers, **more))  # fmt: skip
        except NotApplicable as error:
            refused.append(error)
            common.say(f"left out: {error}")
    if not results:
        raise refused[0]
    return results


def _progress(name: str, common: Common):
    """Families done on one line of a terminal, or nothing."""
    if common.quiet or not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        print(f"\r{name}: family {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show
