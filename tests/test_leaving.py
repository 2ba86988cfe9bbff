"""Leaving: what a process wrote last is durable, or in the spool, or said to be neither."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langgraph_valkey import ValkeySaver, limits
from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.local import LocalCluster, LocalValkey, RejectingProxy
from langgraph_valkey.monitor import monitor
from tests.faces import checkpoint, config, metadata, numbered_id
from tests.failover_ground import Party, join, mend, threads_in, until

BOUND_S = 0.5

LATE_S = 0.4
"""How much longer than due something may take on a busy machine."""


@pytest.fixture
def server() -> Iterator[LocalValkey]:
    """One server, to be killed."""
    with LocalValkey() as started:
        yield started


@pytest.fixture
def plain(failover_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """Without durability; made whole after each test."""
    yield failover_cluster
    mend(failover_cluster)


async def leave(kind: str, party: Party, *drain_s: float) -> float:
    """Close the saver; how long that took, in seconds."""
    began_s = time.monotonic()
    if kind == "async":
        await party.saver.aclose(*drain_s)
    else:
        await asyncio.to_thread(party.saver.close, *drain_s)
    return time.monotonic() - began_s


def left(party: Party) -> int:
    """How many entries are journaled still."""
    return party.saver.health().journal_entries


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


# --- how long it takes ------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["unknown", "none", "sync"])
async def test_where_nobody_else_has_it_there_is_nothing_to_wait_for(
    kind: str, durability: str, valkey: LocalValkey, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A plain server without a replica, or one that acknowledges what is durable."""
    settings: dict[str, Any] = {"durability": durability, "lag_bound_s": 10.0}
    async with join(kind, valkey.url, key_prefix=prefix, **settings) as party:
        await party.step("t", "t")
        assert await leave(kind, party) < 0.5
    assert party.uncovered == []
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("kind", ["sync"])
async def test_where_replicas_follow_it_waits_for_them(
    kind: str, plain: LocalCluster, prefix: str
) -> None:
    settings: dict[str, Any] = {"durability": "none", "lag_bound_s": 10.0}
    async with join(kind, plain.url, key_prefix=prefix, **settings) as party:
        threads = [threads_in(plain, prefix, shard, 1)[0] for shard in range(3)]
        await party.step(*threads)
        await asyncio.to_thread(plain.hold_replication, 0, 60_000)
        await party.step(*threads)
        leaving = asyncio.ensure_future(leave(kind, party))
        await asyncio.sleep(LATE_S)
        assert not leaving.done()
        plain.release_replication(0)
        released_s = time.monotonic()
        await leaving
        # Replicas say once a second how far they are.
        assert time.monotonic() - released_s < 1.5 + LATE_S
        assert left(party) == 0
        assert party.uncovered == []


async def test_with_async_durability_it_waits_for_the_watermark(
    kind: str, valkey: LocalValkey, prefix: str
) -> None:
    """By heartbeats of its own, within 2.4 bounds; nothing is left, and nothing is said."""
    async with join(kind, valkey.url, key_prefix=prefix, lag_bound_s=BOUND_S) as party:
        await party.step("t", "u")
        took_s = await leave(kind, party)
        assert 1.6 * BOUND_S < took_s < limits.CLOSE_DRAIN_BOUNDS * BOUND_S + LATE_S
        assert left(party) == 0
        assert party.uncovered == []


