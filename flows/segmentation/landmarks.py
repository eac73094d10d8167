"""Two cheap landmarks that are fitted in one step: Otsu's threshold with a map of places, and a forest on pixels.

Both are modules with `fit(images, masks)`, so that they are kept, read back and exported as networks are.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import nn

from metamed.methods import Choice, Int, Shape, method

_STEPS = 32  # thresholds that Otsu's method tries between the darkest and the brightest pixel
_LEAST = 1e-4  # probability of a class that was never seen
SCALES = (1, 2, 4, 8)  # sides, as powers of two in pixels, over which a pixel's surroundings are averaged


def otsu(grey: torch.Tensor) -> torch.Tensor:
    """For each image B x H x W the threshold that parts its pixels best (Otsu, 1979): most variance between the two."""
    low, high = grey.amin((1, 2)), grey.amax((1, 2))
    best, where = torch.full_like(low, -1.0), low
    for step in range(1, _STEPS):
        at = low + (high - low) * (step / _STEPS)
        above = (grey > at[:, None, None]).to(grey.dtype)
        share = above.mean((1, 2))
        bright, all_ = (grey * above).mean((1, 2)), grey.mean((1, 2))
        between = (bright - share * all_) ** 2 / (share * (1 - share)).clamp_min(1e-9)
        best, where = torch.maximum(best, between), torch.where(between > best, at, where)
    return where


class OtsuPosition(nn.Module):
    """How often each class is dark or bright in each cell of a grid over the image."""

    def __init__(self, n_classes: int, grid: int):
        super().__init__()
        self.grid = grid
        self.register_buffer("table", torch.zeros(2, n_classes, grid, grid))

    def fit(self, images: torch.Tensor, masks: torch.Tensor) -> None:
        """Count, with one pixel of every class in advance."""
        bright = self._bright(images)[:, None]
        one_hot = F.one_hot(masks, self.table.shape[1]).permute(0, 3, 1, 2).float()
        counts = [F.adaptive_avg_pool2d(one_hot * part, self.grid).sum(0) for part in (~bright, bright)]
        cell = masks[0].numel() / self.grid**2
        counts = torch.stack(counts) * cell + 1
        self.table.copy_((counts / counts.sum(1, keepdim=True)).log())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        dark, bright = F.interpolate(self.table.exp(), images.shape[-2:], mode="bilinear", align_corners=False).log()
        return torch.where(self._bright(images)[:, None], bright, dark)

    def _bright(self, images: torch.Tensor) -> torch.Tensor:
        grey = images.mean(1)
        return grey > otsu(grey)[:, None, None]


@method("segmentation", version=1, estimator=True)
def otsu_position(shape: Shape, *, grid: Annotated[int, Choice(1, 4, 8, 16)] = 8) -> nn.Module:
    """Landmark: Otsu's threshold, and how often each class lies there, bright or dark (1: place tells nothing)."""
    return OtsuPosition(shape.n_classes, grid)


def pixel_features(images: torch.Tensor) -> torch.Tensor:
    """Images B x C x H x W -> B x F x H x W: values, then of their grey level local means, their differences, slopes
    and deviations at four scales, and the place (row and column, -1 to 1)."""
    grey = images.mean(1, keepdim=True)
    found, finer = [images], grey
    for scale in SCALES:
        mean = _smooth(grey, scale)
        slope = (_step(mean, 2) ** 2 + _step(mean, 3) ** 2).sqrt()
        deviation = (_smooth(grey**2, scale) - mean**2).clamp_min(0).sqrt()
        found += [mean, finer - mean, slope, deviation]
        finer = mean
    rows, columns = (torch.linspace(-1, 1, side, device=images.device) for side in images.shape[-2:])
    place = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    return torch.cat([*found, place.expand(images.shape[0], -1, -1, -1)], dim=1)


def _smooth(x: torch.Tensor, scale: int) -> torch.Tensor:
    """Means over squares of 2 * scale + 1 pixels, of what of them lies inside."""
    return F.avg_pool2d(x, 2 * scale + 1, 1, scale, count_include_pad=False)


