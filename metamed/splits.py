"""The folds that an OpenML server makes: the same rows in the same order as the official ones, before asking one.

A server shuffles with Java's generator (seed 0) and stratifies with Weka's swaps. Both are repeated here: official
split files come out byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from metamed.errors import UnknownName

PROCEDURES = {"10-fold": 1, "4-fold": 25, "ordered": 28}  # what a task can say here -> its number on servers
ORDERED_SHARE = 5  # one row in five of procedure 28 is for testing


@dataclass(frozen=True)
class Procedure:
    """An estimation procedure: what a server calls it, and its parameters; percent: test share of a holdout."""

    id: int
    task_type: int
    name: str
    type: str
    repeats: int = 1
    folds: int | None = None
    percent: int | None = None
    stratified: bool = False


_ROWS = """
 1 1 crossvalidation   1 10 - true  10-fold Crossvalidation
 2 1 crossvalidation   5  2 - true  5 times 2-fold Crossvalidation
 3 1 crossvalidation  10 10 - true  10 times 10-fold Crossvalidation
 4 1 leaveoneout       1  - - false Leave one out
 5 1 holdout           1  - 10 true 10% Holdout set
 6 1 holdout           1  - 33 true 33% Holdout set
 7 2 crossvalidation   1 10 - false 10-fold Crossvalidation
 8 2 crossvalidation   5  2 - false 5 times 2-fold Crossvalidation
 9 2 crossvalidation  10 10 - false 10 times 10-fold Crossvalidation
