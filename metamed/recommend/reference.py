"""One short run on the target itself: it tells how hard the target is, for all that was not run there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from metamed.dataset import Dataset, Kind
from metamed.errors import MetamedError, NotApplicable
from metamed.exams.examples import is_own, tables_of
from metamed.exams.tables import Table
from metamed.measures import PRIMARY
from metamed.metalearner.levels import half_width
from metamed.recommend.costs import Costs, side_of
from metamed.records import Run
from metamed.store import Store

MINUTES = 5.0  # most that it may take on one core, where nothing else is said


def reference_of(table: Table, minutes: Mapping[str, float], most: float = MINUTES) -> str | None:
    """The setup whose one run tells most of how the others will do, of those that cost at most so many minutes.

    It has to have run on half of the table's families. None where there is no such setup.
    """
    families = np.array(table.families, dtype=object)
    least = len(set(families)) / 2
    able = [
        i for i, setup in enumerate(table.items)
        if minutes.get(setup, math.inf) <= most and len(set(families[np.isfinite(table.scores[:, i])])) >= least
    ]  # fmt: skip
    return table.items[min(able, key=lambda i: half_width(table, [table.items[i]]))] if able else None


def affordable(kind: Kind, store: Store, dataset: Dataset, n_train: int) -> tuple[Table, dict[str, float]] | None:
    """(the table of own runs, CPU minutes that each of its setups would take on a dataset); None without own runs."""
    own = [table for table in tables_of(store, kind, PRIMARY[kind]) if is_own(table)]
    if not own:
        return None
    costs, setups = Costs(kind, store), {s.id: s for s in store.records("setup")}
    minutes = {id: costs.minutes(setups[id], n_train, side_of(dataset), dataset.n_samples).get("cpu", math.inf)
               for id in own[0].items}  # fmt: skip
    return own[0], minutes


def reference_run(
    dataset: Dataset, kind: Kind, store: Store, keep: Store, n_train: int, *, most: float | None = None, seed: int = 0,
    progress: Callable | None = None,
) -> Run:  # fmt: skip
    """Make the run that tells most, and keep it. store: the evidence that it is chosen by; keep: where it is kept.

    Raises NotApplicable without labels or masks, or where no setup is known to be short; MetamedError if the run fails.
    """
    from metamed.experiments import run_setup
    from metamed.tasks import make_task

    if dataset.kind != kind:
        raise NotApplicable(f"{dataset.name} has no masks: a reference run needs some, and twenty would do")
    most = MINUTES if most is None else most
    found = affordable(kind, store, dataset, n_train)
    chosen = None if found is None else reference_of(*found, most)
    if chosen is None:
        raise NotApplicable(f"no setup in the evidence for {kind} is known to take at most {most:g} CPU minutes here: "
                            "there is nothing to make a reference run of")  # fmt: skip
    setup = store.get(chosen)
    keep.add_all(store.source(name) for name in setup.sources)
    run = run_setup(setup, make_task(dataset), dataset, keep, seed=seed, progress=progress)
    if run.error is not None:
        raise MetamedError(f"the reference run of {setup.label} failed: {run.error}")
    return run


def with_run(store: Store, run: Run, dataset: Dataset, vector: Mapping[str, float], kept: Store) -> Store:
    """The evidence with a run on a dataset, and the dataset's meta-features, in it: a copy, without artifacts."""
    known = Store.memory()
    known.merge(store, artifacts=False)
    known.add_all([dataset, kept.get(run.task), kept.get(run.setup), run])
    known.add_metafeatures(dataset, vector)
    return known
