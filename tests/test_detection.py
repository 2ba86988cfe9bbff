"""Failovers are noticed, and what they lost is replayed: on real clusters, from the outside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from langgraph_valkey import limits
from langgraph_valkey.local import LocalCluster, LocalValkey
from tests.faces import FACES, config
from tests.failover_ground import (
    FAST_MS,
    join,
    replace_killed,
    threads_in,
    total,
    until,
)


@pytest.fixture
def server() -> Iterator[LocalValkey]:
    """One server, to be killed."""
    with LocalValkey() as started:
        yield started


# --- a crash --------------------------------------------------------------------------


async def test_an_idle_process_gives_back_what_a_crash_lost(
    kind: str, durable: LocalCluster, prefix: str
) -> None:
    """Nobody calls after the crash; one report tells of all threads of the shard."""
    async with join(kind, durable.url, key_prefix=prefix) as party:
        lost, kept = (threads_in(durable, prefix, shard, 12) for shard in (0, 1))
        await party.step(*lost, *kept)
        await asyncio.to_thread(durable.hold_log, 0)
        await party.step(*lost)
        await asyncio.to_thread(durable.kill_primary, 0)
        await asyncio.to_thread(durable.wait_healthy)
        took_s = await until(lambda: party.reports)
        await asyncio.sleep(3 * limits.PROBE_IN_TROUBLE_S)
        [report] = party.reports
        assert took_s < 2
        assert report.replayed == 2 * len(lost)
        assert set(report.rewound) == set(lost)
        assert not report.incomplete
        assert not report.forks
        assert report.uncovered == report.expired == report.deleted == 0
        # What another process finds was not brought by its own reading.
        async with join(kind, durable.url, key_prefix=prefix) as other:
            party.twin.face = other.face
            await party.twin.check()


async def test_calls_alone_give_back_what_a_crash_lost(
    kind: str, durable: LocalCluster, prefix: str, unwatched: None
) -> None:
    """Each call on a thread replays it first: what goes on leans on nothing that is gone."""
    async with join(kind, durable.url, key_prefix=prefix) as party:
        writing, reading = threads_in(durable, prefix, 0, 2)
        await party.step(writing, reading)
        await asyncio.to_thread(durable.hold_log, 0)
        await party.step(writing, reading)
        await asyncio.to_thread(durable.kill_primary, 0)
        began_s = time.monotonic()
        mending = asyncio.ensure_future(asyncio.to_thread(replace_killed, durable))
        await party.step(writing)
        await party.twin.check()
        # Its own threads don't wait for others' replays.
        assert time.monotonic() - began_s < FAST_MS / 1000 + 1 + limits.REPLAY_GRACE_S / 2
        await mending


async def test_a_planned_failover_is_no_loss(kind: str, plain: LocalCluster, prefix: str) -> None:
    """Back and forth, with writes all the time: noticed, and nothing found missing."""
    async with join(kind, plain.url, key_prefix=prefix) as party:
        threads = threads_in(plain, prefix, 0, 4)
        await party.step(*threads)
        for noticed in (1, 2):
            promoting = asyncio.ensure_future(asyncio.to_thread(plain.promote, 0))
            while not promoting.done():
                await party.step(*threads)
            await promoting
            await until(lambda count=noticed: len(party.reports) >= count)  # type: ignore[misc]
            await party.step(*threads)
        assert len(party.reports) == 2
        assert total(party.reports, "replayed") == 0
        assert total(party.reports, "already_there") > 0
        assert not any(report.rewound or report.forks for report in party.reports)
        await party.twin.check()


@pytest.mark.parametrize("watched", [True, False])
async def test_a_forced_failover_without_an_error(
    kind: str, watched: bool, durable: LocalCluster, prefix: str, request: pytest.FixtureRequest
) -> None:
    """A replica takes over without what it had not applied, and no client is told."""
    if not watched:
        request.getfixturevalue("unwatched")
    async with join(kind, durable.url, key_prefix=prefix) as party:
        threads = threads_in(durable, prefix, 0, 3)
        await party.step(*threads)
        await asyncio.to_thread(durable.hold_log, 0)
        await party.step(*threads)
        await asyncio.to_thread(durable.force_failover, 0)
        if watched:
            await until(lambda: party.reports)
            assert total(party.reports, "replayed") == 2 * len(threads)
        await party.step(*threads)
        await party.twin.check()


# --- an old primary that does not know ---------------------------------------------------


PATIENT = {"request_timeout_ms": 20_000}
"""A call waits for a frozen server for longer than that is frozen."""


async def test_a_frozen_primary_is_believed_until_another_is_heard_of(
    kind: str, plain: LocalCluster, prefix: str, unwatched: None
) -> None:
    """A write waits in its socket, and is taken when it thaws; it is lost, and comes back."""
    async with join(kind, plain.url, key_prefix=prefix, **PATIENT) as party:
        [thread] = threads_in(plain, prefix, 1, 1)
        await party.step(thread)
        [old] = party.saver.health().shards
        await asyncio.to_thread(plain.freeze_primary, 1)
        putting = asyncio.ensure_future(party.twin.step(thread, 100, short="waits"))
        await asyncio.to_thread(plain.wait_healthy)
        assert not putting.done()
        await asyncio.to_thread(plain.resume, 1)
        await putting
        assert party.saver.health().shards[0].identity == old.identity
        await asyncio.to_thread(plain.wait_healthy)
        await party.twin.check()
        assert party.saver.health().shards[0].identity != old.identity
        await party.step(thread)
        await party.twin.check()


@pytest.mark.parametrize("kind", ["async"])
async def test_a_frozen_primary_is_not_believed_afterwards(
    kind: str, plain: LocalCluster, prefix: str
) -> None:
    """The same, but the monitor has heard of the new one: the write is sent again there."""
    async with join(kind, plain.url, key_prefix=prefix, **PATIENT) as party:
        [thread] = threads_in(plain, prefix, 1, 1)
        await party.step(thread)
        await asyncio.to_thread(plain.freeze_primary, 1)
        putting = asyncio.ensure_future(party.twin.step(thread, 100, short="waits"))
        await until(lambda: party.reports)
        assert not putting.done()
        await asyncio.to_thread(plain.resume, 1)
        await putting
        async with join(kind, plain.url, key_prefix=prefix) as other:
            await asyncio.to_thread(plain.wait_healthy)
            party.twin.face = other.face
            await party.twin.check()
        assert len(party.reports) == 1


@pytest.mark.parametrize("kind", ["sync"])
async def test_a_primary_cut_off_goes_on_acknowledging(
    kind: str, plain: LocalCluster, prefix: str
) -> None:
    """All that it takes until it hears of the new one is lost, and comes back."""
    async with join(kind, plain.url, key_prefix=prefix) as party:
        threads = threads_in(plain, prefix, 2, 2)
        await party.step(*threads)
        await asyncio.to_thread(plain.split_primary, 2)
        for _ in range(3):
            await party.step(*threads)
        assert not party.reports
        await asyncio.to_thread(plain.heal, 2)
        await until(lambda: party.reports)
        await party.step(*threads)
        await party.twin.check()
        [report] = party.reports
        assert report.replayed >= 3 * 2 * len(threads)
        assert set(report.rewound) == set(threads)


# --- a server that comes back empty, or hides who it is -----------------------------------


HIDING = ["", "-info", "-info -cluster|myid"]
"""What is taken from a user: nothing; the replication id; the node id as well."""


def allow(server: LocalValkey, rules: str) -> str:
    """Let a user in, and say where."""
    words = ("on", ">pw", "~*", "&*", "+@all", *rules.split())
    server.command("ACL", "SETUSER", "app", *words)
    return server.url.replace("//", "//app:pw@")


@pytest.mark.parametrize("first", ["put", "write", "get", "list"])
@pytest.mark.parametrize("rules", HIDING)
async def test_a_server_that_comes_back_empty(
    rules: str, first: str, server: LocalValkey, prefix: str, unwatched: None
) -> None:
    """Whatever is called first, the thread is there, whole."""
    kind = FACES[len(first) % 2]
    async with join(kind, allow(server, rules), key_prefix=prefix) as party:
        await party.step(*"tttt")
        server.kill()
        server.restart()
        allow(server, rules)
        if first == "put":
            await party.step("t")
        elif first == "write":
            where = config("t", "", party.twin.last["t", ""]["id"])
            await party.twin.write(where, [("short", "late")], "late")
        elif first == "list":
            await party.twin.list(config("t"))
        await party.twin.check()
        await party.step("t")
        await party.twin.check()


async def test_an_idle_process_fills_a_server_that_came_back_empty(
    kind: str, server: LocalValkey, prefix: str
) -> None:
    async with join(kind, server.url, key_prefix=prefix) as party:
        await party.step("t", "u", "t")
        server.kill()
        server.restart()
        await until(lambda: party.reports)
        [report] = party.reports
        assert (report.replayed, set(report.rewound)) == (6, {"t", "u"})
        async with join(kind, server.url, key_prefix=prefix) as other:
            party.twin.face = other.face
            await party.twin.check()
