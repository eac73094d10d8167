import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from metamed.errors import UnknownName
from metamed.measures import MEASURES, evaluate, get_measure


def random_answer(n=200, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, n)
    prediction = rng.dirichlet(np.ones(classes), n) + 0.4 * np.eye(classes)[truth]
    return truth, prediction / prediction.sum(1, keepdims=True)


def test_agree_with_scikit_learn():
    truth, p = random_answer()
    values = evaluate("classification", truth, p)
    assert values["auc"] == pytest.approx(metrics.roc_auc_score(truth, p, multi_class="ovr"))
    assert values["accuracy"] == pytest.approx(metrics.accuracy_score(truth, p.argmax(1)))
    assert values["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(truth, p.argmax(1)))
    assert values["log_loss"] == pytest.approx(metrics.log_loss(truth, p))
    assert values["kappa"] == pytest.approx(metrics.cohen_kappa_score(truth, p.argmax(1), weights="quadratic"))


def test_multi_label_auc_is_the_mean_over_labels():
    rng = np.random.default_rng(0)
    truth, p = rng.integers(0, 2, (100, 3)), rng.random((100, 3))
    assert get_measure("auc")(truth, p) == pytest.approx(metrics.roc_auc_score(truth, p, average="macro"))


@given(st.integers(2, 6), st.integers(0, 100))
def test_perfect_is_best(classes, seed):
    truth = np.arange(60) % classes
    perfect = np.eye(classes)[truth]
    _, other = random_answer(60, classes, seed)
    for measure in MEASURES.values():
        if "classification" in measure.kinds:
            best, value = measure(truth, perfect), measure(truth, other)
            assert (value <= best) if measure.higher else (value >= best)


def test_ties_count_half():
    truth = np.array([0, 1, 0, 1])
    assert get_measure("auc")(truth, np.full((4, 2), 0.5)) == 0.5


def test_measures_that_are_not_defined_are_left_out():
    values = evaluate("classification", np.zeros(5, int), np.full((5, 2), 0.5))
    assert "auc" not in values and "accuracy" in values


def test_calibration_of_known_confidence():
    truth = np.array([0] * 7 + [1] * 3)
    assert get_measure("calibration_error")(truth, np.tile([0.7, 0.3], (10, 1))) == pytest.approx(0)
    assert get_measure("calibration_error")(truth, np.tile([0.9, 0.1], (10, 1))) == pytest.approx(0.2)


def test_unknown_measure_offers_the_nearest():
    with pytest.raises(UnknownName, match="did you mean accuracy"):
        get_measure("acuracy")


def test_multi_label_targets_have_an_auc_for_each_label():
    rng = np.random.default_rng(0)
    truth, p = rng.integers(0, 2, (100, 3)), rng.random((100, 3))
    truth[:, 1] = 0
    values = evaluate("classification", truth, p)
    assert values["auc.2"] == pytest.approx(metrics.roc_auc_score(truth[:, 2], p[:, 2]))
    assert "auc.1" not in values and "kappa" not in values
    assert values["auc"] == pytest.approx((values["auc.0"] + values["auc.2"]) / 2)


def test_calibration_of_labels_is_that_of_their_answers():
    truth = np.array([[1, 0]] * 7 + [[0, 1]] * 3)
    assert get_measure("calibration_error")(truth, np.tile([0.7, 0.3], (10, 1))) == pytest.approx(0)
    assert get_measure("calibration_error")(truth, np.tile([0.9, 0.1], (10, 1))) == pytest.approx(0.2)
