"""The commands that exchange records with OpenML servers, or are one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from metamed.cli.options import Common, option

HOST = option(str, "--host", "Address to listen on; any but localhost lets other machines in, with keys of --new-key.")
PORT = option(int, "--port", "Port to listen on; the OpenML clients' local-services mode expects 8000.")
SERVER = option(str | None, "--to", "openml | test | local | address of a server; else the one in openml's settings.")
FROM = option(str | None, "--from", "openml | test | local | address of a server; else the one in openml's settings.")
DRY_RUN = option(bool, "--dry-run", "Send nothing; say what would leave this machine, and what cannot be published.")
DOCUMENTS = option(Path | None, "--documents", "With --dry-run: write every document that would be sent here.")
SUITE = option(str | None, "--suite", "Only the runs of this suite; with it, its benchmark suite and study.")
WITH_IMAGES = option(list[str] | None, "--with-images", "File or folder with images: tell each by path and hash.")
WAIT = option(str, "--wait", "How long to wait for a server to make datasets active, such as 90s or 10m.")
THEIR_SUITE = option(str | None, "--suite", "Number or alias of a study or benchmark suite on the server.")
TAG = option(str | None, "--tag", "Runs with this tag; metamed, which all of its own carry, if nothing is chosen.")
TASK = option(int | None, "--task", "Number of a task on the server: all runs on it.")
NEW_KEY = option(str | None, "--new-key", "Make a user of this name, print the key to write with, and stop.")


def serve(common: Common, host: HOST = "localhost", port: PORT = 8000, new_key: NEW_KEY = None):
    """Be an OpenML server over your store, for any OpenML client and for a browser, until Ctrl-C."""
    from metamed.exchange import server

    store = common.own()
    if new_key:
        print(server.new_key(store, new_key))
        return
    server.serve(store, host=host, port=port,
                 ready=lambda address: common.say(f"serving {store.path} at {address} (Ctrl-C stops)"))  # fmt: skip


def publish(
    common: Common, to: SERVER = None, dry_run: DRY_RUN = False, suite: SUITE = None, with_images: WITH_IMAGES = None,
    wait: WAIT = "10m", documents: DOCUMENTS = None,
):  # fmt: skip
    """Send your runs to an OpenML server, each once: datasets without their images, tasks, flows, runs."""
    from metamed.exchange.publish import publish as send
    from metamed.recommend.costs import parse_minutes

    chosen = {"suite": _suite(suite, common), "columns": _columns(with_images or [])}
    if dry_run:
        plan = send(common.own(), dry_run=True, **chosen)
        print("\n".join(plan.describe()))
        if documents:
            common.say(f"{plan.write(documents)} documents written to {documents}")
        return 0
    _need_network(common, to)
    with _bar(common) as report:
        outcome = send(common.own(), to=to, wait=60 * parse_minutes(wait), report=report, **chosen)
    print(f"{len(outcome.numbers)} runs are at {outcome.server}, {outcome.sent} of them since now")
    for why, n in outcome.offline.items():
        print(f"stays offline: {n} runs: {why}")
    if outcome.waiting:
        print(f"not active there yet: {', '.join(outcome.waiting)}. Publish again later for their runs")
    for difference in outcome.differences:
        print(f"differs: {difference}")
    return 5 if outcome.differences else 0


def retrieve(common: Common, server: FROM = None, tag: TAG = None, suite: THEIR_SUITE = None, task: TASK = None):
    """Make evidence of the runs of an OpenML server, whoever made them."""
    from metamed.exchange.retrieve import retrieve as fetch

    _need_network(common, server)
    with _bar(common) as report:
        found = fetch(common.own(), server=server, tag=tag, suite=suite, task=task, report=report)
    print(f"{found.new} new runs from {found.server}, {found.known} were known")
    for why, n in found.left_out.items():
        print(f"left out: {n} runs: {why}")


def _suite(name: str | None, common: Common):
    from metamed.cli.given import suite

    return None if name is None else suite(name, Path(), common)[0]


def _columns(paths: list[str]) -> dict:
    from metamed.exchange.images import identified
    from metamed.readers import read

    return {digest: columns for path in paths for digest, columns in identified(read(path)).items()}


def _need_network(common: Common, server: str | None) -> None:
    from metamed.exchange.client import find_server, is_local

    if common.offline and not is_local(address := find_server(server).base):
        common.need_network(address)


@contextmanager
def _bar(common: Common) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on stderr."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    bars: dict[str, int] = {}
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True),
                  disable=common.quiet, transient=True) as progress:  # fmt: skip

        def report(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=total)
            progress.update(bars[what], completed=done, total=total)

        yield report
