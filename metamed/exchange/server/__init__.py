"""An OpenML server in a box: the REST API of openml.org over a store, for the unmodified OpenML clients.

`serve` is what `metamed serve` runs. Documents that clients upload are kept as they came, in tables of their own in the
store's file and a folder beside it; metamed's own records get there as anybody's do, by publishing to it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from metamed.errors import MetamedError, MissingExtra
from metamed.store import Store
from metamed.store.served import Served

PORT = 8000  # where the clients' local-services mode looks
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def make_application(store: Store, *, loopback: bool = True, **limits: int) -> Any:
    """The ASGI application over a store, for any server that runs one."""
    for package in ("starlette", "multipart", "defusedxml", "uvicorn"):
        if find_spec(package) is None:
            raise MissingExtra("serving", package, "serve")
    from metamed.exchange.server.app import application

    return application(Served(store), loopback=loopback, **limits)


def serve(store: Store, *, host: str = "localhost", port: int = PORT, ready: Callable[[str], None] = print) -> None:
    """Serve a store until interrupted. ready: called with the address once requests are answered."""
    application = make_application(store, loopback=host in LOOPBACK)
    import uvicorn

    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise MetamedError(f"{host}:{port}: {error.strerror}. Pass another --port or --host.") from None
    config = uvicorn.Config(application, log_level="warning", access_log=False, server_header=False, lifespan="off")
    with listener:
        ready(f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[listener])
