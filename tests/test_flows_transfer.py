"""What each recipe does to a network that came from a source."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import blobs

from metamed import training
from metamed.assessments import Ratings
from metamed.errors import MetamedError, NotApplicable
from metamed.experiments import make_job, perform, run_setup
from metamed.flows.transfer.cotraining import Beside
from metamed.flows.transfer.simsiam import SimSiam, view
from metamed.methods import Shape, get_method, methods
from metamed.records import Setup
from metamed.sources import as_source
from metamed.store import Store
from metamed.tasks import make_task

SHAPE, QUICK = Shape(3, (16, 16), 2), {"epochs": 2, "width": 16, "depth": 2}


def small():
    torch.manual_seed(0)
    return get_method("small_cnn").build(SHAPE, width=16, depth=2)


def plan(recipe, net=None, **settings):
    return get_method(recipe).build(net or small(), ("s",), SHAPE, **settings)


def train(chosen, data, **options):
    x, y = data.images.array, data.target
    options = {"epochs": 1} | options
    extra = {k: options.pop(k) for k in ("unlabelled", "partner") if k in options}
    setting = training.DEFAULTS | {"augment": "none"} | options
    return training.fit(chosen, x, y, (x, y), setting=setting, precision="fp32", **extra)


def moved(chosen, data, **options) -> set[str]:
    """Names of what training changed in the network."""
    before = {k: v.clone() for k, v in chosen.module.state_dict().items()}
    train(chosen, data, **options)
    after = chosen.module.state_dict()
    return {k for k in after if not torch.equal(after[k], before[k]) and "num_batches" not in k}


@pytest.mark.parametrize("network", ["small_cnn", "vit", "mobilenet"])
def test_levels_hold_every_parameter_once(network):
    encoder = get_method(network).build(SHAPE).encoder
    found = [id(p) for level in encoder.levels for p in level]
    assert len(found) == len(set(found)) and set(found) == {id(p) for p in encoder.parameters()}


def test_gradual_lets_parts_join_from_the_last_to_the_first(classification_data):
    for epochs, first, last in ((1, False, False), (2, False, True), (3, True, True)):
        chosen = plan("gradual", parts=2, pace=1)
        names = moved(chosen, classification_data, epochs=epochs, learning_rate=0.003)
        assert any(n.startswith("head") for n in names)
        assert any(n.startswith("encoder.net.0") for n in names) == first
        assert any(n.startswith("encoder.net.1") for n in names) == last


def test_training_goes_on_until_all_parts_have_learned(classification_data):
    """Early stopping counts from the epoch in which the last part joins."""
    chosen = plan("gradual", parts=2, pace=8)
    fitted = train(chosen, classification_data, epochs=30, learning_rate=0.1, weight_decay=1.0)
    assert len(fitted.losses) > 16 + 5


def test_discriminative_rates_fall_towards_the_images():
    chosen = plan("discriminative", first_factor=0.01)
    factors = [factor for _, factor, _ in chosen.groups]
    assert factors[0] == pytest.approx(0.01) and factors[-1] == 1
    assert np.allclose(np.diff(np.log(factors)), np.diff(np.log(factors))[0])


def test_batch_statistics_become_the_targets(classification_data):
    """With one batch they are its own mean and variance; everything but the head stays as it was."""
    chosen, x = plan("batchnorm"), classification_data.images.array
    fitted = train(chosen, classification_data, batch_size=64, unlabelled=x)
    net = chosen.module.encoder.net
    first = net[0][0](fitted.model.scaled(torch.from_numpy(x))).detach()
    assert torch.allclose(net[0][1].running_mean, first.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(net[0][1].running_var, first.transpose(0, 1).flatten(1).var(1), rtol=1e-4)
    names = moved(plan("batchnorm"), classification_data)
    assert all(n.startswith("head") or "running" in n for n in names) and len(names) == 2 + 4


def test_batch_statistics_of_several_batches_are_their_mean(classification_data):
    from metamed.flows.transfer.batchnorm import Reestimate

    net, parts = small().encoder, torch.rand(3, 8, 3, 16, 16)
    objective = Reestimate(net)
    assert all(objective(part) is None for part in parts)
    means = [net.net[0][0](part).mean((0, 2, 3)) for part in parts]
    assert torch.allclose(net.net[0][1].running_mean, torch.stack(means).mean(0), atol=1e-6)
    assert net.net[0][1].momentum == 0.1


def test_scales_learn_if_asked(classification_data):
    assert "encoder.net.0.1.weight" in moved(plan("batchnorm", affine=True), classification_data)


def test_networks_without_batch_statistics_say_so():
    with pytest.raises(NotApplicable, match="vit_tiny_p4 has no batch normalisation"):
        plan("batchnorm", get_method("vit").build(SHAPE))


def test_simsiam_learns_without_labels(classification_data):
    torch.manual_seed(0)
    objective, images = SimSiam(small().encoder), torch.from_numpy(classification_data.images.array) / 255
    optimiser = torch.optim.AdamW(objective.parameters(), 0.003)
    losses = []
    for _ in range(30):
        losses.append(objective(images))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert -1 <= np.mean([v.item() for v in losses[-5:]]) < np.mean([v.item() for v in losses[:5]]) - 0.1


def test_the_warm_up_moves_the_encoder_before_any_label_is_seen(classification_data):
    chosen = plan("simsiam", warm_up_epochs=2)
    still = replace(chosen, groups=chosen.groups[1:])  # then only the head learns from labels
    assert any(n.startswith("encoder.net.0.0") for n in moved(still, classification_data))


def test_views_differ_but_keep_shape_and_range():
    torch.manual_seed(0)
    images = torch.rand(5, 3, 20, 20)
    one, other = view(images), view(images)
    assert one.shape == images.shape and not torch.allclose(one, other)
    assert one.min() >= -0.4 and one.max() <= 1.8


def test_the_partner_is_learned_and_leaves_the_statistics_alone(classification_data):
    partner = blobs(40, classes=3, seed=5)
    data = partner.images.array, partner.target
    chosen = plan("cotraining", partner_weight=1.0)
    beside = chosen.partner.module(3)
    before = {k: v.clone() for k, v in chosen.module.state_dict().items() if "running" in k}
    assert isinstance(beside, Beside) and beside(torch.rand(4, 3, 16, 16)).shape == (4, 3)
    assert all(torch.equal(chosen.module.state_dict()[k], v) for k, v in before.items())
    torch.manual_seed(0)
    alone = train(plan("finetune"), classification_data, epochs=3).losses
    assert train(plan("cotraining"), classification_data, epochs=3, partner=data).losses != alone
    with pytest.raises(MetamedError, match="images and targets of 's'"):
        train(plan("cotraining"), classification_data)


def test_the_partners_head_learns(classification_data):
    partner, made = blobs(60, classes=3, seed=5), []
    chosen = plan("cotraining", partner_weight=1.0)
    build = chosen.partner.module
    chosen = replace(chosen, partner=replace(chosen.partner, module=lambda k: made.append(build(k)) or made[-1]))
    train(chosen, classification_data, epochs=15, learning_rate=0.01, partner=(partner.images.array, partner.target))
    model = training.Model(made[0], *training.pixel_statistics(classification_data.images.array))
    assert (training.logits_of(model, partner.images.array).argmax(1) == partner.target).mean() > 0.8


@pytest.fixture(scope="module")
def trained():
    """A store with one source, trained on `origin`."""
    store, data = Store.memory(), replace(blobs(seed=3, classes=3), name="origin")
    run = run_setup(Setup("small_cnn", QUICK), make_task(data), data, store, keep_weights=True)
    return store, as_source(run, "origin.small_cnn", store), data


@pytest.mark.parametrize("combine", ["weighted", "mean", "greedy", "soup"])
def test_an_ensemble_of_sources_trains_one_network_from_each(combine, trained, classification_data):
    store, source, data = trained
    task, other = make_task(classification_data), replace(source, name="other")
    store.add(other)
    setup = Setup("small_cnn", {**QUICK, "combine": combine}, "ensemble", (source.name, other.name))
    run = run_setup(setup, task, classification_data, store, keep_weights=True)
    alone = run_setup(Setup("small_cnn", QUICK, "finetune", (source.name,)), task, classification_data, store)
    assert run.error is None and run.weights == (source.sha256,) * 2
    weights = dict(part.split("=") for part in run.environment["ensemble"].split())
    assert set(weights) <= {source.name, other.name} and sum(map(float, weights.values())) == pytest.approx(1, abs=1e-3)
    # both networks start from the same weights and see the same batches: together they say what one says
    kept = [np.load(store.artifact(r, "predictions.npz"))["test"] for r in (run, alone)]
    assert combine == "soup" or np.allclose(*kept, atol=1e-3)
    names = ["weights.safetensors"] if combine == "soup" else [f"weights-{n}.safetensors" for n in weights]
    assert all(training.read_weights(store.artifact(run, name)) for name in names)


def test_other_recipes_start_from_one_source(trained, classification_data):
    store, source, data = trained
    setup = Setup("small_cnn", QUICK, "finetune", (source.name, source.name))
    with pytest.raises(MetamedError, match="starts from one source, not 2. For several: ensemble"):
        run_setup(setup, make_task(classification_data), classification_data, store)


def test_a_soup_of_twins_is_the_twin_but_for_batch_statistics(classification_data):
    x = classification_data.images.array
    model = train(plan("finetune"), classification_data).model
    twins = training.averaged([model, model], x, batch_size=60)
    for name, value in twins.state_dict().items():
        assert "running" in name or "num_batches" in name or torch.equal(value, model.state_dict()[name]), name
    first = model.net.encoder.net[0][0](model.scaled(torch.from_numpy(x))).detach()
    assert torch.allclose(twins.net.encoder.net[0][1].running_mean, first.mean((0, 2, 3)), atol=1e-5)


def test_a_soup_never_scores_less_than_its_best_part(classification_data):
    data = classification_data
    x, truth = data.images.array, torch.from_numpy(data.target)
    models = {str(k): train(plan("finetune", get_method("small_cnn").build(SHAPE, width=16, depth=2)), data).model
              for k in range(3)}  # fmt: skip

    def score(model):
        return -float(torch.nn.functional.cross_entropy(torch.from_numpy(training.logits_of(model, x)), truth))

    mixed, members = training.soup(models, score, x)
    best = max(models, key=lambda k: score(models[k]))
    assert score(mixed) >= score(models[best]) and members[0] == best


@pytest.mark.parametrize("recipe", sorted(methods("transfer")))
def test_every_recipe_runs_from_a_source(recipe, trained, classification_data):
    store, source, data = trained
    setup = Setup("small_cnn", QUICK, recipe, (source.name,))
    rated = Ratings(np.arange(60), np.zeros(60, int), np.full(60, "place"), classification_data.target.astype(float))
    target = replace(classification_data, ratings=rated if get_method(recipe).assessed else None)
    run = run_setup(setup, make_task(target), target, store, find={"origin": data}.get)
    assert run.error is None and 0 <= run.score("auc") <= 1 and run.weights == (source.sha256,)


def test_the_warm_up_never_sees_the_test_part(trained, classification_data, monkeypatch):
    store, source, _ = trained
    task, seen = make_task(classification_data, size=20), {}
    original = training.fit
    monkeypatch.setattr(training, "fit", lambda *a, **k: seen.update(k) or original(*a, **k))
    job = make_job(Setup("small_cnn", QUICK, "simsiam", (source.name,)), task, classification_data, store)
    assert perform(job).run.error is None
    groups = classification_data.groups
    allowed = np.flatnonzero(~np.isin(groups, groups[list(task.folds[0].test)]))
    assert len(seen["unlabelled"]) == len(allowed) > 20
    assert np.array_equal(seen["unlabelled"], training.load_images(classification_data.images, allowed, 64))


def test_cotraining_without_the_sources_images_says_so(trained, classification_data):
    store, source, _ = trained
    with pytest.raises(MetamedError, match="learns from the images of origin.small_cnn"):
        make_job(Setup("small_cnn", QUICK, "cotraining", (source.name,)), make_task(classification_data),
                 classification_data, store)  # fmt: skip
