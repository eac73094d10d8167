"""What are people's assessments worth beside experts' labels? Both ways to learn them, on the two real datasets.

`python -m benchmarks.crowd_learning frozen` learns on the frozen features of one source: every way, every number of
labels, five seeds of five folds; nothing is written into a store. `... trained --store S` trains networks: those are
metamed runs. Both go on where they stopped. `python -m benchmarks.crowd_learning_report` reads what they left.

Rules, the same for all ways: five-fold cross-validation, patients never divided; of the four training folds `n` images
have labels, nested and stratified; assessments are those of images outside the test fold, labelled or not; each way
chooses among six settings by four-fold cross-validated likelihood on its `n` labels, so that labels alone have the same
budget; some ways have one fixed setting instead. Features: 128 principal components (of the images outside the test
fold) of ImageNet's MobileNetV2 at 96 pixels.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.run import SHARED, open_store
from metamed.assessments import Ratings
from metamed.dataset import Dataset
from metamed.experiments import Suite, run_suite
from metamed.flows.similarity.metric import principal_components
from metamed.judged import Judged, judged
from metamed.methods import Believed, Shape, get_method
from metamed.readers import read
from metamed.records import Setup, Task
from metamed.sources import embedder
from metamed.tasks import make_task

SIZES, SEEDS, FOLDS = (12, 25, 50, 100, 200, 400, None), range(5), 5
COMPONENTS, INNER = 128, 4
FOLDER = Path(os.environ.get("METAMED_CROWD", "crowd-learning"))  # predictions of every way, before they become tables

# ---- data


@cache
def find(name: str) -> Dataset:
    """enhance: lesions with three scores each; enhance.students: also those of students; chest: triplets, patients."""
    if name == "chest":
        path = SHARED / "data" / "crowd" / "pneumonia_cxr_triplets.h5"
        groups = np.unique([patient(name) for name in column(path, "image_names")], return_inverse=True)[1]
        data = read(path)
        return replace(data, name="chest_triplets", split=None, groups=groups,
                       card=replace(data.card, family="kermany_cxr"))  # fmt: skip
    path = SHARED / "data" / "crowd" / "enhance_isic2017_crowd_images.h5"
    data = read(path, labels="melanoma")
    data = replace(data, name="enhance_lesions", card=replace(data.card, family="isic"))
    return replace(data, name="enhance_students", ratings=with_students(data)) if name.endswith("students") else data


def column(path: Path, key: str) -> list[str]:
    import h5py

    with h5py.File(path) as file:
        return [value.decode() for value in file[key][()]]


def patient(name: str) -> str:
    """person12_virus_3.jpeg -> person12; NORMAL2-IM-0052-0001.jpeg -> NORMAL2-IM-0052: whose image it is."""
    return re.match(r"person\d+|.*IM-\d+", str(name))[0]


def with_students(data: Dataset) -> Ratings:
    """The crowd's scores and those of the student groups for the same lesions; students persist within their group."""
    names = column(SHARED / "data" / "crowd" / "enhance_isic2017_crowd_images.h5", "image_id")
    place = {name: k for k, name in enumerate(names)}
    with gzip.open(SHARED / "data" / "crowd" / "enhance_skin_abc.csv.gz", "rt") as file:
        rows = [r for r in csv.DictReader(file) if r["source"] == "student" and r["image_id"] in place
                and r["feature"] in ("asymmetry", "border", "color") and r["score"]]  # fmt: skip
    crowd, n = data.ratings, len(rows)
    return Ratings(
        np.concatenate([crowd.image, [place[r["image_id"]] for r in rows]]).astype(int),
        np.concatenate([crowd.annotator, [f"{r['group']}/{r['annotator']}" for r in rows]]),
        np.concatenate([crowd.attribute, [r["feature"] for r in rows]]),
        np.concatenate([crowd.score, [float(r["score"]) for r in rows]]),
        slot=np.concatenate([~crowd.persistent, np.zeros(n, bool)]),
    )


