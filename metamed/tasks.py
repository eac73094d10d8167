"""Tasks: what is to be predicted of a dataset, and which samples train, validate and test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from metamed.dataset import Dataset, Split
from metamed.errors import NotApplicable, UnknownName
from metamed.judged import triplets_as_samples
from metamed.measures import PRIMARY, get_measure
from metamed.records import TEST_SHARE, Task
from metamed.splits import crossvalidation

VALIDATION_SHARE = 0.2
_MOST = 255  # classes of masks, which are kept in a byte a pixel
_MINIMUM = 10  # labelled samples, below which no holdout says anything


def make_task(
    dataset: Dataset,
    *,
    procedure: str | None = None,
    size: int | None = None,
    target: str | None = None,
    measure: str | None = None,
    seed: int = 0,
) -> Task:
    """The task of predicting `dataset`'s target.

    procedure: "given", the dataset's own split (the default where it has one); "holdout", 20 % test; "4-fold",
    "5-fold", "10-fold": cross-validation. All stratified, groups never divided; without groups the 4 and the 10 folds
    of seed 0 are those that OpenML servers make. size: labelled samples that may be used, training and validation
    together (None: all). Samples of a similarity task are triplets (`metamed.judged.questions`); images with masks are
    stratified by the classes that their masks hold.
    Raises NotApplicable without labels, with one class, or with fewer than 10 labelled samples.
    """
    whole, dataset = dataset, _as_samples(dataset)
    _check_learnable(dataset)
    procedure = procedure or ("given" if _has_own_test(dataset) else "holdout")
    if procedure not in _PROCEDURES:
        raise UnknownName("procedure", procedure, _PROCEDURES)
    measure = get_measure(measure or PRIMARY[whole.kind]).name
    own = procedure in ("given", "holdout")  # of other procedures the dataset's own validation part is none
    parts = _PROCEDURES[procedure](dataset, seed)
    folds = tuple(_training_part(dataset, rest, test, size, seed, own) for rest, test in parts)
    target = target or ("closer" if whole.kind == "similarity" else "target")
    return Task(whole.name, whole.digest, whole.kind, target, size, procedure, measure, folds)


def _as_samples(dataset: Dataset) -> Dataset:
    """The dataset with one target a sample, where its kind has something else."""
    kinds = {"similarity": triplets_as_samples, "segmentation": _masks_as_samples}
    return kinds[dataset.kind](dataset) if dataset.kind in kinds else dataset


def _masks_as_samples(dataset: Dataset) -> Dataset:
    """Of each mask which classes it holds, as a 0/1 target (n, K). Raises NotApplicable for masks of no use."""
    name, n_classes, size = dataset.name, dataset.n_classes, tuple(dataset.images.shape[2:])
    if n_classes > _MOST:
        raise NotApplicable(f"{name}: its masks have {n_classes} classes; at most {_MOST} can be told apart")
    holds = np.zeros((dataset.n_samples, max(n_classes, 2)), np.int64)
    for n, mask in enumerate(dataset.masks):
        if np.shape(mask) != size:
            found, expected = ("x".join(map(str, shape)) for shape in (np.shape(mask), size))
            raise NotApplicable(f"{name}: mask {n} is {found}, its image {expected}. Bring both to one size")
        values = np.unique(mask)
        if (wrong := values[(values < 0) | (values >= n_classes)]).size:
            raise NotApplicable(f"{name}: mask {n} holds the value {wrong[0]:g}, but its classes are 0 to "
                                f"{n_classes - 1}. Correct the mask, or name the class")  # fmt: skip
        holds[n, values.astype(int)] = 1
    if not holds[:, 1:].any():
        raise NotApplicable(f"{name}: all {len(holds)} masks are empty: there is nothing to find in them")
    return replace(dataset, masks=None, target=holds)


def _check_learnable(dataset: Dataset) -> None:
    labelled = dataset.labelled
    if dataset.target is None or len(labelled) == 0:
        raise NotApplicable(f"{dataset.name} has no labels to learn from. Name them with --labels KEY")
    if len(labelled) < _MINIMUM:
        raise NotApplicable(f"{dataset.name} has {len(labelled)} labelled samples; at least {_MINIMUM} are needed")
    if not dataset.multi_label and len(np.unique(dataset.target[labelled])) < 2:
        raise NotApplicable(f"{dataset.name} has only one class: there is nothing to tell apart")


def _has_own_test(dataset: Dataset) -> bool:
    return dataset.split is not None and {0, 2} <= set(np.unique(dataset.split).tolist())


Parts = Iterable[tuple[np.ndarray, np.ndarray]]  # (rest, test) of each fold


def _holdout(dataset: Dataset, seed: int) -> Parts:
    return [_divide(dataset, dataset.labelled, TEST_SHARE, seed)]


def _given(dataset: Dataset, seed: int) -> Parts:
    if not _has_own_test(dataset):
        raise NotApplicable(f"{dataset.name} has no train/test split of its own. Use procedure 'holdout'")
    labelled = dataset.labelled
    part = dataset.split[labelled]
    return [(labelled[part < 2], labelled[part == 2])]


def _folds(dataset: Dataset, seed: int, *, k: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every sample is tested once. With groups, each fold takes its share of what the ones before have left."""
    samples = dataset.labelled
    if dataset.groups is None:
        *_, tests = crossvalidation(_strata(dataset, samples), len(samples), k, seed + 1)  # a seed is a repeat
        tests = [samples[rows] for rows in tests]
    else:
        tests, left = [], samples
        if len(np.unique(dataset.groups[samples])) < k:
            raise NotApplicable(f"{dataset.name}: its groups, which no split may divide, are fewer than {k} folds")
        for n in range(k, 1, -1):
            left, test = _divide(dataset, left, 1 / n, seed)
            tests.append(test)
        tests.append(left)
    yield from ((np.setdiff1d(samples, test), test) for test in tests)


