"""Facts of size and task. The first seven are the names that published datasets without images carry too."""

from __future__ import annotations

import numpy as np

from metamed.dataset import UNLABELLED
from metamed.errors import NotApplicable
from metamed.metafeatures import metafeature
from metamed.metafeatures.probe import Probe


def class_counts(probe: Probe) -> np.ndarray:
    """Labelled samples of each class, largest first; pixels of each class in a segmentation; at least one class."""
    return probe.once(_class_counts)


def _class_counts(probe: Probe) -> np.ndarray:
    dataset = probe.dataset
    if dataset.target is not None:
        known = dataset.target[dataset.labelled]
        counts = known.sum(axis=0) if known.ndim == 2 else np.bincount(known.astype(int))
    elif dataset.masks is not None:
        pixels = [np.bincount(np.ravel(dataset.masks[int(index)])) for index in probe.indices]
        counts = np.zeros(max(map(len, pixels)))
        for image in pixels:
            counts[: len(image)] += image
    else:
        raise NotApplicable(f"{dataset.name} has no classes")
    counts = np.sort(counts[counts > 0])[::-1]
    if len(counts) == 0:
        raise NotApplicable(f"{dataset.name} has no labelled sample")
    return counts


def _shape(probe: Probe, axis: int) -> int:
    if not probe.has_images:
        raise NotApplicable(f"{probe.dataset.name} holds feature vectors")
    return probe.dataset.images.shape[axis]


@metafeature("general")
def n_samples(probe: Probe) -> float:
    """Number of labelled samples (images, or bags); of all samples where there is no target.

    unit: samples; range: 0 to inf; cost: facts; needs: nothing; source: Brazdil et al. 2008, Metalearning.
    """
    return probe.dataset.n_samples if probe.dataset.target is None else len(probe.dataset.labelled)


@metafeature("general")
def n_classes(probe: Probe) -> float:
    """Number of classes (labels, if multi-label; mask values, if segmented); 0 without any.

    unit: classes; range: 0 to inf; cost: facts; needs: nothing; source: Brazdil et al. 2008, Metalearning.
    """
    return probe.dataset.n_classes


@metafeature("general")
def n_channels(probe: Probe) -> float:
    """Channels of an image as stored: 1 grey, 3 colour.

    unit: channels; range: 1 to inf; cost: facts; needs: images; source: Ozturk et al. 2022 (ZAP), arXiv 2206.08476.
    """
    return _shape(probe, 1)


@metafeature("general")
def height(probe: Probe) -> float:
    """Rows of an image as read.

    unit: pixels; range: 1 to inf; cost: facts; needs: images; source: Ozturk et al. 2022 (ZAP), arXiv 2206.08476.
    """
    return _shape(probe, -2)


@metafeature("general")
def width(probe: Probe) -> float:
    """Columns of an image as read.

    unit: pixels; range: 1 to inf; cost: facts; needs: images; source: Ozturk et al. 2022 (ZAP), arXiv 2206.08476.
    """
    return _shape(probe, -1)


@metafeature("general")
def imbalance_ratio(probe: Probe) -> float:
    """Samples of the largest class over those of the smallest that occurs (pixels, if segmented).

    unit: ratio; range: 1 to inf; cost: facts; needs: labels; source: Orriols-Puig & Bernado-Mansilla 2009.
    """
    counts = class_counts(probe)
    return counts[0] / counts[-1]


@metafeature("general")
def samples_per_class(probe: Probe) -> float:
    """Labelled samples over the number of classes that occur; of segmentations, images over classes.

    unit: samples; range: 0 to inf; cost: facts; needs: labels; source: Ozturk et al. 2022 (ZAP), arXiv 2206.08476.
    """
    return n_samples(probe) / len(class_counts(probe))


@metafeature("general")
def smallest_class(probe: Probe) -> float:
    """Labelled samples of the smallest class that occurs: what the hardest class can be learned from.

    unit: samples; range: 1 to inf; cost: facts; needs: target; source: Orriols-Puig & Bernado-Mansilla 2009.
    """
    if probe.dataset.target is None:
        raise NotApplicable(f"{probe.dataset.name} has no target")
    return class_counts(probe)[-1]


@metafeature("general")
def minority_fraction(probe: Probe) -> float:
    """Share of the smallest class among the classes' samples (pixels, if segmented).

    unit: share; range: 0 to 1; cost: facts; needs: labels; source: Orriols-Puig & Bernado-Mansilla 2009.
    """
    counts = class_counts(probe)
    return counts[-1] / counts.sum()


@metafeature("general")
def majority_fraction(probe: Probe) -> float:
    """Share of the largest class: the accuracy of always answering it.

    unit: share; range: 0 to 1; cost: facts; needs: labels; source: Brazdil et al. 2008, Metalearning.
    """
    counts = class_counts(probe)
    return counts[0] / counts.sum()


@metafeature("general")
def class_entropy(probe: Probe) -> float:
    """Shannon entropy of the class shares over its maximum: 1 is balanced, 0 a single class.

    unit: share; range: 0 to 1; cost: facts; needs: labels; source: Michie et al. 1994 (StatLog).
    """
    shares = class_counts(probe) / class_counts(probe).sum()
    return -(shares * np.log(shares)).sum() / np.log(len(shares)) if len(shares) > 1 else 0.0


