"""Parts: what the folds of a task do with each sample, as one word a row of a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metamed.dataset import Split

UNUSED = "-"


def part_words(folds: Sequence[Split], samples: np.ndarray) -> list[str]:
    """For each of these samples one letter a fold: t(rain) v(alidation) e(valuation) -(unused, as is sample -1)."""
    size = int(samples.max()) + 1
    letters = np.full((size + 1, len(folds)), UNUSED)  # the last line is that of sample -1
    for k, fold in enumerate(folds):
        for part, letter in ((fold.train, "t"), (fold.validation, "v"), (fold.test, "e")):
            letters[list(part), k] = letter
    return ["".join(line) for line in letters[samples]]


def folds_of(words: Sequence[str], samples: np.ndarray) -> tuple[Split, ...]:
    """The folds that the words of `part_words` tell, samples ascending; of several words a sample the first."""
    samples, first = np.unique(samples, return_index=True)
    letters = np.array([list(words[row]) for row in first[samples >= 0]])
    samples = samples[samples >= 0]
    return tuple(Split(*(tuple(samples[column == letter].tolist()) for letter in "tve")) for column in letters.T)
