"""Whether an annotator is predicted by the others, and whether he contradicts himself."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from metamed.assessments import Ratings, Triplets, informative
from metamed.crowd.consensus import consensus
from metamed.crowd.embedding import embed
from metamed.crowd.quality import Quality, kind_of
from metamed.errors import NotApplicable

PARTS = 10  # of the annotators: what nine tenths of them say judges the rest, at ten times the cost of one fit


def left_out(
    assessments: Triplets | Ratings, attribute: Hashable | None = None, *, dimensions: int = 2, seed: int = 0
) -> dict[Hashable, Quality]:
    """Of each annotator who persists: the share of his answers that is what the others' answers say, with Wilson's 95 %
    interval. His own answers have no say; what others get wrong counts against him, so that it is lower than
    `annotator_quality`, and needs no belief about him.

    What others say is the consensus of their ratings of one `attribute`, or an embedding of their triplets; of more
    than ten annotators, nine in ten are the others. Answers to what nobody else judged do not count; without any, it is
    NaN.
    """
    if isinstance(assessments, Ratings):
        rows = np.asarray(assessments.attribute) == attribute if attribute is not None else slice(None)
        kept = assessments.take(np.arange(len(assessments))[rows])
        agrees = _agree_with_consensus
    else:
        kept = informative(assessments)
        agrees = _agree_with_embedding
    names = list(dict.fromkeys(np.asarray(kept.annotator)[kept.persistent].tolist()))
    order = np.random.default_rng(seed).permutation(len(names))
    parts = np.array_split(order, max(1, min(PARTS, len(names))))
    who = np.asarray(kept.annotator)
    found = {}
    for part in parts:
        own = np.isin(who, [names[k] for k in part]) & kept.persistent
        same = _same(agrees, kept, own, dimensions, seed)
        found |= {names[k]: _share(same[who[own] == names[k]]) for k in part}
    return {name: found[name] for name in names}


def _same(agrees, kept: Triplets | Ratings, own: np.ndarray, dimensions: int, seed: int) -> np.ndarray:
    """Of each of `own` answers: 1 what the others say, 0 not, NaN they say nothing."""
    try:
        return agrees(kept.take(~own), kept.take(own), dimensions, seed)
    except NotApplicable:  # there are no others
        return np.full(int(own.sum()), np.nan)


def _agree_with_consensus(others: Ratings, own: Ratings, dimensions: int, seed: int) -> np.ndarray:
    found = consensus(others, None, seed=seed)
    label = dict(zip(found.images.tolist(), found.label.tolist(), strict=True))
    said = np.array([label.get(image, np.nan) for image in np.asarray(own.image).tolist()], float)
    return np.where(np.isnan(said), np.nan, said == np.asarray(own.score, float))


def _agree_with_embedding(others: Triplets, own: Triplets, dimensions: int, seed: int) -> np.ndarray:
    columns = own.anchor, own.closer, own.farther
    named = [part for part in (*columns, others.anchor, others.closer, others.farther) if len(part)]
    images = 1 + max(int(np.max(part)) for part in named)
    share = embed(others, dimensions, seed=seed, images=images).probability(*columns)
    return np.where(share == 0.5, np.nan, share > 0.5)


def _share(same: np.ndarray) -> Quality:
    """Wilson's interval."""
    known = same[np.isfinite(same)]
    n, z = len(known), 1.96
    if n == 0:
        return Quality(np.nan, np.nan, np.nan, 0)
    share = float(known.mean())
    middle, half = share + z**2 / (2 * n), z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    low, high = (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)
    return Quality(share, low, high, n, kind=kind_of(low, high, 0.0))


def transitivity(triplets: Triplets) -> dict[Hashable, float]:
    """Of each annotator who persists, the share of his comparisons of two distances that lie on no circle (x < y < z <
    x): 1 for whoever has one order in mind, NaN where his comparisons could not form a circle.

    Each distance is a node, each answer an arrow from the shorter to the longer; circles are strong components.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    triplets, found = informative(triplets), {}
    own = triplets.take(triplets.persistent)
    for name in dict.fromkeys(np.asarray(own.annotator).tolist()):
        mine = own.take(np.asarray(own.annotator) == name)
        ends = np.stack([np.sort(np.stack([mine.anchor, other]), axis=0) for other in (mine.closer, mine.farther)])
        pairs, node = np.unique(np.concatenate(list(ends), axis=1), axis=1, return_inverse=True)
        short, long = node.reshape(2, -1)
        arrows = coo_array((np.ones(len(short)), (short, long)), shape=(pairs.shape[1],) * 2)
        pieces, _ = connected_components(arrows, directed=False)
        _, circle = connected_components(arrows, connection="strong")
        forest = len(short) == pairs.shape[1] - pieces  # as few arrows as hold its pieces together
        found[name] = np.nan if forest else float((circle[short] != circle[long]).mean())
    return found
