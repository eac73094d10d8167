"""The one torch loop: fit a network, predict with it, and carry encoders' weights in and out."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from metamed.dataset import Images
from metamed.errors import MetamedError
from metamed.methods import Choice, Float, Int, Plan, parameters

VERSION = 1  # raised by hand whenever the same setup and seed would train to another result
MEMORY_LIMIT = 4 * 2**30  # bytes of images kept in memory; more lie in a temporary file


def settings(
    *,
    learning_rate: Annotated[float, Float(1e-5, 1e-1, log=True)] = 1e-3,
    epochs: Annotated[int, Int(1, 300)] = 15,
    batch_size: Annotated[int, Choice(8, 16, 32, 64, 128)] = 32,
    weight_decay: Annotated[float, Float(1e-6, 1.0, log=True)] = 1e-2,
    augment: Annotated[str, Choice("none", "shift", "flip", "flip+shift")] = "flip+shift",
    image_size: Annotated[int, Choice(28, 32, 48, 64, 96, 128, 160, 224, 256, 384, 512)] = 64,
):
    """What training adds to every flow's search space (AdamW with one warm-up and cosine decay).

    image_size: pixels per side that images are resized to. Training from scratch never enlarges images; networks that
    come from a source get the resolution asked for, since they expect details of a certain size.
    """


SPACE, DEFAULTS = parameters(settings)
LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "classification": F.cross_entropy,
    "multi-label": lambda logits, y: F.binary_cross_entropy_with_logits(logits, y.float()),
}
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# How a source's images were scaled: mean and sd of pixels in 0-1, and whether strided convolutions pad as TensorFlow
# does. The wrong one silently ruins the features (for the shipped weights: top-1 0.815 -> 0.63).
PREPROCESSING = {
    "half_same": ((0.5,) * 3, (0.5,) * 3, True),
    "imagenet": (*_IMAGENET, False),
    "own": (None, None, False),  # mean and sd lie in the weights' file
}


class Model(nn.Module):
    """A network with its preprocessing: takes images B x C x H x W, uint8 or float in 0-1.

    One channel is repeated to three, so that one network fits grey and colour images.
    """

    def __init__(self, net: nn.Module, mean, sd):
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).reshape(-1, 1, 1))
        self.register_buffer("sd", torch.as_tensor(sd, dtype=torch.float32).reshape(-1, 1, 1))

    def scaled(self, images: torch.Tensor) -> torch.Tensor:
        x = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        x = x.expand(-1, len(self.mean), -1, -1) if x.shape[1] == 1 else x
        return ((x - self.mean) / self.sd).contiguous(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(self.scaled(images))


class _Conv2dSame(nn.Conv2d):
    """A strided convolution padded as TensorFlow's SAME: the odd pixel goes to the bottom and right."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pads = []
        for size, kernel, stride in zip(x.shape[-2:], self.kernel_size, self.stride, strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads = [total // 2, total - total // 2, *pads]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def pad_as_tensorflow(net: nn.Module) -> None:
    """Make every strided convolution of `net` pad as TensorFlow's SAME, in place."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.stride != (1, 1):
            module.__class__ = _Conv2dSame


# ---- weights


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from .safetensors, or from torchvision's .pth without executing anything in it."""
    if Path(path).suffix == ".pth":
        return torch.load(path, map_location="cpu", weights_only=True)
    try:
        from safetensors.torch import load_file
    except ImportError:
        return _read_safetensors(Path(path))
    return load_file(path)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The format in short: 8 bytes with the header's length, a JSON header, raw little-endian tensors."""
    types = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "U8": torch.uint8}
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    state = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            low, high = entry["data_offsets"]
            raw = torch.frombuffer(bytearray(data[start + low : start + high]), dtype=types[entry["dtype"]])
            state[name] = raw.reshape(entry["shape"])
    return state


def weights_bytes(model: Model) -> bytes:
    """The model as a .safetensors file: what `read_weights` and `load_encoder` take back."""
    from safetensors.torch import save

    return save({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()})


def load_encoder(encoder: nn.Module, state: dict[str, torch.Tensor], *, name: str) -> None:
    """Fill `encoder` from a state dict of torchvision's or of ours; every weight must be there and fit."""
    ours = "net.encoder.net."
    state = {k.removeprefix(ours): v for k, v in state.items()}
    own = encoder.net.state_dict()
    found = {k: state[k].float() if v.is_floating_point() else state[k] for k, v in own.items() if k in state}
    wrong = [
        k
        for k, v in own.items()
        if (k not in found and "num_batches" not in k) or (k in found and found[k].shape != v.shape)
    ]
    if wrong:
        raise MetamedError(f"{name}: weights do not fit {encoder.name}, e.g. {wrong[0]} ({len(wrong)} of {len(own)})")
    encoder.net.load_state_dict(found, strict=False)


def preprocessing_of(name: str, state: dict[str, torch.Tensor]) -> tuple[object, object, bool]:
    """(mean, sd, pads as TensorFlow) that a source's network expects."""
    if name not in PREPROCESSING:
        raise MetamedError(f"unknown preprocessing '{name}' (known: {', '.join(PREPROCESSING)})")
    mean, sd, same = PREPROCESSING[name]
    return (state["mean"], state["sd"], same) if mean is None else (mean, sd, same)


# ---- images


def load_images(images: Images, indices: np.ndarray, side: int) -> np.ndarray:
    """The images at `indices`, resized to `side` x `side`: uint8 or float32 in 0-1, (n, C, side, side).

    Streams chunk by chunk; what exceeds `MEMORY_LIMIT` goes to a temporary file, not to memory.
    """
    if len(images.shape) != 4:
        raise MetamedError(f"images of shape {images.shape[1:]} cannot be trained on here: 2-D images are needed")
    dtype = np.uint8 if images.dtype == np.uint8 else np.float32
    shape = (len(indices), images.shape[1], side, side)
    out = _empty(shape, dtype)
    rows = np.argsort(indices, kind="stable")
    ordered = np.asarray(indices)[rows]
    for part, chunk in images.chunks():
        low, high = np.searchsorted(ordered, [part.start, part.stop])
        if high > low:
            out[rows[low:high]] = _resized(chunk[ordered[low:high] - part.start], side)
    return out if dtype == np.uint8 else _unit_range(out, images.dtype)


def _empty(shape: tuple[int, ...], dtype) -> np.ndarray:
    if np.prod(shape) * np.dtype(dtype).itemsize < MEMORY_LIMIT:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:  # the mapping keeps the file alive until the array is gone
        return np.memmap(file, dtype, mode="w+", shape=shape)


def _resized(images: np.ndarray, side: int) -> np.ndarray:
    if images.shape[2:] == (side, side):
        return images
    x = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))
    x = F.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return x.round().clamp(0, 255).numpy() if images.dtype == np.uint8 else x.numpy()


