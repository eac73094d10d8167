"""Which groups of meta-features help, which say the same: `python -m benchmarks.metafeature_groups FOLDER`.

FOLDER holds datasets in cls, seg, mil, crowd. The learner and the exams are those of the recommender; what it is told
of the datasets is changed: nothing, all, one group alone, all but one. Writes benchmarks/results/metafeature_groups.md,
.csv and two pictures; `python -m benchmarks.metafeature_docs` then takes the figures into the documentation.
"""

from __future__ import annotations

import argparse
import csv
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from benchmarks import metafeature_redundancy as redundancy
from benchmarks.metafeature_redundancy import GROUPS, Described, columns_of, every_column
from metamed.dataset import KINDS
from metamed.errors import NotApplicable
from metamed.exams import Exam, exam, interval, knn
from metamed.exams.examples import is_own, tables_of
from metamed.exams.reading import read_tables, select
from metamed.exams.scales import normal_scores
from metamed.exams.tables import Columns, Table
from metamed.measures import PRIMARY
from metamed.metalearner import fit_predict
from metamed.store import Store

RESULTS = Path(__file__).parent / "results" / "metafeature_groups.md"
MEASURES = {"tau": "order (weighted tau)", "nreg1": "first pick (nreg@1)", "mae": "expected score (MAE)"}
COMPONENTS, PERMUTATIONS, DRAWS = 5, 2, 2000
RANKERS = {"metamed": fit_predict, "knn": knn}
RENAMED = {"birds_brcr": "birds_brown_creeper", "birds_wiwr": "birds_winter_wren"}
LANDMARKS = "landmarking"
NOTHING, ALL, USED = "nothing", "all groups", "today's learner"


@dataclass(frozen=True)
class Ablation:
    """One table examined again and again, the learner told something else each time."""

    table: Table
    columns: dict[str, int]
    exams: dict[str, Exam]


# --- what the learner is told ---


def ranks_of(table: Table, vectors: dict[str, dict], columns: list[str]) -> Columns:
    """Columns of meta-features over a table's datasets as normal scores of their ranks, 0 where unknown.

    Columns that are unknown for half of the datasets, or the same for all, are left out. No score is seen.
    """
    found = {}
    for column in columns:
        values = np.array([vectors.get(d, {}).get(column, np.nan) for d in table.datasets], np.float64)
        if np.isfinite(values).mean() > 0.5 and np.nanmax(values) > np.nanmin(values):
            found[column] = np.nan_to_num(normal_scores(values[None])[0])
    return found


def components(group: str, ranks: Columns) -> Columns:
    """The first principal components of a group's columns: groups then count alike, however many columns they have."""
    if not ranks:
        return {}
    values = np.array(list(ranks.values())).T
    left, singular, right = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    kept = min(COMPONENTS, int((singular > 1e-9 * singular[0]).sum()))
    signs = np.sign(right[np.arange(kept), np.abs(right[:kept]).argmax(axis=1)])
    return {f"{group} {k + 1}": signs[k] * singular[k] * left[:, k] for k in range(kept)}


def variants(table: Table, vectors: dict[str, dict]) -> dict[str, Table]:
    """Name -> the table with other facts. The sizes that a row was cut to belong to the general group.

    The learner takes quick models' scores for expected scores by a way of their own, `landmarks`: they belong to the
    group of landmarkers.
    """
    sizes = {n: c for n, c in table.facts.items() if n.startswith("log_")}
    groups = {g: ranks_of(table, vectors, columns_of(g)) for g in GROUPS}
    groups["general"] |= {n: np.nan_to_num(normal_scores(c[None])[0]) for n, c in sizes.items()}
    groups = {g: components(g, ranks) for g, ranks in groups.items() if ranks}
    everything = {c: v for facts in groups.values() for c, v in facts.items()}
    blind, whole = replace(table, facts={}, landmarks={}), replace(table, facts=everything)
    found = {NOTHING: blind, USED: table, ALL: whole}
    for g, facts in groups.items():
        found[f"only {g}"] = replace(table if g == LANDMARKS else blind, facts=facts)
    for g, facts in groups.items():
        others = {c: v for c, v in everything.items() if c not in facts}
        found[f"all but {g}"] = replace(blind if g == LANDMARKS else table, facts=others)
    for k in range(PERMUTATIONS):
        order = np.random.default_rng(k).permutation(len(table.datasets))
        moved = ({c: v[order] for c, v in part.items()} for part in (everything, table.landmarks))
        facts, landmarks = moved
        found[f"all, of other datasets ({k + 1})"] = replace(table, facts=facts, landmarks=landmarks)
    return found


