"""A headless Chromium driven over its debugging pipe: opens pages, clicks, types, looks. It needs no other package."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
KEYS = {"ArrowLeft": 37, "ArrowRight": 39, "1": 49, "2": 50, "3": 51, "Enter": 13}


def program() -> str:
    """Where Chromium lies; skips the test where there is none."""
    found = os.environ.get("METAMED_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium on this machine (set METAMED_BROWSER)")
    return found


class Browser:
    """One page of one browser. A profile that is kept between two browsers keeps what pages stored in it."""

    def __init__(self, size: tuple[int, int] = (1200, 850), profile: Path | None = None):
        self._scratch = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        out_read, self._out = os.pipe()  # the browser reads its file 3 and writes its file 4
        self._in, in_write = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
                 "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions", "--mute-audio",
                 "--disable-background-networking",
                 f"--window-size={size[0]},{size[1]}", f"--user-data-dir={profile or self._scratch.name}"]  # fmt: skip
        shell = f'exec "$0" "$@" 3<&{out_read} 4>&{in_write}'
        self._process = subprocess.Popen(["bash", "-c", shell, program(), *flags], pass_fds=(out_read, in_write),
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        os.close(out_read)
        os.close(in_write)
        self._number, self._buffer, self._session = 0, b"", None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Page.enable")
        self._call("Runtime.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._send("Browser.close", session=False)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)
        self._scratch.cleanup()

    def _send(self, method: str, session: bool = True, **given) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": given}
        if session and self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        return self._number

    def _call(self, method: str, **given) -> dict:
        number = self._send(method, **given)
        while True:
            while b"\0" not in self._buffer:
                part = os.read(self._in, 1 << 20)
                assert part, "the browser has gone"
                self._buffer += part
            line, _, self._buffer = self._buffer.partition(b"\0")
            told = json.loads(line)
            if told.get("id") == number:
                assert "error" not in told, told
                return told["result"]

    def open(self, address: str) -> None:
        self._call("Page.navigate", url=address)

    def __call__(self, script: str):
        """The value of a JavaScript expression in the page; promises are waited for."""
        told = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, script: str, seconds: float = 180):
        """Wait until an expression is true, and return it."""
        end = time.monotonic() + seconds
        tried = f"(() => {{ try {{ return {script} }} catch {{ return null }} }})()"  # the page may still be loading
        while not (value := self(tried)):
            assert time.monotonic() < end, f"never true: {script}; the page says: {self('document.body.innerText')}"
            time.sleep(0.03)
        return value

    def click(self, selector: str) -> None:
        """A click of the mouse in the middle of an element."""
        box = self(f"(() => {{ const r = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
                   "return [r.x + r.width / 2, r.y + r.height / 2] })()")  # fmt: skip
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def type(self, text: str) -> None:
        self._call("Input.insertText", text=text)

    def resize(self, width: int, height: int) -> None:
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))
