"""Make the published evidence in metamed/data from the tables of papers: python -m benchmarks.import_facts.

Reads $METAMED_SHARED/facts and $METAMED_SHARED/weights (default: ../shared). Own runs in metamed/data stay as they are.
"""

from __future__ import annotations

import csv
import hashlib
import os
from dataclasses import replace
from pathlib import Path

from metamed.dataset import Card
from metamed.records import Source
from metamed.store import Store, evidence
from metamed.store.evidence import DatasetFacts, pseudo_digest

SHARED = Path(os.environ.get("METAMED_SHARED", Path(__file__).parents[2] / "shared"))
DATA = Path(__file__).parents[1] / "metamed" / "data"

STUDIES = {  # table -> licence and repository that it was read from; tables without a licence do not ship
    "medmnistplus_doerrich2024": ("Apache-2.0", "github.com/sdoerrich97/rethinking-model-prototyping-MedMNISTPlus"),
    "juodelyte2024_transfer_auc": ("MIT", "github.com/DovileDo/transferability-in-medical-imaging"),
    "godau2024_taskfingerprint_development": ("MIT", "github.com/IMSY-DKFZ/task-fingerprinting"),
    "msd2018_leaderboard": ("MIT", "github.com/IMSY-DKFZ/task-fingerprinting"),
    "medsegbench2024": ("Apache-2.0", "github.com/zekikus/MedSegBench"),
    "nnunet_revisited2024": ("Apache-2.0", "github.com/MIC-DKFZ/nnUNet"),
}

FAMILIES = {  # the same images under several names: family in families.csv -> one name for all studies
    "pneumoniamnist": "kermany_cxr", "pneumonia": "kermany_cxr",  # paediatric chest X-rays of Kermany et al.
    "dermamnist": "isic", "isic20": "isic", "PH2": "ph2", "wbc": "zheng_wbc",  # DermaMNIST is HAM10000, part of ISIC
    "breastmnist": "busi", "breast_ultrasound": "busi", "kvasir": "hyperkvasir",
    "organ": "lits", "LiTS": "lits", "Liver": "lits",  # OrganMNIST and the Decathlon's liver are LiTS scans
    "BRATS": "brats", "BraTS": "brats",
}

_NATURAL = "training images are for non-commercial research"
COPIES = {"imagenet": ("mobilenet_v2_imagenet1k", "imagenet"),
          "inatbird": ("mobilenet_v2_inatbird", "inaturalist2017.birds"),
          "inatinsect": ("mobilenet_v2_inatinsect", "inaturalist2017.insects")}
TORCHVISION = {"resnet18": "f37072fd", "resnet50": "11ad3fa6", "mobilenet_v2": "7ebf99e0"}  # hash in the file's name


def sources() -> list[Source]:
    """Weights that anyone can get: three networks that lie in benchmarks/weights, and torchvision's defaults."""
    shipped = [
        Source(f"{name}.coral.mobilenet_v2", "mobilenet_v2", "supervised", (corpus,), "half_same",
               hashlib.sha256((SHARED / "weights" / f"{file}.safetensors").read_bytes()).hexdigest(),
               f"Apache-2.0; {_NATURAL}", "shipped")
        for name, (file, corpus) in COPIES.items()]
    return shipped + [
        Source(f"imagenet.torchvision.{network}", network, "supervised", ("imagenet",), "imagenet", prefix,
               f"BSD-3-Clause; {_NATURAL}", "torchvision")
        for network, prefix in TORCHVISION.items()]


def _table(name: str) -> list[dict[str, str]]:
    with (SHARED / "facts" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _number(text: str) -> int | None:
    return int(float(text)) if text.replace(".", "").isdigit() else None


def _general_facts() -> dict[str, DatasetFacts]:
    """MedMNIST, MedSegBench and the sets of nnU-Net Revisited, from datasets.csv."""
    found = {}
    for r in _table("datasets"):
        parts = [_number(r[c]) for c in ("n_train", "n_val", "n_test")]
        facts = {"n_train": parts[0]} if parts[0] else {}
        facts |= {word.replace("-", "_"): 1.0 for word in ("multi-label", "ordinal") if word in r["task"]}
        kind = "segmentation" if r["use"] == "segmentation" else "classification"
        modality = r["modality"].replace(" (from dataset name)", "")
        found[r["dataset"]] = DatasetFacts(
            pseudo_digest(r["dataset"]), r["dataset"], kind, Card(modality, r["organ"], license=r["licence"]),
            sum(filter(None, parts)) or None, _number(r["n_classes"]), _number(r["n_channels"]), facts=facts)
    return found


_ORGANS = ("eye", "brain", "breast", "chest", "bone", "gynecology")


def _godau_facts() -> dict[str, DatasetFacts]:
    """The tasks of Godau et al.; targets were reduced to at most 800 training images."""
    found = {}
    for r in _table("godau2024_task_infos"):
        modality = r["domains"].replace("x_ray", "x-ray").replace("_", " ")
        modality = f"endoscopy ({modality})" if modality.endswith("oscopy") and "dermat" not in modality else modality
        organ = next((o for o in _ORGANS if f"'{o}'" in r["keywords"]), "")
        n = int(r["num_samples"])
        facts = {"n_train": min(800, n), "imbalance": round(float(r["imbalance_ratios"]), 4)}
        found[r["name"]] = DatasetFacts(pseudo_digest(r["name"]), r["name"], "classification", Card(modality, organ), n,
                                        int(r["num_classes"]), facts=facts)
    return found


def _decathlon_facts() -> dict[str, DatasetFacts]:
    """The labels of the Medical Segmentation Decathlon; each label of a set is a target of its own."""
    infos = {r["datasets"]: r for r in _table("msd2018_task_infos")}
    found = {}
    for r in _table("label_facts"):
        if r["table"] == "msd2018_leaderboard":
            info = infos["".join(r["dataset"].split()[1:-1])]
            name, n = r["dataset"].replace(" ", "_"), int(info["num_samples"])
            found[r["dataset"]] = DatasetFacts(
                pseudo_digest(name), name, "segmentation", Card(info["domains"].replace("_scan", ""), r["organ"]), n,
                int(info["num_classes"]), facts={"n_train": n, "label_kind": r["label_kind"]})
    return found


def facts() -> list[DatasetFacts]:
    """What is known of every dataset in the tables that ship, with one family name for datasets that share images."""
    known = _general_facts() | _godau_facts() | _decathlon_facts()
    kinds = {r["dataset"]: r["label_kind"] for r in _table("label_facts") if r["table"] == "medsegbench2024"}
    families = {r["dataset"]: r["family"] for r in _table("families")
                if any(study.startswith(r["table"]) for study in STUDIES)}
    found = []
    for name, family in families.items():
        base = name.split("_C")[0] if name.startswith("idrib") else name
        if base not in known:
            continue
        of = known[base]
        stored = of.name if base == name else name
        extra = of.facts | ({"label_kind": kinds[base]} if base in kinds else {})
        card = replace(of.card, family=FAMILIES.get(family, family))
        found.append(replace(of, digest=pseudo_digest(stored), name=stored, card=card, facts=extra))
    return found


def main() -> None:
    store = Store.memory()
    store.add_all([*sources(), *facts()])
    for path in (DATA / "published").glob("*.csv"):
        path.unlink()
    for study in STUDIES:
        new = store.import_table(SHARED / "facts" / f"{study}.csv", study)
        print(f"{study}: {int(new)} figures", *new.notes, sep="\n  ")
    evidence.describe_studies(DATA, STUDIES)
    evidence.write(store, DATA, "unassigned")


if __name__ == "__main__":
    main()
