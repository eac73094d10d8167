"""What other applications teach medical ones: python -m benchmarks.applications SHARED STORE.

Rankers of variants learn from bags of other applications only, from medical bags only, or from both, and are examined
on medical bags whose family was left out. Evidence: own runs in the store (5 folds on features as they are, or on
frozen features) and the AUC of bags in results/trust.csv (one division of bags made of images). Rankers: the list of
mean ranks, the mean of the three nearest sets, and metamed's learner; what is near is told by Carbonneau's
characteristics of bags, by the behaviour of simple classifiers (Cheplygina & Tax), or by both. The published tables
cannot be asked: that of MILpy holds no medical set, and PathBench no other and encoders in place of variants.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from benchmarks.known_instances import IMAGES, MADE, SIDE, bags_of, family
from benchmarks.suites import FAMILIES
from benchmarks.trust_results import interval, tables
from metamed.exams import exam_across, knn, prior_list, shuffler
from metamed.exams.tables import Table, spread_ranks
from metamed.metafeatures import extract
from metamed.metalearner import fit_predict
from metamed.readers import read
from metamed.sources import embedder
from metamed.store import Store

RESULTS = Path(__file__).parent / "results"
OTHER = ("cifar10_sub", "flowers5")  # of the images that bags were made of; all others are medical
MEDICAL = ("ucsb_breast_features", "ucsb_breast_image_bags", "colon_cancer_nuclei_bags")  # of the sets of bags
BEHAVIOUR = ("mean_pool_ridge", "extremes_ridge", "citation_nn", "instance_ridge", "witness_ridge", "size_probe",
             "extremes_gain", "citation_gain", "witness_gain", "classifier_disagreement", "roc_difference")  # fmt: skip
IMAGENET = "imagenet.coral.mobilenet_v2"
ENOUGH = 0.6  # share of the variants that a set must have


def own_scores(store: Path) -> dict[str, dict[str, float]]:
    """Set -> variant -> mean AUC of own runs over 5 folds."""
    found = defaultdict(lambda: defaultdict(list))
    for row in Store(store).example_rows("mil", "auc"):
        if row["protocol"] == "5-fold" and row["sources"] in ((), (IMAGENET,)) and np.isfinite(row["score"]):
            found[row["name"]][_item(row["method"], row["hyperparameters"])].append(row["score"])
    return {name: {item: float(np.mean(v)) for item, v in items.items()} for name, items in found.items()}


def made_scores(table: Path) -> dict[str, dict[str, float]]:
    """The same from the study of trust, of bags that were made; the set of colon nuclei is among own runs."""
    return {name: {f"{m['method']} {m['settings']}".strip(): m["bag_auc"] for m in models}
            for name, models in tables(table).items() if name in MADE}  # fmt: skip


def _item(method: str, settings: dict) -> str:
    return f"{method} {' '.join(f'{k}={v}' for k, v in sorted(settings.items()))}".strip()


def facts_of(names: list[str], shared: Path) -> dict[str, dict[str, float]]:
    """Meta-features of bags, and the logarithms of how many bags and features there are."""
    embed, found = embedder(image_size=SIDE, device="cpu"), {}
    for name in names:
        data = bags_of(name, shared, embed) if name in MADE else read(shared / "data" / "mil" / f"{name}.h5")
        found[name] = extract(data, "bags") | {"log_bags": float(np.log10(data.n_samples))}
    return found


def table_of(scores: dict[str, dict[str, float]], facts: dict[str, dict[str, float]]) -> Table:
    """All sets with enough of the variants that own runs and made bags have in common."""
    names = [n for n in scores if n in facts]
    items = sorted(set.union(*(set(scores[n]) for n in names)))
    values = np.array([[scores[n].get(i, np.nan) for i in items] for n in names])
    common = np.isfinite(values).mean(axis=0) >= ENOUGH
    values, items = values[:, common], [i for i, c in zip(items, common, strict=True) if c]
    whole = np.isfinite(values).mean(axis=1) >= ENOUGH
    names = [n for n, w in zip(names, whole, strict=True) if w]
    columns = {k: np.array([facts[n][k] for n in names]) for k in next(iter(facts.values()))}
    columns = {k: v for k, v in columns.items() if np.isfinite(v).any() and np.nanmax(v) > np.nanmin(v)}
    return Table("bags", "auc", tuple(names), tuple(items), values[whole], tuple(map(family_of, names)), columns,
                 {"method": np.array([i.split()[0] for i in items], dtype=object)})  # fmt: skip


def family_of(name: str) -> str:
    """Sets that share images: the frozen features of one image set are one family whatever bags were made of it."""
    return FAMILIES.get(name, FAMILIES.get(family(name), family(name)))


def is_medical(name: str) -> bool:
    return name in MEDICAL or (family(name) in IMAGES and family(name) not in OTHER)


def report(table: Table) -> str:
    """Every kind of training x every ranker: weighted tau and regret on medical sets, means over families."""
    medical = np.array([is_medical(n) for n in table.datasets])
    target = table.rows(medical)
    trainings = {"other applications": ~medical, "medical": medical, "both": np.ones(len(medical), bool)}
    behaviour = [n for n in table.facts if n.split(".")[0] in BEHAVIOUR]
    known = {"bags": [n for n in table.facts if n not in behaviour], "behaviour": behaviour, "both": [*table.facts]}
    n = {name: (len(set(np.array(table.families)[rows])), int(rows.sum())) for name, rows in trainings.items()}
    lines = [f"{int(medical.sum())} medical sets of {n['medical'][0]} families, {n['other applications'][1]} others of "
             f"{n['other applications'][0]}; {len(table.items)} variants.\n",
             "| learned from | ranker | near by | weighted tau [90 %] | regret [90 %] |",
             "|---|---|---|---|---|"]  # fmt: skip
    for name, rows in trainings.items():
        train = table.rows(rows)
        lines.append(_line(name, "list", "", exam_across(train, target, {"it": prior_list})))
        for title, ranker in (("nearest three", knn), ("metamed", fit_predict)):
            for facts, columns in known.items():
                result = exam_across(train.knowing(columns), target.knowing(columns), {"it": ranker})
                lines.append(_line(name, title, facts, result))
    lines.append(_line("nothing", "random order", "", exam_across(table, target, {"it": shuffler(0)})))
    return "\n".join(lines)


def _line(training: str, ranker: str, facts: str, result) -> str:
    tau, regret = (interval(result.by_family("it", m)) for m in ("tau", "regret1"))
    return (f"| {training} | {ranker} | {facts} | {tau[0]:.2f} [{tau[1]:.2f}, {tau[2]:.2f}] | {regret[0]:.3f} "
            f"[{regret[1]:.3f}, {regret[2]:.3f}] |")  # fmt: skip


def likeness(table: Table) -> str:
    """Are sets of one application more alike than sets of different ones, in which variants win and in behaviour?"""
    medical = np.array([is_medical(n) for n in table.datasets])
    families = np.array(table.families)
    ranks = np.nan_to_num(spread_ranks(table.scores))
    correlation = np.corrcoef(ranks)
    apart = families[:, None] != families[None]
    pairs = {"two medical": medical[:, None] & medical, "two others": ~medical[:, None] & ~medical,
             "one of each": medical[:, None] ^ medical}  # fmt: skip
    lines = ["| sets of different families | rank correlation of variants |", "|---|---|"]
    for name, which in pairs.items():
        values = correlation[which & apart & np.triu(np.ones_like(apart), 1).astype(bool)]
        mean = f"{values.mean():.2f} ({len(values)} pairs)" if len(values) else "–"
        lines.append(f"| {name} | {mean} |")
    return "\n".join(lines)


def main(shared: Path, store: Path, trust: Path = RESULTS / "trust.csv") -> None:
    scores = own_scores(store) | made_scores(trust)
    facts = facts_of(list(scores), shared)
    table = table_of(scores, facts)
    print(report(table) + "\n\n" + likeness(table))


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    main(*map(Path, sys.argv[1:]))
