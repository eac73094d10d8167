"""Trust in instances without their labels: known answers for models that know, guess, or say the same of all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metamed.errors import NotApplicable
from metamed.measures import binary_auc
from metamed.trust import TRUST, judge, measure
from metamed.trust.measures import mean_correlation, ranks

RNG = np.random.default_rng(0)


def bags(n: int = 40, size: int = 12, witness: float = 0.25, seed: int = 0):
    """Bags of (truth, noise, noise): a third of the bags without a finding; (bags, target, places)."""
    rng = np.random.default_rng(seed)
    target = (np.arange(n) % 3 > 0).astype(int)
    found = []
    for k in target:
        truth = np.zeros(size)
        truth[: round(k * witness * size)] = 1
        found.append(np.column_stack([truth, rng.normal(size=(size, 2))])[rng.permutation(size)])
    return found, target, [rng.permutation(size)[:, None] * [1, 0] for _ in range(n)]


class Knows:
    """Scores by the truth plus noise; a bag is as probable as its highest score says."""

    def __init__(self, noise: float = 0.0, seed: int = 0):
        self.noise, self.rng = noise, np.random.default_rng(seed)

    def scores(self, bag):
        return bag[:, 0] + self.noise * self.rng.normal(size=len(bag))

    def predict(self, bags):
        p = np.array([0.9 if bag[:, 0].max() > 0.5 else 0.1 for bag in bags])
        return np.log(np.stack([1 - p, p], axis=1))


class Flat(Knows):
    def scores(self, bag):
        return np.zeros(len(bag))


def values(fit, others=(), places=True, **more):
    found, target, where = bags(**more)
    judged = judge(fit, found, target, np.arange(20), np.arange(20, 40), others=others,
                   coordinates=where if places else None)  # fmt: skip
    return {t.measure: t for t in measure(judged, bootstraps=50)}


def test_a_model_that_knows():
    v = values(lambda train, seed: Knows(), [lambda train, seed: Knows()])
    assert set(v) == set(TRUST)
    for name in ("stability", "stability_inside", "stability_seeds", "agreement", "agreement_inside"):
        assert v[name].value == pytest.approx(1)
    assert v["bag_auc"].value == v["bag_maximum"].value == 1
    # 14 bags with 3 findings of 12 each, 6 without: a quarter of the instances is told, the rest is tied
    assert v["bag_consistency"].value == pytest.approx(0.5 + 0.25 / 2)
    # without its 3 findings a bag is at 0.1: taking 1 or 2 leaves 0.9, taking 4 or 6 does not
    assert v["deletion"].value == pytest.approx(0.4, abs=0.1) and v["insertion"].value > 0.2
    assert v["deletion"].low <= v["deletion"].value <= v["deletion"].high


def test_a_model_that_guesses_and_one_that_says_the_same_of_all():
    v = values(lambda train, seed: Knows(noise=1e6, seed=seed + len(train) + train[0]))
    assert abs(v["stability_seeds"].value) < 0.2 and abs(v["deletion"].value) < 0.25
    assert abs(v["bag_consistency"].value - 0.5) < 0.1 and np.isnan(v["agreement"].value)
    v = values(lambda train, seed: Flat())
    assert v["stability"].value == 0 and v["bag_consistency"].value == 0.5 and v["bag_maximum"].value == 0.5
    assert np.isnan(v["coherence"].value)


def test_a_noisier_model_is_trusted_less():
    quiet, loud = (values(lambda train, seed, n=n: Knows(n, int(train.sum()) + seed)) for n in (0.1, 2.0))
    for name in ("stability", "stability_seeds", "stability_positive", "deletion", "insertion", "bag_consistency"):
        assert quiet[name].value > loud[name].value, name


def test_coherence_needs_places_and_sees_them():
    class Gradient(Knows):
        def scores(self, bag):
            return self.where[len(bag)]

    found, target, where = bags()
    places = [np.arange(12)[:, None] * [1, 0]] * 40
    model = Gradient()
    model.where = {12: np.arange(12.0)}
    judged = judge(lambda t, s: model, found, target, np.arange(20), np.arange(20, 40), coordinates=places, seeds=0)
    v = {t.measure: t.value for t in measure(judged, bootstraps=2)}
    assert v["coherence"] > 0.3 and np.isnan(v["stability_seeds"])
    assert np.isnan(values(lambda train, seed: Knows(), places=False)["coherence"].value)


def test_every_measure_is_described():
    assert all(len(one.description) > 40 for one in TRUST.values())


def test_bags_of_one_side_cannot_be_judged():
    found, target, _ = bags()
    with pytest.raises(NotApplicable, match="one side only"):
        judge(lambda t, s: Knows(), found, target, np.arange(20), np.flatnonzero(target))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=3, max_size=30))
def test_ranks_are_mean_ranks(row):
    got = ranks(np.array(row))[0]
    want = [sum(v < x for v in row) + (sum(v == x for v in row) + 1) / 2 for x in row]
    assert np.allclose(got, want)
    constant = len(set(row)) == 1
    assert mean_correlation(np.array([row, row])) == pytest.approx(0 if constant else 1)
    assert mean_correlation(np.array([row, [-v for v in row]])) == pytest.approx(0 if constant else -1)


@pytest.mark.parametrize("witness", [0.1, 0.3, 0.6])
def test_bag_consistency_is_the_true_auc_shrunk_by_the_witness_rate(witness):
    """0.5 + witness rate * (true AUC - 0.5), where instances that are no findings are alike in all bags."""
    rng, n, size = np.random.default_rng(1), 400, 40
    finding = np.repeat(np.arange(n) % 2, size)
    truth = finding * (rng.random(n * size) < witness)
    scores = truth + rng.normal(size=n * size)
    true, observed = binary_auc(truth > 0, scores), binary_auc(finding > 0, scores)
    assert observed == pytest.approx(0.5 + witness * (true - 0.5), abs=0.02)


def test_the_page_on_trust_names_every_measure_and_strategy():
    from pathlib import Path

    from metamed.asking import STRATEGIES

    text = (Path(__file__).parents[1] / "docs" / "trust.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in (*TRUST, *STRATEGIES))
