"""The server as an ASGI application: routing, keys, size limits, and answers in XML, JSON or pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from metamed.exchange.server import OPEN_USER, datasets, flows, lists, runs, studies, tags, tasks  # noqa: F401 (they register)
from metamed.exchange.server.calls import ROUTES, Call, Pieces, Route
from metamed.exchange.server.documents import as_json, as_xml
from metamed.exchange.server.pages import page_routes
from metamed.exchange.server.refusals import Refused
from metamed.exchange.server.tasks import get_splits
from metamed.serving import Guard
from metamed.store.served import DatabaseError, Served

MAX_BODY = 256 * 2**20  # bytes of one request
_MAX_FIELD, _MAX_PARTS = 8 * 2**20, 64
_APIS = ("api", "api_new")  # clients of Java ask under the second name
_TOO_LARGE = {"data": 130, "flow": 160, "run": 207, "task": 611, "study": 1031, "setup": 581}


def application(served: Served, *, loopback: bool = True, max_body: int = MAX_BODY) -> Any:
    """The server over a store. loopback: only this machine asks, so the open key is taken, and no other host name."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.routing import Route as Path_

    if loopback and not served.user(OPEN_USER):
        served.add_user(OPEN_USER, OPEN_USER)
    found = []
    fixed_first = sorted(ROUTES, key=lambda r: "{" in r.pattern)
    for api, route, form in product(_APIS, fixed_first, ("/xml", "/json", "")):
        endpoint = _endpoint(served, route, form == "/json", loopback)
        found.append(Path_(f"/{api}/v1{form}/{route.pattern}", endpoint, methods=[route.method]))
    found += [*_file_routes(served, Path_), *page_routes(served)]
    guard = Middleware(Guard, loopback=loopback, max_body=max_body, refuse=_foreign, too_large=_too_large)
    errors = {404: _unknown, 405: _unknown, Refused: _refused, DatabaseError: _busy, Exception: _bug}
    app = Starlette(routes=found, middleware=[guard, Middleware(GZipMiddleware, minimum_size=1, compresslevel=3)],
                    exception_handlers=errors)  # fmt: skip
    app.router.redirect_slashes = False  # the guard drops them
    return app


def _endpoint(served: Served, route: Route, json: bool, loopback: bool) -> Callable:
    async def endpoint(request):
        from starlette.concurrency import run_in_threadpool

        request.state.json = json
        call = await _call(request, served, json, loopback)
        document = await run_in_threadpool(route.answer, call, **_bounded(request.path_params))
        return _answer(document, json)

    return endpoint


def _bounded(parameters: dict) -> dict:
    """Numbers that no database holds lead nowhere, as every unknown one does."""
    return {name: min(v, 2**62) if isinstance(v, int) else v for name, v in parameters.items()}


async def _call(request, served: Served, json: bool, loopback: bool) -> Call:
    """The request as a Call. Whoever writes has to have a key; files are read only then."""
    base = str(request.base_url).rstrip("/")
    if request.method in ("GET", "HEAD"):
        return Call(served, base, as_json=json)
    form = await _form(request) if request.method == "POST" else {}
    key = form.get("api_key") or request.query_params.get("api_key")
    if not key:
        raise Refused(102)
    user = served.user(key) if isinstance(key, str) and (loopback or key != OPEN_USER) else None
    if user is None:
        raise Refused(103, "the key is not known")
    fields = {name: value for name, value in form.items() if isinstance(value, str) and name != "api_key"}
    files = {name: (value.filename or name, await value.read()) for name, value in form.items()
             if not isinstance(value, str)}  # fmt: skip
    return Call(served, base, user, fields, files, json)


async def _form(request):
    """Fields and files of a POST; a body that is no form is refused."""
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect

    try:
        return await request.form(max_files=_MAX_PARTS, max_fields=_MAX_PARTS, max_part_size=_MAX_FIELD)
    except ClientDisconnect:
        raise Refused(_code_of(request.url.path), "the connection was cut in mid-upload") from None
    except HTTPException as error:
        raise Refused(_code_of(request.url.path), f"no form that can be read: {error.detail}") from None
    except (ValueError, LookupError, AssertionError) as error:
        raise Refused(_code_of(request.url.path), f"no form that can be read: {type(error).__name__}") from None


def _code_of(path: str) -> int:
    """The code that says of a kind of upload that its request could not be read."""
    return next((code for kind, code in _TOO_LARGE.items() if f"/{kind}" in path), 130)


def _answer(document: dict | Pieces, json: bool, status: int = 200):
    from starlette.responses import Response, StreamingResponse

    if isinstance(document, Pieces):
        return StreamingResponse(document.content, media_type=f"{document.media_type}; charset=utf-8")
    if json:
        return Response(as_json(document), status, media_type="application/json; charset=utf-8")
    return Response(as_xml(document), status, media_type="text/xml; charset=utf-8")


async def _refused(request, error: Refused):
    return _answer(error.document, getattr(request.state, "json", False), 412)


def _foreign(message: str):
    return _answer(Refused(102, message).document, False, 412)


def _too_large(path: str, message: str) -> Refused:
    return Refused(_code_of(path), message)


async def _busy(request, error: Exception):
    return await _refused(request, Refused(107))


async def _unknown(request, error: Exception):
    return await _refused(request, Refused(100, f"{request.method} {request.url.path[:200]}"))


async def _bug(request, error: Exception):
    """Starlette logs the traceback on the server; nobody else sees it."""
    return _answer(Refused(101, "the server failed, its log says where").document, False, 500)


def _file_routes(served: Served, make: Callable) -> list:
    """Files by their number, and split files: the addresses that documents hold."""

    async def download(request):
        found = served.file(min(request.path_params["id"], 2**62))
        if found is None:
            raise Refused(113, f"there is no file {request.path_params['id']}")
        return _file(*found)

    async def splits(request):
        from starlette.concurrency import run_in_threadpool

        call = Call(served, str(request.base_url).rstrip("/"))
        return _answer(await run_in_threadpool(get_splits, call, min(request.path_params["id"], 2**62)), False)

    return [make(f"{prefix}/download/{{id:int}}{name}", download) for prefix in ("/data", "/data/v1")
            for name in ("", "/{name:path}")] + [make("/api_splits/get/{id:int}/{name}", splits)]  # fmt: skip


def _file(path: Path, name: str):
    from starlette.responses import StreamingResponse

    plain = name.endswith((".arff", ".xml"))  # all of them are UTF-8, or were refused
    media_type = "text/plain; charset=utf-8" if plain else "application/octet-stream"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(_chunks(path), media_type=media_type, headers=headers)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            yield chunk
