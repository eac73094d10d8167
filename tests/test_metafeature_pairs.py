"""Distances of tables and scores of transfer: closed forms, slow references, published formulas."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metamed.errors import MetamedError
from metamed.metafeatures import distances, extract_pair, similarity
from metamed.metafeatures import transferability as transfer


def normal(n: int, d: int, seed: int = 0, mean: float = 0.0, sd: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, sd, (n, d))


def classes(n: int = 240, d: int = 8, k: int = 3, apart: float = 3.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    return rng.normal(size=(n, d)) + apart * rng.normal(size=(k, d))[labels], labels


# -- distances ---------------------------------------------------------------------------------------------------------


def test_frechet_of_gaussians_in_closed_form():
    mean, a, b = np.array([1.0, -2.0, 0.5]), np.array([1.0, 4.0, 9.0]), np.array([4.0, 1.0, 0.25])
    found = distances.gaussian_frechet(mean, np.diag(a), np.zeros(3), np.diag(b))
    assert found == pytest.approx((mean**2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum())


def test_frechet_is_that_of_the_matrix_root():
    from scipy.linalg import sqrtm

    a, b = normal(300, 6) @ normal(6, 6, 1), normal(200, 6, 2) @ normal(6, 6, 3) + 1
    s, t = np.cov(a.T), np.cov(b.T)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s + t - 2 * sqrtm(s @ t).real)
    assert distances.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert distances.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_samples_of_known_gaussians():
    assert distances.frechet_distance(normal(20000, 3), normal(20000, 3, 1, 2.0)) == pytest.approx(12, rel=0.05)
    assert distances.radiomic_frechet(normal(5000, 2), normal(5000, 2, 1, 3.0)) == pytest.approx(3 * 2**0.5, rel=0.05)


def test_the_units_of_a_statistic_do_not_matter_for_radiomics():
    a, b = normal(80, 4), normal(90, 4, 1, 0.5)
    units = np.array([1.0, 1e3, 1e-3, 7.0])
    assert distances.radiomic_frechet(a * units, b * units) == pytest.approx(distances.radiomic_frechet(a, b))
    constant = np.hstack([a, np.ones((80, 1))]), np.hstack([b, np.zeros((90, 1))])
    assert distances.radiomic_frechet(*constant) == pytest.approx(distances.radiomic_frechet(a, b))


def test_kernel_distance():
    same = [distances.kernel_distance(normal(300, 10, s), normal(300, 10, s + 100)) for s in range(6)]
    assert abs(np.mean(same)) < 0.01
    assert distances.kernel_distance(normal(300, 10), normal(300, 10, 1, 1.0)) > 1
    a, b = normal(9, 4), normal(7, 4, 1)
    k = lambda x, y: (x @ y / 4 + 1) ** 3  # noqa: E731
    inside = [np.mean([k(x, y) for i, x in enumerate(t) for j, y in enumerate(t) if i != j]) for t in (a, b)]
    assert distances.kernel_distance(a, b) == pytest.approx(sum(inside) - 2 * np.mean([k(x, y) for x in a for y in b]))


def slow_divergence(source, target, bins: int, weighted: bool) -> float:
    """The published formula, column by column: clip, histogram, softmax of the source's shares, weighted mean."""
    pool, total, weights = np.concatenate([source, target]), 0.0, 0.0
    for column in range(source.shape[1]):
        ends = np.quantile(pool[:, column], [0.05, 0.95])
        p, q = (np.histogram(np.clip(t[:, column], *ends), bins, ends)[0] / len(t) for t in (target, source))
        q = np.exp(q) / np.exp(q).sum()
        weight = np.exp(target.mean(axis=0))[column] if weighted else 1.0
        total += weight * sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)
        weights += weight
    return total / weights


def test_binned_divergence_is_the_published_formula():
    source, target = np.abs(normal(400, 5)), np.abs(normal(300, 5, 1, 0.4))
    assert distances.bkld_small_target(source, target) == pytest.approx(slow_divergence(source, target, 100, True))
    assert distances.bkld_large(source, target) == pytest.approx(slow_divergence(source, target, 1000, False))
    near, far = (distances.bkld_large(source, np.abs(normal(400, 5, 1, shift))) for shift in (0.2, 3.0))
    assert distances.bkld_large(source, source) < near < far
    wider = distances.binned_divergence(source, target, bins=100, weighted=True, reference=normal(5000, 5, 2, sd=3.0))
    assert np.isfinite(wider) and wider != distances.bkld_small_target(source, target)
    constant = np.hstack([source, np.ones((400, 1))])
    assert np.isfinite(distances.bkld_small_target(constant, constant))


