"""The page: what was asked, what came out, in plain words first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from benchmarks.choosing import combined, exam, questions
from benchmarks.choosing.page import bars, lines, listing, table
from benchmarks.choosing.questions import ORDER, Rows, probes
from benchmarks.choosing.results import Effect, frame
from benchmarks.choosing.scores import feature_scores, pair_features
from benchmarks.choosing.summary import summary
from metamed.dataset import Dataset
from metamed.exams import Exam, as_markdown
from metamed.recommend import SOLVED
from metamed.store import Store

MOBILE = ("ImageNet", "birds", "insects", "chained")
HEADS = tuple(f"n = {size}" if size != "all" else "all images" for size in ORDER)


@dataclass(frozen=True)
class Findings:
    """Everything that the page says, as figures."""

    runs: pd.DataFrame
    failed: int
    scaling: Rows
    starts: Rows
    training: Rows
    stakes: Rows
    medical: Rows
    modality: Rows
    tells: dict[str, Rows]
    variants: Rows
    ensembles: Rows
    robustness: Rows
    shortcuts: Rows
    exams: list[Exam]


@dataclass(frozen=True)
class Lookups:
    """What is reckoned of features and predictions, which do not ship: scores of sources, and combinations of them."""

    scores: pd.DataFrame
    combinations: pd.DataFrame

    @classmethod
    def reckoned(cls, store: Store, find: Callable[[str], Dataset]) -> Lookups:
        runs = frame(store)
        scores = feature_scores(store, probes(runs, *MOBILE, "scratch"), find)
        return cls(scores, combined.combinations(store, runs, find))

    @classmethod
    def read(cls, folder: Path) -> Lookups:
        return cls(*(pd.read_csv(folder / f"choosing_{name}.csv", dtype={"size": str}) for name in cls._names()))

    def write(self, folder: Path) -> None:
        for name in self._names():
            getattr(self, name).to_csv(folder / f"choosing_{name}.csv", index=False, float_format="%.5g")

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls))


def findings(store: Store, lookups: Lookups) -> Findings:
    """Ask every question of the runs of a store."""
    every, scores = frame(store), lookups.scores
    runs = every[every["reversed"].isna()]  # what was judged elsewhere has a split of its own, of few sources
    pairs = pair_features(store, set(zip(runs["origin"], runs["target"], strict=True)))
    return Findings(
        every,
        sum(run.error is not None for run in store.runs(kind="classification")),
        questions.scaling(runs),
        questions.starts(runs),
        questions.training(runs),
        questions.stakes(runs),
        questions.medical_or_natural(runs),
        questions.same_modality(runs, pairs),
        questions.what_tells(runs, pairs, scores),
        questions.variants(runs),
        ensembles(lookups.combinations),
        questions.robustness(every),
        questions.shortcuts(every),
        _exams(store, runs, scores),
    )


def _exams(store: Store, runs: pd.DataFrame, scores: pd.DataFrame) -> list[Exam]:
    """An exam for each network, where enough of its sources were tried on enough targets."""
    kinds = {"MobileNetV2 sources": MOBILE, "small CNNs from scratch": ("scratch",)}
    tables = [exam.source_table(name, store, probes(runs, *starts), scores) for name, starts in kinds.items()]
    return [exam.hold(table) for table in tables if len(set(table.families)) > 1]


def ensembles(found: pd.DataFrame) -> Rows:
    """What combining gains in test AUC, at each size of the target."""

    def row(sources: str, way: str, against: str) -> list[Effect]:
        return combined.gains(found, sources, way, against, ORDER)

    return [
        ("mean of three published sources, against ImageNet alone", row("three", "mean", "imagenet")),
        ("the same, against the best of the three on validation", row("three", "mean", "best")),
        ("greedy choice among the three, against ImageNet alone", row("three", "greedy", "imagenet")),
        ("mean of all MobileNetV2 sources, against ImageNet alone", row("all", "mean", "imagenet")),
        ("the same, against the best of all on validation", row("all", "mean", "best")),
        ("weighted by validation, against the mean of all", row("all", "weighted", "mean")),
        ("greedy among all, against the mean of all", row("all", "greedy", "mean")),
        ("best of all on validation, against ImageNet alone", row("all", "best", "imagenet")),
        ("two classifiers on ImageNet's features, against one", row("twice", "mean", "imagenet")),
        *(
            (
                f"three weighted by validation, against the best of them, where that {words} {SOLVED} on test",
                combined.gains(found[there], "three", "weighted", "best", ORDER),
            )
            for words, there in (("is below", found["best"] < SOLVED), ("reaches", found["best"] >= SOLVED))
        ),
    ]


def document(store: Store, lookups: Lookups, figures: Path) -> str:
    """The whole page; its figures are written into a folder."""
    f = findings(store, lookups)
    shown = dict(f.stakes) | dict(f.ensembles)
    lines(figures / "choosing_stakes.svg", [(n, shown[n]) for n in (*dict(f.stakes), *list(dict(f.ensembles))[:1])
                                            if "spread" not in n], "AUC minus ImageNet's")  # fmt: skip
    lines(figures / "choosing_starts.svg", f.starts, "AUC of a linear probe minus ImageNet's")
    bars(figures / "choosing_variants.svg", f.variants, "AUC of the variant minus that of the source as it is")
    return "\n\n".join(section.strip() for section in _sections(f)) + "\n"


def _sections(f: Findings) -> list[str]:
    tells = [
        listing(f"known beforehand, sources {words}", sorted(f.tells[start], key=lambda row: -abs(row[1][0].mean)))
        for start, words in (("chained", "from ImageNet on"), ("scratch", "from scratch"))
        if start in f.tells
    ]
    return [
        "# Choosing a source",
        MADE,
        "## In short",
        summary(f),
        "## What was run",
        RUN.format(**_counts(f)),
        "## Does the choice matter, and until when?",
        STAKES,
        _picture("choosing_stakes", "What choosing could gain or lose against ImageNet, by size of the target"),
        table("linear probes on MobileNetV2's features", f.stakes, HEADS),
        "## First of all: how the features are scaled",
        SCALING,
        table("all features by one deviation, minus each by its own", f.scaling, HEADS),
        "## From which start?",
        STARTS,
        _picture("choosing_starts", "Linear probes on other starts against ImageNet, by size of the target"),
        table("start, against ImageNet's MobileNetV2", f.starts, HEADS),
        "## Medical or natural? The same modality?",
        MEDICAL,
        table("medical minus natural sources", f.medical, HEADS),
        table("alike minus unlike sources", f.modality, HEADS),
        "## What tells a good source beforehand?",
        TELLS,
        *tells,
        "## What should a source have learned from?",
        VARIANTS,
        _picture("choosing_variants", "Sources whose training was varied, against the source as it is"),
        listing("the source was trained on", f.variants),
        "## One source, or several?",
        ENSEMBLES,
        table("linear probes, combined by look-up", f.ensembles, HEADS),
        "## Probe, fine-tune, or start from nothing?",
        TRAINING,
        table("against a linear probe on ImageNet's features", f.training, HEADS),
        *_robustness(f),
        "## How well is a source recommended?",
        EXAM,
        as_markdown(f.exams),
        "## Where the evidence is thin",
        THIN,
    ]


def _robustness(f: Findings) -> list[str]:
    """The section on shortcuts, where the evidence has runs that were judged on other images."""
    if not f.robustness:
        return []
    heads = ("noise", "blur", "a mark at random", "trained with the mark, tested without", "tested with it reversed")
    return [
        "## Which source falls for a shortcut?",
        SHORTCUTS,
        table("AUC elsewhere minus AUC", f.robustness, heads),
        listing("fall from confounded to reversed, minus that of a probe of ImageNet", f.shortcuts),
    ]


def _picture(stem: str, words: str) -> str:
    return f"![{words}](../benchmarks/results/{stem}.svg)"


def _counts(f: Findings) -> dict[str, object]:
    runs = f.runs
    sizes = ", ".join(f"{(runs['size'] == size).sum():,} at {size}" for size in ORDER)
    hours = runs["seconds"].sum() / 3600
    return {
        "runs": len(runs),
        "failed": f.failed,
        "targets": runs["target"].nunique(),
        "medical": runs.loc[runs["medical"], "target"].nunique(),
        "probes": runs["method"].str.startswith("probe").sum(),
        "sources": runs.loc[runs["source"] != "", "source"].nunique(),
        "sizes": sizes,
        "hours": hours,
    }


MADE = """Made by `python -m benchmarks.choosing`: every figure, and every sentence of "In short", follows from the
runs; the explanations between the tables are ours. Figures are differences in AUC (macro, one against the rest) between
runs on the same training and test images, averaged inside each family of targets; brackets are 95 % bootstrap intervals
over families. "No difference shown" means that the interval holds zero: these families cannot tell, which is not the
same as equal."""

RUN = """{runs:,} runs on {targets} datasets ({medical} medical), {failed} failed; {probes:,} of them probes on frozen
features, the others trained networks; {sources} sources; {hours:.1f} hours of one CPU core. Labelled images of the
target, training and validation together: {sizes}. Up to three splits of each dataset (grouped by patient or lesion
where known, 20 % test); every probe has a split of its own, so no two runs measure the same thing. A source never
meets a target of its own family."""

STAKES = """Twenty sources share one network, MobileNetV2: the published ones (ImageNet, iNaturalist birds,
iNaturalist insects) and ImageNet's tuned on 600 images of each of our datasets. The best source is the one that is
best on the target's *other* splits: the best on the same test part would flatter, since of twenty some are lucky. At
100, 400 and 600 images only the published three were probed. So the choice among published sources hardly matters at
any size, and a network tuned on a small dataset is the bad choice at every size; no size was found at which choosing
stops mattering."""

SCALING = """A linear probe divides features by their deviation. Where forty images train it, a feature that was
active in one of them gets a tiny deviation and grows loud on the test part. MobileNetV2's 1280 features need one
deviation for all; the 128 features of a small CNN are better divided each by its own. Elsewhere on this page each
network has the scaling that suits it, which was chosen after seeing test scores on these very targets (c = 0.01): the
gains in this table are what was seen, not what was foretold. The last row is the conclusion that one would have drawn
with the usual one, each feature by its own, for both."""

STARTS = """The small CNN (three layers, 128 features, 32 pixels) learned up to 600 images of one dataset and nothing
else. Random weights learned nothing: what a source must beat. Their features are kept in single precision: an untrained
MobileNetV2's are 1e-10."""

