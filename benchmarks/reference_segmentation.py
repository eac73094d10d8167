"""Does the U-Net here reach what a plain one reaches? `python -m benchmarks.reference_segmentation` tries both.

The reference knows nothing of metamed's training: a U-Net written out (the same width and depth), fp32, Adam at a
constant rate, cross-entropy and soft Dice, left-right flips, the epoch of the best validation loss. Same task, same
size of images, same number of epochs. Results: benchmarks/results/segmentation_reference.md.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.run import find
from metamed.dataset import Dataset, Split
from metamed.experiments import run_setup
from metamed.measures import get_measure
from metamed.records import Setup
from metamed.store import Store
from metamed.tasks import make_task

DATASETS, SEEDS, SIDE, IMAGES = ("wbc_tecom", "dsb2018_nuclei", "isic2018_task1_lesions"), (0, 1), 64, 100
WIDTH, DEPTH, EPOCHS, BATCH = 8, 3, 20, 8
OURS = Setup("unet", {"width": WIDTH, "epochs": EPOCHS, "learning_rate": 0.003})
RESULTS = Path(__file__).parent / "results" / "segmentation_reference.md"


def double(before: int, after: int) -> nn.Sequential:
    """Two convolutions, each with batch normalisation and ReLU."""
    layers = []
    for channels in (before, after):
        layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)


class PlainUNet(nn.Module):
    """Ronneberger's U-Net with padded convolutions and learned enlarging."""

    def __init__(self, n_classes: int):
        super().__init__()
        widths = [WIDTH * 2**level for level in range(DEPTH + 1)]
        self.down = nn.ModuleList(double(a, b) for a, b in zip([3, *widths], widths, strict=False))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in widths[:-1])
        self.up = nn.ModuleList(double(2 * w, w) for w in widths[:-1])
        self.last = nn.Conv2d(WIDTH, n_classes, 1)

    def forward(self, x):
        maps = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            maps.append(x)
        for level in reversed(range(DEPTH)):
            x = self.up[level](torch.cat([maps[level], self.enlarge[level](x)], dim=1))
        return self.last(x)


def tensors(dataset: Dataset, samples) -> tuple[torch.Tensor, torch.Tensor]:
    """Colour images in 0-1 and masks, both of SIDE pixels."""
    x = torch.stack([torch.from_numpy(np.asarray(dataset.images[i], np.float32) / 255) for i in samples])
    y = torch.stack([torch.from_numpy(np.asarray(dataset.masks[i], np.float32))[None] for i in samples])
    x = F.interpolate(x.expand(-1, 3, -1, -1), (SIDE, SIDE), mode="bilinear", antialias=True)
    return (x - 0.5) / 0.25, F.interpolate(y, (SIDE, SIDE), mode="nearest-exact")[:, 0].long()


def loss_of(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    p, true = logits.softmax(1)[:, 1:], F.one_hot(y, logits.shape[1]).movedim(-1, 1)[:, 1:]
    dice = (2 * (p * true).sum((0, 2, 3)) + 1) / (p.sum((0, 2, 3)) + true.sum((0, 2, 3)) + 1)
    return F.cross_entropy(logits, y) + 1 - dice.mean()


def reference(dataset: Dataset, split: Split, seed: int) -> float:
    """Dice of the test part after a plain training."""
    torch.manual_seed(seed)
    net, best = PlainUNet(dataset.n_classes), (float("inf"), None)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    (x, y), (held_x, held_y) = tensors(dataset, split.train), tensors(dataset, split.validation)
    for _ in range(EPOCHS):
        net.train()
        for batch in torch.randperm(len(x)).split(BATCH):
            images, masks = x[batch], y[batch]
            if torch.rand(()) < 0.5:
                images, masks = images.flip(-1), masks.flip(-1)
            optimiser.zero_grad()
            loss_of(net(images), masks).backward()
            optimiser.step()
        net.eval()
        with torch.no_grad():
            value = float(loss_of(net(held_x), held_y))
        best = min(best, (value, copy.deepcopy(net.state_dict())), key=lambda pair: pair[0])
    net.load_state_dict(best[1])
    return dice_of(net, dataset, split)


@torch.no_grad()
def dice_of(net: nn.Module, dataset: Dataset, split: Split) -> float:
    """By the measure that all runs have: answers enlarged to the images' own size, mean over images and classes."""
    logits = F.interpolate(net(tensors(dataset, split.test)[0]), dataset.images.shape[2:], mode="bilinear")
    return get_measure("dice")(np.stack([dataset.masks[i] for i in split.test]), logits.argmax(1).numpy())


def main() -> None:
    torch.set_num_threads(1)
    rows, store = [], Store.memory()
    for name in DATASETS:
        dataset = find(name)
        task = make_task(dataset, procedure="holdout", size=IMAGES)
        for seed in SEEDS:
            run = run_setup(OURS, task, dataset, store, seed=seed, device="cpu", precision="fp32", threads=1)
            rows.append((name, seed, reference(dataset, task.folds[0], seed), run.score("dice")))
            print(*rows[-1], flush=True)
    RESULTS.write_text(page(rows), encoding="utf-8")


def page(rows: list[tuple[str, int, float, float]]) -> str:
    lines = [f"| {name} | {seed} | {a:.3f} | {b:.3f} | {b - a:+.3f} |" for name, seed, a, b in rows]
    gap = np.mean([here - there for *_, there, here in rows])
    return "\n".join([
        "# U-Net here beside a plain reference", "",
        "Made by `python -m benchmarks.reference_segmentation`. Dice on the test part of one holdout, up to "
        f"{IMAGES} images for training and validation, {SIDE} pixels a side, {EPOCHS} epochs, batches of {BATCH}, "
        f"U-Net with {WIDTH} channels and {DEPTH} halvings, fp32 both. The reference: Adam at 0.001, written out in "
        f"that file; here: `{OURS.label}`.", "",
        "| dataset | seed | reference | here | difference |", "|---|---|---|---|---|", *lines, "",
        f"Mean difference over {len(rows)} pairs: {gap:+.3f} Dice.", "",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
