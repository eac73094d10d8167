"""What was given on the command line, as values of the library: datasets, setups, suites; and values as text."""

import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from metamed.cli.options import Common
from metamed.errors import MetamedError, ReadError, UnknownName

Find = Callable[[str], Any]  # a dataset by its name


def read(path: str, images=None, labels=None, group=None, kind=None):
    """The dataset at a path; of volumes with masks, or without labels, the slices: what runs here learns from 2-D."""
    from metamed.readers import read as look

    data = look(path, images=images, labels=labels, group=group, kind=kind)
    if len(data.images.shape) == 5 and data.target is None and data.bags is None:
        from metamed.readers.volumes import slices

        return slices(data)
    return data


def json_text(value) -> str:
    from metamed.report import finite

    return json.dumps(finite(value), indent=1, allow_nan=False, ensure_ascii=False)


def columns(rows: list) -> str:
    """Rows of values as aligned columns of text."""
    rows = [[str(cell) for cell in row] for row in rows]
    width = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True)).rstrip() for row in rows)


def words(text: str | None) -> list[str] | None:
    return text.split(",") if text else None


def setting(text: str) -> tuple[str, Any]:
    """`name=value` as a pair; the value is a number, true, false or null where it reads as one, else a word."""
    name, equals, value = text.partition("=")
    if not equals:
        raise MetamedError(f"--set {text}: expected name=value, e.g. --set epochs=5")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def bring_sources(setups: Iterable, common: Common, mine) -> None:
    """Shipped sources that the setups name become known to the store that their runs will lie in."""
    names = {name for setup in setups for name in setup.sources}
    evidence = common.evidence() if names else None
    mine.add_all([evidence.source(name) for name in sorted(names)])


# ---- suites


def suite(given: str, folder: Path, common: Common) -> tuple[Any, Find, Any]:
    """(suite, how its datasets are found, the store for its runs).

    given: FILE, FILE:NAME or NAME. A file is Python with a dictionary SUITES, or JSON (docs/running.md). A name alone
    is one of `benchmarks.suites` in the working folder, else of the entry points `metamed.suites`. A dataset is the
    file or folder below `folder` called like it, or what `find(name, folder)` beside SUITES gives; FAMILIES beside them
    says which datasets belong together.
    """
    file, name = _parts(given)
    found, beside = _from_file(file) if file else _known()
    if file and not name and len(found) == 1:
        name = next(iter(found))
    if name not in found:
        raise UnknownName(f"suite in {file.name}" if file else "suite", name, found)
    chosen, mine = found[name], common.own()
    bring_sources(chosen.setups, common, mine)
    return chosen, _finder(folder, beside), mine


def _parts(given: str) -> tuple[Path | None, str]:
    file, _, name = given.partition(":")
    return (Path(file), name) if file.endswith((".py", ".json")) else (None, given)


def _known() -> tuple[dict, dict]:
    """Suites of the working folder or of installed packages, and what stands beside them."""
    from importlib import import_module
    from importlib.metadata import entry_points

    sys.path.insert(0, os.getcwd())
    try:
        module = import_module("benchmarks.suites")
    except ModuleNotFoundError:
        return {entry.name: entry.load() for entry in entry_points(group="metamed.suites")}, {}
    return module.SUITES, vars(module)


def _from_file(file: Path) -> tuple[dict, dict]:
    if not file.is_file():
        raise MetamedError(f"{file}: no such file")
    if file.suffix == ".json":
        return _from_json(file), {}
    module = ModuleType(file.stem)
    module.__file__ = str(file)
    sys.path.insert(0, str(file.parent))
    exec(compile(file.read_text(encoding="utf-8"), file, "exec"), vars(module))
    if not hasattr(module, "SUITES"):
        raise MetamedError(f"{file.name}: no SUITES. Write SUITES = {{'name': Suite('name', datasets, setups)}}")
    return module.SUITES, vars(module)


def _from_json(file: Path) -> dict:
    from metamed.experiments import Suite
    from metamed.records import Setup

    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
        return {
            name: Suite(name, **_tuples(fields) | {"setups": tuple(Setup(**_tuples(s)) for s in fields["setups"])})
            for name, fields in plain.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ReadError(f"{file.name}: not suites as docs/running.md describes them: {error}") from None


def _tuples(fields: dict) -> dict:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _finder(folder: Path, beside: dict) -> Find:
    families, own = beside.get("FAMILIES", {}), beside.get("find")

    def find(name: str):
        data = own(name, folder) if own else read(str(in_folder(name, folder)))
        return replace(data, card=replace(data.card, family=families.get(name, data.card.family)))

    return find


def at_hand(name: str):
    """A dataset by its name, for what also learns from a source's images: from the folder METAMED_DATA."""
    if not (folder := os.environ.get("METAMED_DATA")):
        raise MetamedError(f"the images of {name} are needed too: put the folder that they lie in into METAMED_DATA")
    return read(str(in_folder(name, Path(folder))))


def in_folder(name: str, folder: Path) -> Path:
    """The file or folder below a folder that is called like a dataset."""
    found = [p for p in sorted(folder.rglob("*")) if name in (p.name, p.stem)]
    if not found:
        raise UnknownName(f"dataset in {folder}", name, {p.stem for p in folder.rglob("*")})
    return found[0]