MEDICAL = """A source that learned a medical dataset against one that learned a natural one (photographs, textures,
handwriting): means over all sources of the kind. Then sources that share the target's modality (dermoscopy, blood
smears, X-ray, MRI), or its number of channels, against the others."""

TELLS = """Rank correlation, over the sources of a task, between what is known beforehand and the score reached.
Distances are to the left of zero if nearer sources are better. Ratios are source over target. LogME, N-LEEP and k-NN
are reckoned of the frozen features and labels of the target's training part (200 images at most, one split)."""

VARIANTS = """The same source dataset with fewer images, fewer classes, without colour, with shuffled labels; compared
on the same targets (50 and all images). Small CNNs from scratch, unless said. Read the last row first: where random
weights do as well as the source, 600 images were too few to teach anything, and no variant of them can matter."""

ENSEMBLES = """Probabilities of linear probes on several sources, averaged; members and weights from validation
predictions alone. The control: two classifiers on one source. The last two rows are when one source is enough."""

TRAINING = """Means over the targets on which both were run; at 600 images two seeds, else one."""

SHORTCUTS = """The first three: test images with noise, out of focus, with a white mark on a random half. The last two:
the setup was trained on images where the mark goes with every second class (on 90 % of their images, on 10 % of the
others), and is tested without any mark, and with the mark on the other classes. A setup that ignores the mark loses
nothing; one that follows nothing else falls from about 0.9 to 0.1. In the second table, more is worse."""

