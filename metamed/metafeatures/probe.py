"""A dataset seen through one fixed subsample, with everything that several meta-features need computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np

from metamed.dataset import UNLABELLED, Dataset, Images, grey, spread, take
from metamed.errors import NotApplicable
from metamed.metafeatures import kernels
from metamed.metafeatures.kernels import HALF, measure_blocks

READ = 2**25  # values asked of the reader at once
ROWS = 2000  # rows in a distance matrix
COLUMNS = 256  # columns of a row: as many as a thumbnail has cells
NEIGHBOURS = 20
FOLDS = 5
Embed = Callable[[Images], np.ndarray]  # images -> embeddings (n, d): a frozen network
_TABLES = ("quantiles", "histogram", "patterns", "thumbnail", "hash")  # statistics with more than one value an image


class Probe:
    """A dataset, looked at through at most `max_samples` samples (None: all) drawn with `seed`.

    Images are read in one streaming pass that keeps statistics and thumbnails only. Volumes are seen on their middle
    slice. Grey levels lie in 0-1: uint8 over 255, uint16 over 65535, others by the sample's minimum and maximum where
    they leave 0-1; missing and infinite values count as 0. All is put in an order of content: that of the images does
    not matter.
    """

    def __init__(
        self, dataset: Dataset, max_samples: int | None = 5000, seed: int = 0, embed: Embed | np.ndarray | None = None
    ):
        self.dataset, self.seed, self.embed = dataset, seed, embed
        self.max_samples = len(dataset.images) if max_samples is None else max_samples
        self._known = {}

    def once(self, compute: Callable[[Probe], Any]) -> Any:
        """`compute(self)`, computed at the first call: what several features of one file need. Errors are kept too."""
        if compute not in self._known:
            try:
                self._known[compute] = compute(self)
            except NotApplicable as error:
                self._known[compute] = error
        if isinstance(self._known[compute], NotApplicable):
            raise self._known[compute]
        return self._known[compute]

    @cached_property
    def indices(self) -> np.ndarray:
        """Images looked at: all, or `max_samples` drawn at random (of bags: as many images of any bag)."""
        n = len(self.dataset.images)
        if n <= self.max_samples:
            return np.arange(n)
        return np.sort(np.random.default_rng(self.seed).choice(n, self.max_samples, replace=False))

    @property
    def has_images(self) -> bool:
        """Whether there are pixels, rather than feature vectors."""
        return len(self.dataset.images.shape) >= 4

    # -- per image, in order of content ------------------------------------------------------------------------------

    @cached_property
    def scale(self) -> tuple[float, float]:
        """(low, span) that bring pixel values into 0-1."""
        dtype = self.dataset.images.dtype
        if dtype in (np.uint8, np.uint16):
            return 0.0, float(np.iinfo(dtype).max)
        low, high = np.inf, -np.inf
        for block in self._blocks():
            low, high = min(low, block.min()), max(high, block.max())
        return (0.0, 1.0) if low >= 0 and high <= 1 else (float(low), float(high - low) or 1.0)

    def _blocks(self) -> Iterator[np.ndarray]:
        """The chosen images, (k, C, H, W) of at most about `kernels.BLOCK` pixels at a time."""
        images = self.dataset.images
        size = int(np.clip(READ // np.prod(images.shape[1:]), 1, 4096))
        step = max(1, min(kernels.BLOCK // int(np.prod(images.shape[-2:])), kernels.TOGETHER))
        for part, array in images.chunks(size if size < 64 else size // 64 * 64):
            chosen = self.indices[slice(*np.searchsorted(self.indices, [part.start, part.stop]))] - part.start
            for start in range(0, len(chosen), step):
                some = chosen[start : start + step]
                block = array[some[0] : some[-1] + 1] if some[-1] - some[0] < len(some) else array[some]
                block = block[:, :, block.shape[2] // 2] if block.ndim == 5 else block
                yield _finite(block)

    def labelled_blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(grey levels in 0-1, mask values) of the chosen images, both (k, H, W), in a streaming pass."""
        low, span = self.scale
        masks = self._masks()
        for block in self._blocks():
            level = (grey(block) - np.float32(low)) / np.float32(span)
            yield level, np.stack([next(masks) for _ in block])

    def _masks(self) -> Iterator[np.ndarray]:
        """The mask of each chosen image, of volumes its middle slice."""
        masks = self.dataset.masks
        chunks = masks.chunks() if hasattr(masks, "chunks") else ((slice(i, i + 1), [m]) for i, m in enumerate(masks))
        for part, array in chunks:
            for index in self.indices[slice(*np.searchsorted(self.indices, [part.start, part.stop]))] - part.start:
                mask = np.asarray(array[index])
                mask = mask[0] if mask.ndim > 2 and len(mask) == 1 else mask
                yield mask[len(mask) // 2] if mask.ndim == 3 else mask

    @cached_property
    def _measured(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Statistics of the images (or the feature vectors themselves) and their indices, in order of content."""
        if not self.has_images:
            values = _finite(take(self.dataset.images, self.indices)).astype(np.float64)
            order = np.lexsort((self._labels_of(self.indices), _key(values)))
            return {"features": values[order]}, self.indices[order]
        blocks = list(self.measured_blocks())
        table = {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}
        table["thumbnail"] = _whole_levels(table["thumbnail"].reshape(len(self.indices), -1))
        ties = self._labels_of(self.indices), table["variance"], table["mean"]
        order = np.lexsort((*ties, _key(table["thumbnail"])))
        return {key: values[order] for key, values in table.items()}, self.indices[order]

    @property
    def image_indices(self) -> np.ndarray:
        """Where each image that was looked at lies in the dataset, in order of content."""
        return self._measured[1]

    def measured_blocks(self) -> Iterator[dict[str, np.ndarray]]:
        """Statistics of the chosen images, a block at a time, in their order, each image decoded once."""
        pixels = len(self.indices) * int(np.prod(self.dataset.images.shape[-2:]))
        return measure_blocks(self._blocks(), *self.scale, pixels)

    def _labels_of(self, images: np.ndarray) -> np.ndarray:
        return self._all_labels[images if self.dataset.bags is None else self.dataset.bags[images]]

    @property
    def statistics(self) -> dict[str, np.ndarray]:
        """Statistics of each image (n,), by the names of `kernels.image_statistics`."""
        if not self.has_images:
            raise NotApplicable(f"{self.dataset.name} holds feature vectors, not images")
        return self._measured[0]

    @property
    def histograms(self) -> np.ndarray:
        """Grey-level histogram of each image, as proportions (n, 256)."""
        return self.statistics["histogram"]

    @cached_property
    def descriptors(self) -> np.ndarray:
        """All scalar statistics and quantiles of each sample, standardised, (m, p); a bag has its images' means."""
        return _standardise(self._of_samples(self._scalars)[self._rows_order])

    @cached_property
    def _scalars(self) -> np.ndarray:
        table = [v for k, v in self.statistics.items() if k not in _TABLES and np.isfinite(v).all()]
        return np.column_stack([*table, self.statistics["quantiles"]])

    # -- per sample: thumbnails or feature vectors -------------------------------------------------------------------

    @cached_property
    def _owners(self) -> tuple[np.ndarray, np.ndarray]:
        """Sample of each image, and the samples there are, both by position."""
        images = self._measured[1]
        owner = images if self.dataset.bags is None else self.dataset.bags[images]
        samples, position = np.unique(owner, return_inverse=True)
        return samples, position

    def _of_samples(self, values: np.ndarray, function: np.ufunc = np.add) -> np.ndarray:
        """Mean (or smallest, largest) over the images of each sample, (samples, d)."""
        samples, position = self._owners
        order = np.argsort(position, kind="stable")
        starts = np.searchsorted(position[order], np.arange(len(samples)))
        pooled = function.reduceat(values[order], starts, axis=0)
        return pooled / np.diff(starts, append=len(order))[:, None] if function is np.add else pooled

    @cached_property
    def _unordered_rows(self) -> np.ndarray:
        return self._of_samples(self._measured[0]["thumbnail" if self.has_images else "features"])

    @cached_property
    def _rows_order(self) -> np.ndarray:
        """At most ROWS samples, in an order that depends on content and seed alone."""
        samples, groups = self._owners[0], self.dataset.groups
        ties = [self._all_labels[samples]]
        if groups is not None:
            ties.insert(0, np.unique(groups, return_inverse=True)[1][samples])
        order = np.lexsort((*ties, _key(self._unordered_rows)))
        order = order[np.random.default_rng(self.seed).permutation(len(order))]  # no neighbours by content
        return order[spread(len(order), ROWS)]

    @cached_property
    def rows(self) -> np.ndarray:
        """Each sample as a point, float32 (m, d): its 16 x 16 thumbnail stretched over -127 to 128, or its features,
        standardised and, beyond 256, randomly projected (Johnson-Lindenstrauss: distances stay); a bag is its images'
        mean. Thumbnails are whole numbers, their distances therefore exact.
        """
        rows = self._unordered_rows[self._rows_order]
        return (rows if self.has_images else _projected(_standardise(rows))).astype(np.float32)

    @cached_property
    def _all_labels(self) -> np.ndarray:
        target = self.dataset.target
        if target is None:
            return np.full(self.dataset.n_samples, UNLABELLED)
        if target.ndim == 1:
            return target.astype(int)
        known = (target != UNLABELLED).all(axis=1)
        prevalence = target[known].mean(axis=0) if known.any() else np.zeros(target.shape[1])
        return np.where(known, target[:, np.abs(prevalence - 0.5).argmin()], UNLABELLED).astype(int)

    @cached_property
    def labels(self) -> np.ndarray:
        """Class of each row, 0 .. K-1, -1 if unlabelled. Of several labels the one nearest to half prevalence."""
        labels = self._all_labels[self._owners[0]][self._rows_order]
        known = np.unique(labels[labels != UNLABELLED])
        return np.where(labels == UNLABELLED, UNLABELLED, np.searchsorted(known, labels))

    @cached_property
    def patients(self) -> np.ndarray:
        """Group of each row as an integer; every row its own where there are no groups."""
        if self.dataset.groups is None:
            return np.arange(len(self.rows))
        return np.unique(self.dataset.groups[self._owners[0]][self._rows_order], return_inverse=True)[1]

    @cached_property
    def one_hot(self) -> np.ndarray:
        """Class membership of each row, float32 (m, K); raises NotApplicable with fewer than two classes."""
        n_classes = self.labels.max(initial=-1) + 1
        if n_classes < 2:
            raise NotApplicable(f"{self.dataset.name} has fewer than two labelled classes")
        return (self.labels[:, None] == np.arange(n_classes)).astype(np.float32)

    @cached_property
    def folds(self) -> np.ndarray:
        """Fold of each row, 0 .. 4 (fewer with fewer patients): patients stay whole, classes are spread evenly."""
        if len(np.unique(self.patients[self.labels >= 0])) < 2:
            raise NotApplicable(f"{self.dataset.name} has fewer than two labelled groups")
        _, first, patient = np.unique(self.patients, return_index=True, return_inverse=True)
        order = np.lexsort((first, self.labels[first]))  # by class, then by content
        fold = np.empty(len(first), int)
        fold[order] = np.arange(len(first)) % min(FOLDS, len(first))
        return fold[patient]

    # -- bags: instances by row --------------------------------------------------------------------------------------

    @cached_property
    def instance_values(self) -> np.ndarray:
        """Each image's statistics, or its feature vector, standardised and projected as `rows` are, (n, d)."""
        return _projected(_standardise(self._scalars if self.has_images else self._measured[0]["features"]))

    @cached_property
    def instance_rows(self) -> np.ndarray:
        """Row of the bag of each image, -1 where that bag is not among the rows."""
        samples, position = self._owners
        row = np.full(len(samples), -1)
        row[self._rows_order] = np.arange(len(self._rows_order))
        return row[position]

    @cached_property
    def members(self) -> list[np.ndarray]:
        """The images of each row, by their place in the order of content."""
        order = np.argsort(self.instance_rows, kind="stable")
        starts = np.searchsorted(self.instance_rows[order], np.arange(len(self._rows_order) + 1))
        return [order[a:b] for a, b in zip(starts, starts[1:], strict=False)]

    def pooled(self, values: np.ndarray, function: np.ufunc) -> np.ndarray:
        """Mean (np.add), smallest or largest of the values of each row's images, (m, d)."""
        return self._of_samples(values, function)[self._rows_order]

    @property
    def bag_labels(self) -> np.ndarray:
        """Class of every sample of the dataset, -1 if unlabelled."""
        return self._all_labels

    @cached_property
    def row_sizes(self) -> np.ndarray:
        """Images of each row's bag, whether looked at or not."""
        return np.bincount(self.dataset.bags)[self._owners[0][self._rows_order]]

    # -- distances ---------------------------------------------------------------------------------------------------

    @cached_property
    def distances(self) -> np.ndarray:
        """Squared distances between rows (m, m), infinite on the diagonal; needs two rows.

        In float32 where rows are whole numbers, which is exact, else in float64: near neighbours are small differences.
        """
        rows = self.rows if self.has_images and self.dataset.bags is None else self.rows.astype(np.float64)
        if len(rows) < 2:
            raise NotApplicable(f"{self.dataset.name} has fewer than two samples")
        length = np.einsum("md,md->m", rows, rows)
        squared = np.maximum(length[:, None] + length[None] - 2 * rows @ rows.T, 0)
        np.fill_diagonal(squared, np.inf)
        return squared

    @cached_property
    def neighbours(self) -> np.ndarray:
        """Indices of the 20 (or all other) nearest rows, nearest first, (m, k)."""
        k = min(NEIGHBOURS, len(self.distances) - 1)
        nearest = np.sort(np.argpartition(self.distances, k - 1, axis=1)[:, :k], axis=1)
        order = np.argsort(np.take_along_axis(self.distances, nearest, axis=1), axis=1, kind="stable")
        return np.take_along_axis(nearest, order, axis=1)

    @cached_property
    def neighbour_distances(self) -> np.ndarray:
        """Distances to `neighbours`, (m, k)."""
        return np.sqrt(np.take_along_axis(self.distances, self.neighbours, axis=1))

    @cached_property
    def mean_distance(self) -> float:
        """Mean distance over all pairs of rows."""
        distances = np.sqrt(np.where(np.isfinite(self.distances), self.distances, 0))
        return distances.sum(dtype=np.float64) / (len(distances) * (len(distances) - 1))

    @cached_property
    def class_distances(self) -> tuple[np.ndarray, np.ndarray]:
        """Distance of each labelled row to the nearest of its class (infinite if alone) and of another class."""
        known = np.flatnonzero(self.one_hot.any(axis=1))
        distances = self.distances[np.ix_(known, known)]
        same = self.labels[known][:, None] == self.labels[known][None]
        inside, outside = np.where(same, distances, np.inf), np.where(same, np.inf, distances)
        return np.sqrt(inside.min(axis=1)), np.sqrt(outside.min(axis=1))

    @cached_property
    def spectrum(self) -> np.ndarray:
        """Shares of variance of the principal components of the rows, largest first; needs rows that differ."""
        centred = self.rows.astype(np.float64) - self.rows.mean(axis=0, dtype=np.float64)
        gram = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
        values = np.maximum(np.linalg.eigvalsh(gram)[::-1], 0)
        if values.sum() <= 1e-9 * max(1.0, len(centred)):
            return np.ones(1)
        return values / values.sum()


def _finite(values: np.ndarray) -> np.ndarray:
    """Values with 0 where a float is missing or infinite."""
    return np.nan_to_num(values, posinf=0, neginf=0) if values.dtype.kind == "f" else values


def _key(values: np.ndarray) -> np.ndarray:
    """One number per row that depends on its content alone: a fixed random projection, summed row by row."""
    flat = values.reshape(len(values), -1)
    return (flat * np.random.default_rng(0).random(flat.shape[1])).sum(axis=1)


def _whole_levels(thumbnails: np.ndarray) -> np.ndarray:
    """Thumbnails stretched over the whole numbers -127 to 128: squared distances then stay exact in float32."""
    low, high = thumbnails.min(), thumbnails.max()
    return np.floor((thumbnails.astype(np.float64) - low) / max(high - low, 1e-6) * 255 + HALF) - 127


def _projected(values: np.ndarray) -> np.ndarray:
    """Columns beyond 256 randomly projected onto 256, which leaves distances about as they are."""
    if values.shape[1] <= COLUMNS:
        return values
    return values @ np.random.default_rng(0).normal(size=(values.shape[1], COLUMNS)) / np.sqrt(COLUMNS)


def _standardise(values: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and standard deviation 1; columns that vary by float32 noise at most become 0."""
    deviation = values.std(axis=0)
    varied = deviation > 1e-6 * np.abs(values).max(axis=0)
    return (values - values.mean(axis=0)) / np.where(varied, deviation, np.inf)
