"""Training on a processor: the loop of metamed against a plain one, and probes against fine-tuning."""

from __future__ import annotations

import statistics
from copy import deepcopy
from functools import cache, partial

import numpy as np
import torch

from benchmarks.speed.timing import bar, in_turn, seconds
from metamed import training
from metamed.dataset import ArrayImages, Dataset
from metamed.jobs import Job, perform
from metamed.methods import Plan, Shape, get_method, methods
from metamed.records import Setup, Source
from metamed.store import Store
from metamed.tasks import make_task
from metamed.training import loop, precision

SIDE, EPOCHS = 64, 2
SETTING = training.DEFAULTS | {"epochs": EPOCHS, "augment": "none"}  # a plain loop has no augmentation to compare
TYPICAL = 15 * 15  # steps of a run with the defaults on 480 images
NETWORKS = sorted(name for name in methods("classification") if not name.startswith("probe."))


@cache
def _images(n: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright square whose place tells one of four classes."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 150, (n, 3, SIDE, SIDE), dtype=np.uint8), np.arange(n) % 4
    for image, k in zip(x, y, strict=True):
        image[:, 16 * k : 16 * k + 16, 16 * k : 16 * k + 16] += 100
    return x, y


def _plain(net: torch.nn.Module, x: np.ndarray, y: np.ndarray) -> float:
    """What a tutorial would write: fp32, AdamW, cosine decay, a validation an epoch; the last validation loss."""
    mean, sd = (torch.tensor(v, dtype=torch.float32).reshape(-1, 1, 1) for v in training.pixel_statistics(x))
    images, targets = (torch.from_numpy(x).float() / 255 - mean) / sd, torch.from_numpy(y)
    steps, size = max(1, round(len(x) / SETTING["batch_size"])), SETTING["batch_size"]
    optimiser = torch.optim.AdamW(net.parameters(), SETTING["learning_rate"], weight_decay=SETTING["weight_decay"])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: loop._learning_rate(s, EPOCHS * steps, 1))
    generator = training.seed_everything(0)
    for _ in range(EPOCHS):
        net.train()
        for batch in torch.randperm(len(x), generator=generator).split(size):
            loss = torch.nn.functional.cross_entropy(net(images[batch]), targets[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        net.eval()
        with torch.no_grad():
            value = torch.nn.functional.cross_entropy(net(images), targets)
    return float(value)


def _loops(name: str) -> tuple[float, float]:
    """Both loops on the same network, weights, images and batches; they must come to the same loss."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net, (x, y) = get_method(name).build(Shape(3, (SIDE, SIDE), 4), dropout=0.0), _images()
    ends: dict[str, float] = {}

    def ours() -> None:
        own = deepcopy(net)
        plan = Plan(own, ((list(own.parameters()), 1.0, 0),))
        ends["ours"] = training.fit(plan, x, y, (x, y), setting=SETTING, device="cpu").losses[-1]

    def peer() -> None:
        ends["peer"] = _plain(deepcopy(net), x, y)

    ratio = in_turn(lambda: seconds(ours), lambda: seconds(peer))
    if abs(ends["ours"] - ends["peer"]) > 0.1 * max(ends["peer"], 0.5):
        raise AssertionError(f"{name}: the loops end at different losses, {ends}")
    return ratio


def _register(name: str) -> None:
    work = partial(_loops, name)
    work.__name__, work.__doc__ = f"train_{name}", f"{name} at {SIDE} px against a plain fp32 loop, to the same loss."
    bar(at_most=1.05)(work)


for _name in NETWORKS:
    _register(_name)


@bar(at_most=0.05)
def choosing_a_precision() -> tuple[float, float]:
    """The probe that picks fp32 or bf16, once a process, against the steps of one usual run (ResNet-18, 64 px)."""
    torch.set_num_threads(1)
    net, (x, _) = get_method("resnet").build(Shape(3, (SIDE, SIDE), 4)), _images()
    model = training.Model(net, *training.pixel_statistics(x)).to(memory_format=torch.channels_last)
    batch = torch.from_numpy(x[: SETTING["batch_size"]])

    def ours() -> float:
        precision._PROBED.clear()
        return seconds(lambda: training.choose_precision(model, batch, batch.device))

    chosen = training.choose_precision(model, batch, batch.device)
    return in_turn(ours, lambda: TYPICAL * precision._step_seconds(model, batch, chosen))


@bar(faster=50)
def probes_on_known_features() -> tuple[float, float]:
    """A linear probe on stored features against fine-tuning the network they come from, on 600 images of 64 px."""
    torch.set_num_threads(1)
    x, y = _images(600)
    data, store = Dataset("squares", ArrayImages(x), y), Store.embedded()
    from metamed.sources import find_weights

    source: Source = store.source("imagenet.coral.mobilenet_v2")
    options = {"sources": (source,), "weights": (find_weights(source, store),), "device": "cpu", "threads": 1}
    task, names = make_task(data), (source.name,)
    probe = Job(Setup("probe.linear", {}, None, names), task, data, **options)
    known = Job(probe.setup, task, data, **options, features=perform(probe).features)
    tuned = Job(Setup("mobilenet", {"learning_rate": 0.003}, "finetune", names), task, data, **options)
    return statistics.median(seconds(lambda: perform(known)) for _ in range(5)), seconds(lambda: perform(tuned))