@cache
def features(name: str) -> np.ndarray:
    """Frozen features of every image, float32 (n, D)."""
    path = FOLDER / f"{name.split('.')[0]}-features.npy"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        np.save(path, embedder(image_size=96, device="cpu")(find(name).images))
    return np.load(path).astype(np.float32)


@cache
def compressed(name: str, test: tuple[int, ...], components: int) -> np.ndarray:
    """Principal components of the features, found without the test images, (n, components)."""
    mean, basis = principal_components(np.delete(features(name), test, axis=0), components)
    return (features(name) - mean) @ basis


# ---- ways


@dataclass(frozen=True)
class Way:
    """A way to learn: a probe, the settings it chooses among, and how much of the assessments it is given.

    share: of the answers, drawn at random. asked: people's scores of the image itself are an input, also for testing.
    shuffled: a control, the images' answers are exchanged. components: principal components of the features.
    """

    dataset: str
    method: str
    grid: dict[str, tuple]
    fixed: dict = field(default_factory=dict)
    share: float = 1.0
    asked: bool = False
    shuffled: bool = False
    components: int = COMPONENTS

    @property
    def settings(self) -> list[dict]:
        return [self.fixed | dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())]


C6 = {"c": (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)}
LABELS = {"method": "probe.linear", "grid": C6, "fixed": {"scaling": "all"}}
LOUD = {"method": "probe.attributes", "grid": {"c": (1e-4, 1e-3, 1e-2), "loudness": (10.0, 30.0)}}
FIRST = {"method": "probe.multitask", "grid": {"c": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)}, "fixed": {"first": True}}
METRIC = {"method": "probe.triplets", "grid": {"c": (1e-3, 1e-2, 1e-1), "violation_price": (0.01, 1.0)}}
PLAIN = {"method": "probe.attributes", "grid": {"c": (0.01,)}}  # default settings: for what is compared with itself
BELIEVED = {f"quality {m}": {"keep": "quality", "minimum_quality": m} for m in (0.5, 0.6, 0.7)}
WAYS = {  # what matters most first: an interrupted run is of use
    "enhance": {
        "labels": Way("enhance", **LABELS),
        "attributes": Way("enhance", **LOUD),
        "first": Way("enhance", **FIRST),
        "joint, weight 0.3": Way("enhance", "probe.multitask", {"assessment_weight": (0.3,)}),
        "attributes, fixed": Way("enhance", **PLAIN),
        "fixed, shuffled": Way("enhance", **PLAIN, shuffled=True),
        **{f"fixed, {100 * s:.0f} %": Way("enhance", **PLAIN, share=s) for s in (0.3, 0.1, 0.03, 0.01)},
        **{f"fixed, {name}": Way("enhance", **PLAIN, fixed=kept) for name, kept in BELIEVED.items()},
        "students": Way("enhance.students", **PLAIN),
        **{f"students, {name}": Way("enhance.students", **PLAIN, fixed=kept) for name, kept in BELIEVED.items()},
        "asked": Way("enhance", **LABELS, asked=True),
        "labels, 8 components": Way("enhance", **LABELS, components=8),
        "attributes only": Way("enhance", "probe.attributes", C6, {"only": True, "loudness": 1.0}),
        "joint, weight 3.0": Way("enhance", "probe.multitask", {"assessment_weight": (3.0,)}),
    },
    "chest": {
        "labels": Way("chest", **LABELS),
        "metric": Way("chest", **METRIC, fixed={"components": 128}),
        "first": Way("chest", **FIRST),
        "joint, weight 0.03": Way("chest", "probe.multitask", {"assessment_weight": (0.03,)}),
        "metric, fixed": Way("chest", "probe.triplets", {"c": (0.1,)}, {"components": 128}),
        "fixed, labels": Way("chest", "probe.triplets", {"c": (0.1,)}, {"components": 128, "keep": "labels"}),
        "metric only": Way("chest", **METRIC, fixed={"components": 128, "towards": "none"}),
        "joint, weight 0.3": Way("chest", "probe.multitask", {"assessment_weight": (0.3,)}),
    },
}