def _hold(table: Table) -> Exam:
    return exam(table, RANKERS, beside={})


def examine(table: Table, told: dict[str, Table], pool) -> Ablation:
    """The exam of every variant."""
    exams = dict(zip(told, pool.map(_hold, told.values()), strict=True))
    return Ablation(table, {name: len(t.facts) for name, t in told.items()}, exams)


# --- what came out ---


def change(found: Ablation, name: str, ranker: str, measure: str, against: str = NOTHING) -> tuple:
    """(mean over families of the difference to another variant, its 95 % interval or None)."""
    own, other = (found.exams[n].by_family(ranker, measure) for n in (name, against))
    return float(np.nanmean(own - other)), interval(own - other)


def _figure(value: float, ends: tuple | None) -> str:
    if ends is None:
        return f"{value:+.3f}"
    sure = ends[0] > 0 or ends[1] < 0
    return f"{'**' if sure else ''}{value:+.3f}{'**' if sure else ''} [{ends[0]:+.3f}, {ends[1]:+.3f}]"


def ablation_lines(found: Ablation, ranker: str) -> list[str]:
    """Markdown: what each variant changes, against nothing, and of the 'all but' rows against all groups."""
    plain = " | ".join(f"{found.exams[NOTHING].mean(ranker, m):.3f}" for m in MEASURES)
    lines = ["| told | numbers | " + " | ".join(MEASURES.values()) + " |", "|---" * (len(MEASURES) + 2) + "|",
             f"| {NOTHING} | 0 | {plain} |"]  # fmt: skip
    for name, columns in found.columns.items():
        if name != NOTHING:
            against = ALL if name.startswith("all but") else NOTHING
            cells = [_figure(*change(found, name, ranker, measure, against)) for measure in MEASURES]
            lines.append(f"| {name} | {columns} | {' | '.join(cells)} |")
    return lines


def difficulty(table: Table, vectors: dict[str, dict]) -> tuple[list[tuple[str, str, float]], dict[str, float], int]:
    """(column, outcome, rank correlation) beyond chance; the limit of each outcome; how many columns were looked at.

    Outcomes: the mean score of all setups on a dataset, and what transfer adds to it. The limit is the 95 % quantile of
    the largest correlation over all columns when the outcome is handed to other datasets: it holds for all at once.
    """
    facts = ranks_of(table, vectors, every_column())
    ranks = np.array([rankdata(v) for v in facts.values()])
    ranks = (ranks - ranks.mean(1, keepdims=True)) / ranks.std(1, keepdims=True)
    found, limits = [], {}
    for outcome, values in outcomes(table).items():
        y = rankdata(values)
        y = (y - y.mean()) / y.std()
        rng = np.random.default_rng(0)
        chance = [np.abs(ranks @ rng.permutation(y)).max() / len(y) for _ in range(DRAWS)]
        limits[outcome] = float(np.quantile(chance, 0.95))
        rho = ranks @ y / len(y)
        best = np.argsort(-np.abs(rho), kind="stable")
        found += [(list(facts)[k], outcome, float(rho[k])) for k in best if abs(rho[k]) > limits[outcome]]
    return found, limits, len(facts)