@pytest.mark.parametrize(
    ("kind", "gone"), [("async", "killed"), ("sync", "before anything was written")]
)
async def test_a_server_that_is_gone_holds_nobody_up(
    kind: str, gone: str, server: LocalValkey, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CLOSE_UNREACHABLE_S", 0.7)
    async with join(kind, server.url, key_prefix=prefix, lag_bound_s=10.0) as party:
        if gone == "killed":
            await party.step("t")
        server.kill()
        took_s = await leave(kind, party)
        assert party.uncovered == ([2] if gone == "killed" else [])
        if gone == "killed":
            assert took_s > 0.7
        assert took_s < 0.7 + 2.5


# --- what it says -------------------------------------------------------------------------


async def test_a_drain_that_is_too_short_says_what_is_left(
    kind: str, valkey: LocalValkey, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with join(kind, valkey.url, key_prefix=prefix) as party:
        await party.step("t", "u", "t")
        took_s = await leave(kind, party, 0.2)
        assert 0.2 <= took_s < 0.2 + LATE_S
        assert party.uncovered == [6]
        [said] = warnings_of(caplog)
        assert said.startswith("6 writes were not durable")
        # Once.
        assert await leave(kind, party, 0.2) < 0.1
        assert party.uncovered == [6]


async def test_with_a_spool_nothing_is_uncovered(
    kind: str, valkey: LocalValkey, prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with join(kind, valkey.url, key_prefix=prefix, spool_dir=tmp_path) as party:
        await party.step("t", "u", "t")
        assert await leave(kind, party, 0.0) < LATE_S
    assert party.uncovered == []
    assert warnings_of(caplog) == []
    [_] = tmp_path.glob("*.spool")
    async with join(
        kind, valkey.url, key_prefix=prefix, spool_dir=tmp_path, drain_s=9.0, lag_bound_s=BOUND_S
    ) as successor:
        assert left(successor) == 6
    assert list(tmp_path.glob("*.spool")) == []


async def test_who_hides_everything_is_told_that_nothing_is_known(
    kind: str, server: LocalValkey, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No watermark can be had, so it does not wait for one."""
    words = ("on", ">pw", "~*", "&*", "+@all", "-info", "-cluster|myid")
    server.command("ACL", "SETUSER", "app", *words)
    async with join(
        kind, server.url.replace("//", "//app:pw@"), key_prefix=prefix, lag_bound_s=10.0
    ) as party:
        await party.step("t")
        health = party.saver.health()
        assert (health.shards, health.journal_entries) == ((), 2)
        assert await leave(kind, party) < LATE_S
        assert party.uncovered == [2]
    [said] = warnings_of(caplog)
    assert "hides" in said


# --- waiting for one thread ---------------------------------------------------------------


async def wait_durable(kind: str, party: Party, thread: str, timeout_s: float) -> bool:
    if kind == "async":
        return await party.saver.await_durable(config(thread), timeout_s)
    return await asyncio.to_thread(party.saver.wait_durable, config(thread), timeout_s)


async def test_waiting_for_what_was_written(kind: str, plain: LocalCluster, prefix: str) -> None:
    """It answers for the thread that is asked for, and no other."""
    async with join(kind, plain.url, key_prefix=prefix, durability="none") as party:
        here, there = (threads_in(plain, prefix, shard, 1)[0] for shard in (0, 1))
        assert await wait_durable(kind, party, here, 0)
        await asyncio.to_thread(plain.hold_replication, 0, 60_000)
        await party.step(here, there)
        assert await wait_durable(kind, party, there, 5)
        began_s = time.monotonic()
        assert not await wait_durable(kind, party, here, 0.3)
        assert 0.3 <= time.monotonic() - began_s < 0.3 + LATE_S
        waiting = asyncio.ensure_future(wait_durable(kind, party, here, 10))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        plain.release_replication(0)
        assert await waiting


# --- calls, threads and connections that are left --------------------------------------------


@pytest.mark.parametrize(
    ("kind", "closing", "durability"), [("async", "sync", "async"), ("sync", "async", "sync")]
)
async def test_a_call_under_way_ends_first_and_is_waited_for(
    kind: str, closing: str, durability: str, server: LocalValkey, prefix: str
) -> None:
    """And what it wrote is drained as well."""
    settings: dict[str, Any] = {"durability": durability, "lag_bound_s": BOUND_S}
    with RejectingProxy(server) as proxy:
        async with join(kind, proxy.url, key_prefix=prefix, **settings) as party:
            await party.step("t")
            proxy.reject()
            putting = asyncio.ensure_future(party.twin.step("t", 9, short="late"))
            await until(lambda: proxy.rejected > 1)
            leaving = asyncio.ensure_future(leave(closing, party, 5.0))
            await asyncio.sleep(0.1)
            assert not leaving.done()
            proxy.accept()
            await putting
            await leaving
            assert left(party) == 0
            assert party.uncovered == []


async def test_a_call_after_the_end_wakes_nobody(
    kind: str, server: LocalValkey, prefix: str
) -> None:
    """Neither one that is new, nor one that goes on failing when all is closed."""
    with RejectingProxy(server) as proxy:
        async with join(kind, proxy.url, key_prefix=prefix) as party:
            await party.step("t")
            proxy.reject()
            stepping = asyncio.ensure_future(party.step("t"))
            await until(lambda: proxy.rejected > 1)
            await leave(kind, party, 0.0)
            with pytest.raises(ConfigurationError, match="closed"):
                await stepping
            party.saver._window.failed(0, ConnectionError(), time.monotonic())
            unused = ValkeySaver.from_url(server.url, key_prefix=prefix, durability="async")
            unused.close()
            made, versions = checkpoint(numbered_id(1), {"a": 1})
            for saver in (unused, party.saver):
                with pytest.raises(ConfigurationError, match="closed"):
                    saver.put(config("t"), made, metadata(1), versions)
                assert saver._window not in monitor._watched


async def test_savers_that_are_forgotten_leave_no_threads(valkey: LocalValkey, prefix: str) -> None:
    """Nor connections: nobody closed them, and nothing holds them."""
    gc.collect()
    await until(lambda: not named_threads(), 5)
    name = f"forgotten-{prefix}"
    for _ in range(3):
        party = Party("sync", valkey.url, key_prefix=prefix, durability="async", client_name=name)
        await party.step("t")
        assert connections(valkey, name) > 0
        del party
    assert named_threads()
    gc.collect()
    await until(lambda: not named_threads() and not connections(valkey, name), 5)


def named_threads() -> list[str]:
    """Threads of ours."""
    return [each.name for each in threading.enumerate() if "langgraph-valkey" in each.name]


def connections(server: LocalValkey, name: str) -> int:
    """How many connections of that name, or of a monitor's made from it, the server has."""
    listed = server.command("CLIENT", "LIST")
    assert isinstance(listed, bytes)
    return listed.count(b"name=" + name.encode())


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_child_is_not_held_up_by_what_the_monitor_had_open(
    valkey: LocalValkey, prefix: str
) -> None:
    """A client of the parent's that is collected in the child closes itself, for ever."""
    options: dict[str, Any] = {"durability": "async", "lag_bound_s": 1.0}  # A beat each 0.1 s.
    with ValkeySaver.from_url(valkey.url, key_prefix=prefix, **options) as saver:
        where = config("t")
        made, versions = checkpoint(numbered_id(1), {"a": 1})
        saver.put(where, made, metadata(1), versions)
        until_s = time.monotonic() + 10
        while not saver.health().shards or monitor._watched[saver._window].link is None:
            assert time.monotonic() < until_s
            time.sleep(0.01)
        time.sleep(0.5)  # Until the monitor waits, and holds nothing itself.
        process = multiprocessing.get_context("fork").Process(
            target=lambda: os._exit(int(saver.get_tuple(where) is None))
        )
        process.start()
        process.join(20)
        ended = process.exitcode
        process.kill()
        saver.close(0)
    assert ended == 0
