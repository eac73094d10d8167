"""How a source dataset and a target dataset compare, from their stored vectors alone: no image is needed.

Ratios are source over target on a logarithmic scale, 0 where both are equal. Distances run over the columns that both
vectors have: differences over the scale given to `extract_pair`, or over |a| + |b| without one.
"""

from __future__ import annotations

import numpy as np

from metamed.dataset import modality_group
from metamed.errors import NotApplicable
from metamed.metafeatures import METAFEATURES, Pair, pair_metafeature

BEHAVIOUR = {  # simple classifiers by what they classify
    "bags": ("mean_pool_ridge", "extremes_ridge", "citation_nn", "instance_ridge", "witness_ridge"),
    "rows": ("one_nn", "nearest_centroid", "lda", "linear_probe", "small_sample_probe", "tiny_tree"),
}
QUANTILES = {"quantile_05": 0.05, "quantile_25": 0.25, "median": 0.5, "quantile_75": 0.75, "quantile_95": 0.95}


def _log_ratio(pair: Pair, *names: str) -> float:
    """log2 of the product of columns in the source over that in the target; NaN where one is missing."""
    source, target = np.prod([pair.numbers(name) for name in names], axis=0)
    return float(np.log2(source / target)) if source > 0 and target > 0 else np.nan


def _distance(pair: Pair, *groups: str) -> float:
    """Root mean square of the scaled differences over the columns of the groups."""
    columns = [c for f in METAFEATURES.values() if f.group in groups for c in f.columns]
    values = np.array([pair.numbers(column) for column in columns])
    scale = np.array([pair.scale.get(column, np.nan) for column in columns], np.float64)
    scale = np.where(scale > 0, scale, np.nan) if pair.scale else np.abs(values).sum(axis=1)
    difference = np.abs(values[:, 0] - values[:, 1])
    scaled = np.where(difference == 0, 0, difference / np.where(scale > 0, scale, np.nan))
    scaled = scaled[np.isfinite(scaled)]
    if len(scaled) == 0:
        raise NotApplicable(f"no {' or '.join(groups)} column in both vectors")
    return float(np.sqrt((scaled**2).mean()))


@pair_metafeature("similarity")
def size_ratio(pair: Pair) -> float:
    """Samples of the source over samples of the target.

    unit: doublings; range: -inf to inf; cost: stored vectors; needs: n_samples; source: Cherti & Jitsev 2021.
    """
    return _log_ratio(pair, "n_samples")


@pair_metafeature("similarity")
def class_ratio(pair: Pair) -> float:
    """Classes of the source over classes of the target.

    unit: doublings; range: -inf to inf; cost: stored vectors; needs: n_classes; source: Huh et al. 2016 (1608.08614).
    """
    return _log_ratio(pair, "n_classes")


@pair_metafeature("similarity")
def samples_per_class_ratio(pair: Pair) -> float:
    """Samples per class of the source over those of the target.

    unit: doublings; range: -inf to inf; cost: stored vectors; needs: samples_per_class; source: Huh et al. 2016.
    """
    return _log_ratio(pair, "samples_per_class")


@pair_metafeature("similarity")
def resolution_ratio(pair: Pair) -> float:
    """Pixels of a source image over pixels of a target image.

    unit: doublings; range: -inf to inf; cost: stored vectors; needs: height, width; source: Ozturk et al. 2022 (ZAP).
    """
    return _log_ratio(pair, "height", "width")


@pair_metafeature("similarity")
def imbalance_change(pair: Pair) -> float:
    """Imbalance ratio of the source over that of the target.

    unit: doublings; range: -inf to inf; cost: stored vectors; needs: imbalance_ratio; source: Ozturk et al. 2022 (ZAP).
    """
    return _log_ratio(pair, "imbalance_ratio")


@pair_metafeature("similarity")
def dimension_ratio(pair: Pair) -> float:
    """Intrinsic dimension (TwoNN) of the source over that of the target.

    unit: doublings; range: -inf to inf; cost: stored vectors; needs: two_nn; source: Konz & Mazurowski 2024.
    """
    return _log_ratio(pair, "two_nn")


@pair_metafeature("similarity")
def same_channels(pair: Pair) -> float:
    """1 if both have the same number of channels, else 0.

    unit: yes or no; range: 0 to 1; cost: stored vectors; needs: n_channels; source: Ozturk et al. 2022 (ZAP).
    """
    source, target = pair.numbers("n_channels")
    return np.nan if np.isnan(source + target) else float(source == target)


@pair_metafeature("similarity")
def same_modality(pair: Pair) -> float:
    """1 if both modalities are of one group (x-ray, mri, fundus ...), else 0.

    unit: yes or no; range: 0 to 1; cost: stored vectors; needs: modality; source: Mei et al. 2022 (RadImageNet).
    """
    source, target = map(modality_group, pair.words("modality"))
    return float(source == target)


@pair_metafeature("similarity")
def same_organ(pair: Pair) -> float:
    """1 if both show the same organ, else 0.

    unit: yes or no; range: 0 to 1; cost: stored vectors; needs: organ; source: Mei et al. 2022 (RadImageNet).
    """
    source, target = (word.strip().lower() for word in pair.words("organ"))
    return float(source == target)


