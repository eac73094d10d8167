"""The questions about choosing a source, each answered by paired comparisons of runs: rows of (what, Effect)."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from benchmarks.choosing.results import Effect, contrast, contrast_of, per_family

ORDER = ("50", "100", "200", "400", "600", "all")
Rows = list[tuple[str, list[Effect]]]


EACH, ALL = "[('image_size', 32)]", "[('scaling', 'all')]"


def probes(runs: pd.DataFrame, *starts: str) -> pd.DataFrame:
    """Linear probes of sources with these starts that no variant of a dataset made.

    Each network with the scaling that suits its features: all by one for MobileNetV2, whose 1280 features are rarely
    active, each by its own for the 128 of a small CNN.
    """
    usual = (runs["variant"] == "") & runs["origin_size"].isin(["", "600"])
    return runs[_suited(runs) & usual & runs["start"].isin(starts)]


def _suited(runs: pd.DataFrame) -> pd.Series:
    small = runs["source"].str.contains("small_cnn")
    return (runs["method"] == "probe.linear") & np.where(small, runs["settings"] == EACH, runs["settings"] == ALL)


def scaling(runs: pd.DataFrame) -> Rows:
    """Features of the same source, all divided by one deviation against each by its own, at each size of the target."""
    of = runs[(runs["method"] == "probe.linear") & (runs["variant"] == "")]
    rows = []
    for name, kind in (
        ("MobileNetV2 from ImageNet", of["start"] == "ImageNet"),
        ("MobileNetV2 from birds or insects", of["start"].isin(["birds", "insects"])),
        ("MobileNetV2 from ImageNet, then a dataset", of["start"] == "chained"),
        ("small CNNs, random or from scratch", of["source"].str.contains("small_cnn")),
    ):
        part, small = of[kind], "small" in name
        both = "[('image_size', 32), ('scaling', 'all')]" if small else ALL
        rows.append((name, by_size(part, part["settings"] == both, part["settings"] == (EACH if small else "[]"))))
    random = (of["start"] == "random") & (of["settings"] == EACH)
    own = by_size(of, random, (of["start"] == "ImageNet") & (of["settings"] == "[]"))
    return [*rows, ("random small CNN minus ImageNet, each feature by its own", own)]


def sizes_of(runs: pd.DataFrame) -> list[str]:
    return [size for size in ORDER if (runs["size"] == size).any()]


def by_size(runs: pd.DataFrame, first, second, sizes: list[str] | None = None) -> list[Effect]:
    """The contrast at each size of the target."""
    return [contrast(runs[runs["size"] == size], first, second) for size in sizes or ORDER]


# ---- does a source help at all, and which kind?


def starts(runs: pd.DataFrame) -> Rows:
    """Linear probes: each kind of source against ImageNet's, at each size of the target."""
    of = probes(runs, "ImageNet", "birds", "insects", "chained", "scratch", "random")
    small = of["source"].str.contains("small_cnn")
    kinds = {
        "iNaturalist birds": of["start"] == "birds",
        "iNaturalist insects": of["start"] == "insects",
        "ImageNet, then a medical dataset": (of["start"] == "chained") & of["medical_origin"],
        "ImageNet, then a natural dataset": (of["start"] == "chained") & ~of["medical_origin"],
        "small CNN that learned a medical dataset": (of["start"] == "scratch") & of["medical_origin"],
        "small CNN that learned a natural dataset": (of["start"] == "scratch") & ~of["medical_origin"],
        "random weights, MobileNetV2": (of["start"] == "random") & ~small,
        "random weights, small CNN": (of["start"] == "random") & small,
    }
    return [(name, by_size(of, kind, of["start"] == "ImageNet")) for name, kind in kinds.items()]


FROM_SCRATCH = (  # in words, method, settings
    ("small CNN", "small_cnn", "[]"),
    ("ResNet-18", "resnet", "[]"),
    ("ResNet-50", "resnet", "[('depth', 50)]"),
    ("MobileNetV3-Small", "mobilenet_v3_small", "[]"),
    ("EfficientNet-B0", "efficientnet_b0", "[]"),
    ("DenseNet-121", "densenet121", "[]"),
    ("ConvNeXt-Tiny", "convnext_tiny", "[]"),
    ("ViT-Tiny", "vit", "[]"),
)


