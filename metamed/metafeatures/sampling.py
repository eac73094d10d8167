"""What a sample leaves out, said in one line; how exact the means of a sample are."""

from __future__ import annotations

from metamed.dataset import Dataset
from metamed.metafeatures.probe import ROWS


def standard_error(n: int, seen: int) -> float:
    """Standard error of a mean over `seen` of n images drawn without replacement, in deviations over images (.sd)."""
    return ((n - seen) / (max(n - 1, 1) * seen)) ** 0.5 if seen < n else 0.0


def remark(dataset: Dataset, max_samples: int | None) -> str:
    """One line on what `extract` does not look at in this dataset, and what that costs; empty if it sees everything."""
    n, parts = len(dataset.images), []
    if max_samples is not None and n > max_samples:
        error = standard_error(n, max_samples)
        parts.append(f"looked at {max_samples:,} of {n:,} images (--max-samples 0: all): a .mean is off by {error:.3f} "
                     "of its .sd (standard error)")  # fmt: skip
    if dataset.n_samples > ROWS:
        parts.append(f"distances and quick models use {ROWS:,} of {dataset.n_samples:,} samples")
    return "; ".join(parts) + (". docs/meta-features.md says what that costs" if parts else "")
