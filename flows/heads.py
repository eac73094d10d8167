"""Fitted probes as modules on features: how their classifiers are kept in plain tensors, and exported."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from metamed.errors import MetamedError

NEVER = -1e4  # logit of a class that training did not see
_SAME = 1e-5  # distance below which two samples are one
_LEAST = 1e-7  # least probability, as probes answer


class Layers(nn.Module):
    """Features B x D -> probabilities B x K: standardised, then linear layers with ReLU between them."""

    def __init__(self, mean, scale, layers: Sequence[tuple], multi_label):
        super().__init__()
        _buffers(self, mean=mean, scale=scale, multi_label=torch.as_tensor(multi_label, dtype=torch.uint8))
        self.depth = len(layers)
        for n, (weight, bias) in enumerate(layers):
            _buffers(self, **{f"weight{n}": weight, f"bias{n}": bias})
        self._sigmoid = bool(multi_label)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = (features - self.mean) / self.scale
        for n in range(self.depth):
            x = x.relu() if n else x
            x = nn.functional.linear(x, getattr(self, f"weight{n}"), getattr(self, f"bias{n}"))
        return (x.sigmoid() if self._sigmoid else x.softmax(1)).clamp_min(_LEAST)


class Neighbours(nn.Module):
    """Features B x D -> probabilities B x K: votes of the k nearest points, weighted by inverse distance."""

    def __init__(self, mean, scale, points, votes, k):
        super().__init__()
        _buffers(self, mean=mean, scale=scale, points=points, votes=votes, k=torch.as_tensor(k, dtype=torch.int64))
        self._k = int(k)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = (features - self.mean) / self.scale
        distance, which = self._distances(x).topk(self._k, largest=False)
        same = distance < _SAME  # points that are the sample itself decide alone
        weight = torch.where(same.any(1, keepdim=True), same.float(), 1 / distance.clamp_min(_SAME))
        weight = weight / weight.sum(1, keepdim=True)
        return (weight.unsqueeze(-1) * self.votes[which]).sum(1).clamp_min(_LEAST)

    def _distances(self, x: torch.Tensor) -> torch.Tensor:
        x, points = x.double(), self.points.double()  # in double precision the short formula is exact enough
        squares = (x**2).sum(1, keepdim=True) + (points**2).sum(1) - 2 * x @ points.T
        return squares.clamp_min(0).sqrt().float()


def _buffers(module: nn.Module, **values) -> None:
    for name, value in values.items():
        tensor = value if isinstance(value, torch.Tensor) else torch.as_tensor(np.asarray(value, np.float32))
        module.register_buffer(name, tensor)


def head_of(probe) -> nn.Module:
    """The module of a fitted probe of `flows.classification`. Raises MetamedError for one that has none."""
    if hasattr(probe, "as_module"):
        return probe.as_module()
    scaler, classifier = (step for _, step in probe.pipeline.steps)
    multi_label = hasattr(classifier, "estimators_")  # one classifier for each label
    parts = classifier.estimators_ if multi_label else [classifier]
    fitted = next((p for p in parts if not hasattr(p, "y_")), None)  # others only ever saw one answer
    kept = (scaler.mean_, np.ones_like(scaler.mean_)) if hasattr(scaler, "matrix_") else (scaler.mean_, scaler.scale_)
    if hasattr(fitted, "_fit_X"):
        votes = _votes(parts, probe.n_classes, multi_label)
        return Neighbours(*kept, fitted._fit_X, votes, fitted.n_neighbors)
    if hasattr(fitted, "coef_") or hasattr(fitted, "coefs_"):
        if multi_label:
            layers = _side_by_side([_layers(p, fitted) for p in parts])
        else:
            *hidden, (weight, bias) = _layers(fitted, fitted)
            layers = [*hidden, _all_classes(weight, bias, fitted.classes_, probe.n_classes)]
        if hasattr(scaler, "matrix_"):  # features are brought into a space first: the first layer sees them through it
            layers = [(layers[0][0] @ scaler.matrix_.T, layers[0][1]), *layers[1:]]
        return Layers(*kept, layers, multi_label)
    raise MetamedError(f"{type(fitted).__name__} cannot be kept as tensors: only linear, MLP and k-NN probes can")


def _layers(part, like) -> list[tuple[np.ndarray, np.ndarray]]:
    """(weights, bias) of each layer; of a classifier that saw one answer, layers like another's that always give it."""
    if hasattr(part, "y_"):
        *hidden, (weight, _) = _layers(like, like)
        return [*hidden, (0 * weight, np.full(len(weight), -NEVER if part.y_[0] else NEVER))]
    if hasattr(part, "coef_"):
        return [(part.coef_, part.intercept_)]
    return [(w.T, b) for w, b in zip(part.coefs_, part.intercepts_, strict=True)]


def _side_by_side(networks: list[list[tuple]]) -> list[tuple]:
    """One network that computes several of the same depth at once: the first layer shares its input, others do not."""
    first, *later = zip(*networks, strict=True)
    stacked = [(np.concatenate([w for w, _ in first]), np.concatenate([b for _, b in first]))]
    for layer in later:
        weights = [w for w, _ in layer]
        block = np.zeros((sum(len(w) for w in weights), sum(w.shape[1] for w in weights)))
        row = column = 0
        for w in weights:
            block[row : row + len(w), column : column + w.shape[1]] = w
            row, column = row + len(w), column + w.shape[1]
        stacked.append((block, np.concatenate([b for _, b in layer])))
    return stacked


def _all_classes(weight: np.ndarray, bias: np.ndarray, seen: np.ndarray, n_classes: int) -> tuple:
    """The last layer with a row for every class; scikit-learn gives two classes a single row."""
    if len(weight) == 1:
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    full, shift = np.zeros((n_classes, weight.shape[1])), np.full(n_classes, NEVER)
    full[seen], shift[seen] = weight, bias
    return full, shift


def _votes(parts: list, n_classes: int, multi_label: bool) -> np.ndarray:
    """What each training point votes for: its class, or its labels."""
    if not multi_label:
        return np.eye(n_classes)[parts[0].classes_[parts[0]._y]]
    n = next(len(p._fit_X) for p in parts if hasattr(p, "_fit_X"))
    columns = [np.full(n, p.y_[0]) if hasattr(p, "y_") else p.classes_[p._y] for p in parts]
    return np.stack(columns, axis=1)


def head_from(state: dict[str, torch.Tensor]) -> nn.Module:
    """The module whose state dict this is."""
    if "points" in state:
        return Neighbours(*(state[name] for name in ("mean", "scale", "points", "votes", "k")))
    layers = [(state[f"weight{n}"], state[f"bias{n}"]) for n in range(sum(k.startswith("weight") for k in state))]
    return Layers(state["mean"], state["scale"], layers, state["multi_label"])
