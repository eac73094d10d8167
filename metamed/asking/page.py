"""Questions on a page of this machine alone, which shows the images.

It listens on the loopback interface, at an address that holds a secret, answers no other host name than its own (so
that no page elsewhere can speak to it through a name that is made to point here), and takes an answer once.
"""

from __future__ import annotations

import html
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from urllib.parse import parse_qs

from metamed.asking.prompt import described
from metamed.asking.questions import UNSURE, Question

HOST, MOST_BYTES = "127.0.0.1", 4096
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_STYLE = """body{font:16px system-ui,sans-serif;margin:2rem auto;max-width:46rem;color:#222}img{max-width:100%;
image-rendering:pixelated;border:1px solid #999}button{font:inherit;padding:.5rem 1rem;margin:.5rem .5rem 0 0}
progress{width:100%}p.where{color:#555}img.beside{width:5.2rem;margin-right:.3rem}"""


class QuestionPage:
    """A server of questions: `serve()` until all have an answer or `stop()`.

    keep: gets all questions after every answer, before the next one is shown. picture: number of an instance -> PNG, or
    None where instances are no images. beside: number of an instance -> others of its bag that are shown below it.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        classes: Sequence[str],
        keep: Callable[[list[Question]], None],
        picture: Callable[[int], bytes] | None = None,
        beside: Callable[[int], Sequence[int]] = lambda instance: (),
        port: int = 0,
    ):
        self.questions, self.classes, self.keep, self.picture = list(questions), tuple(classes), keep, picture
        self.beside = {q.instance: [int(i) for i in beside(q.instance)] for q in self.questions} if picture else {}
        self.shown = {*self.beside, *(i for others in self.beside.values() for i in others)}
        self.secret, self._lock = secrets.token_urlsafe(18), Lock()
        self._server = ThreadingHTTPServer((HOST, port), _handler(self))
        self._server.daemon_threads = True

    @property
    def address(self) -> str:
        return f"http://{self.host}/{self.secret}/"

    @property
    def host(self) -> str:
        return f"{HOST}:{self._server.server_address[1]}"

    @property
    def open(self) -> int | None:
        """Place of the first question without an answer; None where there is none."""
        return next((i for i, q in enumerate(self.questions) if not q.answer), None)

    def serve(self) -> list[Question]:
        """Serve until stopped; the questions with their answers."""
        try:
            self._server.serve_forever(poll_interval=0.2)
        finally:
            self._server.server_close()
        return self.questions

    def stop(self) -> None:
        self._server.shutdown()

    def answer(self, place: int, answer: str) -> HTTPStatus:
        """Take one answer and keep it: CONFLICT where there is one already, BAD_REQUEST where it means nothing."""
        if not 0 <= place < len(self.questions) or answer not in (*self.classes, UNSURE):
            return HTTPStatus.BAD_REQUEST
        with self._lock:
            if self.questions[place].answer:
                return HTTPStatus.CONFLICT
            changed = list(self.questions)
            changed[place] = replace(changed[place], answer=answer)
            self.keep(changed)
            self.questions = changed
        return HTTPStatus.SEE_OTHER

    def html(self) -> str:
        """The page: the next question, or thanks."""
        place, n = self.open, len(self.questions)
        done = sum(bool(q.answer) for q in self.questions)
        body = _thanks(n) if place is None else self._question(place)
        return (f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{done} of {n} answered</title>'
                f"<style>{_STYLE}</style><h1>What is it?</h1>"
                f'<progress max="{n}" value="{done}">{done} of {n}</progress>{body}</html>')  # fmt: skip

    def _question(self, place: int) -> str:
        q = self.questions[place]
        shown = f'<img src="picture/{q.instance}" alt="instance {q.instance}">' if self.picture else ""
        others = "".join(f'<img class="beside" src="picture/{i}" alt="{i}">' for i in self.beside.get(q.instance, ()))
        others = f"<p>Others of the same bag:</p>{others}" if others else ""
        choices = (*((name, name) for name in self.classes), (UNSURE, "cannot tell"))
        buttons = "".join(f'<button name="answer" accesskey="{key}" value="{html.escape(value)}">{html.escape(name)}'
                          "</button>" for key, (value, name) in enumerate(choices, start=1))  # fmt: skip
        return (f'{shown}<p class="where">{place + 1} of {len(self.questions)}: {html.escape(described(q))}</p>'
                f'<form method="post" action="answer"><input type="hidden" name="question" value="{place}">'
                f"{buttons}</form>{others}")  # fmt: skip


def _thanks(n: int) -> str:
    return (f'<p>All {n} questions have an answer. Thank you.</p><form method="post" action="done">'
            "<button>Close</button></form>")  # fmt: skip


def _handler(page: QuestionPage) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version, timeout = "metamed", "", 30

        def log_message(self, *_) -> None:
            """The address holds a secret: nothing is logged."""

        def _path(self) -> str | None:
            """What follows the secret; None (and a refusal) where the host or the secret is wrong."""
            secret, slash, rest = self.path.removeprefix("/").partition("/")
            right = secrets.compare_digest(secret.encode(), page.secret.encode())
            if self.headers.get("Host") != page.host or not right or not slash:
                self._send(HTTPStatus.NOT_FOUND, "not here")
                return None
            return rest

        def _send(self, status: HTTPStatus, body: str | bytes = "", kind: str = "text/html; charset=utf-8") -> None:
            content = body.encode() if isinstance(body, str) else body
            self.send_response(status)
            headers = {"Content-Type": kind, "Content-Length": str(len(content))} | _HEADERS
            headers |= {"Location": f"/{page.secret}/"} if status == HTTPStatus.SEE_OTHER else {}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            rest = self._path()
            number = (rest or "").removeprefix("picture/")
            if rest == "":
                self._send(HTTPStatus.OK, page.html())
            elif rest and page.picture and number.isdigit() and int(number) in page.shown:
                self._send(HTTPStatus.OK, page.picture(int(number)), "image/png")
            elif rest is not None:
                self._send(HTTPStatus.NOT_FOUND, "not here")

        def do_POST(self) -> None:
            rest = self._path()
            if rest is None:
                return
            length = self.headers.get("Content-Length", "")
            if not length.isdigit() or int(length) > MOST_BYTES or rest not in ("answer", "done"):
                self.close_connection = True
                self._send(HTTPStatus.BAD_REQUEST, "not an answer")
                return
            given = parse_qs(self.rfile.read(int(length)).decode("utf-8", "replace"))
            if rest == "done":
                self._send(HTTPStatus.OK, "<!doctype html><p>Done. This page can be closed.</p>")
                page.stop()
                return
            place = given.get("question", [""])[0]
            status = page.answer(int(place) if place.isdigit() else -1, given.get("answer", [""])[0])
            said = {HTTPStatus.CONFLICT: "this question has an answer already", HTTPStatus.BAD_REQUEST: "not an answer"}
            self._send(status, said.get(status, ""))

    return Handler
