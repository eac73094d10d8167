"""Meta-features that a library of the field defines too: the same values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_metafeature_values import statistics
from test_metafeatures import of

from metamed.metafeatures import METAFEATURES, kernels
from metamed.metafeatures import landmarking as marks
from metamed.metafeatures.probe import Probe


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    """Smooth and rough grey images, uint8 (6, 40, 31)."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(5)
    rough = rng.integers(0, 256, (3, 40, 31))
    smooth = gaussian_filter(rng.normal(size=(3, 40, 31)), (0, 2, 2)) * 400 + 128
    return np.concatenate([rough, np.clip(smooth, 0, 255)]).astype(np.uint8)


def test_moments_and_quantiles_are_those_of_numpy_and_scipy(sample):
    from scipy import stats

    found, flat = statistics(sample), sample.reshape(6, -1) / 255
    np.testing.assert_allclose(found["mean"], flat.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found["variance"], flat.var(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found["skewness"], stats.skew(flat, axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["kurtosis"], stats.kurtosis(flat, axis=1), rtol=1e-5, atol=1e-6)
    expected = np.percentile(flat, np.array(kernels.QUANTILES) * 100, axis=1).T
    np.testing.assert_allclose(found["quantiles"], expected, rtol=1e-5)


def test_entropy_and_otsu_are_those_of_scikit_image(sample):
    from skimage.filters import threshold_otsu
    from skimage.measure import shannon_entropy

    values = Probe(of(sample[:, None]))
    found = np.sort(METAFEATURES["entropy"].function(values))
    np.testing.assert_allclose(found, np.sort([shannon_entropy(image) for image in sample]), rtol=1e-5)
    expected = []
    for image in sample / 255.0:
        above = image > threshold_otsu((image * 255).astype(int)) / 255
        share = above.mean()
        expected.append(share * (1 - share) * (image[above].mean() - image[~above].mean()) ** 2 / image.var())
    found = np.sort(METAFEATURES["otsu_separability"].function(values))
    np.testing.assert_allclose(found, np.sort(expected), rtol=1e-4)


def test_cooccurrence_is_that_of_scikit_image(sample):
    from skimage.feature import graycomatrix, graycoprops

    found = statistics(sample)
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    for k, image in enumerate(sample >> 3):
        matrix = graycomatrix(image, [1], angles, levels=32, symmetric=True, normed=True)
        for name in ("contrast", "dissimilarity", "homogeneity", "energy", "correlation"):
            np.testing.assert_allclose(found[f"glcm_{name}"][k], graycoprops(matrix, name).mean(), rtol=1e-5)


def test_local_patterns_are_those_of_scikit_image(sample):
    from skimage.feature import local_binary_pattern

    for image, found in zip(sample[:3], kernels.local_patterns(sample[:3]), strict=True):
        np.testing.assert_array_equal(found, local_binary_pattern(image, 8, 1, "uniform")[1:-1, 1:-1])


def test_gradients_are_those_of_numpy_and_scipy(sample):
    from scipy.ndimage import convolve, laplace

    found = statistics(sample)
    inner = (slice(None), slice(1, -1), slice(1, -1))
    level = sample / 255.0
    dy, dx = np.gradient(level, axis=(1, 2))
    np.testing.assert_allclose(found["gradient_energy"], (dx**2 + dy**2)[inner].mean(axis=(1, 2)), rtol=1e-5)
    laplacian = np.stack([laplace(image) for image in level])[inner]
    np.testing.assert_allclose(found["laplacian_energy"], (laplacian**2).mean(axis=(1, 2)), rtol=1e-5)
    mask = np.outer([1, -2, 1], [1, -2, 1])  # Immerkaer's
    answer = np.stack([convolve(image, mask) for image in level])[inner]
    expected = np.sqrt(np.pi / 2) * np.abs(answer).sum(axis=(1, 2)) / (6 * 38 * 29)
    np.testing.assert_allclose(found["noise_sigma"], expected, rtol=1e-5)


def test_morans_i_is_its_definition(sample):
    found = statistics(sample)["moran"]
    for image, value in zip(sample.astype(float), found, strict=True):
        z = image - image.mean()
        pairs = 2 * ((z[1:] * z[:-1]).sum() + (z[:, 1:] * z[:, :-1]).sum())
        weights = 2 * (39 * 31 + 40 * 30)
        assert value == pytest.approx(image.size / weights * pairs / (z**2).sum(), rel=1e-5)


@pytest.fixture(scope="module")
def points() -> Probe:
    from sklearn.datasets import make_classification

    x, y = make_classification(240, 12, n_informative=6, n_classes=3, n_clusters_per_class=1, random_state=0)
    return Probe(of(x, y))


def test_structure_is_that_of_scikit_learn(points):
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import NearestNeighbors

    names = ("class_separability", "hubness", "neighbour_error", "pca_first", "effective_rank", "sample_correlation")
    value = {name: METAFEATURES[name].function(points) for name in names}
    x, y = points.rows.astype(float), points.labels
    assert value["class_separability"] == pytest.approx(silhouette_score(x, y), rel=1e-4)
    near = NearestNeighbors(n_neighbors=10).fit(x).kneighbors(return_distance=False)
    count = np.bincount(near.ravel(), minlength=len(x))
    assert value["hubness"] == pytest.approx(((count - 10.0) ** 3).mean() / ((count - 10.0) ** 2).mean() ** 1.5)
    nearest = near[:, 0]
    assert value["neighbour_error"] == pytest.approx((y[nearest] != y).mean())
    singular = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
    share = singular / singular.sum()
    assert value["pca_first"] == pytest.approx(share[0], rel=1e-5)
    assert value["effective_rank"] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-5)
    pairs = np.corrcoef(x)[np.triu_indices(len(x), 1)]
    assert value["sample_correlation"] == pytest.approx(pairs.mean(), abs=1e-6)


def test_the_fisher_ratio_is_the_f_statistic(points):
    from sklearn.feature_selection import f_classif

    f = f_classif(points.rows.astype(float), points.labels)[0] * 2 / (240 - 3)  # degrees of freedom taken out
    assert METAFEATURES["fisher_best"].function(points) == pytest.approx(1 / (1 + f.max()), rel=1e-4)


def test_landmarkers_are_those_of_scikit_learn(points):
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import Ridge
    from sklearn.neighbors import NearestCentroid

    x, y = points.rows.astype(float), points.labels
    train, test = np.arange(240) < 180, np.arange(240) >= 180
    one_hot = np.eye(3, dtype=np.float32)[y[train]]
    found = marks.nearest_mean(x[train], one_hot, x[test]).argmax(axis=1)
    np.testing.assert_array_equal(found, NearestCentroid().fit(x[train], y[train]).predict(x[test]))

    counts = one_hot.sum(axis=0)
    weight = (1 / counts / 3)[y[train]]
    centred = x[train] - weight @ x[train]
    alpha = marks.RIDGE * np.trace((weight * centred.T) @ centred) / 12
    reference = Ridge(alpha=alpha).fit(x[train], one_hot, sample_weight=weight).predict(x[test])
    np.testing.assert_allclose(marks.ridge(x[train], one_hot, x[test]), reference, rtol=1e-5, atol=1e-5)

    same = np.concatenate([np.flatnonzero(train & (y == k))[:50] for k in range(3)])  # equal classes: one covariance
    model = LinearDiscriminantAnalysis("lsqr", shrinkage=marks.SHRINKAGE, priors=[1 / 3] * 3)
    model.fit(x[same], y[same])
    found = marks.discriminant(x[same], np.eye(3)[y[same]], x[test])
    expected = model.decision_function(x[test])
    np.testing.assert_allclose(np.diff(found, axis=1), np.diff(expected, axis=1), rtol=1e-5, atol=1e-5)


def test_the_stump_finds_the_cut_that_a_tree_finds():
    from sklearn.tree import DecisionTreeClassifier

    rng = np.random.default_rng(0)
    x, y = rng.random((200, 4)), np.arange(200) % 2
    x[:, 2] += 0.3 * y
    found = marks.stump(x, np.eye(2)[y], x).argmax(axis=1)
    tree = DecisionTreeClassifier(max_depth=1, class_weight="balanced").fit(x, y)
    assert tree.tree_.feature[0] == 2
    assert (found == y).mean() >= tree.score(x, y) - 0.05 and (found == y).mean() > 0.6


def test_the_tree_is_about_that_of_scikit_learn():
    from sklearn.tree import DecisionTreeClassifier

    rng = np.random.default_rng(0)
    x = rng.random((600, 5))
    y = (x[:, 0] > 0.5).astype(int) + 2 * (x[:, 1] > 0.5)  # needs two levels: no stump can
    found = marks.tree(x[:400], np.eye(4, dtype=np.float32)[y[:400]], x[400:]).argmax(axis=1)
    tree = DecisionTreeClassifier(max_depth=3, class_weight="balanced").fit(x[:400], y[:400])
    assert (found == y[400:]).mean() > 0.95 and tree.score(x[400:], y[400:]) > 0.95
    assert (marks.stump(x[:400], np.eye(4, dtype=np.float32)[y[:400]], x[400:]).argmax(axis=1) == y[400:]).mean() < 0.6


def test_complexity_is_that_of_pymfe(points):
    complexity = pytest.importorskip("pymfe.complexity").MFEComplexity
    known = {name: METAFEATURES[name].function(points)
             for name in ("border_points", "local_sets", "neighbour_error", "neighbour_ratio", "class_entropy")}
    x, y = points.rows.astype(float), points.labels
    distances = np.sqrt(np.where(np.isfinite(points.distances), points.distances, 0))
    assert known["border_points"] == pytest.approx(complexity.ft_n1(x, y, norm_dist_mat=distances))
    assert known["local_sets"] == pytest.approx(complexity.ft_lsc(x, y, norm_dist_mat=distances), abs=1 / len(x))
    assert known["neighbour_ratio"] == pytest.approx(complexity.ft_n2(x, y, norm_dist_mat=distances).mean(), abs=0.02)
    assert known["class_entropy"] == pytest.approx(complexity.ft_c1(y, np.bincount(y) / len(y)))


def test_intrinsic_dimensions_are_those_of_scikit_dimension(points):
    skdim = pytest.importorskip("skdim.id")
    x = points.rows.astype(float)
    assert METAFEATURES["two_nn"].function(points) == pytest.approx(skdim.TwoNN().fit(x).dimension_, rel=1e-3)
    mle = skdim.MLE(neighborhood_based=True).fit(x, n_neighbors=20)
    assert METAFEATURES["mle_dimension"].function(points) == pytest.approx(mle.dimension_, rel=0.02)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 4), st.integers(4, 40), st.integers(0, 10**6))
def test_accuracy_and_area_are_those_of_scikit_learn(classes, n, seed):
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(classes), rng.integers(0, classes, n)])
    predicted = rng.integers(0, classes, len(truth))
    assert marks.balanced_accuracy(truth, predicted) == pytest.approx(balanced_accuracy_score(truth, predicted))
    scores = rng.integers(0, 5, (len(truth), classes)).astype(float)  # with ties
    expected = np.mean([roc_auc_score(truth == k, scores[:, k]) for k in range(classes)])
    assert marks.area_under_curve(truth, scores) == pytest.approx(expected)
