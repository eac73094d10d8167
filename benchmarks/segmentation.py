"""How well a Dice is predicted before training: `python -m benchmarks.segmentation [--store segmentation.db]`.

Every family of datasets is left out in turn; what is left predicts what each method reached on it, without a run on the
target and after one reference run. Writes the figures of docs/segmentation.md and the tables between its marks.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.reference_docs import between
from benchmarks.run import find
from metamed.exams import BASELINES, Prediction, Ranker, interval, prior_list
from metamed.exams.examples import is_own, tables_of, vector_facts
from metamed.exams.tables import Table, informative
from metamed.metafeatures import extract, feature_names
from metamed.metafeatures.labels import describe_labels
from metamed.metalearner import answer, list_only
from metamed.recommend.reference import MINUTES, reference_of
from metamed.recommend.segmentation import LABEL_FACTS, curve_slopes, steps_of
from metamed.store import Store

ROOT = Path(__file__).parents[1]
PAGE, FIGURES = ROOT / "docs" / "segmentation.md", ROOT / "benchmarks" / "results"
MARKS = "<!-- figures -->\n", "<!-- end of figures -->\n"
MEAN = "mean of the method on the other sets"
TEAM = {"nnunet"}  # what a reference run on the Decathlon is a run of


# ---- tables


def own_table(store: Store, measure: str = "dice") -> Table | None:
    """Own runs, a row a dataset: with the number of masks that most methods were run with. None without any."""
    tables = [t for t in tables_of(store, "segmentation", measure) if is_own(t)]
    if not tables:
        return None
    ran, best = np.isfinite(tables[0].scores).sum(1), {}
    for i, dataset in enumerate(tables[0].datasets):
        best[dataset] = i if ran[i] > ran[best.get(dataset, i)] else best.get(dataset, i)
    return replace(tables[0].rows(sorted(best.values())), name="own runs")


def described(store: Store) -> Store:
    """The store with meta-features of every dataset of its own segmentations."""
    for name in sorted({task.dataset for task in store.records("task") if task.kind == "segmentation"}):
        if store.dataset(name).digest not in store.measured():
            store.add_metafeatures(find(name), extract(find(name)))
    return store


def published(store: Store, study: str) -> Table:
    return next(t for t in tables_of(store, "segmentation", "dice") if t.name.startswith(study))


def on_metafeatures(table: Table, store: Store) -> Table:
    """The table with all meta-features of its datasets as facts, in place of the few that the learner uses."""
    vectors, names = store.measured(), feature_names(kind="segmentation")
    columns = {n: np.array([vectors.get(d, {}).get(n, np.nan) for d in table.datasets]) for n in names}
    return replace(table, facts={n: c for n, c in columns.items() if np.isfinite(c).all() and informative(c)})


# ---- answers for families left out


@dataclass(frozen=True, eq=False)
class Held:
    """Predicted scores with their intervals for each dataset and item, made without the dataset's family, (n, m).

    asked: where a score is known and was not told.
    """

    score: np.ndarray
    low: np.ndarray
    high: np.ndarray
    asked: np.ndarray

    def errors(self, table: Table) -> np.ndarray:
        """Mean absolute error of each dataset, (n,)."""
        missed = np.where(self.asked, np.abs(self.score - table.scores), 0.0)
        return missed.sum(1) / np.maximum(self.asked.sum(1), 1)

    def coverage(self, table: Table) -> float:
        inside = (self.low <= table.scores) & (table.scores <= self.high)
        return float(inside[self.asked].mean())


def held_out(table: Table, ranker: Ranker, told: Callable[[Table], Sequence[str]] = lambda train: ()) -> Held:
    """Answers of a ranker for each family by what it learned from the others. told: items whose score is shown."""
    parts = np.full((4, *table.scores.shape), np.nan)
    for fold in table.family_folds():
        train, target = table.rows(~fold), table.rows(fold)
        hidden = target.hidden(told(train))
        answer = ranker(train, hidden)
        for place, values in enumerate((answer.score, answer.low, answer.high)):
            parts[place, fold] = np.nan if values is None else values
        parts[3, fold] = np.isnan(hidden.scores) & np.isfinite(target.scores)
    return Held(*parts[:3], parts[3] > 0)


def metamed(train: Table, target: Table) -> Prediction:
    """What the learner expects, handed out in the order of its list: its trees move the order, and hardly a figure."""
    return answer(list_only(train), train, target)


def moved(ranker: Ranker) -> Ranker:
    """A baseline that knows a reference run too: all of its scores are moved by what it missed there."""

    def informed(train: Table, target: Table) -> Prediction:
        score = ranker(train, target).score
        told = np.isfinite(target.scores)
        missed = np.where(told, target.scores - score, 0.0).sum(1) / np.maximum(told.sum(1), 1)
        return Prediction(score, score + missed[:, None])

    return informed


def by_family(table: Table, values: np.ndarray) -> np.ndarray:
    return np.array([values[fold].mean() for fold in table.family_folds()])


# ---- the exam of one table


@dataclass(frozen=True)
class Row:
    """A ranker's errors, a value a family, beside those of the method's mean in the same place."""

    name: str
    errors: np.ndarray
    against: np.ndarray
    by_dataset: float
    coverage: float

    def cells(self) -> str:
        apart = self.errors - self.against
        said = "" if np.isnan(self.coverage) else f"{self.coverage:.2f}"
        return (f"| {self.name} | {self.errors.mean():.3f}{_between(self.errors)} | {self.by_dataset:.3f} | "
                f"{apart.mean():+.3f}{_between(apart, '+')} | {said} |")  # fmt: skip


def _between(values: np.ndarray, sign: str = "") -> str:
    ends = interval(values)
    return "" if ends is None else f" [{ends[0]:{sign}.3f}, {ends[1]:{sign}.3f}]"


HEAD = "| predicted by | MAE by family | by dataset | beside the mean | coverage |\n|---|---|---|---|---|"


def rows_of(table: Table, rankers: dict[str, tuple[Table, Ranker]], told=lambda train: ()) -> list[Row]:
    """The first ranker is the one that the others stand beside."""
    found, against = [], None
    for name, (facts, ranker) in rankers.items():
        held = held_out(facts, ranker, told)
        errors = held.errors(table)
        families = by_family(table, errors)
        against = families if against is None else against
        covered = np.nan if np.isnan(held.low).all() else held.coverage(table)
        found.append(Row(name, families, against, float(errors.mean()), covered))
    return found


def rankers_of(table: Table, measured: Table | None = None) -> dict[str, tuple[Table, Ranker]]:
    """Who predicts: the method's mean, baselines on facts and (of described images) on meta-features; metamed."""
    plain = table.knowing([n for n in table.facts if n not in LABEL_FACTS])
    views = {"facts of the dataset": plain, "facts of dataset and label": table}
    views |= {} if measured is None else {"meta-features": measured}
    found = {MEAN: (table, prior_list)}
    for words, facts in views.items():
        found |= {f"{name} on {words}": (facts, BASELINES[key]) for name, key in (("k-NN", "knn"), ("SVR", "svr"))}
    return found | {"metamed": (table, metamed)}


