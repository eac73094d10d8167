"""Asking: what each strategy picks, answers as constraints, what they gain, and the three ways of giving them."""

import threading
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import replace
from http.client import HTTPConnection

import numpy as np
import pytest
from browser import Browser
from hypothesis import given, settings
from hypothesis import strategies as st

from metamed.asking import (
    STRATEGIES,
    UNSURE,
    Question,
    Standing,
    choose,
    constrained,
    gain,
    read_questions,
    write_questions,
)  # fmt: skip
from metamed.asking.gains import held_out
from metamed.asking.page import QuestionPage
from metamed.asking.prompt import ask_on_terminal
from metamed.asking.questions import answers_of
from metamed.errors import NotApplicable, ReadError, UnknownName

CLASSES = ("benign", "malignant")


class Direction:
    """A linear model of instances, by the difference of both sides' mean bags; a bag is its highest instance."""

    def __init__(self, bags, y, seed):
        sides = [[b.mean(0) for b, k in zip(bags, y, strict=True) if (k > 0) == side] for side in (False, True)]
        no, yes = (np.mean(side, axis=0) for side in sides)
        self.w, self.mid = yes - no, (no + yes) / 2

    def scores(self, bag):
        return (bag - self.mid) @ self.w

    def predict(self, bags):
        p = 1 / (1 + np.exp(-np.array([self.scores(b).max() for b in bags])))
        return np.log(np.stack([1 - p, p], axis=1))


def bags(n: int = 24, size: int = 10, witnesses: int = 1, shift: float = 3.0, seed: int = 0):
    """(bags, target, members, truth of each instance): a finding lies along the first of four features."""
    rng = np.random.default_rng(seed)
    target, truth = np.arange(n) % 2, np.zeros(n * size, int)
    x = rng.normal(size=(n * size, 4)).astype(np.float32)
    members = [np.arange(b * size, (b + 1) * size) for b in range(n)]
    for b in np.flatnonzero(target):
        truth[members[b][:witnesses]] = 1
    x[:, 0] += shift * truth
    return [x[m] for m in members], target, members, truth


def standing(n: int = 30, known: int = 0, seed: int = 0) -> Standing:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n + known, 3)).astype(np.float32)
    return Standing(np.arange(n) + 100, np.arange(n) // 5, x[:n], rng.normal(size=(3, n)), rng.random(n), x[n:])


# ---- strategies


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 40), known=st.integers(0, 3), seed=st.integers(0, 99))
def test_every_strategy_picks_different_ones_and_repeats_itself(name, n, known, seed):
    s = standing(30, known, seed)
    picked = STRATEGIES[name](s, n, np.random.default_rng(seed))
    assert len(picked) == min(n, 30) == len(set(picked.tolist())) and picked.min() >= 0 and picked.max() < 30
    assert np.array_equal(picked, STRATEGIES[name](s, n, np.random.default_rng(seed)))
    assert len(STRATEGIES[name].description) > 20


def test_what_strategies_look_for():
    s, rng = standing(), np.random.default_rng(0)
    assert STRATEGIES["uncertainty"](s, 1, rng)[0] == np.abs(s.probability - 0.5).argmin()
    assert STRATEGIES["disagreement"](s, 1, rng)[0] == s.place.std(axis=0).argmax()
    scores = np.tile(np.arange(30.0), (3, 1))
    alike = replace(s, scores=scores)
    assert STRATEGIES["highest"](alike, 7, rng).tolist() == [29, 24, 19, 14, 9, 4, 28]  # one of each bag of five first
    far = replace(s, features=np.concatenate([np.zeros((29, 3)), [[9, 9, 9]]]), known=np.zeros((1, 3)))
    assert STRATEGIES["diversity"](far, 1, rng)[0] == 29
    sure = replace(s, probability=np.where(np.arange(30) == 7, 0.5, 1.0))
    assert STRATEGIES["uncertain_diverse"](sure, 1, rng)[0] == 7 == STRATEGIES["model_change"](sure, 1, rng)[0]


