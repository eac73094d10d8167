"""Where images lie and who is how good, from answers whose truth is known."""

import numpy as np
import pytest

import metamed
from metamed.assessments import Triplets
from metamed.crowd import embedding, sampling
from metamed.crowd.answers import usable
from metamed.crowd.likelihood import COMPILED, likelihood
from metamed.crowd.model import Model
from metamed.errors import NotApplicable, ReadError


@pytest.fixture(autouse=True, scope="module")
def _short():
    """One short chain: enough for so few images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "CHAINS", 1)
        patch.setattr(embedding, "ROUNDS", 0)  # as few as there may be
        yield


PEOPLE = ("careful", "careless", "guesser", "right-hander", "inverter")


def crowd(images: int = 40, each: int = 300, seed: int = 0) -> tuple[Triplets, np.ndarray]:
    """(answers, true positions): of PEOPLE, each of whom answered so many random questions."""
    rng = np.random.default_rng(seed)
    position = rng.normal(size=(images, 2)) / 2
    anchor, left, right = np.array([rng.choice(images, 3, replace=False) for _ in range(each * len(PEOPLE))]).T
    slope, bias = (np.repeat(values, each) for values in ((12, 4, 0, 0, -9), (0, 0, 0, -4, 0)))
    gap = distances(position, anchor, right) - distances(position, anchor, left)
    chosen = rng.random(len(anchor)) < 1 / (1 + np.exp(-slope * gap - bias))
    closer, farther = np.where(chosen, (left, right), (right, left))
    return Triplets(anchor, closer, farther, np.repeat(PEOPLE, each), np.where(chosen, 0, 1)), position


def distances(position: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.linalg.norm(position[first] - position[second], axis=1)


def questions(position: np.ndarray, n: int = 2000) -> np.ndarray:
    """(anchor, closer, farther) in truth, (3, n)."""
    rng = np.random.default_rng(1)
    anchor, first, second = np.array([rng.choice(len(position), 3, replace=False) for _ in range(n)]).T
    turned = distances(position, anchor, first) > distances(position, anchor, second)
    return np.stack([anchor, np.where(turned, second, first), np.where(turned, first, second)])


# -- the likelihood ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [1, 2, 5, 9])
def test_the_gradient_is_that_of_the_density(dimensions):
    model = Model(usable(crowd(8, 20)[0])[0], dimensions)
    vector = np.random.default_rng(0).normal(size=model.size)
    _, gradient = model.density(vector, 0.7)
    for k in range(model.size):
        step = np.zeros(model.size)
        step[k] = 1e-5
        numeric = (model.density(vector + step, 0.7)[0] - model.density(vector - step, 0.7)[0]) / 2e-5
        assert gradient[k] == pytest.approx(numeric, abs=1e-5)


@pytest.mark.skipif(COMPILED is None, reason="no compiler at installation")
@pytest.mark.parametrize("dimensions", [1, 2, 3, 4, 5, 7])
def test_compiled_and_plain_agree(dimensions):
    answers, _ = usable(crowd(20, 50)[0])
    model = Model(answers, dimensions)
    vector = np.random.default_rng(0).normal(size=model.size)
    given = answers, model.position(vector), model.traits(vector[model.coordinates :])[0]
    for ours, plain in zip(likelihood(*given), likelihood(*given, compiled=None), strict=True):
        np.testing.assert_allclose(ours, plain, atol=1e-10)


# -- what is found -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found():
    triplets, position = crowd()
    return metamed.embed(triplets), position


def test_images_are_found_as_they_lie(found):
    embedding, position = found
    asked = questions(position)
    assert embedding.method == "posterior"
    assert (embedding.probability(*asked) > 0.5).mean() > 0.9
    closer, farther = (distances(embedding.positions, asked[0], other) for other in asked[1:])
    assert (closer < farther).mean() > 0.9


def test_annotators_are_told_apart(found):
    quality = found[0].quality
    kinds = ("informed", "informed", "guesser", "one-sided", "inverter")
    assert {name: each.kind for name, each in quality.items()} == dict(zip(PEOPLE, kinds, strict=True))
    assert float(quality["careful"]) > float(quality["careless"]) > 0.6
    assert quality["inverter"].high < 0.5
    assert all(each.low <= each.value <= each.high and each.answers == 300 for each in quality.values())


def test_it_beats_taking_all_for_one(found):
    embedding, position = found
    asked = questions(position)
    plain = metamed.embed(crowd()[0], annotators=False)
    assert plain.quality == {}
    assert (plain.probability(*asked) > 0.5).mean() < (embedding.probability(*asked) > 0.5).mean() - 0.02


def test_many_answers_take_the_peak():
    triplets, position = crowd(10, 200)
    embedding = metamed.embed(triplets)
    assert embedding.method == "most probable" and embedding.samples.shape == (1, 10, 2)
    assert (embedding.probability(*questions(position)) > 0.5).mean() > 0.9
    assert embedding.quality["inverter"].kind == "inverter"


def many_people(each: int, people: int, images: int = 200) -> tuple[Triplets, np.ndarray]:
    """(answers, true positions): of people of whom two in five guess."""
    rng = np.random.default_rng(0)
    position, who = rng.normal(size=(images, 2)) / 2, np.repeat(np.arange(people), each)
    slope = np.where(rng.random(people) < 0.4, 0, 8)[who]
    anchor, left, right = np.argsort(rng.random((len(who), images)), axis=1)[:, :3].T
    gap = distances(position, anchor, right) - distances(position, anchor, left)
    chosen = rng.random(len(who)) < 1 / (1 + np.exp(-slope * gap))
    return Triplets(anchor, *np.where(chosen, (left, right), (right, left)), who, np.where(chosen, 0, 1)), position


def test_one_for_all_is_found_before_the_chain_ends():
    """Six in ten of slope 8, the others guess: one annotator of slope 8 with lapses of 0.4."""
    model = Model(usable(many_people(3, 2000)[0])[0].pooled(), 2)
    chain = sampling.draw_chains(model, np.random.default_rng(0), 100)
    slope, _, lapse = np.mean([model.traits(vector[model.coordinates :])[0][0] for vector in chain], axis=0)
    assert slope == pytest.approx(8, abs=2) and lapse == pytest.approx(0.4, abs=0.1)


def test_hardly_known_annotators_count_alike():
    triplets, _ = many_people(3, 30, 20)
    found = metamed.embed(triplets)
    assert found.method == "unweighted" and len(found.quality) == 30


def test_the_same_seed_gives_the_same():
    triplets, _ = crowd(8, 20)
    first, second = (metamed.embed(triplets, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.positions, second.positions)
    assert first.quality == second.quality


# -- oddities ----------------------------------------------------------------------------------------------------------


def odd(**changes) -> Triplets:
    rows = np.array([(0, 1, 2), (0, 1, 2), (0, 2, 1), (1, 2, 2), (3, 1, 9), (2, 2, 3), (1, 3, 4)])
    columns = dict(zip(("anchor", "closer", "farther"), rows.T, strict=True)) | {"annotator": np.array(list("aaaabbb"))}
    return Triplets(**columns | changes)


def test_oddities_are_counted_and_handled():
    embedding = metamed.embed(odd(), images=6)
    assert embedding.found == {"unknown image": 1, "same candidates": 1, "attention check": 1, "repeated": 1,
                               "contradictory": 1, "unjudged image": 1}  # fmt: skip
    assert np.isnan(embedding.positions[5]).all() and np.isfinite(embedding.positions[:5]).all()
    assert embedding.quality["b"].answers == 1 and embedding.quality["b"].kind == "unknown"
    assert embedding.probability([0], [1], [5]) == 0.5


def test_a_slot_gets_no_quality():
    triplets, _ = crowd(10, 30)
    slot = triplets.annotator == "careless"
    quality = metamed.annotator_quality(Triplets(**vars(triplets) | {"slot": slot}))
    assert quality["careless"].kind == "slot" and np.isnan(float(quality["careless"]))
    assert np.isfinite(float(quality["careful"])) and set(quality) == set(PEOPLE)


def test_reliable_answers_are_kept():
    triplets, _ = crowd(10, 200)
    kept = metamed.keep_reliable(triplets, 0.6)
    assert set(kept.annotator) == {"careful", "careless"}


def test_what_cannot_be_used_is_said():
    with pytest.raises(NotApplicable, match="none of 7 triplets can be used: {'unknown image': 7"):
        metamed.embed(odd(), images=0)
    with pytest.raises(ReadError, match="name images by float64"):
        metamed.embed(odd(anchor=np.zeros(7)))
