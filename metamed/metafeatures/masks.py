"""Shapes in label images: connected components, boundaries, box counts, contrast; a block of images at a time.

In numpy alone: `metamed recommend` describes a segmentation dataset too, and scipy's labelling would cost its import,
0.2 s, while runs of pixels joined by union-find take well under a millisecond an image.
"""

from __future__ import annotations

import numpy as np

from metamed.metafeatures.kernels import ratio

PRIOR = 16  # side of the map of where the foreground lies
_DIAGONAL = 0.5**0.5  # distance of neighbouring diagonal lines of pixels
_FLAT = 1e-6  # grey (0-1) below which a spread counts as none


def mask_statistics(masks: np.ndarray, level: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Statistics of label images (n, H, W), 0 the background, one value an image; NaN where it has no foreground.

    level: the images' grey levels in 0-1, for the contrasts. `prior` is the foreground's share in 16 x 16 cells.
    """
    masks = np.where(masks > 0, masks, 0)
    foreground = masks > 0
    area = foreground.sum(axis=(1, 2))
    boundary = _boundary(masks) & foreground
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0: no foreground
        found = {
            "fraction": area / foreground[0].size,
            "classes": np.array([len(np.unique(mask[mask > 0])) for mask in masks], np.float64),
            "boundary": boundary.sum(axis=(1, 2)) / area,
            "symmetry": (foreground & foreground[:, :, ::-1]).sum(axis=(1, 2)) / area,
            "touching": np.where(area > 0, _frame(foreground).any(axis=1), np.nan),
            "adjacency": _adjacency(masks),
            "dimension": box_dimension(boundary),
            "prior": cells(foreground),
            **_centre(foreground, area),
            **_component_statistics(masks, area),
        }
        return found if level is None else {**found, **_contrasts(masks, foreground, area, level)}


# -- components --------------------------------------------------------------------------------------------------------


def components(masks: np.ndarray) -> tuple[np.ndarray, int]:
    """(component of each pixel 0 .. k-1 or -1 on the background, k): equal values that touch, corners included.

    Runs of equal pixels in a row are the nodes, runs of the next row that they touch their neighbours.
    """
    n, height, width = masks.shape
    padded = np.zeros((n, height + 1, width + 1), masks.dtype)  # a border keeps rows and images apart
    padded[:, :height, :width] = masks
    flat, row = padded.ravel(), width + 1
    change = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], change, [len(flat)]])
    inside = flat[edges[:-1]] > 0
    start, stop, value = edges[:-1][inside], edges[1:][inside], flat[edges[:-1]][inside]
    first = np.searchsorted(stop, start + row, side="left")  # touches at a corner: stops where the other starts
    last = np.searchsorted(start, stop + row, side="right")
    counts = np.maximum(last - first, 0)
    above = np.repeat(np.arange(len(start)), counts)
    below = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    same = value[above] == value[below]
    owner, k = _joined(len(start), above[same], below[same])
    labels = np.full(len(flat), -1)
    labels[flat > 0] = np.repeat(owner, stop - start)
    return labels.reshape(padded.shape)[:, :height, :width], k


def _joined(n: int, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, int]:
    """(set of each of n nodes, 0 .. k-1 by first node, k) after joining a[i] with b[i]: union-find, all at once."""
    root = np.arange(n)
    while True:
        low, high = np.minimum(root[a], root[b]), np.maximum(root[a], root[b])
        apart = low < high
        if not apart.any():
            found, owner = np.unique(root, return_inverse=True)
            return owner, len(found)
        np.minimum.at(root, high[apart], low[apart])
        while (root[root] != root).any():
            root = root[root]


def _component_statistics(masks: np.ndarray, area: np.ndarray) -> dict[str, np.ndarray]:
    labels, k = components(masks)
    inside = labels >= 0
    size = np.bincount(labels[inside], minlength=k).astype(np.float64)
    image = np.zeros(k, int)
    image[labels[inside]] = np.repeat(np.arange(len(masks)), inside.sum(axis=(1, 2)))
    count = np.bincount(image, minlength=len(masks))
    mean = area / count
    largest = np.zeros(len(masks))
    np.maximum.at(largest, image, size)
    deviation = np.sqrt(np.bincount(image, (size - mean[image]) ** 2, minlength=len(masks)) / count)
    quotient = np.minimum(4 * np.pi * size / perimeters(labels, k) ** 2, 1)  # a single pixel is rounder than a circle
    return {
        "components": count.astype(np.float64),
        "size": mean / masks[0].size,
        "size_spread": deviation / mean,
        "largest": largest / area,
        "compactness": np.bincount(image, quotient * size, minlength=len(masks)) / area,
    }


def perimeters(labels: np.ndarray, k: int) -> np.ndarray:
    """Length of the outline of each component, (k,), by Crofton's formula in four directions, image border included.

    Lines along rows, columns and both diagonals cross an outline n times; their mean over directions, weighted by the
    distance of the lines, times pi / 2 is its length.
    """
    padded = np.pad(labels, ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    total = np.zeros(k)
    for (dy, dx), weight in {(0, 1): 1, (1, 0): 1, (1, 1): _DIAGONAL, (1, -1): _DIAGONAL}.items():
        one = padded[:, : padded.shape[1] - dy, max(0, -dx) : padded.shape[2] - max(0, dx)]
        two = padded[:, dy:, max(0, dx) : padded.shape[2] - max(0, -dx)]
        for here, there in ((one, two), (two, one)):
            crossed = here[(here != there) & (here >= 0)]
            total += weight * np.bincount(crossed, minlength=k)
    return np.pi / 8 * total


# -- outlines ----------------------------------------------------------------------------------------------------------


def _boundary(masks: np.ndarray) -> np.ndarray:
    """Pixels with one of four neighbours of another value."""
    out = np.zeros(masks.shape, bool)
    for unlike, here, there in _borders(masks):
        out[here] |= unlike
        out[there] |= unlike
    return out


def _borders(masks: np.ndarray):
    """Per direction, down and right: (whether the two pixels differ, where the first lies, where the second lies)."""
    for here, there in (
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None), slice(None), slice(None, -1)), (slice(None), slice(None), slice(1, None))),
    ):
        yield masks[here] != masks[there], here, there


def _adjacency(masks: np.ndarray) -> np.ndarray:
    """Share of the borders between pixels of unlike value that lie between two foreground classes; NaN without any."""
    all_borders, inner = np.zeros(len(masks)), np.zeros(len(masks))
    for unlike, here, there in _borders(masks):
        all_borders += unlike.sum(axis=(1, 2))
        inner += (unlike & (masks[here] > 0) & (masks[there] > 0)).sum(axis=(1, 2))
    return inner / all_borders


def box_dimension(points: np.ndarray) -> np.ndarray:
    """Slope of log(occupied boxes) over log(1 / side) for sides 1, 2, 4 ... up to a quarter of the image, (n,).

    NaN without a point, or in images below 8 pixels a side, which leave fewer than two sizes.
    """
    steps = int(np.log2(max(min(points.shape[1:]) // 4, 1)))
    if steps < 1:
        return np.full(len(points), np.nan)
    counts = [points.sum(axis=(1, 2))]
    for _ in range(steps):
        pad = [(0, 0), *((0, side % 2) for side in points.shape[1:])]
        points = np.pad(points, pad)
        points = points[:, ::2] | points[:, 1::2]
        points = points[:, :, ::2] | points[:, :, 1::2]
        counts.append(points.sum(axis=(1, 2)))
    log_count = np.log2(np.where(counts[0] > 0, np.array(counts, np.float64), np.nan))
    scale = np.arange(steps + 1) - steps / 2
    return -(scale @ log_count) / (scale @ scale)


# -- place and contrast ------------------------------------------------------------------------------------------------


def _frame(foreground: np.ndarray) -> np.ndarray:
    """The pixels on the image's border, (n, p)."""
    sides = foreground[:, 0], foreground[:, -1], foreground[:, :, 0], foreground[:, :, -1]
    return np.concatenate(sides, axis=1)


def _centre(foreground: np.ndarray, area: np.ndarray) -> dict[str, np.ndarray]:
    """Centre of the foreground, in shares of the image's height and width."""
    _, height, width = foreground.shape
    rows, columns = foreground.sum(axis=2), foreground.sum(axis=1)
    return {"row": rows @ (np.arange(height) + 0.5) / height / area,
            "column": columns @ (np.arange(width) + 0.5) / width / area}  # fmt: skip


def cells(foreground: np.ndarray) -> np.ndarray:
    """Share of foreground in each of up to 16 x 16 cells of each image, (n, cells)."""
    out = foreground.astype(np.float64)
    for axis in (1, 2):
        side = out.shape[axis]
        edges = np.arange(min(PRIOR, side)) * side // min(PRIOR, side)
        widths = np.diff(edges, append=side).reshape([-1 if a == axis else 1 for a in range(3)])
        out = np.add.reduceat(out, edges, axis=axis) / widths
    return out.reshape(len(out), -1)


def _contrasts(masks: np.ndarray, foreground: np.ndarray, area: np.ndarray, level: np.ndarray) -> dict[str, np.ndarray]:
    level = level.astype(np.float64)
    rest = foreground[0].size - area
    inside, outside = (level * foreground).sum(axis=(1, 2)) / area, (level * ~foreground).sum(axis=(1, 2)) / rest
    own = np.where(foreground, inside[:, None, None], outside[:, None, None])
    deviation = np.sqrt(((level - own) ** 2).mean(axis=(1, 2)))
    difference = inside - outside
    contrast = np.where(deviation > _FLAT, difference / np.maximum(deviation, _FLAT), np.nan)
    across, along = np.zeros((2, len(masks))), np.zeros((2, len(masks)))
    for unlike, here, there in _borders(masks):
        step = np.abs(level[here] - level[there])
        across += (step * unlike).sum(axis=(1, 2)), unlike.sum(axis=(1, 2))
        along += (step * ~unlike).sum(axis=(1, 2)), (~unlike).sum(axis=(1, 2))
    smooth = along[0] / along[1]
    sharp = ratio(across[0] / across[1], smooth, np.nan)
    return {"contrast": np.abs(contrast), "brighter": np.where(area * rest > 0, difference > 0, np.nan),
            "edge": np.where(smooth > _FLAT, sharp, np.nan)}  # fmt: skip
