"""Files beside a store: predictions and weights of runs, frozen features of sources."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from metamed.errors import MetamedError, UnknownName
from metamed.store.limits import legal_name


class Artifacts:
    """A folder of files, and others that are only read. Without an own folder a temporary one is made when needed."""

    def __init__(self, own: Path | None = None, others: Iterable[Path] = ()):
        self._folder, self.others = own, tuple(others)

    @property
    def folders(self) -> tuple[Path, ...]:
        return self.others if self._folder is None else (self._folder, *self.others)

    def put(self, run: str, files: Mapping[str, bytes], *, keep: bool = False) -> None:
        """Write files of a run; those that are there already are replaced, or kept if `keep`."""
        for name, content in files.items():
            path = self._own() / run[:2] / run / legal_name(name)
            if not (keep and path.exists()):
                write_file(path, content)

    def find(self, run: str, name: str) -> Path | None:
        return self._find(run[:2], run, name)

    def get(self, run: str, name: str) -> Path:
        if (path := self.find(run, name)) is None:
            folder = self._find(run[:2], run)
            raise UnknownName(f"artifact of run {run[:12]}", name, [p.name for p in folder.iterdir()] if folder else [])
        return path

    def put_features(self, source: str, digest: str, features: np.ndarray) -> Path:
        if features.dtype not in (np.float16, np.float32):
            raise MetamedError(f"features of {source}: dtype {features.dtype}, expected float16 or float32")
        buffer = io.BytesIO()
        np.save(buffer, features, allow_pickle=False)
        path = self._own() / "features" / legal_name(source) / f"{digest}.npy"
        write_file(path, buffer.getvalue())
        return path

    def features(self, source: str, digest: str) -> np.ndarray | None:
        path = self._find("features", legal_name(source), f"{digest}.npy")
        return None if path is None else np.load(path, allow_pickle=False)

    def merge(self, other: Artifacts) -> None:
        """Copy every file of the other that is not here yet."""
        for folder in other.folders:
            for path in folder.rglob("*") if folder.exists() else ():
                target = self._own() / path.relative_to(folder)
                if path.is_file() and not target.exists() and not path.name.startswith("."):
                    write_file(target, path.read_bytes())

    def _own(self) -> Path:
        if self._folder is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="metamed-")
            self._folder = Path(self._scratch.name)
        return self._folder

    def _find(self, *parts: str) -> Path | None:
        return next((p for p in (folder.joinpath(*parts) for folder in self.folders) if p.exists()), None)


def write_file(path: Path, content: bytes) -> None:
    """Write all of a file or nothing of it, and have it on disk before returning."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=".")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)
