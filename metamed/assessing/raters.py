"""How good raters are: do they order images as the others do?"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from metamed.assessing.values import ranked
from metamed.assessments import Ratings
from metamed.crowd import Quality

MOST_IMAGES = 400  # of a rater and attribute, drawn at random beyond: all their pairs are looked at
RESAMPLED = 200
NARROW = 0.3  # width of an interval around 0.5 that tells a guesser


def rater_quality(ratings: Ratings, seed: int = 0) -> dict[Hashable, Quality]:
    """Of each rater, the probability that he puts two images, which the others put in an order, in the same order.

    0.5 is guessing, an inverter lies below. The mean over attributes, by their pairs; the interval by drawing images
    with replacement. Scales need not be alike: orders alone count. Slots have none (kind "slot").
    """
    rng, names, found = np.random.default_rng(seed), np.asarray(ratings.annotator), {}
    slots = set(names[~ratings.persistent].tolist())
    who = np.unique(names, return_inverse=True)[1].ravel()
    counts = np.zeros((who.max(initial=0) + 1, 2, RESAMPLED + 1))
    what, rank = np.asarray(ratings.attribute).astype(str), ranked(ratings)
    for attribute in np.unique(what):
        rows = what == attribute
        for person, own, others in _means(ratings.image[rows], who[rows], rank[rows]):
            counts[person] += _pairs(own, others, rng)
    for person, name in enumerate(np.unique(names).tolist()):
        answers = int((who == person).sum())
        slot = Quality(np.nan, np.nan, np.nan, answers, kind="slot")
        found[name] = slot if name in slots else _quality(counts[person], answers)
    return found


def _means(image: np.ndarray, who: np.ndarray, rank: np.ndarray):
    """(annotator, his mean rank of each image, that of the others) of images that he and others rated."""
    place = np.unique(image, return_inverse=True)[1].ravel()
    n = place.max() + 1
    total, count = np.bincount(place, rank, n), np.bincount(place, minlength=n)
    for person in np.unique(who):
        mine = who == person
        own, times = np.bincount(place[mine], rank[mine], n), np.bincount(place[mine], minlength=n)
        both = (times > 0) & (count > times)
        yield person, (own / np.maximum(times, 1))[both], ((total - own) / np.maximum(count - times, 1))[both]


def _pairs(own: np.ndarray, others: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(pairs in the order of the others, pairs in either order): first of all images, then of images drawn again."""
    if len(own) > MOST_IMAGES:
        chosen = rng.choice(len(own), MOST_IMAGES, replace=False)
        own, others = own[chosen], others[chosen]
    n = len(own)
    product = np.sign(own[:, None] - own) * np.sign(others[:, None] - others)
    drawn = rng.multinomial(n, np.full(n, 1 / n), RESAMPLED) if n else np.zeros((RESAMPLED, 0))
    weight = np.vstack([np.ones(n), drawn]).astype(float)
    return np.stack([((weight @ sign) * weight).sum(axis=1) for sign in (product > 0, product != 0)])


def _quality(counts: np.ndarray, answers: int) -> Quality:
    alike, all_ = counts
    if all_[0] == 0:
        return Quality(np.nan, 0.0, 1.0, answers)
    share = np.divide(alike, all_, out=np.full(len(all_), 0.5), where=all_ > 0)
    low, high = np.quantile(share[1:], [0.025, 0.975])
    kind = "informed" if low > 0.5 else "inverter" if high < 0.5 else "guesser" if high - low < NARROW else "unknown"
    return Quality(float(share[0]), float(low), float(high), answers, kind=kind)
