"""The collecting page: what it asks, what it keeps, what it refuses, and how it looks in a real browser."""

import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from browser import Browser
from scipy.stats import binomtest

from metamed import collecting
from metamed.assessments import Triplets, informative
from metamed.collecting import Settings, collected_triplets, export, make_asker
from metamed.collecting.choosing import Chooser
from metamed.collecting.pictures import png
from metamed.collecting.questions import chosen, gold, points
from metamed.dataset import ArrayImages, Dataset
from metamed.errors import MetamedError, NotApplicable
from metamed.readers.answers import read_table
from metamed.store import Store
from metamed.store.collected import Answer, Collected, Question

ROOT = Path(__file__).parents[1]


def pictures(n: int = 30, size: int = 16) -> np.ndarray:
    """Grey squares, the darker the lower their number: what is alike is known."""
    return np.broadcast_to(np.linspace(0, 255, n).astype(np.uint8)[:, None, None, None], (n, 3, size, size)).copy()


@pytest.fixture
def dataset() -> Dataset:
    return Dataset("greys", ArrayImages(pictures()))


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "s.db") as store:
        yield store


class Client:
    """A browser without a face."""

    def __init__(self, address: str, key: str | None = None):
        self.host, self.key, self.cookie = address.split("/")[2], key, ""

    def __call__(self, method: str, path: str, body=None, **headers) -> tuple[int, dict]:
        connection = http.client.HTTPConnection(self.host, timeout=20)
        if body is not None:
            headers = {"Content-Type": "application/json"} | headers
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        given = body if body is None or isinstance(body, (bytes, str)) else json.dumps(body)
        connection.request(method, path, given, headers)
        response = connection.getresponse()
        content = response.read()
        self.headers = response.headers
        connection.close()
        is_json = response.headers["content-type"].startswith("application/json")
        return response.status, json.loads(content) if is_json else content

    def join(self, name: str) -> dict:
        status, state = self("POST", "/join", {"name": name})
        assert status == 200, state
        self.key = state["key"]
        return state

    def answer(self, question: dict, side: str = "left", **more) -> tuple[int, dict]:
        return self("POST", "/answer", {"question": question["id"], "side": side, "seconds": 1.5} | more)


def nearer(question: dict) -> str:
    """The right answer about greys."""
    left, right = (abs(question[side] - question["anchor"]) for side in ("left", "right"))
    return "left" if left <= right else "right"


# -- what is asked


def answered(asker, person, n: int, side: int = 0) -> list[Question]:
    asked = []
    for _ in range(n):
        asked.append(asker.next(person))
        asker.collected.answer(asked[-1].id, side, 1.0, None)
    return asked


def test_kinds_of_questions_come_in_their_shares(dataset, store):
    asker = make_asker(
        dataset, store, Settings(questions=400, checks=0.1, repeats=0.2, shared=0.3, adaptive=False), "s"
    )
    person, _ = asker.collected.join(asker.study, "ann", ("plain",))
    asked = answered(asker, person, 400)
    kinds = [q.kind for q in asked]
    for kind, share in (("check", 0.1), ("repeat", 0.2), ("shared", 0.3)):
        assert binomtest(kinds.count(kind), 400, share).pvalue > 1e-4, kind
    assert all(q.anchor in (q.left, q.right) for q in asked if q.kind == "check")
    assert all(len({q.anchor, q.left, q.right}) == 3 for q in asked if q.kind != "check")
    what = [(q.anchor, *sorted((q.left, q.right))) for q in asked]
    for i, q in enumerate(asked):
        if q.kind == "repeat":
            assert what[i] in what[: i - 8]
    left = sum(q.left == q.anchor for q in asked if q.kind == "check")
    assert binomtest(left, kinds.count("check"), 0.5).pvalue > 1e-4  # the side is drawn
    assert asker.next(person) is None


def test_everybody_is_asked_the_same_shared_questions(dataset, store):
    asker = make_asker(dataset, store, Settings(shared=1.0, checks=0, repeats=0), "s")
    people = [asker.collected.join(asker.study, name, ("plain",))[0] for name in ("ann", "bob")]
    first, second = ([(q.anchor, {q.left, q.right}) for q in answered(asker, p, 20)] for p in people)
    assert first == second


