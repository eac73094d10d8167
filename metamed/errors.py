"""What can go wrong, each with the exit code that the command line gives it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MetamedError(Exception):
    """Root of metamed's errors. The message is one line: the thing, the value found, the way out."""

    exit_code = 2


class UnknownName(MetamedError, KeyError):
    """A name that no registry, store or file holds; offers the nearest ones."""

    def __init__(self, what: str, name: str, known: Iterable[str]):
        known = sorted(map(str, known))
        near = get_close_matches(str(name), known, n=3) or known[:8]
        super().__init__(f"no {what} '{name}'" + (f" (did you mean {', '.join(near)}?)" if near else ""))

    def __str__(self) -> str:  # KeyError would print the message's repr
        return str(self.args[0])


class ReadError(MetamedError):
    """Data that cannot be read, or could be read in more than one way."""

    exit_code = 3


class NotApplicable(MetamedError):
    """The data is fine, but what was asked for is not defined on it."""

    exit_code = 4


class EmptyStore(MetamedError):
    """The store holds no evidence to answer from."""

    exit_code = 4


class PublishError(MetamedError):
    """An OpenML server refused or could not be reached, or the network was forbidden."""

    exit_code = 5


class MissingExtra(MetamedError):
    """An optional dependency is not installed."""

    exit_code = 6

    def __init__(self, doing: str, package: str, extra: str):
        super().__init__(f'{doing} needs {package}. pip install "metamed[{extra}]"')
