"""The registry of readers: to add a file format is to decorate one function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from metamed.dataset import Dataset
from metamed.readers.layouts import Wanted


@dataclass(frozen=True)
class Reader:
    """A file format. suffixes: of the file itself, or of the files in a folder if `folder`.

    fits: does a path have this layout? Where several readers take a suffix, the first that says so reads it; one
    without `fits` reads what nobody else claims.
    """

    name: str
    suffixes: tuple[str, ...]
    function: Callable[[Path, Wanted], Dataset]
    folder: bool = False
    fits: Callable[[Path], bool] | None = None

    @property
    def description(self) -> str:
        return (self.function.__doc__ or "").strip()


READERS: dict[str, Reader] = {}


def reader(*suffixes: str, folder: bool = False, fits: Callable[[Path], bool] | None = None):
    """Register a function (path, Wanted) -> Dataset for files with these suffixes, or folders of such files."""

    def register(function: Callable[[Path, Wanted], Dataset]) -> Callable[[Path, Wanted], Dataset]:
        READERS[function.__name__] = Reader(function.__name__, suffixes, function, folder, fits)
        return function

    return register
