"""Entities: stored records as the datasets, tasks, flows, setups, suites and studies of OpenML; runs have their file.

Documents are nested dictionaries that `document` writes as XML; numbers of servers are filled in by whoever sends them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from metamed.errors import NotApplicable, ReadError, UnknownName
from metamed.exchange.tables import TAG, TARGET, Publishable, Table
from metamed.methods import Choice, Domain, Int, Method, described, get_method
from metamed.records import Scalar, Setup, content_id
from metamed.store.limits import LICENCE, latin

CLASSIFICATION = 1  # OpenML's number of the task type Supervised Classification
_PREFIX, SOURCES = "metamed.", "sources"


def document(root: str, fields: Mapping) -> str:
    """The XML of an entity; lists repeat their element, None is left out."""
    import xmltodict

    def named(value):
        if isinstance(value, Mapping):
            return {k if k[0] in "@#" else f"oml:{k}": named(v) for k, v in value.items() if v is not None}
        return [named(v) for v in value] if isinstance(value, list | tuple) else value

    body = {f"oml:{root}": {"@xmlns:oml": "http://openml.org/openml"} | named(fields)}
    return xmltodict.unparse(body, full_document=False, pretty=True)


# ---- datasets and tasks


def dataset_document(table: Publishable) -> str:
    card = table.facts.card
    licence = re.sub(r"[^A-Za-z0-9_.(),-]+", "_", card.license)[:LICENCE]
    return document("data_set_description", {
        "name": table.name, "description": table.description, "format": "arff",
        "licence": licence or None, "default_target_attribute": table.target,
        "ignore_attribute": list(table.ignored), "tag": list(table.tags),
        "original_data_url": card.url if re.fullmatch(r"[!-~]{1,512}", card.url) else None})  # fmt: skip


def task_document(table: Table, dataset: int) -> str:
    inputs = {"source_data": dataset, "target_feature": TARGET, "estimation_procedure": table.procedure,
              "evaluation_measures": table.measure}  # fmt: skip
    return document("task_inputs", {"task_type_id": CLASSIFICATION, "input": [
        {"@name": name, "#text": str(value)} for name, value in inputs.items() if value is not None]})  # fmt: skip


# ---- flows and setups


@dataclass(frozen=True)
class Flow:
    """A method, or a recipe with its method, as OpenML knows it. parameters: name -> (type, default, values)."""

    name: str
    version: str
    description: str
    parameters: Mapping[str, tuple[str, str, str]]

    @property
    def key(self) -> str:
        return content_id("openml-flow", self.name, self.version)

    @property
    def document(self) -> str:
        return document("flow", {
            "name": self.name, "external_version": self.version, "description": self.description, "language": "English",
            "dependencies": "metamed", "parameter": [
                {"name": name, "data_type": kind, "default_value": default, "description": domain}
                for name, (kind, default, domain) in self.parameters.items()], "tag": [TAG]})  # fmt: skip


def make_flow(setup: Setup, versions: Sequence[int], metamed: str) -> Flow:
    """The flow of a setup. versions: as in `Run`. metamed: version of the package. NotApplicable if it is unknown."""
    methods = _methods(setup)
    name = f"{methods[0].kind}.{methods[0].name}"
    name = _PREFIX + (f"{setup.recipe}({name})" if setup.recipe else name)
    space, defaults = signature(setup)
    if unknown := sorted(set(setup.hyperparameters) - set(space)):
        raise NotApplicable(f"{setup.method} has no parameter {unknown[0]} (any more)")
    parameters = {k: (_type_name(d), json.dumps(defaults[k]), _domain_words(d)) for k, d in sorted(space.items())}
    parameters[SOURCES] = ("list", "[]", "Names of the weights that it starts from, or whose features it reads")
    sha = content_id(name, tuple(versions), {k: list(v) for k, v in parameters.items()})[:12]
    version = f"metamed=={re.sub('[^A-Za-z0-9.]', '.', metamed)[:32]},sha={sha}"
    return Flow(name, version, latin(" ".join(m.description for m in reversed(methods)), 1024), parameters)


def _methods(setup: Setup) -> list[Method]:
    try:
        return [_described().get(name) or get_method(name) for name in (setup.method, setup.recipe) if name]
    except UnknownName as error:
        raise NotApplicable(f"nobody here knows how to run it: {error}") from None


@cache
def _described() -> dict[str, Method]:
    return described()


def signature(setup: Setup) -> tuple[dict[str, Domain], dict[str, Scalar]]:
    """All parameters of a setup's method, recipe and training: what each may be, and its default."""
    from metamed import jobs

    methods = _methods(setup)
    space, defaults = jobs.settings_of(setup, methods[0])
    return ({k: d for m in methods for k, d in m.space.items()} | space,
            {k: v for m in methods for k, v in m.defaults.items()} | defaults)  # fmt: skip


def settings_of(setup: Setup) -> dict[str, str]:
    """Every parameter of a setup with its value as JSON."""
    _, defaults = signature(setup)
    return {k: json.dumps(v) for k, v in (defaults | setup.hyperparameters | {SOURCES: list(setup.sources)}).items()}


def setup_from(flow_name: str, settings: Mapping[str, str]) -> Setup:
    """The setup that a flow of metamed and settings as JSON mean. Raises ReadError for what metamed never wrote."""
    match = re.fullmatch(r"metamed\.(?:(?P<recipe>[\w.-]+)\()?[a-z]+\.(?P<method>[\w.-]+)(?(recipe)\))", flow_name)
    if not match:
        raise ReadError(f"'{flow_name}' is no flow of metamed")
    try:
        values = {name: json.loads(text) for name, text in settings.items()}
    except (TypeError, ValueError):
        raise ReadError(f"{flow_name}: settings that are no JSON: {dict(settings)}") from None
    sources = tuple(values.pop(SOURCES, ()))
    _, defaults = signature(Setup(match["method"], {}, match["recipe"], sources))
    values = {k: v for k, v in sorted(values.items()) if k not in defaults or v != defaults[k]}
    return Setup(match["method"], values, match["recipe"], sources)


def _type_name(domain: Domain) -> str:
    kind = type(domain.options[0]) if isinstance(domain, Choice) else int if isinstance(domain, Int) else float
    return {int: "int", float: "float", bool: "bool"}.get(kind, "str")


def _domain_words(domain: Domain) -> str:
    if isinstance(domain, Choice):
        return latin("one of " + ", ".join(map(str, domain.options)), 1024)
    return f"{domain.low:g} to {domain.high:g}" + (", on a logarithmic scale" if getattr(domain, "log", False) else "")


# ---- suites and studies


def study_document(alias: str, name: str, description: str, members: Iterable[int], *, of: str,
                   suite: int | None = None) -> str:  # fmt: skip
    """of: task for a benchmark suite, run for a study; suite: the number of the suite that a study ran."""
    return document("study", {
        "alias": alias, "main_entity_type": of, "benchmark_suite": suite, "name": name,
        "description": latin(description, 1024), f"{of}s": {f"{of}_id": list(members)}})  # fmt: skip