def informed(rankers: dict[str, tuple[Table, Ranker]]) -> dict[str, tuple[Table, Ranker]]:
    return {name: (facts, ranker if name == "metamed" else moved(ranker)) for name, (facts, ranker) in rankers.items()}


def ablations(table: Table) -> dict[str, tuple[Table, Ranker]]:
    """metamed with less said about the label: what images alone, a name and masks tell."""
    without = [n for n in table.facts if n not in LABEL_FACTS]
    found = {MEAN: (table, prior_list), "metamed, nothing of the label": (table.knowing(without), metamed),
             "metamed, the kind alone": (table.knowing([*without, "label_kind"]), metamed)}  # fmt: skip
    if "log_fraction" in table.facts:
        found["metamed, kind and share of the pixels"] = (table, metamed)
    return found


def minutes_of(store: Store) -> dict[str, float]:
    """Median CPU minutes of a run of each setup."""
    seconds: dict[str, list[float]] = {}
    for setup, _, _, taken, device in store.cost_rows("segmentation"):
        if device == "cpu":
            seconds.setdefault(setup, []).append(taken)
    return {setup: float(np.median(taken)) / 60 for setup, taken in seconds.items()}


def any_reference(table: Table, rankers: dict[str, tuple[Table, Ranker]]) -> tuple[float, float, float]:
    """(mean, least, largest) error by family of metamed over all items that a reference run may be of."""
    facts, ranker = rankers["metamed"]
    means = [by_family(table, held_out(facts, ranker, lambda train, item=item: (item,)).errors(table)).mean()
             for item in table.items if np.isfinite(table.scores[:, table.items.index(item)]).all()]  # fmt: skip
    return float(np.mean(means)), float(min(means)), float(max(means))