def test_tables_that_do_not_compare():
    with pytest.raises(MetamedError, match=r"\(9, 4\) and \(9, 5\) do not compare"):
        distances.compare_tables(normal(9, 4), normal(9, 5))
    with pytest.raises(MetamedError, match="missing or infinite"):
        distances.compare_tables(normal(9, 4), np.full((9, 4), np.nan))
    assert set(distances.compare_tables(normal(9, 4), normal(8, 4))) == set(distances.DISTANCES)


# -- scores of transfer ------------------------------------------------------------------------------------------------


def slow_log_evidence(f: np.ndarray, y: np.ndarray) -> float:
    """max over (alpha, beta) of log N(y; 0, I / beta + F F' / alpha) / n, by search over dense matrices."""
    from scipy.optimize import minimize

    def negative(logs):
        alpha, beta = np.exp(logs)
        covariance = np.eye(len(f)) / beta + f @ f.T / alpha
        return (np.linalg.slogdet(covariance)[1] + y @ np.linalg.solve(covariance, y) + len(f) * np.log(2 * np.pi)) / 2

    return -min(minimize(negative, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9}).fun
                for start in ([0.0, 0.0], [2.0, 2.0])) / len(f)  # fmt: skip


@pytest.mark.parametrize(("n", "d"), [(60, 5), (40, 60)])
def test_log_me_is_the_largest_evidence(n, d):
    f, labels = classes(n, d, 3, apart=1.0)
    expected = np.mean([slow_log_evidence(f, (labels == k).astype(float)) for k in range(3)])
    assert transfer.log_me(f, labels) == pytest.approx(expected, abs=2e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(2, 4))
def test_leep_is_its_definition(seed, sources, targets):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(targets), rng.integers(0, targets, 20)])
    theta = rng.dirichlet(np.ones(sources), len(labels))
    total = 0.0
    for x, y in zip(theta, labels, strict=True):
        given = [theta[labels == y][:, z].sum() / theta[:, z].sum() for z in range(sources)]
        total += np.log(sum(p * q for p, q in zip(given, x, strict=True)))
    assert transfer.leep(theta, labels) == pytest.approx(total / len(labels))


def test_leep_of_a_head_that_knows_the_classes():
    labels = np.arange(30) % 3
    assert transfer.leep(np.eye(3)[labels], labels) == pytest.approx(0)
    assert transfer.leep(np.full((30, 4), 0.25), labels) == pytest.approx(np.log(1 / 3))


def test_the_mixture_finds_the_clusters():
    points, labels = classes(300, 2, 3, apart=12.0, seed=1)
    posterior = transfer.mixture_posteriors(points, 3)
    np.testing.assert_allclose(posterior.sum(axis=1), 1)
    assert len({(a, b) for a, b in zip(posterior.argmax(axis=1), labels, strict=True)}) == 3
    np.testing.assert_allclose(posterior.max(axis=1), 1, atol=1e-3)


def test_the_mixture_is_that_of_scikit_learn():
    from sklearn.mixture import GaussianMixture

    points, _ = classes(400, 4, 3, apart=2.0, seed=2)
    k = 5
    centres = transfer._spread_centres(points, k, 0)
    start = np.eye(k)[transfer._squared(points, centres).argmin(axis=1)]
    weight = start.sum(axis=0)
    means = start.T @ points / weight[:, None]
    parts = [points[start[:, c] > 0] - means[c] for c in range(k)]
    precisions = np.array([np.linalg.inv(p.T @ p / len(p) + transfer.SMALL * np.eye(4)) for p in parts])
    model = GaussianMixture(k, weights_init=weight / 400, means_init=means, precisions_init=precisions, tol=1e-9,
                            reg_covar=transfer.SMALL, max_iter=2000).fit(points)  # fmt: skip
    found = transfer.mixture_posteriors(points, k, seed=0, steps=2000, tolerance=1e-9)
    np.testing.assert_allclose(found, model.predict_proba(points), atol=1e-3)


def test_the_h_score_counts_the_directions_that_classes_explain():
    rng = np.random.default_rng(0)
    labels = np.arange(3000) % 3
    noise = rng.normal(size=(3000, 4))
    perfect = np.hstack([np.eye(3)[labels][:, :2], noise])  # two columns are functions of the class, four know nothing
    assert transfer.h_score(perfect, labels) == pytest.approx(2, abs=0.02)
    assert transfer.h_score(noise, labels) == pytest.approx(0, abs=0.01)
    mixed = perfect @ rng.normal(size=(6, 6))
    assert transfer.h_score(mixed, labels) == pytest.approx(transfer.h_score(perfect, labels), rel=1e-6)