@pair_metafeature("similarity")
def intensity_distance(pair: Pair) -> float:
    """Distance over the intensity and colour meta-features.

    unit: scales; range: 0 to inf; cost: stored vectors; needs: intensity; source: van Sonsbeek & Cheplygina 2020.
    """
    return _distance(pair, "intensity")


@pair_metafeature("similarity")
def texture_distance(pair: Pair) -> float:
    """Distance over the texture meta-features.

    unit: scales; range: 0 to inf; cost: stored vectors; needs: texture; source: Konz et al. 2024 (FRD, 2412.01496).
    """
    return _distance(pair, "texture")


@pair_metafeature("similarity")
def structure_distance(pair: Pair) -> float:
    """Distance over the structure meta-features: intrinsic dimension, class separation, symmetry.

    unit: scales; range: 0 to inf; cost: stored vectors; needs: structure; source: Konz & Mazurowski 2024 (2401.08865).
    """
    return _distance(pair, "structure")


@pair_metafeature("similarity")
def landmark_distance(pair: Pair) -> float:
    """Distance over the landmarkers: datasets on which the same simple models do well.

    unit: scales; range: 0 to inf; cost: stored vectors; needs: landmarking; source: Cheplygina & Tax 2018 (1806.08186).
    """
    return _distance(pair, "landmarking")


@pair_metafeature("similarity")
def image_distance(pair: Pair) -> float:
    """Distance over all meta-features of the pixels: intensity, texture and structure together.

    unit: scales; range: 0 to inf; cost: stored vectors; needs: any of them; source: van Sonsbeek & Cheplygina 2020.
    """
    return _distance(pair, "intensity", "texture", "structure")


@pair_metafeature("similarity")
def shape_distance(pair: Pair) -> float:
    """Distance over the segmentation meta-features: targets of like size, number and shape.

    unit: scales; range: 0 to inf; cost: stored vectors; needs: segmentation; source: here, after Isensee et al. 2021.
    """
    return _distance(pair, "segmentation")


@pair_metafeature("similarity")
def bag_distance(pair: Pair) -> float:
    """Distance over the meta-features of bags: sizes, composition, ambiguity.

    unit: scales; range: 0 to inf; cost: stored vectors; needs: bags; source: Carbonneau et al. 2018, arXiv 1612.03365.
    """
    return _distance(pair, "bags")


@pair_metafeature("similarity")
def behaviour_distance(pair: Pair) -> float:
    """Root mean square difference of what simple classifiers reach, from chance (0) to all right (1): small where the
    same models work. Those of bags where both have bags, else the landmarkers.

    unit: share; range: 0 to inf; cost: stored vectors; needs: landmarking, n_classes; source: Cheplygina et al. 2017
    (classifiers' performance as a description); Cheplygina & Tax 2018, arXiv 1806.08186.
    """
    chance = 1 / np.maximum(pair.numbers("n_classes"), 2)
    for names in BEHAVIOUR.values():
        skill = (np.array([pair.numbers(f"{name}.mean") for name in names]) - chance) / (1 - chance)
        difference = skill[:, 0] - skill[:, 1]
        difference = difference[np.isfinite(difference)]
        if len(difference):
            return float(np.sqrt((difference**2).mean()))
    raise NotApplicable("no classifier in both vectors")


@pair_metafeature("similarity")
def histogram_distance(pair: Pair) -> float:
    """Distance of the mean grey-level distributions between their 5 % and 95 % quantiles (Wasserstein-1, from the five
    stored quantiles): how far grey has to be moved.

    unit: grey (0-1); range: 0 to 1; cost: stored vectors; needs: intensity; source: Rubner et al. 2000 (earth mover).
    """
    values = np.array([pair.numbers(f"{name}.mean") for name in QUANTILES])
    if np.isnan(values).any():
        raise NotApplicable("no quantiles in both vectors")
    level, apart = np.array(list(QUANTILES.values())), values[:, 0] - values[:, 1]
    fine = np.interp(np.linspace(level[0], level[-1], 361), level, apart)
    return float(np.abs(fine).mean())


@pair_metafeature("similarity")
def frechet_statistics(pair: Pair) -> float:
    """Frechet distance of the image statistics as independent Gaussians, root of its mean over columns: means and
    deviations over images from both vectors, each column over its scale, or its deviation within the two datasets.

    unit: scales; range: 0 to inf; cost: stored vectors; needs: intensity, texture; source: Konz et al. 2024 (FRD),
    arXiv 2412.01496; here with a diagonal covariance.
    """
    names = [f.name for f in METAFEATURES.values() if f.per_image and f.group in ("intensity", "texture")]
    mean = np.array([pair.numbers(f"{name}.mean") for name in names])
    deviation = np.array([pair.numbers(f"{name}.sd") for name in names])
    scale = np.sqrt((deviation**2).mean(axis=1))
    if pair.scale:
        scale = np.array([pair.scale.get(f"{name}.mean", np.nan) for name in names], np.float64)
    squared = (mean[:, 0] - mean[:, 1]) ** 2 + (deviation[:, 0] - deviation[:, 1]) ** 2
    squared = np.where(squared == 0, 0, squared / np.where(scale > 0, scale, np.nan) ** 2)
    squared = squared[np.isfinite(squared)]
    if len(squared) == 0:
        raise NotApplicable("no intensity or texture column in both vectors")
    return float(np.sqrt(squared.mean()))