def training(runs: pd.DataFrame) -> Rows:
    """Ways of training against a linear probe of ImageNet's features, at the sizes where both were run."""
    imagenet = runs["start"] == "ImageNet"
    probe = imagenet & (runs["method"] == "probe.linear") & (runs["settings"] == ALL)
    plain = runs["settings"] == "[('learning_rate', 0.003)]"
    mobile, none = (runs["method"] == "mobilenet") & plain, runs["start"] == "nothing"
    kinds = {
        "MobileNetV2, fine-tuned from ImageNet": mobile & imagenet & (runs["recipe"] == "finetune"),
        "MobileNetV2, fine-tuned from birds": mobile & (runs["start"] == "birds") & (runs["recipe"] == "finetune"),
        "MobileNetV2, fine-tuned from insects": mobile & (runs["start"] == "insects") & (runs["recipe"] == "finetune"),
        "MobileNetV2, last four stages from ImageNet": imagenet & (runs["recipe"] == "freeze"),
        "MobileNetV2 from scratch": mobile & none,
        "MobileNetV2, gradual unfreezing from ImageNet": imagenet & (runs["recipe"] == "gradual"),
        "MobileNetV2, discriminative rates from ImageNet": imagenet & (runs["recipe"] == "discriminative"),
        "MobileNetV2, ImageNet with the target's batch statistics": imagenet & (runs["recipe"] == "batchnorm"),
        "MobileNetV2, ImageNet continued without labels (SimSiam)": imagenet & (runs["recipe"] == "simsiam"),
        "MobileNetV2, ImageNet tuned on flowers, and both learned": runs["recipe"] == "cotraining",
        **{
            f"{words} from scratch": none & (runs["method"] == method) & (runs["settings"] == settings)
            for words, method, settings in FROM_SCRATCH
        },
        "k-NN on ImageNet's features": imagenet & (runs["method"] == "probe.knn"),
    }
    return [(name, by_size(runs, kind, probe)) for name, kind in kinds.items()]


# ---- how open is it to what does not matter?


CHANGED = ("noise", "blur", "mark", "unconfounded", "reversed")


def robustness(runs: pd.DataFrame) -> Rows:
    """How the AUC of each kind of run changes on images that are `CHANGED`, against test images as they are."""
    rows = []
    for name, kind in _judged_elsewhere(runs):
        if kind.any():
            rows.append((name, [contrast_of(runs[kind], how, "score") for how in CHANGED]))
    return rows


def shortcuts(runs: pd.DataFrame) -> Rows:
    """How much farther each kind of run falls than a probe of ImageNet at the same size, from where the mark goes with
    classes in testing as it did in training to where it goes with the others."""
    rows, kinds = [], dict(_judged_elsewhere(runs))
    fall = runs.assign(score=runs["confounded"] - runs["reversed"])
    for name, kind in kinds.items():
        size = name.rsplit(", ", 1)[1]
        reference = kinds[f"probe of ImageNet, {size}"]
        if kind.any() and not kind.equals(reference):
            rows.append((name, [contrast(fall, kind, reference)]))
    return rows


def _judged_elsewhere(runs: pd.DataFrame) -> list[tuple[str, pd.Series]]:
    """Kinds of runs that were also judged on other images, at each size of the target."""
    probe, mobile = (runs["method"] == "probe.linear") & (runs["settings"] == ALL), runs["method"] == "mobilenet"
    tuned = mobile & (runs["recipe"] == "finetune")
    kinds = {
        **{f"probe of {start}": probe & (runs["start"] == start) for start in ("ImageNet", "birds", "insects")},
        "probe of random weights": probe & (runs["start"] == "random"),
        "fine-tuned from ImageNet": tuned & (runs["start"] == "ImageNet"),
        "fine-tuned from birds": tuned & (runs["start"] == "birds"),
        "MobileNetV2 from scratch": mobile & (runs["start"] == "nothing"),
        "small CNN from scratch": (runs["method"] == "small_cnn") & (runs["start"] == "nothing"),
    }
    judged = runs["reversed"].notna()
    return [(f"{name}, {f'n = {size}' if size != 'all' else 'all images'}", judged & kind & (runs["size"] == size))
            for size in ORDER for name, kind in kinds.items()]  # fmt: skip


# ---- medical or natural?


def medical_or_natural(runs: pd.DataFrame) -> Rows:
    """Sources that learned a medical dataset against those that learned a natural one, by the target's kind."""
    rows = []
    for start, words in (("scratch", "small CNN from scratch"), ("chained", "from ImageNet on")):
        of = probes(runs, start)
        for medical, targets in ((True, "medical"), (False, "natural")):
            part = of[of["medical"] == medical]
            rows.append((f"{words}, {targets} targets", by_size(part, part["medical_origin"], ~part["medical_origin"])))
    return rows


def same_modality(runs: pd.DataFrame, pairs: pd.DataFrame) -> Rows:
    """Sources of the target's own modality, or channels, against all others, on targets that have some of both."""
    rows = []
    for start, words in (("scratch", "small CNN from scratch"), ("chained", "from ImageNet on")):
        of = _with_pairs(probes(runs, start), pairs)
        medical = of[of["medical"]]
        rows.append((f"{words}: same modality, medical targets",
                     by_size(medical, medical["same_modality"] == 1, medical["same_modality"] == 0)))  # fmt: skip
        rows.append((f"{words}: same number of channels",
                     by_size(of, of["same_channels"] == 1, of["same_channels"] == 0)))  # fmt: skip
    return rows


# ---- how much is at stake?


