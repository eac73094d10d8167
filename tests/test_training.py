import numpy as np
import pytest
import torch

from metamed import training
from metamed.dataset import ArrayImages
from metamed.errors import MetamedError
from metamed.methods import Plan, Shape, get_method


def small(classes=2):
    return get_method("small_cnn").build(Shape(3, (16, 16), classes), width=16, depth=2)


def plan(net):
    return Plan(net, ((list(net.parameters()), 1.0, 0),))


def learn(data, *, seed=0, **changes):
    training.seed_everything(seed)
    x, y = data.images.array, data.target
    setting = training.DEFAULTS | {"epochs": 6, "learning_rate": 0.01, "augment": "none"} | changes
    return training.fit(plan(small()), x[:40], y[:40], (x[40:], y[40:]), setting=setting, seed=seed, precision="fp32")


def test_learns_what_can_be_learned(classification_data):
    fitted = learn(classification_data, epochs=30, batch_size=8)
    answer = training.logits_of(fitted.model, classification_data.images.array[40:]).argmax(1)
    assert (answer == classification_data.target[40:]).mean() > 0.9


def test_same_seed_same_network(classification_data):
    a, b, other = learn(classification_data), learn(classification_data), learn(classification_data, seed=1)
    assert a.losses == b.losses != other.losses
    for p, q in zip(a.model.parameters(), b.model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_the_loop_moves_only_with_a_new_version(classification_data):
    """Kept output of version 1 of `training` and of `small_cnn`: raise their version before changing these numbers."""
    assert training.VERSION == get_method("small_cnn").version == 1
    assert learn(classification_data, epochs=2).losses == pytest.approx(KEPT, rel=2e-2)


KEPT = (0.683325, 0.672092)


def test_the_best_epoch_is_kept(classification_data):
    fitted = learn(classification_data, epochs=10)
    x, y = classification_data.images.array[40:], classification_data.target[40:]
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(training.logits_of(fitted.model, x)), torch.from_numpy(y))
    assert float(loss) == pytest.approx(min(fitted.losses), rel=1e-4)


def test_divergence_is_an_error(classification_data):
    data = classification_data
    broken = small()
    with torch.no_grad():
        broken.head.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="diverged"):
        training.fit(plan(broken), data.images.array, data.target, (data.images.array, data.target),
                     setting=training.DEFAULTS | {"epochs": 1}, precision="fp32")  # fmt: skip


def test_frozen_parts_do_not_move(classification_data):
    data, net = classification_data, get_method("mobilenet").build(Shape(3, (16, 16), 2))
    recipe = get_method("freeze").build(net, ("s",), Shape(3, (16, 16), 2), unfrozen=1)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    training.fit(recipe, data.images.array, data.target, (data.images.array, data.target),
                 setting=training.DEFAULTS | {"epochs": 1}, precision="fp32")  # fmt: skip
    last = f"encoder.net.features.{len(net.encoder.stages) - 1}."
    for name, value in net.state_dict().items():
        moved = not torch.equal(value, before[name])
        assert moved == name.startswith((last, "head.")) or "num_batches" in name, name


def test_grey_and_colour_fit_one_network():
    model = training.Model(small(), (0.5,) * 3, (0.5,) * 3)
    grey = torch.randint(0, 255, (2, 1, 16, 16), dtype=torch.uint8)
    model.eval()
    assert torch.allclose(model(grey), model(grey.expand(-1, 3, -1, -1)))
    assert torch.allclose(model(grey), model(grey.float() / 255), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_images_come_out_in_unit_range_whatever_their_type(dtype):
    levels = np.linspace(0, np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1, 64).astype(dtype)
    images = ArrayImages(np.broadcast_to(levels.reshape(1, 1, 8, 8), (5, 1, 8, 8)).copy())
    out = training.load_images(images, np.array([3, 0]), 8).astype(float)
    out = out / 255 if dtype == np.uint8 else out
    assert out.shape == (2, 1, 8, 8) and out.min() == 0 and out.max() == pytest.approx(1)
    assert np.allclose(out[0, 0], np.linspace(0, 1, 64).reshape(8, 8), atol=1 / 255)


def test_large_sets_go_to_a_file(monkeypatch):
    monkeypatch.setattr(training.images, "MEMORY_LIMIT", 100)
    images = ArrayImages(np.arange(5 * 64, dtype=np.uint8).reshape(5, 1, 8, 8))
    out = training.load_images(images, np.arange(5), 8)
    assert isinstance(out, np.memmap) and (out == images.array).all()


def test_tensorflow_padding_puts_the_odd_pixel_last():
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3, stride=2, padding=1, bias=False))
    torch.nn.init.ones_(net[0].weight)
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    training.pad_as_tensorflow(net)
    assert net(image)[0, 0].tolist() == [[45.0, 39.0], [66.0, 50.0]]


def test_weights_survive_the_file(tmp_path):
    model = training.Model(small(), (0.1, 0.2, 0.3), (1, 1, 1))
    path = tmp_path / "w.safetensors"
    path.write_bytes(training.weights_bytes(model))
    state = training.read_weights(path)
    assert set(state) == set(training.weights._read_safetensors(path))
    assert all(torch.equal(v, training.weights._read_safetensors(path)[k]) for k, v in state.items())
    fresh = small()
    training.load_encoder(fresh.encoder, state, name="s")
    assert torch.equal(fresh.encoder.net[0][0].weight, model.net.encoder.net[0][0].weight)
    assert training.preprocessing_of("own", state)[0].flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_weights_of_another_network_are_refused():
    with pytest.raises(MetamedError, match="do not fit resnet18"):
        training.load_encoder(get_method("resnet").build(Shape(3, (32, 32), 2)).encoder, {}, name="s")


def test_a_missing_gpu_is_said():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(MetamedError, match="--device cpu"):
        training.pick_device("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_trains_on_a_gpu(classification_data):
    data = classification_data
    fitted = training.fit(plan(small()), data.images.array, data.target, (data.images.array, data.target),
                          setting=training.DEFAULTS | {"epochs": 3}, device="cuda")  # fmt: skip
    assert fitted.precision == "bf16"