def _unit_range(images: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Integers over their type's maximum; floats as they are, or by the range found where that is not within 0-1."""
    if np.issubdtype(dtype, np.integer):
        return images / np.float32(np.iinfo(dtype).max)
    low, high = float(images.min()), float(images.max())
    return images if low >= 0 and high <= 1 else (images - low) / np.float32(max(high - low, 1e-12))


def pixel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of three channels (grey repeated), pixels in 0-1, from at most 500 images."""
    x = images[np.linspace(0, len(images) - 1, min(500, len(images))).astype(int)].astype(np.float32)
    x = x / 255 if images.dtype == np.uint8 else x
    mean, sd = x.mean(axis=(0, 2, 3)), np.maximum(x.std(axis=(0, 2, 3)), 1e-3)
    return (np.repeat(mean, 3), np.repeat(sd, 3)) if len(mean) == 1 else (mean, sd)


def _augmented(x: torch.Tensor, how: str, generator: torch.Generator) -> torch.Tensor:
    """Mirror half of the images left-right; move all by one random shift of up to a sixteenth, edges repeated."""
    if "flip" in how:
        mirrored = torch.rand(len(x), generator=generator).to(x.device) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
    if "shift" in how and (most := x.shape[-1] // 16):
        rows, columns = torch.randint(0, 2 * most + 1, (2,), generator=generator).tolist()
        padded = F.pad(x.float(), (most,) * 4, mode="replicate").to(x.dtype)
        x = padded[..., rows : rows + x.shape[-2], columns : columns + x.shape[-1]]
    return x


# ---- the loop


@dataclass(frozen=True)
class Fitted:
    """A trained model, the validation loss after every epoch, and the precision that it was trained in."""

    model: Model
    losses: tuple[float, ...]
    precision: str


def pick_device(device: str = "auto") -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise MetamedError(f"device '{device}' is not available here (torch finds no GPU). Use --device cpu")
    return torch.device(device)


def _autocast(device: torch.device, precision: str):
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def choose_precision(model: Model, batch: torch.Tensor, device: torch.device) -> str:
    """bf16 on a GPU; on a CPU whatever a short probe finds faster, bf16 only by a clear margin.

    Measured on CPUs with bf16 units: 1.6-2.9x faster on dense convolutions, up to 2.6x slower on depthwise ones. The
    margin keeps the choice, and with it the result of a seed, the same from run to run.
    """
    if device.type == "cuda":
        return "bf16"
    key = (
        tuple(batch.shape),
        *(sum(p.numel() for p in model.parameters() if p.requires_grad is r) for r in (True, False)),
    )
    if key not in _PROBED:
        state = {k: v.clone() for k, v in model.state_dict().items()}
        seconds = {p: min(_step_seconds(model, batch, p) for _ in range(3)) for p in ("fp32", "bf16")}
        model.load_state_dict(state)  # the probe's steps moved the batch statistics
        model.zero_grad(set_to_none=True)
        _PROBED[key] = "bf16" if seconds["bf16"] < 0.7 * seconds["fp32"] else "fp32"
    return _PROBED[key]


_PROBED: dict[tuple, str] = {}  # one probe per network and batch shape in a process


def _step_seconds(model: Model, batch: torch.Tensor, precision: str) -> float:
    start = time.process_time()
    with _autocast(batch.device, precision):
        loss = model(batch).float().square().mean()
    if loss.requires_grad:
        loss.backward()
    return time.process_time() - start


def _set_training(model: nn.Module) -> None:
    """Training mode, except for frozen modules: their batch statistics must stay as the source left them."""
    for module in model.modules():
        own = list(module.parameters())
        module.training = not own or any(p.requires_grad for p in own)


def _optimiser(plan: Plan, setting: dict) -> torch.optim.Optimizer:
    for parameter in plan.module.parameters():
        parameter.requires_grad_(False)
    groups = []
    for parameters_, factor, first_epoch in plan.groups:
        for parameter in parameters_:
            parameter.requires_grad_(True)
        groups.append({"params": parameters_, "lr": setting["learning_rate"] * factor, "first_epoch": first_epoch})
    return torch.optim.AdamW(groups, weight_decay=setting["weight_decay"])


def _learning_rate(step: int, steps: int, warm: int) -> float:
    """One linear warm-up, then cosine decay to zero; as a factor."""
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + np.cos(np.pi * (step - warm) / max(steps - warm, 1)))


def _batches(n: int, size: int, generator: torch.Generator) -> Iterator[np.ndarray]:
    """Random batches of nearly equal size: never a last one of a single image, which batch statistics cannot take."""
    return iter(np.array_split(torch.randperm(n, generator=generator).numpy(), max(1, round(n / size))))


def seed_everything(seed: int) -> torch.Generator:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def fit(
    plan: Plan,
    x: np.ndarray,
    y: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray],
    *,
    setting: dict,
    loss: str = "classification",
    normalise: tuple | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    progress: Callable[[int, int, float], None] | None = None,
) -> Fitted:
    """Train `plan.module` on images x (n, C, s, s) with targets y, keeping the epoch with the least validation loss.

    setting: values for every name of `SPACE`. normalise: (mean, sd); from x if None. progress(epoch, epochs, loss).
    Stops early after half of the epochs (at least 5) without improvement.
    Raises FloatingPointError if the loss diverges.
    """
    on, generator = pick_device(device), seed_everything(seed)
    model = Model(plan.module, *(normalise or pixel_statistics(x))).to(on, memory_format=torch.channels_last)
    optimiser = _optimiser(plan, setting)
    images, targets = torch.from_numpy(x).to(on), torch.from_numpy(y).to(on)
    _set_training(model)
    if precision == "auto":
        precision = choose_precision(model, images[: setting["batch_size"]], on)
    epochs, per_epoch = setting["epochs"], max(1, round(len(x) / setting["batch_size"]))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: _learning_rate(step, epochs * per_epoch, max(1, per_epoch * epochs // 10))
    )
    losses, best, patience = [], None, max(5, epochs // 2)
    for epoch in range(epochs):
        _set_training(model)
        for batch in _batches(len(x), setting["batch_size"], generator):
            with _autocast(on, precision):
                logits = model(_augmented(images[batch], setting["augment"], generator))
            value = LOSSES[loss](logits.float(), targets[batch])
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            optimiser.step()
            schedule.step()
        losses.append(_loss_of(model, *validation, loss))
        if progress:
            progress(epoch + 1, epochs, losses[-1])
        if losses[-1] == min(losses):
            best = {k: v.detach().clone() for k, v in model.state_dict().items()}
        if epoch - int(np.argmin(losses)) >= patience:
            break
    model.load_state_dict(best)
    return Fitted(model.eval(), tuple(losses), precision)


def _loss_of(model: Model, x: np.ndarray, y: np.ndarray, loss: str) -> float:
    value = float(LOSSES[loss](torch.from_numpy(logits_of(model, x)), torch.from_numpy(y)))
    if not np.isfinite(value):
        raise FloatingPointError("training diverged: the validation loss is not finite. Lower the learning rate")
    return value


@torch.no_grad()
def logits_of(model: nn.Module, x: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """What `model` answers for images x, float32 (n, ...), batch by batch."""
    model.eval()
    on = next(iter(model.state_dict().values())).device
    parts = [
        model(torch.from_numpy(np.ascontiguousarray(x[i : i + batch_size])).to(on)).float().cpu().numpy()
        for i in range(0, len(x), batch_size)
    ]
    return np.concatenate(parts)


def probabilities(logits: np.ndarray, loss: str = "classification") -> np.ndarray:
    """Softmax over classes, or a sigmoid for each label if multi-label."""
    if loss == "multi-label":
        return 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
