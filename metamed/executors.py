"""Where jobs are done: here, in processes of this machine, on a Dask cluster, or through Slurm."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TypeVar

from metamed.errors import MetamedError, MissingExtra

T = TypeVar("T")
PLACES = ("local", "dask:ADDRESS", "slurm", "slurm:OPTION=VALUE,...")
WAIT = 10.0  # seconds for a Dask scheduler to answer
AHEAD = 2  # jobs per worker of a cluster under way: one that runs, one that has arrived


def spread(function: Callable, jobs: Iterable[T], executor: Executor, at_once: int) -> Iterator[tuple[T, Future]]:
    """Each job with the finished future of `function(job)`, in the order in which they finish.

    executor: anything like concurrent.futures. at_once: jobs under way together; no more are drawn from `jobs`. A job
    whose worker died is done once more; of the second death the future tells (`worker_died`).
    """
    under_way: dict[Future, T] = {}
    again: set[int] = set()  # ids of jobs under way for the second time: they are alive, so no other has such an id

    def finished() -> Iterator[tuple[T, Future]]:
        for future in wait(under_way, return_when=FIRST_COMPLETED).done:
            job = under_way.pop(future)
            if isinstance(future.exception(), BrokenExecutor) and id(job) not in again:
                again.add(id(job))
                under_way[executor.submit(function, job)] = job
            else:
                again.discard(id(job))
                yield job, future

    for job in jobs:
        under_way[executor.submit(function, job)] = job
        while len(under_way) >= at_once:
            yield from finished()
    while under_way:
        yield from finished()


def worker_died(error: BaseException | None) -> bool:
    """Did the worker die under its job, for want of memory or killed, rather than the job fail?"""
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"  # Dask's, after several workers


@contextmanager
def executor_at(place: str, workers: int = 1, folder: Path | None = None) -> Iterator[tuple[Executor | None, int]]:
    """(executor, jobs that it should have under way) at one of `PLACES`; None means in this very process.

    workers: processes on this machine, or jobs in Slurm's queue. folder: where Slurm's jobs leave what they say.
    """
    kind, _, where = place.partition(":")
    if place == "local":
        if workers == 1:
            yield None, 1
            return
        with Processes(workers) as executor:
            yield executor, workers
    elif kind == "dask" and where:
        with _dask(where) as found:
            yield found
    elif kind == "slurm":
        with Slurm(folder or Path("slurm"), dict(_options(where))) as executor:
            yield executor, workers
    else:
        raise MetamedError(f"--executor {place}: expected {' | '.join(PLACES)}")


class Processes(Executor):
    """Worker processes of this machine. One that dies takes only its own job with it, and another takes its place."""

    def __init__(self, workers: int):
        self._pools = [self._new() for _ in range(workers)]
        self._given: list[list[Future]] = [[] for _ in range(workers)]

    @staticmethod
    def _new() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))  # forked ones would share torch's threads

    def submit(self, function, /, *args, **kwargs) -> Future:
        self._given = [[f for f in given if not f.done()] for given in self._given]
        n = min(range(len(self._pools)), key=lambda n: len(self._given[n]))
        try:
            future = self._pools[n].submit(function, *args, **kwargs)
        except BrokenExecutor:
            self._pools[n].shutdown(wait=False)
            self._pools[n] = self._new()
            future = self._pools[n].submit(function, *args, **kwargs)
        self._given[n].append(future)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        for pool in self._pools:
            pool.shutdown(wait, cancel_futures=cancel_futures)


@contextmanager
def _dask(address: str) -> Iterator[tuple[Executor, int]]:
    """A running Dask cluster, by the address of its scheduler. Dask itself gives a dead worker's job to another one."""
    try:
        from distributed import Client
    except ImportError:
        raise MissingExtra("--executor dask", "distributed", "dask") from None
    try:
        client = Client(address, timeout=WAIT)
    except (OSError, ValueError) as error:
        raise MetamedError(f"no Dask scheduler at {address}: {error}. `dask scheduler` starts one") from None
    with client:
        threads = client.nthreads()
        if not threads:
            raise MetamedError(f"the Dask cluster at {address} has no workers. `dask worker {address} --nthreads 1`")
        if max(threads.values()) > 1:  # a run seeds the generators of its process
            found = max(threads.values())
            raise MetamedError(f"workers at {address} have {found} threads each. Start them with --nthreads 1")
        yield client.get_executor(), AHEAD * len(threads)


def _options(text: str) -> Iterator[tuple[str, str | int]]:
    """`slurm_partition=gpu,gpus_per_node=1` as pairs; whole numbers as such."""
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise MetamedError(f"--executor slurm:{text}: expected OPTION=VALUE,... such as slurm_partition=gpu")
        yield name, int(value) if value.isdigit() else value


class Slurm(Executor):
    """Jobs in Slurm's queue, through submitit; each waits there for a node of its own.

    options: of submitit's `AutoExecutor.update_parameters`, e.g. timeout_min, gpus_per_node, slurm_partition.
    cluster: "local" starts processes on this machine instead.
    """

    POLL = 2.0  # seconds between two looks at the queue

    def __init__(self, folder: Path, options: dict, cluster: str = "slurm"):
        try:
            from submitit import AutoExecutor
        except ImportError:
            raise MissingExtra("--executor slurm", "submitit", "slurm") from None
        try:
            self._queue = AutoExecutor(folder, cluster=cluster)
            self._queue.update_parameters(**options)
        except (RuntimeError, NameError, ValueError) as error:  # no Slurm here, or an option that it does not know
            raise MetamedError(f"--executor slurm: {str(error).splitlines()[0]}") from None
        self._waiting: dict[Future, object] = {}
        self._watcher = Thread(target=self._watch, daemon=True)
        self._open = True
        self._watcher.start()

    def submit(self, function, /, *args, **kwargs) -> Future:
        future: Future = Future()
        self._waiting[future] = self._queue.submit(function, *args, **kwargs)
        return future

    def _watch(self) -> None:
        while self._open or self._waiting:
            for future, job in list(self._waiting.items()):
                if job.done():
                    self._settle(future, job)
                    del self._waiting[future]
            time.sleep(self.POLL)

    @staticmethod
    def _settle(future: Future, job) -> None:
        from submitit.core.utils import FailedJobError, UncompletedJobError

        try:
            future.set_result(job.result())
        except FailedJobError as error:
            future.set_exception(error)
        except UncompletedJobError as error:  # no result was written: node lost, out of memory, killed
            future.set_exception(BrokenExecutor(f"job {job.job_id} left no result: {str(error).splitlines()[0]}"))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._open = False
        if cancel_futures or not wait:
            for job in self._waiting.values():
                job.cancel()
        if wait:
            self._watcher.join()
