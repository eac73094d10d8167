"""Publishing: what a store holds goes to an OpenML server, each thing exactly once, whatever breaks on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from metamed.errors import PublishError
from metamed.exchange.client import find_server
from metamed.exchange.outgoing import Columns, Plan, make_plan
from metamed.exchange.sending import Outcome, Publisher, Report
from metamed.experiments import Suite
from metamed.store import Store

WAIT = 600.0  # seconds that a publisher waits for datasets to become active, before it leaves the rest for next time


def publish(
    store: Store,
    *,
    to: str | None = None,
    suite: Suite | None = None,
    columns: Columns | None = None,
    dry_run: bool = False,
    wait: float = WAIT,
    report: Report | None = None,
) -> Outcome | Plan:
    """Publish a store's runs, or those of a suite, with the datasets, tasks and flows that they rest on.

    to: openml | test | local | an address; None is the server that openml is configured for. columns: what is told of
    images beyond their number (`images.identified`). dry_run: send nothing and return the Plan. wait: seconds for
    datasets to become active. Raises PublishError without a server, a key, or an answer; what was done stays done.
    """
    plan = make_plan(store, suite, columns)
    if dry_run:
        return plan
    server = find_server(to)
    if not server.has_key:
        raise PublishError(f"no key for {server.base}: put server= and apikey= into the configuration file of openml")
    with _alone(store):
        return Publisher(store, server, report).publish(plan, wait)


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """No second publisher of this store: servers do not guard themselves. The system frees the lock of a killed one."""
    import filelock

    if store.path is None:
        yield
        return
    try:
        with filelock.FileLock(f"{store.path}.publishing", timeout=0):
            yield
    except filelock.Timeout:
        raise PublishError(f"{store.path}: somebody is publishing from this store. Wait until that is done") from None