_PROCEDURES: dict[str, Callable[[Dataset, int], Parts]] = {
    "holdout": _holdout, "given": _given, **{f"{k}-fold": partial(_folds, k=k) for k in (4, 5, 10)},
}  # fmt: skip


def _training_part(
    dataset: Dataset, rest: np.ndarray, test: np.ndarray, size: int | None, seed: int, own: bool
) -> Split:
    """Training and validation out of `rest`; own: take the dataset's own validation part, where it has one."""
    part = dataset.split[rest] if own and dataset.split is not None else np.zeros(len(rest), int)
    train, validation = rest[part == 0], rest[part == 1]
    if len(validation) == 0:
        train, validation = _divide(dataset, train, VALIDATION_SHARE, seed + 1)
    if size is not None:
        share = size / (len(train) + len(validation))
        train = _subsample(dataset, train, round(min(share, 1) * len(train)), seed)
        validation = _subsample(dataset, validation, round(min(share, 1) * len(validation)), seed)
    return Split(*(tuple(map(int, np.sort(part))) for part in (train, validation, test)))


def _strata(dataset: Dataset, samples: np.ndarray) -> np.ndarray:
    """Class of each sample as 0..K-1; label sets (the first 62 labels) count as classes if multi-label."""
    target = dataset.target[samples]
    if target.ndim == 2:
        target = target[:, :62].astype(np.int64) @ (1 << np.arange(min(target.shape[1], 62)))
    return np.unique(target, return_inverse=True)[1]


def _subsample(dataset: Dataset, samples: np.ndarray, n: int, seed: int) -> np.ndarray:
    """`n` of the samples, classes in proportion: every class in turn gives the next of its random order."""
    rng, strata = np.random.default_rng(seed), _strata(dataset, samples)
    order = rng.permutation(len(samples))
    rank, counts = np.empty(len(samples)), np.bincount(strata)
    for k in range(len(counts)):
        mine = order[strata[order] == k]
        rank[mine] = (np.arange(len(mine)) + 0.5) / counts[k]
    return samples[np.argsort(rank, kind="stable")[: max(n, 2)]]


def _divide(dataset: Dataset, samples: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(rest, part) with about `share` of every class in `part` and no group on both sides."""
    if dataset.groups is None:
        part = np.sort(_subsample(dataset, samples, round(share * len(samples)), seed))
        return np.setdiff1d(samples, part), part
    groups = np.unique(dataset.groups[samples], return_inverse=True)[1]
    if groups.max() == 0:
        raise NotApplicable(f"{dataset.name}: all samples belong to one group, which a split may not divide")
    chosen = _choose_groups(groups, _strata(dataset, samples), share, np.random.default_rng(seed))
    inside = chosen[groups]
    return samples[~inside], samples[inside]


def _choose_groups(groups: np.ndarray, strata: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Which groups go into the part: large ones first, each where it brings the class counts nearer to their share."""
    table = np.zeros((groups.max() + 1, strata.max() + 1))
    np.add.at(table, (groups, strata), 1)
    wanted, weight = share * table.sum(0), 1 / np.maximum(table.sum(0), 1)
    order = rng.permutation(len(table))
    order = order[np.argsort(-table[order].sum(1), kind="stable")]
    chosen, missing = np.zeros(len(table), bool), wanted.copy()
    for group in order:
        better = (weight * missing**2).sum() - (weight * (missing - table[group]) ** 2).sum()
        if better > 0:
            chosen[group], missing = True, missing - table[group]
    if not chosen.any():
        chosen[order[-1]] = True
    if chosen.all():
        chosen[order[-1]] = False
    return chosen