def test_a_question_waits_for_its_answer(dataset, store):
    asker = make_asker(dataset, store, Settings(), "s")
    person, _ = asker.collected.join(asker.study, "ann", ("plain",))
    assert asker.next(person) == asker.next(person)
    again = make_asker(dataset, store, Settings(questions=5), "s")  # after a restart, with other settings
    assert again.next(person) == asker.next(person)


def test_settings_that_make_no_study():
    for wrong in (
        {"conditions": ("fun",)},
        {"questions": 0},
        {"checks": 0.9, "repeats": 0.2},
        {"among": 3},
        {"shared": -1},
    ):
        with pytest.raises(MetamedError):
            Settings(**wrong)


def test_nothing_to_look_at(store):
    with pytest.raises(NotApplicable, match="no pixels"):
        make_asker(Dataset("f", ArrayImages(np.zeros((9, 5)))), store, Settings(), "s")
    with pytest.raises(NotApplicable, match="at least 4"):
        make_asker(Dataset("f", ArrayImages(pictures(3))), store, Settings(), "s")


def test_points_for_attention_and_constancy():
    def one(kind, side, left=1, right=2):
        return Answer(
            Question("q", "p", 0, kind, "game", 1 if kind == "check" else 0, left, right), side, 1.0, None, ""
        )

    assert points([one("new", 0)]) == 10
    assert points([one("check", 0)]) == 20 and points([one("check", 1)]) == 0 and gold(one("check", 1)) == 0
    assert points([one("new", 0), one("repeat", 1, 2, 1)]) == 30  # the same image, on the other side
    assert points([one("new", 0), one("repeat", 0, 2, 1)]) == 20
    assert chosen(one("new", 1)) == (2, 1)


def test_pictures_of_any_depth():
    from io import BytesIO

    from PIL import Image

    for array in (pictures(4), np.random.default_rng(0).normal(size=(4, 1, 8, 8)), np.zeros((4, 1, 5, 8, 8), np.uint16),
                  np.zeros((4, 2, 8, 8), np.uint8)):  # fmt: skip
        picture = Image.open(BytesIO(png(Dataset("x", ArrayImages(array)), 1)))
        assert picture.size == array.shape[:-3:-1] and picture.mode == ("RGB" if array.shape[1] == 3 else "L")


# -- what is chosen


def simulated(chooser: Chooser, position: np.ndarray, n: int, rng) -> Triplets:
    rows = np.array([chooser.choose(rng) for _ in range(n)])
    distance = np.linalg.norm(position[rows[:, [0]]] - position[rows[:, 1:]], axis=2)
    first = rng.random(n) < 1 / (1 + np.exp(-8 * (distance[:, 1] - distance[:, 0])))
    anchor, a, b = rows.T
    return Triplets(anchor, np.where(first, a, b), np.where(first, b, a), np.zeros(n, int), np.where(first, 0, 1))


def test_questions_drawn_are_different_and_even():
    chooser = Chooser(np.arange(100, 107))
    rows = chooser.draw(np.random.default_rng(0), 21000)
    assert all(len(set(row)) == 3 for row in rows.tolist())
    counts = np.unique(rows, axis=0, return_counts=True)[1]
    assert len(counts) == 210 and counts.min() > 60 and counts.max() < 150
    assert set(chooser.choose(np.random.default_rng(1))) <= set(range(100, 107))


def test_what_is_known_is_not_worth_asking():
    rng, position = np.random.default_rng(0), np.random.default_rng(1).normal(size=(12, 2))
    chooser = Chooser(np.arange(12))
    answers = simulated(chooser, position, 200, rng)
    chooser.learn(answers, wait=True)
    rows = chooser.draw(rng, 2000)
    distance = np.linalg.norm(position[rows[:, [0]]] - position[rows[:, 1:]], axis=2)
    clear = np.abs(distance[:, 0] - distance[:, 1])
    worth = chooser.worth(rows)
    assert worth[clear > 2].mean() < worth[clear < 0.5].mean() / 2 and (worth >= -1e-9).all()
    assert chooser.due(len(answers)) is False and chooser.due(len(answers) + 25)
    assert Chooser(np.arange(12), adaptive=False).due(10**6) is False