10 2 leaveoneout       1  - - false Leave one out
11 2 holdout           1  - 10 false 10% Holdout set
12 2 holdout           1  - 33 false 33% Holdout set
17 5 testontrainingdata 50 - - false 50 times Clustering
23 1 crossvalidation 100 10 - true  100 times 10-fold Crossvalidation
25 1 crossvalidation   1  4 - true  4-fold Crossvalidation
26 1 testontrainingdata 1 - - false Test on Training Data
27 2 testontrainingdata 1 - - false Test on Training Data
28 1 holdout_ordered   1  1 20 false 20% Holdout (Ordered)
"""


def _read() -> dict[int, Procedure]:
    found = {}
    for line in _ROWS.strip().splitlines():
        id, task_type, type, repeats, folds, percent, stratified, name = line.split(maxsplit=7)
        found[int(id)] = Procedure(int(id), int(task_type), name, type, int(repeats), _optional(folds),
                                   _optional(percent), stratified == "true")  # fmt: skip
    return found


def _optional(word: str) -> int | None:
    return None if word == "-" else int(word)


KNOWN: dict[int, Procedure] = _read()


def folds(procedure: int, classes: Sequence[int] | None, n: int) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """(repeat, fold, training rows, test rows) of an OpenML procedure on n rows, in the server's order.

    classes: class of each row, -1 where unknown; None for a numeric target, which is not stratified.
    """
    if procedure not in KNOWN:
        raise UnknownName("estimation procedure", str(procedure), map(str, KNOWN))
    p = KNOWN[procedure]
    yield from _MAKERS[p.type](p, None if classes is None else np.asarray(classes), n)


def crossvalidation(target: Sequence | None, n: int, folds: int, repeats: int = 1) -> Iterator[list[np.ndarray]]:
    """Test rows of each fold, ascending, one list a repeat. target: class of each row, None: no stratification."""
    classes = None if target is None else np.unique(np.asarray(target), return_inverse=True)[1]
    for order in _orders(classes, n, folds, repeats):
        yield [np.sort(block) for block in np.array_split(order, folds)]


def _orders(classes: np.ndarray | None, n: int, folds: int, repeats: int) -> Iterator[np.ndarray]:
    """The rows in the order in which each repeat cuts them into folds."""
    random, order = JavaRandom(0), np.arange(n)
    for _ in range(repeats):
        _shuffle(order, random)  # the order of one repeat is where the next one starts
        if classes is not None:
            order = _stratify(order, classes, folds)
        yield order.copy()


def _cross_validation(p: Procedure, classes: np.ndarray | None, n: int) -> Iterator:
    for repeat, order in enumerate(_orders(classes, n, p.folds, p.repeats)):
        blocks = np.array_split(order, p.folds)  # the first n mod folds of them are one row larger
        for fold, test in enumerate(blocks):
            yield repeat, fold, np.concatenate(blocks[:fold] + blocks[fold + 1 :]), test


def _holdout(p: Procedure, classes: np.ndarray | None, n: int) -> Iterator:
    random, order = JavaRandom(0), np.arange(n)
    for repeat in range(p.repeats):
        _shuffle(order, random)
        test = n * p.percent // 100
        yield repeat, 0, order[test:].copy(), order[:test].copy()


def _ordered(p: Procedure, classes: np.ndarray | None, n: int) -> Iterator:
    training = np.arange(n) <= n - n * p.percent / 100  # one row more than expected: so does the server
    yield 0, 0, np.flatnonzero(training), np.flatnonzero(~training)


def ordered_test(n: int) -> int:
    """How many of n rows procedure 28 tests on: the last ones, one fewer than a fifth of them."""
    return n - min(n, int(n - n / ORDERED_SHARE) + 1)


def rows_for_test(n_test: int) -> int:
    """With how many rows procedure 28 tests on exactly the last n_test: a multiple of 5, whatever way it is rounded."""
    return ORDERED_SHARE * (n_test + 1)


def _leave_one_out(p: Procedure, classes: np.ndarray | None, n: int) -> Iterator:
    for row in range(n):
        yield 0, row, np.delete(np.arange(n), row), np.array([row])


def _on_training_data(p: Procedure, classes: np.ndarray | None, n: int) -> Iterator:
    for repeat in range(p.repeats):
        yield repeat, 0, np.arange(n), np.arange(n)


_MAKERS = {"crossvalidation": _cross_validation, "holdout": _holdout, "holdout_ordered": _ordered,
           "leaveoneout": _leave_one_out, "testontrainingdata": _on_training_data}  # fmt: skip


class JavaRandom:
    """java.util.Random: a linear congruential generator of 48 bits."""

    def __init__(self, seed: int):
        self._state = (seed ^ 0x5DEECE66D) & ((1 << 48) - 1)

    def _bits(self, n: int) -> int:
        self._state = (self._state * 0x5DEECE66D + 0xB) & ((1 << 48) - 1)
        return self._state >> (48 - n)

    def below(self, bound: int) -> int:
        """nextInt(bound): uniform in 0 … bound - 1."""
        if bound & (bound - 1) == 0:
            return (bound * self._bits(31)) >> 31
        while True:
            bits = self._bits(31)
            value = bits % bound
            if bits - value + bound - 1 < 1 << 31:
                return value


def _shuffle(order: np.ndarray, random: JavaRandom) -> None:
    """Weka's randomize: each row from the last on changes places with one at or before it."""
    rows = order.tolist()
    for j in range(len(rows) - 1, 0, -1):
        k = random.below(j + 1)
        rows[j], rows[k] = rows[k], rows[j]
    order[:] = rows


def _stratify(order: np.ndarray, classes: np.ndarray, n_folds: int) -> np.ndarray:
    """Weka's stratify: rows of one class behind each other, by swaps, then every n_folds-th row together."""
    rows, index = order.tolist(), 1
    while index < len(rows):
        of = classes[rows]
        for j in (np.flatnonzero(of[index:] == of[index - 1]) + index).tolist():
            rows[index], rows[j] = rows[j], rows[index]
            index += 1
        index += 1
    return np.concatenate([rows[start::n_folds] for start in range(n_folds)]).astype(order.dtype)


def splits_arff(name: str, procedure: int, classes: Sequence[int] | None, n: int) -> Iterator[str]:
    """The split file that a server has for a dataset of that name, in pieces; no line ends the last one."""
    yield (f"@relation {name}_splits\n\n@attribute type {{TRAIN,TEST}}\n@attribute rowid numeric\n"
           "@attribute repeat numeric\n@attribute fold numeric\n\n@data")  # fmt: skip
    for repeat, fold, *parts in folds(procedure, classes, n):
        for part, rows in zip(("TRAIN", "TEST"), parts, strict=True):
            yield "".join(f"\n{part},{row},{repeat},{fold}" for row in rows.tolist())
