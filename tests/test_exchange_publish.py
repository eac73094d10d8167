"""Publishing to `metamed serve` over a network that fails: in the end everything is there exactly once."""

import json
import re
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from exchanged import SETUPS, add_run, images, network

from metamed.dataset import Card
from metamed.errors import MetamedError, PublishError
from metamed.exchange import sending
from metamed.exchange.client import Server
from metamed.exchange.publish import publish
from metamed.exchange.retrieve import retrieve
from metamed.exchange.server import running
from metamed.experiments import Suite
from metamed.store import Store
from metamed.store.outbox import Outbox
from metamed.store.served import Served
from metamed.tasks import make_task

pytest.importorskip("openml")


@pytest.fixture(autouse=True)
def impatient(monkeypatch, tmp_path):
    monkeypatch.setenv("METAMED_STORE", str(tmp_path / "default.db"))
    monkeypatch.setattr(sending, "PAUSE", 0.01)
    monkeypatch.setattr(sending, "POLL", (0.05, 0.1))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(address, what it holds): one for all tests here, since everything is told apart by content."""
    store = Store(tmp_path_factory.mktemp("served") / "store.db")
    with running(store) as address:
        yield address, Served(store)


def filled(path: Path, name: str, runs: int = 2, **changes) -> Store:
    """A store of a dataset of that name and its runs; another name is other content."""
    store, data = Store(path), images(name, seed=sum(map(ord, name)))
    for k in range(runs):
        add_run(store, data, SETUPS[k % 3], seed=k // 3, environment={"metamed": f"0.1.{name}"}, **changes)
    store.add_metafeatures(data, {"entropy.mean": 3.25, "undefined": float("nan")})
    return store


def held(served: Served, store: Store) -> Counter:
    """How many of each kind the server holds of what a store has sent."""
    names = {f.name for f in store.records("dataset")}
    data = [e.id for e in served.entities("data") if e.facts["name"] in names]
    versions = {f".{n}," for n in names}
    flows = [e.id for e in served.entities("flow") if any(v in e.facts["external_version"] for v in versions)]
    tasks = [e.id for e in served.entities("task") if e.facts["data"] in data]
    runs = served.runs(task=tasks, errors=True)
    for run in store.runs():
        assert len(served.runs(tag=f"metamed.k.{run.id}", errors=True)) == 1, "a run without its tag, or two"
    return Counter(data=len(data), flow=len(flows), task=len(tasks), run=len(runs))


# ---- once


def test_what_is_published_is_there_once_and_as_it_was(server, tmp_path):
    address, served = server
    store = filled(tmp_path / "a.db", "once", runs=4)
    steps = []
    outcome = publish(store, to=address, report=lambda *step: steps.append(step))
    assert outcome.sent == 4 and len(outcome.numbers) == 4 and outcome.differences == [] and outcome.waiting == []
    assert held(served, store) == Counter(data=1, flow=2, task=1, run=4)
    assert steps[-1] == ("runs", 4, 4) and ("flows", 2, 2) in steps
    again = publish(store, to=address)
    assert again.sent == 0 and again.numbers == outcome.numbers
    assert held(served, store) == Counter(data=1, flow=2, task=1, run=4)
    assert store.runs(unpublished=True) == []


def test_another_machine_with_the_same_runs_adopts_their_numbers(server, tmp_path):
    address, served = server
    first, second = (filled(tmp_path / f"{n}.db", "adopted") for n in "ab")
    numbers = publish(first, to=address).numbers
    outcome = publish(second, to=address)
    assert outcome.sent == 0 and outcome.numbers == numbers and outcome.differences == []
    assert held(served, second) == Counter(data=1, flow=1, task=1, run=2)


def test_what_came_later_goes_to_what_is_there(server, tmp_path):
    address, served = server
    store = filled(tmp_path / "a.db", "later", runs=1)
    publish(store, to=address)
    filled(tmp_path / "a.db", "later", runs=3)
    assert publish(store, to=address).sent == 2
    assert held(served, store) == Counter(data=1, flow=2, task=1, run=3)


def test_a_number_that_leads_nowhere_any_more_is_looked_up_again(server, tmp_path):
    address, served = server
    store = filled(tmp_path / "a.db", "forgotten", runs=1)
    box = Outbox(store, Server(address).base)
    for key in publish(store, to=address, dry_run=True).tables.values():
        box.keep(key.key, 987654)
        box.keep(key.task.id, 987654)
    assert publish(store, to=address).sent == 1
    assert held(served, store) == Counter(data=1, flow=1, task=1, run=1)


def test_names_of_any_kind_are_brought_into_the_form_that_servers_take(server, tmp_path):
    """Refused or changed after the fact, they would keep a run offline for ever."""
    address, _ = server
    store, url = Store(tmp_path / "a.db"), "https://example.org/a folder/\u00e9"
    card = Card("\u00d6CT <&>", "\u00e9ye", ("it's", 'a "b", {c}'), (), "CC BY-NC 4.0 \u00a9", url, "f\u00e4mily & co")
    data = replace(images("\u00e9tude 1 & 2/<x>", seed=4), card=card)
    add_run(store, data)
    store.add_metafeatures(data, {"entropy.mean": 3.0})
    suite = Suite("a suite with a name that is long, and \u00e9", (data.name,), SETUPS)
    outcome = publish(store, to=address, suite=suite)
    assert outcome.sent == 1 and outcome.differences == []
    fresh = Store.memory()
    assert retrieve(fresh, server=address, suite=str(max(s.id for s in server[1].entities("study")))).new == 1
    kept = fresh.dataset(data.digest).card
    assert kept.license == store.dataset(data.digest).card.license and kept.classes == card.classes
    assert kept.family == "f\u00e4mily & co" and kept.organ == "\u00e9ye"


# ---- a network that fails


@pytest.mark.parametrize(("path", "times"), [("run/", 1), ("run/", 2), ("run/", 3), ("data/", 2), ("flow/", 2),
                                             ("task/", 2), ("flow/exists", 2)])  # fmt: skip
def test_a_lost_answer_makes_nothing_twice(server, tmp_path, path, times):
    address, served = server
    store = filled(tmp_path / "a.db", f"lost.{path.replace('/', '.')}{times}", runs=3)
    with network(address) as proxy:
        proxy.faults = [(path, "lose")] * times
        outcome = publish(store, to=proxy.url)
        met = times - len(proxy.faults)
    assert met == min(times, {"data/": 2, "flow/": 2, "task/": 1}.get(path, 3)), "each thing was sent once"
    assert len(outcome.numbers) == 3 and outcome.differences == []
    assert held(served, store) == Counter(data=1, flow=2, task=1, run=3)


@pytest.mark.parametrize("path", ["data/", "flow/", "task/", "run/"])
def test_a_connection_cut_in_mid_upload_is_sent_again(server, tmp_path, path):
    address, served = server
    store = filled(tmp_path / "a.db", f"cut.{path[:-1]}")
    with network(address) as proxy:
        proxy.faults = [(path, "cut"), (path, "cut")]
        outcome = publish(store, to=proxy.url)
    assert len(outcome.numbers) == 2 and outcome.differences == []
    assert held(served, store) == Counter(data=1, flow=1, task=1, run=2)


def test_a_lost_answer_whose_tag_is_lost_too_is_found_by_its_predictions(server, tmp_path):
    address, served = server
    store = filled(tmp_path / "a.db", "untagged", runs=2)
    first = store.runs()[0]

    def untag():
        for row in served.runs(tag=f"metamed.k.{first.id}"):
            with served.writing():
                served.untag("run", row[0], f"metamed.k.{first.id}")

    with network(address) as proxy:
        proxy.faults = [("run/", "lose"), ("run/", lambda: None)]
        look_up = sending.Publisher._find_run

        def forgetful(self, parcel, *rest):
            if parcel.run.id == first.id:
                untag()
            return look_up(self, parcel, *rest)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sending.Publisher, "_find_run", forgetful)
            outcome = publish(store, to=proxy.url)
    assert len(outcome.numbers) == 2 and len(set(outcome.numbers.values())) == 2
    tasks = [e.id for e in served.entities("task") if served.get("data", e.facts["data"]).facts["name"] == "untagged"]
    assert len(served.runs(task=tasks, errors=True)) == 2


def test_a_server_that_stays_away_is_an_error_and_nothing_is_lost(server, tmp_path):
    address, served = server
    store = filled(tmp_path / "a.db", "away")
    with network(address) as proxy:
        proxy.faults = [("run/", "lose-before")] * 0 + [("run/", "cut")] * sending.ATTEMPTS
        with pytest.raises(PublishError, match="no answer to POST run/ .* 4 times, and nothing there"):
            publish(store, to=proxy.url)
        assert publish(store, to=proxy.url).sent == 2
    assert held(served, store) == Counter(data=1, flow=1, task=1, run=2)
    with pytest.raises(PublishError, match="cannot be read"):
        publish(store, to="http://localhost:1/api/v1")


def test_a_server_that_restarts_in_between(tmp_path):
    path, mine = tmp_path / "served.db", filled(tmp_path / "a.db", "restarted", runs=3)
    store = Store(path)
    first = running(store)
    address = first.__enter__()
    later = []

    def restart():
        first.__exit__(None, None, None)
        store.close()
        later.append(running(Store(path), port=int(address.rsplit(":", 1)[1])))
        later[0].__enter__()

    with network(address) as proxy:
        proxy.faults = [("run/", lambda: None), ("run/", restart)]
        outcome = publish(mine, to=proxy.url)
    assert len(outcome.numbers) == 3 and outcome.differences == []
    served = Served(Store(path))
    assert held(served, mine) == Counter(data=1, flow=2, task=1, run=3)
    later[0].__exit__(None, None, None)


# ---- a publisher that is killed


class Killed(BaseException):
    """What no handler catches: stands for SIGKILL between two steps."""


def mortal(patch, die_at: int, after: bool) -> list[int]:
    """Let the publisher die at its n-th touch of the network or the outbox, before or after it has happened."""
    steps = [0]

    def deadly(function):
        def step(*given, **named):
            steps[0] += 1
            if steps[0] == die_at and not after:
                raise Killed
            result = function(*given, **named)
            if steps[0] == die_at:
                raise Killed
            return result

        return step

    for cls, name in ((Server, "_read"), (Server, "post"), (Outbox, "begin"), (Outbox, "keep")):
        patch.setattr(cls, name, deadly(getattr(cls, name)))
    return steps


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_publisher_killed_at_any_step_leaves_everything_once(server, tmp_path, after):
    """At every step in turn, each with a dataset, flow, task and run of its own."""
    address, served = server
    template, total = 1, None
    for die_at in range(1, 100):
        name = f"killed.{'after' if after else 'before'}.{die_at}"
        store = filled(tmp_path / f"{template}.db", name, runs=1)
        template += 1
        with pytest.MonkeyPatch.context() as patch:
            mortal(patch, die_at, after)
            try:
                publish(store, to=address)
            except Killed:
                assert publish_again(store, address) == 1
            else:
                total = die_at - 1
        assert held(served, store) == Counter(data=1, flow=1, task=1, run=1), name
        store.close()
        if total:
            break
    assert total and total > 15, "every step of a publication was a place to die"


def publish_again(store: Store, address: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        mortal(patch, 10**6, False)
        outcome = publish(store, to=address)
    assert outcome.differences == []
    return len(outcome.numbers)


@pytest.mark.parametrize("step", [16])
def test_a_process_that_is_killed_frees_the_lock(server, tmp_path, step):
    address, served = server
    path = tmp_path / "a.db"
    filled(path, f"process.{step}").close()
    code = f"""
        import os, sys
        sys.path[:0] = {[str(Path(__file__).parents[1]), str(Path(__file__).parent)]!r}
        from metamed.exchange.client import Server
        from metamed.exchange.publish import publish
        from metamed.store import Store
        steps = 0
        for name in ("_read", "post"):
            def deadly(self, *given, real=getattr(Server, name), **named):
                global steps
                steps += 1
                answer = real(self, *given, **named)
                if steps == {step}:
                    os._exit(9)
                return answer
            setattr(Server, name, deadly)
        publish(Store({str(path)!r}), to={address!r})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 9, done.stderr
    store = Store(path)
    assert len(publish(store, to=address).numbers) == 2
    assert held(served, store) == Counter(data=1, flow=1, task=1, run=2)


