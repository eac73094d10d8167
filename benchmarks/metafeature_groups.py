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
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from benchmarks import metafeature_redundancy as redundancy
from benchmarks.metafeature_ablation import ALL, NOTHING, RANKERS, Ablation, examine, ranks_of
from benchmarks.metafeature_redundancy import GROUPS, Described, Map, every_column
from metamed.dataset import KINDS
from metamed.errors import NotApplicable
from metamed.exams import interval, judged
from metamed.exams.examples import is_own, tables_of
from metamed.exams.reading import read_tables, select
from metamed.exams.tables import Table
from metamed.measures import PRIMARY
from metamed.store import Store

RESULTS = Path(__file__).parent / "results" / "metafeature_groups.md"
MEASURES = {"tau": "order (weighted tau)", "nreg1": "first pick (nreg@1)", "mae": "expected score (MAE)"}
DRAWS = 2000
RENAMED = {"birds_brcr": "birds_brown_creeper", "birds_wiwr": "birds_winter_wren"}


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

    Outcomes, one number a family: how well all setups do on it, and what transfer adds. The limit is the 95 % quantile
    of the largest correlation over all columns when the outcome is handed to other families: it holds for all at once.
    """
    table = table.rows(judged(table) & np.isin(np.array(table.datasets, object), list(vectors)))
    facts = ranks_of(table, vectors, every_column())
    columns = _by_family(table, np.array(list(facts.values())))
    found, limits = [], {}
    for outcome, values in outcomes(table).items():
        values = _by_family(table, values[None])
        known = np.isfinite(values[0])
        ranks, y = _ranks(columns[:, known]), _ranks(values[:, known])[0]
        rng = np.random.default_rng(0)
        chance = [np.abs(ranks @ rng.permutation(y)).max() / len(y) for _ in range(DRAWS)]
        limits[outcome] = float(np.quantile(chance, 0.95))
        rho = ranks @ y / len(y)
        best = np.argsort(-np.abs(rho), kind="stable")
        found += [(list(facts)[k], outcome, float(rho[k])) for k in best if abs(rho[k]) > limits[outcome]]
    return found, limits, len(facts)


def _by_family(table: Table, values: np.ndarray) -> np.ndarray:
    """Means of what is known over the rows of each family: (k, rows) to (k, families)."""
    families = np.array(table.families, object)
    return np.stack([_mean(values[:, families == f], 1) for f in dict.fromkeys(table.families)], axis=1)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks in each row, of mean 0 and deviation 1; 0 where all are equal."""
    ranks = rankdata(values, axis=1)
    spread = ranks.std(axis=1, keepdims=True)
    return (ranks - ranks.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, np.inf)


def outcomes(table: Table) -> dict[str, np.ndarray]:
    """What one would like to know of a dataset before anything is run, of each row; NaN where it was not run."""
    sources = table.descriptors.get("sources", np.full(len(table.items), "", object))
    started = [_levels(table.scores[:, part]) for part in (sources != "", sources == "") if part.any()]
    found = {"level of scores": _levels(table.scores)}
    return found | ({"gain of transfer": started[0] - started[1]} if len(started) == 2 else {})


