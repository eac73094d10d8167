"""Sources: what a trained network carries on, networks that learned nothing, and variants of datasets."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import blobs
from torchvision import models

from metamed import training
from metamed.dataset import ArrayImages, take
from metamed.errors import MetamedError
from metamed.experiments import run_setup
from metamed.flows.blocks import Classifier, encoder
from metamed.methods import Shape, get_method
from metamed.prediction import Predictor
from metamed.records import Setup, Source
from metamed.sources import as_source, encode, features_key, find_weights, frozen, load_source, random_source
from metamed.store import Store
from metamed.tasks import make_task

sys.path.insert(0, str(Path(__file__).parents[1]))
QUICK = {"epochs": 1, "width": 16, "depth": 2}


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "s.db") as store:
        yield store


def _run(setup, data, store):
    return run_setup(setup, make_task(data), data, store, keep_weights=True)


def test_a_chain_remembers_all_that_it_learned_from(store):
    data = blobs()
    first = as_source(_run(Setup("small_cnn", QUICK), data, store), "first", store)
    other = replace(blobs(seed=1), name="other", card=replace(data.card, family="kin"))
    second = as_source(_run(Setup("small_cnn", QUICK, "finetune", ("first",)), other, store), "second", store)
    assert first.corpus == ("blobs",) and second.corpus == ("other", "kin", "blobs")
    assert first.preprocessing == second.preprocessing == "own"


def test_a_chain_keeps_the_padding_that_its_weights_were_made_with(store, tmp_path, monkeypatch):
    model = training.Model(Classifier(encoder(Shape(3, (32, 32), 2), "mobilenet_v2"), 2), [0.5] * 3, [0.5] * 3)
    path = tmp_path / "padded.safetensors"
    path.write_bytes(training.weights_bytes(model))
    monkeypatch.setenv("METAMED_WEIGHTS", str(tmp_path))
    store.add(Source("padded", "mobilenet_v2", "supervised", ("x",), "half_same", training.sha256(path), "", "shipped"))
    setup = Setup("mobilenet", {"epochs": 1, "image_size": 32}, "finetune", ("padded",))
    source = as_source(_run(setup, blobs(20), store), "chained", store)
    assert source.preprocessing == "own_same"
    net = encoder(Shape(3, (32, 32), 0), "mobilenet_v2")
    load_source(net, source, find_weights(source, store))
    strided = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.stride != (1, 1)]
    assert strided and all(type(m) is not torch.nn.Conv2d for m in strided)


def test_random_weights_are_made_of_their_seed_alone(store):
    one, other = random_source("small_cnn_16x2", 5), random_source("small_cnn_16x2", 6)
    path = find_weights(one, store)
    path.unlink()
    assert training.sha256(find_weights(one, store)) == one.sha256 != other.sha256
    features = encode(blobs(), one, path, 16)
    assert features.shape == (60, 32) and np.isfinite(features).all() and features.std() > 0


@pytest.mark.parametrize("network", ["small_cnn_16x2", "mobilenet_v2"])
def test_features_of_random_weights_tell_images_apart_however_small_they_are(network, store):
    """An untrained MobileNetV2's features are 1e-10, below what half precision can hold."""
    source = random_source(network, 0)
    store.add(source)
    data = replace(blobs(200, size=32), groups=None)
    run = run_setup(Setup("probe.linear", {"scaling": "all", "image_size": 32}, None, (source.name,)), make_task(data),
                    data, store, keep_weights=True, device="cpu")  # fmt: skip
    assert run.score("auc") > 0.6
    test = take(data.images, np.array(store.get(run.task).folds[0].test))
    kept = np.load(store.artifact(run, "predictions.npz"))["test"]
    np.testing.assert_allclose(Predictor.of(run, store, device="cpu")(ArrayImages(test)), kept, atol=2e-3)


def test_features_do_not_depend_on_how_many_images_pass_at_once(store, monkeypatch):
    source = random_source("small_cnn_16x2", 5)
    path = find_weights(source, store)
    together = encode(blobs(), source, path, 16)
    monkeypatch.setattr("metamed.sources.BATCH_CPU", 7)
    np.testing.assert_allclose(encode(blobs(), source, path, 16), together, atol=1e-3)
    assert features_key(source, 16) != features_key(source, 32)


def test_a_source_whose_weights_are_elsewhere_cannot_be_run(store):
    data = blobs()
    as_source(_run(Setup("small_cnn", QUICK), data, store), "mine", store)
    target = replace(blobs(seed=1), name="target")
    run_setup(Setup("probe.linear", {}, None, ("mine",)), make_task(target), target, store)
    runnable = {row["sources"]: row["runnable"] for row in store.example_rows("classification", "auc")}
    assert runnable == {(): True, ("mine",): True}
    shipped = Store.memory()
    shipped.merge(store, artifacts=False)
    runnable = {row["sources"]: row["runnable"] for row in shipped.example_rows("classification", "auc")}
    assert runnable == {(): True, ("mine",): False}


