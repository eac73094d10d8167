"""Embedding triplets against cblearn: pip install --no-deps cblearn sparse (it asks for numpy 1, and runs with 2)."""

from __future__ import annotations

import tracemalloc

import numpy as np

from benchmarks.speed.timing import bar, seconds
from metamed.assessments import Triplets
from metamed.crowd import embed

SLOPE = 6.0  # of the simulated annotator: about 15 % of his answers are wrong
TESTED = 20_000


def _questions(rng: np.random.Generator, images: int, n: int) -> np.ndarray:
    """Three different images each, (n, 3)."""
    drawn = rng.integers(0, images, (n + n // 50 + 100, 3))
    different = (drawn[:, 0] != drawn[:, 1]) & (drawn[:, 0] != drawn[:, 2]) & (drawn[:, 1] != drawn[:, 2])
    return drawn[different][:n]


def _gap(position: np.ndarray, question: np.ndarray) -> np.ndarray:
    near, far = (np.linalg.norm(position[question[:, 0]] - position[question[:, k]], axis=1) for k in (1, 2))
    return far - near


def answered(images: int, n: int, dimensions: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """(answers with noise (n, 3), questions as the truth answers them): rows anchor, closer, farther."""
    rng = np.random.default_rng(0)
    position = rng.normal(size=(images, dimensions)) / np.sqrt(2 * dimensions)
    answers, test = _questions(rng, images, n), _questions(rng, images, TESTED)
    wrong = rng.random(n) > 1 / (1 + np.exp(-SLOPE * _gap(position, answers)))
    for rows, turned in ((answers, wrong), (test, _gap(position, test) < 0)):
        rows[turned] = rows[turned][:, [0, 2, 1]]
    return answers, test


def _against(images: int, n: int) -> tuple[float, float]:
    """Median seconds of three fits, and those of one fit of cblearn's SOE, the fastest of its losses that comes near;
    raises where ours is less accurate by more than chance (two standard errors)."""
    from cblearn.embedding import SOE

    answers, test = answered(images, n)
    triplets = Triplets(*answers.T, np.zeros(n, int))
    found, peer = {}, SOE(n_components=2, n_init=1, random_state=0)

    def ours() -> None:
        found["ours"] = embed(triplets, annotators=False, images=images).positions

    def peers() -> None:
        found["peer"] = peer.fit(answers).embedding_

    took = float(np.median([seconds(ours) for _ in range(3)])), seconds(peers)
    ours_right, peers_right = (_gap(found[name], test) > 0 for name in ("ours", "peer"))
    error = float((ours_right.astype(float) - peers_right).std() / len(test) ** 0.5)
    print(f"  held-out accuracy {ours_right.mean():.4f}, cblearn {peers_right.mean():.4f}; "
          f"the difference is known to {error:.4f}", flush=True)  # fmt: skip
    assert ours_right.mean() >= peers_right.mean() - 2 * error
    return took


@bar(faster=45)
def triplets_300k() -> tuple[float, float]:
    """300,000 triplets of 10,000 images in two dimensions, at least as accurate, against cblearn's SOE, once."""
    return _against(10_000, 300_000)


@bar(faster=13)
def triplets_1m() -> tuple[float, float]:
    """1,000,000 triplets of 10,000 images in two dimensions, at least as accurate, against cblearn's SOE, once."""
    return _against(10_000, 1_000_000)


@bar(faster=3)
def triplets_100k() -> tuple[float, float]:
    """100,000 triplets of 1,000 images in two dimensions, at least as accurate, against cblearn's SOE, once."""
    return _against(1_000, 100_000)


@bar(at_most=4.4, unit="MB")
def triplets_memory() -> tuple[float, float]:
    """Peak memory of four times the triplets and images (400,000 of 20,000) against 100,000 of 5,000: in proportion."""
    return _peak(20_000, 400_000), _peak(5_000, 100_000)


def _peak(images: int, n: int) -> float:
    triplets = Triplets(*answered(images, n)[0].T, np.zeros(n, int))
    tracemalloc.start()
    embed(triplets, annotators=False, images=images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6
