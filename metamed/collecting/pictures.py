"""Images of a dataset as PNG files that a browser shows."""

from __future__ import annotations

import io

import numpy as np

from metamed.dataset import Dataset
from metamed.errors import NotApplicable


def need_pictures(dataset: Dataset) -> None:
    """Raises NotApplicable where there is nothing to look at, or too little to compare."""
    if len(dataset.images.shape) < 4:
        raise NotApplicable(f"{dataset.name}: {dataset.images.shape[-1]} features an image, and no pixels to show")
    if len(dataset.images) < 4:
        raise NotApplicable(f"{dataset.name}: {len(dataset.images)} images; at least 4 are needed to compare them")


def png(dataset: Dataset, index: int) -> bytes:
    """One image as PNG. Volumes by their middle slice; pixels deeper than 8 bits from their least to their greatest."""
    from PIL import Image

    image = np.asarray(dataset.images[index])
    if image.ndim == 4:
        image = image[:, image.shape[1] // 2]
    image = image[:3] if len(image) >= 3 else image[:1]
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = ((image - low) * (255 / (high - low) if high > low else 0)).round().astype(np.uint8)
    picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=1)
    return out.getvalue()
