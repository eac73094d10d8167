"""A dataset: images with targets, masks, bags, groups or assessments, and the facts that no pixel tells."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

import numpy as np

from metamed.assessments import Ratings, Triplets
from metamed.errors import ReadError

Kind = Literal["classification", "segmentation", "mil", "similarity"]
KINDS: tuple[Kind, ...] = ("classification", "segmentation", "mil", "similarity")
UNLABELLED = -1

DIGEST_SAMPLES = 5000  # images hashed into the digest: all of them up to this many, evenly spaced ones beyond
HASHED_SAMPLES = 512  # images whose thumbnails are kept to recognise a dataset again
_HASH_SIDE = 16  # a thumbnail hash has 16 x 16 bits
_HASH_STEP = 2.0  # grey levels (of 255) that two neighbours must differ by: black borders then hash to zeros, not noise


class Images(Protocol):
    """Images of one shape, read lazily.

    shape is (n, C, H, W), (n, C, D, H, W) for volumes or (n, D) for feature vectors; dtype uint8, uint16 or float.
    `sizes` holds the native (height, width) of each image, int (n, 2), where files differ and were resized to `shape`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    sizes: np.ndarray | None

    def __len__(self) -> int: ...
    def __getitem__(self, index: int | slice) -> np.ndarray: ...
    def chunks(self, size: int = 256) -> Iterator[tuple[slice, np.ndarray]]:
        """All images in order, at most `size` at a time: the fast way to read many."""
        ...


class ArrayImages:
    """Images that are already in memory, as an array of `Images.shape`."""

    sizes = None

    def __init__(self, array: np.ndarray):
        self.array = np.asarray(array)
        self.shape, self.dtype = self.array.shape, self.array.dtype

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index):
        return self.array[index]

    def chunks(self, size: int = 256):
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self))), self.array[start : start + size]


def take(images: Images, indices: np.ndarray) -> np.ndarray:
    """The images at `indices` (any order, repeats allowed) as one array, reading every chunk at most once."""
    indices = np.asarray(indices, dtype=np.int64)
    if isinstance(images, ArrayImages):
        return images.array[indices]
    out = np.empty((len(indices), *images.shape[1:]), images.dtype)
    if len(indices) < 16:  # a few images are cheaper one by one than by a pass over everything
        for row, index in enumerate(indices):
            out[row] = images[int(index)]
        return out
    order = np.argsort(indices, kind="stable")
    ordered = indices[order]
    for part, array in images.chunks():
        low, high = np.searchsorted(ordered, [part.start, part.stop])
        if high > low:
            out[order[low:high]] = array[ordered[low:high] - part.start]
        if high == len(ordered):
            break
    return out


def spread(n: int, at_most: int) -> np.ndarray:
    """`at_most` evenly spaced indices of range(n), all of them if there are fewer."""
    return np.arange(n) if n <= at_most else np.linspace(0, n - 1, at_most).astype(np.int64)


@dataclass(frozen=True)
class Card:
    """What no pixel tells. Empty strings and tuples mean unknown.

    spacing: millimetres per pixel, (row, column) or (slice, row, column).
    family: datasets that share images or patients carry one family's name; the dataset's own name when empty.
    """

    modality: str = ""
    organ: str = ""
    classes: tuple[str, ...] = ()
    spacing: tuple[float, ...] = ()
    license: str = ""
    url: str = ""
    family: str = ""