def outcomes(table: Table) -> dict[str, np.ndarray]:
    """What one would like to know of a dataset before anything is run, (n,)."""
    sources = table.descriptors.get("sources", np.full(len(table.items), "", object))
    found = {"mean score": np.nanmean(table.scores, axis=1)}
    if 0 < (sources == "").sum() < len(sources):
        started = np.nanmean(table.scores[:, sources != ""], axis=1)
        found["gain of transfer"] = started - np.nanmean(table.scores[:, sources == ""], axis=1)
    return found


# --- the report ---


def draw(found: Ablation, path: Path) -> None:
    """What each variant changes of the learner's marks, with 95 % intervals, as SVG; to the better is to the right."""
    import matplotlib
    from matplotlib.figure import Figure

    names = [n for n in found.columns if n != NOTHING and "all but" not in n]
    with matplotlib.rc_context({"svg.hashsalt": "metamed", "font.size": 9}):
        drawn = Figure(figsize=(7.5, 0.9 + 0.24 * len(names)), layout="constrained")
        for axes, (measure, title) in zip(drawn.subplots(1, len(MEASURES), sharey=True), MEASURES.items(), strict=True):
            for place, name in enumerate(names):
                value, ends = change(found, name, "metamed", measure)
                colour = "#999999" if "other datasets" in name else "#4477aa"
                axes.plot(ends or (value, value), [place, place], color=colour, linewidth=2)
                axes.plot([value], [place], "o", color="#222222", markersize=4)
            axes.axvline(0, color="#888888", linewidth=0.8)
            axes.set_yticks(range(len(names)), names)
            axes.set_title(title, fontsize=9)
            axes.spines[["top", "right"]].set_visible(False)
            if measure != "tau":
                axes.invert_xaxis()  # less is better
        axes.invert_yaxis()
        drawn.supxlabel("difference to being told nothing of the datasets; right is better", fontsize=9)
        drawn.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def published_bags(facts: Path, described: list[Described]) -> dict[str, Table]:
    """Classic MIL methods on sets of bags that we hold: the one published table whose datasets are all at hand."""
    extra = {"families": facts / "families.csv", "datasets": facts / "datasets.csv"}
    table = select(read_tables(facts / "milpy_classic_mil.csv", **extra), PRIMARY["mil"])
    digests = {d.name: d.digest for d in described}
    names = [RENAMED.get(name, name) for name in table.datasets]
    held = np.array([name in digests for name in names])
    return {"bags (MILpy)": replace(table.rows(held), datasets=tuple(digests[n] for n in names if n in digests))}


def own_tables() -> dict[str, Table]:
    """The own runs that ship, of every kind that has enough of them for an exam."""
    store, found = Store.embedded(), {}
    for kind in KINDS:
        try:
            table = tables_of(store, kind, PRIMARY[kind])[0]
        except NotApplicable:
            continue
        if is_own(table) and len(set(table.families)) > 4:
            found[kind] = table
    return found


def report(alike: redundancy.Map, ablations: dict[str, Ablation], vectors: dict[str, dict]) -> str:
    """Everything as one Markdown document."""
    same = [cluster for cluster in redundancy.clusters(alike) if len(cluster) > 1]
    parts = [HEAD.format(datasets=alike.datasets["all"], same=redundancy.SAME)]
    parts += redundancy.table(alike)
    parts += [f"\n### Columns that say the same ({len(same)} clusters)\n", *(f"* {', '.join(c)}" for c in same)]
    parts.append(ABLATION)
    for kind, found in ablations.items():
        t, count = found.table, (len(found.columns) - 1) * len(MEASURES)
        size = f"{len(t.items)} items, {len(t.datasets)} datasets, {len(set(t.families))} families"
        parts.append(f"\n### {kind}: {size}\n\n{count} intervals a ranker: about {count / 20:.0f} exclude 0 by chance.")
        for ranker in RANKERS:
            parts += [f"\n#### {ranker}\n", *ablation_lines(found, ranker)]
        parts += difficulty_lines(t, vectors)
    return "\n".join(parts) + "\n"


