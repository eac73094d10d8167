"""An image of a dataset as a picture that a browser or a viewer shows."""

from __future__ import annotations

import io

import numpy as np


def png(image: np.ndarray, side: int = 256) -> bytes:
    """One image (C, H, W) or (C, D, H, W) as PNG; small ones enlarged to about `side` pixels without smoothing.

    Three channels are colours; of other numbers the first is shown, of a volume its middle slice. Values other than
    bytes are stretched from their lowest to their highest.
    """
    from PIL import Image

    image = np.asarray(image)
    plane = image if image.ndim == 3 else image[:, image.shape[1] // 2]
    plane = plane[:3] if len(plane) >= 3 else plane[:1]
    if plane.dtype != np.uint8:
        low, high = float(plane.min()), float(plane.max())
        plane = ((plane - low) / max(high - low, 1e-9) * 255).round().astype(np.uint8)
    picture = Image.fromarray(plane[0] if len(plane) == 1 else np.ascontiguousarray(plane.transpose(1, 2, 0)))
    times = max(1, side // max(picture.size))
    file = io.BytesIO()
    picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()
