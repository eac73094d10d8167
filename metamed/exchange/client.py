"""A client of OpenML's REST interface that sends once, waits no longer than it says, and never shows the key.

The stock client repeats a POST whose answer was lost and so publishes it twice; it also has no time-outs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from metamed.errors import PublishError

NAMED = {"openml": "https://www.openml.org/api/v1/xml", "local": "http://localhost:8000/api/v1/xml"}
LOCAL_KEY = "normaluser"  # what OpenML's clients send to a server on the same machine
NOTHING = {111, 372, 482, 500, 512, 542, 599, 674}  # codes that mean "no result"
TIMEOUT = (10, 300)  # seconds: until connected, until answered
READS = 3  # times that a look-up is tried; a sending never is repeated
Document = dict[str, Any]


class Lost(PublishError):
    """No answer that can be understood: the request may or may not have done its work."""


class Refusal(PublishError):
    """The server's own answer that it will not, with its code."""

    def __init__(self, code: int, message: str, server: str):
        self.code = code
        super().__init__(f"{server} refused: {message} (code {code})")


class Server:
    """One OpenML server. Answers are nested dictionaries without the namespace; single elements are lists where asked.

    url: up to and with /api/v1 (and /xml). key: sent with what writes, as a field of the form, never in an address.
    """

    def __init__(self, url: str, key: str = ""):
        import requests

        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise PublishError("a server is named openml, test or local, or by an address like http://host:8000/api/v1/xml")
        root, _, _ = parts.path.partition("/api/v1")
        self.base = f"{parts.scheme}://{parts.netloc}{root.rstrip('/')}"
        self._key, self._session = key, requests.Session()
        if is_local(url):
            self._session.trust_env = False  # no proxy lies between a machine and itself

    def __repr__(self) -> str:
        return f"Server({self.base})"

    @property
    def has_key(self) -> bool:
        return bool(self._key)

    def get(self, call: str) -> Document | None:
        """The one element of an answer, e.g. `get("flow/3")`; None where the server says that there is nothing."""
        return self._parsed(self._read(f"{self.base}/api/v1/xml/{call}"), call)

    def rows(self, call: str, *path: str) -> list:
        """The repeated elements at a path of the answer, e.g. `rows("run/list/tag/x", "run")`; [] if there are none."""
        found: Any = self.get(call)
        for name in path:
            found = (found or {}).get(name)
        return found if isinstance(found, list) else [] if found is None else [found]

    def file(self, number: int, name: str) -> bytes:
        return self._content(f"data/download/{int(number)}/{quote(name)}")

    def page(self, address: str) -> bytes:
        """What lies at an address that the server gave, asked of the server itself whatever host it names."""
        path = urlsplit(address).path
        return self._content(path[max(path.find("/api_splits"), path.find("/api/"), 0):].lstrip("/"))

    def _content(self, path: str) -> bytes:
        answer = self._read(f"{self.base}/{path}")
        if answer.status_code != 200:
            raise PublishError(f"{self.base}: nothing at {path} (status {answer.status_code})")
        return answer.content

    def post(self, call: str, files: Mapping[str, tuple[str, bytes]] | None = None, **fields) -> Document:
        """Send once. Raises Lost without an answer, Refusal with a bad one."""
        import requests

        try:
            answer = self._session.post(f"{self.base}/api/v1/xml/{call}", data={**fields, "api_key": self._key},
                                        files=dict(files) if files else None, timeout=TIMEOUT, allow_redirects=False)
        except requests.RequestException as error:  # its text could hold what was sent
            raise Lost(f"{self.base}: no answer to POST {call} ({type(error).__name__})") from None
        found = self._parsed(answer, call)
        if found is None:
            raise Lost(f"{self.base}: no answer to POST {call} that says what happened (status {answer.status_code})")
        return found

    def ask(self, call: str, **fields) -> Document:
        """A look-up that has to be a POST: repeated like any other."""
        for attempt in range(READS - 1):
            try:
                return self.post(call, **fields)
            except Lost:
                time.sleep(0.5 * attempt)
        return self.post(call, **fields)

    def _read(self, url: str):
        import requests

        for attempt in range(READS):
            try:
                answer = self._session.get(url, timeout=TIMEOUT)
                if answer.status_code < 500:
                    return answer
                what = f"status {answer.status_code}"
            except requests.RequestException as error:
                what = type(error).__name__
            time.sleep(0.5 * attempt)
        raise PublishError(f"{self.base}: cannot be read ({what}). Is the server running, and this machine online?")

    def _parsed(self, answer, call: str) -> Document | None:
        from xml.parsers.expat import ExpatError

        import xmltodict

        try:
            root = xmltodict.parse(answer.content, postprocessor=lambda _, k, v: (k.removeprefix("oml:"), v))
        except (ExpatError, ValueError):
            raise Lost(f"{self.base}: answer to {call} is no XML (status {answer.status_code})") from None
        name, content = next(iter(root.items()))
        if name != "error":
            return content
        code = int(content.get("code") or 0)
        if code in NOTHING:
            return None
        if code == 107:  # the server lost its own database
            raise Lost(f"{self.base}: {content.get('message')}")
        words = " - ".join(filter(None, (content.get("message"), content.get("additional_information"))))
        raise Refusal(code, words.replace(self._key, "***") if self._key else words, self.base)


def is_local(url: str) -> bool:
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


def find_server(to: str | None) -> Server:
    """The server of that name or address (None: the one that openml is configured for), with the key belonging to it.

    A key of openml's configuration belongs to the server named beside it and is sent to no other.
    """
    import openml

    if to == "test":
        return _test_server()
    configured = openml.config.server
    url = NAMED.get(to or "", to) or configured
    if urlsplit(url).netloc == urlsplit(configured).netloc:
        return Server(url, openml.config.apikey or (LOCAL_KEY if is_local(url) else ""))
    return Server(url, LOCAL_KEY if is_local(url) else "")


def _test_server() -> Server:
    """OpenML's test server with its public key, both as the installed client knows them."""
    import warnings

    from openml import config

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config.start_using_configuration_for_example()
    server = Server(config.server, config.apikey)
    config.stop_using_configuration_for_example()
    return server
