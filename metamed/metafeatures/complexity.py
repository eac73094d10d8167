"""How the border between classes runs: complexity measures of classification problems, on the rows of the probe."""

from __future__ import annotations

import numpy as np

from metamed.metafeatures import metafeature
from metamed.metafeatures.probe import Probe


def spanning_tree(distances: np.ndarray) -> np.ndarray:
    """Edges of the minimum spanning tree, (n - 1, 2), by Prim's algorithm on dense distances (n, n)."""
    n = len(distances)
    nearest, parent, inside = distances[0].astype(np.float64), np.zeros(n, int), np.zeros(n, bool)
    inside[0] = True
    edges = np.zeros((n - 1, 2), int)
    for k in range(n - 1):
        new = np.where(inside, np.inf, nearest).argmin()
        edges[k] = parent[new], new
        inside[new] = True
        closer = distances[new] < nearest
        nearest[closer], parent[closer] = distances[new][closer], new
    return edges


def _labelled(probe: Probe) -> tuple[np.ndarray, np.ndarray]:
    known = np.flatnonzero(probe.one_hot.any(axis=1))
    return probe.distances[np.ix_(known, known)], probe.labels[known]


@metafeature("structure")
def border_points(probe: Probe) -> float:
    """Share of samples that the minimum spanning tree joins to one of another class: how many lie at the border.

    unit: share; range: 0 to 1; cost: distances; needs: classes; source: Lorena et al. 2019 (N1); Ho & Basu 2002.
    """
    distances, labels = _labelled(probe)
    edges = spanning_tree(distances)
    across = edges[labels[edges[:, 0]] != labels[edges[:, 1]]]
    return len(np.unique(across)) / len(labels)


@metafeature("structure")
def local_sets(probe: Probe) -> float:
    """1 less the mean share of samples (itself included) that are closer to a sample than its nearest enemy is: small
    if classes lie in wide clusters, near 1 if each sample has an enemy next to it.

    unit: share; range: 0 to 1; cost: distances; needs: classes; source: Lorena et al. 2019 (LSC); Leyva et al. 2014.
    """
    distances, labels = _labelled(probe)
    enemy = np.where(labels[:, None] == labels[None], np.inf, distances).min(axis=1)
    return 1 - ((distances < enemy[:, None]).sum() + len(labels)) / len(labels) ** 2
