"""Which question to ask next: the one whose answer would teach most about where the images lie."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from metamed.assessments import Triplets, informative

CANDIDATES = 400  # questions that are weighed against each other: the best of them is nearly the best of all
LEARN_EVERY = 25  # answers, or a tenth of all where that is more: an embedding takes seconds
KEPT = 60  # embeddings of those that explain the answers: as many as tell whether they disagree
DIMENSIONS = 2
SLOPE = 4.0  # how surely somebody tells two distances apart that differ by a typical distance


class Chooser:
    """Draws questions about some images; once there are answers, by what the answer is worth.

    The worth of a question is the information that its answer is expected to give about the embedding: how far the
    embeddings that explain the answers so far disagree about it, beyond what each is unsure of itself (Houlsby et al.
    2011, arXiv 1112.5745; for triplets Tamuz et al. 2011). Learning happens beside; until it is done, questions are
    chosen by what was known before.
    """

    def __init__(self, images: np.ndarray, *, adaptive: bool = True):
        self.images, self.adaptive = np.asarray(images), adaptive
        self._embeddings: np.ndarray | None = None  # (samples, images, dimensions)
        self._learned, self._busy = 0, threading.Lock()

    def draw(self, rng: np.random.Generator, n: int = 1) -> np.ndarray:
        """Rows (anchor, other, another) of different images, as positions in `images`, int (n, 3)."""
        anchor, a, b = rng.integers(0, len(self.images) - np.arange(3)[:, None], (3, n))
        a = a + (a >= anchor)
        low, high = np.minimum(anchor, a), np.maximum(anchor, a)
        b = b + (b >= low)
        return np.stack([anchor, a, b + (b >= high)], axis=1)

    def choose(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """(anchor, other, another): images that differ, the last two in no order."""
        rows = self.draw(rng, CANDIDATES if self._embeddings is not None else 1)
        best = 0 if self._embeddings is None else int(self.worth(rows).argmax())
        return tuple(self.images[rows[best]].tolist())

    def worth(self, rows: np.ndarray) -> np.ndarray:
        """Expected information of the answer to each question, in bits (n,)."""
        position = self._embeddings
        to_a, to_b = (np.linalg.norm(position[:, rows[:, 0]] - position[:, rows[:, k]], axis=2) for k in (1, 2))
        p = 1 / (1 + np.exp(-SLOPE * (to_b - to_a)))
        return _entropy(p.mean(axis=0)) - _entropy(p).mean(axis=0)

    def due(self, n_answers: int) -> bool:
        """Have enough answers come to learn from them again?"""
        return self.adaptive and n_answers >= self._learned + max(LEARN_EVERY, self._learned // 10)

    def learn(self, answers: Triplets, *, wait: bool = False) -> None:
        """Take answers into account, in a process of its own so that nobody waits for it, or here and now; nothing
        where that is under way or too few have come since."""
        if not self.due(len(answers)) or not self._busy.acquire(blocking=False):
            return
        if wait:
            self._learn(answers, _embeddings)
        else:
            threading.Thread(target=self._learn, args=(answers, _elsewhere), daemon=True).start()

    def _learn(self, answers: Triplets, embeddings: Callable[[Triplets, np.ndarray], np.ndarray | None]) -> None:
        try:
            self._embeddings, self._learned = embeddings(answers, self.images), len(answers)
        except EOFError:
            pass  # its process was ended: what was known before still holds
        finally:
            self._busy.release()


def _embeddings(answers: Triplets, images: np.ndarray) -> np.ndarray | None:
    """Embeddings of some images that explain the answers, (samples, images, dimensions); None without answers."""
    from metamed.crowd import embed

    place = np.full(int(images.max()) + 1, -1)
    place[images] = np.arange(len(images))
    answers = informative(answers)
    rows = np.stack([place[c] for c in (answers.anchor, answers.closer, answers.farther)])
    ours = (rows >= 0).all(axis=0)
    if not ours.any():
        return None
    named = Triplets(*rows[:, ours], answers.annotator[ours], answers.side[ours])
    return embed(named, DIMENSIONS, images=len(images)).samples[-KEPT:]


def _elsewhere(answers: Triplets, images: np.ndarray) -> np.ndarray | None:
    """The same in another process, where it holds no lock that answers wait for; it ends with this one."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(its, answers, images), daemon=True)
    process.start()
    its.close()
    with mine:
        found = mine.recv()
    process.join()
    return found


def _tell(pipe, answers: Triplets, images: np.ndarray) -> None:
    import os
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server
    if hasattr(os, "nice"):
        os.nice(10)
    pipe.send(_embeddings(answers, images))


def _entropy(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 1e-9, 1 - 1e-9)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