def _step(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Difference to the next pixel along an axis, 0 at the end."""
    after = x.narrow(axis, min(1, x.shape[axis] - 1), max(1, x.shape[axis] - 1))
    return torch.cat([after, x.narrow(axis, x.shape[axis] - 1, 1)], axis).narrow(axis, 0, x.shape[axis]) - x


class PixelForest(nn.Module):
    """Trees in plain tensors, each as a table of nodes: the feature asked, its threshold, where to go, class shares."""

    def __init__(self, n_classes: int, trees: int, leaves: int, depth: int, pixels: int):
        super().__init__()
        self.leaves, self.depth, self.pixels = leaves, depth, pixels
        nodes = 2 * leaves - 1
        self.register_buffer("feature", torch.zeros(trees, nodes, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(trees, nodes))
        self.register_buffer("branches", torch.zeros(trees, nodes, 2, dtype=torch.int64))
        self.register_buffer("shares", torch.zeros(trees, nodes, n_classes))

    def fit(self, images: torch.Tensor, masks: torch.Tensor) -> None:
        """Grow trees on `pixels` random pixels of all images together."""
        from sklearn.ensemble import RandomForestClassifier

        x, y = self._sample(images, masks)
        trees = len(self.feature)
        forest = RandomForestClassifier(
            trees, max_leaf_nodes=self.leaves, max_depth=self.depth, random_state=int(torch.randint(2**31, ()))
        )
        forest.fit(x.numpy(), y.numpy())
        classes = torch.from_numpy(forest.classes_)
        for number, grown in enumerate(forest.estimators_):
            self._keep(number, grown.tree_, classes)

    def _sample(self, images: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        each = -(-self.pixels // len(images))
        x, y = [], []
        for image, mask in zip(images, masks, strict=True):
            chosen = torch.randperm(mask.numel())[:each]
            x.append(pixel_features(image[None])[0].flatten(1)[:, chosen].T)
            y.append(mask.flatten()[chosen])
        return torch.cat(x), torch.cat(y)

    def _keep(self, number: int, tree, classes: torch.Tensor) -> None:
        n, here = tree.node_count, torch.arange(tree.node_count)
        leaf = torch.from_numpy(tree.children_left) < 0
        sides = (torch.from_numpy(side) for side in (tree.children_left, tree.children_right))
        self.feature[number, :n] = torch.from_numpy(tree.feature).clamp_min(0)
        self.threshold[number, :n] = torch.from_numpy(tree.threshold).float()
        self.branches[number, :n] = torch.stack([torch.where(leaf, here, side) for side in sides], dim=1)
        values = torch.from_numpy(tree.value[:, 0]).float()
        self.shares[number, :n, classes] = values / values.sum(1, keepdim=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = pixel_features(images.float())
        x = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
        trees, nodes = self.feature.shape
        first = torch.arange(trees, device=x.device) * nodes  # tables of all trees, one after the other
        node = torch.zeros_like(x[:, :1], dtype=torch.int64).expand(-1, trees)
        feature, threshold, branches = self.feature.flatten(), self.threshold.flatten(), self.branches.flatten(0, 1)
        for _ in range(self.depth):
            at = first + node
            above = x.gather(1, feature[at]) > threshold[at]
            node = torch.where(above, branches[at, 1], branches[at, 0])
        shares = self.shares.flatten(0, 1)
        logits = sum(shares[first[t] + node[:, t]] for t in range(trees)).div(trees).clamp_min(_LEAST).log()
        return logits.unflatten(0, (images.shape[0], *images.shape[-2:])).permute(0, 3, 1, 2)


@method("segmentation", version=1, estimator=True)
def pixel_forest(
    shape: Shape,
    *,
    trees: Annotated[int, Choice(16, 32, 64)] = 32,
    leaves: Annotated[int, Choice(64, 256, 1024)] = 256,
    tree_depth: Annotated[int, Int(4, 20)] = 12,
    pixels: Annotated[int, Choice(10_000, 30_000, 100_000)] = 30_000,
) -> nn.Module:
    """Landmark: a random forest (Breiman, 2001) on each pixel's value, its surroundings at four scales and its place,
    as interactive tools do (Arganda-Carreras et al., 2017, Trainable Weka Segmentation)."""
    return PixelForest(shape.n_classes, trees, leaves, tree_depth, pixels)
