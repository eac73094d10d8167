"""Every architecture by name: what it takes, in which order its stages are, and that it stays what it is."""

import pytest
import torch

from metamed.errors import UnknownName
from metamed.flows.blocks import encoder
from metamed.flows.networks import NETWORKS, VisionTransformer
from metamed.methods import Shape, get_method

SOME = [n for n in sorted(NETWORKS) if not n.startswith(("small_cnn", "vit"))] + ["small_cnn_16x5", "vit_tiny_p8"]


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_colour_tiny_and_small(name, channels):
    torch.manual_seed(0)
    net = encoder(Shape(channels, (28, 28), 2), name).eval()
    with torch.no_grad():
        for height, width in ((28, 28), (64, 64), (40, 28)):
            features = net(torch.rand(2, channels, height, width))
            assert features.shape == (2, net.n_features) and features.isfinite().all()
            assert not torch.equal(features[0], features[1])


@pytest.mark.parametrize("name", SOME)
def test_stages_come_in_the_order_of_the_data_and_levels_hold_every_parameter_once(name):
    net, seen = encoder(Shape(3, (32, 32), 2), name).eval(), []
    for number, stage in enumerate(net.stages):
        for module in stage.modules():
            if list(module.parameters(recurse=False)):
                module.register_forward_hook(lambda *_, number=number: seen.append(number))
    with torch.no_grad():
        net(torch.rand(1, 3, 32, 32))
    assert seen == sorted(seen) and set(seen) == set(range(len(net.stages)))
    held = [id(p) for level in net.levels for p in level]
    assert len(held) == len(set(held)) and set(held) == {id(p) for p in net.parameters()}


# Mean absolute feature of noise (seed 0, 64 px) by version 1 of the methods: raise their version before changing one.
KEPT = {
    "convnext_tiny": 0.80519, "densenet121": 0.25332, "efficientnet_b0": 6.4424e-15, "mobilenet_v2": 2.2688e-10,
    "mobilenet_v3_large": 9.595e-10, "mobilenet_v3_small": 2.2713e-09, "resnet18": 0.39981, "resnet50": 5.5432,
    "small_cnn_16x5": 0.010159, "vit_tiny_p8": 0.79404,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(KEPT))
def test_networks_move_only_with_a_new_version(name):
    torch.manual_seed(0)
    net = encoder(Shape(3, (64, 64), 2), name).eval()
    with torch.no_grad():
        assert float(net(torch.rand(2, 3, 64, 64)).abs().mean()) == pytest.approx(KEPT[name], rel=1e-3, abs=0)


def test_weights_for_grey_images_have_one_channel():
    assert next(encoder(Shape(1, (28, 28), 2), "densenet121").parameters()).shape[1] == 1


@pytest.mark.parametrize(("side", "patch"), [(28, 4), (48, 8), (64, 8), (128, 16), (224, 16)])
def test_patches_grow_with_the_images(side, patch):
    assert get_method("vit").build(Shape(3, (side, side), 2)).encoder.name == f"vit_tiny_p{patch}"
    assert get_method("vit").build(Shape(3, (side, side), 2), variant="small").encoder.n_features == 384


def test_a_vision_transformer_is_torchvisions_at_its_own_size():
    from torchvision import models

    torch.manual_seed(0)
    ours = VisionTransformer(64, 8, 2, 3, 192, 384).eval()
    theirs = models.VisionTransformer(64, 8, 2, 3, 192, 384).eval()
    theirs.heads = ours.heads = torch.nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(ours(images), theirs(images), atol=1e-5)
        assert ours(torch.rand(2, 3, 50, 70)).shape == (2, 192)


def test_a_network_that_is_not_known_offers_the_nearest():
    with pytest.raises(UnknownName, match="did you mean densenet121"):
        encoder(Shape(3, (32, 32), 2), "densenet21")
