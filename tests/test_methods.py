import re
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest

import metamed
from metamed.errors import MetamedError, UnknownName
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

    method = get_method(name)
    assert method.description and method.version >= 1
    assert all(re.fullmatch(r"[A-Za-z0-9_.]+", parameter) for parameter in method.space), "legal on OpenML"
    assert not set(method.space) & set(training.SPACE), "one flat namespace"
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


@pytest.mark.parametrize("name", sorted(methods("transfer")))
def test_contract_of_recipes(name):
    from metamed.methods import Shape

    shape = Shape(3, (32, 32), 3)
    net = get_method("mobilenet").build(shape)
    plan = get_method(name).build(net, ("source",), shape)
    trained = {id(p) for parameters_, factor, epoch in plan.groups for p in parameters_}
    assert plan.module is net and {id(p) for p in net.head.parameters()} <= trained
    assert trained <= {id(p) for p in net.parameters()}