def test_a_network_that_learned_nothing_is_never_offered(store):
    data, nothing = blobs(), random_source("small_cnn_16x2", 5)
    store.add(nothing)
    run_setup(Setup("probe.linear", {}, None, (nothing.name,)), make_task(data), data, store)
    assert [row["runnable"] for row in store.example_rows("classification", "auc")] == [False]


# ---- torchvision's weights

TORCHVISION = [s for s in Store.embedded().records("source") if s.origin == "torchvision"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def _published(source, folder, state):
    """A file as torchvision publishes it, in a folder, and the source with its hash."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "new.pth")
    digest = training.sha256(folder / "new.pth")[:8]
    return replace(source, sha256=digest), (folder / "new.pth").rename(folder / f"{source.network}-{digest}.pth")


@pytest.mark.parametrize("source", TORCHVISION, ids=lambda source: source.network)
def test_torchvisions_weights_make_torchvisions_features(source, cache, store):
    theirs = models.get_model(source.network, weights=None).eval()
    state = theirs.state_dict()
    if source.network == "densenet121":  # whose file names its layers as torchvision did in 2017
        state = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", k): v for k, v in state.items()}
        assert "features.denseblock1.denselayer1.norm.1.weight" in state
    source, path = _published(source, cache, state)
    assert find_weights(source, store) == path
    images = torch.from_numpy(blobs(4, size=64).images.array)
    mean, sd, _ = (torch.tensor(p).reshape(-1, 1, 1) for p in training.PREPROCESSING["imagenet"])
    layers = [m for m in theirs.modules() if isinstance(m, torch.nn.Linear)]
    seen = []  # what their first linear layer behind the features is given
    first = theirs.classifier[0] if source.network.startswith("mobilenet_v3") else layers[-1]
    first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        theirs((images / 255 - mean) / sd)
        found = frozen(replace(source, objective="none"), path, 3, 64, "cpu").eval()(images)  # in single precision
    torch.testing.assert_close(found, seen[0], rtol=1e-3, atol=1e-4 * float(seen[0].abs().max()))


def test_torchvisions_weights_are_fetched_when_asked_for_and_only_with_their_hash(cache, store, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("nothing is read while it is fetched"))
    source, published = _published(TORCHVISION[0], tmp_path / "web", {"x": torch.zeros(3)})
    monkeypatch.setattr("metamed.sources._torchvision_url", lambda source: published.as_uri())
    with pytest.raises(MetamedError, match="--download fetches file:"):
        find_weights(source, store)
    with pytest.raises(MetamedError, match="invalid hash value"):
        find_weights(replace(source, sha256="0" * 8), store, download=True)
    assert not list(cache.iterdir())
    path = find_weights(source, store, download=True)
    assert path.parent == cache and path.read_bytes() == published.read_bytes()
    published.unlink()
    assert find_weights(source, store) == find_weights(source, store, download=True) == path
    with pytest.raises(MetamedError, match="No such file"):
        find_weights(replace(source, sha256="0" * 8), store, download=True)


def test_weights_that_torchvision_does_not_publish_are_refused(cache, store):
    with pytest.raises(MetamedError, match="torchvision has no resnet18 with the weights of 'x'"):
        find_weights(Source("x", "resnet18", "supervised", (), "imagenet", "0" * 8, "", "torchvision"), store)


class _Trap:
    def __reduce__(self):
        return Path.touch, (Path("sprung"),)


def test_nothing_in_a_file_of_weights_is_executed(cache, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source, path = _published(TORCHVISION[0], cache, {"features.0.0.weight": _Trap()})
    with pytest.raises(MetamedError, match="not read: it holds more than tensors"):
        encode(blobs(4), source, path, 32, "cpu")
    assert not Path("sprung").exists()


# ---- variants


def test_variants_change_what_they_say_and_nothing_else():
    from benchmarks.variants import varied

    data = blobs(channels=3, classes=3)
    mixed, plain, two = (varied(data, name) for name in ("shuffled", "grey", "two"))
    assert mixed.name == "blobs.shuffled" and mixed.family == "blobs"
    assert (mixed.target != data.target).any() and sorted(mixed.target) == sorted(data.target)
    assert plain.images.shape == (60, 1, 16, 16) and (plain.target == data.target).all()
    assert set(two.target) == {0, 1} and two.n_classes == 2 and len(two.images) == 40


def test_one_scale_for_all_features_keeps_rare_ones_quiet():
    """A feature that is active in one training image of forty must not outweigh the ones that tell the classes."""
    rng = np.random.default_rng(0)
    target = np.arange(400) % 2
    x = np.concatenate([target[:, None] + rng.normal(0, 0.5, (400, 1)), 0.05 * (rng.random((400, 200)) < 0.03)], axis=1)
    correct = {}
    for scaling in ("each", "all"):
        probe = get_method("probe.linear").build(Shape(201, (8, 8), 2), scaling=scaling).fit(x[:40], target[:40])
        correct[scaling] = float((probe.predict(x[40:]).argmax(axis=1) == target[40:]).mean())
    assert correct["all"] > correct["each"] + 0.1
