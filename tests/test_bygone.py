"""Threads that are gone because they were meant to go: no run brings them back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_valkey.link import finish
from tests.runs_fixtures import new_trace, open_ground  # noqa: F401
from tests.runs_ground import Ground, Party, Trace, chain

IN = {"log": ["in"]}
DONE = {"log": ["in", "a", "b", "c"]}
WHERE: Any = {"configurable": {"thread_id": "t"}}
TTL_S = 0.4


async def delete(party: Party, way: str) -> None:
    """Delete the thread as LangGraph does, of whom nobody tells the registry."""
    saver = party.saver
    if way == "pruned":
        options = {"strategy": "delete"}
        if party.kind == "async":
            await saver.aprune(["t"], **options)
        else:
            saver.prune(["t"], **options)
    elif party.kind == "async":
        await saver.adelete_thread("t")
    else:
        saver.delete_thread("t")


@pytest.mark.parametrize("way", ["deleted", "pruned"])
@pytest.mark.parametrize("is_tiered", [False, True])
async def test_a_thread_that_was_deleted_is_not_run_again(
    ground: Ground, trace: Trace, way: str, is_tiered: bool
) -> None:
    tier = InMemorySaver() if is_tiered else None
    writer = ground.join(tier=tier)
    await writer.run(writer.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    await delete(writer, way)
    writer.fall_silent()
    trace.taken()
    other = ground.join(tier=tier)
    assert (await other.recover()).deleted == ("r",)  # Its graph does not have to be known.
    graph = other.compiled(chain(trace))
    assert trace.taken() == []
    assert graph.get_state(WHERE).values == {}
    assert await other.run(graph, IN, thread_id="t") == DONE


async def test_a_run_that_died_before_its_thread_was_deleted_is_not_run_again(
    ground: Ground, trace: Trace
) -> None:
    trace.die_at("b")
    writer = ground.join(tier=None)
    await writer.dies(writer.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    await delete(writer, "deleted")
    trace.taken()
    other = ground.join(tier=None)
    graph = other.compiled(chain(trace))
    assert (await other.recover(graph)).deleted == ("r",)
    assert trace.taken() == []
    assert other.known("r").outcome == "cancelled"


async def test_a_delete_that_is_not_durable_leaves_no_tombstone(ground: Ground) -> None:
    party: Any = ground.join(tier=None)
    party.saver.delete_thread("t", durable=False)
    assert finish(ground.store.blocking.tombstone("t")) is None


async def test_a_thread_that_has_expired_is_not_run_again(ground: Ground, trace: Trace) -> None:
    writer = ground.join(ttl_s=TTL_S)
    graph = writer.compiled(chain(trace))
    await writer.run(graph, IN, thread_id="t", run_id="r")
    writer.fall_silent()
    while graph.get_state(WHERE).values:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.1)  # Its last write came before it had ended.
    trace.taken()
    other = ground.join(ttl_s=TTL_S)
    assert (await other.recover(other.compiled(chain(trace)))).fine == ("r",)
    assert trace.taken() == []
    assert other.known("r").state == "settled"


async def test_a_thread_that_was_lost_before_it_would_expire_is_run_again(
    ground: Ground, trace: Trace
) -> None:
    """Also the older run of it, since the later one had put the expiry off."""
    before = ground.moment("t")
    writer = ground.join(ttl_s=1.5)
    graph = writer.compiled(chain(trace))
    await writer.run(graph, IN, thread_id="t", run_id="r")
    await asyncio.sleep(1.0)
    await writer.run(graph, IN, thread_id="t", run_id="r2")
    writer.fall_silent()
    ground.rewind(before)
    await asyncio.sleep(0.6)  # Without the later one it would have expired by now.
    other = ground.join(ttl_s=1.5)
    assert (await other.recover(other.compiled(chain(trace)))).rerun == ("r", "r2")
