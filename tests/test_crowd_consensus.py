"""What ratings agree on: with known truth, and as crowd-kit finds it on real ratings."""

import gzip

import numpy as np
import pytest

from metamed.assessments import Ratings
from metamed.crowd import consensus
from metamed.errors import MissingExtra, NotApplicable, UnknownName

RIGHT = {"good": 0.9, "fair": 0.75, "guesser": 0.5, "inverter": 0.15}


def rated(images: int = 300, seed: int = 0, **columns) -> tuple[Ratings, np.ndarray]:
    """(0 or 1 for every image by everybody in RIGHT, twice by the first; the truth)."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(images) < 0.4).astype(float)
    who = np.repeat([*RIGHT, "good"], images)
    right = rng.random(len(who)) < np.array([RIGHT[name] for name in who])
    image = np.tile(np.arange(images), len(RIGHT) + 1)
    score = np.where(right, truth[image], 1 - truth[image])
    return Ratings(image, who, np.full(len(who), "border"), score, **columns), truth


def real(shared, name: str) -> Ratings:
    """Columns item, rater, rating."""
    with gzip.open(shared / "data" / "crowd" / f"{name}.csv.gz", "rt") as file:
        item, rater, rating = np.loadtxt(file, delimiter=",", skiprows=1, dtype=int).T
    return Ratings(item, rater, np.full(len(item), "rating"), rating.astype(float))


def test_the_truth_and_who_tells_it_are_found():
    ratings, truth = rated()
    found = consensus(ratings)
    assert (found.label == truth).mean() > 0.95 > (consensus(ratings, model="majority").label == truth).mean()
    for name, right in RIGHT.items():
        quality = found.quality[name]
        assert quality.low <= right <= quality.high, name
    assert [q.kind for q in found.quality.values()] == ["informed", "informed", "guesser", "inverter"]
    np.testing.assert_allclose(found.errors.sum(axis=2), 1)
    np.testing.assert_allclose(found.probability.sum(axis=1), 1)


def test_who_always_says_the_same_is_told():
    ratings, _ = rated()
    score = np.where(ratings.annotator == "guesser", 0.0, ratings.score)
    found = consensus(Ratings(ratings.image, ratings.annotator, ratings.attribute, score))
    assert found.quality["guesser"].kind == "one-sided"


def test_a_slot_has_errors_but_no_quality():
    ratings, _ = rated()
    slot = ratings.annotator == "good"
    found = consensus(Ratings(**vars(ratings) | {"slot": slot}))
    assert found.quality["good"].kind == "slot" and np.isnan(found.quality["good"].value)
    assert len(found.errors) == len(RIGHT)


def test_intervals_cover():
    inside = []
    for seed in range(10):
        quality = consensus(rated(100, seed)[0], seed=seed).quality
        inside += [quality[name].low <= right <= quality[name].high for name, right in RIGHT.items()]
    assert np.mean(inside) >= 0.85


def test_sensitivities_of_the_dentists(shared):
    """Espeland & Handelman's five dentists: as other implementations have them."""
    found = consensus(real(shared, "caries_xray_ratings"))
    assert found.prevalence[1] == pytest.approx(0.20, abs=0.005)
    specificity, sensitivity = np.diagonal(found.errors, axis1=1, axis2=2).T
    np.testing.assert_allclose(sensitivity, [0.40, 0.71, 0.59, 0.49, 0.91], atol=0.006)
    np.testing.assert_allclose(specificity, [0.99, 0.90, 0.99, 0.97, 0.70], atol=0.006)
    assert found.elsewhere == pytest.approx(found.likelihood, abs=1e-3)


@pytest.mark.parametrize("name", ["anesthesia_ratings", "caries_xray_ratings"])
def test_labels_are_those_of_crowdkit_run_to_convergence(shared, name):
    crowdkit = pytest.importorskip("crowdkit.aggregation")
    import pandas as pd

    ratings = real(shared, name)
    found = consensus(ratings)
    answers = pd.DataFrame({"task": ratings.image, "worker": ratings.annotator, "label": ratings.score})
    theirs = crowdkit.DawidSkene(n_iter=100, tol=-np.inf).fit_predict(answers)  # else it stops after four rounds
    np.testing.assert_array_equal(theirs.loc[found.images], found.label)


@pytest.mark.parametrize("model", ["glad", "mace"])
def test_other_models_are_crowdkits(model):
    ratings, truth = rated()
    try:
        found = consensus(ratings, model=model)
    except MissingExtra as error:
        assert 'pip install "metamed[crowd]"' in str(error)
    else:
        assert (found.label == truth).mean() > 0.85 and found.errors is None


def test_what_cannot_be_agreed_on_is_said():
    ratings, _ = rated()
    with pytest.raises(UnknownName, match="no attribute 'boarder' .did you mean border"):
        consensus(ratings, "boarder")
    with pytest.raises(UnknownName, match="no model of ratings 'gladd'"):
        consensus(ratings, model="gladd")
    half = np.where(np.arange(len(ratings)) % 2, "border", "colour")
    with pytest.raises(NotApplicable, match="ratings of 2 attributes: colour, border. Name one"):
        consensus(Ratings(**vars(ratings) | {"attribute": half}))
    with pytest.raises(NotApplicable, match="no score of this attribute is a number"):
        consensus(Ratings(**vars(ratings) | {"score": np.full(len(ratings), np.nan)}))
