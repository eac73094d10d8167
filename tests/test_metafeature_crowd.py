"""Crowd meta-features: published worked examples, circles, sides, real ratings."""

import csv
import gzip
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metamed.assessments import Ratings, Triplets
from metamed.dataset import ArrayImages, Dataset
from metamed.metafeatures import METAFEATURES, crowd, crowd_triplets, extract
from metamed.metafeatures.probe import Probe

# Krippendorff 2011, "Computing Krippendorff's alpha-reliability": four observers, twelve units, "." is missing
PAPER = """1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 ."""

# Fleiss 1971, diagnoses of the first ten patients by 14 raters as the example is usually given
FLEISS = """0 0 0 0 14
0 2 6 4 2
0 0 3 5 6
0 3 9 2 0
2 2 8 1 1
7 7 0 0 0
3 2 6 3 0
2 5 3 2 2
6 5 2 1 0
0 2 2 3 7"""


def images(n: int) -> ArrayImages:
    return ArrayImages(np.arange(n, dtype=np.float32)[:, None])


def rated(image, annotator, score, attribute=None) -> Dataset:
    attribute = np.full(len(image), "a") if attribute is None else attribute
    ratings = Ratings(*map(np.asarray, (image, annotator, attribute, score)))
    return Dataset("rated", images(int(max(image)) + 1), ratings=ratings)


def compared(rows, n=None, annotator=None, side=None) -> Dataset:
    rows = np.asarray(rows)
    annotator = np.zeros(len(rows)) if annotator is None else np.asarray(annotator)
    data = Triplets(*rows.T, annotator, None if side is None else np.asarray(side))
    return Dataset("compared", images(n or rows.max() + 1), triplets=data)


def test_krippendorffs_own_example():
    answers = [(unit, who, float(text)) for who, line in enumerate(PAPER.splitlines())
               for unit, text in enumerate(line.split()) if text != "."]  # fmt: skip
    values = extract(rated(*zip(*answers, strict=True)), "crowd")
    assert values["alpha_nominal"] == pytest.approx(0.743, abs=5e-4)
    assert values["alpha_ordinal"] == pytest.approx(0.815, abs=5e-4)
    assert values["alpha_interval"] == pytest.approx(0.849, abs=5e-4)
    assert values["n_annotators"] == 4 and values["rated_attributes"] == 1
    assert values["assessed_images"] == 1 and values["answers_per_question"] == pytest.approx(41 / 12)
    assert values["annotator_answers.mean"] == pytest.approx(41 / 4)
    assert np.isnan(values["fleiss_kappa"]) and np.isnan(values["triplet_consistency"])


def test_fleiss_own_example():
    counts = np.array([line.split() for line in FLEISS.splitlines()], float)
    assert crowd.fleiss(counts) == pytest.approx(0.210, abs=5e-4)
    image, score = (np.repeat(index, counts.astype(int).ravel()) for index in map(np.ravel, np.indices(counts.shape)))
    assert extract(rated(image, [0] * len(image), score), "crowd")["fleiss_kappa"] == pytest.approx(0.210, abs=5e-4)
    assert np.isnan(crowd.fleiss(np.array([[2.0, 1.0], [1.0, 1.0]])))


def test_attributes_are_averaged_and_missing_scores_left_out():
    image, who = [0, 0, 1, 1] * 2 + [0], [0, 1] * 4 + [3]
    score, attribute = [0, 0, 1, 1, 0, 1, 0, 1, np.nan], ["x"] * 4 + ["y"] * 4 + ["x"]  # agree; cross
    values = extract(rated(image, who, score, attribute), "crowd")
    single = crowd.krippendorff(np.array([[1.0, 1.0], [1.0, 1.0]]), 1 - np.eye(2))
    assert values["alpha_nominal"] == pytest.approx((1 + single) / 2) and single == pytest.approx(-0.5)
    assert values["rated_attributes"] == 2


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4))
def test_alpha_is_its_definition_over_pairs(seed, levels):
    rng = np.random.default_rng(seed)
    unit, answer = rng.integers(0, 6, 25), rng.integers(0, levels, 25)
    units = [answer[unit == u] for u in range(6) if (unit == u).sum() > 1]
    pooled = np.concatenate(units)
    if len(np.unique(pooled)) < 2:
        return
    n = len(pooled)
    observed = sum(sum((a - b) ** 2 for a, b in itertools.permutations(v, 2)) / (len(v) - 1) for v in units) / n
    expected = sum((a - b) ** 2 for a, b in itertools.permutations(pooled, 2)) / (n * (n - 1))
    counts, values = crowd.counts_by_unit(unit, answer)
    found = crowd.krippendorff(counts, crowd.interval(counts, values))
    assert found == pytest.approx(1 - observed / expected)


