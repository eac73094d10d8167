"""How well label images agree: overlap, distances of outlines, and sizes; per class and per image.

Truth and prediction are int, (n, H, W) or (n, D, H, W), 0 the background. A measure is the mean over the foreground
classes that occur in the truth, of each class the mean over images. Where a class is in neither of an image, the answer
is right (1, or a distance of 0); where it is in one of the two alone it is as wrong as can be (0, or the image's
diagonal): so missing structures cost, as Metrics Reloaded recommends (Maier-Hein et al., 2024). Distances are in
millimetres where the spacing of pixels is known, as a card has it, else in pixels of the images' own size. In numpy
alone, so that whatever trains can measure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from metamed.measures.registry import MEASURES, measure

Spacing = Sequence[float]  # millimetres from pixel to pixel along each axis, () where they are unknown
TOLERANCE = 2.0  # pixels, of the narrower side, by which an outline may be off and still count as found
_POINTS = 1 << 22  # point-to-row distances computed at a time


@measure("segmentation")
def dice(truth: np.ndarray, prediction: np.ndarray, spacing: Spacing = ()) -> float:
    """Dice's coefficient (Dice, 1945): twice the common area over the sum of both. 0-1."""
    return _mean(truth, prediction, "dice", spacing)


@measure("segmentation")
def iou(truth: np.ndarray, prediction: np.ndarray, spacing: Spacing = ()) -> float:
    """Intersection over union (Jaccard, 1901): the common area over the area of both together. 0-1."""
    return _mean(truth, prediction, "iou", spacing)


@measure("segmentation", higher=False)
def hd95(truth: np.ndarray, prediction: np.ndarray, spacing: Spacing = ()) -> float:
    """Hausdorff distance, 95th percentile (Huttenlocher et al., 1993): within it lie 95 % of each outline's points
    from the other outline, the worse of both directions. Millimetres or pixels, 0 to the image's diagonal."""
    return _mean(truth, prediction, "hd95", spacing)


@measure("segmentation", higher=False)
def surface_distance(truth: np.ndarray, prediction: np.ndarray, spacing: Spacing = ()) -> float:
    """Average symmetric surface distance (Heimann et al., 2009): mean distance of all outline points of both from the
    other outline. Millimetres or pixels, 0 to the image's diagonal."""
    return _mean(truth, prediction, "surface_distance", spacing)


@measure("segmentation")
def boundary_f1(truth: np.ndarray, prediction: np.ndarray, spacing: Spacing = ()) -> float:
    """Boundary F1 (Csurka et al., 2013): harmonic mean of the shares of the predicted and of the true outline that lie
    within 2 pixels (of the narrower side) of the other. 0-1."""
    return _mean(truth, prediction, "boundary_f1", spacing)


@measure("segmentation", higher=False)
def volume_difference(truth: np.ndarray, prediction: np.ndarray, spacing: Spacing = ()) -> float:
    """Difference of the two areas over their sum, one minus volumetric similarity (Taha & Hanbury, 2015). 0-1."""
    return _mean(truth, prediction, "volume_difference", spacing)


def evaluate_masks(truth: np.ndarray, prediction: np.ndarray, spacing: Spacing = ()) -> dict[str, float]:
    """Every measure, and of truths with several foreground classes also each class alone, as `dice.1`; none of a truth
    without any foreground."""
    found, values = classes_of(truth), {}
    for name, table in scores(truth, prediction, found, spacing=spacing).items():
        each = table.mean(axis=0)
        values |= {name: float(each.mean())} if len(found) else {}
        values |= {f"{name}.{k}": float(v) for k, v in zip(found, each, strict=True)} if len(found) > 1 else {}
    return values


def classes_of(truth: np.ndarray) -> list[int]:
    """The foreground classes that occur in label images, in order."""
    return [int(k) for k in np.unique(truth) if k > 0]


def sides_of(spacing: Spacing, dimensions: int) -> tuple[float, ...]:
    """Width of a pixel along each axis: of three known spacings those of a slice; () where they are no widths."""
    sides = tuple(map(float, spacing))[-dimensions:]
    return sides if len(sides) == dimensions and all(0 < side < math.inf for side in sides) else ()


def scores(
    truth: np.ndarray, prediction: np.ndarray, classes: list[int], only: str = "", spacing: Spacing = ()
) -> dict[str, np.ndarray]:
    """Measure -> its value for each image and class, (n, len(classes)); of one measure alone if `only` names it."""
    sides = np.array(sides_of(spacing, truth.ndim - 1) or (1.0,) * (truth.ndim - 1))
    names = [only] if only else [name for name, m in MEASURES.items() if "segmentation" in m.kinds]
    tables = {name: np.empty((len(truth), len(classes))) for name in names}
    for row, (there, said) in enumerate(zip(truth, prediction, strict=True)):
        for column, k in enumerate(classes):
            for name, value in _compared(there == k, said == k, names, sides):
                tables[name][row, column] = value
    return tables


