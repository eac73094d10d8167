"""How images lie in the eyes of a frozen network: the structure and landmarking features on embeddings. Opt-in.

This room knows no network: `extract(..., deep=True, embed=...)` is given one, as a function of images or as embeddings
that are already there (`metamed.sources.embedder` makes such a function). At most 2000 images are embedded; distances
and landmarkers see them standardised and projected onto 256 columns, a bag as the mean of its images.
"""

from __future__ import annotations

import numpy as np

from metamed.dataset import ArrayImages, Card, Dataset, spread, take
from metamed.errors import MetamedError, NotApplicable
from metamed.metafeatures import landmarking, metafeature, structure
from metamed.metafeatures.probe import ROWS, Probe

AT_ONCE = 256  # images in memory while they are embedded

deep_feature = metafeature("deep", deep=True)


def _chosen(probe: Probe) -> np.ndarray:
    return probe.indices[spread(len(probe.indices), ROWS)]


def _embeddings(probe: Probe) -> np.ndarray:
    """Embeddings of the chosen images, float64 (n, d)."""
    dataset, chosen = probe.dataset, _chosen(probe)
    if probe.embed is None:
        raise MetamedError("deep meta-features need embeddings. Pass embed=metamed.sources.embedder() or an array")
    if not callable(probe.embed):
        given = np.asarray(probe.embed)
        if given.ndim != 2 or len(given) != len(dataset.images):
            n = len(dataset.images)
            raise MetamedError(f"embed has shape {given.shape}. Pass a matrix with a row for each of the {n} images")
        return given[chosen].astype(np.float64)
    if not probe.has_images:
        raise NotApplicable(f"{dataset.name} holds feature vectors, not images")
    parts = np.array_split(chosen, max(1, -(-len(chosen) // AT_ONCE)))
    return np.concatenate([probe.embed(ArrayImages(take(dataset.images, part))) for part in parts]).astype(np.float64)


def embedded(probe: Probe) -> Probe:
    """The same samples with embeddings for images."""
    dataset, chosen = probe.dataset, _chosen(probe)
    samples, bags = chosen, None
    if dataset.bags is not None:
        samples, bags = np.unique(dataset.bags[chosen], return_inverse=True)
    target, groups = (None if values is None else values[samples] for values in (dataset.target, dataset.groups))
    vectors = ArrayImages(probe.once(_embeddings))
    return Probe(Dataset(dataset.name, vectors, target, bags=bags, groups=groups, card=Card()), None, probe.seed)


def _spectrum(probe: Probe) -> np.ndarray:
    """Shares of variance of the embeddings' principal components, largest first, before any projection."""
    values = probe.once(_embeddings)
    centred = values - values.mean(axis=0)
    gram = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    energy = np.maximum(np.linalg.eigvalsh(gram)[::-1], 0)
    return energy / energy.sum() if energy.sum() > 1e-9 else np.ones(1)


def _sorted(values: np.ndarray) -> np.ndarray:
    return np.sort(values)  # sums do not depend on the order of the images


@deep_feature
def deep_norm(probe: Probe) -> np.ndarray:
    """Length of each embedding over the root of its number of columns: how strongly the network answers.

    unit: activation; range: 0 to inf; cost: network; needs: embeddings; source: Ranjan et al. 2017 (feature norms).
    """
    return _sorted(np.sqrt((probe.once(_embeddings) ** 2).mean(axis=1)))


@deep_feature
def deep_sparsity(probe: Probe) -> np.ndarray:
    """Share of the columns of each embedding that are 0: silent detectors of a network with rectified outputs.

    unit: share; range: 0 to 1; cost: network; needs: embeddings; source: van Sonsbeek & Cheplygina 2020.
    """
    return _sorted((probe.once(_embeddings) == 0).mean(axis=1))


@deep_feature
def deep_column_mean(probe: Probe) -> float:
    """Mean over all columns of all embeddings.

    unit: activation; range: -inf to inf; cost: network; needs: embeddings; source: van Sonsbeek & Cheplygina 2020.
    """
    return np.sort(probe.once(_embeddings).mean(axis=1)).mean()


@deep_feature
def deep_column_spread(probe: Probe) -> float:
    """Deviation of a column over the images, over its mean absolute value, mean over the columns: variety.

    unit: ratio; range: 0 to inf; cost: network; needs: embeddings; source: van Sonsbeek & Cheplygina 2020.
    """
    values = np.sort(probe.once(_embeddings), axis=0)
    size = np.abs(values).mean(axis=0)
    return np.divide(values.std(axis=0), size, out=np.zeros_like(size), where=size > 1e-9).mean()


@deep_feature
def deep_cosine(probe: Probe) -> float:
    """Mean cosine between the embeddings of two images: 1 if all look alike to the network.

    unit: cosine; range: -1 to 1; cost: network; needs: embeddings, two samples; source: Ethayarajh 2019 (anisotropy).
    """
    values = probe.once(_embeddings)
    if len(values) < 2:
        raise NotApplicable(f"{probe.dataset.name} has fewer than two images")
    unit = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    total = (np.sort(unit, axis=0).sum(axis=0) ** 2).sum() - np.sort((unit**2).sum(axis=1)).sum()
    return total / (len(unit) * (len(unit) - 1))


@deep_feature
def deep_effective_rank(probe: Probe) -> float:
    """Exponential of the entropy of the components' shares of variance of the embeddings.

    unit: components; range: 1 to inf; cost: network; needs: embeddings; source: Roy & Vetterli 2007; RankMe 2023.
    """
    p = probe.once(_spectrum)
    return float(np.exp(-(p * np.log(np.where(p > 0, p, 1))).sum()))


@deep_feature
def deep_pca_dimension(probe: Probe) -> float:
    """Principal components that hold 95 % of the variance of the embeddings.

    unit: components; range: 1 to inf; cost: network; needs: embeddings; source: Lorena et al. 2019 (T3).
    """
    return 1 + int(np.searchsorted(np.cumsum(probe.once(_spectrum)), 0.95 - 1e-9))


@deep_feature
def deep_pca_first(probe: Probe) -> float:
    """Share of the embeddings' variance in their first principal component.

    unit: share; range: 0 to 1; cost: network; needs: embeddings; source: Brazdil et al. 2008, Metalearning.
    """
    return probe.once(_spectrum)[0]


@deep_feature
def deep_two_nn(probe: Probe) -> float:
    """Intrinsic dimension of the embeddings from the ratio of the distances to the two nearest neighbours.

    unit: dimensions; range: 0 to inf; cost: network; needs: embeddings, variety; source: Facco et al. 2017.
    """
    return structure.two_nn(probe.once(embedded))


@deep_feature
def deep_mle_dimension(probe: Probe) -> float:
    """Intrinsic dimension of the embeddings by maximum likelihood from up to 20 neighbours.

    unit: dimensions; range: 0 to inf; cost: network; needs: embeddings, variety; source: Konz & Mazurowski 2024.
    """
    return structure.mle_dimension(probe.once(embedded))


@deep_feature
def deep_hubness(probe: Probe) -> float:
    """Skewness of how often a sample is among the 10 nearest neighbours of others, by embeddings.

    unit: none; range: -inf to inf; cost: network; needs: embeddings, two samples; source: Radovanovic et al. 2010.
    """
    return structure.hubness(probe.once(embedded))


@deep_feature
def deep_label_sharpness(probe: Probe) -> float:
    """Mean distance of all pairs of embeddings over the smallest between two classes; at most 1000.

    unit: ratio; range: 0 to 1000; cost: network; needs: embeddings, classes; source: Konz & Mazurowski 2024.
    """
    return structure.label_sharpness(probe.once(embedded))


@deep_feature
def deep_fisher_ratio(probe: Probe) -> float:
    """Between-class over within-class variance of the embeddings, summed over columns.

    unit: ratio; range: 0 to inf; cost: network; needs: embeddings, classes, variety within classes;
    source: Fisher 1936.
    """
    return structure.fisher_ratio(probe.once(embedded))


@deep_feature
def deep_separability(probe: Probe) -> float:
    """Mean silhouette of the classes in the embeddings.

    unit: none; range: -1 to 1; cost: network; needs: embeddings, classes; source: Rousseeuw 1987.
    """
    return structure.class_separability(probe.once(embedded))


@deep_feature
def deep_one_nn(probe: Probe) -> np.ndarray:
    """Balanced accuracy of the nearest neighbour by embeddings; patients kept apart.

    unit: share; range: 0 to 1; cost: network; needs: embeddings, two groups with classes; source: arXiv 2503.18528.
    """
    return landmarking.one_nn(probe.once(embedded))


@deep_feature
def deep_linear_probe(probe: Probe) -> np.ndarray:
    """Balanced accuracy of ridge regression on embeddings; patients kept apart.

    unit: share; range: 0 to 1; cost: network; needs: embeddings, two groups with classes; source: Alain & Bengio 2016.
    """
    return landmarking.linear_probe(probe.once(embedded))


@deep_feature
def deep_linear_probe_auc(probe: Probe) -> np.ndarray:
    """Area under the ROC curve of ridge regression on embeddings; patients kept apart.

    unit: AUC; range: 0 to 1; cost: network; needs: embeddings, two groups with classes; source: Alain & Bengio 2016.
    """
    return landmarking.linear_probe_auc(probe.once(embedded))
