"""What a trained setup says of images, as one module: kept weights in, probabilities out, and nothing else needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from metamed.errors import MetamedError, MissingExtra
from metamed.training.weights import Frozen, Model


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

    def __init__(self, encoders: Sequence[Frozen], head: nn.Module):
        super().__init__()
        self.encoders, self.head = nn.ModuleList(encoders), head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([encoder(images) for encoder in self.encoders], dim=1))


class BagAnswer(nn.Module):
    """Bags B x N x D or B x N x C x s x s and their mask B x N -> probabilities B x K, and how much each instance
    speaks for a finding, B x N, minus infinity where padded.

    encoders: the frozen ones, whose features side by side the network of bags takes; none where it takes the instances.
    """

    def __init__(self, model: Model, encoders: Sequence[Frozen] = ()):
        super().__init__()
        self.model, self.encoders = model, nn.ModuleList(encoders)

    def forward(self, instances: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if len(self.encoders):
            parts = [encoder(instances.flatten(0, 1)) for encoder in self.encoders]
            instances = torch.cat(parts, dim=1).unflatten(0, mask.shape)
        net = self.model.net
        features = net.features(self.model.scaled(instances), None)  # of padding too: no head looks at it
        return net.head(features, mask).softmax(1), net.head.scores(features, mask).masked_fill(~mask, -torch.inf)


def write_onnx(
    answer: nn.Module, given: Mapping[str, np.ndarray], said: Sequence[str], free: Sequence[str], path: Path,
    about: Mapping[str, str],
) -> None:  # fmt: skip
    """The module as an ONNX file.

    given: what it takes, by name, with an example of each, at least two long where free. said: names of what it
    answers. free: names of the first axes of all that is given, which may have any length.
    """
    if not find_spec("onnxscript") or not find_spec("onnx"):
        raise MissingExtra("export to ONNX", "onnx and onnxscript", "onnx")
    axes = {i: torch.export.Dim(name, min=1) for i, name in enumerate(free)}
    program = torch.onnx.export(
        answer.cpu().eval(), tuple(torch.from_numpy(example) for example in given.values()),
        dynamic_shapes=(axes,) * len(given), dynamo=True, verbose=False, input_names=list(given),
        output_names=list(said),
    )  # fmt: skip
    program.model.metadata_props.update(about)
    try:
        program.save(path)
    except OSError as error:
        raise MetamedError(f"{path}: {error.strerror}") from None


def write_safetensors(state: Mapping[str, Any], path: Path, about: Mapping[str, str]) -> None:
    """Tensors or arrays in one file, with what they are as its metadata."""
    from safetensors.torch import save

    tensors = {k: torch.as_tensor(v).detach().cpu().contiguous().clone() for k, v in state.items()}
    try:
        path.write_bytes(save(tensors, dict(about)))  # its own save_file lets nobody else read the file
    except OSError as error:
        raise MetamedError(f"{path}: {error.strerror}") from None
