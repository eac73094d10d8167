"""What results/trust.csv says: the tables of docs/trust.md and the plot results/trust.svg: see `benchmarks.trust`."""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from benchmarks.known_instances import family
from metamed.trust import TRUST

RESULTS = Path(__file__).parent / "results"
TRUTHS = {"instance_auc": "all instances", "instance_auc_inside": "instances inside bags with a finding"}
DRAWS, LEVEL = 2000, 0.9
COMBINED: dict[str, tuple[str, ...]] = {
    "bag AUC and stability": ("bag_auc", "stability"),
    "bag consistency and stability": ("bag_consistency", "stability"),
    "agreement and stability": ("agreement", "stability"),
    "agreement, stability, bag consistency": ("agreement", "stability", "bag_consistency"),
}


def tables(path: Path) -> dict[str, list[dict]]:
    """Dataset -> its models, numbers as floats."""
    found = defaultdict(list)
    for row in csv.DictReader(path.open(encoding="utf-8")):
        words = ("dataset", "method", "settings")
        found[row["dataset"]].append({k: v if k in words else float(v or "nan") for k, v in row.items()})
    return dict(found)


def values(models: list[dict], names: tuple[str, ...]) -> np.ndarray:
    """A measure of each model; of several, the mean of its ranks; NaN ranks lowest."""
    columns = np.array([[m[n] for m in models] for n in names])
    if len(names) == 1:
        return np.where(np.isfinite(columns[0]), columns[0], -np.inf)
    filled = np.where(np.isfinite(columns), columns, -np.inf)
    return (filled[:, :, None] > filled[:, None, :]).sum(axis=2).mean(axis=0)


def tau(models: list[dict], names: tuple[str, ...], truth: str) -> float:
    """Kendall's tau-b between what the measures say and the truth, over the models of one set."""
    said = values(models, names)
    known = np.isfinite(said)
    if known.sum() < 3 or len(np.unique(said[known])) < 2:
        return float("nan")
    return float(kendalltau(said[known], np.array([m[truth] for m in models])[known]).statistic)


def lost(models: list[dict], names: tuple[str, ...], truth: str) -> float:
    """True AUC of the best model minus that of the one that the measures choose (mean over ties)."""
    said, true = values(models, names), np.array([m[truth] for m in models])
    if not np.isfinite(said).any():
        return float("nan")
    return float(true.max() - true[said == said.max()].mean())


def by_family(found: dict[str, list[dict]], what: Callable[[list[dict]], float]) -> np.ndarray:
    """A figure of each family of sets, mean over its sets."""
    each = defaultdict(list)
    for name, models in found.items():
        each[family(name)].append(what(models))
    return np.array([np.mean(v) for v in each.values()])


def interval(figures: np.ndarray, seed: int = 0) -> tuple[float, float, float, int]:
    """(mean, low, high of 90 %, number) over families, by drawing them anew."""
    known = figures[np.isfinite(figures)]
    if not len(known):
        return (float("nan"),) * 3 + (0,)
    drawn = np.random.default_rng(seed).choice(known, (DRAWS, len(known))).mean(axis=1)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(known.mean()), float(low), float(high), len(known)


def report(found: dict[str, list[dict]]) -> str:
    singles = {name: (name,) for name in TRUST}
    n_models = len(next(iter(found.values())))
    families = len({family(name) for name in found})
    parts = [f"{len(found)} sets of {families} families, {n_models} models on each.\n"]
    for truth, title in TRUTHS.items():
        parts += [f"**True AUC of {title}**\n", "| measure | Kendall's tau [90 %] | AUC lost by the first [90 %] "
                  "| families |", "|---|---|---|---|"]  # fmt: skip
        lines = []
        for title_, names in (singles | COMBINED).items():
            mean, low, high, n = interval(by_family(found, lambda m, names=names, t=truth: tau(m, names, t)))
            gone, least, most, _ = interval(by_family(found, lambda m, names=names, t=truth: lost(m, names, t)))
            shown = f"`{title_}`" if title_ in TRUST else title_
            cells = (shown, f"{mean:.2f} [{low:.2f}, {high:.2f}]", f"{gone:.3f} [{least:.3f}, {most:.3f}]", str(n))
            lines.append((mean, f"| {' | '.join(cells)} |"))
        any_one = by_family(found, lambda m, t=truth: max(x[t] for x in m) - float(np.mean([x[t] for x in m])))
        parts += [line for _, line in sorted(lines, key=lambda pair: -np.nan_to_num(pair[0], nan=-2))]
        parts += [f"| any model at all | 0 | {interval(any_one)[0]:.3f} | {families} |\n"]
    return "\n".join(parts)


def by_variant(found: dict[str, list[dict]]) -> str:
    """Means over families of each variant: bag AUC, stability, true instance AUC."""
    names = ("bag_auc", "stability", "stability_seeds", "agreement", "instance_auc", "instance_auc_inside")
    keys = list(dict.fromkeys((m["method"], m["settings"]) for models in found.values() for m in models))
    rows = []
    for method, settings in keys:
        def mean(name: str, method=method, settings=settings) -> float:
            return interval(by_family(found, lambda models: next(
                m[name] for m in models if (m["method"], m["settings"]) == (method, settings))))[0]  # fmt: skip
        cells = " | ".join(f"{mean(n):.2f}" for n in names)
        rows.append((mean("instance_auc"), f"| `{method}` {settings} | {cells} |"))
    head = "| variant | " + " | ".join(n.replace("_", " ") for n in names) + " |\n|---" + "|---" * len(names) + "|"
    return "\n".join([head, *(row for _, row in sorted(rows, reverse=True))])


def front(points: np.ndarray) -> np.ndarray:
    """Which points (n, 2) no other one beats in one coordinate without losing in the other."""
    better = (points[None] >= points[:, None]).all(axis=2) & (points[None] > points[:, None]).any(axis=2)
    return ~better.any(axis=1)


def plot(found: dict[str, list[dict]], path: Path) -> None:
    """Bag AUC against stability, mean over families; colour is the true AUC of the instances, the line the front."""
    import matplotlib
    from matplotlib.figure import Figure

    keys = list(dict.fromkeys((m["method"], m["settings"]) for models in found.values() for m in models))
    means, names = {}, ("bag_auc", "stability", "instance_auc")
    for key in keys:
        mine = {name: [m for m in models if (m["method"], m["settings"]) == key] for name, models in found.items()}
        means[key] = [interval(by_family(mine, lambda m, n=n: m[0][n]))[0] for n in names]
    points = np.array(list(means.values()))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "metamed", "font.size": 9}):
        figure = Figure(figsize=(7.5, 5), layout="constrained")
        axes = figure.subplots()
        best = front(points[:, :2])
        order = np.flatnonzero(best)[np.argsort(points[best, 0])]
        axes.plot(points[order, 0], points[order, 1], color="#bbbbbb", zorder=1)
        drawn = axes.scatter(points[:, 0], points[:, 1], c=points[:, 2], cmap="viridis", s=60, zorder=2)
        for (method, settings), (x, y, _) in means.items():
            axes.annotate(f"{method} {settings}".strip(), (x, y), xytext=(5, 3), textcoords="offset points", fontsize=7)
        axes.set_xlabel("AUC of bags")
        axes.set_ylabel("stability of instance scores (other 80 % of the bags)")
        axes.spines[["top", "right"]].set_visible(False)
        figure.colorbar(drawn, label="true AUC of instances")
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def main(table: Path = RESULTS / "trust.csv") -> None:
    found = tables(table)
    print(report(found) + "\n" + by_variant(found))
    plot(found, table.with_suffix(".svg"))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
