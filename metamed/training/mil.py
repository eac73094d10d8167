"""Bags: read one by one, padded, learned from, and what is said of them and of their instances."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F

from metamed.dataset import ArrayImages, Dataset, Images, take
from metamed.errors import MetamedError
from metamed.methods import Choice, Float, Int, Plan, parameters
from metamed.training.images import augmented, load_images, pixel_statistics
from metamed.training.loop import learn
from metamed.training.precision import pick_device
from metamed.training.weights import Model

KEPT_BYTES = 256 << 20  # feature bags up to this size are kept in memory; larger sets are read bag by bag
CELLS = 1 << 15  # instances, padding included, that go through a network together, unless one bag has more
FEW = 512  # instances, padding included, below which one pass with more padding is faster than two


def settings(
    *,
    learning_rate: Annotated[float, Float(1e-5, 1e-1, log=True)] = 1e-3,
    epochs: Annotated[int, Int(1, 300)] = 30,
    batch_size: Annotated[int, Choice(1, 2, 4, 8, 16, 32)] = 8,
    weight_decay: Annotated[float, Float(1e-6, 1.0, log=True)] = 1e-2,
    augment: Annotated[str, Choice("none", "shift", "flip", "flip+shift")] = "flip",
    image_size: Annotated[int, Choice(28, 32, 48, 64, 96, 128, 160, 224, 256, 384, 512)] = 64,
):
    """What training adds to the networks of bags; a batch is of bags. augment and image_size are of instances that are
    images, and mean what they mean there."""


SPACE, DEFAULTS = parameters(settings)


class Bags(Sequence):
    """The bags of a dataset, each an array of its instances: features (n, D), float32, or images (n, C, s, s).

    instances: all of them, in the dataset's order; `bags` says in which bag each is. Small sets of features are kept in
    memory, others are read bag by bag whenever one is asked for.
    """

    def __init__(self, instances: Images, bags: np.ndarray):
        self.sizes = np.bincount(bags)
        self._order, self._ends = np.argsort(bags, kind="stable"), np.cumsum(self.sizes)
        n_bytes = np.prod(instances.shape) * np.dtype(instances.dtype).itemsize
        if n_bytes <= KEPT_BYTES and not isinstance(instances, ArrayImages):
            instances = ArrayImages(take(instances, np.arange(len(instances))))
        self.instances, self.shape = instances, tuple(instances.shape[1:])

    @classmethod
    def of(cls, dataset: Dataset, side: int | None = None) -> Bags:
        """The bags of a dataset; images become `side` pixels wide and high."""
        images = dataset.images
        if len(images.shape) != 2:
            images = ArrayImages(load_images(images, np.arange(len(images)), side))
        return cls(images, dataset.bags)

    def __len__(self) -> int:
        return len(self.sizes)

    def members(self, bag: int) -> np.ndarray:
        """Which instances a bag holds."""
        return self._order[self._ends[bag] - self.sizes[bag] : self._ends[bag]]

    def __getitem__(self, bag: int) -> np.ndarray:
        rows = self.members(bag)
        together = rows[-1] - rows[0] + 1 == len(rows)
        found = self.instances[int(rows[0]) : int(rows[-1]) + 1] if together else take(self.instances, rows)
        return found if found.dtype == np.uint8 else np.asarray(found, np.float32)

    def statistics(self, bags: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of each feature over the instances of some bags, (D,), in one pass; of the channels, if
        instances are images, from at most 20 instances a bag."""
        if len(self.shape) > 1:
            some = np.concatenate([self.members(bag)[:20] for bag in bags])
            return pixel_statistics(self.instances[np.sort(some)])
        n, total, square = 0, 0.0, 0.0
        for bag in bags:
            x = self[bag].astype(np.float64)
            n, total, square = n + len(x), total + x.sum(axis=0), square + (x**2).sum(axis=0)
        mean = total / n
        sd = np.sqrt(np.maximum(square / n - mean**2, 0))
        sd[sd < 1e-6 * np.maximum(1, np.abs(mean))] = 1  # a constant tells nothing, and must not become loud
        return mean.astype(np.float32), sd.astype(np.float32)


