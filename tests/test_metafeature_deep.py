"""Deep meta-features on given embeddings and on the shipped network; the scikit-learn transformer; pymfe's table."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import blobs

import metamed
from metamed.dataset import ArrayImages, Dataset
from metamed.errors import MetamedError, MissingExtra, NotApplicable, UnknownName
from metamed.metafeatures import METAFEATURES, extract, extractor, feature_names
from metamed.metafeatures.extractor import MetaFeatureExtractor, extract_tabular

DEEP = {c for f in METAFEATURES.values() if f.deep for c in f.columns}


def flat(dimension: int, n: int = 600, columns: int = 40, seed: int = 0) -> np.ndarray:
    """Points on a flat sheet of some dimension, turned into more columns."""
    rng = np.random.default_rng(seed)
    return rng.random((n, dimension)) @ np.linalg.qr(rng.normal(size=(columns, dimension)))[0].T


def pictures(n: int, **fields) -> Dataset:
    return Dataset("pictures", ArrayImages(np.zeros((n, 1, 4, 4), np.uint8)), **fields)


# -- deep --------------------------------------------------------------------------------------------------------------


def test_deep_features_come_only_when_asked_for():
    data, embed = blobs(20), np.random.default_rng(0).normal(size=(20, 5))
    plain = extract(data)
    assert not DEEP & plain.keys()
    assert extract(data, "deep", embed=embed).keys() == DEEP
    both = extract(data, deep=True, embed=embed)
    assert both.keys() == DEEP | plain.keys()
    np.testing.assert_equal({k: both[k] for k in plain}, plain)
    assert extract(data, "texture", deep=True, embed=embed).keys() == DEEP | extract(data, "texture").keys()


def test_what_is_missing_is_said():
    with pytest.raises(MetamedError, match="need embeddings. Pass embed=metamed.sources.embedder"):
        extract(blobs(8), "deep")
    with pytest.raises(MetamedError, match=r"embed has shape \(7, 3\). Pass a matrix .* the 8 images"):
        extract(blobs(8), "deep", embed=np.zeros((7, 3)))
    vectors = Dataset("vectors", ArrayImages(np.zeros((6, 3))))
    assert all(np.isnan(value) for value in extract(vectors, "deep", embed=lambda images: 1 / 0).values())


@pytest.mark.parametrize("dimension", [2, 5])
def test_the_dimension_of_embeddings_is_known(dimension):
    values = extract(pictures(600), "deep", embed=flat(dimension))
    assert values["deep_two_nn"] == pytest.approx(dimension, rel=0.2)
    assert values["deep_mle_dimension"] == pytest.approx(dimension, rel=0.25)
    assert values["deep_pca_dimension"] <= dimension
    assert values["deep_effective_rank"] == pytest.approx(dimension, rel=0.1)
    assert np.isnan(values["deep_linear_probe.mean"])


def test_statistics_of_embeddings():
    rng = np.random.default_rng(0)
    embed = np.maximum(rng.normal(size=(300, 60)), 0)
    values = extract(pictures(300), "deep", embed=embed)
    assert values["deep_sparsity.mean"] == pytest.approx(0.5, abs=0.02)
    assert values["deep_column_mean"] == pytest.approx(1 / np.sqrt(2 * np.pi), abs=0.01)
    assert values["deep_norm.mean"] == pytest.approx(np.sqrt(0.5), abs=0.02)
    unit = embed / np.linalg.norm(embed, axis=1, keepdims=True)
    assert values["deep_cosine"] == pytest.approx((unit @ unit.T)[np.triu_indices(300, 1)].mean())
    spectrum = np.linalg.svd(embed - embed.mean(axis=0), compute_uv=False) ** 2
    assert values["deep_pca_first"] == pytest.approx(spectrum[0] / spectrum.sum())


def test_embeddings_that_know_the_class_and_their_order():
    rng = np.random.default_rng(0)
    target = np.arange(120) % 3
    embed = rng.normal(size=(120, 16)) + 8 * np.eye(16)[target]
    values = extract(pictures(120, target=target), "deep", embed=embed)
    assert values["deep_one_nn.mean"] > 0.9 and values["deep_linear_probe_auc.mean"] == 1
    assert values["deep_separability"] > 0.1 and values["deep_label_sharpness"] < 5
    order = rng.permutation(120)
    again = extract(pictures(120, target=target[order]), "deep", embed=embed[order])
    for name, value in values.items():
        assert again[name] == pytest.approx(value, rel=1e-6), name
    doubled = pictures(240, target=np.repeat(rng.permutation(target), 2), groups=np.repeat(np.arange(120), 2))
    kept_apart = extract(doubled, "deep", embed=np.repeat(rng.normal(size=(120, 16)), 2, axis=0))
    assert kept_apart["deep_one_nn.mean"] < 0.6


def test_bags_are_means_of_their_embeddings(mil_data):
    images = ArrayImages(np.zeros((len(mil_data.images), 1, 4, 4), np.uint8))
    values = extract(replace(mil_data, images=images), "deep", embed=mil_data.images.array)
    assert values["deep_linear_probe.mean"] == extract(mil_data, "landmarking")["linear_probe.mean"]


def test_images_are_embedded_a_few_at_a_time_and_only_those_of_the_sample():
    seen = []

    def embed(images):
        seen.append(len(images))
        return np.asarray(images[:]).reshape(len(images), -1)[:, :6]

    extract(blobs(700), "deep", embed=embed, max_samples=600)
    assert sum(seen) == 600 and max(seen) <= 256


def test_the_shipped_network(monkeypatch, tmp_path):
    from metamed import sources
    from metamed.store import Store

    evidence = Store.embedded()
    try:
        embed = sources.embedder(store=evidence, image_size=32, device="cpu")
    except MetamedError as error:
        pytest.skip(str(error))
    images = np.random.default_rng(0).integers(0, 256, (24, 1, 32, 32)).astype(np.uint8)
    images[1::2] = images[1::2, :, :1]  # stripes against noise
    data = Dataset("stripes", ArrayImages(images), np.arange(24) % 2)
    values = extract(data, "deep", embed=embed)
    assert values["deep_one_nn.mean"] > 0.9 and all(np.isfinite(value) for value in values.values())
    np.testing.assert_equal(extract(data, "deep", embed=embed), values)
    monkeypatch.setattr(sources, "_weight_folders", lambda: [tmp_path])
    with pytest.raises(MetamedError, match="imagenet.coral.mobilenet_v2' not found .*METAMED_WEIGHTS"):
        sources.embedder(store=evidence)


# -- for other people's meta-learning ----------------------------------------------------------------------------------


def test_names_without_a_dataset():
    assert list(feature_names()) == list(extract(blobs(6)))
    assert "bag_size.mean" in feature_names("bags") and "bag_size.mean" not in feature_names(kind="segmentation")
    with pytest.raises(UnknownName, match="no meta-feature group 'textur'"):
        feature_names("textur")


def test_a_frame_of_datasets(mil_data):
    datasets = [blobs(12), blobs(12, seed=1), mil_data]
    made = metamed.MetaFeatureExtractor(["general", "bags"], seed=3)
    frame = made.fit_transform(datasets)
    assert list(frame.columns) == list(made.get_feature_names_out()) == list(feature_names(["general", "bags"]))
    assert list(frame.index) == ["blobs", "blobs", "bags"]
    expected = [extract(data, ["general", "bags"], seed=3) for data in datasets]
    np.testing.assert_equal(frame.to_numpy(), [list(row.values()) for row in expected])
    with pytest.raises(MetamedError, match="takes Datasets, not str"):
        made.transform(["retina.h5"])
    with pytest.raises(MetamedError, match="no parameter 'sed'. Known: groups, max_samples, seed"):
        made.set_params(sed=1)


def test_it_is_a_transformer_as_scikit_learns_are():
    from sklearn.base import clone
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.tree import DecisionTreeClassifier

    original = MetaFeatureExtractor("texture", max_samples=50, seed=1)
    copy = clone(original)
    assert copy is not original and copy.get_params() == original.get_params()
    assert copy.set_params(groups="general").groups == "general"
    black = Dataset("black", ArrayImages(np.zeros((9, 1, 8, 8), np.uint8)))
    model = make_pipeline(original, SimpleImputer(keep_empty_features=True), DecisionTreeClassifier(random_state=0))
    datasets = [blobs(9), black, blobs(9, seed=1), black]
    assert list(model.fit(datasets, [0, 1, 0, 1]).predict(datasets)) == [0, 1, 0, 1]
    assert list(model[:-1].get_feature_names_out()) == list(feature_names("texture"))


def test_it_stands_in_pipelines_searches_and_cross_validation():
    from sklearn.base import clone
    from sklearn.impute import SimpleImputer
    from sklearn.model_selection import GridSearchCV, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline

    black = [Dataset(f"black {k}", ArrayImages(np.zeros((9, 1, 8, 8), np.uint8))) for k in range(4)]
    datasets, y = [d for k in range(4) for d in (blobs(9, seed=k), black[k])], [0, 1] * 4
    model = make_pipeline(MetaFeatureExtractor("intensity"), SimpleImputer(keep_empty_features=True),
                          KNeighborsClassifier(1)).set_output(transform="pandas")  # fmt: skip
    assert list(model[:-1].fit_transform(datasets).columns) == list(feature_names("intensity"))
    assert list(cross_val_predict(clone(model), datasets, y, cv=2)) == y
    choices = {"metafeatureextractor__groups": ["intensity", ["texture"]]}
    search = GridSearchCV(model, choices, cv=2, error_score="raise")
    assert search.fit(datasets, y).best_score_ == 1
    as_array = np.empty(8, object)
    as_array[:] = datasets
    assert list(model.fit(as_array, y).predict(iter(datasets))) == y
    with pytest.raises(MetamedError, match="gives pandas DataFrames, not 'polars'"):
        MetaFeatureExtractor().set_output(transform="polars")


def test_tables_for_pymfe_and_what_to_install_without_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymfe.mfe", None)
    with pytest.raises(MissingExtra, match=r'pip install "metamed\[pymfe\]"'):
        extract_tabular(blobs(8))
    table, labels = extractor.table_of(blobs(60), 5, 2000, 0, None)
    assert table.shape == (60, 5) and np.bincount(labels).tolist() == [30, 30]
    assert (np.diff(table.std(axis=0)) <= 1e-9).all()
    np.testing.assert_allclose(table.T @ table, np.diag((table**2).sum(axis=0)), atol=1e-6 * (table**2).sum())
    with pytest.raises(NotApplicable, match="fewer than two"):
        extractor.table_of(blobs(60, classes=1), 5, 2000, 0, None)


def test_pymfes_own_features():
    pytest.importorskip("pymfe")
    values = extract_tabular(blobs(40), groups=["general", "statistical"], components=4)
    assert values["pymfe.nr_inst"] == 40 and values["pymfe.nr_attr"] == 4 and values["pymfe.nr_class"] == 2
    embed = np.random.default_rng(0).normal(size=(40, 9))
    assert extract_tabular(blobs(40), groups=["general"], components=7, embed=embed)["pymfe.nr_attr"] == 7
