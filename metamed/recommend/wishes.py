"""What a user can afford and may use: which candidates are left, and what is said about the others."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from metamed.errors import MetamedError, NotApplicable
from metamed.records import Candidate
from metamed.store import Store

OPEN = re.compile(r"apache|\bmit\b|bsd|cc0|cc[ -]by|public domain|mozilla|\bmpl|gpl", re.I)
CLOSED = re.compile(r"\bnc\b|-nc|non-?commercial|research|academic|no formal|unknown", re.I)


@dataclass(frozen=True)
class Wishes:
    """What the user can afford and may use. budget: minutes."""

    budget: float | None
    device: str | None
    licence: str | None

    def __post_init__(self):
        if self.device not in (None, "cpu", "cuda"):
            raise MetamedError(f"device '{self.device}': expected cpu or cuda")
        if self.licence not in (None, "commercial"):
            raise MetamedError(f"licence '{self.licence}': the only wish known is 'commercial'")

    def keep(self, candidates: list[Candidate], store: Store) -> tuple[list[Candidate], list[str]]:
        """The candidates that fit, and a note on what was left out. Raises NotApplicable if none does."""
        rest, notes = candidates, []
        if self.licence:
            fitting = [c for c in rest if all(map(commercial, licences(c.setup.sources, store).values()))]
            notes += _note(rest, fitting, "start from weights that are not clearly free for commercial use")
            rest = fitting
        if self.budget is not None:
            fitting = [c for c in rest if self._minutes(c) <= self.budget]
            notes += _note(rest, fitting, f"are known to need more than {self.budget:g} minutes, or have no known cost")
            if rest and not fitting:
                least = min(map(self._minutes, rest))
                known = f"the cheapest known needs {least:.2g}" if math.isfinite(least) else "no cost is known"
                raise NotApplicable(f"no setup fits a budget of {self.budget:g} minutes: {known}")
            rest = fitting
        if not rest:
            raise NotApplicable("no setup is left: " + "; ".join(notes or ["the evidence names none"]))
        return rest, notes

    def _minutes(self, c: Candidate) -> float:
        """Minutes on the wished device; without a wish on the fastest one known; infinite if unknown."""
        costs = c.cost.values() if self.device is None else [c.cost.get(self.device, math.inf)]
        return min(costs, default=math.inf)


def _note(before: list, after: list, why: str) -> list[str]:
    left_out = len(before) - len(after)
    return [f"{left_out} of {len(before)} setups were left out: they {why}"] if left_out else []


def commercial(licence: str) -> bool:
    """Does a licence text clearly allow commercial use? Silence and research-only terms do not."""
    return bool(OPEN.search(licence)) and not CLOSED.search(licence)


def licences(sources: Iterable[str], store: Store) -> dict[str, str]:
    """Source name -> licence of its weights; "unknown" where nothing is said."""
    known = {s.name: s.licence for s in store.records("source")}
    return {name: known.get(name, "") or "unknown" for name in sources}