def test_two_publishers_of_one_store_do_not_run_at_once(server, tmp_path):
    address, _ = server
    store = filled(tmp_path / "a.db", "locked")

    def meanwhile(what, done, total):
        with pytest.raises(PublishError, match="somebody is publishing to http://localhost.* already"):
            publish(filled(tmp_path / "b.db", "locked"), to=address)
        with network(address) as other, pytest.raises(PublishError, match="somebody is publishing from .*a.db already"):
            publish(Store(tmp_path / "a.db"), to=other.url)
        raise Killed

    with pytest.raises(Killed):
        publish(store, to=address, report=meanwhile)
    assert publish(store, to=address).sent == 2


# ---- waiting, refusals, differences


def test_datasets_that_are_not_active_do_not_hold_up_the_others(server, tmp_path, monkeypatch):
    address, served = server
    store = filled(tmp_path / "a.db", "prompt", runs=1)
    filled(tmp_path / "a.db", "slow", runs=1)
    ask = sending.Publisher._active
    slow = {}

    def active(self, number):
        name = served.get("data", number).facts["name"]
        slow[name] = slow.get(name, 0) + 1
        return ask(self, number) and (name != "slow" or slow[name] > 2)

    monkeypatch.setattr(sending.Publisher, "_active", active)
    seen = []
    outcome = publish(store, to=address, wait=0, report=lambda *step: seen.append(step))
    assert outcome.waiting == ["slow"] and outcome.sent == 1
    slow.clear()
    outcome = publish(store, to=address, wait=30, report=lambda *step: seen.append(step))
    assert outcome.waiting == [] and outcome.sent == 1
    assert any("waiting for 1 datasets to become active" in what for what, _, _ in seen)
    assert held(served, store)["run"] == 2


