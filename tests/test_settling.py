"""When a run is settled: once its last checkpoint can't be lost any more, and not before."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from langgraph_valkey import keeper
from langgraph_valkey.keys import thread_keys
from langgraph_valkey.link import finish
from langgraph_valkey.local import LocalCluster, LocalValkey
from langgraph_valkey.loss_window.durability import Rule
from langgraph_valkey.loss_window.report import Hooks
from langgraph_valkey.loss_window.window import LossWindow
from langgraph_valkey.runs import settling
from langgraph_valkey.sql.store import SqlStore
from tests.failover_ground import LAG_BOUND_S, replace_killed, threads_in, until
from tests.runs_ground import Party, Trace, chain

IN = {"log": ["in"]}
DONE = {"log": ["in", "a", "b", "c"]}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keepers look more often than they would."""
    monkeypatch.setattr(keeper, "ROUND_S", 0.2)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    made = SqlStore(f"sqlite:///{tmp_path / 'primary.db'}")
    finish(made.blocking.setup())
    yield made
    made.close()


@asynccontextmanager
async def joined(url: str, store: SqlStore, **settings: Any) -> AsyncIterator[Party]:
    party = Party("sync", url, store, **settings)
    try:
        yield party
    finally:
        await party.runs.aclose(0.0)
        await party.saver.aclose(0.0)


def async_settings(prefix: str, **settings: Any) -> dict[str, Any]:
    return {"key_prefix": prefix, "durability": "async", "lag_bound_s": LAG_BOUND_S, **settings}


async def test_sync_durability_settles_at_once(
    valkey: LocalValkey, store: SqlStore, prefix: str
) -> None:
    async with joined(valkey.url, store, key_prefix=prefix, durability="sync") as party:
        await party.run(party.compiled(chain(Trace())), IN, thread_id="t", run_id="r")
        took_s = await until(lambda: party.known("r").state == "settled")
        assert took_s <= 5.0  # By a watermark it would take more than 20.
        assert party.known("r").input == b""
        await until(lambda: party.runs.health().settling == 0)


async def test_async_durability_settles_when_the_watermark_has_passed(
    durable: LocalCluster, store: SqlStore, prefix: str
) -> None:
    async with joined(durable.url, store, **async_settings(prefix)) as party:
        await party.run(party.compiled(chain(Trace())), IN, thread_id="t", run_id="r")
        ended_s = time.monotonic()
        await until(lambda: party.known("r").state == "settled")
        took_s = time.monotonic() - ended_s
        assert took_s >= 1.6 * LAG_BOUND_S - 0.1  # The bound, and the margin.


async def test_one_that_only_looks_has_the_shard_written_to(
    durable: LocalCluster, store: SqlStore, prefix: str
) -> None:
    """It journals nothing, and still the watermark moves on for it."""
    async with joined(durable.url, store, **async_settings(prefix, replay=False)) as writer:
        await writer.run(writer.compiled(chain(Trace())), IN, thread_id="t", run_id="r")
        writer.fall_silent()
    async with joined(durable.url, store, **async_settings(prefix)) as other:
        graph = other.compiled(chain(Trace()))
        assert (await other.recover(graph)).fine == ("r",)
        assert other.saver.health().journal_entries == 0
        await until(lambda: other.known("r").state == "settled")
        wanted = other.saver._window.vitals
        [shard] = other.saver.health().shards
        assert not wanted.needs_beat(shard.identity.encode(), time.monotonic() + settling.WANT_S)


async def test_a_log_that_stands_still_settles_nothing(
    durable: LocalCluster, store: SqlStore, prefix: str
) -> None:
    async with joined(durable.url, store, **async_settings(prefix)) as party:
        graph = party.compiled(chain(Trace()))
        [thread] = threads_in(durable, prefix, 0, 1)
        await party.run(graph, IN, thread_id=thread, run_id="before")
        durable.hold_log(0)
        await party.run(graph, IN, thread_id=thread, run_id="r")
        await asyncio.sleep(2.1 * LAG_BOUND_S + 0.8)
        assert party.known("r").state == "ended"
        durable.release_log(0)
        await until(lambda: party.known("r").state == "settled")


async def test_after_a_failover_it_is_looked_at_again(
    durable: LocalCluster, store: SqlStore, prefix: str
) -> None:
    """The writer replays what was lost: nothing is executed again, and it takes its time."""
    trace = Trace()
    async with joined(durable.url, store, **async_settings(prefix)) as party:
        graph = party.compiled(chain(trace))
        [thread] = threads_in(durable, prefix, 1, 1)
        durable.hold_log(1)
        await party.run(graph, IN, thread_id=thread, run_id="r")
        [seen] = party.runs._parts.settling._waiting.values()
        durable.kill_primary(1)
        replace_killed(durable)
        trace.taken()

        def moved() -> bool:
            waiting = list(party.runs._parts.settling._waiting.values())
            return bool(waiting) and waiting[0].sight.identity != seen.sight.identity

        await until(moved)
        assert party.known("r").state == "ended"
        await until(lambda: party.known("r").state == "settled")
        assert trace.taken() == []
        where: Any = {"configurable": {"thread_id": thread}}
        assert graph.get_state(where).values == DONE


