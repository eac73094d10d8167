"""The networks of bags against torchmil's: the same weights, the same answers. Skips without the extra `mil`."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from metamed.flows.mil import bagnet, transmil
from metamed.methods import Shape, get_method

torchmil = pytest.importorskip("torchmil.models", reason="torchmil is not here: pip install metamed[mil]")

WIDTH, FEATURES = 32, 12


def ours(name: str, **hyperparameters) -> bagnet.Head:
    torch.manual_seed(0)
    return get_method(name).build(Shape(FEATURES, (), 2), width=WIDTH, **hyperparameters).eval().head


def bags(sizes=(7, 3, 5)) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(len(sizes), max(sizes), FEATURES), torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]


def copy(target: torch.nn.Module, source: torch.nn.Module) -> None:
    target.load_state_dict(source.state_dict())


def attention_as_theirs(pool, attention) -> None:
    copy(pool.fc1.module, attention.look)
    copy(pool.fc2, attention.weigh)
    if attention.gate is not None:
        copy(pool.fc_gated.module, attention.gate)


@pytest.mark.parametrize("name", ["attention", "gated", "clam"])
@torch.no_grad()
def test_attention_is_that_of_torchmil(name):
    head = ours("attention", gated=name == "gated") if name != "clam" else ours("clam")
    gated = name != "attention"
    build = torchmil.CLAM_SB if name == "clam" else torchmil.ABMIL
    theirs = build(in_shape=(FEATURES,), att_dim=WIDTH // 2, gated=gated, feat_ext=head.embed).eval()
    attention_as_theirs(theirs.pool, head.attention)
    copy(theirs.classifier.module, head.classify)
    x, mask = bags()
    logit, attention = theirs(x, mask, return_att=True)
    assert torch.allclose(head(x, mask)[:, 1], logit, atol=1e-5) and (head(x, mask)[:, 0] == 0).all()
    assert torch.allclose(head.scores(x, mask)[mask], attention[mask], atol=1e-5)


def dsmil():
    head = ours("dsmil")
    theirs = torchmil.DSMIL(in_shape=(FEATURES,), att_dim=WIDTH // 2, feat_ext=head.embed).eval()
    for target, source in ((theirs.inst_classifier, head.classify), (theirs.q_nn, head.query),
                           (theirs.bag_classifier, head.conclude)):  # fmt: skip
        copy(target, source)
    return head, theirs


@torch.no_grad()
def test_dsmil_is_that_of_torchmil():
    head, theirs = dsmil()
    for x in torch.randn(4, 1, 9, FEATURES):  # bag by bag: theirs takes its critical instance from the padding, too
        logit, each = theirs.predict(x, return_inst_pred=True)
        assert torch.allclose(head(x)[:, 1], logit, atol=1e-5)
        assert torch.allclose(head.scores(x), each, atol=1e-5)


def test_dsmil_lowers_the_same_loss():
    head, theirs = dsmil()
    x, y = torch.randn(5, 6, FEATURES), torch.tensor([0, 1, 1, 0, 1])
    _, parts = theirs.compute_loss(y, x)
    assert 2 * head.objective(x, None, y, F.cross_entropy).item() == pytest.approx(sum(parts.values()).item(), abs=1e-5)


@pytest.mark.parametrize("size", [16 * transmil.EXACT + 1, 190, 256])
@torch.no_grad()
def test_transmil_is_that_of_torchmil_on_bags_that_are_too_large_for_exact_attention(size):
    head = ours("transmil", heads=4)
    theirs = torchmil.TransMIL(
        in_shape=(FEATURES,), att_dim=WIDTH, n_heads=4, n_landmarks=WIDTH // 2, feat_ext=head.embed
    ).eval()
    for layer, own in zip(theirs.layers, (head.first, head.second), strict=True):
        copy(layer.norm1, own.norm)
        copy(layer.att_module.qkv_nn, own.attend.qkv)
    for target, own in zip(("proj", "proj1", "proj2"), head.positions.convolve, strict=True):
        copy(getattr(theirs.pos_layer, target), own)
    copy(theirs.norm, head.norm)
    copy(theirs.classifier, head.classify)
    theirs.cls_token.data.copy_(head.token[None])
    x, _ = bags((size,))
    logit, attention = theirs(x, return_att=True)
    assert torch.allclose(head(x)[:, 1], logit, atol=1e-4)
    assert torch.allclose(head.scores(x), attention, atol=1e-4)


@pytest.mark.parametrize(("how", "name"), [("mean", "MeanPool"), ("max", "MaxPool")])
def test_pooling_is_that_of_torchmil(how, name):
    import torchmil.nn

    x, mask = bags()
    theirs = getattr(torchmil.nn, name)()(x, mask)
    assert np.allclose(bagnet.POOLINGS[how](x, mask), theirs, atol=1e-5)