def test_a_server_with_other_folds_gets_no_runs(server, tmp_path, monkeypatch):
    from metamed.exchange import checking

    address, served = server
    store = filled(tmp_path / "a.db", "otherwise")
    monkeypatch.setattr(checking, "test_rows", lambda *_: [[0, 1, 2]])
    outcome = publish(store, to=address)
    assert outcome.sent == 0 and "test on other rows; no run was sent" in outcome.differences[0]
    assert not any(served.runs(tag=f"metamed.k.{r.id}") for r in store.runs())


def test_reading_back_reports_every_difference(server, tmp_path, monkeypatch):
    address, served = server
    store = filled(tmp_path / "a.db", "false", runs=1, evaluations={"auc": (0.123,), "accuracy": (0.5,)})
    real = Server.file
    monkeypatch.setattr(Server, "file", lambda self, n, name: real(self, n, name) + b" ")
    differences = publish(store, to=address).differences
    assert any(re.search(r"auc of fold 0 is 0.123 by the run and \S+ by its predictions", d) for d in differences)
    assert sum("came back otherwise" in d for d in differences) == 2


def test_scores_that_a_server_finds_otherwise_are_reported(server, tmp_path, monkeypatch):
    from metamed.exchange import checking

    monkeypatch.setattr(checking, "measured", lambda folds: {"accuracy": (0.0123,)})
    differences = publish(filled(tmp_path / "a.db", "scored", runs=1), to=server[0]).differences
    assert any(re.search(r"predictive_accuracy of fold 0 is \S+ there and 0.0123 here", d) for d in differences)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_several_classes_and_confident_networks_make_no_difference(server, tmp_path, classes):
    """Probabilities that are all but 0 or 1 have many ties when stored; the server sees the same ones."""
    address, _ = server
    store, data = Store(tmp_path / "a.db"), images(f"sure.{classes}", n=120, classes=classes, seed=classes)
    for seed in range(4):
        add_run(store, data, seed=seed, sharpen=(1.0, 8.0)[seed % 2])
    outcome = publish(store, to=address)
    assert outcome.sent == 4 and outcome.differences == []
    fresh = Store.memory()
    found, theirs = retrieve(fresh, server=address), {run.id: run.evaluations for run in fresh.runs()}
    assert all(theirs[run.id] == run.evaluations for run in store.runs()), found