# ---- labels of one dataset


def label_errors(store: Store, table: Table) -> dict[str, np.ndarray]:
    """Who told it -> error by family of the Dice of single labels, of datasets that have several: the method's mean,
    what is expected of the dataset, and what is expected of each label from its own kind and share of the pixels."""
    known = {f.digest: f for f in store.records("dataset")}
    labels = {d: describe_labels(find(known[d].name)) for d in table.datasets if len(known[d].card.classes) > 2}
    errors: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for k in range(max(map(len, labels.values()), default=0)):
        single = own_table(store, f"dice.{k + 1}")
        for digest in (d for d, found in labels.items() if k < len(found)):
            row, family = table.datasets.index(digest), table.families[table.datasets.index(digest)]
            reached = dict(zip(single.items, single.scores[single.datasets.index(digest)], strict=True))
            truth = np.array([reached.get(item, np.nan) for item in table.items])
            train = table.rows(np.array(table.families) != family)
            target = table.rows([row]).hidden()
            label = labels[digest][k]
            said = {"label_kind": label.kind, "foreground_fraction.mean": label.fraction, "n_classes": 2}
            own = replace(target, facts=target.facts | {n: vector_facts([said])[n] for n in LABEL_FACTS})
            for who, told in ((MEAN, prior_list(train, target)), ("metamed, of the dataset", metamed(train, target)),
                              ("metamed, of the label", metamed(train, own))):  # fmt: skip
                errors[who][family].append(float(np.nanmean(np.abs(told.score[0] - truth))))
    return {who: np.array([np.mean(v) for v in found.values()]) for who, found in errors.items()}


def label_lines(store: Store, table: Table) -> list[str]:
    found = label_errors(store, table)
    if not found or len(found[MEAN]) < 2:
        return []
    rows = [f"| {who} | {e.mean():.3f}{_between(e)} | {(e - found[MEAN]).mean():+.3f}{_between(e - found[MEAN], '+')} |"
            for who, e in found.items()]  # fmt: skip
    return [f"### Single labels: {len(found[MEAN])} families with several\n", "Without a run on the target:\n",
            "| predicted by | MAE by family | beside the mean |\n|---|---|---|", *rows, ""]  # fmt: skip


# ---- more masks


def curve_errors(store: Store) -> tuple[np.ndarray, np.ndarray]:
    """Errors by family of the score with all masks, told from fewer: by the curve of the same method on the other
    families, and by no gain at all."""
    samples = {f.digest: f.n_samples for f in store.records("dataset") if f.n_samples}
    rows, missed = store.example_rows("segmentation", "dice"), {}
    for method in sorted({row["method"] for row in rows}):
        steps = steps_of([row for row in rows if row["method"] == method], samples)
        slopes = curve_slopes(steps)
        for family in slopes if len(slopes) > 1 else ():
            slope = np.mean([s for other, s in slopes.items() if other != family])
            few, many, factor = np.array([step[1:] for step in steps if step[0] == family]).T
            told = 1 - (1 - few) * factor**-slope
            missed.setdefault(family, []).append([np.abs(told - many).mean(), np.abs(few - many).mean()])
    return tuple(np.array([np.mean(pairs, axis=0) for pairs in missed.values()]).reshape(-1, 2).T)


# ---- the page


