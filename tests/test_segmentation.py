"""Segmentation from end to end: networks, losses, patches, tiles, tasks, runs."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import scenes

from metamed.dataset import ArrayImages, Dataset
from metamed.ensembles import ensemble
from metamed.errors import MetamedError, NotApplicable, ReadError
from metamed.experiments import run_setup
from metamed.flows.segmentation.landmarks import otsu, pixel_features
from metamed.flows.segmentation.parts import ENCODERS, pyramid, seeing
from metamed.jobs import settings_of
from metamed.methods import METHODS, Shape, get_method, methods
from metamed.readers import read
from metamed.records import Setup
from metamed.sources import as_source, random_source
from metamed.store import Store
from metamed.store.scores import trained_with
from metamed.tasks import make_task
from metamed.training import Model
from metamed.training.images import load_masks, native_images
from metamed.training.segmentation import DEFAULTS, LOSSES, cut, padded, tversky, weights_of
from metamed.training.tiles import MaskAnswer, enlarged, in_tiles, segment

METHOD_NAMES = sorted(methods("segmentation"))
DISTANCES = ("hd95", "surface_distance")
QUICK = {"epochs": 6, "width": 8, "depth": 2, "learning_rate": 0.01}


# ---- networks


@pytest.mark.parametrize("name", METHOD_NAMES)
@pytest.mark.parametrize("size", [(8, 8), (33, 20)])
def test_contract_of_segmenters(name, size):
    torch.manual_seed(0)
    net = get_method(name).build(Shape(3, size, 3))
    images, masks = torch.rand(4, 3, *size), torch.randint(0, 3, (4, *size))
    if METHODS[name].estimator:
        net.fit(images, masks)
        assert net(images).shape == (4, 3, *size) and torch.isfinite(net(images)).all()
        again = get_method(name).build(Shape(3, size, 3))
        again.load_state_dict(net.state_dict())
        assert torch.equal(again(images), net(images)), "all that was learned lies in its tensors"
        return
    assert net(images).shape == (4, 3, *size)
    net.eval()  # without dropout and the batch's own statistics a step can but help
    optimiser, losses = torch.optim.SGD(net.parameters(), lr=0.01), []
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(net(images), masks)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[2] < losses[1] < losses[0]


@pytest.mark.parametrize("network", ["small_cnn_16x3", "resnet18", "mobilenet_v3_small", "densenet121"])
def test_an_encoders_maps_halve_and_dilation_keeps_its_weights(network):
    encoder, channels = seeing(Shape(3, (64, 64), 2), network)
    maps = pyramid(encoder.eval(), torch.rand(1, 3, 64, 64))
    sides = [m.shape[-1] for m in maps]
    assert [m.shape[1] for m in maps] == channels and sides == [64 >> level for level in range(len(sides))]
    if network.startswith(("resnet", "mobile", "efficient")):
        dilated, _ = seeing(Shape(3, (64, 64), 2), network, 8)
        dilated.load_state_dict(encoder.state_dict())
        assert pyramid(dilated.eval(), torch.rand(1, 3, 64, 64))[-1].shape[-1] == 8
    assert network in ENCODERS


def test_every_recipe_for_one_source_finds_encoder_and_head():
    for name in ("finetune", "freeze", "gradual", "discriminative"):
        net = get_method("unet_encoder").build(Shape(3, (32, 32), 2))
        plan = get_method(name).build(net, ("source",), Shape(3, (32, 32), 2))
        trained = {id(p) for group, _, _ in plan.groups for p in group}
        assert {id(p) for p in net.head.parameters()} <= trained


def test_otsu_finds_the_gap_and_features_know_the_place():
    grey = torch.cat([torch.full((1, 4, 8), 0.2), torch.full((1, 4, 8), 0.8)], dim=1) + torch.rand(1, 8, 8) / 50
    assert torch.equal(grey > otsu(grey), grey > 0.5)
    features = pixel_features(torch.rand(2, 3, 16, 12))
    assert features.shape == (2, 3 + 4 * 4 + 2, 16, 12)
    assert features[0, -2, 0, 0] == -1 and features[0, -1, 0, -1] == 1


# ---- losses and patches


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_loss_is_least_for_the_truth(name):
    target = torch.from_numpy(scenes(4).masks).long()
    right = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float()
    values = [float(LOSSES[name](right * sure, target, torch.ones(3))) for sure in (30.0, 3.0, 0.0, -3.0)]
    assert values == sorted(values) and values[0] == pytest.approx(0, abs=1e-3)


def test_dice_is_tversky_with_both_errors_alike_and_monai_agrees():
    losses = pytest.importorskip("monai.losses")
    target = torch.from_numpy(scenes(4).masks).long()
    logits = torch.randn(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    same = {"include_background": False, "to_onehot_y": True, "softmax": True, "batch": True}
    theirs = losses.DiceLoss(**same, smooth_nr=2, smooth_dr=2)(logits, target[:, None])
    assert float(LOSSES["dice"](logits, target, torch.ones(3))) == pytest.approx(float(theirs), abs=1e-5)
    theirs = losses.TverskyLoss(**same, alpha=0.3, beta=0.7, smooth_nr=1, smooth_dr=1)(logits, target[:, None])
    assert float(tversky(logits, target, torch.ones(3))) == pytest.approx(float(theirs), abs=1e-5)


def test_rare_classes_weigh_more():
    masks = np.repeat([0, 1], [90, 10]).reshape(1, 10, 10)
    weights = weights_of(masks, 3, "balanced")
    assert weights[1] / weights[0] == pytest.approx(3) and weights[2] == weights[1]
    assert weights.mean() == pytest.approx(1)
    assert weights_of(masks, 2, "none").tolist() == [1, 1]


def test_patches_of_image_and_mask_lie_at_the_same_place():
    masks = torch.arange(2 * 20 * 30).reshape(2, 20, 30)
    images, generator = masks[:, None].float(), torch.Generator().manual_seed(0)
    for _ in range(20):
        x, y = cut(images, masks, 8, generator)
        assert x.shape == (2, 1, 8, 8) and torch.equal(x[:, 0].long(), y)
    assert padded(np.zeros((2, 1, 5, 30)), 8).shape == (2, 1, 8, 30)


# ---- from probabilities to masks


class Threshold(torch.nn.Module):
    """Two classes by the first channel alone: what it says of a pixel does not depend on the tile."""

    def forward(self, x):
        return torch.cat([-x[:, :1], x[:, :1]], dim=1)


def _answer(**options) -> MaskAnswer:
    return MaskAnswer(Model(Threshold(), [0.5] * 3, [0.05] * 3), **options)


@pytest.mark.parametrize("size", [(16, 16), (7, 90), (40, 23), (64, 65), (5, 6)])
def test_tiles_cover_every_pixel_once_and_agree_with_the_whole(size):
    image = np.random.default_rng(0).integers(0, 256, (3, *size)).astype(np.uint8)
    assert np.array_equal(in_tiles(_answer(), image, 16), image[0] > 127)


def test_an_enlarged_answer_is_torchs():
    p = torch.rand(3, 9, 7, generator=torch.Generator().manual_seed(0))
    out = np.empty((100, 33), np.uint8)
    enlarged(p.numpy(), out)
    expected = torch.nn.functional.interpolate(p[None], (100, 33), mode="bilinear", align_corners=False)[0].argmax(0)
    assert (out == expected.numpy()).mean() > 0.999


@pytest.mark.parametrize("view", ["whole", "patch"])
def test_flips_are_turned_back(view):
    images = ArrayImages(np.random.default_rng(0).integers(0, 256, (3, 3, 16, 16)).astype(np.uint8))
    said = segment(_answer(flips=True), images, [2, 0], 16, view)
    assert np.array_equal(said, images.array[[2, 0], 0] > 127)


def test_memory_does_not_grow_with_the_image():
    """The peak beside image and mask for 16 times as many pixels: tiles joined by rows, not all at once."""
    import tracemalloc

    peaks = []
    for side in (512, 2048):
        image = np.zeros((3, side, side), np.uint8)
        tracemalloc.start()
        in_tiles(_answer(), image, 64)
        peaks.append(tracemalloc.get_traced_memory()[1] - side * side)
        tracemalloc.stop()
    assert peaks[1] < 4.5 * peaks[0] and peaks[1] < 8 * 2**20, "one row of tiles: grows with the width alone"


def test_masks_shrink_to_the_class_at_each_centre():
    masks = scenes(3).masks
    small = load_masks(masks, [2, 0], 12)
    assert small.shape == (2, 12, 12) and np.array_equal(small[0], masks[2, 1::2, 1::2])
    floats = ArrayImages(np.linspace(-4, 8, 2 * 16).reshape(2, 1, 4, 4).astype(np.float64))
    native = native_images(floats, np.array([0, 1]))
    assert native.dtype == np.float32 and native.min() == 0 and native.max() == 1


# ---- tasks and runs


def test_groups_stay_together_and_classes_are_spread():
    data = scenes(40)
    data.masks[:10][data.masks[:10] == 2] = 0
    task = make_task(data)
    split = task.folds[0]
    sides = [set(data.groups[list(part)]) for part in (split.train, split.validation, split.test)]
    assert task.measure == "dice" and not (sides[0] & sides[2] or sides[0] & sides[1] or sides[1] & sides[2])
    assert all((data.masks[list(part)] == 2).any() for part in (split.train, split.validation, split.test))


def _with(data: Dataset, masks) -> Dataset:
    return Dataset(data.name, data.images, masks=masks, card=data.card)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda m: np.zeros_like(m), "scenes: all 30 masks are empty: there is nothing to find in them"),
        (lambda m: m + 2 * (m == 2), "scenes: mask 0 holds the value 4, but its classes are 0 to 2"),
        (lambda m: m.astype(int) - 1, "scenes: mask 0 holds the value -1"),
        (lambda m: m[:, :20], "scenes: mask 0 is 20x24, its image 24x24. Bring both to one size"),
    ],
)
def test_wrong_masks_are_refused_in_one_line(spoil, message):
    data = scenes()
    with pytest.raises(NotApplicable) as caught:
        make_task(_with(data, spoil(data.masks)))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_value_that_no_class_name_stands_for_is_told_when_it_is_read(tmp_path):
    data = scenes()
    wrong = data.masks.copy()
    wrong[3, 4, 5] = 9
    for name, masks in (("right", data.masks), ("wrong", wrong)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["images"], file["masks"], file.attrs["classes"] = data.images.array, masks, data.card.classes
    assert read(tmp_path / "right.h5").n_classes == 3
    with pytest.raises(ReadError, match="masks hold 0, 1, 2, 9, but the classes are background, disc, bar"):
        read(tmp_path / "wrong.h5")


def test_other_masks_are_other_data():
    data = scenes()
    assert data.digest != _with(data, np.where(data.masks == 2, 1, data.masks)).digest
    assert data.digest == _with(data, list(data.masks.astype(np.int64))).digest


@pytest.mark.parametrize(
    "setup",
    [
        Setup("unet", QUICK),
        Setup("unet", {**QUICK, "view": "patch", "image_size": 28, "test_flips": True}),
        Setup("otsu_position"),
        Setup("pixel_forest", {"trees": 16}),
    ],
    ids=lambda s: s.label[:30],
)
def test_a_run_keeps_masks_at_the_images_size_and_scores_of_classes(setup):
    data, store = scenes(), Store.memory()
    run = run_setup(setup, make_task(data), data, store, device="cpu", threads=1)
    assert run.error is None, run.error
    assert {"dice", "dice.1", "dice.2", "hd95", "validation_dice"} <= set(run.evaluations)
    with np.load(store.artifact(run, "predictions.npz")) as kept:
        assert kept["test"].dtype == np.uint8 and kept["test"].shape[1:] == (24, 24)
    assert run.score("dice") > (0.25 if setup.method == "otsu_position" else 0.5)


def test_a_source_gives_its_encoder_and_a_wrong_recipe_is_told():
    data, store = scenes(), Store.memory()
    source = random_source("small_cnn_32x3", 0)
    store.add(source)
    setup = Setup("unet_encoder", {"network": "small_cnn_32x3", "epochs": 1}, "freeze", (source.name,))
    task = make_task(data)
    run = run_setup(setup, task, data, store, device="cpu")
    assert run.error is None and run.weights == (source.sha256,)
    with pytest.raises(NotApplicable, match="unet has no encoder"):
        run_setup(Setup("unet", {}, "finetune", (source.name,)), task, data, store)


def test_a_segmenter_with_an_encoder_becomes_a_source_and_one_without_is_told():
    data, store = scenes(20), Store.memory()
    store.add(random_source("small_cnn_16x2", 0))
    setup = Setup("unet_encoder", {"network": "small_cnn_16x2", "epochs": 1}, "finetune", ("random0.small_cnn_16x2",))
    task, kept = make_task(data), {"device": "cpu", "keep_weights": True}
    source = as_source(run_setup(setup, task, data, store, **kept), "scenes.unet_encoder", store)
    assert source.network == "small_cnn_16x2" and source.corpus == ("scenes",)
    again = Setup("unet_encoder", {"network": "small_cnn_16x2", "epochs": 1}, "freeze", (source.name,))
    assert run_setup(again, task, data, store, device="cpu").error is None
    with pytest.raises(MetamedError, match="otsu_position has no encoder"):
        as_source(run_setup(Setup("otsu_position"), task, data, store, **kept), "none", store)


def test_robustness_is_measured_on_masks_too():
    data = scenes()
    run = run_setup(Setup("otsu_position"), make_task(data), data, Store.memory(), robust=True)
    assert {"dice@noise", "dice@blur", "dice@mark"} <= set(run.evaluations)


def test_distances_of_a_run_are_in_millimetres_where_the_spacing_is_known():
    data, found = scenes(), []
    for spacing in ((), (2.0, 2.0)):
        of = replace(data, card=replace(data.card, spacing=spacing))
        task = make_task(of, measure="hd95")
        found.append(run_setup(Setup("otsu_position"), task, of, Store.memory(), robust=True))
    pixels, mm = found
    assert (pixels.environment["distances"], mm.environment["distances"]) == ("pixels", "mm, pixels of 2 x 2")
    for name, value in pixels.evaluations.items():
        factor = 2 if name.split(".")[0].split("@")[0].removeprefix("validation_") in DISTANCES else 1
        assert mm.evaluations[name] == pytest.approx([factor * v for v in value]), name
    assert pixels.score("hd95@noise") > 0 and pixels.score("validation_hd95") > 0 and pixels.score("hd95") > 0


def test_volumes_are_segmented_by_their_slices():
    flat = scenes(12)
    stacked = ArrayImages(np.stack([flat.images.array] * 3, axis=2))
    data = Dataset("volumes", stacked, masks=np.stack([flat.masks] * 3, axis=1), card=flat.card)
    with pytest.raises(NotApplicable, match="volumes: .* slice by slice"):
        run_setup(Setup("otsu_position"), make_task(data), data, Store.memory(), device="cpu")


def test_stored_masks_are_joined_by_a_vote():
    data, store = scenes(), Store.memory()
    task = make_task(data)
    setups = (Setup("otsu_position"), Setup("pixel_forest", {"trees": 16}))
    found = ensemble([run_setup(setup, task, data, store) for setup in setups], data, store)
    assert found.measure == "dice" and 0 < found.test <= 1 and sum(found.weights.values()) == pytest.approx(1)


def test_what_training_adds_to_a_method_is_known_without_torch():
    for method in methods().values():
        if method.kind != "transfer":
            assert set(trained_with(method)) == set(settings_of(Setup(method.name), method)[0]), method.name


def test_parameters_of_training_and_of_methods_have_different_names():
    names = set(DEFAULTS)
    assert not [name for name in METHOD_NAMES if names & set(METHODS[name].space)]
    assert not [name for name, m in methods("transfer").items() if names & set(m.space)]


def test_a_bare_machine_can_segment():
    """GPU nodes have the standard library, numpy, h5py, torch, torchvision and PIL."""
    code = """
import sys
absent = ('pandas', 'platformdirs', 'sklearn', 'scipy', 'skimage', 'safetensors', 'monai', 'optuna', 'xgboost',
          'openml', 'typer', 'rich', 'matplotlib')
sys.modules.update(dict.fromkeys(absent))  # to import one is an error
sys.path.insert(0, 'tests')
from conftest import scenes
from metamed.experiments import run_setup
from metamed.records import Setup
from metamed.store import Store
from metamed.tasks import make_task
data = scenes(12)
for setup in (Setup('unet', {'epochs': 1, 'width': 8, 'depth': 1}), Setup('otsu_position')):
    run = run_setup(setup, make_task(data), data, Store.memory(), device='cpu', threads=1)
    assert run.error is None and run.score('hd95') >= 0, run.error
"""
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
