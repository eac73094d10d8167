"""Small web servers on this machine: a socket, a thread, and what stands before every route."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from metamed.errors import MetamedError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HOSTS = {"localhost", "127.0.0.1", "[::1]"}  # as browsers write them


def bind(application: Any, host: str, port: int) -> tuple[Any, socket.socket, str]:
    """(uvicorn's server, the socket that it will listen on, its address). Port 0 is one that is free.

    Raises MetamedError where nobody can listen there.
    """
    import uvicorn

    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).split(" (")[0].rstrip(".")
        raise MetamedError(f"{host}:{port}: {reason}. Pass another --port or --host.") from None
    # accepted sockets inherit it; asyncio sets it only on sockets that name their protocol, and answers came 40 ms late
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(application, log_level="warning", access_log=False, server_header=False, lifespan="off")
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    return uvicorn.Server(config), listener, address


def serve(application: Any, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until interrupted. ready: called with the address, where requests are answered from then on."""
    server, listener, address = bind(application, host, port)
    with listener:
        ready(address)
        server.run(sockets=[listener])


@contextmanager
def running(application: Any, host: str = "localhost", port: int = 0) -> Iterator[str]:
    """A server in a thread of this process while the block runs; its address."""
    server, listener, address = bind(application, host, port)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    with listener:
        thread.start()
        try:
            yield address
        finally:
            server.should_exit = server.force_exit = True
            thread.join()


class Guard:
    """What stands before all routes: paths without doubled slashes, the right host, bodies of a bounded size.

    A web page on another site may make a browser send forms here: with a foreign Origin nothing is written, and under a
    foreign host name nothing is answered. refuse: a message -> the response that says it. too_large: (path, message) ->
    the exception that an application turns into its response.
    """

    def __init__(self, app, loopback: bool, max_body: int, refuse: Callable[[str], Any],
                 too_large: Callable[[str, str], Exception]):  # fmt: skip
        self._app, self._loopback, self._max_body = app, loopback, max_body
        self._refuse, self._too_large = refuse, too_large

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = {**scope, "path": "/" + "/".join(part for part in scope["path"].split("/") if part)}
        if refused := self._foreign({k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}, scope):
            await self._refuse(refused)(scope, receive, send)
            return
        await self._app(scope, self._bounded(receive, scope["path"]), _with_headers(send))

    def _foreign(self, headers: dict[str, str], scope) -> str | None:
        host = headers.get("host", "")
        if self._loopback and host.rsplit(":", 1)[0] not in _HOSTS and host not in _HOSTS:
            return f"host {host[:60]!r}: this server answers this machine alone, as localhost"
        origin = headers.get("origin")
        if origin and scope["method"] not in ("GET", "HEAD") and origin.partition("://")[2] != host:
            return f"a page of {origin[:60]!r} may not write here"
        return None

    def _bounded(self, receive, path: str):
        size = 0

        async def bounded():
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._max_body:
                while message.get("more_body"):  # so that the client reads the answer instead of a broken pipe
                    message = await receive()
                raise self._too_large(path, f"the request has more than {self._max_body} bytes")
            return message

        return bounded


def _with_headers(send):
    async def sending(message):
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"x-content-type-options", b"nosniff")]}
        await send(message)

    return sending
