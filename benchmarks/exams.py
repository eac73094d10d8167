"""Every exam on published result tables, as one document: `python -m benchmarks.exams --facts DIR`."""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from metamed.exams import Exam, as_markdown, exam, interval, pooled, prior_list
from metamed.exams.examples import tables_of
from metamed.exams.reading import read_tables, select
from metamed.exams.tables import Table
from metamed.metalearner import answer, fit, fit_predict, ungated
from metamed.store import Store
from metamed.store.evidence import shipped_studies

RESULTS = Path(__file__).parent / "results" / "exams.md"
POOLS = ("imagenet", "radimagenet", "medmnist")  # sources made of several sets
SCENARIOS = {"G1": "pretrain", "G1c": "arch", "G1 augmentation": "augmentation", "G1 multi-task": "multi_task"}
NATURAL = ("natural_objects", "handwritings")


def _read(facts: Path, stem: str, **extra) -> list[Table]:
    files = {"datasets": "datasets", "families": "families", "networks": "networks", "labels": "label_facts"} | extra
    return read_tables(facts / f"{stem}.csv", **{k: facts / f"{v}.csv" for k, v in files.items()})


def _average_idrid(table: Table) -> Table:
    """One row for the four sub-sets of IDRiD, as the paper's sheet has it; without the encoder that lacks sets."""
    table = table.columns(np.isfinite(table.scores).all(0))
    parts = np.array([name.startswith("idrib") for name in table.datasets])
    keep = ~parts
    keep[np.argmax(parts)] = True
    scores = table.scores.copy()
    scores[np.argmax(parts)] = table.scores[parts].mean(0)
    return replace(table, scores=scores).rows(keep)


def _end_to_end_224(table: Table) -> Table:
    return table.columns(["224x224" in item and "end-to-end" in item for item in table.items])


def published_tables(facts: Path) -> dict[str, Table]:
    """Exam name -> table, from the CSVs of figures."""
    source = _read(facts, "juodelyte2024_transfer_auc", distances="juodelyte2024_transferability_scores")
    godau = _read(
        facts,
        "godau2024_taskfingerprint_development",
        datasets="godau2024_task_infos",
        distances="godau2024_task_distances",
    )
    medmnist, medseg = _read(facts, "medmnistplus_doerrich2024"), _read(facts, "medsegbench2024")
    decathlon = _read(facts, "msd2018_leaderboard")
    g2, g4 = select(source, "transfer auc"), _average_idrid(select(medseg, "dice_f1"))
    tables = {"G2": g2, "G2b": g2.columns([i not in POOLS for i in g2.items])}
    for name, scenario in SCENARIOS.items():
        for short, measure in {"AUC": "auc", "BA": "balanced_accuracy"}.items():
            tables[f"{name} {short}"] = select(godau, f"{scenario} {measure}")
    tables["networks"] = select(source, "classification auc")
    tables |= {"G3 acc": select(medmnist, "accuracy"), "G3 auc": select(medmnist, "auc")}
    tables |= {n.replace("G3", "G3n"): _end_to_end_224(tables[n]) for n in ("G3 acc", "G3 auc")}
    tables |= {"G4": g4, "G4d": select(decathlon, "dice")}
    tables["G5 PathBench"] = select(_read(facts, "pathbench2025_pfm"), "auc")
    tables["G5 classic MIL"] = select(_read(facts, "milpy_classic_mil"), "auc")
    tables["nnU-Net revisited"] = select(_read(facts, "nnunet_revisited2024"), "dice")
    return {name: replace(t, name=f"{t.name.split()[0]} {name}") for name, t in tables.items()}


ASIDE = ("transfergraph2024_records", "transfergraph2024_ftrecords", "parc2021_oracles", "medmnist_v2_yang2023")
SOURCES = ("G2", "G2b", "G1 AUC", "G1c AUC")
METHODS = ("G3 acc", "G3 auc", "G3n acc", "G3n auc", "G4", "G4d", "G5 PathBench", "G5 classic MIL", "nnU-Net revisited")
ASIDE_NOTE = (
    "No constant and no variant of the learner was chosen by these. (On the second it once did worse than the list,\n"
    "because its gate counted setups that no other dataset had run.)\n"
)
PERMUTATIONS = 5
CONTROLS = ("G3 acc", "G3 auc", "G4")


