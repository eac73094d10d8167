"""Answers in the store: once each, never changed, safe among threads, merged as a union."""

import sqlite3
import threading

import pytest

from metamed.store import Store
from metamed.store.collected import Collected, Study


@pytest.fixture
def collected(tmp_path):
    with Store(tmp_path / "s.db") as store:
        yield Collected(store, "d" * 40)


def opened(collected, **settings) -> str:
    return collected.open(Study(collected.digest, "first", settings))


def test_people_join_under_the_condition_that_fewest_have(collected):
    study = opened(collected)
    people = [collected.join(study, f"p{i}", ("plain", "game"))[0] for i in range(10)]
    assert sum(p.condition == "game" for p in people) == 5
    assert collected.join(study, "P3", ("plain", "game")) is None  # the name is taken, however it is written
    assert len(collected.people(study)) == 10


def test_a_key_is_known_after_other_settings(collected):
    person, key = collected.join(opened(collected), "ann", ("plain",))
    later = opened(collected, checks=0.5)
    assert collected.person(later, key) == person and collected.person(later, key + "x") is None
    assert collected.person(collected.open(Study(collected.digest, "second", {})), key) is None


def test_an_answer_is_kept_once_and_never_changed(collected):
    study = opened(collected)
    person, _ = collected.join(study, "ann", ("plain",))
    question = collected.ask(study, person, 0, "new", (3, 1, 2))
    assert collected.ask(study, person, 0, "new", (5, 6, 7)) == question == collected.pending(person.id)
    assert collected.answer(question.id, 1, 2.5, None) and not collected.answer(question.id, 0, 1.0, None)
    (answer,) = collected.answers()
    assert answer.side == 1 and answer.question == question and answer.seconds == 2.5
    assert collected.pending(person.id) is None
    for change in (
        "UPDATE collected_answer SET side = 0",
        "DELETE FROM collected_answer",
        "DELETE FROM collected_person",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="only ever added"):
            collected._db.all(change)
    with pytest.raises(sqlite3.IntegrityError):
        collected.answer("y", 2, None, None)


def test_many_threads_answer_the_same_question_once(collected):
    study = opened(collected)
    person, _ = collected.join(study, "ann", ("plain",))
    asked, kept = [], []

    def race():
        question = collected.ask(study, person, 0, "new", (0, 1, 2))
        asked.append(question)
        kept.append(collected.answer(question.id, 0, 1.0, None))

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(asked)) == 1 and sum(kept) == 1 and len(collected.answers()) == 1


def test_stores_are_merged_as_a_union(tmp_path):
    stores = [Store(tmp_path / f"{name}.db") for name in "ab"]
    for store in stores:
        collected = Collected(store, "d" * 40)
        study = opened(collected)
        person, _ = collected.join(study, "ann", ("plain",))  # of the same name, but another one
        collected.answer(collected.ask(study, person, 0, "new", (0, 1, 2)).id, 0, 1.0, None)
    for _ in range(2):
        stores[0].merge(stores[1])
    both = Collected(stores[0], "d" * 40)
    assert len(both.answers()) == 2 and len({a.question.person for a in both.answers()}) == 2
    assert Collected(stores[0], "e" * 40).answers() == [] and both.studies() == ["first"]
    assert len(Collected(stores[0], "d" * 40, "other").answers()) == 0