@pytest.mark.parametrize("k", [4, 10])
def test_a_cross_validation_on_the_servers_own_folds_goes_out_and_comes_back(server, tmp_path, k):
    address, served = server
    store, data = Store(tmp_path / "a.db"), replace(images(f"folds{k}", n=120, seed=k), groups=None)
    add_run(store, data, task=make_task(data, procedure=f"{k}-fold"))
    outcome = publish(store, to=address)
    assert outcome.sent == 1 and outcome.differences == [] and not outcome.offline
    fresh = Store.memory()
    retrieve(fresh, server=address)
    (run,) = store.runs()
    theirs = fresh.get(run.id)
    assert theirs.evaluations == run.evaluations and len(theirs.evaluations["auc"]) == k
    assert fresh.get(run.task) == store.get(run.task)


def test_folds_that_keep_patients_together_stay_offline_and_are_listed(server, tmp_path):
    address, _ = server
    store, data = Store(tmp_path / "a.db"), images("grouped folds", n=120, seed=1)
    add_run(store, data, task=make_task(data, procedure="10-fold"))
    outcome = publish(store, to=address)
    assert outcome.sent == 0 and any("not those that an OpenML server makes" in reason for reason in outcome.offline)


def test_a_run_that_is_refused_does_not_keep_back_the_others(server, tmp_path, monkeypatch):
    address, served = server
    store = filled(tmp_path / "a.db", "refused", runs=2)
    bad = store.runs()[0]
    real = sending.run_document
    monkeypatch.setattr(sending, "run_document", lambda run, *given: real(run, *given).replace(
        "<oml:tag>metamed</oml:tag>", "<oml:tag>not allowed</oml:tag>" if run == bad else ""))
    outcome = publish(store, to=address)
    assert outcome.sent == 1 and "refused" in outcome.differences[0] and bad.id not in outcome.numbers


