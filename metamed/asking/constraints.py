"""Answers about instances as constraints on what a variant learns from, so that any variant can take them.

An instance whose class is known is a bag of its own, with that class. Where an instance of a bag with a finding is
none, the finding must lie in the rest: it leaves the bag. So no variant needs code for answers, and what it learns from
is still bags and their classes. (Bags that hold the instance as often as other bags have instances, or three of them
for each answer, were tried on sets of flowers and photographs: no better.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from metamed.trust import Learn, Model


def constrained(
    bags: Sequence[np.ndarray],
    target: np.ndarray,
    members: Sequence[np.ndarray],
    answers: Mapping[int, int],
) -> tuple[list[np.ndarray], np.ndarray]:
    """(bags, their classes) with the answers in them. members: of each bag, the numbers of its instances.

    answers: number of an instance -> class; those of instances in no bag here count for nothing. A bag of which nothing
    would be left stays as it is: its class contradicts the answers, and which is wrong cannot be told.
    """
    out, more, classes = [], [], []
    for bag, k, numbers in zip(bags, target, members, strict=True):
        said = np.array([answers.get(int(i), -1) for i in numbers])
        stays = (said < 0) | (said == k) | (k == 0)
        out.append(bag[stays] if stays.any() and not stays.all() else bag)
        for place in np.flatnonzero(said >= 0):
            more.append(bag[place : place + 1])
            classes.append(said[place])
    return out + more, np.concatenate([np.asarray(target, np.int64), np.array(classes, np.int64)])


def learn_with(
    learn: Learn,
    bags: Sequence[np.ndarray],
    target: np.ndarray,
    members: Sequence[np.ndarray],
    answers: Mapping[int, int],
    seed: int = 0,
) -> Model:
    """A model of bags that also knows the answers."""
    return learn(*constrained(bags, target, members, answers), seed)
