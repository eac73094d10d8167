"""Publishing: what a store holds goes to an OpenML server, each thing exactly once, whatever breaks on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from metamed.errors import PublishError
from metamed.exchange.client import find_server
from metamed.exchange.outgoing import Columns, Plan, make_plan
from metamed.exchange.sending import Outcome, Publisher, Report
from metamed.experiments import Suite
from metamed.store import Store, default_path

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
    with _alone(store, server.base):
        return Publisher(store, server, report).publish(plan, wait)


@contextmanager
def _alone(store: Store, server: str) -> Iterator[None]:
    """No second publisher of this store, and none of this user to that server: servers do not guard themselves.

    The system frees the locks of a process that was killed.
    """
    import filelock

    host = re.sub(r"[^A-Za-z0-9.]", "-", server.partition("//")[2])
    places = {f"to {server}": default_path().with_name(f"publishing-to-{host}.lock")}
    if store.path is not None:
        places[f"from {store.path}"] = Path(f"{store.path}.publishing")
    with ExitStack() as locks:
        for what, place in places.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                locks.enter_context(filelock.FileLock(place, timeout=0))
            except filelock.Timeout:
                raise PublishError(f"somebody is publishing {what} already. Wait until that is done") from None
        yield