def test_diversity_spreads_over_clusters():
    rng = np.random.default_rng(0)
    x = np.repeat(np.eye(3) * 10, 10, axis=0) + rng.normal(size=(30, 3)) * 0.1
    for name in ("diversity", "uncertain_diverse"):
        s = replace(standing(), features=x, probability=np.full(30, 0.4))
        assert {i // 10 for i in STRATEGIES[name](s, 3, rng)} == {0, 1, 2}, name


# ---- constraints


def test_answers_become_bags_and_leave_bags():
    found, target, members, _ = bags(4, 5)
    got, classes = constrained(found, target, members, {5: 1, 6: 0, 0: 0, 999: 1})
    assert len(got) == 4 + 3 and classes.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert np.array_equal(got[1], found[1][[0, 2, 3, 4]])  # 6 is none: the finding lies in the rest
    assert np.array_equal(got[0], found[0]) and np.array_equal(got[5], found[1][:1])


def test_a_bag_that_the_answers_contradict_stays():
    found, target, members, _ = bags(4, 3)
    got, _ = constrained(found, target, members, dict.fromkeys(range(3, 6), 0))
    assert np.array_equal(got[1], found[1])


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.integers(0, 59), st.integers(0, 1), max_size=20))
def test_nothing_is_lost_but_what_was_said_to_be_none(answers):
    found, target, members, _ = bags(6, 10)
    got, classes = constrained(found, target, members, answers)
    assert len(got) == len(classes) == 6 + len(answers) and all(len(b) for b in got)
    for b in range(6):
        none = [i for i in members[b] if answers.get(int(i)) == 0] if target[b] else []
        assert len(got[b]) == (10 - len(none) if len(none) < 10 else 10)


# ---- choosing and gaining


