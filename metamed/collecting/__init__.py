"""Relative assessments collected: a local page that shows three images and asks which two look more alike."""

from __future__ import annotations

import csv
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from metamed import serving
from metamed.assessments import Triplets
from metamed.collecting.choosing import Chooser
from metamed.collecting.pictures import need_pictures
from metamed.collecting.questions import Asker, Settings, chosen, gold
from metamed.dataset import Dataset, spread
from metamed.errors import MissingExtra, NotApplicable
from metamed.store import Store
from metamed.store.collected import Answer, Collected, Study

__all__ = ["Settings", "collect", "collected_triplets", "export", "make_asker", "running"]

COLUMNS = ("anchor", "closer", "farther", "annotator", "side", "condition", "time", "confidence", "gold", "kind",
           "received")  # fmt: skip


def collect(dataset: Dataset, store: Store, settings: Settings, *, study: str = "first", host: str = "localhost",
            port: int = 8080, key: str | None = None, ready: Callable[[str], None] = print) -> None:  # fmt: skip
    """Ask about a dataset on a web page until interrupted; answers are in the store before the page goes on.

    ready: called with the address, which holds a key where other machines are let in. Raises NotApplicable where the
    dataset has no pixels, MissingExtra without a web server.
    """
    application, key = _application(dataset, store, settings, study, host, key)
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)  # what others may call it

    def told(address: str) -> None:
        where = f"[{name}]" if ":" in name else name
        ready(f"http://{where}:{address.rpartition(':')[2]}/?key={key}" if key else f"{address}/")

    serving.serve(application, host, port, told)


@contextmanager
def running(dataset: Dataset, store: Store, settings: Settings, *, study: str = "first", host: str = "localhost",
            port: int = 0, key: str | None = None) -> Iterator[str]:  # fmt: skip
    """The page in a thread of this process while the block runs; its address. Port 0 is one that is free."""
    application, key = _application(dataset, store, settings, study, host, key)
    with serving.running(application, host, port) as address:
        yield address + (f"/?key={key}" if key else "/")


def _application(dataset: Dataset, store: Store, settings: Settings, study: str, host: str, key: str | None):
    for package in ("starlette", "uvicorn"):
        if find_spec(package) is None:
            raise MissingExtra("collecting", package, "serve")
    from metamed.collecting.app import application

    asker = make_asker(dataset, store, settings, study)
    loopback = host in serving.LOOPBACK
    key = None if loopback else key or secrets.token_urlsafe(12)
    heard = _learner(asker)
    heard()
    return application(asker, dataset, loopback=loopback, key=key, heard=heard), key


def make_asker(dataset: Dataset, store: Store, settings: Settings, study: str) -> Asker:
    """Who asks about a dataset: the study with these settings, kept in the store."""
    need_pictures(dataset)
    collected = Collected(store, dataset.digest, study)
    opened = collected.open(Study(dataset.digest, study, asdict(settings)))
    images = spread(len(dataset.images), settings.among or len(dataset.images))
    return Asker(collected, opened, settings, Chooser(images, adaptive=settings.adaptive))


def _learner(asker: Asker) -> Callable[[], None]:
    """What is done after each answer: the chooser learns from all of them, when enough have come."""

    def heard() -> None:
        if asker.chooser.due(asker.collected.count()):
            asker.chooser.learn(_triplets(asker.collected.answers()))

    return heard


def collected_triplets(store: Store, dataset: Dataset, study: str | None = None) -> Triplets | None:
    """All that people answered about a dataset, in the order of the answers; None if nobody did. study: one alone."""
    answers = Collected(store, dataset.digest, study).answers()
    return _triplets(answers) if answers else None


def _triplets(answers: list[Answer]) -> Triplets:
    sides = [chosen(a) for a in answers]
    columns: dict[str, Any] = {
        "anchor": [a.question.anchor for a in answers],
        "closer": [closer for closer, _ in sides],
        "farther": [farther for _, farther in sides],
        "annotator": [a.question.person[:8] for a in answers],
        "side": [a.side for a in answers],
        "condition": [a.question.condition for a in answers],
        "time": [np.nan if a.seconds is None else a.seconds for a in answers],
        "confidence": [np.nan if a.confidence is None else a.confidence for a in answers],
        "gold": [gold(a) for a in answers],
    }
    return Triplets(**{name: np.array(column) for name, column in columns.items()})


def export(store: Store, dataset: Dataset, path: Path, study: str | None = None) -> int:
    """Write the answers as a table that metamed reads, one row an answer; returns how many.

    Annotators are random numbers, never the names that they gave. Images are called by their index in the dataset.
    """
    answers = Collected(store, dataset.digest, study).answers()
    if not answers:
        raise NotApplicable(f"{dataset.name}: nobody has answered anything yet")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(_row(a) for a in answers)
    return len(answers)


def _row(a: Answer) -> list:
    q, optional = a.question, ("" if v is None else f"{v:.3f}" for v in (a.seconds, a.confidence))
    known = "" if gold(a) < 0 else gold(a)
    shown = [q.anchor, *chosen(a), q.person[:8], ("left", "right")[a.side], q.condition]
    return [*shown, *optional, known, q.kind, a.received]