def test_learning_goes_on_beside():
    rng, position = np.random.default_rng(0), np.random.default_rng(1).normal(size=(8, 2))
    chooser = Chooser(np.arange(100, 108))
    rows = chooser.draw(rng, 30)
    chooser.learn(Triplets(*(100 + rows.T), np.zeros(30, int), np.zeros(30, int)))
    assert chooser._embeddings is None  # nobody waits for it
    end = time.monotonic() + 600
    while chooser._embeddings is None and time.monotonic() < end:
        time.sleep(0.1)
    assert chooser._embeddings.shape[1:] == (8, 2) == position.shape


# -- over HTTP


def test_a_study_from_joining_to_the_table(dataset, store, tmp_path):
    with collecting.running(dataset, store, Settings(questions=30, conditions=("plain", "game"))) as address:
        clients = [Client(address) for _ in range(4)]
        for i, client in enumerate(clients):
            state = client.join(f"p{i}")
            while state["question"]:
                status, state = client.answer(state["question"], nearer(state["question"]), confidence=0.5)
                assert status == 200
            assert state["done"] == state["of"] == 30
    t = collected_triplets(store, dataset)
    assert len(t) == 120 and set(t.condition) == {"plain", "game"} and (t.time == 1.5).all()
    assert (t.gold[t.gold >= 0] == 1).all() and (t.gold == 1).sum() == 120 - len(informative(t))
    assert export(store, dataset, tmp_path / "x.csv") == 120
    again = read_table(tmp_path / "x.csv", n_images=30).triplets
    for column in ("anchor", "closer", "farther", "annotator", "side", "condition", "time", "confidence", "gold"):
        assert np.array_equal(getattr(again, column), getattr(t, column)), column
    assert "p0" not in (tmp_path / "x.csv").read_text()  # names stay here
    with pytest.raises(NotApplicable, match="nobody has answered"):
        export(store, Dataset("other", ArrayImages(pictures(9))), tmp_path / "y.csv")