def test_only_bags_with_a_finding_are_asked_about_and_nothing_twice():
    found, target, members, truth = bags()
    numbers, score = choose(Direction, found, target, members, 15, by="highest")
    assert len(set(numbers.tolist())) == 15 and all(target[i // 10] == 1 for i in numbers)
    assert truth[numbers[:12]].mean() > 0.8 and (score >= 0).all() and (score <= 1).all()
    known = dict.fromkeys(numbers.tolist(), 1)
    more, _ = choose(Direction, found, target, members, 200, by="uncertainty", answers=known)
    assert len(more) == 120 - 15 and not {*more.tolist()} & {*numbers.tolist()}
    with pytest.raises(NotApplicable, match="no instance is left"):
        choose(Direction, found, target, members, 5, answers=dict.fromkeys(range(240), 0))
    with pytest.raises(UnknownName, match="uncertainty"):
        choose(Direction, found, target, members, 5, by="uncertain")


def test_answers_about_a_hard_finding_gain_and_nonsense_does_not():
    found, target, members, truth = bags(60, 30, shift=2.5)
    some = np.flatnonzero(truth).tolist() + np.flatnonzero(np.repeat(target, 30) > truth)[::10].tolist()
    values = {g.measure: g for g in gain(Direction, found, target, members, {i: int(truth[i]) for i in some})}
    assert values["bag auc"].difference > 0.03 and values["bag auc"].n == 60
    assert values["bag auc"].low <= values["bag auc"].difference <= values["bag auc"].high
    assert values["instance auc"].difference > 0.05 and values["instance auc"].n == len(some)
    wrong = gain(Direction, found, target, members, {i: int(1 - truth[i]) for i in some})
    assert wrong[0].difference < 0 < values["bag auc"].difference
    nothing = gain(Direction, found, target, members, {})
    assert [g.measure for g in nothing] == ["bag auc"] and nothing[0].difference == nothing[0].low == 0


def test_gains_need_bags_of_both_sides():
    found, _, members, _ = bags(4)
    with pytest.raises(NotApplicable, match="two bags"):
        gain(Direction, found, np.array([0, 0, 0, 1]), members, {3: 1})


@settings(max_examples=30, deadline=None)
@given(n=st.integers(4, 30), groups=st.integers(2, 10), seed=st.integers(0, 9))
def test_groups_are_held_out_whole_and_every_bag_once(n, groups, seed):
    rng = np.random.default_rng(seed)
    target, group = rng.integers(0, 2, n), rng.integers(0, groups, n)
    parts = held_out(target, np.arange(n), group, 4, rng)
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    assert all(len({i for i, p in enumerate(parts) if (group[p] == g).any()}) <= 1 for g in range(groups))


# ---- the table


QUESTIONS = [Question(7, 1, 0.91, "uncertainty", 3.0, 4.5), Question(9, 1, 0.5, "uncertainty"),
             Question(31, 4, 0.25, "random")]  # fmt: skip


def test_questions_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "q.csv"
    assert read_questions(path, CLASSES) == []
    said = [replace(QUESTIONS[0], answer="malignant"), replace(QUESTIONS[1], answer=UNSURE), QUESTIONS[2]]
    write_questions(path, said)
    assert read_questions(path, CLASSES) == said and answers_of(said, CLASSES) == {7: 1}
    assert [p.name for p in tmp_path.iterdir()] == ["q.csv"]


@pytest.mark.parametrize(
    "word, means", [("1", "malignant"), ("yes", "malignant"), ("BENIGN", "benign"), ("n", "benign")]
)
def test_words_that_are_answers(tmp_path, word, means):
    write_questions(tmp_path / "q.csv", [replace(QUESTIONS[0], answer=word)])
    assert read_questions(tmp_path / "q.csv", CLASSES)[0].answer == means


def test_what_is_no_answer_is_said(tmp_path):
    path = tmp_path / "q.csv"
    write_questions(path, [QUESTIONS[0], replace(QUESTIONS[1], answer="maybe")])
    with pytest.raises(ReadError, match="row 3: 'maybe' is no answer. Say one of benign, malignant, or ?"):
        read_questions(path, CLASSES)
    write_questions(path, [QUESTIONS[0], QUESTIONS[0]])
    with pytest.raises(ReadError, match="asks about instance 7 again"):
        read_questions(path, CLASSES)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ReadError, match="not a table of questions"):
        read_questions(path, CLASSES)


# ---- the terminal


def test_a_terminal_asks_until_it_hears_an_answer():
    heard, said, kept = iter(["maybe", "1", "?", "q"]), [], []
    done = ask_on_terminal(QUESTIONS, CLASSES, kept.append, said.append, lambda _: next(heard))
    assert [q.answer for q in done] == ["malignant", UNSURE, ""] and len(kept) == 2
    assert any("no answer" in line for line in said)
    again = ask_on_terminal(done, CLASSES, kept.append, said.append, lambda text: "0" if "31" in text else "1/0")
    assert [q.answer for q in again] == ["malignant", UNSURE, "benign"]


def test_a_terminal_that_ends():
    def hear(_):
        raise EOFError

    assert ask_on_terminal(QUESTIONS, CLASSES, print, lambda _: None, hear) == QUESTIONS


# ---- the page


@pytest.fixture
def served():
    kept = []
    names = ("benign", '<script>"x')
    page = QuestionPage(QUESTIONS, names, kept.append, lambda i: b"png" + str(i).encode(), lambda i: [i + 5])
    thread = threading.Thread(target=page.serve)
    thread.start()
    yield page, kept
    page.stop()
    thread.join(5)
    assert not thread.is_alive()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def post(page: QuestionPage, where: str = "answer", **fields) -> tuple[int, str]:
    connection = HTTPConnection(page.host, timeout=5)
    body = urllib.parse.urlencode(fields)
    connection.request("POST", f"/{page.secret}/{where}", body, {"Content-Type": "application/x-www-form-urlencoded"})
    answer = connection.getresponse()
    return answer.status, answer.getheader("Location") or answer.read().decode()


def test_the_page_shows_and_takes_each_answer_once(served):
    page, kept = served
    status, text = get(page.address)
    assert status == 200 and "picture/7" in text and "1 of 3" in text and "cannot tell" in text and "91" not in text
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert get(page.address + "picture/7") == (200, "png7") and get(page.address + "picture/12") == (200, "png12")
    assert "picture/12" in text and "picture/14" not in text
    assert post(page, question=0, answer="benign") == (303, f"/{page.secret}/")
    assert post(page, question=0, answer=UNSURE)[0] == 409 and page.questions[0].answer == "benign"
    assert post(page, question=1, answer="else")[0] == 400 and post(page, question=5, answer="benign")[0] == 400
    assert "2 of 3" in get(page.address)[1] and [q.answer for q in kept[-1]] == ["benign", "", ""] and len(kept) == 1
    post(page, question=1, answer=UNSURE)
    post(page, question=2, answer='<script>"x')
    assert "Thank you" in get(page.address)[1] and len(kept) == 3


def test_a_person_answers_in_a_browser(served):
    page, kept = served
    with Browser() as browser:
        browser.open(page.address)
        for place, answer in enumerate(["benign", UNSURE], start=1):
            browser.until(f"document.body.textContent.includes('{place} of 3:')")
            browser.click(f'button[value="{answer}"]')
        browser.until("document.body.textContent.includes('3 of 3:')")
    assert [q.answer for q in kept[-1]] == ["benign", UNSURE, ""]


def test_answers_that_come_at_once_are_kept_once(served):
    page, kept = served
    said = {"question": 1, "answer": "benign"}
    threads = [threading.Thread(target=post, args=(page,), kwargs=said) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == 1 and page.questions[1].answer == "benign"


def test_the_page_is_for_this_machine_and_who_knows_its_address(served):
    page, _ = served
    assert page.host.startswith("127.0.0.1:") and page._server.server_address[0] == "127.0.0.1"
    assert get(f"http://{page.host}/")[0] == 404 and get(f"http://{page.host}/{'x' * 24}/")[0] == 404
    assert get(page.address + "picture/8")[0] == 404 and get(page.address + "picture/../../etc/passwd")[0] == 404
    connection = HTTPConnection(page.host, timeout=5)
    connection.request("GET", f"/{page.secret}/", headers={"Host": "evil.example"})
    assert connection.getresponse().status == 404
    assert post(page, "answer", question=0, answer="b" * 5000)[0] == 400 and post(page, "else")[0] == 400
    with urllib.request.urlopen(page.address) as answer:
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"