def test_each_annotator_beside_the_others():
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.integers(0, 5, 200).astype(float), 4)
    image, who = np.repeat(np.arange(200), 4), np.tile(np.arange(4), 200)
    score = np.where(who == 3, rng.integers(0, 5, 800), truth)  # three who know, one who guesses
    found = crowd.annotator_alpha(Probe(rated(image, who, score)))
    assert len(found) == 4 and found[0] < 0.1 and (found[1:] > 0.6).all()
    counts, values = crowd.counts_by_unit(image, score)
    overall = crowd.krippendorff(counts, crowd.interval(counts, values))
    assert found.mean() == pytest.approx(overall)  # all answered equally often
    assert extract(rated(image, who, truth), "crowd")["annotator_alpha.mean"] == pytest.approx(1)
    chosen = [(0, 1, 2)] * 3 + [(0, 2, 1)] + [(3, 5, 4)] * 4
    triplets = extract(compared(chosen, annotator=[0, 1, 2, 3] * 2), "crowd")
    assert triplets["annotator_alpha.mean"] == pytest.approx(triplets["alpha_nominal"])


def test_repeats_of_a_triplet():
    rows = [(0, 1, 2), (0, 1, 2), (0, 2, 1), (3, 4, 5), (3, 4, 5), (1, 2, 3)]
    values = extract(compared(rows, n=10, annotator=[0, 0, 1, 0, 1, 0]), "crowd")
    assert values["triplet_consistency"] == pytest.approx((1 + 1) / (3 + 1))  # pairs of answers
    assert values["self_consistency"] == 1
    assert values["assessed_images"] == pytest.approx(0.6)
    assert values["answers_per_question"] == 2 and values["busiest_annotator"] == pytest.approx(4 / 6)


def test_circles():
    order = [(0, a, b) for a, b in itertools.combinations(range(1, 6), 2)]  # closer is the smaller index: no circle
    assert extract(compared(order), "crowd")["contradictions"] == 0
    around = [(0, 1, 2), (0, 2, 3), (0, 3, 1)]
    assert extract(compared(around), "crowd")["contradictions"] == 1
    triangle = [(0, 1, 2), (1, 2, 0), (2, 0, 1)]  # d01 < d02, d12 < d01, d02 < d12
    assert extract(compared(triangle), "crowd")["contradictions"] == 1
    outvoted = around + [(0, 1, 3)] * 2
    assert extract(compared(outvoted), "crowd")["contradictions"] == 0
    assert np.isnan(extract(compared([(0, 1, 2)]), "crowd")["contradictions"])


def test_guessing_contradicts_itself_a_quarter_of_the_time():
    rng = np.random.default_rng(0)
    rows = [(0, a, b) if rng.random() < 0.5 else (0, b, a) for a, b in itertools.combinations(range(1, 60), 2)]
    assert extract(compared(rows), "crowd")["contradictions"] == pytest.approx(0.25, abs=0.02)


def test_points_in_a_plane_do_not_contradict_themselves():
    rng = np.random.default_rng(0)
    points, rows = rng.normal(size=(12, 2)), []
    for a, b, c in itertools.permutations(range(12), 3):
        if np.linalg.norm(points[a] - points[b]) < np.linalg.norm(points[a] - points[c]):
            rows.append((a, b, c))
    values = extract(compared(rows), "crowd")
    assert values["contradictions"] == 0 and np.isnan(values["triplet_consistency"])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 12), st.integers(1, 40))
