"""The collecting page as an ASGI application: one page, its pictures, and three things that it may send."""

from __future__ import annotations

import hmac
import json
import math
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from metamed.collecting.pictures import png
from metamed.collecting.questions import GAMIFIED, Asker, points
from metamed.dataset import Dataset
from metamed.serving import Guard
from metamed.store.collected import Answer, Person

MAX_BODY = 4096  # bytes of a request
MOST_PEOPLE = 10_000  # of a study: nobody fills the disk by joining
LEADERS = 10
_LONGEST = 86_400.0  # seconds of an answer that are believed
_COOKIE = "metamed_key"
_PAGES = {"": "text/html", "page.js": "text/javascript", "page.css": "text/css"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class _Refused(Exception):
    """What a browser is told instead of an answer."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


def application(asker: Asker, dataset: Dataset, *, loopback: bool, key: str | None, heard: Callable[[], None]) -> Any:
    """The page that asks about a dataset.

    loopback: this machine alone is answered. key: what a browser from elsewhere has to bring once (?key=…), None if
    nobody does. heard: called after each answer.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.routing import Route

    page = _Page(asker, dataset, heard)

    def told(answer: Callable, person: bool = True):
        async def endpoint(request):
            from starlette.concurrency import run_in_threadpool

            _admit(request, key)
            given = await _given(request) if request.method == "POST" else {}
            who = (await run_in_threadpool(page.who, _bearer(request)),) if person else ()
            return _json(await run_in_threadpool(answer, *who, given))

        return endpoint

    async def picture(request):
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import Response

        _admit(request, key)
        content = await run_in_threadpool(page.picture, min(request.path_params["index"], 2**62))
        return Response(content, media_type="image/png", headers=_HEADERS | {"Cache-Control": "private, max-age=86400"})

    routes = [Route(f"/{name}", _file(name or "index.html", kind, key)) for name, kind in _PAGES.items()]
    routes += [Route("/image/{index:int}", picture), Route("/study", told(page.study, person=False)),
               Route("/join", told(page.join, person=False), methods=["POST"]),
               Route("/next", told(page.next), methods=["POST"]),
               Route("/answer", told(page.answer), methods=["POST"])]  # fmt: skip
    guard = Middleware(Guard, loopback=loopback, max_body=MAX_BODY,
                       refuse=lambda message: _json({"error": message}, 403),
                       too_large=lambda path, message: _Refused(413, message))  # fmt: skip
    return Starlette(routes=routes, middleware=[guard], exception_handlers={_Refused: _refused, 404: _nothing})


class _Page:
    """What the page may ask for and send, each as plain values."""

    def __init__(self, asker: Asker, dataset: Dataset, heard: Callable[[], None]):
        self.asker, self.heard = asker, heard
        self.shown = set(asker.chooser.images.tolist())
        self.picture = lru_cache(2048)(lambda index: self._picture(dataset, index))
        by: dict[str, list[Answer]] = {}
        for answer in asker.collected.answers():
            by.setdefault(answer.question.person, []).append(answer)
        self.points = {person: points(answers) for person, answers in by.items()}  # kept up to date by `next`

    def _picture(self, dataset: Dataset, index: int) -> bytes:
        if index not in self.shown:
            raise _Refused(404, f"there is no image {index} in this study")
        return png(dataset, index)

    def who(self, key: str) -> Person:
        person = self.asker.collected.person(self.asker.study, key)
        if person is None:
            raise _Refused(401, "You are not known here. Join first")
        return person

    def study(self, _) -> dict:
        s, known = self.asker.settings, self.asker.collected
        name = sha256(f"{known.digest}/{known.name}".encode()).hexdigest()[:16]  # the same after other settings
        return {"study": name, "instruction": s.instruction, "questions": s.questions, "confidence": s.confidence}

    def join(self, given: dict) -> dict:
        name = given.get("name")
        name = " ".join("".join(c for c in name if c.isprintable()).split()) if isinstance(name, str) else ""
        if not 1 <= len(name) <= 40:
            raise _Refused(400, "A name has 1 to 40 characters")
        collected, study = self.asker.collected, self.asker.study
        if len(collected.people(study)) >= MOST_PEOPLE:
            raise _Refused(403, "This study is full")
        if (joined := collected.join(study, name, self.asker.settings.conditions)) is None:
            raise _Refused(409, "This name is taken. Choose another one")
        return {"key": joined[1]} | self.next(joined[0], {})

    def next(self, person: Person, _) -> dict:
        question = self.asker.next(person)
        mine = self.asker.collected.answers(person.id)
        state = {"name": person.name, "done": len(mine), "of": self.asker.settings.questions, "question": question and {
            "id": question.id, "anchor": question.anchor, "left": question.left, "right": question.right}}  # fmt: skip
        self.points[person.id] = points(mine)
        shows = GAMIFIED.get(person.condition, ())
        if "points" in shows:
            state["points"] = self.points[person.id]
        if "leaderboard" in shows:
            state["leaders"] = self._leaders(person)
        return state

    def _leaders(self, person: Person) -> list[dict]:
        """The best of those who see the leaderboard themselves."""
        players = [p for p in self.asker.collected.people(self.asker.study)
                   if "leaderboard" in GAMIFIED.get(p.condition, ())]  # fmt: skip
        rows = [{"name": p.name, "points": self.points.get(p.id, 0), "you": p.id == person.id} for p in players]
        return sorted(rows, key=lambda row: -row["points"])[:LEADERS]

    def answer(self, person: Person, given: dict) -> dict:
        question = self.asker.collected.question(given["question"]) if isinstance(given.get("question"), str) else None
        if question is None or question.person != person.id:
            raise _Refused(404, "This question was not asked of you")
        if given.get("side") not in ("left", "right"):
            raise _Refused(400, "An answer is left or right")
        side, seconds = int(given["side"] == "right"), _number(given.get("seconds"), _LONGEST)
        confidence = _number(given.get("confidence"), 1.0)
        new = self.asker.collected.answer(question.id, side, seconds, confidence)
        if new:
            self.heard()
        return {"kept": True, "new": new} | self.next(person, {})


def _number(value: Any, most: float) -> float | None:
    """A number from 0 to `most`, None for anything else."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) and 0 <= value <= most else None


def _admit(request, key: str | None) -> None:
    """Whoever knows the key has shown it once, in the address, and brings it as a cookie since."""
    brought = request.query_params.get("key") or request.cookies.get(_COOKIE) or ""
    if key is not None and not hmac.compare_digest(brought.encode(), key.encode()):
        raise _Refused(403, "The address lacks its key. Ask whoever invited you for the whole address")


async def _given(request) -> dict:
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise _Refused(415, "Only application/json is read here")
    try:
        given = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise _Refused(400, "No JSON that can be read") from None
    if not isinstance(given, dict):
        raise _Refused(400, "Expected a JSON object")
    return given


def _bearer(request) -> str:
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    return key if kind == "Bearer" else ""


def _file(name: str, media_type: str, key: str | None):
    content = files("metamed.collecting").joinpath("pages", name).read_bytes()

    async def endpoint(request):
        from starlette.responses import Response

        _admit(request, key)
        response = Response(content, media_type=media_type, headers=_HEADERS)
        if key is not None:
            response.set_cookie(_COOKIE, key, httponly=True, samesite="strict")
        return response

    return endpoint


def _json(value: dict, status: int = 200):
    from starlette.responses import JSONResponse

    return JSONResponse(value, status, headers=_HEADERS)


async def _refused(request, error: _Refused):
    return _json({"error": str(error)}, error.status)


async def _nothing(request, error: Exception):
    return _json({"error": "There is nothing here"}, 404)
