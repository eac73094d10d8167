"""Four ideas for the order, each beside the learner as it ships: `python -m benchmarks.ideas --facts DIR --store S`.

Everything is learned without the family that is asked about. An idea adds a value, in standard deviations of the order,
to what the learner says; counted is what that does to weighted tau and nreg@1.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.exams import published_tables, tables_aside
from metamed.ensembles import stored
from metamed.errors import MetamedError
from metamed.exams import interval, judged, plain_list, regret, weighted_tau
from metamed.exams.examples import tables_of
from metamed.exams.scales import common_scale, family_weights, normal_scores, standardise, weighted_mean
from metamed.exams.tables import Table
from metamed.measures import binary_auc
from metamed.metalearner import fit_predict
from metamed.metalearner.correctors import base_of, gaussian_process, matched, spectra
from metamed.metalearner.levels import link
from metamed.metalearner.told import moved_by_runs
from metamed.metalearner.trees import evaluate, grow
from metamed.store import Store

RESULTS = Path(__file__).parent / "results" / "ideas.md"
OWN = "own runs"
ASKED = ("networks", "G3 acc", "G3 auc", "G3n acc", "G3n auc", "G4", "G4d", "G5 PathBench", "G5 classic MIL",
         "nnU-Net revisited")  # fmt: skip
MOST_ITEMS = 500  # of a table that others learn from
Rows = list[tuple[Table, Table, np.ndarray]]  # without a family, that family, what the learner says of it


def asked(table: Table) -> Rows:
    """Every family in turn, with the learner's order for it."""
    asked_about = judged(table)
    pairs = [(table.rows(~f), table.rows(f & asked_about)) for f in table.family_folds() if (f & asked_about).any()]
    return [(train, target, fit_predict(train, target.hidden()).order) for train, target in pairs]


