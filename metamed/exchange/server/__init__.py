"""An OpenML server in a box: the REST API of openml.org over a store, for the unmodified OpenML clients.

`serve` is what `metamed serve` runs. Documents that clients upload are kept as they came, in tables of their own in the
store's file and a folder beside it; metamed's own records get there as anybody's do, by publishing to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from metamed import serving
from metamed.errors import MetamedError, MissingExtra
from metamed.store import Store
from metamed.store.served import Served

PORT = 8000  # where the clients' local-services mode looks
OPEN_USER = "normaluser"  # of the clients' local-services mode, and its own key; never taken from other machines


def make_application(store: Store, *, loopback: bool = True, **limits: int) -> Any:
    """The ASGI application over a store, for any server that runs one."""
    for package in ("starlette", "multipart", "defusedxml", "uvicorn"):
        if find_spec(package) is None:
            raise MissingExtra("serving", package, "serve")
    from metamed.exchange.server.app import application

    return application(Served(store), loopback=loopback, **limits)


def new_key(store: Store, user: str) -> str:
    """Make a user, or give one a new key in place of the old, and return the key; the store keeps its hash alone."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", user) or user == OPEN_USER:
        raise MetamedError(f"user {user[:80]!r}: use up to 64 of A-Z a-z 0-9 _ . -, and not {OPEN_USER}")
    return Served(store).add_user(user)


def serve(store: Store, *, host: str = "localhost", port: int = PORT, ready: Callable[[str], None] = print) -> None:
    """Serve a store until interrupted. ready: called with the address, where requests are answered from then on."""
    serving.serve(make_application(store, loopback=host in serving.LOOPBACK), host, port, ready)


@contextmanager
def running(store: Store, *, host: str = "localhost", port: int = 0) -> Iterator[str]:
    """A server in a thread of this process while the block runs; its address. Port 0 is one that is free."""
    with serving.running(make_application(store, loopback=host in serving.LOOPBACK), host, port) as address:
        yield address
