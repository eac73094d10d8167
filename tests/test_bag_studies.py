"""The studies on bags whose instances are known: how bags are made, what figures mean, known answers on toys."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import asking, asking_results, trust, trust_results
from benchmarks.known_instances import MADE, NAMES, REAL, TRAIN, Made, family, made_of
from metamed.asking import STRATEGIES
from metamed.dataset import Dataset
from metamed.records import Setup
from metamed.trust import TRUST
from metamed.trust.learning import components


def made(rate: float = 0.2, seed: int = 0, n: int = 600) -> tuple[Dataset, np.ndarray]:
    """(bags, the image that each instance is) of images that are told by their first feature."""
    rng = np.random.default_rng(1)
    witness = np.arange(n) % 4 == 0
    x = rng.normal(size=(n, 6)).astype(np.float32)
    x[:, 0] += 4 * witness
    x[:, 5] = np.arange(n)
    data = made_of(Made("toy", 1, rate), x, witness, np.arange(n) // 2, seed)
    return data, data.images.array[:, 5].astype(int)


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_bags_hold_what_their_class_says_and_no_group_twice(rate):
    data, image = made(rate)
    found = np.bincount(data.bags, data.instance_target)
    assert np.array_equal(found > 0, data.target == 1) and np.array_equal(data.target, np.arange(len(found)) % 2)
    assert (data.instance_target == (image % 4 == 0)).all()
    assert not {*image[data.split[data.bags] == 0] // 2} & {*image[data.split[data.bags] == 2] // 2}
    for b in range(data.n_samples):
        assert len({*image[data.bags == b]}) == (data.bags == b).sum()
    positive = data.target[data.bags] == 1
    assert data.instance_target[positive].mean() == pytest.approx(max(rate, 1 / 17), abs=0.05)
    assert (data.split == 0).sum() == TRAIN


def test_the_same_seed_makes_the_same_bags():
    assert made()[0].digest == made()[0].digest != made(seed=1)[0].digest


def test_names_are_balanced_and_complete():
    assert set(NAMES) == {REAL, *MADE} and len(NAMES) == len(set(NAMES))
    half = NAMES[1 : 1 + len(MADE) // 2]
    assert len({family(n) for n in half}) == len(half) and {n.split("@")[1] for n in half} == {"0.1", "0.3"}


def test_components_keep_what_varies():
    x = np.random.default_rng(0).normal(size=(50, 8))
    x[:, 3] = x[:, 2]
    got = components(x)
    assert got.shape == (50, 8) and np.allclose(got[:, -1], 0, atol=1e-3)
    assert (np.diff(got.var(axis=0)) <= 1e-4).all()


# ---- trust


def test_every_model_has_its_truth_and_every_measure():
    data, _ = made()
    setups = (Setup("single_instance"), Setup("bag_statistics"))
    rows = trust.rows_of(data, setups, panel=("miles",))
    assert [r["method"] for r in rows] == ["single_instance", "bag_statistics"] and set(TRUST) <= set(rows[0])
    assert rows[0]["instance_auc"] > 0.8 and rows[0]["instance_auc_inside"] > 0.8
    assert rows[0]["bag_consistency"] > 0.52 and np.isnan(rows[0]["coherence"])


def models(*values: tuple[float, float, float]) -> list[dict]:
    """Models with (bag_auc, stability, instance_auc)."""
    rest = dict.fromkeys(set(TRUST) - {"bag_auc", "stability"}, float("nan")) | {"settings": ""}
    return [{"method": str(i), "bag_auc": a, "stability": b, "instance_auc": t, "instance_auc_inside": t} | rest
            for i, (a, b, t) in enumerate(values)]  # fmt: skip


def test_figures_of_measures():
    some = models((0.9, 0.1, 0.6), (0.8, 0.2, 0.7), (0.7, 0.3, 0.8), (0.6, 0.4, 0.9))
    assert trust_results.tau(some, ("stability",), "instance_auc") == pytest.approx(1)
    assert trust_results.tau(some, ("bag_auc",), "instance_auc") == pytest.approx(-1)
    assert trust_results.lost(some, ("stability",), "instance_auc") == 0
    assert trust_results.lost(some, ("bag_auc",), "instance_auc") == pytest.approx(0.3)
    assert np.isnan(trust_results.tau(some, ("coherence",), "instance_auc"))
    both = trust_results.values(some, ("bag_auc", "stability"))
    assert np.allclose(both, both[0])  # what one puts first the other puts last


def test_the_front_and_families():
    points = np.array([[0.9, 0.1], [0.8, 0.5], [0.7, 0.4], [0.8, 0.4], [0.5, 0.9]])
    assert trust_results.front(points).tolist() == [True, True, False, False, True]
    found = {"a@0.1": models((1, 1, 0.5)), "a@0.3": models((1, 1, 0.7)), "b@0.1": models((1, 1, 1.0))}
    assert trust_results.by_family(found, lambda m: m[0]["instance_auc"]).tolist() == pytest.approx([0.6, 1.0])
    mean, low, high, n = trust_results.interval(np.array([0.6, 1.0, np.nan]))
    assert mean == pytest.approx(0.8) and 0.6 <= low <= high <= 1.0 and n == 2


def test_the_table_is_read_and_drawn(tmp_path):
    data, _ = made()
    path = tmp_path / "trust.csv"
    trust.append(path, trust.rows_of(data, (Setup("single_instance"), Setup("bag_statistics"), Setup("miles")), ()))
    found = trust_results.tables(path)
    assert "`bag_consistency`" in trust_results.report(found) and "`miles`" in trust_results.by_variant(found)
    trust_results.plot(found, tmp_path / "t.svg")
    assert "true AUC of instances" in (tmp_path / "t.svg").read_text()


# ---- asking


def test_answers_are_true_and_rounds_add_up():
    data, _ = made()
    rows = asking.simulate(data, Setup("single_instance"), "highest", 0, rounds=(5, 9))
    assert [r["questions"] for r in rows] == [0, 5, 9] and rows[0]["findings"] == 0 < rows[1]["findings"] <= 5
    again = asking.simulate(data, Setup("single_instance"), "highest", 0, rounds=(5, 9))
    assert rows == again and all(0 <= r["bag_auc"] <= 1 for r in rows)


def test_gains_are_paired(tmp_path: Path):
    path = tmp_path / "asking.csv"
    for seed in (0, 1):
        for i, strategy in enumerate(STRATEGIES):
            about = {"dataset": "a", "method": "m", "strategy": strategy, "seed": seed, "findings": 1}
            rows = [about | {"questions": q, "bag_auc": 0.5 + seed / 10 + q * i / 100, "instance_auc": 0.5}
                    for q in (0, 10)]  # fmt: skip
            trust.append(path, rows, asking.COLUMNS)
    runs = asking_results.runs_of(path)
    assert len(runs) == 2
    for i, strategy in enumerate(STRATEGIES):
        assert asking_results.gains(runs, strategy, 10, "bag_auc") == pytest.approx(i / 10)
        assert asking_results.gains(runs, strategy, 10, "bag_auc", "random") == pytest.approx(i / 10)
    assert "beside random" in asking_results.report(runs)
    asking_results.plot(runs, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").exists()