def tables_aside(facts: Path) -> dict[str, Table]:
    """Tables that are in none of the pools."""
    return {" ".join(t.name.split()): t for stem in ASIDE for t in _read(facts, stem)}


def _marked(name: str, result: Exam) -> str:
    own = result.name.startswith("metamed ")
    return name if own or result.name.split()[0] in shipped_studies() else f"{name} †"


def permuted(table: Table, seed: int = 0) -> Table:
    """The facts of the datasets handed to other datasets: what a learner gains then, it gains from a leak."""
    order = np.random.default_rng(seed).permutation(len(table.datasets))
    return replace(table, name=f"{table.name} (facts permuted)", facts={n: f[order] for n, f in table.facts.items()})


def _without_trees(train: Table, target: Table):
    return answer(replace(fit(train), models=()), train, target)


def _no_facts(table: Table) -> Table:
    return replace(table, facts={})


def _no_modality(table: Table) -> Table:
    return replace(table, facts={n: f for n, f in table.facts.items() if n != "modality"})


def _no_descriptors(table: Table) -> Table:
    return replace(table, descriptors={})


def _no_hints(table: Table) -> Table:
    """Hints that tell nothing apart, where there were some: the same datasets stay judged."""
    return replace(table, hints={n: np.where(np.isfinite(h), 0.0, np.nan) for n, h in table.hints.items()})


ABLATIONS = {  # what is taken away -> (how a table loses it, the ranker)
    "nothing": (lambda table: table, fit_predict),
    "XGBoost's trees": (lambda table: table, _without_trees),
    "facts about datasets": (_no_facts, fit_predict),
    "modality": (_no_modality, fit_predict),
    "descriptors of setups": (_no_descriptors, fit_predict),
    "published scores and distances": (_no_hints, fit_predict),
}


def _short(table: Table, ranker, seed: int) -> Exam:
    return exam(table, {"metamed": ranker}, seed=seed, beside={"prior_list": prior_list})


def _ablation_line(name: str, found: dict[str, Exam], seed: int) -> str:
    cells = [_figure(*pooled([found[n] for n in names], measure, seed=seed))
             for names in (METHODS, SOURCES) for measure in ("tau", "nreg1")]  # fmt: skip
    return f"| {name} | " + " | ".join(cells) + " |"


def _figure(value: float, ends: tuple | None, digits: int = 3) -> str:
    return f"{value:+.{digits}f}" + ("" if ends is None else f" [{ends[0]:+.{digits}f}, {ends[1]:+.{digits}f}]")


def _pool_line(name: str, results: list[Exam], seed: int) -> str:
    families = len({(r.name.split()[0], family) for r in results for family in r.families})
    values = [_figure(*pooled(results, measure, seed=seed)) for measure in ("tau", "nreg1")]
    return f"| {name} | {len(results)} | {families} | {' | '.join(values)} |"


SUMMARY_HEAD = (
    "| exam | tau by family | tau by dataset | tau difference | nreg@1 difference | regret@3 | difference |"
    " coverage | gate shut |\n" + "|---" * 9 + "|"
)


def _summary_line(name: str, result: Exam, seed: int) -> str:
    taus = [result.mean(r, "tau") for r in ("prior_list", "metamed")]
    by_target = [float(np.mean(result.marks[r]["tau"])) for r in ("prior_list", "metamed")]
    gains = [_figure(float(d.mean()), interval(d, seed=seed)) for d in
             (result.difference("metamed", m) for m in ("tau", "nreg1"))]  # fmt: skip
    third = result.difference("metamed", "regret3")
    regret3 = [result.mean(r, "regret3") for r in ("prior_list", "metamed")]
    shut = sum("alone" in basis for basis in result.basis["metamed"])
    cells = [_marked(name, result), f"{taus[0]:.3f} → {taus[1]:.3f}",
             f"{by_target[0]:.3f} → {by_target[1]:.3f}", *gains,
             f"{regret3[0]:.4f} → {regret3[1]:.4f}", _figure(float(third.mean()), interval(third, seed=seed), 4),
             f"{result.mean('metamed', 'coverage'):.3f}", f"{shut} of {len(result.basis['metamed'])}"]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _apart(result: Exam, table: Table) -> list[str]:
    """Gain on medical and on natural targets, where a table has both."""
    modality = dict(zip(table.datasets, table.facts["modality"], strict=True))
    natural = np.array([modality[d] in NATURAL for d in result.datasets])
    lines = []
    for name, part in (("medical", ~natural), ("natural", natural)):
        chosen = replace(
            result, datasets=tuple(np.array(result.datasets)[part]), families=tuple(np.array(result.families)[part]),
            marks={r: {m: v[part] for m, v in marks.items()} for r, marks in result.marks.items()})  # fmt: skip
        gains = [
            _figure(float(d.mean()), interval(d)) for d in (chosen.difference("metamed", m) for m in ("tau", "nreg1"))
        ]
        lines.append(f"| {result.name} | {name} | {len(dict.fromkeys(chosen.families))} | {' | '.join(gains)} |")
    return lines


