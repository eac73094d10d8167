"""What people said of images, as a loss: of triplets compared in an embedding, of attributes estimated."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from metamed.judged import Judged
from metamed.methods import Assessed
from metamed.training.images import augmented
from metamed.training.loop import batches, descend, optimiser_of
from metamed.training.precision import autocast
from metamed.training.weights import Model


class Lesson:
    """Assessed images and what was said of them: a loss that a network which shares its encoder lowers.

    model: the one that is trained for labels; its preprocessing and device are used. images: those of `judged.index`,
    (n, C, s, s). own: the parameters that it does not share with that model.
    """

    def __init__(self, assessed: Assessed, judged: Judged, images: np.ndarray, model: Model, setting: dict):
        on = model.mean.device
        net = assessed.rate(len(judged.attributes)) if judged.triplets is None else assessed.embed
        self.model = Model(net, model.mean, model.sd).to(on, memory_format=torch.channels_last)
        shared = {id(p) for p in model.parameters()}
        self.own = [p for p in self.model.parameters() if id(p) not in shared]
        self.assessed, self.n, self.setting = assessed, len(judged), setting
        self.images, self.weights = torch.from_numpy(images).to(on), _float(judged.weights, on)
        self.triplets = None if judged.triplets is None else torch.from_numpy(judged.triplets).to(on)
        self.scores = None if judged.scores is None else _float(np.nan_to_num(judged.scores), on)

    def before(self, precision: str, generator: torch.Generator) -> None:
        """Pass over all answers `epochs` times, all parameters learning: what comes before labels."""
        self.model.requires_grad_(True).train()
        optimiser = optimiser_of(((self.model.parameters(), self.assessed.factor, 0),), self.setting)
        size = self._answers_of(self.setting["batch_size"])
        for _ in range(self.assessed.epochs):
            for batch in batches(self.n, size, generator):
                with autocast(self.images.device, precision):
                    value = self.loss(batch, generator)
                descend(optimiser, value)

    def beside(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """The weighted loss of answers drawn at random that show about `n` images."""
        drawn = torch.randint(self.n, (self._answers_of(n),), generator=generator).numpy()
        return self.assessed.weight * self.loss(drawn, generator)

    def _answers_of(self, images: int) -> int:
        return images if self.triplets is None else max(images // 3, 2)

    def loss(self, rows: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        """The mean loss of the answers at `rows`, each by its weight."""
        shown = torch.from_numpy(rows) if self.triplets is None else self.triplets[rows].T.flatten()
        given = self.model(augmented(self.images[shown], self.setting["augment"], generator)).float()
        if self.triplets is None:
            return (self.weights[shown] * (given - self.scores[shown]) ** 2).mean()
        return triplet_loss(*given.chunk(3), self.weights[rows])


def _float(values: np.ndarray, on: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, np.float32)).to(on)


def triplet_loss(anchor, closer, farther, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Soft margin (Hermans et al., 2017) of embeddings B x E: the mean of -log σ(distance to the farther image less
    that to the closer one)."""
    value = F.softplus(_distance(anchor, closer) - _distance(anchor, farther))
    return (value if weights is None else value * weights).mean()


def _distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return ((a - b) ** 2).sum(dim=1).clamp_min(1e-12).sqrt()  # the root has no gradient at 0


def preferred(embedding: np.ndarray, triplets: np.ndarray) -> np.ndarray:
    """Probability that the second image of each triplet (m, 3) is the closer one to the first, float32 (m,)."""
    anchor, one, other = embedding[triplets.T].astype(np.float64)
    near, far = (np.sqrt(((anchor - image) ** 2).sum(axis=1)) for image in (one, other))
    return (1 / (1 + np.exp(np.clip(near - far, -60, 60)))).astype(np.float32)
