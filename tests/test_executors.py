"""A suite survives the death of its workers: nothing is lost, nothing is in the store twice."""

import os
import signal
import time
from concurrent.futures import BrokenExecutor, Future
from dataclasses import replace

import pytest
from conftest import blobs
from dying import die_if_asked

from metamed.errors import MetamedError
from metamed.executors import Processes, Slurm, executor_at, spread, worker_died
from metamed.experiments import Suite, perform, run_suite
from metamed.records import Setup
from metamed.store import Store

QUICK = {"epochs": 1, "width": 16, "depth": 2}
SUITE = Suite("s", ("a", "bb"), (Setup("small_cnn", QUICK), Setup("small_cnn", QUICK | {"dropout": 0.1})), (0, 1))


def find(name):
    return replace(blobs(seed=len(name)), name=name)


def double(x):
    return 2 * x


class AtOnce:
    """An executor that does a job in `submit`; the numbers in `deadly` break it as often as they say."""

    def __init__(self, deadly=()):
        self.deadly, self.tried = dict(deadly), []

    def submit(self, function, job):
        self.tried.append(job)
        future = Future()
        if self.deadly.get(job, 0) > 0:
            self.deadly[job] -= 1
            future.set_exception(BrokenExecutor("gone"))
        else:
            future.set_result(function(job))
        return future


def test_every_job_is_done_once():
    done = list(spread(double, range(7), AtOnce(), 3))
    assert sorted(job for job, _ in done) == list(range(7))
    assert all(future.result() == 2 * job for job, future in done)


def test_no_more_jobs_are_drawn_than_may_be_under_way():
    drawn = []
    jobs = (drawn.append(n) or n for n in range(10))
    next(spread(double, jobs, AtOnce(), 3))
    assert len(drawn) == 3


def test_a_job_is_tried_again_once_after_its_worker_died():
    executor = AtOnce({2: 1, 4: 2})
    done = dict(spread(double, range(6), executor, 2))
    assert executor.tried.count(2) == executor.tried.count(4) == 2 and len(executor.tried) == 8
    assert done[2].result() == 4 and worker_died(done[4].exception())
    assert not worker_died(done[2].exception()) and not worker_died(ValueError())


def test_a_killed_process_takes_only_its_own_job_with_it(tmp_path):
    jobs = [(0, None), (1, str(tmp_path / "once")), (2, None), (3, ""), (4, None)]
    with Processes(2) as executor:
        done = {job[0]: future for job, future in spread(die_if_asked, jobs, executor, 2)}
    assert worker_died(done[3].exception())
    assert {n: f.result() for n, f in done.items() if n != 3} == {0: 0, 1: 1, 2: 2, 4: 4}


def test_a_run_whose_worker_dies_twice_is_kept_as_failed():
    store = Store.memory()
    assert len(run_suite(SUITE, store, find, executor=Deadly(2), workers=1)) == 8
    errors = [run.error for run in store.runs()]
    assert len(errors) == 8 and errors[1:] == [None] * 7
    assert errors[0] == "BrokenExecutor: its worker died, twice (out of memory, or killed)"
    assert run_suite(SUITE, store, find, executor=Deadly(0)) == []


class Deadly:
    """Breaks on its first submissions."""

    def __init__(self, times):
        self.times = times

    def submit(self, function, job):
        future, self.times = Future(), self.times - 1
        if self.times >= 0:
            future.set_exception(BrokenExecutor("gone"))
        else:
            future.set_result(function(job))
        return future


@pytest.mark.parametrize("place", ["cloud", "dask", "dask:", "slurm:partition"])
def test_a_place_that_is_none_says_which_there_are(place):
    pytest.importorskip("submitit")
    with pytest.raises(MetamedError, match="expected"), executor_at(place):
        pass


def test_local_means_here_or_in_processes():
    with executor_at("local") as (executor, at_once):
        assert executor is None and at_once == 1
    with executor_at("local", 3) as (executor, at_once):
        assert isinstance(executor, Processes) and at_once == 3


def test_slurm_and_its_options_need_slurm(tmp_path):
    pytest.importorskip("submitit")
    with pytest.raises(MetamedError, match="--executor slurm: "), executor_at("slurm", 2, tmp_path):
        pass


def test_jobs_through_submitit(tmp_path, monkeypatch):
    """On this machine instead of Slurm's: the same submission, polling and results."""
    pytest.importorskip("submitit")
    monkeypatch.setattr(Slurm, "POLL", 0.1)
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))
    jobs = [(0, None), (1, str(tmp_path / "once"))]
    with Slurm(tmp_path, {"timeout_min": 5}, cluster="local") as executor:
        done = {job[0]: future for job, future in spread(die_if_asked, jobs, executor, 2)}
    assert {n: f.result() for n, f in done.items()} == {0: 0, 1: 1}


# ---- a real cluster


def slow(job):
    """`perform`, slowly enough to be killed in the middle."""
    time.sleep(0.5)
    return perform(job)


@pytest.fixture
def cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
    ) as found:
        yield found


def test_a_suite_on_dask_survives_a_killed_worker(cluster, monkeypatch):
    from distributed import Client

    monkeypatch.setattr("metamed.experiments.perform", slow)
    store, killed = Store.memory(), []

    def kill_a_busy_worker(run, job):
        if killed:
            return
        with Client(cluster.scheduler_address) as client:
            busy = [worker for worker, keys in client.processing().items() if keys]
            (pid,) = client.run(os.getpid, workers=busy[:1]).values()
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    with executor_at(f"dask:{cluster.scheduler_address}") as (executor, at_once):
        assert at_once == 4
        done = run_suite(SUITE, store, find, executor=executor, workers=at_once, threads=1, report=kill_a_busy_worker)
        assert run_suite(SUITE, store, find, executor=executor, workers=at_once) == []
    assert len(killed) == 1 and len(done) == 8 == len({run.id for run in done}) == len(store.runs())
    assert all(run.error is None for run in store.runs())


def test_workers_with_several_threads_are_refused():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None
    ) as found, pytest.raises(MetamedError, match="--nthreads 1"), executor_at(f"dask:{found.scheduler_address}"):
        pass


def test_a_scheduler_that_is_not_there_is_named(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("metamed.executors.WAIT", 0.5)
    said = "no Dask scheduler at tcp://127.0.0.1:9"
    with pytest.raises(MetamedError, match=said), executor_at("dask:tcp://127.0.0.1:9"):
        pass
