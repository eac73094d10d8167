"""Write docs/meta-features.md from the docstrings: `python -m benchmarks.metafeature_docs`."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from functools import reduce
from pathlib import Path
from textwrap import fill

from metamed.dataset import KINDS
from metamed.metafeatures import METAFEATURES, PAIR_METAFEATURES, MetaFeature, PairMetaFeature, facts_of
from metamed.metafeatures.distances import DISTANCES
from metamed.metafeatures.transferability import SCORES

PAGE = Path(__file__).parent.parent / "docs" / "meta-features.md"
HEAD = """# Meta-features

*Generated from the docstrings by `python -m benchmarks.metafeature_docs`; do not edit.*

`metamed.extract(dataset)` gives one number per column, the same columns for every dataset. A feature measured on each
image (or fold) makes two columns, `name.mean` and `name.sd`; the others make one, `name`. Where what a feature *needs*
is missing, its value is NaN.

**Scale.** Grey levels lie in 0-1: uint8 over 255, uint16 over 65535, anything else by the smallest and largest value
of the sample where they leave 0-1. Colour becomes grey by ITU-R 601 luma. So 8 and 16 bit copies of the same images,
and grey images stored as RGB, have the same values (but for `bit_depth`, `n_channels`, `n_features` and
`dimensionality`). Histograms and local patterns see 256 levels, co-occurrence 32.

{overview}
**Sample.** At most `max_samples` images are looked at (all of them up to that many, and then their order does not
matter). Volumes are seen on their middle slice. Distances and landmarkers use at most 2000 samples, as 16 x 16
thumbnails, as standardised feature vectors, or as means of bags. Of multi-label targets they use the label nearest
to half prevalence.

`max_samples=None` looks at every image; only what grows with the square of the samples keeps to its 2000. Instances of
bags are compared in whole bags, at most 2500 of them and 40 of a bag.

On the command line a sample is said, with the standard error of its means; `metamed features --max-samples 0` looks at
all.

**Deep features** are left out unless asked for (`extract(..., deep=True, embed=...)`, `metamed features --deep`): they
need a frozen network, `embed=metamed.sources.embedder()`, or embeddings that are already there, an array with a row for
each image. At most 2000 images are embedded.

**Cost.** *facts*: no pixel is read; *pixels*: one pass over the sample; *distances*: a distance matrix; *models*:
five quick fits; *network*: a pass through a frozen network; *stored vectors*: nothing but two rows of the store.

{error}

{science}
"""

ERROR = """## What a sample costs

Error against all images, over the deviation of the column over the datasets: median (90 %
quantile) over datasets and columns. `python -m benchmarks.metafeature_error FOLDER` measures it. The default sample of
5000 is larger than any of these; errors of means fall with its root. Landmarkers and bags suffer most, because they
learn from the sample: compare them only between samples of one size.

"""
HELP = """## Which help

The recommender's learner was examined, one family of datasets left out at a time, while it was told one group alone, as
five numbers, or all of them. Differences to being told nothing, with 95 % intervals over families; bold ones exclude 0,
one in twenty of them by chance. "Of other datasets" is the control, the same numbers handed to other datasets. Less is
better for the first pick and the error of the expected score. A group that is known on half of an exam's rows or fewer
is no part of it. Only "today's learner" is told the number of samples as such: its gain in order is that of the prior
list, in which runs near that number count most. What pair meta-features are worth is measured in
[choosing-a-source.md](choosing-a-source.md).

![Differences to being told nothing](../benchmarks/results/metafeature_groups.svg)

"""
EXAM = "**{kind}** ({families} families). {surely}"
SAME = """## Which say the same

Rank correlations over {datasets} real datasets: the {columns} columns spread like {effective} unrelated ones; averaged
|correlation| above 0.9 makes {clusters} clusters of them. So a learner on few datasets wants a few numbers a group
(principal components, or one column a cluster), not all columns.

![Correlations of meta-features](../benchmarks/results/metafeature_correlations.svg)