@dataclass(frozen=True)
class Split:
    """One division of a dataset's samples into training, validation and test, as sample indices."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and what is known about them.

    A *sample* is what is predicted: an image, or a bag where `bags` is set.

    target: class of each sample, int (n_samples,), -1 where unlabelled; 0/1 (n_samples, K) if multi-label.
    split: the dataset's own division, 0 train, 1 validation, 2 test (n_samples,).
    instance_target: class of each instance, where known; for judging, never for training (n_images,).
    coordinates: position of each instance in its image (n_images, 2).
    masks: integer label images, image-shaped. bags: bag index of each image (n_images,).
    groups: patient (or other unit that a split may not divide) of each sample (n_samples,).
    assumptions: what the reader took for granted, one sentence each.
    """

    name: str
    images: Images
    target: np.ndarray | None = None
    split: np.ndarray | None = None
    instance_target: np.ndarray | None = None
    coordinates: np.ndarray | None = None
    masks: Sequence[np.ndarray] | None = None
    bags: np.ndarray | None = None
    groups: np.ndarray | None = None
    triplets: Triplets | None = None
    ratings: Ratings | None = None
    card: Card = field(default_factory=Card)
    assumptions: tuple[str, ...] = ()

    def __post_init__(self):
        for name, expected in (
            ("target", self.n_samples),
            ("split", self.n_samples),
            ("groups", self.n_samples),
            ("bags", len(self.images)),
            ("instance_target", len(self.images)),
            ("coordinates", len(self.images)),
            ("masks", len(self.images)),
        ):
            value = getattr(self, name)
            if value is not None and len(value) != expected:
                raise ReadError(f"{self.name}: {name} has {len(value)} entries, expected {expected}")

    @property
    def kind(self) -> Kind:
        """What can be learned here: bags before masks before target before triplets."""
        if self.bags is not None:
            return "mil"
        if self.masks is not None:
            return "segmentation"
        return "similarity" if self.target is None and self.triplets is not None else "classification"

    @cached_property
    def n_samples(self) -> int:
        return len(self.images) if self.bags is None else int(self.bags.max()) + 1

    @cached_property
    def n_classes(self) -> int:
        """Number of classes (labels, if multi-label; mask values, if segmented); 0 without any target."""
        if self.target is None:
            return 0 if self.masks is None else len(self.card.classes) or int(max(m.max() for m in self.masks)) + 1
        if self.target.ndim == 2:
            return self.target.shape[1]
        return max(len(self.card.classes), int(self.target.max(initial=-1)) + 1)

    @property
    def multi_label(self) -> bool:
        return self.target is not None and self.target.ndim == 2

    @property
    def labelled(self) -> np.ndarray:
        """Indices of the samples that carry a target."""
        if self.target is None:
            return np.arange(0)
        return np.flatnonzero(self.target.reshape(self.n_samples, -1)[:, 0] != UNLABELLED)

    @property
    def family(self) -> str:
        return self.card.family or self.name

    @cached_property
    def digest(self) -> str:
        """Content hash of images, targets, masks and assessments (40 hex): equal data, equal digest."""
        sha = hashlib.sha256(repr((self.images.shape, str(self.images.dtype))).encode())
        for values in (self.target, self.bags):
            sha.update(b"-" if values is None else np.ascontiguousarray(values, dtype=np.int64).tobytes())
        for answers in (self.triplets, self.ratings):
            sha.update(b"" if answers is None else answers.content)
        sha.update(np.ascontiguousarray(take(self.images, spread(len(self.images), DIGEST_SAMPLES))).tobytes())
        for index in spread(0 if self.masks is None else len(self.masks), DIGEST_SAMPLES):
            sha.update(np.ascontiguousarray(self.masks[int(index)], dtype=np.int16).tobytes())
        return sha.hexdigest()[:40]

    @cached_property
    def thumbnails(self) -> np.ndarray:
        """Thumbnail hashes of up to 512 evenly spaced images, uint8 (m, 32); empty for feature vectors."""
        if len(self.images.shape) < 4:
            return np.empty((0, _HASH_SIDE**2 // 8), np.uint8)
        return thumbnail_hashes(take(self.images, spread(len(self.images), HASHED_SAMPLES)))


def grey(images: np.ndarray) -> np.ndarray:
    """Images (n, C, ...) as grey levels (n, ...), float32: ITU-R 601 luma of RGB, the mean of any other channels."""
    images = np.asarray(images, dtype=np.float32)
    if images.shape[1] == 3:  # written out: a matrix product would round by position, and is slower
        return images[:, 0] * np.float32(0.299) + images[:, 1] * np.float32(0.587) + images[:, 2] * np.float32(0.114)
    return images.mean(axis=1)


def shrink(grey_images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area means of (n, H, W) on a grid of height x width cells; cells repeat pixels where the image is smaller."""
    out = grey_images
    for axis, cells in ((1, height), (2, width)):
        size = out.shape[axis]
        edges = np.arange(cells + 1) * size // cells
        if size < cells:
            out = np.take(out, np.minimum(edges[:-1], size - 1), axis=axis)
            continue
        widths = np.diff(edges).reshape([-1 if a == axis else 1 for a in range(3)])
        out = np.add.reduceat(out, edges[:-1], axis=axis) / widths
    return out


def thumbnail_hashes(images: np.ndarray) -> np.ndarray:
    """Difference hash of each image (n, C, H, W) as uint8 (n, 32): is a cell brighter than its right neighbour?

    Resizing and recompression change few of the 256 bits. Volumes are hashed on their middle slice.
    """
    plane = grey(images)
    if plane.ndim == 4:
        plane = plane[:, plane.shape[1] // 2]
    span = np.maximum(plane.max(axis=(1, 2), keepdims=True) - plane.min(axis=(1, 2), keepdims=True), 1e-9)
    cells = shrink((plane - plane.min(axis=(1, 2), keepdims=True)) / span * 255, _HASH_SIDE, _HASH_SIDE + 1)
    return np.packbits((np.diff(cells, axis=2) > _HASH_STEP).reshape(len(images), -1), axis=1)


def near_matches(hashes: np.ndarray, others: np.ndarray, bits: int = 16) -> np.ndarray:
    """For each hash the index of the nearest other within `bits` differing bits (of 256), or -1; int (n,).

    Never beyond a quarter of the bits set: drawings and tiny images set few, and would all look alike.
    """
    if len(hashes) == 0 or len(others) == 0:
        return np.full(len(hashes), -1)
    a = np.unpackbits(hashes, axis=1).astype(np.float32)
    b = np.unpackbits(others, axis=1).astype(np.float32)
    distance = a.sum(1)[:, None] + b.sum(1)[None, :] - 2 * a @ b.T
    nearest = distance.argmin(axis=1)
    # an all-zero hash (a blank image) equals every other blank one and recognises nothing
    known = (distance[np.arange(len(a)), nearest] <= np.minimum(bits, a.sum(1) / 4)) & (a.sum(1) > bits)
    return np.where(known, nearest, -1)


MODALITIES = {  # group -> words that tell it, tried in this order
    "histopathology": ("histo", "patholog", "whole-slide", "whole slide"),
    "microscopy": ("microscop", "electron", "blood smear", "cell"),
    "dermoscopy": ("dermo", "dermat", "skin", "melanom"),
    "fundus": ("fundus", "retina"),
    "oct": ("oct", "optical coherence"),
    "x-ray": ("x-ray", "xray", "radiograph", "mammogra"),
    "ultrasound": ("ultraso", "echo"),
    "endoscopy": ("endosc", "colonosc", "laparosc", "cholec"),
    "mri": ("mri", "mra", "magnetic"),
    "ct": ("ct", "tomograph", "abdominal"),
    "natural": ("natural", "photo", "texture", "handwrit", "drawing", "character"),
}


def modality_group(modality: str) -> str:
    """One of `MODALITIES` for a free-text modality, "other" where no word fits, "" where it is unknown."""
    text = modality.lower()
    if not text:
        return ""
    for group, words in MODALITIES.items():
        if any(re.search(r"\b" + re.escape(word), text) for word in words):
            return group
    return "other"
