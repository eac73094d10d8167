"""What the experiment of `benchmarks.crowd_learning` found: tables, a figure, and what `metamed recommend` says of it.

`python -m benchmarks.crowd_learning_report [--store crowd.db]` reads the predictions in $METAMED_CROWD (and the runs of
networks) and writes benchmarks/results/crowd_learning.csv, crowd_learning.svg, crowd_networks.csv, the tables of
docs/learning-from-crowds.md, and metamed/data/assessments.csv. Intervals hold 90 %: seeds and test samples (patients,
where known) are resampled together, the same draws for all ways, so that differences are paired. Without predictions
only what is said of networks is written anew.
"""

from __future__ import annotations

import argparse
import csv
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.crowd_learning import FOLDER, SEEDS, SIZES, SUITES, WAYS, Way, find, said, shared
from metamed.experiments import Suite
from metamed.judged import judged
from metamed.measures import binary_auc
from metamed.methods import Believed
from metamed.recommend.assessments import Gain, knows
from metamed.store import Store
from metamed.tasks import make_task

ROOT = Path(__file__).parents[1]
RESULTS, PAGE, SHIPPED = ROOT / "benchmarks/results", ROOT / "docs/learning-from-crowds.md", ROOT / "metamed/data"
DRAWS, Z90 = 400, (5, 95)
T90 = {2: 6.314, 3: 2.920, 4: 2.353, 5: 2.132, 10: 1.833, 15: 1.761}  # Student's t of a 90 % interval, by samples


# ---- scores with resampling