@metafeature("general")
def labels_per_sample(probe: Probe) -> float:
    """Mean number of labels that hold at once: 1 unless multi-label (label cardinality).

    unit: labels; range: 0 to inf; cost: facts; needs: target; source: Tsoumakas & Katakis 2007.
    """
    if probe.dataset.target is None or len(probe.dataset.labelled) == 0:
        raise NotApplicable(f"{probe.dataset.name} has no target")
    return probe.dataset.target[probe.dataset.labelled].sum(axis=1).mean() if probe.dataset.multi_label else 1.0


@metafeature("general")
def missing_labels(probe: Probe) -> float:
    """Share of samples without a label.

    unit: share; range: 0 to 1; cost: facts; needs: target; source: Cheplygina et al. 2019, Not-so-supervised.
    """
    target = probe.dataset.target
    if target is None or len(probe.dataset.labelled) == 0:
        raise NotApplicable(f"{probe.dataset.name} has no target")
    return float((target == UNLABELLED).reshape(len(target), -1).any(axis=1).mean())


@metafeature("general")
def n_groups(probe: Probe) -> float:
    """Number of patients (or other units that a split may not divide); of samples where none are known.

    unit: groups; range: 1 to inf; cost: facts; needs: nothing; source: Kapoor & Narayanan 2023, leakage.
    """
    groups = probe.dataset.groups
    return probe.dataset.n_samples if groups is None else len(np.unique(groups))


@metafeature("general")
def samples_per_group(probe: Probe) -> float:
    """Mean number of samples of a patient (or other unit); 1 where none are known.

    unit: samples; range: 1 to inf; cost: facts; needs: nothing; source: Kapoor & Narayanan 2023, leakage.
    """
    return probe.dataset.n_samples / n_groups(probe)


@metafeature("general")
def images_per_sample(probe: Probe) -> float:
    """Mean number of images that make a sample: 1, or the mean size of a bag.

    unit: images; range: 0 to inf; cost: facts; needs: nothing; source: Carbonneau et al. 2018, arXiv 1612.03365.
    """
    return len(probe.dataset.images) / probe.dataset.n_samples


@metafeature("general")
def n_features(probe: Probe) -> float:
    """Numbers that describe one image: channels times pixels, or the length of the feature vector.

    unit: values; range: 1 to inf; cost: facts; needs: nothing; source: Brazdil et al. 2008, Metalearning.
    """
    return float(np.prod(probe.dataset.images.shape[1:]))


@metafeature("general")
def dimensionality(probe: Probe) -> float:
    """Numbers that describe one image over the number of images.

    unit: ratio; range: 0 to inf; cost: facts; needs: nothing; source: Michie et al. 1994 (StatLog).
    """
    return n_features(probe) / len(probe.dataset.images)


@metafeature("general")
def depth(probe: Probe) -> float:
    """Slices of a volume; 1 for flat images.

    unit: slices; range: 1 to inf; cost: facts; needs: images; source: Isensee et al. 2021 (nnU-Net fingerprint).
    """
    _shape(probe, -1)
    return _shape(probe, 2) if len(probe.dataset.images.shape) == 5 else 1


@metafeature("general")
def aspect_ratio(probe: Probe) -> float:
    """Longer over shorter side of an image as read.

    unit: ratio; range: 1 to inf; cost: facts; needs: images; source: Isensee et al. 2021 (nnU-Net fingerprint).
    """
    return max(height(probe), width(probe)) / min(height(probe), width(probe))


@metafeature("general")
def bit_depth(probe: Probe) -> float:
    """Bits of a stored value: 8, 16, 32 or 64. The one feature that tells 8 from 16 bit copies of the same images.

    unit: bits; range: 1 to 128; cost: facts; needs: nothing; source: Isensee et al. 2021 (nnU-Net fingerprint).
    """
    return np.dtype(probe.dataset.images.dtype).itemsize * 8


@metafeature("general")
def size_spread(probe: Probe) -> float:
    """Relative standard deviation of the native image areas; 0 where all files have one size.

    unit: ratio; range: 0 to inf; cost: facts; needs: images; source: Isensee et al. 2021 (nnU-Net fingerprint).
    """
    _shape(probe, -1)
    sizes = getattr(probe.dataset.images, "sizes", None)
    if sizes is None:
        return 0.0
    areas = np.sort(np.prod(np.asarray(sizes, np.float64), axis=1))
    return areas.std() / areas.mean()


@metafeature("general")
def spacing(probe: Probe) -> float:
    """Mean extent of a pixel within the slice.

    unit: mm; range: 0 to inf; cost: facts; needs: spacing; source: Isensee et al. 2021 (nnU-Net fingerprint).
    """
    if not probe.dataset.card.spacing:
        raise NotApplicable(f"{probe.dataset.name}: spacing is unknown")
    return float(np.mean(probe.dataset.card.spacing[-2:]))


@metafeature("general")
def anisotropy(probe: Probe) -> float:
    """Largest over smallest extent of a pixel or voxel.

    unit: ratio; range: 1 to inf; cost: facts; needs: spacing; source: Isensee et al. 2021 (nnU-Net fingerprint).
    """
    if not probe.dataset.card.spacing:
        raise NotApplicable(f"{probe.dataset.name}: spacing is unknown")
    return max(probe.dataset.card.spacing) / min(probe.dataset.card.spacing)
