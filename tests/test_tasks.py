from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metamed.dataset import ArrayImages, Dataset
from metamed.errors import NotApplicable, UnknownName
from metamed.tasks import make_task


def parts(task):
    split = task.folds[0]
    return [np.array(p) for p in (split.train, split.validation, split.test)]


def dataset(target, groups=None, split=None):
    return Dataset(
        "d", ArrayImages(np.zeros((len(target), 1, 4, 4), np.uint8)), np.asarray(target), split, groups=groups
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 4), st.integers(12, 40), st.booleans())
def test_a_split_divides_no_group_and_loses_no_sample(seed, classes, n_groups, grouped):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 5, n_groups))
    target = groups % classes
    data = dataset(target, groups if grouped else None)
    train, validation, test = parts(make_task(data, seed=seed))
    assert sorted([*train, *validation, *test]) == list(range(len(target)))
    assert len(train) and len(validation) and len(test)
    if grouped:
        owners = [set(groups[p].tolist()) for p in (train, validation, test)]
        assert not (owners[0] & owners[1] or owners[0] & owners[2] or owners[1] & owners[2])


def test_classes_keep_their_proportions():
    target = np.repeat([0, 1, 2], [700, 200, 100])
    train, validation, test = parts(make_task(dataset(target)))
    assert np.bincount(target[test]).tolist() == [140, 40, 20]
    assert len(train) == 640 and len(validation) == 160


def test_size_counts_training_and_validation_together():
    target = np.repeat([0, 1], 500)
    train, validation, test = parts(make_task(dataset(target), size=100))
    assert len(train) == 80 and len(validation) == 20 and len(test) == 200
    assert np.bincount(target[train]).tolist() == [40, 40]


def test_the_datasets_own_split_is_honoured():
    split = np.tile([0, 0, 0, 1, 2], 20)
    task = make_task(dataset(np.arange(100) % 2, split=split))
    train, validation, test = parts(task)
    assert task.procedure == "given"
    assert (split[train] == 0).all() and (split[validation] == 1).all() and (split[test] == 2).all()


def test_same_seed_same_task():
    data = dataset(np.arange(90) % 3, np.arange(90) // 2)
    assert make_task(data, seed=3).id == make_task(data, seed=3).id != make_task(data, seed=4).id


def test_unlabelled_samples_stay_out():
    target = np.arange(60) % 2
    target[:10] = -1
    assert min(map(min, parts(make_task(dataset(target))))) >= 10


def test_multi_label():
    rng = np.random.default_rng(0)
    train, validation, test = parts(make_task(dataset(rng.integers(0, 2, (100, 3)))))
    assert len(train) + len(validation) + len(test) == 100


@pytest.mark.parametrize(("target", "message"), [
    (np.zeros(30, int), "only one class"), (np.arange(6) % 2, "at least 10"), (np.full(30, -1), "no labels"),
])  # fmt: skip
def test_what_cannot_be_learned_is_said(target, message):
    with pytest.raises(NotApplicable, match=message):
        make_task(dataset(target))


def test_one_group_cannot_be_split():
    with pytest.raises(NotApplicable, match="one group"):
        make_task(dataset(np.arange(30) % 2, np.zeros(30)))


def test_given_needs_a_split_and_names_are_checked(classification_data):
    with pytest.raises(NotApplicable, match="no train/test split"):
        make_task(classification_data, procedure="given")
    with pytest.raises(UnknownName, match="procedure 'holdot'"):
        make_task(classification_data, procedure="holdot")
    with pytest.raises(UnknownName, match="measure"):
        make_task(replace(classification_data), measure="acc")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([4, 5, 10]), st.booleans())
def test_every_sample_is_tested_in_one_fold_and_no_group_is_divided(seed, k, grouped):
    groups = np.repeat(np.arange(20), np.random.default_rng(seed).integers(1, 5, 20))
    data = dataset(groups % 2, groups if grouped else None)
    task = make_task(data, procedure=f"{k}-fold", seed=seed)
    assert len(task.folds) == k
    assert sorted(s for fold in task.folds for s in fold.test) == list(range(len(groups)))
    for fold in task.folds:
        every = [*fold.train, *fold.validation, *fold.test]
        assert sorted(every) == list(range(len(groups)))
        owners = [set(groups[list(p)].tolist()) for p in (fold.train, fold.validation, fold.test)]
        assert not grouped or not (owners[0] & owners[1] or owners[0] & owners[2] or owners[1] & owners[2])


def test_fewer_groups_than_folds_are_refused():
    with pytest.raises(NotApplicable, match="fewer than 5 folds"):
        make_task(dataset(np.arange(40) % 2, np.arange(40) % 4), procedure="5-fold")
