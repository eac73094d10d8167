"""Meta-examples: every score of a store with what was run, on what, and whether it can be run again."""

from __future__ import annotations

import math
from collections.abc import Mapping

from metamed.methods import Method
from metamed.records import TEST_SHARE, Setup
from metamed.store import evidence

TRAINING = ("learning_rate", "epochs", "batch_size", "weight_decay", "augment", "image_size")
TRAINING_OF_MASKS = ("loss", "class_weights", "view", "test_flips")
_NAMES = ("study", "protocol", "dataset", "name", "target", "setup", "seed", "score", "seconds", "evidence", "size")


def example_rows(store, db, artifacts, kind: str, measure: str) -> list[dict]:
    """One dictionary per successful run or published figure of that kind with that measure, see `Store.examples`.

    A task that may use as many samples as there are, or more, counts as one that uses all.
    """
    setups = {s.id: s for s in store.records("setup")}
    # a figure names its dataset: that is the published one rather than images of the same name
    known = sorted(store.records("dataset"), key=lambda f: f.digest == evidence.pseudo_digest(f.name))
    facts = {f.name: f for f in known} | {f.digest: f for f in known}
    runnable = _runnable(db, artifacts, setups)
    own = db.all(
        "SELECT 'metamed', procedure || coalesce(', n=' || size, ''), digest, dataset, target, setup, seed, "
        "avg(value), seconds, run.id, size FROM run JOIN task ON task.id = run.task "
        "JOIN evaluation ON evaluation.run = run.id WHERE kind = ? AND evaluation.measure = ? AND error IS NULL "
        "GROUP BY run.id ORDER BY run.rowid", kind, measure)  # fmt: skip
    figures = db.all(
        "SELECT study, protocol, dataset, dataset, target, setup, NULL, value, NULL, id, NULL FROM published "
        "WHERE measure = ? ORDER BY rowid", measure)  # fmt: skip
    figures = [f for f in figures if f[2] not in facts or facts[f[2]].kind == kind]
    return [_example(dict(zip(_NAMES, row, strict=True)), measure, setups, facts, runnable) for row in own + figures]


def cost_rows(db, kind: str) -> list[tuple[str, str, int, float, str]]:
    """(setup, digest, training samples, seconds, device) of every successful run of that kind whose device is known."""
    trained = {id: _n_train(folds) for id, folds in db.all("SELECT id, folds FROM task WHERE kind = ?", kind)}
    rows = db.all(
        "SELECT setup, digest, task.id, seconds, json_extract(environment, '$.device') FROM run "
        "JOIN task ON task.id = run.task WHERE kind = ? AND error IS NULL AND seconds > 0", kind)  # fmt: skip
    return [(setup, digest, trained[task], seconds, device) for setup, digest, task, seconds, device in rows if device]


def _n_train(folds: str) -> int:
    return len(evidence.text_to_folds(folds)[0].train) if folds.startswith("[") else folds.split("|")[0].count("t")


def _runnable(db, artifacts, setups: Mapping[str, Setup]) -> dict[str, bool]:
    """Which setups can be run here: code, settings, and weights of sources are had. Controls (random) never are."""
    from metamed.methods import described

    flows, known = described(), db.all("SELECT name, origin FROM source WHERE origin NOT LIKE 'random:%'")
    sources = {n for n, o in known if not o.startswith("train:") or artifacts.find(o[6:], "weights.safetensors")}

    def fits(setup: Setup) -> bool:
        parts = [flows.get(name) for name in (setup.method, setup.recipe) if name]
        if None in parts or not set(setup.sources) <= sources:
            return False
        space, trained = {k: d for p in parts for k, d in p.space.items()}, trained_with(flows[setup.method])
        return all(v in space[k] if k in space else k in trained for k, v in setup.hyperparameters.items())

    return {id: fits(setup) for id, setup in setups.items()}


def trained_with(method: Method) -> tuple[str, ...]:
    """Names of the settings that training adds to a method's own: `jobs.settings_of`, known without torch."""
    if method.estimator or method.name.startswith("probe."):
        return ("image_size",)
    return TRAINING + (TRAINING_OF_MASKS if method.kind == "segmentation" else ())


def _example(row: dict, measure: str, setups: Mapping, facts: Mapping, runnable: Mapping) -> dict:
    of, setup = facts.get(row["dataset"]), setups.get(row["setup"], Setup("unknown"))
    if of is not None:
        row |= {"dataset": of.digest, "name": of.name}
        if (row["size"] or 0) >= (1 - TEST_SHARE) * (of.n_samples or math.inf):
            row |= {"protocol": row["protocol"].split(",")[0], "size": None}
    return row | {"family": of.family if of else row["name"], "method": setup.method, "recipe": setup.recipe,
                  "sources": setup.sources, "hyperparameters": setup.hyperparameters, "measure": measure,
                  "runnable": runnable.get(row["setup"], False)}  # fmt: skip