def shared(data: Dataset, share: float, seed: int) -> Dataset:
    """The dataset with a random share of its answers."""
    if share == 1:
        return data
    answers = data.triplets if data.ratings is None else data.ratings
    rows = np.sort(np.random.default_rng(seed).permutation(len(answers))[: round(share * len(answers))])
    return replace(data, **{"triplets" if data.ratings is None else "ratings": answers.take(rows)})


def shuffled(data: Dataset, seed: int) -> Dataset:
    """The dataset with ratings that were given to another image."""
    place = np.random.default_rng(seed).permutation(len(data.images))
    return replace(data, ratings=replace(data.ratings, image=place[data.ratings.image]))


def own_scores(data: Dataset) -> np.ndarray:
    """The mean score of each image and attribute as people gave them, standardised, (n, A)."""
    return judged(data, np.arange(len(data.images)), Believed("ratings")).scores


# ---- one fold


def said(way: Way, data: Dataset, allowed: np.ndarray, known: np.ndarray) -> Judged | None:
    """What the way is told: nothing, or what people said of allowed images; `known`: which labels it has."""
    if not get_method(way.method).assessed:
        return None
    labels = np.full(len(data.images), -1)
    labels[known] = data.target[known]
    believed = Believed("any", way.fixed.get("keep", "all"), way.fixed.get("minimum_quality", 0.5))
    return judged(data, allowed, believed, labels)


def probes(way: Way, x: np.ndarray, told: Judged | None) -> list:
    """One probe for each setting, told what people said."""
    built = [get_method(way.method).build(Shape(x.shape[1], (), 2), **setting) for setting in way.settings]
    if told is not None:
        for probe in built:
            probe.assessed(x[told.index], told)
    return built


def inner_folds(y: np.ndarray, seed: int) -> np.ndarray:
    """For each labelled sample the fold in which it judges, classes in proportion."""
    fold, rng = np.empty(len(y), int), np.random.default_rng(seed)
    for k in (0, 1):
        mine = rng.permutation(np.flatnonzero(y == k))
        fold[mine] = np.arange(len(mine)) % INNER
    return fold


def inner_loss(probe, x: np.ndarray, y: np.ndarray, fold: np.ndarray) -> float:
    """Mean negative log-likelihood of labels that were left out."""
    loss = 0.0
    for k in range(INNER):
        out = fold == k
        answer = probe.fit(x[~out], y[~out]).predict(x[out])
        loss -= answer[np.arange(out.sum()), y[out]].sum()
    return loss / len(y)


def learned(ways: list, x: np.ndarray, y: np.ndarray, known: np.ndarray, seed: int):
    """The probe with the best setting, fitted to all labels that are known."""
    if len(ways) == 1:
        return ways[0].fit(x[known], y[known])
    fold = inner_folds(y[known], seed)
    losses = [inner_loss(probe, x[known], y[known], fold) for probe in ways]
    return ways[int(np.argmin(losses))].fit(x[known], y[known])


def one_fold(way: Way, tasks: dict[int | None, Task], fold: int, seed: int) -> Iterator[tuple]:
    """(size, test samples, probability of the second class) of one fold, for every number of labels."""
    data = shared(find(way.dataset), way.share, seed)
    data = shuffled(data, seed) if way.shuffled else data
    split = tasks[None].folds[fold]
    test = np.array(split.test)
    outside = np.array(sorted({*split.train, *split.validation}))
    x = compressed(way.dataset.split(".")[0], split.test, way.components)
    if way.asked:
        x = np.concatenate([x, own_scores(data) * np.sqrt(x.var(axis=0).max())], axis=1)
    ready = None
    for size in SIZES:
        known = np.array(sorted({*tasks[size].folds[fold].train, *tasks[size].folds[fold].validation}))
        if ready is None or way.fixed.get("keep") == "labels":
            ready = probes(way, x, said(way, data, outside, known))
        yield size, test, np.exp(learned(ready, x, data.target, known, seed).predict(x[test])[:, 1])