def test_a_measure_that_the_server_does_not_know_costs_no_run(server, tmp_path, monkeypatch):
    address, _ = server
    real = Server.rows
    monkeypatch.setattr(Server, "rows", lambda self, call, *path: ["kappa"] if call.startswith("evaluationmeasure")
                        else real(self, call, *path))  # fmt: skip
    assert publish(filled(tmp_path / "a.db", "measures", runs=1), to=address).sent == 1


# ---- suites


SUITE = Suite("trial.1", ("suite.a", "suite.b"), SETUPS[:2], (0, 1))


def in_a_suite(path: Path, *names: str) -> Store:
    store = Store(path)
    for name in names:
        data = images(name, seed=len(name) + ord(name[-1]))
        for setup in SETUPS:
            add_run(store, data, setup, 0)
        store.add_metafeatures(data, {"entropy.mean": float(ord(name[-1]))})
    return store


def test_a_suite_becomes_a_benchmark_suite_and_a_study_and_grows(server, tmp_path):
    address, served = server
    store = in_a_suite(tmp_path / "a.db", "suite.a")
    first = publish(store, to=address, suite=SUITE)
    assert len(first.numbers) == 2, "two of the three setups belong to it"
    in_a_suite(tmp_path / "a.db", "suite.b")
    outcome = publish(store, to=address, suite=SUITE)
    asked = Server(address)
    suite, study = asked.get("study/metamed.trial.1"), asked.get("study/metamed.trial.1.runs")
    assert len(suite["tasks"]["task_id"]) == 2 and suite["main_entity_type"] == "task"
    assert sorted(map(int, study["runs"]["run_id"])) == sorted(outcome.numbers.values()) and len(outcome.numbers) == 4
    assert publish(store, to=address, suite=SUITE).sent == 0
    studies = [e for e in served.entities("study") if e.facts["alias"].startswith("metamed.trial.1")]
    assert len(studies) == 2
    fresh = Store.memory()
    assert retrieve(fresh, server=address, suite="metamed.trial.1.runs").new == 4
    assert retrieve(Store.memory(), server=address, suite="metamed.trial.1").new == 4
    with pytest.raises(MetamedError, match="has no suite or study 'nothing'"):
        retrieve(fresh, server=address, suite="nothing")


