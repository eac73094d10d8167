"""What is to be segmented: how large, how many, how round, how visible, and how predictable its place is.

Foreground is every mask value above 0. Values are per image; images without foreground count only where that is said.
"""

from __future__ import annotations

import numpy as np

from metamed.errors import NotApplicable
from metamed.metafeatures import metafeature
from metamed.metafeatures.masks import mask_statistics
from metamed.metafeatures.probe import Probe

shape_feature = metafeature("segmentation", kinds=["segmentation"])


def _measured(probe: Probe) -> dict[str, np.ndarray]:
    """Statistics of the masks of all images looked at, by the names of `masks.mask_statistics`."""
    blocks = [mask_statistics(masks, level) for level, masks in probe.labelled_blocks()]
    table = {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}
    order = np.lexsort(tuple(table[key] for key in ("row", "column", "components", "boundary", "fraction")))
    return {key: values[order] for key, values in table.items()}  # sums then do not depend on the order of the images


def _known(probe: Probe, key: str) -> np.ndarray:
    """A statistic of the images that have it."""
    values = probe.once(_measured)[key]
    values = values[np.isfinite(values)]
    if len(values) == 0:
        raise NotApplicable(f"{probe.dataset.name}: no mask has a {key}")
    return values


@shape_feature
def foreground_fraction(probe: Probe) -> np.ndarray:
    """Share of foreground pixels of each image, empty ones included: small targets are hard to find.

    unit: share; range: 0 to 1; cost: pixels; needs: masks; source: Isensee et al. 2021 (nnU-Net fingerprint).
    """
    return _known(probe, "fraction")


@shape_feature
def empty_masks(probe: Probe) -> float:
    """Share of images without any foreground.

    unit: share; range: 0 to 1; cost: pixels; needs: masks; source: Isensee et al. 2021 (nnU-Net fingerprint).
    """
    return (_known(probe, "fraction") == 0).mean()


@shape_feature
def classes_per_image(probe: Probe) -> np.ndarray:
    """Foreground classes that occur in each image, 0 in empty ones.

    unit: classes; range: 0 to inf; cost: pixels; needs: masks; source: Isensee et al. 2021 (nnU-Net fingerprint).
    """
    return _known(probe, "classes")


@shape_feature
def component_count(probe: Probe) -> np.ndarray:
    """Connected regions of one class in each image (corners connect), 0 in empty ones.

    unit: regions; range: 0 to inf; cost: pixels; needs: masks; source: Rosenfeld & Pfaltz 1966.
    """
    return _known(probe, "components")


@shape_feature
def component_size(probe: Probe) -> np.ndarray:
    """Mean area of an image's regions, as a share of the image.

    unit: share; range: 0 to 1; cost: pixels; needs: masks, foreground; source: Isensee et al. 2021 (nnU-Net).
    """
    return _known(probe, "size")


@shape_feature
def component_spread(probe: Probe) -> np.ndarray:
    """Standard deviation of the areas of an image's regions over their mean; 0 for a single one.

    unit: ratio; range: 0 to inf; cost: pixels; needs: masks, foreground; source: Isensee et al. 2021 (nnU-Net).
    """
    return _known(probe, "size_spread")


@shape_feature
def largest_component(probe: Probe) -> np.ndarray:
    """Share of an image's foreground in its largest region: 1 if there is one object, small if many equal ones.

    unit: share; range: 0 to 1; cost: pixels; needs: masks, foreground; source: Isensee et al. 2021 (nnU-Net).
    """
    return _known(probe, "largest")


@shape_feature
def boundary_ratio(probe: Probe) -> np.ndarray:
    """Foreground pixels that have a neighbour (of four) of another value, over all foreground pixels: 1 if thin.

    unit: share; range: 0 to 1; cost: pixels; needs: masks, foreground; source: Kervadec et al. 2019 (boundary loss).
    """
    return _known(probe, "boundary")


@shape_feature
def compactness(probe: Probe) -> np.ndarray:
    """Isoperimetric quotient 4 pi area / perimeter^2 (Crofton) of the regions, weighted by area: 1 a disc, 0 a thread.

    unit: share; range: 0 to 1; cost: pixels; needs: masks, foreground; source: Cox 1927; Crofton 1868.
    """
    return _known(probe, "compactness")


@shape_feature
def fractal_dimension(probe: Probe) -> np.ndarray:
    """Box-counting dimension of the outline: 1 smooth, towards 2 if it fills the plane; images from 8 pixels a side.

    unit: dimensions; range: 0 to 2; cost: pixels; needs: masks, outline; source: Mandelbrot 1967.
    """
    return _known(probe, "dimension")


@shape_feature
def foreground_contrast(probe: Probe) -> np.ndarray:
    """Mean grey of foreground minus that of background over the deviation within both, without sign: visible if large.

    unit: deviations; range: 0 to inf; cost: pixels; needs: masks, outline; source: Cohen 1988 (d).
    """
    return _known(probe, "contrast")


@shape_feature
def foreground_brighter(probe: Probe) -> float:
    """Share of images whose foreground is brighter than their background: 0 and 1 are predictable.

    unit: share; range: 0 to 1; cost: pixels; needs: masks, outline; source: here.
    """
    return _known(probe, "brighter").mean()


@shape_feature
def edge_contrast(probe: Probe) -> np.ndarray:
    """Mean grey step between neighbouring pixels of unlike value over that between equal ones: 1 if no edge is seen.

    unit: ratio; range: 0 to inf; cost: pixels; needs: masks, outline; source: here, after Kervadec et al. 2019.
    """
    return _known(probe, "edge")


@shape_feature
def class_adjacency(probe: Probe) -> np.ndarray:
    """Share of the borders between unlike pixels that lie between two foreground classes, not at the background.

    unit: share; range: 0 to 1; cost: pixels; needs: masks, outline; source: here, after region adjacency graphs.
    """
    return _known(probe, "adjacency")


@shape_feature
def mask_symmetry(probe: Probe) -> np.ndarray:
    """Dice of the foreground with its left-right mirror image.

    unit: Dice; range: 0 to 1; cost: pixels; needs: masks, foreground; source: Dice 1945; symmetry: here.
    """
    return _known(probe, "symmetry")


@shape_feature
def border_touch(probe: Probe) -> float:
    """Share of the images with foreground in which it reaches the image's border: cut off, or without surroundings.

    unit: share; range: 0 to 1; cost: pixels; needs: masks, foreground; source: here.
    """
    return _known(probe, "touching").mean()


@shape_feature
def position_spread(probe: Probe) -> float:
    """Deviation of the foreground's centre over images, root of the sum of both axes, in shares of the image's sides.

    unit: share; range: 0 to 0.7072; cost: pixels; needs: masks, foreground; source: here.
    """
    return float(np.hypot(_known(probe, "row").std(), _known(probe, "column").std()))


@shape_feature
def location_entropy(probe: Probe) -> float:
    """Entropy of foreground or background given the place (16 x 16 cells, mean over images), over that without: 1 if
    the place tells nothing, 0 if it tells all.

    unit: share; range: 0 to 1; cost: pixels; needs: masks, outline; source: here, after Shannon 1948.
    """
    prior = probe.once(_measured)["prior"].mean(axis=0)
    whole = _binary_entropy(prior.mean())
    if whole <= 1e-12:
        raise NotApplicable(f"{probe.dataset.name}: all masks are empty or full")
    return float(_binary_entropy(prior).mean() / whole)


def _binary_entropy(share: np.ndarray) -> np.ndarray:
    share = np.clip(share, 0, 1)
    return -sum(p * np.log2(np.where(p > 0, p, 1)) for p in (share, 1 - share))