"""
MORE = """[metafeature_groups.md](../benchmarks/results/metafeature_groups.md) lists the clusters, leaves each group out
of all, examines nearest neighbours too, and names the columns that tell how hard a dataset is. `python -m
benchmarks.metafeature_groups FOLDER` makes it."""
MEASURES = {"tau": "order (weighted tau)", "nreg1": "first pick (nreg@1)", "mae": "expected score (MAE)"}
BETTER = {"tau": 1, "nreg1": -1, "mae": -1}
TABLES = (
    ("Distances of two tables", "`metamed.metafeatures.distances.compare_tables(source, target)` takes a table of each "
     "dataset: a row an image, columns its embedding or its statistics.", DISTANCES),
    ("Scores of a source on a target", "`metamed.metafeatures.transferability.transfer_scores(embeddings, labels)` "
     "takes the target's embeddings by the source's frozen network. Higher is better.", SCORES),
)  # fmt: skip


def _results(name: str) -> list[dict[str, str]]:
    with (PAGE.parent.parent / "benchmarks" / "results" / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def science() -> str:
    """Which groups help in each exam and which columns say the same, from the measured tables."""
    rows = [r for r in _results("metafeature_groups.csv") if r["told"] != "nothing" and "all but" not in r["told"]]
    exams = [_exam([r for r in rows if r["kind"] == kind]) for kind in dict.fromkeys(r["kind"] for r in rows)]
    whole = _results("metafeature_redundancy.csv")
    groups = ["| group | datasets | columns | effective number | clusters |", "|---|---|---|---|---|"]
    groups += [f"| {' | '.join(row.values())} |" for row in whole]
    same = SAME.format(**next(row for row in whole if row["group"] == "all")) + "\n".join(groups)
    return "\n\n".join([HELP + "\n\n".join(exams), same, MORE])


def _exam(rows: list[dict[str, str]]) -> str:
    """What one exam says: what changed beyond doubt, and a table."""
    rows, neighbours = ([r for r in rows if r["ranker"] == ranker] for ranker in ("metamed", "knn"))
    cells = {(r["told"], r["measure"]): r for r in rows}
    lines = [f"| told | {' | '.join(MEASURES.values())} |", "|---" * (len(MEASURES) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(_cell(cells[name, m]) for m in MEASURES)} |"
              for name in dict.fromkeys(r["told"] for r in rows)]  # fmt: skip
    return fill(EXAM.format(**rows[0], surely=_surely(rows, neighbours)), 120) + "\n\n" + "\n".join(lines)


def _sure(row: dict[str, str]) -> int:
    """1 if the interval lies on the better side of 0, -1 if on the worse, 0 if it holds 0 or is not known."""
    low, high = (BETTER[row["measure"]] * float(row[end]) for end in ("low", "high"))
    return int(min(low, high) > 0) - int(max(low, high) < 0)


def _cell(row: dict[str, str]) -> str:
    bold = "**" if _sure(row) else ""
    value, low, high = (f"{float(row[name]):+.3f}" for name in ("value", "low", "high"))
    return f"{bold}{value}{bold} [{low}, {high}]"


def _surely(rows: list[dict[str, str]], neighbours: list[dict[str, str]]) -> str:
    """Told what, which mark changed beyond doubt, and what nearest neighbours confirm."""
    both = [a for a, b in zip(rows, neighbours, strict=True) if _sure(a) == _sure(b) == 1]
    parts = {"Surely better": [r for r in rows if _sure(r) == 1], "Surely worse": [r for r in rows if _sure(r) == -1],
             "Better with nearest neighbours in place of the learner too": both}  # fmt: skip
    return " ".join(f"{word}: {_listed(found) or 'none'}." for word, found in parts.items())


def _listed(rows: list[dict[str, str]]) -> str:
    told = {m: [r["told"] for r in rows if r["measure"] == m] for m in MEASURES}
    return "; ".join(f"{MEASURES[m]} with {', '.join(names)}" for m, names in told.items() if names)


def error_table() -> str:
    """The measured error of subsamples, a group a row, a size a column."""
    rows = _results("metafeature_error.csv")
    found = {(r["group"], r["samples"]): f"{r['median']} ({r['quantile90']})" for r in rows}
    sizes = list(dict.fromkeys(size for _, size in found))
    lines = [f"| group | {' | '.join(f'{size} samples' for size in sizes)} |", "|---" * (len(sizes) + 1) + "|"]
    groups = dict.fromkeys(group for group, _ in found)
    lines += [f"| {g} | {' | '.join(found.get((g, size), '') for size in sizes)} |" for g in groups]
    return ERROR + "\n".join(lines)


def rows(features: Iterable[MetaFeature | PairMetaFeature]) -> str:
    """One Markdown table, a feature a row."""
    lines = ["| name | what it is | unit | range | cost | needs | source |", "|---|---|---|---|---|---|---|"]
    for feature in features:
        name = f"`{feature.name}`" + (" (.mean, .sd)" if getattr(feature, "per_image", False) else "")
        lines.append(row(name, feature.facts))
    return "\n".join(lines)


def row(name: str, facts: dict[str, str]) -> str:
    """One line of a table."""
    return f"| {' | '.join([name, *(text.replace('|', chr(92) + '|') for text in facts.values())])} |"


def functions(table: dict[str, Callable]) -> str:
    """One Markdown table of functions of tables, a function a row."""
    head = rows([])
    return "\n".join([head, *(row(f"`{name}`", facts_of(function)) for name, function in table.items())])


def overview(groups: Iterable[str]) -> str:
    """One Markdown table, a group a row: how much is in it, for which datasets, at what cost."""
    lines = ["| group | meta-features | columns | datasets | cost |", "|---|---|---|---|---|"]
    for group in groups:
        members = [f for f in METAFEATURES.values() if f.group == group]
        kinds = {kind for f in members for kind in f.kinds}
        cost = ", ".join(dict.fromkeys(f.facts["cost"] for f in members))
        columns = sum(len(f.columns) for f in members)
        which = "all" if len(kinds) == len(KINDS) else ", ".join(sorted(kinds))
        lines.append(f"| [{group}](#{group}) | {len(members)} | {columns} | {which} | {cost} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    groups = dict.fromkeys(feature.group for feature in METAFEATURES.values())
    made = {"{overview}": overview(groups), "{error}": error_table(), "{science}": science()}
    parts = [reduce(lambda text, name: text.replace(name, made[name]), made, HEAD)]
    for group in groups:
        members = [f for f in METAFEATURES.values() if f.group == group]
        kinds = {f.kinds for f in members}
        only = f" Only for {', '.join(kinds.pop())} datasets." if len(kinds) == 1 and len(members[0].kinds) < 4 else ""
        parts.append(f"## {group}\n\n{len(members)} meta-features.{only}\n\n{rows(members)}\n")
    about = "`metamed.extract_pair(source, target)` needs the stored vectors alone."
    parts.append(f"## Pairs of a source and a target\n\n{about}\n\n{rows(PAIR_METAFEATURES.values())}\n")
    parts += [f"## {title}\n\n{text}\n\n{functions(table)}\n" for title, text, table in TABLES]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
