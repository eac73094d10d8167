import re
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest

import metamed
from metamed.errors import MetamedError, NotApplicable, UnknownName
from metamed.methods import (
    Choice,
    Float,
    Int,
    checked,
    describe,
    described,
    get_method,
    methods,
    parameters,
    sample_setups,
)
from metamed.records import Setup

SHIPPED = Path(metamed.__file__).parent / "data" / "methods.json"


def test_public_functions_win_over_their_rooms():
    import metamed.recommend  # noqa: F401

    assert callable(metamed.methods) and callable(metamed.recommend)


def test_domains_hold_what_they_sample():
    import random

    rng = random.Random(0)
    for domain in (Float(0.1, 10), Float(1e-5, 1, log=True), Int(2, 5), Choice("a", 1, None, False)):
        assert all(domain.sample(rng) in domain for _ in range(200))
    assert 6 not in Int(2, 5) and True not in Int(0, 1) and 1 not in Choice(True)


def test_the_signature_is_the_space():
    def build(shape, *, width: Annotated[int, Choice(8, 16)] = 8, rate: Annotated[float, Float(0, 1)] = 0.5):
        """A."""

    space, defaults = parameters(build)
    assert space == {"width": Choice(8, 16), "rate": Float(0, 1)} and defaults == {"width": 8, "rate": 0.5}


def test_a_default_outside_its_domain_is_refused():
    def build(shape, *, width: Annotated[int, Choice(8, 16)] = 9):
        """A."""

    with pytest.raises(TypeError, match="width"):
        parameters(build)


def test_the_file_that_ships_equals_the_registry():
    assert SHIPPED.read_text(encoding="utf-8") == describe(), "run: python -m benchmarks.describe_methods"
    for name, method in described().items():
        assert method.space == get_method(name).space and method.version == get_method(name).version


def test_unknown_method_offers_the_nearest():
    with pytest.raises(UnknownName, match="did you mean resnet"):
        get_method("resnt")


def test_checked_drops_defaults_and_refuses_nonsense():
    space, defaults = {"epochs": Int(1, 100)}, {"epochs": 15}
    setup = checked(Setup("resnet", {"depth": 18, "epochs": 20, "dropout": 0.1}), space, defaults)
    assert setup.hyperparameters == {"epochs": 20, "dropout": 0.1}
    with pytest.raises(MetamedError, match="depth=34 is outside"):
        checked(Setup("resnet", {"depth": 34}), space, defaults)
    with pytest.raises(UnknownName, match="did you mean depth"):
        checked(Setup("resnet", {"dept": 18}), space, defaults)
    with pytest.raises(UnknownName, match="finetune"):
        checked(Setup("resnet", {}, "fine-tune", ("a",)), space, defaults)


@pytest.mark.parametrize("name", sorted(methods()))
def test_sampled_setups_lie_in_the_space(name):
    first, again = sample_setups(name, 20, seed=1), sample_setups(name, 20, seed=1)
    assert first == again
    for setup in first:
        checked(setup, {}, {})


@pytest.mark.parametrize("name", sorted(methods()))
def test_contract_of_every_method(name):
    from metamed import training
    from metamed.jobs import way_of

    method = get_method(name)
    assert method.description and method.version >= 1
    assert all(re.fullmatch(r"[A-Za-z0-9_.]+", parameter) for parameter in method.space), "legal on OpenML"
    added = training.SPACE if method.kind == "transfer" else way_of(method.kind).space
    assert not set(method.space) & set(added), "one flat namespace"
    assert method.build.__module__.split(".")[2] == method.kind, "the folder is the kind"


@pytest.mark.parametrize("name", [n for n, m in methods("classification").items() if not n.startswith("probe.")])
@pytest.mark.parametrize("side", [8, 33])
def test_contract_of_classifiers(name, side):
    import torch

    from metamed.methods import Shape

    torch.manual_seed(0)
    net = get_method(name).build(Shape(3, (side, side), 4))
    images, target = torch.rand(6, 3, side, side), torch.tensor([0, 1, 2, 3, 0, 1])
    assert net(images).shape == (6, 4) and net.encoder(images).shape == (6, net.encoder.n_features)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.001)
    losses = []
    for _ in range(4):
        loss = torch.nn.functional.cross_entropy(net(images), target)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert min(losses[1:]) < losses[0]


