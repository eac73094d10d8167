"""Networks with their preprocessing, and their weights in and out of files."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from pickle import UnpicklingError

import torch
import torch.nn.functional as F
from torch import nn

from metamed.errors import MetamedError

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# How a source's images were scaled: mean and sd of pixels in 0-1, and whether strided convolutions pad as TensorFlow
# does. The wrong one silently ruins the features (for the shipped weights: top-1 0.815 -> 0.63).
PREPROCESSING = {
    "half_same": ((0.5,) * 3, (0.5,) * 3, True),
    "imagenet": (*_IMAGENET, False),
    "own": (None, None, False),  # mean and sd lie in the weights' file
    "own_same": (None, None, True),
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


class Frozen(Model):
    """A network whose features are kept: rounded to half precision where they are, so that later ones are the same."""

    def __init__(self, net: nn.Module, mean, sd, *, half: bool = True):
        super().__init__(net, mean, sd)
        self.half_precision = half

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = super().forward(images)
        return features.half().float() if self.half_precision else features.float()


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


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from .safetensors, or from torchvision's .pth without executing anything in it."""
    if Path(path).suffix == ".pth":
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError:
            raise MetamedError(f"{path}: not read: it holds more than tensors") from None
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


_RENAMED = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")  # torchvision's DenseNet file: norm.1 is norm1 now


def load_encoder(encoder: nn.Module, state: dict[str, torch.Tensor], *, name: str) -> None:
    """Fill `encoder` from a state dict of torchvision's or of ours; every weight must be there and fit."""
    ours = "net.encoder.net."
    state = {_RENAMED.sub(r"\1\2", k.removeprefix(ours)): v for k, v in state.items()}
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
