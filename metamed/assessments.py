"""Judgements by people: relative assessments (triplets) and attribute ratings."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from metamed.errors import ReadError


def _check_lengths(record) -> None:
    lengths = {f.name: len(v) for f in fields(record) if (v := getattr(record, f.name)) is not None}
    if len(set(lengths.values())) > 1:
        raise ReadError(f"{type(record).__name__}: columns differ in length: {lengths}")


@dataclass(frozen=True, eq=False)
class Triplets:
    """Relative assessments: `closer` is more like `anchor` than `farther` is. One entry per answer.

    anchor, closer, farther: image indices, int (n,). annotator: who answered, any hashable (n,).
    side: where `closer` was shown, 0 left, 1 right (n,). condition: e.g. plain or game (n,).
    """

    anchor: np.ndarray
    closer: np.ndarray
    farther: np.ndarray
    annotator: np.ndarray
    side: np.ndarray | None = None
    condition: np.ndarray | None = None

    def __post_init__(self):
        _check_lengths(self)

    def __len__(self) -> int:
        return len(self.anchor)


@dataclass(frozen=True, eq=False)
class Ratings:
    """Absolute assessments: `annotator` gave `image` the `score` for `attribute`. One entry per answer."""

    image: np.ndarray
    annotator: np.ndarray
    attribute: np.ndarray
    score: np.ndarray

    def __post_init__(self):
        _check_lengths(self)

    def __len__(self) -> int:
        return len(self.image)