def weighted_auc(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of samples that count `weights` times, (draws, n) -> (draws,); ties count half."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) > 0])
    w, p = weights[:, order], positive[order]
    plus, minus = (np.add.reduceat(w * chosen, starts, axis=1) for chosen in (p, ~p))
    below = np.cumsum(minus, axis=1) - minus / 2
    return (plus * below).sum(axis=1) / (plus.sum(axis=1) * minus.sum(axis=1))


@dataclass
class Scores:
    """AUC of every way of one dataset: the first draw is what was measured, the others are resampled."""

    dataset: str

    @cached_property
    def ways(self) -> dict[str, np.ndarray]:
        """Way -> (draws, sizes)."""
        paths = {name: FOLDER / f"{self.dataset}-{name}.npy" for name in WAYS[self.dataset]}
        return {name: self._of(np.load(path)) for name, path in paths.items() if path.exists()}

    @cached_property
    def _draws(self) -> tuple[np.ndarray, np.ndarray, list]:
        """(seed weights (draws, seeds), sample weights (draws, n), test folds of every seed)."""
        data, rng = find(self.dataset), np.random.default_rng(0)
        unit = np.arange(data.n_samples) if data.groups is None else np.unique(data.groups, return_inverse=True)[1]
        n = unit.max() + 1
        samples = np.stack([np.ones(n), *rng.multinomial(n, np.full(n, 1 / n), DRAWS)])[:, unit]
        k = len(SEEDS)
        seeds = np.stack([np.ones(k), *rng.multinomial(k, np.full(k, 1 / k), DRAWS)]) / k
        plain = find(self.dataset)
        folds = [[np.array(s.test) for s in make_task(plain, procedure="5-fold", seed=seed).folds] for seed in SEEDS]
        return seeds, samples, folds

    def _of(self, predictions: np.ndarray) -> np.ndarray:
        seeds, samples, folds = self._draws
        positive, out = find(self.dataset).target == 1, np.zeros((DRAWS + 1, len(SIZES)))
        for s in SEEDS:
            for k in range(len(SIZES)):
                parts = [weighted_auc(positive[t], predictions[s, k, t], samples[:, t]) for t in folds[s]]
                out[:, k] += seeds[:, s] * np.mean(parts, axis=0)
        return out

    @cached_property
    def labels(self) -> list[int]:
        """How many labels each size means: all are those of four folds of five."""
        return [size or round(find(self.dataset).n_samples * 0.8) for size in SIZES]

    def gain(self, way: str) -> np.ndarray:
        return self.ways[way] - self.ways["labels"]

    def saved(self, way: str) -> np.ndarray:
        """Labels that labels alone would need beyond those given, to score as this way does, (draws, sizes).

        Read off the label-only curve, made monotone and joined on a logarithmic axis; at most all there are.
        """
        curve, log = np.maximum.accumulate(self.ways["labels"], axis=1), np.log(self.labels)
        needed = [np.exp(np.interp(row, np.maximum.accumulate(c) + np.arange(len(c)) * 1e-9, log))
                  for c, row in zip(curve, self.ways[way], strict=True)]  # fmt: skip
        return np.array(needed) - self.labels


def answers_of(way: Way) -> int:
    """Answers that a way is told, on average over the folds of the first seed."""
    data, counts = shared(find(way.dataset), way.share, 0), []
    for split in make_task(find(way.dataset), procedure="5-fold", seed=0).folds:
        outside = np.array(sorted({*split.train, *split.validation}))
        if way.asked:
            counts.append(len(data.ratings))
        elif (told := said(way, data, outside, outside)) is not None and told.triplets is not None:
            counts.append(len(told))
        elif told is not None:
            counts.append(int(np.isin(data.ratings.image, told.index).sum()))
    return round(np.mean(counts)) if counts else 0


def rows_of(dataset: str) -> list[dict]:
    """One row for every way and number of labels."""
    scores, rows = Scores(dataset), []
    for way in scores.ways:
        given = answers_of(WAYS[dataset][way])
        for k, n in enumerate(scores.labels):
            row = {"dataset": dataset, "way": way, "labels": n, "answers": given}
            for name, values in (("auc", scores.ways[way]), ("gain", scores.gain(way)), ("saved", scores.saved(way))):
                low, high = np.percentile(values[1:, k], Z90)
                row |= {name: values[0, k], f"{name}_low": low, f"{name}_high": high}
            rows.append(row)
    return rows


# ---- what the crowd knows


def known_of(dataset: str) -> list[tuple[str, float, float, float]]:
    """(what, share or AUC, low, high): how far answers tell the label without any image."""
    data, rng = find(dataset), np.random.default_rng(0)
    if data.triplets is not None:
        label = data.target
        near, far = label[data.triplets.closer], label[data.triplets.farther]
        right = (near == label[data.triplets.anchor])[near != far]
        draws = rng.choice(right, (DRAWS, len(right))).mean(axis=1)
        what = f"{len(right)} triplets whose candidates differ in label: the chosen one has the anchor's"
        return [(what, right.mean(), *np.percentile(draws, Z90))]
    told = judged(data, np.arange(len(data.images)), Believed("ratings"))
    positive, found = data.target == 1, []
    for name, score in zip(told.attributes, told.scores.T, strict=True):
        rows = rng.integers(0, len(score), (DRAWS, len(score)))
        draws = [binary_auc(positive[r], score[r]) for r in rows]
        found.append((f"AUC of the mean score of {name}", binary_auc(positive, score), *np.percentile(draws, Z90)))
    return found


# ---- networks


def network_rows(path: str) -> list[dict]:
    """Mean test score of every setup, and its difference to the first setup of the same network, split by split."""
    with Store(path) as store:
        runs = [(store.get(run.task), run) for run in store.records("run") if not run.error]
    rows = []
    for suite in SUITES.values():
        for name in suite.datasets:
            mine = {}
            for task, run in runs:
                if (task.dataset, task.size, task.procedure) == (_stored(name), suite.sizes[0], suite.procedure):
                    values = run.evaluations[task.measure]
                    mine.setdefault(run.setup, {}).update({(task.id, k): value for k, value in enumerate(values)})
            rows += _network_rows(suite, name, mine)
    return rows


def _stored(name: str) -> str:
    return find(name.split(".")[0]).name


def _network_rows(suite: Suite, name: str, scores: dict[str, dict[tuple, float]]) -> list[dict]:
    rows, first = [], {}
    for setup in suite.setups:
        if found := scores.get(setup.id):
            plain = first.setdefault(setup.method, found)
            both = [task for task in found if task in plain]
            off = np.array([found[task] - plain[task] for task in both])
            half = T90[len(off)] * off.std(ddof=1) / np.sqrt(len(off))
            rows.append({"suite": suite.name, "dataset": name, "setup": setup.label, "splits": len(found),
                         "score": np.mean(list(found.values())), "gain": off.mean(), "gain_low": off.mean() - half,
                         "gain_high": off.mean() + half})  # fmt: skip
    return rows


# ---- what ships: the gains that `metamed recommend` speaks of

ADVICE = {  # the ways that a user can run: what they learn, how, and by which method with which settings
    ("enhance", "attributes, fixed"): ("ratings", "auxiliary", "probe.attributes", ""),
    ("enhance", "fixed, quality 0.6"): ("ratings", "auxiliary, filtered", "probe.attributes",
                                        "keep=quality,minimum_quality=0.6"),
    ("enhance", "fixed, 10 %"): ("ratings", "auxiliary", "probe.attributes", ""),
    ("enhance", "fixed, 3 %"): ("ratings", "auxiliary", "probe.attributes", ""),
    ("enhance", "first"): ("ratings", "pre-train", "probe.multitask", "first=True"),
    ("enhance", "joint, weight 0.3"): ("ratings", "joint", "probe.multitask", ""),
    ("chest", "metric, fixed"): ("triplets", "pre-train", "probe.triplets", ""),
    ("chest", "fixed, labels"): ("triplets", "pre-train, filtered", "probe.triplets", "keep=labels"),
    ("chest", "first"): ("triplets", "pre-train", "probe.multitask", "first=True"),
    ("chest", "joint, weight 0.03"): ("triplets", "joint", "probe.multitask", "assessment_weight=0.03"),
}  # fmt: skip
COLUMNS = tuple(Gain.__annotations__)


def advice(rows: list[dict]) -> list[dict]:
    plain = {(r["dataset"], r["labels"]): r["auc"] for r in rows if r["way"] == "labels"}
    out = []
    for row in (r for r in rows if (r["dataset"], r["way"]) in ADVICE):
        data, words = find(row["dataset"]), ADVICE[row["dataset"], row["way"]]
        facts = {"dataset": data.name, "family": data.family, "plain": plain[row["dataset"], row["labels"]]}
        told = dict(zip(COLUMNS[:4], words, strict=True)) | {"knows": knows(words[0], data)}
        out.append({c: (row | facts | told)[c] for c in COLUMNS})
    return out


# ---- files


def write_csv(path: Path, rows: list[dict], columns=None) -> None:
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, columns or list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def figure(datasets: list[str], path: Path) -> None:
    """AUC against the number of labels, one panel a dataset: labels alone, with their interval, and the ways."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "metamed"
    from matplotlib import pyplot

    drawing, panels = pyplot.subplots(1, len(datasets), figsize=(5.5 * len(datasets), 4), squeeze=False)
    for panel, dataset in zip(panels[0], datasets, strict=True):
        scores = Scores(dataset)
        for way in (w for w in scores.ways if w in DRAWN[dataset]):
            low, high = np.percentile(scores.ways[way][1:], Z90, axis=0)
            style = {"color": "black", "lw": 2} if way == "labels" else {}
            line = panel.plot(scores.labels, scores.ways[way][0], "o-", ms=3, label=DRAWN[dataset][way], **style)
            if way in ("labels", next(iter(w for w in DRAWN[dataset] if w != "labels"))):
                panel.fill_between(scores.labels, low, high, alpha=0.12, color=line[0].get_color(), lw=0)
        panel.set(xscale="log", xlabel="expert labels", ylabel="AUC", title=TITLES[dataset])
        panel.set_xticks(scores.labels, list(map(str, scores.labels)))
        panel.minorticks_off()
        panel.legend(fontsize=8, frameon=False)
    drawing.tight_layout()
    drawing.savefig(path, metadata={"Date": None})


WORTH = {"attributes", "attributes, fixed", *(f"fixed, {k} %" for k in (30, 10, 3, 1)), "first", "asked", "metric",
         "metric, fixed"}  # fmt: skip
TITLES = {"enhance": "Melanoma, with scores by the crowd", "chest": "Pneumonia, with triplets by the crowd"}
DRAWN = {
    "enhance": {"labels": "labels alone", "attributes": "+ attributes, estimated", "first": "attributes first",
                "joint, weight 0.3": "labels and attributes jointly", "asked": "+ attributes, asked of each lesion"},
    "chest": {"labels": "labels alone", "metric": "in the triplets' metric", "first": "triplets first",
              "joint, weight 0.03": "labels and triplets jointly"},
}  # fmt: skip


def tables(rows: list[dict], networks: list[dict]) -> dict[str, str]:
    """Every table of the page, as Markdown, by its name."""
    heads = ["network and recipe", "data", "labels", "splits", "score", "gain [90 %]"]
    out = {"networks": _markdown(heads, [
        [r["setup"], r["dataset"], "100" if "100" in r["suite"] else "–", str(r["splits"]), f"{r['score']:.3f}",
         _signed(r, "gain")] for r in networks])}  # fmt: skip
    for dataset in dict.fromkeys(r["dataset"] for r in rows):
        mine, n = [r for r in rows if r["dataset"] == dataset], Scores(dataset).labels
        ways = dict.fromkeys(r["way"] for r in mine)
        cell = {(r["way"], r["labels"]): r for r in mine}
        out[dataset] = _markdown(["way", "answers", *(f"{k} labels" for k in n)], [
            [way, str(cell[way, n[0]]["answers"] or "–"), *(f"{cell[way, k]['auc']:.3f}" if way == "labels" else
             _signed(cell[way, k], "gain") for k in n)] for way in ways])  # fmt: skip
        out[f"{dataset} worth"] = _markdown(["way", *(f"{k} labels" for k in n[:-1])], [
            [way, *(_worth(cell[way, k]) for k in n[:-1])] for way in ways if way in WORTH])  # fmt: skip
        out[f"{dataset} knows"] = _markdown(["what", "value [90 %]"], [
            [what, f"{v:.3f} [{low:.3f}, {high:.3f}]"] for what, v, low, high in known_of(dataset)])  # fmt: skip
    return out


def _signed(row: dict, name: str) -> str:
    mark = "**" if row[f"{name}_low"] > 0 or row[f"{name}_high"] < 0 else ""
    return f"{mark}{row[name]:+.3f}{mark} [{row[f'{name}_low']:+.3f}, {row[f'{name}_high']:+.3f}]"


def _worth(row: dict) -> str:
    """Labels saved with their interval, and how many answers stand for one of them."""
    text = f"{row['saved']:+.0f} [{row['saved_low']:+.0f}, {row['saved_high']:+.0f}]"
    return text + (f"; {row['answers'] / row['saved']:.0f} answers a label" if row["saved_low"] > 0 else "")


def _markdown(heads: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [heads, ["---"] * len(heads), *rows])


def fill(page: str, found: dict[str, str]) -> str:
    """The page with every block between `<!-- table: NAME -->` and `<!-- end -->` replaced."""

    def filled(block: re.Match) -> str:
        return f"{block[1]}{found[block[2]]}\n{block[3]}" if block[2] in found else block[0]

    return re.sub(r"(<!-- table: (.+?) -->\n).*?(<!-- end -->)", filled, page, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", help="store with the runs of networks")
    options = parser.parse_args()
    rows = [row for dataset in WAYS for row in rows_of(dataset)] if FOLDER.exists() else []
    networks = network_rows(options.store) if options.store else []
    if rows:
        write_csv(RESULTS / "crowd_learning.csv", rows)
        write_csv(SHIPPED / "assessments.csv", advice(rows), COLUMNS)
        figure(list(WAYS), RESULTS / "crowd_learning.svg")
    if networks:
        write_csv(RESULTS / "crowd_networks.csv", networks)
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), tables(rows, networks)), encoding="utf-8")


if __name__ == "__main__":
    main()