def _level_line(name: str, result: Exam) -> str:
    figures = [result.mean("prior_list", "mae"), result.mean("metamed", "mae"),
               float(np.nanmean(result.marks["metamed"]["mae"])), result.mean("metamed", "coverage")]  # fmt: skip
    return f"| {name} | " + " | ".join(f"{f:.3f}" for f in figures) + " |"


def _control_line(name: str, found: list[Exam]) -> str:
    gains = [float(r.difference("metamed", "tau").mean()) for r in found]
    return f"| {name} | {np.mean(gains):+.3f} | {', '.join(f'{g:+.3f}' for g in gains)} |"


def _hold(table: Table, ranker, shown: tuple[str, ...], seed: int) -> Exam:
    return exam(table, {"metamed": ranker}, shown=shown, seed=seed)


def figure(results: dict[str, Exam], path: Path, seed: int) -> None:
    """The gain in weighted tau over the prior list in every exam, with its 95 % interval, as SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "metamed", "font.size": 9}):
        drawn = Figure(figsize=(6.5, 0.5 + 0.22 * len(results)), layout="constrained")
        axes = drawn.subplots()
        for place, result in enumerate(results.values()):
            gain = result.difference("metamed", "tau")
            axes.plot(interval(gain, seed=seed), [place, place], color="#4477aa", linewidth=2)
            axes.plot([gain.mean()], [place], "o", color="#222222", markersize=4)
        axes.axvline(0, color="#888888", linewidth=0.8)
        axes.set_yticks(range(len(results)), list(results))
        axes.invert_yaxis()
        axes.set_xlabel("gain in weighted tau over the prior list, 95 % interval")
        axes.spines[["top", "right"]].set_visible(False)
        drawn.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def report(facts: Path, command: str, seed: int = 0, jobs: int = 1, picture: Path | None = None) -> str:
    """All exams, the pooled figures and the control, as one Markdown document; `picture`: where to draw the gains."""
    started = sum(os.times()[:4])
    tables = published_tables(facts) | {"own runs": tables_of(Store.embedded(), "classification", "auc")[0]}
    asked = {name: (table, fit_predict, ()) for name, table in tables.items()}
    asked |= {("control", name, k): (permuted(tables[name], seed + k), ungated, ())
              for name in CONTROLS for k in range(PERMUTATIONS)}  # fmt: skip
    aside = tables_aside(facts)
    asked |= {name: (table, fit_predict, ()) for name, table in aside.items()}
    asked["reference"] = (tables["G4d"], fit_predict, ("nnU-Net",))
    with ProcessPoolExecutor(jobs) as pool:
        found = dict(zip(asked, pool.map(_hold, *zip(*asked.values(), strict=True), [seed] * len(asked)), strict=True))
        tried = [(name, n) for name in ABLATIONS if name != "nothing" for n in (*METHODS, *SOURCES)]
        less = [(ABLATIONS[name][0](tables[n]), ABLATIONS[name][1], seed) for name, n in tried]
        ablated = dict(zip(tried, pool.map(_short, *zip(*less, strict=True)), strict=True))
    results, reference = {name: found[name] for name in tables}, found["reference"]
    ablated |= {("nothing", n): results[n] for n in (*METHODS, *SOURCES)}
    controls = {name: [found["control", name, k] for k in range(PERMUTATIONS)] for name in CONTROLS}
    mixed = [name for name in results if name.startswith("G1")]
    if picture:
        figure(results, picture, seed)
    minutes = (sum(os.times()[:4]) - started) / 60
    sections = [
        INTRODUCTION.format(command=command, minutes=minutes, seed=seed),
        "## Pooled over families, difference to the prior list\n",
        "| pool | exams | families | tau | nreg@1 |\n|---|---|---|---|---|",
        _pool_line("methods", [results[n] for n in METHODS], seed),
        _pool_line("sources", [results[n] for n in SOURCES], seed),
        "\n## Ablation: what is gained over the prior list when something is taken away\n",
        "| without | methods, tau | nreg@1 | sources, tau | nreg@1 |\n" + "|---" * 5 + "|",
        *[_ablation_line(name, {n: ablated[name, n] for n in (*METHODS, *SOURCES)}, seed) for name in ABLATIONS],
        "\n## Exam by exam, prior list → metamed\n",
        SUMMARY_HEAD,
        *[_summary_line(name, r, seed) for name, r in results.items()],
        "\n## Tables that stand aside\n",
        ASIDE_NOTE,
        SUMMARY_HEAD,
        *[_summary_line(name, found[name], seed) for name in aside],
        "\n## Medical and natural targets apart\n",
        "| exam | targets | families | tau difference | nreg@1 difference |\n|---|---|---|---|---|",
        *[line for name in mixed for line in _apart(results[name], tables[name])],
        "\n## Expected scores: mean absolute error\n",
        "| exam | mean of the item, by family | metamed | metamed, by dataset | coverage |\n|---|---|---|---|---|",
        *[_level_line(name, r) for name, r in results.items()],
        _level_line("G4d after one run of nnU-Net on the target", reference),
        f"\n## Control: facts handed to other datasets, the gate held open, {PERMUTATIONS} permutations\n",
        "| exam | tau difference to the prior list | of each permutation |\n|---|---|---|",
        *[_control_line(name, found) for name, found in controls.items()],
        "\n## Every ranker\n",
        as_markdown([*results.values(), *(found[name] for name in aside)], seed=seed),
    ]  # fmt: skip
    return "\n".join(sections)


INTRODUCTION = """# Exams of the recommender

