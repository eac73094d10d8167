"""Where the images of a published table lie on this machine, and what may be told of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from metamed.dataset import Dataset
from metamed.errors import NotApplicable, ReadError
from metamed.store.evidence import DatasetFacts

_OFFERED: dict[str, Dataset] = {}


def offer(dataset: Dataset) -> None:
    """Let flows that openml runs on a task find this dataset's images: tables hold none."""
    _OFFERED[dataset.digest] = dataset


def find_images(facts: DatasetFacts) -> Dataset:
    """The dataset of that digest: one that was offered, else the file or folder of that name below $METAMED_DATA."""
    if facts.digest in _OFFERED:
        return _OFFERED[facts.digest]
    from metamed.readers import read

    folder = os.environ.get("METAMED_DATA")
    for path in sorted(Path(folder).rglob("*")) if folder else ():
        if facts.name not in (path.name, path.stem):
            continue
        try:
            dataset = read(path)
        except ReadError:
            continue
        if dataset.digest == facts.digest:
            offer(dataset)
            return dataset
    where = f"below {folder}" if folder else "offered (metamed.exchange.images.offer), and METAMED_DATA is not set"
    raise NotApplicable(f"the images of {facts.name} (digest {facts.digest[:12]}) are not {where}")


def identified(dataset: Dataset) -> dict[str, dict[str, list[str]]]:
    """What `publish(columns=…)` tells of images: path and sha256 of each sample (image or bag), by digest."""
    n = dataset.n_samples
    members = [np.flatnonzero(dataset.bags == bag) for bag in range(n)] if dataset.bags is not None else None
    hashes = []
    for sample in range(n):
        sha = sha256()
        for image in [sample] if members is None else members[sample].tolist():
            sha.update(np.ascontiguousarray(dataset.images[image]).tobytes())
        hashes.append(sha.hexdigest())
    paths = getattr(dataset.images, "paths", None)
    names = [f"{dataset.name}[{sample}]" for sample in range(n)] if paths is None or members else _inside(paths)
    return {dataset.digest: {"path": names, "sha256": hashes}}


def _inside(paths: Sequence[Path]) -> list[str]:
    """Paths below the folder that all of them lie in: where that folder is stays on this machine."""
    root = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(root).as_posix() for path in paths]