def difficulty_lines(table: Table, vectors: dict[str, dict]) -> list[str]:
    """Markdown: the columns that tell an outcome better than chance could."""
    beyond, limits, looked = difficulty(table, vectors)
    said = ", ".join(f"{limit:.2f} for the {outcome}" for outcome, limit in limits.items())
    head = ["\n#### What tells how hard a dataset is\n\nRank correlations beyond what chance gives the largest of "
            f"{looked} columns in one of twenty tries ({said}).\n"]
    rows = [f"| `{column}` | {outcome} | {rho:+.2f} |" for column, outcome, rho in beyond]
    return head + (["| column | outcome | rank correlation |", "|---|---|---|", *rows] if rows else ["None of them."])


HEAD = """# Meta-features by group: which say the same, which help

Made by `python -m benchmarks.metafeature_groups FOLDER --facts FACTS`; nothing in this file is edited by hand.

## Redundancy over {datasets} datasets

Spearman's rank correlation over the datasets that have both columns (at least 8; 20 for columns of two groups). The
effective number is the exponential of the entropy of the correlation matrix' eigenvalues; it cannot exceed the number
of datasets. Columns of one cluster correlate at {same} on average, without sign (average linkage). Crowd columns are
known of too few datasets.

![Correlations of meta-features](metafeature_correlations.svg)

"""
ABLATION = """
## Ablation

One family of datasets is left out at a time, as in every exam; the learner is told other facts each time. A group is
its first five principal components over the datasets (of the ranks of its columns), so that groups count alike.
Brackets are 95 % bootstrap intervals over families, bold ones exclude 0. nreg@1 and MAE: less is better. "all but"
rows are compared with all groups, the others with nothing. "of other datasets": handed to other datasets, the control.
Landmarkers and class structure know the labels of every image of a dataset; its runs learned from a part of them.

![Differences to being told nothing](metafeature_groups.svg)
"""


def write_csv(ablations: dict[str, Ablation], path: Path) -> None:
    """Every difference with its interval, a row each: what the documentation is made from."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("kind", "families", "ranker", "told", "columns", "measure", "against", "value", "low", "high"))
        for kind, found in ablations.items():
            for ranker in RANKERS:
                for name, columns in found.columns.items():
                    against = ALL if name.startswith("all but") else NOTHING
                    for measure in MEASURES:
                        value, ends = change(found, name, ranker, measure, against)
                        figures = [f"{x:.4f}" for x in (value, *(ends or (np.nan, np.nan)))]
                        families = len(set(found.table.families))
                        writer.writerow((kind, families, ranker, name, columns, measure, against, *figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--facts", type=Path, help="folder of published result tables: adds the one on bags")
    parser.add_argument("--jobs", type=int, default=1, help="processes that work at once")
    options = parser.parse_args()
    described = redundancy.describe(options.folder)
    vectors = Store.embedded().measured() | {d.digest: d.vector for d in described}
    tables = own_tables() | (published_bags(options.facts, described) if options.facts else {})
    with ProcessPoolExecutor(options.jobs) as pool:
        ablations = {kind: examine(t, variants(t, vectors), pool) for kind, t in tables.items()}
    alike = redundancy.correlations(described)
    redundancy.picture(alike, RESULTS.with_name("metafeature_correlations.svg"))
    draw(next(iter(ablations.values())), RESULTS.with_suffix(".svg"))
    write_csv(ablations, RESULTS.with_suffix(".csv"))
    redundancy.write_csv(alike, RESULTS.with_name("metafeature_redundancy.csv"))
    RESULTS.write_text(report(alike, ablations, vectors), encoding="utf-8")
    print(f"written to {RESULTS} after {sum(os.times()[:4]) / 60:.1f} CPU minutes")


if __name__ == "__main__":
    main()