Made by `{command}` in {minutes:.1f} CPU minutes;
seed {seed}; nothing in this file is edited by hand.

One family of datasets is left out at a time; everything is fitted on the rest. Figures are means over families,
datasets averaged inside theirs; brackets are 95 % paired bootstrap intervals over families (2000 draws). `prior_list`
is the average rank over the other datasets. nreg@1 is the regret of the first pick over the range of scores; less is
better. "gate shut" counts the families for which the learner saw no gain inside the others and answered with its list.

The recipe and its constants were written down before, from earlier studies of about 300 configurations on these same
tables: they are no untouched test sets for it. In this program twenty-four variants of the whole learner were looked
at: trees as a full second stage (it cost nreg@1); trees as one of five averaged correctors, with a gate that tried one
of three seeds; a gate that tries exactly what answers; a fall-back to the very prior list, so that a shut gate never
differs from the baseline; bins shared by all folds; six ways of treating the first place; and twelve more, of the
first place (free, kept, or free by what was lost inside: in the mean, by one or by 1.645 standard errors, among targets
of the same kind) crossed with 1, 3 or 10 trees' seeds with and without sampling. The one that stands keeps the list's
first where fewer than two other families share the target's domain, and everywhere if another lost more inside; the
second condition came last, after the first pick on own runs had become worse than the list's. Four ideas that are no
part of these exams, and nine ways of using runs on the target, are in ideas.md. Gains in single exams move with the
seeds of the trees: the pooled ones count.

† read from the folder of facts: no licence to redistribute it is known, so it does not ship, and the shipped learners
were fitted without it.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path(os.environ.get("METAMED_SHARED", Path(__file__).parents[2] / "shared"))
    parser.add_argument("--facts", type=Path, default=shared / "facts", help="folder of result tables")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes that work at once")
    options = parser.parse_args()
    if not options.facts.is_dir():
        sys.exit(f"--facts {options.facts}: no such folder. Pass the folder of result tables, or set METAMED_SHARED.")
    command = f"python -m benchmarks.exams --facts FACTS --seed {options.seed}"
    picture = options.out.with_name("exams.svg")
    options.out.write_text(report(options.facts, command, options.seed, options.jobs, picture), encoding="utf-8")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