@pytest.mark.parametrize("name", [n for n in methods("classification") if n.startswith("probe.")])
def test_contract_of_probes(name):
    from metamed.methods import Shape

    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    x = rng.normal(size=(40, 5)) + 3 * y[:, None]
    answer = get_method(name).build(Shape(5, (), 3)).fit(x, y).predict(x)
    assert answer.shape == (40, 3) and (answer.argmax(1) == y).all() and np.isfinite(answer).all()
    assert np.exp(answer).sum(1) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", [n for n in methods("classification") if n.startswith("probe.")])
def test_probes_take_several_labels(name):
    from metamed.methods import Shape

    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (80, 3))
    x = rng.normal(size=(80, 5)) + 6 * np.pad(y, ((0, 0), (0, 2)))
    answer = np.exp(get_method(name).build(Shape(5, (), 3)).fit(x, y).predict(x))
    assert answer.shape == (80, 3) and ((answer > 0.5) == y).mean() > 0.9


@pytest.mark.parametrize("name", [n for n, m in methods("classification").items() if m.assessed])
@pytest.mark.parametrize("learns", ["triplets", "ratings"])
def test_contract_of_probes_that_learn_from_assessments(name, learns):
    """They say what they believe; what was said moves them, or is not for them."""
    from metamed.judged import Judged
    from metamed.methods import Shape

    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5))
    y = (x[:, 0] > 0).astype(int)
    rows = rng.permuted(np.tile(np.arange(40), (200, 1)), axis=1)[:, :3]
    index = np.arange(40)
    said = {"triplets": Judged(index, np.ones(200), triplets=rows),
            "ratings": Judged(index, np.ones((40, 1)), scores=x[:40, 1:2], attributes=("a",))}[learns]  # fmt: skip
    probe, plain = (get_method(name).build(Shape(5, (), 2)) for _ in range(2))
    if probe.believed.learns not in ("any", learns):
        with pytest.raises(NotApplicable, match=probe.believed.learns):
            probe.assessed(x[:40], said)
        return
    probe.assessed(x[:40], said)
    answer = probe.fit(x[40:], y[40:]).predict(x)
    assert answer.shape == (60, 2) and np.isfinite(answer).all()
    assert not np.allclose(answer, plain.fit(x[40:], y[40:]).predict(x))


@pytest.mark.parametrize("name", sorted(methods("similarity")))
def test_contract_of_similarity_methods(name):
    """Networks embed images and lower the triplet loss; metrics embed features. Both say whose answers they believe."""
    import torch

    from metamed.methods import Shape
    from metamed.training.assessed import preferred, triplet_loss

    torch.manual_seed(0)
    rng, rows = np.random.default_rng(0), np.array([[0, 1, 2], [3, 4, 5], [2, 1, 0]])
    if name.startswith("probe."):
        x = rng.normal(size=(12, 5))
        built = get_method(name).build(Shape(5, (), 0)).fit(x, rows)
        assert built.believed.learns == "triplets" and built.embed(x).shape[0] == 12
        assert preferred(built.embed(x), rows).mean() >= preferred(x, rows).mean() - 0.05
        return
    net = get_method(name).build(Shape(3, (16, 16), 0))
    images, losses = torch.rand(6, 3, 16, 16), []
    assert net(images).ndim == 2 and net.believed.learns == "triplets" and net.encoder(images).ndim == 2
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01)
    for _ in range(4):
        loss = triplet_loss(*net(images)[torch.from_numpy(rows[:2].T)])
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert min(losses[1:]) < losses[0]


@pytest.mark.parametrize("name", sorted(methods("transfer")))
def test_contract_of_recipes(name):
    import torch

    from metamed.methods import Shape

    shape = Shape(3, (32, 32), 3)
    net = get_method("mobilenet").build(shape)
    plan = get_method(name).build(net, ("source",), shape)
    trained = {id(p) for parameters_, factor, epoch in plan.groups for p in parameters_}
    assert plan.module is net and {id(p) for p in net.head.parameters()} <= trained
    assert trained <= {id(p) for p in net.parameters()}
    recipe = get_method(name)
    assert ((plan.assessed is not None), (plan.partner is not None)) == (recipe.assessed, recipe.partner)
    if plan.assessed:
        said, images = plan.assessed, torch.rand(2, 3, 32, 32)
        assert said.epochs or said.weight, "learned before or beside"
        assert said.embed(images).ndim == 2 and said.rate(3)(images).shape == (2, 3)
        assert said.embed.encoder is net.encoder and said.rate(3).encoder is net.encoder
