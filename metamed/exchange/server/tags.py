"""Tags of datasets, tasks, flows, setups and runs: one word, set by anybody, removed by whoever set it."""

from __future__ import annotations

from metamed.exchange.server.calls import Call, route
from metamed.exchange.server.checks import legal
from metamed.exchange.server.refusals import Refused

_KINDS = ("data", "task", "flow", "setup", "run")


def _register(kind: str) -> None:
    """The routes of one kind."""

    @route("POST", f"{kind}/tag")
    def tag(call: Call) -> dict:
        id, word = _asked(call, kind)
        with call.served.writing():
            if word in _tags(call, kind, id):
                raise Refused(473, f"{kind} {id}, {word}")
            call.served.tag(kind, id, word, call.user)
        return {f"{kind}_tag": {"id": id, "tag": list(call.served.tags(kind, id))}}

    @route("POST", f"{kind}/untag")
    def untag(call: Call) -> dict:
        id, word = _asked(call, kind)
        with call.served.writing():
            owners = _tags(call, kind, id)
            if word not in owners:
                raise Refused(475, f"{kind} {id}, {word}")
            if owners[word] != call.user:
                raise Refused(476, f"it was set by user {owners[word]}")
            call.served.untag(kind, id, word)
        return {f"{kind}_untag": {"id": id, "tag": list(call.served.tags(kind, id))}}

    @route("GET", f"{kind}/tag/list")
    def list_tags(call: Call) -> dict:
        tags = call.served.all_tags(kind)
        if not tags:
            raise Refused(1002)
        return {f"{kind}_tag_list": {"tag": tags}}


def _asked(call: Call, kind: str) -> tuple[int, str]:
    return call.number(f"{kind}_id", 471), legal(call.form.get("tag", ""), "system", 64, 471, "tag")


def _tags(call: Call, kind: str, id: int) -> dict[str, int]:
    found = call.served.run(id) if kind == "run" else call.served.get(kind, id)
    if found is None:
        raise Refused(472, f"there is no {kind} {id}")
    return call.served.tags(kind, id)


for _kind in _KINDS:
    _register(_kind)
