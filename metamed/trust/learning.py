"""A setup as a function from bags and their classes to a model, so that it can be learned again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from metamed import training
from metamed.dataset import ArrayImages, Dataset, Split
from metamed.errors import NotApplicable
from metamed.experiments import make_job
from metamed.jobs import Job, is_frozen, own
from metamed.jobs import mil as jobs
from metamed.methods import get_method
from metamed.records import Setup, Task
from metamed.store import Store
from metamed.training import mil
from metamed.trust.judging import Learn, Model

PANEL = ("single_instance", "mi_svm_bags", "miles", "citation_knn", "attention")  # whose opinion is asked for: unlike
# each other, and learned within a second
MOST_BYTES, COMPONENTS = 4 << 30, 64
VALIDATION = 5  # a network chooses its epoch on every fifth of the bags that it is given


@dataclass(frozen=True)
class NetworkModel:
    """A trained network of bags as a `Model`."""

    answer: Any

    def predict(self, bags: Sequence[np.ndarray]) -> np.ndarray:
        logits = mil.logits_of(self.answer, bags, range(len(bags))).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def scores(self, bag: np.ndarray) -> np.ndarray:
        return mil.instance_scores(self.answer, bag)


Keep = Callable[[str, str, np.ndarray], object]  # what `Store.add_features` takes: a source, a digest, its features


def learner(
    setup: Setup, dataset: Dataset, store: Store, *, device: str = "auto", keep: Keep | None = None
) -> tuple[mil.Bags, Learn]:
    """(the dataset's bags as the setup's method takes them, how it learns from such bags).

    Frozen features are taken from the store, or computed and kept: by `keep`, or in that store. Raises NotApplicable
    for what does not learn from bags.
    """
    method = get_method(setup.method)
    if method.kind != "mil" or dataset.bags is None or dataset.target is None:
        raise NotApplicable(f"{setup.label} on {dataset.name}: a method for bags, and bags with labels, are needed")
    if (size := int(np.prod(dataset.images.shape)) * 4) > MOST_BYTES and len(dataset.images.shape) == 2:
        most = f"{MOST_BYTES / 2**30:.0f} GiB"
        raise NotApplicable(f"{dataset.name}: {size / 2**30:.0f} GiB of features; what is learned again and again is "
                            f"held in memory, at most {most}. Give a part of the bags")  # fmt: skip
    task = Task(dataset.name, dataset.digest, "mil", "target", None, "given", "auc", ())
    job = make_job(setup, task, dataset, store, device=device)
    bags, new = jobs.bags_of(job.setup, dataset, job.sources, job.weights, job.features, job.device)
    for key, features in new.items():
        (keep or store.add_features)(key, dataset.digest, features)
    if is_frozen(job.setup):  # from here on the features are the dataset
        features = replace(dataset, images=bags.instances)
        job = replace(job, dataset=features, sources=(), weights=(), setup=replace(job.setup, sources=()))
    return bags, partial(_fitted if method.estimator else _trained, job)


def components(features: np.ndarray, n: int = COMPONENTS) -> np.ndarray:
    """The first principal components of standardised features, float32 (instances, n); no label is looked at."""
    x = features.astype(np.float64)
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-6)
    _, vectors = np.linalg.eigh(x.T @ x)
    return (x @ vectors[:, ::-1][:, :n]).astype(np.float32)


def _fitted(job: Job, bags: Sequence[np.ndarray], target: np.ndarray, seed: int) -> Model:
    training.seed_everything(seed)
    shape = jobs.shape_of(bags[0].shape[1:], job.dataset.n_classes)
    return get_method(job.setup.method).build(shape, **own(job.setup, job.setup.method)).fit(bags, target)


def _trained(job: Job, bags: Sequence[np.ndarray], target: np.ndarray, seed: int) -> Model:
    """A network trained on four fifths of the bags, its epoch chosen on the rest."""
    held = _every_fifth(target, seed)
    train = np.setdiff1d(np.arange(len(bags)), held)
    data = Dataset(job.dataset.name, ArrayImages(np.concatenate(bags)), np.asarray(target, np.int64),
                   bags=np.repeat(np.arange(len(bags)), [len(bag) for bag in bags]), card=job.dataset.card)  # fmt: skip
    split = Split(tuple(train.tolist()), tuple(held.tolist()), (int(held[0]),))
    return NetworkModel(jobs.run(replace(job, dataset=data, seed=seed), split, None).answer())


def _every_fifth(target: np.ndarray, seed: int) -> np.ndarray:
    """A fifth of the bags of each class, at least one."""
    rng = np.random.default_rng(seed)
    parts = []
    for k in np.unique(target):
        bags = rng.permutation(np.flatnonzero(target == k))
        parts.append(bags[: max(1, len(bags) // VALIDATION)])
    return np.sort(np.concatenate(parts))
