"""Traces: what a search tried before it chose a run, kept as a file of that run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from metamed.records import Setup

if TYPE_CHECKING:
    from metamed.store import Store

FILE = "trace.json"


def keep_trace(store: Store, run: str, tried: Sequence[tuple[Setup, float]], chosen: int) -> None:
    """Keep the setups that a search tried, each with the score it was judged by, and which of them the run is.

    A search that goes on replaces its trace.
    """
    said = [{"setup": asdict(setup), "score": score, "selected": n == chosen} for n, (setup, score) in enumerate(tried)]
    store._files.put(run, {FILE: json.dumps(said, allow_nan=False).encode()})


def read_trace(path: Path) -> list[tuple[Setup, float, bool]]:
    """(setup, score, is it the chosen one?) of each thing tried, in order."""
    said = json.loads(path.read_bytes())
    return [(Setup(**t["setup"] | {"sources": tuple(t["setup"]["sources"])}), t["score"], t["selected"]) for t in said]
