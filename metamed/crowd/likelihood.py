"""How probable the answers are, given where the images lie and what their annotators are like, with gradients.

An annotator shown `anchor` and two others says that `closer` is closer with probability

    (1 - lapse) * sigmoid(slope * (d(anchor, farther) - d(anchor, closer)) + side * bias) + lapse / 2

with Euclidean distances d; side is 1 where `closer` was shown left, -1 right, 0 unknown. A guesser's slope is 0, an
inverter's negative; who prefers a side has a bias. Lapses bound what a single answer can do. Slope, bias and lapse are
an annotator's traits, (annotators, 3).
"""

from __future__ import annotations

import numpy as np

from metamed.crowd.answers import Answers

VERSION = 1  # of triplets.c: a build of another one is not used


def _compiled():
    """The compiled module, or None: it lies beside the package, so that a checkout finds the installed one too."""
    try:
        import _metamed_triplets
    except ImportError:
        return None
    return _metamed_triplets if _metamed_triplets.VERSION == VERSION else None


COMPILED = _compiled()


def likelihood(answers: Answers, position: np.ndarray, traits: np.ndarray, compiled=COMPILED):
    """(log-likelihood, its gradients to position (n, d) and to traits (annotators, 3)); lapses are 0.001 or more."""
    if compiled is None:
        return _plain(answers, position, traits)
    position, traits = (np.ascontiguousarray(part, np.float64) for part in (position, traits))
    gradients, dimensions = (np.zeros_like(position), np.zeros_like(traits)), position.shape[1]
    columns = (answers.anchor, answers.closer, answers.farther, answers.annotator, answers.side)
    total = compiled.likelihood(dimensions, *columns, position, traits, *gradients, np.empty(2 * dimensions))
    return total, *gradients


def _towards(position: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(distance (n,), its gradient to the first, (d, n)): the unit vector from the second, 0 at distance 0."""
    vector = (position[first] - position[second]).T
    length = np.sqrt((vector**2).sum(axis=0))
    return length, vector / np.where(length > 0, length, 1)


def _plain(answers: Answers, position: np.ndarray, traits: np.ndarray):
    """The same in numpy: sums over answers by `bincount`, one dimension at a time."""
    (far, to_far), (near, to_near) = (_towards(position, answers.anchor, x) for x in (answers.farther, answers.closer))
    slope, bias, lapse = traits[answers.annotator].T
    gap = far - near
    z = slope * gap + answers.side * bias
    tail = np.exp(-np.abs(z))
    share = 1 / (1 + tail)
    looking = np.where(z > 0, share, tail * share)
    probability = lapse / 2 + (1 - lapse) * looking
    rise = (1 - lapse) * tail * share**2 / probability
    pull = rise * slope
    index = np.concatenate([answers.anchor, answers.closer, answers.farther])
    parts = (np.concatenate([pull * (f - c), pull * c, -pull * f]) for f, c in zip(to_far, to_near, strict=True))
    to_position = np.stack([np.bincount(index, part, minlength=len(position)) for part in parts], axis=1)
    columns = (rise * gap, rise * answers.side, (0.5 - looking) / probability)
    to_traits = np.stack([np.bincount(answers.annotator, part, minlength=len(traits)) for part in columns], axis=1)
    return float(np.log(probability).sum()), to_position, to_traits