def _levels(scores: np.ndarray) -> np.ndarray:
    """How well everything does on each row, whatever was run there: the rows' effects beside those of the items."""
    items = np.zeros(scores.shape[1])
    for _ in range(100):
        rows = _mean(scores - items, 1)
        items = np.nan_to_num(_mean(scores - rows[:, None], 0))
    return rows


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is known, NaN where nothing is."""
    count = np.isfinite(values).sum(axis=axis)
    return np.where(count, np.nansum(values, axis=axis) / np.maximum(count, 1), np.nan)


# --- the report ---


def draw(ablations: dict[str, Ablation], path: Path) -> None:
    """What each variant changes of the learner's marks, with 95 % intervals, as SVG; to the better is to the right."""
    import matplotlib
    from matplotlib.figure import Figure

    shown = {k: [n for n in a.columns if n != NOTHING and "all but" not in n] for k, a in ablations.items()}
    heights = [len(names) for names in shown.values()]
    with matplotlib.rc_context({"svg.hashsalt": "metamed", "font.size": 9}):
        drawn = Figure(figsize=(7.5, 1 + 0.24 * sum(heights) + 0.3 * len(shown)), layout="constrained")
        grid = drawn.subplots(len(shown), len(MEASURES), squeeze=False, sharey="row", height_ratios=heights)
        for row, (kind, names) in zip(grid, shown.items(), strict=True):
            for axes, (measure, title) in zip(row, MEASURES.items(), strict=True):
                _draw_changes(axes, ablations[kind], names, measure)
                axes.set_title(title if axes is not row[0] else f"{kind}: {title}", fontsize=9, loc="right")
            row[0].set_yticks(range(len(names)), names)
            row[0].invert_yaxis()
        drawn.supxlabel("difference to being told nothing of the datasets; right is better", fontsize=9)
        drawn.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _draw_changes(axes, found: Ablation, names: list[str], measure: str) -> None:
    for place, name in enumerate(names):
        value, ends = change(found, name, "metamed", measure)
        colour = "#999999" if "other datasets" in name else "#4477aa"
        axes.plot(ends or (value, value), [place, place], color=colour, linewidth=2)
        axes.plot([value], [place], "o", color="#222222", markersize=4)
    axes.axvline(0, color="#888888", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    if measure != "tau":
        axes.invert_xaxis()  # less is better


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


def report(alike: Map, pairs: Map, ablations: dict[str, Ablation], vectors: dict[str, dict]) -> str:
    """Everything as one Markdown document."""
    parts = [HEAD.format(datasets=alike.datasets["all"], same=redundancy.SAME)]
    parts += redundancy.table(redundancy.summary(alike) + redundancy.summary(pairs))
    for said, found in (("Columns", alike), ("Pair meta-features", pairs)):
        same = [cluster for cluster in redundancy.clusters(found) if len(cluster) > 1]
        parts += [f"\n### {said} that say the same ({len(same)} clusters)\n", *(f"* {', '.join(c)}" for c in same)]
    parts += [ABLATION, *known_lines(ablations)]
    for kind, found in ablations.items():
        t, count = found.table, (len(found.columns) - 1) * len(MEASURES)
        size = f"{len(t.items)} items, {found.asked} datasets, {_families(found)} families"
        parts.append(f"\n### {kind}: {size}\n\n{count} intervals a ranker: about {count / 20:.0f} exclude 0 by chance.")
        for ranker in RANKERS:
            parts += [f"\n#### {ranker}\n", *ablation_lines(found, ranker)]
        parts += difficulty_lines(t, vectors)
    return "\n".join(parts) + "\n"


def _families(found: Ablation) -> int:
    return len(set(found.exams[NOTHING].families))


def known_lines(ablations: dict[str, Ablation]) -> list[str]:
    """Markdown: of how many of an exam's datasets each group is known."""
    lines = [f"| group | {' | '.join(ablations)} |", "|---" * (len(ablations) + 1) + "|"]
    for group in GROUPS:
        cells = [(*found.known[group], found.asked) for found in ablations.values()]
        said = [f"{known} of {asked}{'' if told else ', left out'}" for known, told, asked in cells]
        lines.append(f"| {group} | {' | '.join(said)} |")
    return lines


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
of datasets. Columns of one cluster correlate at {same} on average, without sign (average linkage). Pair meta-features
are compared over all pairs of a source and a target that have both.

![Correlations of meta-features](metafeature_correlations.svg)

"""
ABLATION = """
## Ablation

One family of datasets is left out at a time, as in every exam; the learner is told other facts each time. A group is
its first five principal components over the datasets (of the ranks of its columns), so that groups count alike.
Brackets are 95 % bootstrap intervals over families, bold ones exclude 0. nreg@1 and MAE: less is better. "all but"
rows are compared with all groups, the others with nothing. "of other datasets": handed to other datasets, the control.
Landmarkers and class structure know the labels of every image of a dataset; its runs learned from a part of them.
Deep columns are those of ImageNet's MobileNetV2 at 96 pixels, which is also a source of some runs. Which pair
meta-features help is a question of sources: docs/choosing-a-source.md.

![Differences to being told nothing](metafeature_groups.svg)

A group is left out of an exam where no column of it is known of more than half of its rows; it then says nothing here.

"""


def write_known(ablations: dict[str, Ablation], path: Path) -> None:
    """Of how many datasets of each exam a group is known, and how many columns of it the learner can be told."""
    rows = [(kind, g, *found.known[g], found.asked) for kind, found in ablations.items() for g in GROUPS]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("kind", "group", "known", "columns", "datasets"), *rows])


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
                        writer.writerow((kind, _families(found), ranker, name, columns, measure, against, *figures))


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
        ablations = {kind: examine(t, vectors, pool) for kind, t in tables.items()}
    write_all(described, ablations, vectors)
    print(f"written to {RESULTS} after {sum(os.times()[:4]) / 60:.1f} CPU minutes")


def write_all(described: list[Described], ablations: dict[str, Ablation], vectors: dict[str, dict]) -> None:
    """The report, its two pictures, and the tables that the documentation is made from."""
    alike, pairs = redundancy.correlations(described), redundancy.pair_correlations(described)
    redundancy.picture(alike, RESULTS.with_name("metafeature_correlations.svg"))
    draw(ablations, RESULTS.with_suffix(".svg"))
    write_csv(ablations, RESULTS.with_suffix(".csv"))
    write_known(ablations, RESULTS.with_name("metafeature_known.csv"))
    rows = redundancy.summary(alike) + redundancy.summary(pairs)
    redundancy.write_csv(rows, RESULTS.with_name("metafeature_redundancy.csv"))
    RESULTS.write_text(report(alike, pairs, ablations, vectors), encoding="utf-8")


if __name__ == "__main__":
    main()