def _mean(truth: np.ndarray, prediction: np.ndarray, name: str, spacing: Spacing) -> float:
    table = scores(truth, prediction, classes_of(truth), name, spacing)[name]
    return float(table.mean(axis=0).mean()) if table.size else float("nan")


def _compared(truth: np.ndarray, said: np.ndarray, names: list[str], sides: np.ndarray) -> Iterator[tuple[str, float]]:
    """The named measures of one image's region; sides: of a pixel."""
    a, b, both = int(truth.sum()), int(said.sum()), int((truth & said).sum())
    sizes = {
        "dice": 2 * both / (a + b) if a + b else 1.0,
        "iou": both / (a + b - both) if a + b else 1.0,
        "volume_difference": abs(a - b) / (a + b) if a + b else 0.0,
    }
    yield from ((name, value) for name, value in sizes.items() if name in names)
    outlines = [name for name in names if name not in sizes]
    if not outlines:
        return
    if a and b:
        values = _outline_measures(*outline_distances(truth, said, sides / sides.min()), sides.min())
    else:
        worst = float(np.linalg.norm((np.array(truth.shape) - 1) * sides)) if a + b else 0.0
        values = {"hd95": worst, "surface_distance": worst, "boundary_f1": float(a + b == 0)}
    yield from ((name, values[name]) for name in outlines)


def _outline_measures(there: np.ndarray, here: np.ndarray, side: float) -> dict[str, float]:
    """Of the distances of the true outline's points from the predicted one, and the other way round; in sides of a
    pixel."""
    recall, precision = (there <= TOLERANCE).mean(), (here <= TOLERANCE).mean()
    return {
        "hd95": float(side * max(np.percentile(there, 95), np.percentile(here, 95))),
        "surface_distance": float(side * np.concatenate([there, here]).mean()),
        "boundary_f1": float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0,
    }


def outline_distances(truth: np.ndarray, said: np.ndarray, sides: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each point of the true outline from the predicted one, and the other way round, exact. sides: of a
    pixel, 1 the narrowest."""
    true, predicted = outline(truth), outline(said)
    return _nearest(np.argwhere(true), predicted, sides), _nearest(np.argwhere(predicted), true, sides)


def outline(region: np.ndarray) -> np.ndarray:
    """The pixels of a region that have a neighbour (of 4, or 6 in volumes) outside of it; the image's border counts."""
    padded = np.pad(region, 1)
    inside = region.copy()
    middle = (slice(1, -1),) * region.ndim
    for axis in range(region.ndim):
        for shift in (-1, 1):
            inside &= np.roll(padded, shift, axis)[middle]
    return region & ~inside


def _nearest(points: np.ndarray, target: np.ndarray, sides: Spacing) -> np.ndarray:
    """Distance of each point (m, d) from the nearest set pixel of `target`: an exact distance transform, axis by axis
    (Felzenszwalb & Huttenlocher, 2012), whose last pass is made at the points alone."""
    squares = _along_first(target, sides)
    for axis in range(1, target.ndim - 1):
        squares = np.moveaxis(_lowest(np.moveaxis(squares, axis, 0), sides[axis]), 0, axis)
    lines = squares[tuple(points.T[:-1])]
    last, place = sides[-1] * points[:, -1:], sides[-1] * np.arange(target.shape[-1])
    block = max(1, _POINTS // len(place))
    parts = [
        (lines[i : i + block] + (last[i : i + block] - place) ** 2).min(axis=1) for i in range(0, len(points), block)
    ]
    return np.sqrt(np.concatenate(parts))


def _along_first(target: np.ndarray, sides: Spacing) -> np.ndarray:
    """Squared distance of every pixel from the nearest set one with the same other coordinates; huge where none is."""
    far = int(4 * np.dot(target.shape, sides))
    place = np.arange(target.shape[0]).reshape(-1, *[1] * (target.ndim - 1))
    before = np.maximum.accumulate(np.where(target, place, -far), axis=0)
    after = np.minimum.accumulate(np.where(target, place, far)[::-1], axis=0)[::-1]
    return (sides[0] * np.minimum(place - before, after - place)) ** 2


def _lowest(squares: np.ndarray, side: float) -> np.ndarray:
    """For each place along the first axis the least of (square there + squared way to it)."""
    place = side * np.arange(len(squares)).reshape(-1, *[1] * (squares.ndim - 1))
    return np.stack([(squares + (place - side * here) ** 2).min(axis=0) for here in range(len(squares))])
