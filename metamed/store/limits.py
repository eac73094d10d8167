"""What OpenML accepts, enforced when a record is stored: nothing kept offline is unpublishable later."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace

from metamed.errors import MetamedError
from metamed.records import Published, Run, Setup
from metamed.store.evidence import DatasetFacts, Record

_LEGAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,():=-]*").fullmatch
ERROR, SETTING, NAME, FLOW_NAME, LICENCE, DESCRIPTION = 128, 2048, 128, 1024, 64, 16384  # characters
_AROUND = len("metamed.classification.()")  # what a flow's name has beside the names of its method and its recipe


def legal_name(name: str, limit: int = NAME) -> str:
    """The name itself if flows, measures, parameters and files may be called so."""
    if not _LEGAL(name) or len(name) > limit:
        raise MetamedError(f"illegal name {name!r}: use up to {limit} of A-Z a-z 0-9 _ . , ( ) : = -")
    return name


def latin(text: str, limit: int) -> str:
    """`text` on one line, Basic Latin only, cut to `limit` characters."""
    text = " ".join(text.encode("ascii", "replace").decode().split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def dataset_name(name: str) -> str:
    """The nearest name that a dataset may have: no spaces, letters of Basic Latin, digits and _ - . , ( )."""
    name = re.sub(r"\s+", "_", name.encode("ascii", "replace").decode().strip())
    return re.sub(r"[^A-Za-z0-9_.,()-]", "_", name)[:NAME] or "unnamed"


def setup_string(setup: Setup) -> str:
    """A setup as the one line that goes along with each of its runs: JSON, Basic Latin."""
    return json.dumps({"method": setup.method, "hyperparameters": setup.hyperparameters, "recipe": setup.recipe,
                       "sources": setup.sources}, allow_nan=False)  # fmt: skip


def checked(record: Record) -> Record:
    """The record as it may be stored: free text is cut to fit, an unfit name, setting or number is refused."""
    if isinstance(record, Setup):
        return _setup(record)
    if isinstance(record, Run):
        return _run(record)
    if isinstance(record, Published):
        _finite(f"{record.study}, {record.dataset}", {record.measure: (record.value,)})
    if isinstance(record, DatasetFacts):
        name = dataset_name(record.name)
        card = replace(record.card, license=latin(record.card.license, LICENCE))
        return replace(record, name=name, card=replace(card, family=card.family or record.name))
    return record


def _setup(setup: Setup) -> Setup:
    settings = {_parameter_name(k): _scalar(setup, k, v) for k, v in setup.hyperparameters.items()}
    for name in (setup.method, *([setup.recipe] if setup.recipe else [])):
        legal_name(name, FLOW_NAME)
    if len(setup.method) + len(setup.recipe or "") + _AROUND > FLOW_NAME:
        raise MetamedError(f"{setup.method[:40]}...: names of method and recipe together take more than {FLOW_NAME}")
    setup = replace(setup, hyperparameters=settings)
    if (length := len(setup_string(setup))) > SETTING:
        raise MetamedError(f"{setup.method}: the settings take {length} characters, at most {SETTING} can be kept")
    return setup


def _parameter_name(name: str) -> str:
    if "=" in name:  # flows may have such a parameter, runs may not set it
        raise MetamedError(f"illegal name of a setting {name!r}: it must not contain =")
    return legal_name(name)


def _scalar(setup: Setup, name: str, value):
    """A setting as a plain Python scalar; numpy's are converted."""
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, bool | int | float | str | None) or value in (math.inf, -math.inf) or value != value:
        raise MetamedError(f"{setup.method}: setting {name}={value!r} is no finite number, word, truth value or None")
    return value


def _run(run: Run) -> Run:
    values = {_measure(m): tuple(map(float, v)) for m, v in run.evaluations.items()}
    _finite(f"run of setup {run.setup[:12]}", values)
    environment = {str(k): latin(str(v), NAME) for k, v in run.environment.items()}
    error = None if run.error is None else latin(run.error, ERROR) or "failed without a message"
    return replace(run, evaluations=values, environment=environment, error=error, seconds=float(run.seconds))


def _measure(name: str) -> str:
    """`auc`, or `auc@noise`: on shifted test images, which OpenML has no word for and is never told of."""
    return "@".join(legal_name(part, 64) for part in name.split("@"))


def _finite(what: str, evaluations: Mapping[str, tuple[float, ...]]) -> None:
    for measure, values in evaluations.items():
        if not all(map(math.isfinite, values)):
            raise MetamedError(f"{what}: {measure} is not finite: {list(values)}. Leave out what is undefined.")