def test_circles_of_any_length_are_those_of_scipy(seed, nodes, answers):
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rng = np.random.default_rng(seed)
    beats: dict[int, set[int]] = {}
    for a, b in rng.integers(0, nodes, (answers, 2)).tolist():
        if a != b and a not in beats.get(b, ()):
            beats.setdefault(a, set()).add(b)
    found = crowd_triplets._strong_components(beats)
    edges = np.array([(a, b) for a, losers in beats.items() for b in losers]).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(edges)), edges.T), (nodes, nodes))
    _, expected = connected_components(graph, connection="strong")
    assert all((found[a] == found[b]) == (expected[a] == expected[b]) for a, b in itertools.combinations(found, 2))


def test_long_circles():
    order = [(0, k, k + 1) for k in range(1, 500)]
    values = extract(compared(order), "crowd")
    assert values["cyclic_comparisons"] == 0 and np.isnan(values["contradictions"])
    values = extract(compared([*order, (0, 500, 251)]), "crowd")  # half of the chain closes; no three are all compared
    assert values["cyclic_comparisons"] == pytest.approx(250 / 500) and np.isnan(values["contradictions"])


def test_sides():
    rows = [(0, 1, 2)] * 4
    assert extract(compared(rows, side=[0, 0, 0, 1]), "crowd")["position_bias"] == pytest.approx(0.5)
    assert extract(compared(rows, side=[0, 1, 0, 1]), "crowd")["position_bias"] == 0
    assert np.isnan(extract(compared(rows), "crowd")["position_bias"])


def test_without_assessments_all_is_missing_at_once():
    values = extract(Dataset("plain", images(5)), "crowd")
    assert values and all(np.isnan(value) for value in values.values())
    assert all(f.facts["cost"] == "facts" for f in METAFEATURES.values() if f.group == "crowd")


def _long(path, image, annotator, attributes) -> Dataset:
    """A long or wide CSV of ratings as a dataset whose images are not there."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    index = {name: i for i, name in enumerate(dict.fromkeys(row[image] for row in rows))}
    columns = [(index[row[image]], row[annotator], attribute, float(row[column]))
               for row in rows for attribute, column in attributes(row) if row[column]]  # fmt: skip
    return Dataset(path.stem, images(len(index)), ratings=Ratings(*map(np.array, zip(*columns, strict=True))))


LIDC = ("subtlety", "sphericity", "margin", "lobulation", "spiculation", "texture", "malignancy")


def test_real_ratings(shared):
    folder = shared / "data" / "crowd"
    single = lambda row: [("rating", "rating")]  # noqa: E731
    tables = {
        "anesthesia_ratings": ("item", "rater", single),
        "caries_xray_ratings": ("item", "rater", single),
        "enhance_skin_abc": ("image_id", "annotator", lambda row: [(row["feature"] + row["group"], "score")]),
        "lidc_nodule_ratings": ("nodule", "reader_slot", lambda row: [(name, name) for name in LIDC]),
        "dermatology_ddx_rankings": ("case", "reader_slot", lambda row: [(row["condition"], "rank")]),
    }
    found = {name: extract(_long(folder / f"{name}.csv.gz", *how), "crowd") for name, how in tables.items()}
    assert all(np.isfinite(values["alpha_nominal"]) for values in found.values())
    anesthesia = found["anesthesia_ratings"]
    assert anesthesia["n_annotators"] == 5 and anesthesia["answers_per_question"] == 7
    assert 0.5 < anesthesia["fleiss_kappa"] < anesthesia["alpha_ordinal"]  # neighbouring grades: ranks agree more
    assert found["caries_xray_ratings"]["answers_per_question"] == 5
    assert 0 < found["lidc_nodule_ratings"]["alpha_ordinal"] < 1


@pytest.mark.parametrize("name", ["pneumonia_cxr_triplets", "enhance_isic2017_crowd_images"])
def test_real_files(shared, name):
    from metamed.readers import read

    data = read(shared / "data" / "crowd" / f"{name}.h5")
    values = extract(data, max_samples=100)
    assert (values["assessed_images"] == 1) == (data.ratings is not None)  # everything was rated, not all compared
    assert np.isfinite(values["alpha_ordinal"]) == (data.ratings is not None)  # no triplet was asked twice