def test_neighbours_are_those_of_scikit_learn():
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import LeaveOneOut, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier

    f, labels = classes(90, 6, 2, apart=0.7)
    model = KNeighborsClassifier(5, metric="cosine", algorithm="brute")
    expected = balanced_accuracy_score(labels, cross_val_predict(model, f, labels, cv=LeaveOneOut()))
    assert transfer.knn_transfer(f, labels) == pytest.approx(expected)


def test_copies_of_a_patient_do_not_help_neighbours():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 6)
    f, labels = rng.normal(size=(40, 8))[groups], rng.integers(0, 2, 40)[groups]
    assert transfer.knn_transfer(f, labels) == 1
    assert transfer.knn_transfer(f, labels, groups=groups) < 0.7


def test_better_sources_score_higher_in_all():
    good, bad = (transfer.transfer_scores(*classes(300, 8, 3, apart)) for apart in (2.0, 0.2))
    assert set(good) == set(transfer.SCORES) and np.isnan(good["leep"])
    assert all(good[name] > bad[name] for name in good if name != "leep")
    known = transfer.transfer_scores(*classes(), probabilities=np.full((240, 2), 0.5))
    assert known["leep"] == pytest.approx(np.log(1 / 3))


def test_scores_that_cannot_be():
    f, labels = classes(12)
    with pytest.raises(MetamedError, match="do not fit"):
        transfer.log_me(f, labels[:5])
    with pytest.raises(MetamedError, match="1 class"):
        transfer.h_score(f, labels * 0)


# -- from stored vectors -----------------------------------------------------------------------------------------------


def test_frechet_from_vectors_is_that_of_independent_gaussians():
    source = {"brightness.mean": 0.2, "brightness.sd": 0.1, "moran.mean": 0.5, "moran.sd": 0.2}
    target = {"brightness.mean": 0.5, "brightness.sd": 0.1, "moran.mean": 0.5, "moran.sd": 0.4}
    scale = {"brightness.mean": 0.1, "moran.mean": 0.2}
    a, b = ([v[f"{n}.{s}"] for n in ("brightness", "moran")] for v, s in ((source, "mean"), (target, "mean")))
    units = np.array([0.1, 0.2])
    means = np.array(a) / units, np.array(b) / units
    full = distances.gaussian_frechet(means[0], np.diag([1.0, 1.0]), means[1], np.diag([1.0, 4.0]))
    assert extract_pair(source, target, scale=scale)["frechet_statistics"] == pytest.approx(np.sqrt(full / 2))
    assert extract_pair(source, source)["frechet_statistics"] == 0


def test_behaviour_compares_what_simple_classifiers_reach():
    source = {"n_classes": 2, "mean_pool_ridge.mean": 0.9, "citation_nn.mean": 0.6, "lda.mean": 0.5}
    target = {"n_classes": 2, "mean_pool_ridge.mean": 0.6, "citation_nn.mean": 1.0, "lda.mean": 1.0}
    of_bags = np.sqrt((0.6**2 + 0.8**2) / 2)  # 0.5 is chance, so differences count double
    assert extract_pair(source, target)["behaviour_distance"] == pytest.approx(of_bags)
    four = {"n_classes": 4, "lda.mean": 0.25 + 0.75 * 0.4, "one_nn.mean": 0.9}
    assert extract_pair(source, four)["behaviour_distance"] == pytest.approx(0.4)  # no bags: landmarkers, over chance
    assert np.isnan(extract_pair(source, {"n_classes": 2})["behaviour_distance"])


def test_how_far_grey_is_moved():
    levels = {f"{name}.mean": level for name, level in similarity.QUANTILES.items()}  # uniform grey
    darker = {name: level - 0.2 for name, level in levels.items()}
    assert extract_pair(levels, darker)["histogram_distance"] == pytest.approx(0.2)
    narrow = {name: 0.5 + (level - 0.5) / 3 for name, level in levels.items()}
    assert extract_pair(levels, narrow)["histogram_distance"] == pytest.approx(0.45 / 2 * 2 / 3, rel=0.01)
    assert np.isnan(extract_pair(levels, {})["histogram_distance"])