class BagModel(Model):
    """A network of bags with its preprocessing: instances B x N x D or B x N x C x H x W, mask B x N -> logits."""

    def scaled(self, instances: torch.Tensor) -> torch.Tensor:
        if instances.ndim == 3:
            return torch.addcmul(-self.mean.flatten() / self.sd.flatten(), instances, 1 / self.sd.flatten())
        return super().scaled(instances.flatten(0, 1)).unflatten(0, instances.shape[:2])

    def forward(self, instances: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.net(self.scaled(instances), mask)

    def scores(self, instances: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """How much each instance speaks for a finding, B x N."""
        return self.net.scores(self.scaled(instances), mask)


def padded(bags: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Bags as one tensor B x N x ..., zeros after the smaller ones, and the mask B x N; None where all are equally
    large, so that nothing needs masking."""
    sizes = [len(bag) for bag in bags]
    if len(set(sizes)) == 1:
        together = bags[0][None] if len(bags) == 1 else np.stack(bags)
        return torch.from_numpy(np.ascontiguousarray(together)), None
    out = torch.zeros((len(bags), max(sizes), *bags[0].shape[1:]), dtype=torch.from_numpy(bags[0][:0]).dtype)
    for row, bag in zip(out, bags, strict=True):
        row[: len(bag)] = torch.from_numpy(np.ascontiguousarray(bag))
    return out, torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]


def groups(sizes: np.ndarray, cells: int = CELLS) -> Iterator[np.ndarray]:
    """Numbers of bags that go through a network together: at most `cells` instances with padding, and no bag more than
    twice as large as another, unless all are small."""
    order = np.argsort(sizes, kind="stable")
    while len(order):
        ordered = sizes[order]
        together = ordered * np.arange(1, len(order) + 1)  # instances with padding of the first 1, 2 ...
        fits = (together <= cells) & ((ordered <= 2 * ordered[0]) | (together <= FEW))
        n = max(1, int(np.argmin(fits)) if not fits.all() else len(fits))
        yield order[:n]
        order = order[n:]


def fit(
    plan: Plan,
    bags: Bags,
    y: np.ndarray,
    train: np.ndarray,
    validation: np.ndarray,
    *,
    setting: dict,
    normalise: tuple | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    progress: Callable[[int, int, float], None] | None = None,
) -> tuple[BagModel, tuple[float, ...], str]:
    """The trained model, the validation loss after every epoch, and the precision.

    y: class of each bag of `bags`, of which those numbered `train` are learned from; the epoch of the least loss on
    `validation` is kept. normalise: (mean, sd); those of the training bags if None. Stops early, and raises
    FloatingPointError, as `loop.learn` does. Memory holds a batch of bags, however many there are.
    """
    if plan.warm_up or plan.partner:
        raise MetamedError("this recipe looks at single images, not at bags. Use finetune, freeze or gradual")
    on, generator = pick_device(device), torch.Generator().manual_seed(seed)
    model = BagModel(plan.module, *(normalise or bags.statistics(train))).to(on)
    target = torch.from_numpy(np.asarray(y, np.int64)).to(on)
    if precision == "auto":  # heads are small: on a processor rounding costs more than it saves
        precision = "bf16" if on.type == "cuda" else "fp32"

    def batch_loss(batch: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        chosen, losses = train[batch], []
        for group in groups(bags.sizes[chosen]):
            x, mask = _on(padded([bags[i] for i in chosen[group]]), on)
            if x.ndim == 5:
                x = augmented(x.flatten(0, 1), setting["augment"], generator).unflatten(0, x.shape[:2])
            loss = model.net.objective(model.scaled(x), mask, target[chosen[group]], F.cross_entropy)
            losses.append(loss * (len(group) / len(batch)))
        return torch.stack(losses).sum()

    def validation_loss() -> float:
        logits = torch.from_numpy(logits_of(model, bags, validation))
        return float(F.cross_entropy(logits, target[validation].cpu()))

    losses = learn(model, plan, setting, len(train), batch_loss, validation_loss,
                   generator=generator, device=on, precision=precision, progress=progress)  # fmt: skip
    return model, losses, precision


def _on(batch: tuple[torch.Tensor, torch.Tensor | None], device: torch.device) -> tuple:
    return tuple(None if part is None else part.to(device) for part in batch)


@torch.no_grad()
def logits_of(model: BagModel, bags: Sequence[np.ndarray], which: Sequence[int]) -> np.ndarray:
    """What a model answers for the bags numbered `which`, float32 (n, K)."""
    model.eval()
    which, out = np.asarray(which), None
    sizes = bags.sizes[which] if isinstance(bags, Bags) else np.array([len(bags[i]) for i in which])
    for group in groups(sizes):
        logits = model(*_on(padded([bags[i] for i in which[group]]), model.mean.device)).float().cpu().numpy()
        out = np.empty((len(which), logits.shape[1]), np.float32) if out is None else out
        out[group] = logits
    return out


@torch.no_grad()
def instance_scores(answer: Any, bag: np.ndarray) -> np.ndarray:
    """How much each instance of one bag (n, D) or (n, C, H, W) speaks for a finding, float32 (n,): see `flows.mil`.

    answer: a trained `BagModel`, or a fitted estimator of bags.
    """
    if not isinstance(answer, BagModel):
        return answer.scores(bag)
    answer.eval()
    instances, _ = padded([bag if bag.dtype == np.uint8 else np.asarray(bag, np.float32)])
    return answer.scores(instances.to(answer.mean.device))[0].float().cpu().numpy()


def arrays_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """What an estimator learned as a .safetensors file, which `read_weights` takes back."""
    from safetensors.numpy import save

    kinds = {"f": np.float32, "i": np.int64, "u": np.uint8}
    return save({k: np.ascontiguousarray(v, kinds[np.asarray(v).dtype.kind]) for k, v in arrays.items()})