async def test_what_a_failover_cost_is_executed_again(
    durable: LocalCluster, store: SqlStore, prefix: str
) -> None:
    """The writer dies with the primary; another process notices, and does it by itself."""
    [thread] = threads_in(durable, prefix, 2, 1)
    [other_thread] = threads_in(durable, prefix, 2, 1)
    settings = async_settings(prefix)
    async with joined(durable.url, store, owner_alive_s=3.0, **settings) as other:
        trace = Trace()
        graph = other.compiled(chain(trace))
        other.runs.register(graph)
        other.saver._window._hooks = other.saver._window.recoveries._hooks = Hooks(
            on_rewind=other.runs.rewound
        )
        await other.run(graph, IN, thread_id=other_thread, run_id="its own")
        trace.taken()
        spawn = multiprocessing.get_context("spawn")
        ready, held = spawn.Event(), spawn.Event()
        told = durable.url, str(store.engine.url), settings, thread, ready, held
        child = spawn.Process(target=_run_and_die, args=told)
        child.start()
        assert await asyncio.to_thread(ready.wait, 30)
        durable.hold_log(2)
        held.set()
        await asyncio.to_thread(child.join, 30)
        assert child.exitcode == 9
        assert other.known("r").state == "ended"
        durable.kill_primary(2)
        replace_killed(durable)
        await until(lambda: other.known("r").attempt == 2, 15.0)
        await until(lambda: other.known("r").state in ("ended", "settled"))
        where: Any = {"configurable": {"thread_id": thread}}
        assert graph.get_state(where).values == DONE
        assert trace.taken() == ["a", "b", "c"]
        assert other.known("its own").attempt == 1


def _run_and_die(
    url: str, primary: str, settings: dict[str, Any], thread: str, ready: Any, held: Any
) -> None:
    party = Party("sync", url, SqlStore(primary), owner_alive_s=3.0, **settings)
    graph = party.compiled(chain(Trace()))
    party.saver.setup()
    ready.set()
    held.wait(30)
    party.runs.run(graph, IN, thread_id=thread, run_id="r")
    os._exit(9)


async def test_without_a_monitor_age_settles(
    valkey: LocalValkey, store: SqlStore, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "AGE_S", 1.2)
    async with joined(valkey.url, store, key_prefix=prefix, replay=False) as party:
        graph = party.compiled(chain(Trace()))
        await party.run(graph, IN, thread_id="t", run_id="r")
        await party.run(graph, IN, thread_id="u", run_id="lost")
        ended_s = time.monotonic()
        party.saver.delete_thread("u")
        await until(lambda: party.known("r").state == "settled")
        assert time.monotonic() - ended_s >= 1.1
        await until(lambda: party.known("lost").attempt == 2)  # It is executed again.


async def test_leaving_waits_until_all_is_settled(
    durable: LocalCluster, store: SqlStore, prefix: str
) -> None:
    async with joined(durable.url, store, **async_settings(prefix)) as party:
        await party.run(party.compiled(chain(Trace())), IN, thread_id="t", run_id="r")
        await party.runs.aclose(20.0)
        assert party.known("r").state == "settled"
        assert not party.known("r").owner_alive


async def test_leaving_does_not_wait_for_what_nobody_can_tell(
    valkey: LocalValkey, store: SqlStore, prefix: str
) -> None:
    async with joined(valkey.url, store, key_prefix=prefix, replay=False) as party:
        await party.run(party.compiled(chain(Trace())), IN, thread_id="t", run_id="r")
        began_s = time.monotonic()
        await party.runs.aclose()
        assert time.monotonic() - began_s <= 10.0  # It would be 25.
        assert party.known("r").state == "ended"


def test_nothing_has_passed_once_another_primary_answers() -> None:
    """A plain server that came back empty: what it was sent is let go after a while."""
    window = LossWindow("p", Rule("none", 1.0))
    keys = thread_keys("p", "t")
    before, after = b"a" * 40, b"b" * 40
    window.heard(keys, before, 0.0)
    window.vitals.looked(before, 0.0, "master_repl_offset:10", "")
    assert not window.vitals.has_passed(keys, before, 1.0, 2.0)
    assert window.vitals.has_passed(keys, before, 1.0, 3.0)
    window.heard(keys, after, 10.0)
    assert not window.vitals.has_passed(keys, before, 1.0, 10.0)


def test_a_watermark_is_wanted_for_a_while() -> None:
    window = LossWindow("p", Rule("async", 1.0))
    identity = b"a" * 40
    window.heard(thread_keys("p", "t"), identity, 0.0)
    assert not window.vitals.needs_beat(identity, 1.0)
    window.vitals.want(identity, 4.0)
    assert window.vitals.needs_beat(identity, 4.0)
    assert not window.vitals.needs_beat(identity, 4.1)
    assert not window.vitals.needs_beat(b"b" * 40, 1.0)
