"""Images and annotators together: what is believed before any answer, and what is sought after them.

Before any answer, positions are normal with mean squared distance 1; so the unit of length is a typical distance, and
slopes are per typical distance. Traits of annotators: slopes N(3, 4^2), wide enough for inverters and experts; biases
N(0, 1.5^2); lapses around 5 %, from 1 to 26 % in 95 of 100. Everything is sought in units of the priors, as one
vector: there all directions are about equally steep.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metamed.crowd.answers import Answers
from metamed.crowd.likelihood import likelihood

MEAN, SD = np.array([3.0, 0.0, -3.0]), np.array([4.0, 1.5, 1.0])  # of slope, bias, log odds of a lapse
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
        return -part @ part / 2, -part

    def vector(self, position: np.ndarray, slope: float | np.ndarray) -> np.ndarray:
        """The vector of positions and of annotators with these slopes, otherwise as expected."""
        traits = np.zeros((len(self.answers.names), len(MEAN)))
        traits[:, 0] = (slope - MEAN[0]) / SD[0]
        return np.concatenate([position.ravel() / self.spread, traits.ravel()])

    def density(self, vector: np.ndarray, weight: float = 1.0) -> tuple[float, np.ndarray]:
        """(log of the posterior density up to a constant, its gradient); the answers count `weight` times."""
        where, part = vector[: self.coordinates], vector[self.coordinates :]
        traits, slope = self.traits(part)
        value, to_position, to_traits = likelihood(self.answers, self.position(vector), traits)
        prior, to_prior = self.prior(part)
        gradient = [weight * to_position.ravel() * self.spread - where, weight * (to_traits * slope).ravel() + to_prior]
        return weight * value - where @ where / 2 + prior, np.concatenate(gradient)

    def random(self, rng: np.random.Generator) -> np.ndarray:
        """Positions as before any answer, annotators alike and informed: a vector to start from."""
        return self.vector(rng.normal(size=self.coordinates) * self.spread, ALIKE)
