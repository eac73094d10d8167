"""A request as the functions that answer it see it, and the table of which function answers what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from metamed.exchange.server.checks import checked, number
from metamed.exchange.server.documents import read_xml
from metamed.exchange.server.refusals import Refused
from metamed.store.served import Served


@dataclass(frozen=True)
class Call:
    """base: the server's address, no slash at its end. user: who asks, None for a reader.

    form: fields of a POST; files: its file parts, part -> (file name, content). as_json: is JSON wanted?
    """

    served: Served
    base: str = ""
    user: int | None = None
    form: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, tuple[str, bytes]] = field(default_factory=dict)
    as_json: bool = False

    def description(self, part: str = "description") -> bytes | None:
        """The XML that a POST brought, as a file or as a field."""
        if part in self.files:
            return self.files[part][1]
        return self.form[part].encode() if part in self.form else None

    def described(self, root: str, missing: int, invalid: int, part: str = "description") -> dict:
        """That XML, checked against the rules of its root; refused with one of the two codes."""
        content = self.description(part)
        if not content:
            raise Refused(missing, f"the request has no part '{part}'")
        return checked(read_xml(content, root, invalid), invalid)

    def number(self, name: str, code: int) -> int:
        """A field that is a number."""
        if name not in self.form:
            raise Refused(code, f"the field {name} is missing")
        return number(self.form[name], code, name)


@dataclass(frozen=True)
class Pieces:
    """An answer that is sent piece by piece."""

    content: Iterable[str]
    media_type: str


@dataclass(frozen=True)
class Route:
    """pattern: a path below /api/v1, with Starlette's {name:type} for what varies."""

    method: str
    pattern: str
    answer: Callable[..., dict | Pieces]


ROUTES: list[Route] = []


def route(method: str, pattern: str):
    """Register a function of a Call and the parts of the path. Whoever POSTs or DELETEs has a key: `user` is set."""

    def register(function):
        ROUTES.append(Route(method, pattern, function))
        return function

    return register