def scatter(panels: dict[str, tuple[Table, Held]], path: Path) -> None:
    """Predicted against reached Dice with 90 % intervals, a panel each, as SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "metamed", "font.size": 8}):
        figure = Figure(figsize=(6.8, 3.4 * -(-len(panels) // 2)), layout="constrained")
        grid = np.atleast_1d(figure.subplots(-(-len(panels) // 2), 2, squeeze=False)).ravel()
        for axes, (title, (table, held)) in zip(grid, panels.items(), strict=False):
            colours = matplotlib.colormaps["tab20"](np.linspace(0, 1, len(table.datasets)))
            for i, colour in enumerate(colours):
                at = held.asked[i]
                reached, expected = table.scores[i, at], held.score[i, at]
                axes.vlines(reached, held.low[i, at], held.high[i, at], color=colour, linewidth=0.5, alpha=0.3)
                axes.plot(reached, expected, ".", markersize=3, color=colour)
            axes.plot([0, 1], [0, 1], color="#888888", linewidth=0.8)
            axes.set(title=title, xlabel="reached Dice", ylabel="predicted Dice", xlim=(0, 1), ylim=(0, 1))
            axes.spines[["top", "right"]].set_visible(False)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def section(title: str, table: Table, measured: Table | None, told, told_name: str) -> tuple[list[str], dict]:
    """Markdown of one table's exam, and the panels of its figure."""
    rankers = rankers_of(table, measured)
    families = len(set(table.families))
    lines = [f"### {title}: {len(table.datasets)} targets, {families} families, {len(table.items)} methods\n",
             "Without a run on the target:\n", HEAD, *[row.cells() for row in rows_of(table, rankers)],
             "\nWhat is said of the label:\n", HEAD, *[row.cells() for row in rows_of(table, ablations(table))],
             f"\nAfter one reference run on the target ({told_name}):\n", HEAD,
             *[row.cells() for row in rows_of(table, informed(rankers), told)]]  # fmt: skip
    mean, least, largest = any_reference(table, rankers)
    lines.append(f"\nWith a run of any one method as the reference, metamed's error by family is {mean:.3f} in the "
                 f"mean over methods ({least:.3f} to {largest:.3f}).\n")  # fmt: skip
    panels = {f"{title}, no run": (table, held_out(table, metamed)),
              f"{title}, after one run": (table, held_out(table, metamed, told))}  # fmt: skip
    return lines, panels


def report(store: Store, folder: Path) -> str:
    """All that stands between the marks of the page."""
    decathlon, own = published(store, "msd2018"), own_table(store)
    names = {s.id: s for s in store.records("setup")}
    (nnunet,) = [i for i in decathlon.items if names[i].method in TEAM]
    lines, panels = section("Decathlon", decathlon, None, lambda train: (nnunet,), "nnU-Net")
    medseg, more = section("MedSegBench", published(store, "medsegbench"), None, lambda train: train.items[:1],
                           names[published(store, "medsegbench").items[0]].label)  # fmt: skip
    lines += medseg
    panels |= more
    if own is not None:
        minutes = minutes_of(store)

        def told(train: Table) -> tuple[str, ...]:
            found = reference_of(train, minutes, MINUTES)
            return () if found is None else (found,)

        chosen = sorted({names[item].label for fold in own.family_folds() for item in told(own.rows(~fold))})
        by = f"chosen by the other families, of at most {MINUTES:g} CPU minutes: {'; '.join(chosen) or 'none'}"
        text, more = section("Own runs", own, on_metafeatures(own, store), told, by)
        lines += [*text, *label_lines(store, own), *curve_lines(store)]
        panels |= more
    scatter(panels, folder / "segmentation.svg")
    return "\n".join(lines) + "\n"


def curve_lines(store: Store) -> list[str]:
    by_curve, by_nothing = curve_errors(store)
    if len(by_curve) < 2:
        return ["### More masks\n", "No setup was run with several numbers of masks on two families of datasets.\n"]
    apart = by_curve - by_nothing
    return ["### More masks\n",
            f"The Dice with all masks told from that with the next smaller number, {len(by_curve)} families left out\n"
            f"in turn: MAE {by_curve.mean():.3f}{_between(by_curve)} by its method's curve on the others, "
            f"{by_nothing.mean():.3f}{_between(by_nothing)}\nif nothing was gained; difference "
            f"{apart.mean():+.3f}{_between(apart, '+')}.\n"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="own runs beside the evidence that ships")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--results", type=Path, default=FIGURES, help="folder of the figure")
    options = parser.parse_args()
    store = Store.embedded() if options.store is None else described(Store.united(Store(options.store)))
    started = sum(os.times()[:4])
    text = report(store, options.results)
    seconds = sum(os.times()[:4]) - started
    command = "python -m benchmarks.segmentation" + ("" if options.store is None else f" --store {options.store.name}")
    text = f"*Made by `{command}` in {seconds / 60:.0f} CPU minutes.*\n\n{text}"
    options.page.write_text(between(options.page.read_text(encoding="utf-8"), *MARKS, text), encoding="utf-8")
    print(f"written to {options.page}")


if __name__ == "__main__":
    main()
