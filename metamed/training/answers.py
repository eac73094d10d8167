"""What a trained setup says of images, as one module: kept weights in, probabilities out, and nothing else needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

from metamed.errors import MetamedError, MissingExtra
from metamed.training.weights import Model


class NetworkAnswer(nn.Module):
    """Images B x C x s x s, uint8 or float in 0-1 -> probabilities B x K, the weighted mean of one or more networks."""

    def __init__(self, models: Sequence[Model], weights: Sequence[float] = (1.0,), *, multi_label: bool = False):
        super().__init__()
        self.models, self.multi_label = nn.ModuleList(models), multi_label
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32) / sum(weights))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answers = [model(images) for model in self.models]
        answers = [a.sigmoid() if self.multi_label else a.softmax(1) for a in answers]
        return sum(weight * answer for weight, answer in zip(self.weights, answers, strict=True))


class ProbeAnswer(nn.Module):
    """The same for a probe: frozen encoders, their features side by side, and the fitted classifier as a module."""

    def __init__(self, encoders: Sequence[Model], head: nn.Module):
        super().__init__()
        self.encoders, self.head = nn.ModuleList(encoders), head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = torch.cat([encoder(images) for encoder in self.encoders], dim=1)
        return self.head(features.half().float())  # features are kept, and were fitted on, in half precision


def write_onnx(answer: nn.Module, images: np.ndarray, path: Path, about: Mapping[str, str]) -> None:
    """The module as an ONNX file: `images`, any number of them with the shape and type of these -> `probabilities`."""
    if not find_spec("onnxscript") or not find_spec("onnx"):
        raise MissingExtra("export to ONNX", "onnx and onnxscript", "onnx")
    n = torch.export.Dim("n", min=1)
    program = torch.onnx.export(
        answer.cpu().eval(), (torch.from_numpy(images),), dynamic_shapes=({0: n},), dynamo=True, verbose=False,
        input_names=["images"], output_names=["probabilities"],
    )  # fmt: skip
    program.model.metadata_props.update(about)
    try:
        program.save(path)
    except OSError as error:
        raise MetamedError(f"{path}: {error.strerror}") from None


def write_safetensors(answer: nn.Module, path: Path, about: Mapping[str, str]) -> None:
    """All tensors of the module in one file, with what they are as its metadata."""
    from safetensors.torch import save_file

    save_file({k: v.detach().cpu().contiguous().clone() for k, v in answer.state_dict().items()}, path, dict(about))
