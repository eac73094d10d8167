"""Meta-features of bags: a published worked example, made bags with known answers, real files."""

import numpy as np
import pytest

from metamed.dataset import ArrayImages, Dataset
from metamed.metafeatures import METAFEATURES, bag_behaviour, bags, extract

MAYBE = {"witness_modes", "spatial_similarity"}  # need witnesses, and where instances lie

# Shrout & Fleiss 1979, table 2: six targets, four judges; ICC(1,1) is 0.17
SHROUT = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)


def bagged(instances, bag, target, **fields) -> Dataset:
    return Dataset("bagged", ArrayImages(np.asarray(instances)), np.asarray(target), bags=np.asarray(bag), **fields)


def witnesses(rate: float, n_bags: int = 40, size: int = 20, d: int = 6, far: float = 9.0, seed: int = 0) -> Dataset:
    """Bags of noise; of each positive bag `rate` of the instances lie somewhere else."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_bags, size, d))
    target = np.arange(n_bags) % 2
    x[target == 1, : int(round(rate * size)), 0] += far
    return bagged(x.reshape(-1, d), np.repeat(np.arange(n_bags), size), target)


def of(data: Dataset) -> dict[str, float]:
    return extract(data, "bags")


def test_the_intraclass_correlation_of_shrout_and_fleiss():
    rows = SHROUT.reshape(-1, 1)
    assert bags.intraclass_correlation(rows, np.repeat(np.arange(6), 4)) == pytest.approx(0.17, abs=5e-3)
    data = bagged(rows, np.repeat(np.arange(6), 4), np.arange(6) % 2)
    assert of(data)["intra_bag_correlation"] == pytest.approx(0.1657, abs=1e-3)


def test_the_intraclass_correlation_of_a_variance_model():
    rng = np.random.default_rng(0)
    bag = np.repeat(np.arange(300), rng.integers(2, 15, 300))
    x = 2 * rng.normal(size=(300, 3))[bag] + rng.normal(size=(len(bag), 3))
    assert bags.intraclass_correlation(x, bag) == pytest.approx(4 / 5, abs=0.03)
    assert bags.intraclass_correlation(x, rng.permutation(bag)) == pytest.approx(0, abs=0.03)
    assert bags.intraclass_correlation(x[:, :1] * 0 + bag[:, None], bag) == pytest.approx(1)


def test_sizes():
    bag = np.repeat([0, 1, 2, 3], [2, 4, 6, 8])
    values = of(bagged(np.random.default_rng(0).normal(size=(20, 3)), bag, [0, 0, 1, 1]))
    assert values["bag_size.mean"] == 5 and values["bag_size.sd"] == pytest.approx(5**0.5)
    assert values["bag_size_ratio"] == 4 and values["instances_per_class"] == 6
    size = np.log([2, 4, 6, 8])
    between = ((size[:2].mean() - size.mean()) ** 2 + (size[2:].mean() - size.mean()) ** 2) / 2
    assert values["size_tells_class"] == pytest.approx(between / size.var())


def test_a_class_that_is_told_by_size_alone():
    rng = np.random.default_rng(0)
    bag = np.repeat(np.arange(40), np.where(np.arange(40) % 2, 30, 5))
    values = of(bagged(rng.normal(size=(len(bag), 4)), bag, np.arange(40) % 2))
    assert values["size_probe.mean"] == 1 and values["size_tells_class"] == pytest.approx(1)
    assert values["mean_pool_ridge.mean"] < 0.8


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.6])
def test_the_witness_rate_is_found_without_instance_labels(rate):
    assert of(witnesses(rate))["witness_rate"] == pytest.approx(rate, abs=0.06)


def test_without_witnesses_there_are_none():
    values = of(witnesses(0.0))
    assert values["witness_rate"] < 0.05
    assert values["instance_overlap"] == pytest.approx(1, abs=0.15)
    assert values["mean_pool_ridge.mean"] == pytest.approx(0.5, abs=0.25)


def test_who_wins_says_what_bags_are():
    few, all_of_them = of(witnesses(0.05, far=12.0)), of(witnesses(1.0, far=1.5))
    assert few["extremes_ridge.mean"] > 0.9 and few["witness_ridge.mean"] > 0.9
    assert few["witness_gain"] > all_of_them["witness_gain"] and few["extremes_gain"] > all_of_them["extremes_gain"]
    assert all_of_them["mean_pool_ridge.mean"] > 0.95 and all_of_them["instance_ridge.mean"] > 0.95
    assert of(witnesses(1.0))["classifier_disagreement"] < 0.05 < of(witnesses(0.0))["classifier_disagreement"]


def test_bags_that_share_an_instance_are_found_by_citation():
    rng = np.random.default_rng(0)
    keys = rng.normal(size=(2, 10)) * 6
    x = rng.normal(size=(30, 12, 10)) * 3
    target = np.arange(30) % 2
    x[:, 0] = keys[target] + 0.01 * rng.normal(size=(30, 10))
    values = of(bagged(x.reshape(-1, 10), np.repeat(np.arange(30), 12), target))
    assert values["citation_nn.mean"] == 1 and values["bag_overlap"] == 0 and values["citation_gain"] >= 0
    assert values["bag_similarity"] < 0.1


def test_how_instances_lie():
    rng = np.random.default_rng(0)
    bag = np.repeat(np.arange(20), 10)
    worlds = of(bagged(30 * rng.normal(size=(20, 4))[bag] + rng.normal(size=(200, 4)), bag, np.arange(20) % 2))
    mixed = of(bagged(rng.normal(size=(200, 4)), bag, np.arange(20) % 2))
    assert worlds["instance_similarity"] < 0.1 < 0.9 < mixed["instance_similarity"] < 1.1
    assert worlds["instance_novelty"] == 1 and mixed["instance_novelty"] < 0.3
    assert worlds["intra_bag_correlation"] > 0.99


def test_it_stays_bounded_with_large_and_wide_bags():
    rng = np.random.default_rng(0)
    bag = np.repeat(np.arange(8), [4000, 1, 2, 3, 900, 50, 60, 70])
    data = bagged(rng.normal(size=(len(bag), 400)).astype(np.float32), bag, np.arange(8) % 2)
    values = extract(data, "bags", max_samples=None)
    assert values["bag_size_ratio"] == 4000
    assert all(np.isfinite(value) for name, value in values.items() if name not in MAYBE)


def test_three_classes_lone_bags_and_equal_instances():
    rng = np.random.default_rng(0)
    bag, target = np.repeat(np.arange(30), 5), np.arange(30) % 3
    x = rng.normal(size=(150, 4)) + 4 * np.eye(4)[target][bag]
    values = of(bagged(x, bag, target))
    assert values["mean_pool_ridge.mean"] > 0.9 and values["witness_ridge.mean"] > 0.5
    lone = of(bagged(x[:5], np.zeros(5, int), [1]))
    assert lone["bag_size.mean"] == 5 and np.isnan(lone["instance_similarity"]) and np.isnan(lone["citation_nn.mean"])
    same = of(bagged(np.ones((20, 3)), np.arange(20) // 4, np.arange(5) % 2))
    assert np.isnan(same["instance_similarity"]) and not any(np.isinf(v) for v in same.values())


@pytest.mark.parametrize("modes", [1, 2, 5])
def test_the_ways_of_being_positive_are_counted(modes):
    rng = np.random.default_rng(0)
    bag, target = np.repeat(np.arange(60), 12), np.arange(60) % 2
    x = rng.normal(size=(720, 6))
    for b in np.flatnonzero(target):  # two witnesses a bag, all near one of a few places far away
        x[12 * b : 12 * b + 2] = 40 * np.eye(6)[(b // 2) % modes] + 0.05 * rng.normal(size=(2, 6))
    assert of(bagged(x, bag, target))["witness_modes"] == pytest.approx(modes, rel=0.35)


def test_negatives_of_new_bags_are_known_or_not():
    rng = np.random.default_rng(0)
    bag, target = np.repeat(np.arange(30), 10), np.arange(30) % 2
    place = 20 * rng.normal(size=(30, 5))[bag]
    assert of(bagged(rng.normal(size=(300, 5)), bag, target))["negative_novelty"] < 0.9
    assert of(bagged(rng.normal(size=(300, 5)) + place, bag, target))["negative_novelty"] > 2


def test_kinds_that_come_together():
    rng = np.random.default_rng(0)
    kinds = 10 * np.eye(3)[rng.integers(0, 3, 800)] + rng.normal(size=(800, 3))
    together = 10 * np.eye(3)[np.repeat(rng.integers(0, 3, 80), 10)] + rng.normal(size=(800, 3))
    bag, target = np.repeat(np.arange(80), 10), np.arange(80) % 2
    assert abs(of(bagged(kinds, bag, target))["co_occurrence"]) < 0.06
    assert of(bagged(together, bag, target))["co_occurrence"] > 0.2


def test_neighbours_in_space_look_alike_or_not():
    rng = np.random.default_rng(0)
    bag, target, place = np.repeat(np.arange(20), 25), np.arange(20) % 2, rng.random((500, 2))
    smooth = np.hstack([place, place**2]) + 0.01 * rng.normal(size=(500, 4))
    assert of(bagged(smooth, bag, target, coordinates=place))["spatial_similarity"] < 0.5
    rough = bagged(rng.normal(size=(500, 4)), bag, target, coordinates=place)
    assert of(rough)["spatial_similarity"] == pytest.approx(1, abs=0.05)
    assert np.isnan(of(bagged(smooth, bag, target))["spatial_similarity"])


def test_roc_curves_are_those_of_scikit_learn():
    from sklearn.metrics import auc, roc_curve

    rng = np.random.default_rng(0)
    for ties in (3, 1000):
        score, positive = rng.integers(0, ties, 200) / ties, rng.random(200) < 0.3
        alarms, hits, _ = roc_curve(positive, score, drop_intermediate=False)
        grid = np.linspace(0, 1, 101)
        np.testing.assert_allclose(bag_behaviour.roc(score, positive), np.interp(grid, alarms, hits), atol=0.02)
        assert np.trapezoid(bag_behaviour.roc(score, positive), grid) == pytest.approx(auc(alarms, hits), abs=0.01)


def test_classifiers_differ_where_it_matters_which_idea_is_right():
    easy, hard = of(witnesses(1.0, far=20.0)), of(witnesses(0.05, far=6.0))
    assert easy["roc_difference"] < 0.02 < 0.05 < hard["roc_difference"]


def test_real_bags(shared):
    from metamed.readers import read

    folder = shared / "data" / "mil"
    names = {c for f in METAFEATURES.values() if f.group == "bags" for c in f.columns}
    found = {}
    for path in sorted(folder.glob("*.h5")):
        found[path.stem] = extract(read(path), "bags", max_samples=500)
        assert found[path.stem].keys() == names
        missing = {name for name, value in found[path.stem].items() if not np.isfinite(value)}
        assert missing <= MAYBE, path.stem
        assert ("spatial_similarity" in missing) == (read(path).coordinates is None), path.stem
    assert found["ucsb_breast_image_bags"]["bag_size_ratio"] == 1 and found["musk2"]["bag_size_ratio"] > 100
    assert found["musk1"]["bag_overlap"] < found["fox"]["bag_overlap"]  # fox is known to be hard
