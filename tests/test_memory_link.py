"""What the server in memory adds to a real one: faults, and time that is told to pass."""

from __future__ import annotations

import operator
import sys
from itertools import pairwise
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph

from langgraph_valkey import (
    ConfigurationError,
    OutcomeUnknown,
    Settings,
    Unreachable,
    ValkeySaver,
    WriteRejected,
    limits,
    operations,
)
from langgraph_valkey.keys import thread_keys
from langgraph_valkey.link import Call, Script, finish
from langgraph_valkey.retry import Retrying
from langgraph_valkey.testing import MemoryLink, interpreter, memory_saver
from tests.faces import checkpoint, config, metadata, numbered_id


class _Seen(TypedDict):
    seen: Annotated[list[str], operator.add]


def one_put(saver: ValkeySaver, number: int, thread: str = "t") -> None:
    made, new = checkpoint(numbered_id(number), {"n": number, "text": "word " * 50})
    saver.put(config(thread), made, metadata(number), new)


def head_of(saver: ValkeySaver, thread: str = "t") -> str | None:
    found = saver.get_tuple(config(thread))
    return found.checkpoint["id"] if found else None


async def test_it_serves_both_faces() -> None:
    saver = memory_saver()
    one_put(saver, 1)
    found = await saver.aget_tuple(config("t"))
    assert found == saver.get_tuple(config("t"))
    assert [one async for one in saver.alist(None)] == list(saver.list(None)) == [found]


@pytest.mark.parametrize("failure", [WriteRejected, Unreachable, OutcomeUnknown])
def test_a_call_fails_where_it_is_told_to(failure: Any) -> None:
    link = MemoryLink()
    saver = memory_saver(link)
    link.fail_next(failure, script="put", skip=1)
    one_put(saver, 1)
    assert head_of(saver) == numbered_id(1)
    with pytest.raises(failure):
        one_put(saver, 2)
    assert head_of(saver) == numbered_id(1)
    one_put(saver, 2)
    assert link.counts == {"put": 3, "get": 2}


def test_an_unknown_outcome_is_any_of_three() -> None:
    link = MemoryLink()
    saver = memory_saver(link)
    for number, applied, seen in ((1, False, None), (2, True, 2), (3, "later", 2)):
        link.fail_next(OutcomeUnknown, applied=applied)  # type: ignore[arg-type]
        with pytest.raises(OutcomeUnknown):
            one_put(saver, number)
        assert head_of(saver) == (numbered_id(seen) if seen else None)
    assert [reply[0] for reply in link.land_late()] == [b"ok"]
    assert link.late == []
    assert head_of(saver) == numbered_id(3)
    with pytest.raises(ValueError, match="nothing was applied"):
        link.fail_next(Unreachable, applied=True)


def test_a_rewind_takes_back_the_last_writes_and_changes_the_primary() -> None:
    link = MemoryLink()
    saver = memory_saver(link, ttl_s=1000, replay=False)
    for number in range(1, 4):
        one_put(saver, number)
    saver.delete_thread("t")
    assert (link.keys, head_of(saver)) == ([b"lgv:{t}:graves"], None)
    identity = link._server.identity
    link.rewind(2)
    assert head_of(saver) == numbered_id(2)
    assert link._server.identity != identity
    link.rewind(100)
    assert link.keys == []


def test_a_thread_expires_by_virtual_time() -> None:
    link = MemoryLink()
    saver = memory_saver(link, ttl_s=60)
    one_put(saver, 1)
    link.advance(59)
    assert head_of(saver) == numbered_id(1)
    finish(link.sleep(2))
    assert head_of(saver) is None
    assert link.keys == []


def test_a_server_that_is_down_says_nothing() -> None:
    link = MemoryLink()
    saver = memory_saver(link)
    one_put(saver, 1)
    link.go_down()
    with pytest.raises(Unreachable):
        head_of(saver)
    with pytest.raises(Unreachable):
        list(saver.list(None))
    link.come_up()
    assert head_of(saver) == numbered_id(1)


def test_eviction_takes_the_keys_of_one_thread_or_of_all() -> None:
    link = MemoryLink()
    saver = memory_saver(link)
    for thread in ("t", "u{}", "v"):
        one_put(saver, 1, thread)
    assert link.evict("index", "u{}") == 1
    assert b"lgv:{u%7B%7D}:index" not in link.keys
    assert link.evict("state") == 3
    assert link.keys == [b"lgv:{t}:index", b"lgv:{v}:index"]


def test_the_walk_over_keys_goes_in_pages() -> None:
    link = MemoryLink(page_most=2)
    saver = memory_saver(link)
    for number in range(9):
        one_put(saver, 1, f"t{number}")
    assert len(list(saver.list(None))) == 9
    assert len(list(memory_saver(link, key_prefix="other").list(None))) == 0


def test_a_seed_gives_the_same_run_again() -> None:
    identities = []
    for seed in (1, 1, 2):
        link = MemoryLink(seed=seed)
        link.rewind()
        identities.append(link._server.identity)
    assert identities[0] == identities[1] != identities[2]


def test_before_a_call_anything_may_happen() -> None:
    link = MemoryLink()
    saver, other = memory_saver(link), memory_saver(link)

    def meanwhile(call: Call) -> None:
        link.before_call = None
        assert call.script.name == "get"
        one_put(other, 7)

    one_put(saver, 1)
    link.before_call = meanwhile
    assert head_of(saver) == numbered_id(7)


def test_without_lupa_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lupa", None)
    with pytest.raises(ConfigurationError, match=r"langgraph-valkey\[testing\]"):
        interpreter.Interpreter()


def test_the_examples_of_the_docstrings() -> None:
    """An agent whose third checkpoint is refused, and one whose server goes away."""
    link = MemoryLink()
    builder = StateGraph(_Seen)
    for name in ("first", "second", "third"):
        builder.add_node(name, lambda _, name=name: {"seen": [name]})
    for edge in pairwise((START, "first", "second", "third", END)):
        builder.add_edge(*edge)
    graph = builder.compile(checkpointer=memory_saver(link))
    where = config("t")

    link.fail_next(WriteRejected, script="put", skip=2)
    with pytest.raises(WriteRejected):
        graph.invoke({"seen": ["input"]}, where, durability="sync")
    assert link.counts["put"] == 3
    ended = graph.invoke(None, where, durability="sync")
    assert ended == {"seen": ["input", "first", "second", "third"]}

    link.go_down()
    with pytest.raises(Unreachable):
        graph.get_state(where)
    link.come_up()
    assert graph.get_state(where).values == ended


def test_retries_in_between_wait_in_virtual_time() -> None:
    link = MemoryLink()
    saver = memory_saver(Retrying(link, Settings()))
    link.fail_next(WriteRejected)
    link.fail_next(OutcomeUnknown, applied=True, skip=1)
    one_put(saver, 1)
    assert link.counts == {"put": 3}
    link.go_down()
    before_s = link.now()
    with pytest.raises(Unreachable):
        head_of(saver)
    assert link.now() - before_s >= limits.READ_DEADLINE_S


def test_writes_sent_twice_are_stored_once() -> None:
    """Readers would not tell, but the list would grow with each retry."""
    link = MemoryLink()
    keys = thread_keys("lgv", "t")
    call = operations.put_writes(keys, b"e" * 16, None, "", "id", b"writes", operations.Standing())
    for _ in range(2):
        finish(link.send([call]))
    count = Script("count", "#!lua\nreturn redis.call('HGET', KEYS[1], 'x\\0id')")
    entries = finish(link.send([Call(count, (keys.state,), [], writes=False)]))
    assert entries == [b"e" * 16]