def test_what_was_collected_is_assessed_and_belongs_to_the_dataset(tmp_path, data, capsys, monkeypatch):
    from metamed.cli import call
    from metamed.readers import read

    monkeypatch.setenv("METAMED_STORE", str(tmp_path / "s.db"))
    study = Settings(questions=12, checks=0.2)
    with Store(tmp_path / "s.db") as store, collecting.running(read(data), store, study) as address:
        for i in range(3):
            client = Client(address)
            state = client.join(f"p{i}")
            while state["question"]:
                state = client.answer(state["question"], nearer(state["question"]))[1]
    assert call(["assess", "--dataset", str(data), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["answers"] == 36 and {a["answers"] for a in told["annotators"]} == {12}
    assert any(a["accuracy"] == 1 for a in told["annotators"])
    assert call(["collect", "--dataset", str(data), "--export", str(tmp_path / "greys.triplets.csv")]) == 0
    assert capsys.readouterr().out.startswith("36 answers written")
    assert len(read(data).triplets) == 36 and read(data).kind == "similarity"
    assert call(["assess", "--dataset", str(data), "--json"]) == 0  # in the table and in the store: once
    assert json.loads(capsys.readouterr().out)[0]["answers"] == 36
    assert call(["collect", "--dataset", str(data), "--study", "none", "--export", str(tmp_path / "x.csv")]) == 4


def test_an_answer_is_taken_once(dataset, store):
    with collecting.running(dataset, store, Settings()) as address:
        client = Client(address)
        question = client.join("ann")["question"]
        status, state = client.answer(question)
        assert status == 200 and state["new"] and state["done"] == 1
        status, state = client.answer(question, "right")  # the second click, or the same answer sent again
        assert status == 200 and not state["new"] and state["done"] == 1
        assert state["question"] == client("POST", "/next", {})[1]["question"]
    assert [a.side for a in Collected(store, dataset.digest).answers()] == [0]


def test_several_people_at_once(dataset, store):
    with collecting.running(dataset, store, Settings(questions=15, conditions=("game",))) as address:

        def take_part(name):
            client = Client(address)
            state = client.join(name)
            while state["question"]:
                state = client.answer(state["question"], nearer(state["question"]))[1]

        threads = [threading.Thread(target=take_part, args=(f"p{i}",)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    answers = Collected(store, dataset.digest).answers()
    by = {a.question.person: [] for a in answers}
    for a in answers:
        by[a.question.person].append(a.question.number)
    assert len(by) == 6 and all(numbers == list(range(15)) for numbers in by.values())


def test_what_is_refused(dataset, store):
    with collecting.running(dataset, store, Settings(among=10)) as address:
        client = Client(address)
        assert client("POST", "/next", {})[0] == 401
        question = client.join("  Ann\u202e \n B ")["question"]
        assert client("POST", "/next", {})[1]["name"] == "Ann B"
        other = Client(address)
        assert other("POST", "/join", {"name": "ann b"})[0] == 409
        for name in ("", "x" * 41, 7, None):
            assert other("POST", "/join", {"name": name})[0] == 400
        other.join("bob")
        assert other.answer(question)[0] == 404  # asked of somebody else
        for wrong in ({"side": "up"}, {"side": 0}):
            assert client.answer(question, **wrong)[0] == 400
        for body in (b"{", b"[]", b"\xff", b"1" * 50 + b"[" * 3000):
            assert client("POST", "/answer", body)[0] == 400
        assert client("POST", "/answer", b"x" * 5000)[0] == 413
        assert client("POST", "/answer", "{}", **{"Content-Type": "text/plain"})[0] == 415
        assert client("POST", "/answer", {}, Origin="http://evil.example")[0] == 403
        assert client("GET", "/study", Host="evil.example")[0] == 403
        assert client("GET", "/image/1")[0] == 404  # not among the ten
        assert client("GET", "/image/0")[0] == 200
        for path in ("/image/-1", "/image/99999999999999999999", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd",
                     "/page.js/../../app.py", "/pages/index.html", "/answer"):  # fmt: skip
            assert client("GET", path)[0] in (404, 405), path
        for seconds in (-1, "x", 1e300, True, None):
            question = client("POST", "/next", {})[1]["question"]
            assert client.answer(question, seconds=seconds)[0] == 200
    assert np.isnan(collected_triplets(store, dataset).time).all()


def test_other_machines_need_the_key(dataset, store):
    with collecting.running(dataset, store, Settings(), host="0.0.0.0") as address:
        key = address.split("key=")[1]
        client = Client(address)
        for path in ("/", "/study", "/image/0", "/?key=wrong", "/page.js"):
            assert client("GET", path)[0] == 403
        assert client("POST", "/join", {"name": "ann"})[0] == 403
        assert client("GET", f"/?key={key}")[0] == 200
        cookie = client.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie
        assert client("GET", "/study", Cookie=cookie.partition(";")[0])[0] == 200
    with collecting.running(dataset, store, Settings()) as address:
        assert "key" not in address and address.startswith("http://localhost:")


def _started(path: Path, data: Path, *more: str) -> tuple[subprocess.Popen, str]:
    command = [
        sys.executable,
        "-m",
        "metamed",
        "collect",
        "--dataset",
        str(data),
        "--port",
        "0",
        "--store",
        str(path),
        *more,
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert line.startswith("asking at "), line
    return process, line.split()[2]


@pytest.fixture
def data(tmp_path) -> Path:
    with h5py.File(tmp_path / "greys.h5", "w") as file:
        file["images"] = pictures().transpose(0, 2, 3, 1)
    return tmp_path / "greys.h5"


def test_killed_in_the_middle_it_loses_nothing(tmp_path, data):
    acknowledged, state, key = [], None, None
    for life in range(3):
        process, address = _started(tmp_path / "s.db", data)
        client = Client(address, key)
        state = client.join("ann") if life == 0 else client("POST", "/next", {})[1]
        key = client.key
        before = len(acknowledged)
        try:
            while True:
                question = state["question"]
                status, state = client.answer(question, nearer(question))
                acknowledged.append(question["id"])
                if len(acknowledged) == before + 4:  # and somewhere in the answers that follow
                    threading.Timer(0.02, process.send_signal, [signal.SIGKILL]).start()
        except (OSError, http.client.HTTPException):
            process.wait()
            process.stdout.close()
    with Store(tmp_path / "s.db") as store:
        from metamed.readers import read

        kept = [a.question.id for a in Collected(store, read(data).digest).answers()]
    assert len(acknowledged) >= 12 and len(kept) == len(set(kept))
    assert set(acknowledged) <= set(kept) and len(kept) <= len(acknowledged) + 3  # the answer in flight may be there


# -- in a browser


READY = "document.querySelector('#ask').style.visibility === 'visible' && !document.querySelector('#left').disabled"


def wait_for(browser: Browser, done: int) -> None:
    browser.until(f"document.querySelector('#count').textContent.startsWith('{done} of') && {READY}")
    time.sleep(0.2)  # sooner than anybody answers, the page takes a click for the second one of a double click


def test_in_a_browser_with_mouse_and_keys(dataset, store, tmp_path):
    settings = Settings(questions=6, conditions=("game",), confidence=True, checks=0)
    with collecting.running(dataset, store, settings) as address, Browser() as browser:
        browser.open(address)
        browser.until("!document.querySelector('#join').hidden")
        browser.type("<img src=x onerror=alert(1)>")
        browser.click("#join button")
        for done in range(6):
            wait_for(browser, done)
            if done % 2:
                browser.press("ArrowRight")
                browser.until("!document.querySelector('#sure').classList.contains('off')")
                browser.press("2")
            else:
                browser.click("#left img")
                browser.until("!document.querySelector('#sure').classList.contains('off')")
                browser.click("#sure button:last-child")
        browser.until("!document.querySelector('#end').hidden")
        assert browser("document.querySelector('#leaders').innerText").startswith("<img src=x")
        assert browser("document.querySelector('#leaders img') === null")
        assert browser("document.querySelector('#points').textContent") == "60 points"
        browser.screenshot(tmp_path / "end.png")
    t = collected_triplets(store, dataset)
    assert t.side.tolist() == [0, 1] * 3 and t.confidence.tolist() == [1, 0.5] * 3
    assert (t.time > 0.1).all() and (t.time < 600).all()
    assert (tmp_path / "end.png").read_bytes().startswith(b"\x89PNG")


def test_in_a_browser_everything_fits_and_a_plain_study_shows_no_points(dataset, store):
    with collecting.running(dataset, store, Settings()) as address, Browser() as browser:
        browser.open(address)
        browser.until("!document.querySelector('#join').hidden")
        browser.type("ann")
        browser.click("#join button")
        for width, height in ((1200, 850), (390, 780), (800, 400)):
            browser.resize(width, height)
            wait_for(browser, 0)
            assert browser("document.documentElement.scrollWidth <= innerWidth"), width
            inside = (
                "[...document.querySelectorAll('#ask img')].every(i => i.getBoundingClientRect().right <= innerWidth"
            )
            assert browser(f"{inside} && i.naturalWidth === 16)")
        assert browser("document.querySelector('#game').hidden")


def test_a_browser_goes_on_after_the_server_was_killed(tmp_path, data):
    process, address = _started(tmp_path / "s.db", data)
    port = address.rsplit(":", 1)[1].strip("/")
    with Browser() as browser:
        browser.open(address)
        browser.until("!document.querySelector('#join').hidden")
        browser.type("ann")
        browser.click("#join button")
        wait_for(browser, 0)
        browser.press("ArrowLeft")
        wait_for(browser, 1)
        process.kill()
        process.wait()
        process.stdout.close()
        browser.press("ArrowRight")  # nobody hears this answer, and it is kept by the page
        browser.until("document.querySelector('#message').textContent.startsWith('No connection')")
        browser.press("ArrowRight")  # a second one is no answer to anything
        process, _ = _started(tmp_path / "s.db", data, "--port", port)
        wait_for(browser, 2)
        browser.open(address)  # and a reload changes nothing
        wait_for(browser, 2)
        process.terminate()
        process.wait()
        process.stdout.close()
    with Store(tmp_path / "s.db") as store:
        from metamed.readers import read

        answers = Collected(store, read(data).digest).answers()
        assert [(a.question.number, a.side) for a in answers] == [(0, 0), (1, 1)]
