"""What a recommendation says of triplets and ratings: from measured gains, and nothing where nothing was measured."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import blobs
from test_similarity import triplets_by

from metamed.assessments import Ratings
from metamed.recommend import assessments
from metamed.recommend.assessments import Gain, advice, knows, measured, possible
from metamed.records import Setup


def gain(labels, value, half, how="auxiliary", name="ratings", settings="", saved=20.0, answers=900):
    return Gain(name, how, "probe.attributes", settings, "elsewhere", "far", 0.65, labels, answers, 0.6, value,
                value - half, value + half, saved, saved - 10, saved + 10)  # fmt: skip


@pytest.fixture
def rated():
    data = blobs(60)
    image = np.tile(np.arange(60), 2)
    return replace(data, ratings=Ratings(image, np.repeat(["a", "b"], 60), np.full(120, "size"),
                                         data.target[image] + np.arange(120) * 1e-3))  # fmt: skip


def test_nothing_is_said_without_assessments_or_labels(rated, classification_data):
    assert advice(classification_data, measured()) == []
    assert advice(replace(rated, target=None), measured()) == []


def test_the_gain_is_read_off_at_the_number_of_labels(rated):
    lines = advice(rated, [gain(24, 0.08, 0.02), gain(96, 0.0, 0.02), gain(24, 0.01, 0.02, "joint")])
    text = "\n".join(lines)
    assert "120 ratings; without any image they tell the label to 1.00" in lines[0]
    assert "use them: with 48 labels, auxiliary by probe.attributes gained +0.040 AUC [+0.020, +0.060] on" in text
    assert "beyond doubt with 24 labels" in text
    assert "900 answers stood for 20 more [10, 30]: 45 answers a label" in text
    assert "to try: metamed run --method probe.attributes --source" in text


@pytest.mark.parametrize(("value", "verdict"), [(0.01, "try them, but expect little"), (-0.01, "not worth learning")])
def test_a_null_result_is_a_result(rated, value, verdict):
    text = "\n".join(advice(rated, [gain(10, value, 0.02), gain(100, value, 0.02)]))
    assert verdict in text and "with no number of labels from 10 to 100 was it beyond doubt" in text
    assert ("to try" in text) == (value > 0)


def test_beyond_what_was_measured_the_nearest_counts(rated):
    assert "gained +0.050" in "\n".join(advice(rated, [gain(500, 0.05, 0.01), gain(1000, 0.01, 0.01)]))


def test_filtering_is_compared_with_the_same_way(rated):
    filtered = gain(48, 0.04, 0.01, "auxiliary, filtered", settings="keep=x")
    text = "\n".join(advice(rated, [gain(48, 0.05, 0.01), filtered]))
    assert "filtering them (keep=x) changed that by -0.010" in text


def test_fewer_answers_are_compared_with_the_same_way(rated):
    few, fewer, other = (gain(48, v, 0.01, answers=n, how=how) for v, n, how in
                         ((0.04, 90, "auxiliary"), (0.01, 30, "auxiliary"), (0.03, 60, "joint")))  # fmt: skip
    text = "\n".join(advice(rated, [few, other, gain(48, 0.05, 0.01), fewer]))
    assert "with fewer answers there: 90 of them +0.040, 30 of them +0.010" in text and "gained +0.050" in text


def test_where_nothing_was_measured_that_is_said(rated):
    assert "was not measured" in advice(rated, [])[1]
    assert measured({g.family for g in measured()}) == []


def test_what_answers_know_of_the_label(rated):
    data = rated
    assert knows("ratings", data) == pytest.approx(1)
    opposite = replace(data, ratings=replace(data.ratings, score=-data.ratings.score))
    assert knows("ratings", opposite) == pytest.approx(1), "the direction of a scale does not matter"
    said = triplets_by(data.target[:, None] + np.zeros((60, 1)), 300)
    assert knows("triplets", replace(data, triplets=said)) == 1
    half = replace(said, closer=np.where(np.arange(300) % 2, said.closer, said.farther),
                   farther=np.where(np.arange(300) % 2, said.farther, said.closer))  # fmt: skip
    assert 0.35 < knows("triplets", replace(data, triplets=half)) < 0.65
    several = replace(data, target=np.stack([data.target, data.target], axis=1))
    assert np.isnan(knows("ratings", several))


def test_a_setup_that_learns_assessments_is_no_candidate_without_them(rated, classification_data):
    learns = [Setup("probe.attributes"), Setup("probe.multitask"), Setup("small_cnn", {}, "joint"),
              Setup("small_cnn", {"learns": "ratings"}, "pretrain")]  # fmt: skip
    assert possible(learns, rated) == learns and possible(learns, classification_data) == []
    assert possible([Setup("probe.triplets"), Setup("small_cnn", {"learns": "triplets"}, "joint")], rated) == []
    plain = [Setup("small_cnn"), Setup("resnet", {}, "finetune", ("a",)), Setup("from a paper")]
    assert possible(plain, classification_data) == plain


def test_what_ships_is_complete_and_its_setups_exist():
    gains = measured()
    assert {g.assessments for g in gains} == {"triplets", "ratings"}
    for g in gains:
        assert g.gain_low <= g.gain <= g.gain_high and 0.5 <= g.plain <= 1 and g.answers > 0 and g.how
        settings, method = dict(s.split("=") for s in g.settings.split(",") if s), assessments.described()[g.method]
        assert method.assessed and set(settings) <= set(method.space)