def gains(rows: Rows, moved: Callable[[Table, Table, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """(families, 2): tau and nreg@1 of the moved order minus those of the learner's, on the items that count."""
    found = []
    for train, target, order in rows:
        new, counted = moved(train, target, standardise(order))
        each = [_apart(s[c], n[c], o[c]) for s, n, o, c in
                zip(target.scores, new, standardise(order), counted & np.isfinite(target.scores), strict=True)
                if c.sum() > 2]  # fmt: skip
        if each:
            found.append(np.mean(each, axis=0))
    return np.array(found).reshape(-1, 2)


def _apart(truth: np.ndarray, new: np.ndarray, old: np.ndarray) -> tuple[float, float]:
    width = np.ptp(truth) or 1.0
    return weighted_tau(truth, new) - weighted_tau(truth, old), (regret(truth, new) - regret(truth, old)) / width


# ---- 1. datasets by how classifiers behave on their classes


def behaviour(store: Store, setups: set[str], find: Callable[[str], np.ndarray | None]) -> dict[str, np.ndarray]:
    """Dataset -> mean, spread and worst of the classes' AUC as logits, by setup; of setups that ran on all of them.

    find: target of a dataset by its digest.
    """
    found: dict[str, dict[str, list]] = {}
    tasks = {task.id: task for task in store.records("task")}
    for run in store.runs():
        task = tasks[run.task]
        if run.error or run.setup not in setups or task.size != 200 or (target := find(task.digest)) is None:
            continue
        if (kept := stored(run, store)) is not None:
            truth = target[kept["test_index"]]
            auc = [binary_auc(truth == k, p) for k, p in enumerate(kept["test"].T)]
            found.setdefault(task.digest, {}).setdefault(run.setup, []).append(np.nan_to_num(auc, nan=0.5))
    common = sorted(set.intersection(*(set(v) for v in found.values())))
    return {d: _profile(np.array([link(np.mean(v[s], axis=0), True) for s in common])) for d, v in found.items()}


def _profile(logits: np.ndarray) -> np.ndarray:
    """(setups, classes) -> mean, spread and worst class of each setup beside those of the others."""
    parts = (logits.mean(1), logits.std(1), logits.min(1))
    return np.concatenate([part - part.mean() for part in parts])


DIRECTIONS, WEIGHT = 3, 0.5


def by_behaviour(profiles: dict[str, np.ndarray], vectors: dict[str, np.ndarray] | None):
    """A Gaussian process over three directions of the profiles; vectors: meta-features that the target's place is told
    from by ridge regression, None: it is taken from the target's own runs, which only shows what could be had."""

    def moved(train: Table, target: Table, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        known = np.array([d in profiles for d in train.datasets])
        names = [d for d, k in zip(train.datasets, known, strict=True) if k]
        profile = np.array([profiles[d] for d in names])
        directions = np.linalg.svd(profile - profile.mean(0), full_matrices=False)[2][:DIRECTIONS]
        place = (profile - profile.mean(0)) @ directions.T
        there = np.array([d in profiles for d in target.datasets])
        if vectors is None:
            mine = [profiles.get(d, profile.mean(0)) - profile.mean(0) for d in target.datasets]
            mine = np.array(mine) @ directions.T
        else:
            mine = _ridge(np.array([vectors[d] for d in names]), place, np.array([vectors[d] for d in target.datasets]))
        own, near = (_near(a, place, place.std(0)) for a in (place, mine))
        rows = train.rows(known)
        weights = family_weights(rows.families, 1.0)
        scale = matched(common_scale(rows.scores), weights)
        residual = np.nan_to_num(scale - weighted_mean(scale, weights))
        added = gaussian_process(near, own, spectra(train.descriptors, len(train.items))[0], residual, 1.0)
        return order + WEIGHT * added, np.broadcast_to(there[:, None], order.shape)

    return moved


def _near(a: np.ndarray, b: np.ndarray, sd: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * (((a[:, None] - b) / np.maximum(sd, 1e-9)) ** 2).mean(2))


def _ridge(known: np.ndarray, place: np.ndarray, asked: np.ndarray) -> np.ndarray:
    use = np.array([len(set(column[np.isfinite(column)])) > 1 for column in known.T])
    mean, sd = np.nanmean(known[:, use], 0), np.nanstd(known[:, use], 0)
    x, z = (np.clip(np.nan_to_num((a[:, use] - mean) / sd), -3, 3) / use.sum() ** 0.5 for a in (known, asked))
    return z @ x.T @ np.linalg.solve(x @ x.T + np.eye(len(x)), place)


# ---- 2. a network that other studies have seen


NETWORK = re.compile(r"alexnet|vgg|resnet|densenet|efficientnet|mobilenet|googlenet|mnasnet|shufflenet|convnext|vit|nnu-?net", re.I)  # fmt: skip  # noqa: E501


def networks_of(table: Table) -> np.ndarray:
    """The family of networks that each item belongs to, "" where none is told."""
    words = table.descriptors.get("method.0", np.full(len(table.items), "", dtype=object))
    return np.array([(m[0].lower() if (m := NETWORK.search(str(word))) else "") for word in words], dtype=object)


def by_others(tables: dict[str, Table], name: str, weight: float):
    """The mean normal score of an item's family of networks in other studies, without the target's family."""
    others = list({_study(t): t for t in tables.values() if _study(t) != _study(tables[name])}.values())

    def moved(train: Table, target: Table, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        merit: dict[str, list] = {}
        for table in others:
            table = table.rows(~np.isin(np.array(table.families, dtype=object), target.families))
            if len(table.datasets) > 1:
                weights = family_weights(table.families, 1.0)
                means, networks = weighted_mean(normal_scores(table.scores), weights), networks_of(table)
                for network in set(networks) - {""}:
                    merit.setdefault(network, []).append((means[networks == network].mean(), weights.sum()))
        value = {n: np.average([m for m, _ in v], weights=[w for _, w in v]) for n, v in merit.items()}
        told = np.array([[value.get(n, np.nan) for n in networks_of(target)]])
        added = np.nan_to_num(standardise(told)) if np.isfinite(told).sum() > 1 else np.zeros(told.shape)
        return order + weight * added, np.ones(order.shape, bool)

    return moved


def _study(table: Table) -> str:
    return table.name.split()[0]


# ---- 3. trees that learned from other studies


GENERAL = ("gp_weak", "gp_strong", "interactions", "low_rank")
FACTS = ("log_n", "log_classes", "log_per_class")


def general_features(train: Table, target: Table) -> np.ndarray:
    """What means the same in every table: (k, m, p)."""
    base = base_of(train, target)
    shape, places = base.order.shape, {n: i for i, n in enumerate(base.names)}
    scale = matched(common_scale(train.scores), family_weights(train.families, 1.0))
    counts = np.isfinite(train.scores).sum(0)
    spread = np.array([np.nanstd(c) if n > 1 else np.nan for c, n in zip(scale.T, counts, strict=True)])
    columns = [standardise(base.list), *(base.features[:, :, places[n]] if n in places else 0.0 for n in GENERAL)]
    columns += [spread, np.log(np.maximum(counts, 1)), np.log(shape[1]), np.log(len(set(train.families)))]
    columns += [target.facts.get(n, np.full(shape[0], np.nan))[:, None] for n in FACTS]
    features = np.stack([np.broadcast_to(c, shape) for c in columns], axis=2).astype(float)
    return np.where(np.isfinite(features), features, np.nan)


def departures(table: Table) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Of every family: its features and how far its items lie from the list, cross-fitted."""
    for fold in table.family_folds():
        train, target = table.rows(~fold), table.rows(fold)
        if len(set(train.families)) > 1:
            apart = common_scale(target.scores) - standardise(base_of(train, target.hidden()).list)
            there = np.isfinite(apart)
            yield target.families[0], general_features(train, target.hidden())[there], apart[there]


def by_studies(tables: dict[str, Table], learned: dict[str, list], name: str, weight: float):
    """Trees on the departures from the list in all other studies, without the target's family."""
    others = [row for n, rows in learned.items() if _study(tables[n]) != _study(tables[name]) for row in rows]
    kept: dict[bool | str, tuple] = {}

    def moved(train: Table, target: Table, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = [r for r in others if r[0] not in target.families]
        key = target.families[0] if len(rows) < len(others) else True
        if key not in kept:
            x, y = np.concatenate([r[1] for r in rows]), np.concatenate([r[2] for r in rows])
            weights = np.concatenate([np.full(len(r[2]), 1000 / len(r[2])) for r in rows])
            kept[key] = grow(x, y, weights, range(3))
        added = evaluate(kept[key], general_features(train, target.hidden()))
        return order + weight * added, np.ones(order.shape, bool)

    return moved


# ---- 4. runs on the target


def by_runs(k: int):
    """What k setups reached on the target, spread evenly over the prior list, moves the order of all others."""

    def moved(train: Table, target: Table, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        told, plain = target.hidden(), plain_list(train, target)[0]
        scores = told.scores.copy()
        for row, truth in zip(scores, target.scores, strict=True):
            there = np.flatnonzero(np.isfinite(truth))
            listed = there[np.argsort(-plain[there], kind="stable")]
            shown = listed[np.linspace(0, len(listed) - 1, k).astype(int)]
            row[shown] = truth[shown]
        return moved_by_runs(order, train, replace(told, scores=scores)), ~np.isfinite(scores)

    return moved


# ---- the page


def line(name: str, found: np.ndarray) -> str:
    if len(found) < 3:
        return ""
    cells = [f"{v.mean():+.3f} [{low:+.3f}, {high:+.3f}]" for v in found.T for low, high in [interval(v)]]
    return f"| {name} | {len(found)} | {' | '.join(cells)} |"


HEAD = "| exam | families | tau | nreg@1 |\n|---|---|---|---|"


def _section(title: str, words: str, lines: list[str]) -> str:
    return "\n".join([f"## {title}\n", words + "\n", HEAD, *filter(None, lines)]) + "\n"


def targets(folder: Path) -> Callable[[str], np.ndarray | None]:
    """Targets of the datasets in a folder, by digest."""
    from metamed.readers import read

    known = {data.digest: data.target for data in map(read, sorted(folder.glob("*.h5")))}
    return known.get


def report(facts: Path, store: Path, data: Path, command: str) -> str:
    evidence = Store.embedded()
    tables = published_tables(facts) | {OWN: tables_of(evidence, "classification", "auc")[0]}
    rows = {name: asked(tables[name]) for name in (OWN, *ASKED)}
    wider = {n: t for n, t in (tables | tables_aside(facts)).items() if n in rows or len(t.items) < MOST_ITEMS}
    wider = {n: t for n, t in wider.items() if n == "networks" or not t.hints}
    learned = {name: list(departures(table)) for name, table in wider.items()}
    own = tables[OWN]
    profiles = behaviour(Store(store), set(own.items), targets(data))
    known = evidence.vectors()
    names = sorted({n for d in own.datasets for n in known[d]})
    vectors = {d: np.array([known[d].get(n, np.nan) for n in names]) for d in own.datasets}
    return "\n".join([
        INTRODUCTION.format(command=command),
        _section("1. Datasets by how setups behave on their classes", BEHAVIOUR, [
            line("own runs, place told by meta-features", gains(rows[OWN], by_behaviour(profiles, vectors))),
            line("own runs, place taken from runs on the target", gains(rows[OWN], by_behaviour(profiles, None)))]),
        _section("2. A network seen in several studies is one network", OTHERS, [
            line(f"{name}, weight {w}", gains(rows[name], by_others(wider, name, w)))
            for w in (0.1, 0.4) for name in ASKED if NETWORK.search(" ".join(map(str, networks_of(tables[name]))))]),
        _section("3. Trees that learned from other studies", STUDIES, [
            line(f"{name}, weight {w}", gains(rows[name], by_studies(wider, learned, name, w)))
            for w in (0.25, 1.0) for name in rows]),
        _section("4. Runs on the target", RUNS, [
            line(f"{name}, {k} runs", gains(rows[name], by_runs(k)))
            for k in (3, 5) for name in rows if len(tables[name].items) > k + 2]),
    ])  # fmt: skip


INTRODUCTION = """# Four ideas for the order

Made by `{command}`;
nothing in this file is edited by hand. Differences to the learner without the idea, families left out, means over
families with 95 % bootstrap intervals; nreg@1: less is better. Only the fourth is in the learner. Of nine
values of its two constants that were looked at, on own runs and on these tables, those stand that were surest on own
runs; of the others a few weights were looked at, and a small and a large one are shown.
"""
BEHAVIOUR = """AUC of each class by the setups that ran on every dataset (200 labelled images), as a profile of the
dataset. Meta-features do not tell a new dataset's profile well enough to help; runs on it do (that row only shows what
could be had: the profile comes from the very test images that are judged)."""
OTHERS = """The merit of an item's family of networks in other studies, added to the order. Little weight
gains on one table (nnU-Net revisited) and nothing elsewhere; much weight surely loses on two."""
STUDIES = """XGBoost's trees on the departures from the list in all other studies, on features that mean the same
everywhere (list, corrections, spread, sizes). What is gained on some tables is lost on others."""
RUNS = """Scores of k setups, spread evenly over the prior list, are told; counted are the others. The learner moves
their order so (`metamed/metalearner/told.py`): run a few setups, then ask again."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=Path, required=True, help="folder of result tables")
    parser.add_argument("--store", type=Path, required=True, help="store of own runs with their predictions")
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets of these runs")
    given = parser.parse_args()
    if not given.store.exists():
        raise MetamedError(f"{given.store}: no such store; its predictions are needed")
    command = "python -m benchmarks.ideas --facts DIR --store STORE --data DIR"
    RESULTS.write_text(report(given.facts, given.store, given.data, command), encoding="utf-8")


if __name__ == "__main__":
    main()
