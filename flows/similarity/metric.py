"""A linear metric on frozen features, learned from triplets: the baseline of every triplet network."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from torch import nn

from metamed.flows.networks import NETWORKS
from metamed.methods import Believed, Choice, Float, Keep, Quality, Shape, method


class LinearMetric:
    """Weights of squared differences along principal components (Schultz & Joachims, 2003).

    fit(x, triplets, weights): features (n, D) of images that triplets, int (m, 3), refer to by their rows as anchor,
    closer, farther. embed(x): features in which Euclidean distances are the learned ones, float32 (n, components).
    """

    def __init__(self, components: int, c: float, towards: str, believed: Believed | None = None):
        self.components, self.c, self.towards = components, c, towards
        self.believed = believed or Believed("triplets")

    def fit(self, x: np.ndarray, triplets: np.ndarray, weights: np.ndarray | None = None) -> LinearMetric:
        self.mean, basis = principal_components(x, self.components)
        z = (x - self.mean) @ basis
        scale = np.sqrt((z**2).sum(axis=1).mean() * 2) or 1.0  # two images are at a mean squared distance of 1
        margins = _margins(z / scale, triplets)
        w = _weights(margins, np.ones(len(triplets)) if weights is None else weights, self.c,
                     1.0 if self.towards == "equal" else 0.0)  # fmt: skip
        self.matrix = (basis * np.sqrt(w) / scale).astype(np.float32)
        return self

    def as_module(self) -> Embedded:
        return Embedded(torch.from_numpy(np.asarray(self.mean, np.float32)), torch.from_numpy(self.matrix))

    def embed(self, x: np.ndarray) -> np.ndarray:
        return ((x - self.mean) @ self.matrix).astype(np.float32)


class Embedded(nn.Module):
    """Features B x D -> coordinates B x k, by a fitted metric."""

    def __init__(self, mean: torch.Tensor, matrix: torch.Tensor):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("matrix", matrix)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return (features - self.mean) @ self.matrix


def principal_components(x: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and the first directions (D, k) of greatest variance of x (n, D), at most `most` of them."""
    mean = x.mean(axis=0)
    _, values, directions = np.linalg.svd(x - mean, full_matrices=False)
    kept = min(most, int((values > 1e-6 * values[:1]).sum()))
    return mean, directions[: max(kept, 1)].T


def _margins(z: np.ndarray, triplets: np.ndarray) -> np.ndarray:
    """Squared difference to the farther image less that to the closer one, along every component (m, k)."""
    anchor, closer, farther = z[triplets.T]
    return (anchor - farther) ** 2 - (anchor - closer) ** 2


def _weights(margins: np.ndarray, counts: np.ndarray, c: float, centre: float) -> np.ndarray:
    """Non-negative weights (k,) of least ½|w - centre|² + c Σ (squared hinge of how far each margin lies below 1)."""
    from scipy.optimize import minimize

    def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
        missing = np.maximum(1 - margins @ w, 0)
        gradient = w - centre - 2 * c * margins.T @ (counts * missing)
        return 0.5 * ((w - centre) ** 2).sum() + c * (counts * missing**2).sum(), gradient

    start = np.full(margins.shape[1], 1.0)
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(start))
    return found.x if found.x.any() else start  # no weight at all would call every pair the same


@method("similarity", version=1, name="probe.metric", assessed=True)
def metric(
    shape: Shape,
    *,
    network: Annotated[str, Choice(*NETWORKS)] = "mobilenet_v2",
    components: Annotated[int, Choice(8, 16, 32, 64, 128, 256)] = 64,
    c: Annotated[float, Float(1e-4, 1e2, log=True)] = 0.1,
    towards: Annotated[str, Choice("equal", "none")] = "equal",
    keep: Keep = "all",
    minimum_quality: Quality = 0.5,
) -> LinearMetric:
    """A weighted Euclidean distance between the principal components of frozen features (Schultz & Joachims, 2003).

    `c` is the price of a violated triplet against departing from `equal` weights, or from `none` as in the paper.
    """
    return LinearMetric(components, c, towards, Believed("triplets", keep, minimum_quality))
