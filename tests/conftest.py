"""Tiny datasets with known answers, one per kind, and where the real ones lie."""

import os
from pathlib import Path

import numpy as np
import pytest

from metamed.dataset import ArrayImages, Card, Dataset


def blobs(n: int = 60, size: int = 16, channels: int = 3, classes: int = 2, seed: int = 0) -> Dataset:
    """Noise images with a bright square whose place tells the class; two images per patient."""
    rng = np.random.default_rng(seed)
    patient = np.arange(n) // 2
    target = patient % classes
    images = rng.integers(0, 120, (n, channels, size, size))
    for image, k in zip(images, target, strict=True):
        image[:, 2 : size // 2, 2 + 3 * k : 5 + 3 * k] += 120
    card = Card(modality="synthetic", organ="none", classes=tuple("abcdefgh"[:classes]))
    return Dataset("blobs", ArrayImages(images.astype(np.uint8)), target, groups=patient, card=card)


def scenes(n=30, size=24, seed=0, classes=("background", "disc", "bar"), groups=True) -> Dataset:
    """A bright disc in the upper half and a dark bar in the lower one, on grey noise."""
    rng = np.random.default_rng(seed)
    images = rng.normal(120, 12, (n, 1, size, size))
    masks = np.zeros((n, size, size), np.uint8)
    rows, columns = np.mgrid[:size, :size]
    for image, mask in zip(images, masks, strict=True):
        y, x, r = rng.uniform(5, size / 2 - 3), rng.uniform(5, size - 5), rng.uniform(3, 5)
        mask[(rows - y) ** 2 + (columns - x) ** 2 < r**2] = 1
        left = rng.integers(2, size - 10)
        mask[size * 3 // 4 : size * 3 // 4 + 3, left : left + 8] = 2
        image[0] += 70.0 * (mask == 1) - 70.0 * (mask == 2)
    pixels = images.clip(0, 255).astype(np.uint8)
    patients = np.arange(n) // 2 if groups else None
    return Dataset("scenes", ArrayImages(pixels), masks=masks, groups=patients, card=Card(classes=classes))


@pytest.fixture
def classification_data() -> Dataset:
    return blobs()


@pytest.fixture
def mil_data() -> Dataset:
    rng = np.random.default_rng(0)
    bags = np.repeat(np.arange(20), rng.integers(3, 9, 20))
    target = np.arange(20) % 2
    features = rng.normal(size=(len(bags), 8)).astype(np.float32)
    first = np.unique(bags, return_index=True)[1]
    features[first[target == 1]] += 4
    return Dataset("bags", ArrayImages(features), target, bags=bags)


@pytest.fixture
def segmentation_data() -> Dataset:
    data = blobs(20)
    masks = (data.images.array.mean(1) > 150).astype(np.uint8)
    return Dataset("squares", data.images, masks=masks, card=Card(classes=("background", "square")))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real datasets, result tables and weights that developers have; tests that need it skip without."""
    folder = Path(os.environ.get("METAMED_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.exists():
        pytest.skip(f"no shared data at {folder} (set METAMED_SHARED)")
    return folder
