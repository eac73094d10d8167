"""Every exam on published result tables, as one document: `python -m benchmarks.exams --facts DIR`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from metamed.exams import Exam, as_markdown, exam, interval, pooled
from metamed.metalearner import fit_predict
from metamed.tables import Table, read_tables, select

RESULTS = Path(__file__).parent / "results" / "exams.md"
POOLS = ("imagenet", "radimagenet", "medmnist")  # sources made of several sets
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
    godau = _read(facts, "godau2024_taskfingerprint_development", datasets="godau2024_task_infos",
                  distances="godau2024_task_distances")
    medmnist, medseg = _read(facts, "medmnistplus_doerrich2024"), _read(facts, "medsegbench2024")
    decathlon = _read(facts, "msd2018_leaderboard")
    g2, g4 = select(source, "transfer auc"), _average_idrid(select(medseg, "dice_f1"))
    tables = {"G2": g2, "G2b": g2.columns([i not in POOLS for i in g2.items])}
    for name, scenario in {"G1": "pretrain", "G1c": "arch", "G1 augmentation": "augmentation", "G1 multi-task": "multi_task"}.items():
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


SOURCES = ("G2", "G2b", "G1 AUC", "G1c AUC")
METHODS = ("G3 acc", "G3 auc", "G3n acc", "G3n auc", "G4", "G4d", "G5 PathBench", "G5 classic MIL", "nnU-Net revisited")
CONTROLS = ("G3 acc", "G3 auc", "G4")


def permuted(table: Table, seed: int = 0) -> Table:
    """The facts of the datasets handed to other datasets: what a learner gains then, it gains from a leak."""
    order = np.random.default_rng(seed).permutation(len(table.datasets))
    return replace(table, name=f"{table.name} (facts permuted)", facts={n: f[order] for n, f in table.facts.items()})
