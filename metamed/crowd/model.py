"""Images and annotators together: what is believed before any answer, and what is sought after them.

Before any answer, positions are normal with mean squared distance 1; so the unit of length is a typical distance, and
slopes are per typical distance. Of ten annotators six are taken for informed (slopes around 7, widely), three for
guessers (around 0, narrowly) and one for an inverter; biases are N(0, 1.5^2), lapses around 5 %, from 1 to 26 % in 95
of 100. All is sought as one vector in units about as wide as what is believed: there all directions are equally steep.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metamed.crowd.answers import Answers
from metamed.crowd.likelihood import likelihood

MEAN, SD = np.array([3.0, 0.0, -3.0]), np.array([4.0, 1.5, 1.0])  # units of slope, bias, log odds of a lapse
SHARE, SLOPE, SLOPE_SD = np.array([0.6, 0.3, 0.1]), np.array([7.0, 0.0, -7.0]), np.array([5.0, 1.0, 5.0])
LEAST = 0.002  # lapse: what one answer can say stays bounded
ALIKE = 4.0  # slope of annotators of whom nothing is known yet


@dataclass(frozen=True, eq=False)
class Model:
    """The posterior density of positions (images, dimensions) and traits (annotators, 3), given answers."""

    answers: Answers
    dimensions: int

    @property
    def coordinates(self) -> int:
        return self.answers.images * self.dimensions

    @property
    def size(self) -> int:
        return self.coordinates + len(MEAN) * len(self.answers.names)

    @property
    def spread(self) -> float:
        """Standard deviation of a coordinate before any answer."""
        return (2 * self.dimensions) ** -0.5

    def position(self, vector: np.ndarray) -> np.ndarray:
        """Of the images, (images, dimensions), in a vector."""
        return vector[: self.coordinates].reshape(-1, self.dimensions) * self.spread

    def traits(self, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(traits, their derivatives), (annotators, 3), of the part of a vector that follows the positions."""
        traits = MEAN + SD * part.reshape(-1, len(MEAN))
        traits[:, 2] = LEAST + (1 - LEAST) / (1 + np.exp(-traits[:, 2]))
        slope = np.tile(SD, (len(traits), 1))
        slope[:, 2] *= (traits[:, 2] - LEAST) * (1 - traits[:, 2]) / (1 - LEAST)
        return traits, slope

    def prior(self, part: np.ndarray) -> tuple[float, np.ndarray]:
        """(log density of traits before any answer up to a constant, its gradient)."""
        part = part.reshape(-1, len(MEAN))
        off = (MEAN[0] + SD[0] * part[:, :1] - SLOPE) / SLOPE_SD
        each = SHARE / SLOPE_SD * np.exp(-(off**2) / 2) + 1e-300
        total = each.sum(axis=1)
        gradient = -part
        gradient[:, 0] = -(each * off / SLOPE_SD).sum(axis=1) / total * SD[0]
        return float(np.log(total).sum() - (part[:, 1:] ** 2).sum() / 2), gradient.ravel()

    def vector(self, position: np.ndarray, slope: float | np.ndarray) -> np.ndarray:
        """The vector of positions and of annotators with these slopes, otherwise as expected."""
        traits = np.zeros((len(self.answers.names), len(MEAN)))
        traits[:, 0] = (slope - MEAN[0]) / SD[0]
        return np.concatenate([position.ravel() / self.spread, traits.ravel()])

    def density(self, vector: np.ndarray, weight: float = 1.0) -> tuple[float, np.ndarray]:
        """(log of the posterior density up to a constant, its gradient); the answers count `weight` times.

        Below 1 everybody is believed to be like anybody else, N(3, 4^2): were inverters as welcome as they are later,
        all annotators could turn round together while positions are still vague, and never back.
        """
        where, part = vector[: self.coordinates], vector[self.coordinates :]
        traits, slope = self.traits(part)
        value, to_position, to_traits = likelihood(self.answers, self.position(vector), traits)
        prior, to_prior = self.prior(part) if weight == 1 else (-part @ part / 2, -part)
        gradient = [weight * to_position.ravel() * self.spread - where, weight * (to_traits * slope).ravel() + to_prior]
        return weight * value - where @ where / 2 + prior, np.concatenate(gradient)

    def random(self, rng: np.random.Generator) -> np.ndarray:
        """Positions as before any answer, annotators alike and informed: a vector to start from."""
        return self.vector(rng.normal(size=self.coordinates) * self.spread, ALIKE)
