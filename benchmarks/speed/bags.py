"""Bags of 10,000 instances with 512 features: attention against torchmil's, and memory in the number of bags."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import numpy as np
import torch

from benchmarks.speed.timing import bar, in_turn, one_thread, seconds
from metamed.dataset import ArrayImages
from metamed.methods import Plan, Shape, get_method
from metamed.training import mil

INSTANCES, FEATURES, WIDTH, BAGS, EPOCHS = 10_000, 512, 128, 5, 2
SETTING = mil.DEFAULTS | {"epochs": EPOCHS, "batch_size": 1}  # one bag a step, as is usual with bags of this size


@cache
def _bags() -> tuple[mil.Bags, np.ndarray]:
    """Bags of noise; in every other one some instances lie elsewhere."""
    rng = np.random.default_rng(0)
    y = np.arange(BAGS) % 2
    x = rng.normal(size=(BAGS, INSTANCES, FEATURES)).astype(np.float32)
    x[y == 1, :50] += 1
    return mil.Bags(ArrayImages(x.reshape(-1, FEATURES)), np.repeat(np.arange(BAGS), INSTANCES)), y


def _ours(train: np.ndarray, test: np.ndarray) -> float:
    bags, y = _bags()
    torch.manual_seed(0)
    net = get_method("attention").build(Shape(FEATURES, (), 2), width=WIDTH, dropout=0.0)
    plan = Plan(net, ((list(net.parameters()), 1.0, 0),))
    return mil.fit(plan, bags, y, train, test, setting=SETTING, normalise=(0.0, 1.0), device="cpu")[1][-1]


def _torchmil(train: np.ndarray, test: np.ndarray) -> float:
    """torchmil's model with the same layers in a plain loop of the same steps; the last validation loss."""
    from torchmil.models import ABMIL

    bags, y = _bags()
    torch.manual_seed(0)
    embed = torch.nn.Sequential(torch.nn.Linear(FEATURES, WIDTH), torch.nn.ReLU())
    net = ABMIL(in_shape=(FEATURES,), att_dim=WIDTH // 2, feat_ext=embed)
    optimiser = torch.optim.AdamW(net.parameters(), SETTING["learning_rate"], weight_decay=SETTING["weight_decay"])
    target = torch.from_numpy(y).float()
    for _ in range(EPOCHS):
        net.train()
        for bag in np.random.default_rng(0).permutation(train):
            _, losses = net.compute_loss(target[bag : bag + 1], torch.from_numpy(bags[bag])[None])
            optimiser.zero_grad()
            sum(losses.values()).backward()
            optimiser.step()
        net.eval()
        with torch.no_grad():
            found = [net.compute_loss(target[b : b + 1], torch.from_numpy(bags[b])[None])[1] for b in test]
    return float(np.mean([sum(f.values()) for f in found]))


@bar(at_most=1 / 0.8)
def train_attention_on_bags() -> tuple[float, float]:
    """Attention on bags of 10,000 instances with 512 features against torchmil's: at least 0.8 times as fast."""
    torch.set_num_threads(1)
    train, test = np.arange(BAGS - 1), np.array([BAGS - 1])
    ends = _ours(train, test), _torchmil(train, test)
    if not np.allclose(ends, np.log(2), atol=0.2):
        raise AssertionError(f"after so few steps both losses should be near that of a guess: {ends}")
    return in_turn(lambda: seconds(lambda: _ours(train, test)), lambda: seconds(lambda: _torchmil(train, test)))


GROWTH = """
import sys
import numpy as np
from metamed.methods import Plan, Shape, get_method
from metamed.training import mil

class Made:
    '''Bags that are drawn when asked for, as a large file is read.'''
    def __init__(self, bags):
        self.shape, self.dtype = (bags * 10_000, 512), np.dtype(np.float32)
    def __len__(self):
        return self.shape[0]
    def __getitem__(self, part):
        return np.random.default_rng(part.start).standard_normal((part.stop - part.start, 512), np.float32)

n = int(sys.argv[1])
mil.KEPT_BYTES = 0
bags = mil.Bags(Made(n), np.repeat(np.arange(n), 10_000))
net = get_method("attention").build(Shape(512, (), 2))
plan, setting = Plan(net, ((list(net.parameters()), 1.0, 0),)), mil.DEFAULTS | {"epochs": 1, "batch_size": 1}
mil.fit(plan, bags, np.arange(n) % 2, np.arange(n - 2), np.arange(n - 2, n), setting=setting, device="cpu")
print(int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) / 1024)
"""


@bar(at_most=1.0, unit="MB")
def memory_in_the_number_of_bags() -> tuple[float, float]:
    """Difference of the peak memory of training on 6 and on 30 bags of 10,000 instances, against one bag of 20 MB."""
    return abs(_peak(30) - _peak(6)), INSTANCES * FEATURES * 4 / 2**20


def _peak(bags: int) -> float:
    """The peak memory of a process that trains on so many bags, in MB."""
    command = [sys.executable, "-c", GROWTH, str(bags)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=one_thread()).stdout)
