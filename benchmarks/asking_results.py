"""What results/asking.csv says: the table of docs/trust.md and the plot results/asking.svg: see `benchmarks.asking`."""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from benchmarks.trust_results import interval
from metamed.asking import STRATEGIES

RESULTS = Path(__file__).parent / "results"
FIGURES = {"instance_auc": "AUC of instances", "bag_auc": "AUC of bags"}
BESIDE = "random"
Runs = dict[tuple[str, str, int], dict[str, dict[int, dict[str, float]]]]


def runs_of(path: Path) -> Runs:
    """(dataset, method, seed) -> strategy -> questions -> figures; only divisions on which every strategy was tried."""
    found: Runs = defaultdict(lambda: defaultdict(dict))
    for row in csv.DictReader(path.open(encoding="utf-8")):
        key = row["dataset"], row["method"], int(row["seed"])
        figures = {name: float(row[name]) for name in (*FIGURES, "findings")}
        found[key][row["strategy"]][int(row["questions"])] = figures
    return {key: strategies for key, strategies in found.items() if len(strategies) == len(STRATEGIES)}


def gains(runs: Runs, strategy: str, questions: int, figure: str, beside: str | None = None) -> np.ndarray:
    """Gain over no question at all, or over another strategy, of every division (dataset, method, seed)."""
    values = []
    for strategies in runs.values():
        after = strategies[strategy][questions][figure]
        before = strategies[beside][questions][figure] if beside else strategies[strategy][0][figure]
        values.append(after - before)
    return np.array(values)


def report(runs: Runs) -> str:
    """Every strategy: gain after so many questions, and beside random questions, with intervals over divisions."""
    most = max(next(iter(next(iter(runs.values())).values())))
    methods = list(dict.fromkeys(method for _, method, _ in runs))
    parts = []
    for method in methods:
        mine = {key: strategies for key, strategies in runs.items() if key[1] == method}
        start = {f: np.mean([s[BESIDE][0][f] for s in mine.values()]) for f in FIGURES}
        parts += [f"`{method}`: {len(mine)} divisions of {len({k[0] for k in mine})} sets, {len({k[2] for k in mine})} "
                  f"seeds; without questions AUC of instances {start['instance_auc']:.3f}, of bags "
                  f"{start['bag_auc']:.3f}\n",
                  f"| strategy | findings among {most} | instances | beside random | bags | beside random |",
                  "|---|---|---|---|---|---|"]  # fmt: skip
        lines = [_line(mine, strategy, most) for strategy in STRATEGIES]
        parts += [line for _, line in sorted(lines, reverse=True)] + [""]
    return "\n".join(parts)


def _line(runs: Runs, strategy: str, most: int) -> tuple[float, str]:
    findings = np.mean([s[strategy][most]["findings"] for s in runs.values()])
    cells, first = [], float("nan")
    for figure in FIGURES:
        mean, low, high, _ = interval(gains(runs, strategy, most, figure))
        cells.append(f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]")
        first = mean if first != first else first
        apart = interval(gains(runs, strategy, most, figure, BESIDE))
        cells.append("–" if strategy == BESIDE else f"{apart[0]:+.3f} [{apart[1]:+.3f}, {apart[2]:+.3f}]")
    return first, f"| `{strategy}` | {findings:.1f} | {' | '.join(cells)} |"


def plot(runs: Runs, path: Path) -> None:
    """AUC against questions, mean over sets and seeds, one line a strategy; a row for each method."""
    import matplotlib
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(method for _, method, _ in runs))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "metamed", "font.size": 9}):
        figure = Figure(figsize=(8, 3.4 * len(methods)), layout="constrained")
        grid = figure.subplots(len(methods), len(FIGURES), squeeze=False)
        for row, method in zip(grid, methods, strict=True):
            for axes, (name, title) in zip(row, FIGURES.items(), strict=True):
                for strategy in STRATEGIES:
                    means = defaultdict(list)
                    for key, strategies in runs.items():
                        if key[1] == method:
                            for questions, figures in strategies[strategy].items():
                                means[questions].append(figures[name])
                    x = sorted(means)
                    style = {"color": "black", "linestyle": "--"} if strategy == BESIDE else {}
                    axes.plot(x, [np.mean(means[n]) for n in x], marker="o", markersize=3, label=strategy, **style)
                axes.set_xlabel("questions")
                axes.set_ylabel(f"{title} ({method})")
                axes.spines[["top", "right"]].set_visible(False)
        grid[0, 0].legend(fontsize=7, frameon=False)
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def main(table: Path = RESULTS / "asking.csv") -> None:
    runs = runs_of(table)
    print(report(runs))
    plot(runs, table.with_suffix(".svg"))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