def stakes(runs: pd.DataFrame) -> Rows:
    """How far sources of one network lie apart, and what choosing could gain over always taking ImageNet."""
    of = probes(runs, "ImageNet", "birds", "insects", "chained")
    rows: dict[str, list[Effect]] = {}
    for size in ORDER:
        part = of[of["size"] == size]
        many = part if part["source"].nunique() > 10 else part.iloc[:0]  # of three, a random one says something else
        found = {
            "spread of sources (standard deviation)": per_family(part, lambda p: _many(p, p["score"].std())),
            "best source known from other splits, against ImageNet": foresight(part, best=True),
            "any source at random, against ImageNet": contrast(many, many["start"] != "", many["start"] == "ImageNet"),
            "the worst source known from other splits, against ImageNet": foresight(part, best=False),
        }
        for name, effect in found.items():
            rows.setdefault(name, []).append(effect)
    return list(rows.items())


def _many(part: pd.DataFrame, value: float) -> float:
    return value if part["source"].nunique() > 10 else np.nan


def foresight(runs: pd.DataFrame, *, best: bool) -> Effect:
    """Score of the source that is best (or worst) on a target's other splits, minus ImageNet's, split by split.

    The best on the same test part would flatter: of twenty sources some are lucky.
    """
    found = {}
    for (family, _), target in runs.groupby(["family", "target"]):
        scores = target.pivot_table(index="task", columns="source", values="score")
        imagenet = [c for c in scores if c.startswith("imagenet.")]
        if len(scores) < 2 or len(scores.columns) < 10 or not imagenet:
            continue
        for task in scores.index:
            others = scores.drop(index=task).mean()
            chosen = others.idxmax() if best else others.idxmin()
            found[family, task] = scores.loc[task, chosen] - scores.loc[task, imagenet[0]]
    values = pd.Series(found, dtype=float)
    return Effect.of(values.groupby(level=0).mean() if len(values) else values, len(runs))


# ---- what tells a good source?


def association(runs: pd.DataFrame, columns: list[str]) -> Rows:
    """Rank correlation, over the sources of a task, of what is known beforehand with the score; mean over families."""
    return [(name, [per_family(runs, lambda p, name=name: _correlation(p[name], p["score"]))]) for name in columns]


def _correlation(known: pd.Series, score: pd.Series) -> float:
    there = known.notna()
    if there.sum() < 5 or known[there].nunique() < 2:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(spearmanr(known[there], score[there]).statistic)


def _with_pairs(runs: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    return runs.join(pairs, on=["origin", "target"])


def what_tells(runs: pd.DataFrame, pairs: pd.DataFrame, scores: pd.DataFrame) -> dict[str, Rows]:
    """Associations for sources from scratch and from ImageNet on: pair meta-features, and scores of the features."""
    own = runs[(runs["start"] != "nothing") | (runs["method"] == "small_cnn")]
    found = {}
    for start in ("scratch", "chained"):
        of = _with_pairs(probes(own, start), pairs)
        if of.empty:
            continue
        of = of.assign(source_modality_medical=of["medical_origin"].astype(float))
        of = of.merge(scores, on=["target", "size", "source"], how="left")
        columns = [c for c in [*pairs.columns, *scores.columns[3:], "source_modality_medical"] if of[c].notna().any()]
        found[start] = association(of, columns)
    return found


# ---- variants of sources


def variants(runs: pd.DataFrame) -> Rows:
    """What a source learned from, varied: images, classes, colour, labels. Small CNNs from scratch unless said."""
    of = runs[_suited(runs) & runs["start"].isin(["scratch", "chained", "random"])]
    scratch, chained = of[of["start"] == "scratch"], of[of["start"] == "chained"]
    rows = [
        ("50 images instead of 600", _varied(scratch, ("", "50"), ("", "600"))),
        ("150 images instead of 600", _varied(scratch, ("", "150"), ("", "600"))),
        ("all images (up to 4,700) instead of 600", _varied(scratch, ("", "all"), ("", "600"))),
        ("five classes instead of six to ten, 300 images each", _varied(scratch, ("five", "300"), ("", "300"))),
        ("two classes instead of six to ten, 300 images each", _varied(scratch, ("two", "300"), ("", "300"))),
        ("grey instead of colour", _varied(scratch, ("grey", "600"), ("", "600"))),
        ("labels shuffled", _varied(scratch, ("shuffled", "600"), ("", "600"))),
        ("labels shuffled, from ImageNet on", _varied(chained, ("shuffled", "600"), ("", "600"))),
    ]
    small = probes(runs, "scratch", "random")
    small = small[small["source"].str.contains("small_cnn")]
    random = contrast(small, small["start"] == "random", small["start"] == "scratch")
    return [*rows, ("random weights instead of any source from scratch", [random])]


def _varied(of: pd.DataFrame, first: tuple[str, str], second: tuple[str, str]) -> list[Effect]:
    """Paired by task and by the dataset that the source learned from."""
    parts = [
        of[(of["variant"] == variant) & (of["origin_size"] == n)].groupby(["family", "task", "origin"])["score"].mean()
        for variant, n in (first, second)
    ]
    difference = (parts[0] - parts[1]).dropna()
    return [Effect.of(difference.groupby("family").mean(), 2 * len(difference))]
