"""Images that repeat: copies flatter every estimate where a split puts them on both sides.

Copies have difference hashes within 16 of 256 bits (and within a quarter of the bits set: drawings and tiny images set
few) and thumbnails that correlate above 0.99: hashes alone take one digit, or fundus, for another. At most 1000 images,
spread over the sample, are compared with all of the sample. Turned, mirrored or cropped copies are not found.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from metamed.dataset import UNLABELLED, spread
from metamed.errors import NotApplicable
from metamed.metafeatures import metafeature
from metamed.metafeatures.probe import Probe

ASKED, BLOCK = 1000, 4096
FEW_BITS, LIKENESS = 16, 0.99


def _copies(probe: Probe) -> Iterator[tuple[np.ndarray, slice, np.ndarray]]:
    """(images that are asked about, some of all images, whether the one repeats the other), block by block."""
    packed, thumbnails = probe.statistics["hash"], probe.statistics["thumbnail"]
    asked = spread(len(packed), ASKED)
    view = _unit(thumbnails[asked])
    own = np.unpackbits(packed[asked], axis=1).astype(np.float32)
    ones = own.sum(axis=1)
    within = np.where(ones > FEW_BITS, np.minimum(FEW_BITS, ones / 4), -1)[:, None]  # flat images are no copies
    for start in range(0, len(packed), BLOCK):
        part = slice(start, min(start + BLOCK, len(packed)))
        bits = np.unpackbits(packed[part], axis=1).astype(np.float32)
        alike = ones[:, None] + bits.sum(axis=1) - 2 * own @ bits.T <= within
        alike &= view @ _unit(thumbnails[part]).T > LIKENESS  # block by block: memory stays
        alike &= asked[:, None] != np.arange(part.start, part.stop)
        yield asked, part, alike


def _unit(thumbnails: np.ndarray) -> np.ndarray:
    """Thumbnails less their mean and over their length, float32 (n, 256): products are correlations."""
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def _owned(probe: Probe, values: np.ndarray | None) -> np.ndarray:
    """A column of the samples (labels, groups) by image, as integers; -1 where it is unknown."""
    samples = probe.image_indices if probe.dataset.bags is None else probe.dataset.bags[probe.image_indices]
    if values is None:
        return np.full(len(samples), UNLABELLED)
    return np.where(values == UNLABELLED, UNLABELLED, values)[samples]


def _shares(probe: Probe) -> tuple[float, float, float]:
    """Share of the images with a copy, with one of another class, with one of another group; NaN where unknown."""
    groups = probe.dataset.groups
    codes = None if groups is None else np.unique(groups, return_inverse=True)[1]
    owners = [_owned(probe, probe.bag_labels), _owned(probe, codes)]
    found = [False, False, False]
    for asked, part, alike in _copies(probe):
        found[0] |= alike.any(axis=1)
        for k, owner in enumerate(owners, 1):
            unlike = (owner[asked][:, None] != owner[part]) & (owner[part] != UNLABELLED)
            found[k] |= (alike & unlike).any(axis=1)
    known = [np.full(len(asked), True), *(owner[asked] != UNLABELLED for owner in owners)]
    return tuple(float(f[k].mean()) if k.any() else np.nan for f, k in zip(found, known, strict=True))


@metafeature("general")
def near_duplicate_rate(probe: Probe) -> float:
    """Share of images that another one repeats.

    unit: share; range: 0 to 1; cost: distances; needs: images; source: Zauner 2010 (difference hash), Cassidy et al.
    2022 (copies in ISIC).
    """
    return probe.once(_shares)[0]


@metafeature("structure")
def class_duplicates(probe: Probe) -> float:
    """Share of labelled images that one of another class repeats: labels that contradict each other.

    unit: share; range: 0 to 1; cost: distances; needs: images, target; source: Northcutt et al. 2021, arXiv 2103.14749.
    """
    share = probe.once(_shares)[1]
    if np.isnan(share):
        raise NotApplicable(f"{probe.dataset.name} has no labelled image")
    return share


@metafeature("structure")
def group_duplicates(probe: Probe) -> float:
    """Share of images that one of another patient (group) repeats: a leak that splitting by group does not stop.

    unit: share; range: 0 to 1; cost: distances; needs: images, groups; source: Kapoor & Narayanan 2023, leakage.
    """
    share = probe.once(_shares)[2]
    if np.isnan(share):
        raise NotApplicable(f"{probe.dataset.name}: groups are unknown")
    return share