def run_way(name: str, way: Way) -> np.ndarray:
    """Predictions float32 (seeds, sizes, n) of every sample by the models that did not know it."""
    data = find(way.dataset)
    out = np.full((len(SEEDS), len(SIZES), len(data.images)), np.nan, np.float32)
    for seed in SEEDS:
        tasks = {size: make_task(replace(data, ratings=None, triplets=None), procedure="5-fold", size=size, seed=seed)
                 for size in SIZES}  # fmt: skip
        for fold in range(FOLDS):
            for size, test, probability in one_fold(way, tasks, fold, seed):
                out[seed, SIZES.index(size), test] = probability
    return out


def frozen(datasets: list[str]) -> None:
    """Every way that was not run yet, each into a file of its own; the datasets in turn."""
    in_turn = sorted(((d, n) for d in datasets for n in WAYS[d]), key=lambda p: list(WAYS[p[0]]).index(p[1]))
    for dataset, name in in_turn:
        path = FOLDER / f"{dataset}-{name}.npy"
        if not path.exists():
            start = time.process_time()
            features(dataset)
            np.save(path, run_way(name, WAYS[dataset][name]))
            print(f"{dataset} {name}: {time.process_time() - start:.0f} s of CPU time", flush=True)


# ---- networks

IMAGENET = "imagenet.coral.mobilenet_v2"
RATE = {"learning_rate": 0.003}
SMALL = {"image_size": 32}
NETWORKS = (
    Setup("mobilenet", RATE, "finetune", (IMAGENET,)),
    Setup("mobilenet", RATE, "joint", (IMAGENET,)),
    Setup("mobilenet", RATE | {"pretrain_epochs": 3}, "pretrain", (IMAGENET,)),
    Setup("mobilenet", RATE | {"epochs": 30}, "finetune", (IMAGENET,)),  # as long as joint learning takes
    Setup("small_cnn", SMALL),
    Setup("small_cnn", SMALL, "joint"),
    Setup("small_cnn", SMALL | {"pretrain_epochs": 5}, "pretrain"),
    Setup("small_cnn", SMALL | {"epochs": 30}),
)
COMPARING = (
    Setup("probe.metric", {}, None, (IMAGENET,)),
    Setup("probe.metric", {"towards": "none"}, None, (IMAGENET,)),
    Setup("triplet", SMALL),
)
SUITES = {
    "small100": Suite("small100", ("enhance", "chest"), NETWORKS[4:], sizes=(100,), procedure="holdout",
                      splits=(0, 1, 2, 3, 4)),
    "comparing": Suite("comparing", ("chest.compared",), COMPARING, procedure="5-fold"),
    "mobile100": Suite("mobile100", ("enhance", "chest"), NETWORKS[:4], sizes=(100,), procedure="holdout",
                       splits=(0, 1, 2, 3, 4)),
}  # fmt: skip


def found(name: str) -> Dataset:
    """As `find`; `.compared`: without labels, a similarity task."""
    plain, _, view = name.partition(".")
    return replace(find(plain), target=None) if view == "compared" else find(name)


def trained(store: str, names: list[str]) -> None:
    with open_store(store) as kept:
        for name in names:
            start = time.process_time()
            runs = run_suite(SUITES[name], kept, found, device="cpu", threads=1, report=_say)
            print(f"{name}: {len(runs)} new runs, {time.process_time() - start:.0f} s of CPU time", flush=True)


def _say(run, job) -> None:
    print(f"{job.dataset.name} n={job.task.size} {job.setup.label}: {run.error or run.score(job.task.measure)} "
          f"({run.seconds:.0f} s)", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["frozen", "trained"])
    parser.add_argument("names", nargs="*", help="datasets or suites; all if none")
    parser.add_argument("--store", default="crowd.db")
    options = parser.parse_args()
    if options.what == "frozen":
        frozen(options.names or list(WAYS))
    else:
        trained(options.store, options.names or list(SUITES))


if __name__ == "__main__":
    main()
