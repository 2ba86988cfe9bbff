"""Writes of a store that are sent again, come late, or are refused; and servers in trouble."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from langgraph.store.base import PutOp

from langgraph_valkey import (
    OutcomeUnknown,
    Settings,
    Unreachable,
    WriteRejected,
)
from langgraph_valkey.link import Call, Reply
from langgraph_valkey.retry import Retrying
from langgraph_valkey.testing import MemoryLink
from tests.store_replay_ground import NS, World, values


def test_a_write_that_is_sent_again_is_applied_once(world: World) -> None:
    """Another process has written in between, and wins."""
    other = world.process()
    store = world.process(Retrying(world, Settings()))
    store.put(NS, "k", {"n": 0})

    def meanwhile(call: Call) -> None:
        if call.script.name == "turn" and tries:
            world.before_call = None
            tries.clear()
            other.put(NS, "k", {"by": "other"})
        elif call.script.name == "turn":
            tries.append(call)

    tries: list[Call] = []
    world.fail_next(OutcomeUnknown, applied=True, script="turn")
    world.before_call = meanwhile
    store.batch([PutOp(NS, "k", {"n": 1}), PutOp(NS, "beside", {"n": 1})])
    assert not tries
    assert values(store) == {"k": {"by": "other"}, "beside": {"n": 1}}
    first = store.get(NS, "beside")
    world.rewind(3)
    assert values(store) == {"k": {"by": "other"}, "beside": {"n": 1}}
    assert store.get(NS, "beside") == first


@pytest.mark.parametrize("last", ["put", "delete"])
def test_a_write_that_comes_late_changes_nothing(world: World, last: str) -> None:
    store = world.process()
    world.fail_next(OutcomeUnknown, applied="later", script="turn")
    with pytest.raises(OutcomeUnknown):
        store.put(NS, "k", {"n": 1})
    if last == "put":
        store.put(NS, "k", {"n": 2})
    else:
        store.delete(NS, "k")
    assert len(world.land_late()) == 1
    assert values(store) == ({"k": {"n": 2}} if last == "put" else {})


def test_what_was_never_acknowledged_need_not_come_back(world: World) -> None:
    """But it must not undo what was."""
    store, other = world.process(), world.process()
    store.put(NS, "k", {"n": 1})
    for value in ({"n": 2}, None):
        world.fail_next(OutcomeUnknown, applied=False, script="turn")
        with pytest.raises(OutcomeUnknown):
            store.batch([PutOp(NS, "k", value)])
        other.put(NS, "k", {"by": "other"})
        store.put(NS, "later", {})
        world.rewind(9)
        other.recover()
        store.recover()
        assert values(store)["k"] == {"by": "other"}


def test_what_turns_out_to_have_been_applied_is_kept(world: World) -> None:
    """Its caller was told that nobody knows; then somebody read it."""
    store = world.process()
    store.put(NS, "first", {})
    world.fail_next(OutcomeUnknown, applied=True, script="turn")
    with pytest.raises(OutcomeUnknown):
        store.batch([PutOp(NS, "k", {"n": 1}), PutOp(NS, "beside", {"n": 2})])
    assert store.get(NS, "k") is not None
    world.rewind(1)
    assert values(store) == {"first": {}, "k": {"n": 1}, "beside": {"n": 2}}


def test_nothing_looks_empty_in_an_outage(world: World) -> None:
    store = world.process()
    store.put(NS, "k", {})
    world.go_down()
    for ask in (lambda: store.get(NS, "k"), lambda: store.search(NS), store.list_namespaces):
        with pytest.raises(Unreachable):
            ask()
    with pytest.raises(Unreachable):
        store.put(NS, "k", {"n": 2})
    world.come_up()
    assert values(store) == {"k": {}}


def test_a_write_that_was_refused_is_not_replayed(world: World) -> None:
    store = world.process()
    store.put(NS, "k", {"n": 1})
    world.fail_next(WriteRejected, script="turn")
    with pytest.raises(WriteRejected):
        store.put(NS, "k", {"n": 2})
    world.rewind(2)
    assert values(store) == {"k": {"n": 1}}
    assert store.health().journal_entries == 1


def test_what_the_journal_has_no_room_for_is_told(world: World) -> None:
    store = world.process(journal_bytes_max=1024 * 1024)
    for n in range(5):
        store.put((str(n),), "k", {"text": random.Random(n).randbytes(300_000).hex()})
    assert store.health().uncovered > 0
    world.rewind(5)
    store.recover()
    found = {each.namespace for each in store.search((), limit=9)}
    assert ("0",) not in found
    assert ("4",) in found
    assert store.health().journal_bytes <= 1024 * 1024


class Astray(World):
    """A server that lets a replaced primary answer once more."""

    former: Callable[[Call], Reply] | None = None

    async def send(self, calls: Sequence[Call]) -> list[Reply]:
        former, self.former = self.former, None
        if former is not None:
            return [former(replace(call)) for call in calls]
        return await super().send(calls)


def test_a_replaced_primary_is_not_believed() -> None:
    """It says that it has taken a write, and that there is no such item."""
    world = Astray()
    store = world.process()
    store.put(NS, "k", {"n": 1})
    old = MemoryLink()
    old._server.identity = world._server.identity
    old._clock_us = world._clock_us
    world.rewind(0)
    store.put(NS, "k", {"n": 2})
    world.former = old._run
    assert store.get(NS, "k") is not None
    world.former = old._run
    store.put(NS, "k", {"n": 3})
    assert values(store) == {"k": {"n": 3}}