EXAM = """One family of targets is left out at a time; a row is a target at a size. The published scores see the
target's training part (of one split: a little of what is the test part of the others), the list sees other targets
only."""

THIN = """* One network (MobileNetV2) for published weights, at 64 pixels, below the resolution it was made for; small
  networks at 32 pixels for sources from scratch. Nothing here speaks of 224 pixels, of RadImageNet, or of large
  networks that start from something: no weights of theirs were at hand, so they learned from scratch, at 50 images.
* Sources made here learned at most 600 images. A medical source of 100,000 images is another thing.
* Seventeen families, eleven of them medical; six modalities have one dataset each, so "the same modality" rests on few.
* Linear probes make up most of the runs, at one strength of their penalty (C = 0.01); k-NN with each feature by its own
  deviation. Fine-tuning was run at 50, 100, 200 and 600 images, on one or two splits; other recipes at 50 alone.
* At 50, 200 and all images, sources made here were tried on eleven of the seventeen targets (some of those from scratch
  on all).
* Several test parts hold 40 to 300 images; one run's AUC moves by 0.02 to 0.05 from split to split.
* Two sets have known shortcuts or leaks (covid_xray3, lc25000_lung), three are nearly solved by any source (mednist,
  bccd_cells, sklearn_digits): they pull differences towards zero."""
