"""What the runs on bags say, as the generated parts of docs/mil.md: `python -m benchmarks.bags --store mil.db`.

The runs: `python -m benchmarks.run bags bags_images bags_large bags_ten ... --store mil.db` (the suites `bags*`).
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from benchmarks.run import SHARED
from benchmarks.suites import BIRDS, FAMILIES, IMAGENET, INSECTS, LITERATURE
from metamed.methods import described
from metamed.records import Setup
from metamed.store import Store

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "mil.md"
FOLDS, TEN, HELD_OUT = "5-fold", "10-fold", "holdout"
SHORT = {
    "ucsb_breast_features": "ucsb", "web_recommendation_1": "web", "birds_brown_creeper": "creeper",
    "birds_winter_wren": "wren", "mutagenesis1": "mutag1", "mutagenesis2": "mutag2", "corel_african": "african",
    "corel_dogs": "dogs", "ucsb_breast_image_bags": "ucsb images", "colon_cancer_nuclei_bags": "colon",
}  # fmt: skip
FEATURES = (
    "musk1", "musk2", "elephant", "fox", "tiger", "mutagenesis1", "mutagenesis2", "ucsb_breast_features",
    "web_recommendation_1", "birds_brown_creeper", "birds_winter_wren", "corel_dogs", "corel_african",
)  # fmt: skip
IMAGES = ("ucsb_breast_image_bags", "colon_cancer_nuclei_bags")
SETTINGS = {"linear": {}, "rbf": {"kernel": "rbf", "c": 1.0}, "cliques": {}, "alike": {"cliques": False}, "plain": {},
            "gated": {"gated": True}, "": {}}  # fmt: skip


@dataclass(frozen=True)
class Runs:
    """Scores of repetitions: (setup, dataset, procedure) -> one mean over folds for each repetition."""

    auc: dict[tuple[Setup, str, str], list[float]]
    accuracy: dict[tuple[Setup, str, str], list[float]]

    @classmethod
    def of(cls, store: Store) -> Runs:
        setups, found = {s.id: s for s in store.records("setup")}, []
        for measure in ("auc", "accuracy"):
            rows, scores = store.examples("mil", measure), {}
            for row in rows[rows.study == "metamed"].itertuples():
                scores.setdefault((setups[row.setup], row.name, row.protocol), []).append(row.score)
            found.append(scores)
        return cls(*found)

    def table(self, datasets: Iterable[str]) -> dict[Setup, dict[str, float]]:
        """Mean AUC over repetitions of five folds, or of holdouts: setup -> dataset -> score."""
        found: dict[Setup, dict[str, float]] = {}
        for (setup, name, procedure), scores in self.auc.items():
            if procedure in (FOLDS, HELD_OUT) and name in datasets:
                found.setdefault(setup, {})[name] = mean(scores)
        return found


def variant(setup: Setup) -> str:
    """What a setup is called on the page."""
    values = described()[setup.method].defaults | setup.hyperparameters
    words = [str(values[k]) for k in ("pooling", "statistic", "kernel") if k in values]
    words += ["gated"] * values.get("gated", False) + ["no cliques"] * (not values.get("cliques", True))
    return f"{setup.method} ({', '.join(words)})" if words else setup.method


# ---- variants against each other


def ranks(table: dict[Setup, dict[str, float]], datasets: list[str]) -> dict[Setup, float]:
    """Mean rank of each setup that ran everywhere, 1 the best: over families, of whose datasets the mean is taken."""
    whole = [s for s in table if set(datasets) <= set(table[s])]
    scores = np.array([[table[s][d] for d in datasets] for s in whole]).reshape(len(whole), len(datasets))
    place = (scores[None] > scores[:, None]).sum(axis=1) + (scores[None] == scores[:, None]).sum(axis=1) / 2 + 0.5
    families = np.array([FAMILIES.get(d, d) for d in datasets])
    each = [place[:, families == f].mean(axis=1) for f in dict.fromkeys(families)]
    return dict(zip(whole, np.mean(each, axis=0), strict=True)) if whole else {}


def complete(table: dict[Setup, dict[str, float]], datasets: Iterable[str], lacking: int = 0) -> list[str]:
    """The datasets on which as many setups ran as on any, but for a few that may be lacking."""
    counts = {d: sum(d in row for row in table.values()) for d in datasets}
    return [d for d in counts if counts[d] >= max(1, max(counts.values()) - lacking)]


def scores_table(table: dict[Setup, dict[str, float]], datasets: list[str]) -> str:
    """Markdown: a variant that ran everywhere a row, best mean rank first, in bold what is best on a dataset."""
    rank = ranks(table, datasets)
    if not rank:
        return "No variant has run on all of them yet."
    best = {d: max(table[s][d] for s in rank) for d in datasets}
    head = " | ".join(SHORT.get(d, d) for d in datasets)
    lines = [f"| variant | {head} | rank |", "|---" * (len(datasets) + 2) + "|"]
    for setup in sorted(rank, key=rank.get):
        row = table[setup]
        cells = [f"**{row[d]:.3f}**" if row[d] == best[d] else f"{row[d]:.3f}" for d in datasets]
        lines.append(f"| {variant(setup)} | " + " | ".join(cells) + f" | {rank[setup]:.1f} |")
    return "\n".join(lines)


EYES = {(IMAGENET,): "ImageNet", (BIRDS,): "birds", (INSECTS,): "insects", (): "a network of its own"}


def eyes_table(table: dict[Setup, dict[str, float]], datasets: list[str]) -> str:
    """Markdown: variants that ran with several encoders, a dataset and variant a row, an encoder a column."""
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for setup, scores in table.items():
        for name in (d for d in datasets if d in scores):
            rows.setdefault((SHORT.get(name, name), variant(setup)), {})[EYES[setup.sources]] = scores[name]
    lines = ["| bags | variant | " + " | ".join(EYES.values()) + " |", "|---" * (len(EYES) + 2) + "|"]
    for (name, method), cells in sorted(rows.items()):
        if len(cells) > 1:
            shown = (f"{cells[eye]:.3f}" if eye in cells else "" for eye in EYES.values())
            lines.append(f"| {name} | {method} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def regret(table: dict[Setup, dict[str, float]], datasets: list[str]) -> tuple[float, float, float]:
    """AUC lost on a dataset, mean over families: by the variant of the best mean rank on the other families, by any one
    variant taken at random, and by the single variant that is best on average with hindsight."""
    whole = list(ranks(table, datasets))
    lost = {d: {s: max(table[t][d] for t in whole) - table[s][d] for s in whole} for d in datasets}
    families = {f: [d for d in datasets if FAMILIES.get(d, d) == f] for f in {FAMILIES.get(d, d) for d in datasets}}
    chosen = {}
    for family, own in families.items():
        rank = ranks(table, [d for d in datasets if d not in own])
        chosen[family] = min(rank, key=rank.get)
    by_list = mean(mean(lost[d][chosen[f]] for d in own) for f, own in families.items())
    one = {s: mean(mean(lost[d][s] for d in own) for own in families.values()) for s in whole}
    return by_list, mean(one.values()), min(one.values())


# ---- against published figures


def within(ours: list[float], published: float, spread: float | None, n: int) -> bool:
    """Does the mean of our repetitions lie within two spreads of the figure? Where none is published, the spread is the
    standard error of a share of n bags."""
    spread = spread or (published * (1 - published) / n) ** 0.5
    own = stdev(ours) if len(ours) > 1 else 0.0
    return abs(mean(ours) - published) <= 2 * (spread**2 + own**2) ** 0.5


BAGS = {"musk1": 92, "musk2": 102, "elephant": 200, "fox": 200, "tiger": 200}


@dataclass(frozen=True)
class Compared:
    """A published figure beside ours. ours: our repetitions. told: the paper, its folds and repetitions, and a dagger
    where the figure was written from memory and found nowhere since (`source` of bag_literature.csv is empty)."""

    setup: Setup
    dataset: str
    ours: list[float]
    figure: float
    spread: float | None
    own: str
    told: str
    confirmed: bool

    @property
    def agrees(self) -> bool:
        return within(self.ours, self.figure, self.spread, BAGS[self.dataset])

    @property
    def text(self) -> str:
        """Ours / theirs, in italics where they are too far apart."""
        sd = f" ± {stdev(self.ours):.3f}" if len(self.ours) > 1 else ""
        theirs = f"{self.figure:.3f}" + (f" ± {self.spread:.3f}" if self.spread else "")
        text = f"{mean(self.ours):.3f}{sd} / {theirs}"
        return text if self.agrees else f"*{text}*"


def literature(runs: Runs) -> list[Compared]:
    """What was published on setups and datasets that ran, and what came out here."""
    found = []
    for row in csv.DictReader((HERE / "bag_literature.csv").open(encoding="utf-8")):
        pooled = {"max": {"pooling": "max"}}.get(row["settings"], {})
        settings = SETTINGS.get(row["settings"], {}) | (pooled if row["method"] == "embedding_net" else {})
        setup, name, scores = Setup(row["method"], settings), row["dataset"], getattr(runs, row["measure"])
        folds = next((p for p in (TEN, FOLDS) if (setup, name, p) in scores), None)
        if folds:
            ours, spread = scores[setup, name, folds], float(row["spread"]) if row["spread"] else None
            found.append(Compared(setup, name, ours, float(row["value"]), spread, f"{folds} x {len(ours)}", _told(row),
                                  bool(row["source"])))  # fmt: skip
    return found


def _told(row: dict[str, str]) -> str:
    folds = row["protocol"] + (f" x {row['repeats']}" if row["repeats"] != "1" else "")
    quoted = f"; read in {row['source']}" if row["source"] else " †"
    return f"{'AUC of ' * (row['measure'] == 'auc')}{row['paper']}, {folds}{quoted}"


def literature_table(compared: list[Compared]) -> str:
    """Markdown: a variant and a paper a row, ours and theirs for each dataset, what lies outside in italics."""
    rows: dict[tuple, dict[str, str]] = {}
    for c in compared:
        rows.setdefault((variant(c.setup), c.told, c.own), {})[c.dataset] = c.text
    lines = ["| variant | " + " | ".join(LITERATURE) + " | ours | published |", "|---" * (len(LITERATURE) + 3) + "|"]
    for (name, told, own), cells in rows.items():
        lines.append(f"| {name} | " + " | ".join(cells.get(d, "") for d in LITERATURE) + f" | {own} | {told} |")
    return "\n".join(lines)


def agreement(compared: list[Compared]) -> str:
    """How many figures agree, those that were found in print apart from those that were not."""
    parts = [[c.agrees for c in compared if c.confirmed == found] for found in (True, False)]
    known, others = (f"{sum(part)} of the {len(part)}" for part in parts)
    return f"{known} figures that were found in print agree, and {others} others."


MILPY = {
    "SimpleMIL [average]": ("bag_statistics", {}), "SimpleMIL [extreme]": ("bag_statistics", {"statistic": "extremes"}),
    "Citation-kNN": ("citation_knn", {}), "EM-DD": ("em_dd", {}), "BoW-GMM": ("bag_of_words", {}),
}  # fmt: skip
MILPY_NAMES = {"birds_brcr": "birds_brown_creeper", "birds_wiwr": "birds_winter_wren"}


def milpy(runs: Runs) -> list[tuple[str, str, float, float, float]]:
    """(variant, dataset, our accuracy, MILpy's, its spread) for the classics that both have, five folds each."""
    found, path = [], SHARED / "facts" / "milpy_classic_mil.csv"
    for row in csv.DictReader(path.open(encoding="utf-8")) if path.exists() else ():
        if row["metric"] != "accuracy" or row["method"] not in MILPY:
            continue
        name, setup = MILPY_NAMES.get(row["dataset"], row["dataset"]), Setup(*MILPY[row["method"]])
        if ours := runs.accuracy.get((setup, name, FOLDS)):
            found.append((variant(setup), name, mean(ours), float(row["value"]), float(row["value_std"])))
    return found


# ---- the page


def parts(runs: Runs) -> dict[str, str]:
    """The generated parts of the page by name."""
    features = [d for d in FEATURES if any(k[1] == d for k in runs.auc)]
    table = {s: row for s, row in runs.table(features).items() if not s.sources}
    known = complete(table, features)
    large = complete(table, [d for d in features if d not in known], 2)
    seen = runs.table(IMAGES)
    images = {s: row for s, row in seen.items() if s.sources == (IMAGENET,)}
    by_list, anyone, hindsight = regret(table, known)
    compared, theirs = literature(runs), milpy(runs)
    times = {len(v) for (s, d, p), v in runs.auc.items() if p == FOLDS and d in known and not s.sources}
    gaps = [ours - other for _, _, ours, other, _ in theirs]
    near = sum(abs(o - t) <= 2 * max(sd, (t * (1 - t) / BAGS.get(d, 200)) ** 0.5) for _, d, o, t, sd in theirs)
    return {
        "scores": scores_table(table, known),
        "large": scores_table(table, large),
        "images": scores_table(images, complete(images, IMAGES, 2)),
        "eyes": eyes_table(seen, IMAGES),
        "regret": f"On these {len(known)} sets of {len({FAMILIES.get(d, d) for d in known})} families (repetitions: "
                  f"{' to '.join(map(str, sorted({min(times), max(times)})))}), the variant that ranks best on the "
                  f"other families loses {by_list:.3f} AUC to the best one of a set, a variant at random {anyone:.3f}, "
                  f"and the best single variant, known only with hindsight, {hindsight:.3f}.",
        "literature": literature_table(compared),
        "agreement": f"{agreement(compared)} Of the toolbox MILpy's {len(theirs)} accuracies for the classics that "
                     f"both have, {near} agree; ours are {mean(gaps):+.3f} on average.",
    }  # fmt: skip


def filled(page: str, texts: dict[str, str]) -> str:
    """The page with its parts anew: what stands between `<!-- bags NAME -->` and `<!-- end -->`."""
    for name, text in texts.items():
        anew = f"<!-- bags {name} -->\n{text}\n<!-- end -->"
        page = re.sub(rf"<!-- bags {name} -->\n.*?<!-- end -->", lambda _, anew=anew: anew, page, flags=re.S)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    with Store(options.store) as store:
        texts = parts(Runs.of(store))
    options.page.write_text(filled(options.page.read_text(encoding="utf-8"), texts), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
