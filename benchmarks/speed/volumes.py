"""nnU-Net's fingerprint of a volume: ours against its own steps in numpy and scipy."""

from __future__ import annotations

import numpy as np

from benchmarks.speed.timing import bar, in_turn, seconds
from metamed.metafeatures.fingerprint import PERCENTILES, SAMPLES, SEED, fingerprint


def body(side: int = 128, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A round body of noisy tissue with air inside (zeros) and an organ; image (1, D, H, W) float32 and mask."""
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j, -1 : 1 : side * 1j]
    radius = np.sqrt(z**2 + 1.5 * y**2 + 1.2 * x**2)
    lungs = (z**2 + (y * 2) ** 2 + (np.abs(x) - 0.35) ** 2 * 9) < 0.1
    image = (rng.normal(100, 15, (side,) * 3) * (radius < 0.9)).astype(np.float32)
    image[lungs] = 0
    mask = ((z - 0.2) ** 2 + (y - 0.3) ** 2 + x**2 < 0.08).astype(np.uint8) + (radius < 0.2)
    return image[None], mask


def by_nnunet(image: np.ndarray, mask: np.ndarray) -> tuple:
    """Crop to nonzero, then collect foreground intensities: the steps of nnunetv2's DatasetFingerprintExtractor."""
    from scipy.ndimage import binary_fill_holes

    nonzero = np.zeros(image.shape[1:], bool)
    for channel in image:
        nonzero |= channel != 0
    region = binary_fill_holes(nonzero)
    box = []
    for axis in range(3):
        occupied = np.where(region.any(axis=tuple(a for a in range(3) if a != axis)))[0]
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    cropped, labels = image[(slice(None), *box)], np.where(region[tuple(box)], mask[tuple(box)].astype(int), -1)
    generator, intensities, samples = np.random.RandomState(SEED), [], []
    for channel in cropped:
        values = channel[labels > 0]
        samples.append(generator.choice(values, SAMPLES, replace=True))
        mean = values.mean(dtype=np.float64)
        intensities.append([mean, values.min(), values.max(), *np.percentile(values, PERCENTILES)])
    return region, tuple(box), np.array(intensities), np.array(samples)


@bar(faster=10)
def volume_fingerprint() -> tuple[float, float]:
    """Filled nonzero region, crop, intensities and samples of the foreground of 128^3 voxels: equal, and faster."""
    image, mask = body()
    ours, peers = fingerprint(image, mask), by_nnunet(image, mask)
    for one, other in zip((ours.region, ours.intensities, ours.samples), (peers[0], *peers[2:]), strict=True):
        np.testing.assert_array_equal(one, other)
    assert ours.box == peers[1]
    return in_turn(lambda: seconds(lambda: fingerprint(image, mask)), lambda: seconds(lambda: by_nnunet(image, mask)))