def test_the_commands(server, tmp_path, monkeypatch, capsys):
    from metamed.cli import call

    address, _ = server
    in_a_suite(tmp_path / "a.db", "commanded").close()
    data = images("commanded", seed=len("commanded") + ord("d"))
    setups = [{"method": s.method, "hyperparameters": s.hyperparameters, "recipe": s.recipe, "sources": s.sources}
              for s in SETUPS[:2]]  # fmt: skip
    (tmp_path / "suites.json").write_text(json.dumps({"few": {"datasets": ["commanded"], "setups": setups}}))
    np.savez(tmp_path / "commanded.npz", images=data.images.array[:, 0], labels=data.target, patient=data.groups)
    common = ["--store", str(tmp_path / "a.db"), "--to", address, "--suite", str(tmp_path / "suites.json")]
    assert call(["publish", *common, "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("2 runs on 1 tasks with 1 flows")
    assert call(["publish", *common, "--with-images", str(tmp_path / "commanded.npz"), "--quiet"]) == 0
    told = capsys.readouterr()
    assert told.out == f"2 runs are at {address}, 2 of them since now\n" and told.err == ""
    found = Server(address)
    (row,) = found.rows("data/list/data_name/commanded/status/all", "dataset")
    text = found.file(int(found.get(f"data/{row['did']}")["file_id"]), "dataset.arff").decode()
    assert "@ATTRIBUTE sha256 STRING" in text and "commanded[3]" in text
    fresh = ["--store", str(tmp_path / "b.db"), "--from", address, "--suite", "metamed.few.runs"]
    assert call(["retrieve", *fresh]) == 0
    assert capsys.readouterr().out == f"2 new runs from {address}, 0 were known\n"
    assert call(["publish", "--to", "openml", "--offline", "--store", str(tmp_path / "a.db")]) == 5
    assert "which --offline forbids" in capsys.readouterr().err


# ---- the key


def test_the_key_is_nowhere_but_on_the_wire(tmp_path, monkeypatch, capsys, caplog):
    import openml

    from metamed.cli import call

    store = Store(tmp_path / "served.db")
    key = Served(store).add_user("nurse")
    with running(store) as address:
        monkeypatch.setattr(openml.config, "server", f"{address}/api/v1/xml")
        monkeypatch.setattr(openml.config, "apikey", key)
        path = str(tmp_path / "a.db")
        filled(tmp_path / "a.db", "secret").close()
        for more in (["--dry-run", "--documents", str(tmp_path / "documents")], [], ["--verbose"]):
            assert call(["publish", "--store", path, *more]) == 0
        assert call(["retrieve", "--store", path]) == 0
        monkeypatch.setattr(openml.config, "apikey", key[:-1] + "?")
        filled(tmp_path / "a.db", "secret", runs=3).close()
        assert call(["publish", "--store", path, "--verbose"]) == 5
    assert call(["publish", "--store", path, "--verbose"]) == 5, "the server is gone"
    told = capsys.readouterr()
    said = told.out + told.err + caplog.text
    assert "2 runs are at" in said and "refused" in said and key not in said and key[:-1] not in said
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or key.encode() not in file.read_bytes(), file


def test_without_a_key_nothing_is_sent(tmp_path, monkeypatch):
    import openml

    monkeypatch.setattr(openml.config, "server", "https://openml.invalid/api/v1/xml")
    monkeypatch.setattr(openml.config, "apikey", "")
    with pytest.raises(PublishError, match="no key for https://openml.invalid"):
        publish(filled(tmp_path / "a.db", "keyless"))
