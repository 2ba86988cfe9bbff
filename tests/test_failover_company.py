"""Failovers that several meet at once: other processes' reads, event loops, forked children."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from langgraph_valkey import limits
from langgraph_valkey.errors import Unreachable
from langgraph_valkey.local import LocalCluster
from langgraph_valkey.local.node import wait_until
from tests.faces import assert_equal, config
from tests.failover_ground import (
    Party,
    join,
    replace_killed,
    threads_in,
    total,
    until,
)

# --- reads after a promotion -----------------------------------------------------------


async def test_a_read_waits_for_what_another_process_replays(
    kind: str, durable: LocalCluster, prefix: str, unwatched: None
) -> None:
    """And it never gives None, nor what stood before, for what was acknowledged."""
    async with (
        join(kind, durable.url, key_prefix=prefix) as writer,
        join(kind, durable.url, key_prefix=prefix, replay_grace_s=1.0) as reader,
    ):
        new, grown, known = threads_in(durable, prefix, 0, 3)
        await writer.step(grown)
        await reader.step(known)
        await asyncio.to_thread(durable.hold_log, 0)
        await writer.step(grown, new)
        await asyncio.to_thread(durable.kill_primary, 0)
        await asyncio.to_thread(durable.wait_healthy)
        began_s = time.monotonic()
        reading = [asyncio.ensure_future(reader.face.aget_tuple(config(t))) for t in (new, grown)]
        await reader.twin.check(known)
        assert time.monotonic() - began_s < 0.5
        assert not any(each.done() for each in reading)
        await writer.face.call("recover")
        for thread, found in zip((new, grown), await asyncio.gather(*reading), strict=True):
            assert_equal(found, writer.twin.oracle.get_tuple(config(thread)))
        assert 1.0 <= time.monotonic() - began_s < 2.0
        began_s = time.monotonic()
        writer.twin.face = reader.face
        await writer.twin.check()
        assert time.monotonic() - began_s < 0.5


@pytest.mark.parametrize("kind", ["async"])
async def test_a_read_ends_where_nothing_can_be_replayed(
    kind: str, plain: LocalCluster, prefix: str, unwatched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new primary refuses writes: what it lacks must not pass for the thread."""
    monkeypatch.setattr(limits, "READ_DEADLINE_S", 0.5)
    async with join(kind, plain.url, key_prefix=prefix, reject_deadline_s=60) as party:
        [thread] = threads_in(plain, prefix, 0, 1)
        await party.step(thread)
        await asyncio.to_thread(plain.hold_replication, 0, 60_000)
        await party.step(thread)
        await asyncio.to_thread(plain.kill_primary, 0)
        await asyncio.to_thread(plain.wait_healthy)
        plain.reject_writes(0)
        began_s = time.monotonic()
        with pytest.raises(Unreachable, match="refuses writes"):
            await party.face.aget_tuple(config(thread))
        assert 0.5 <= time.monotonic() - began_s < 2
        plain.accept_writes(0)
        await party.twin.check()


# --- more than one of everything ----------------------------------------------------------


async def test_several_event_loops(durable: LocalCluster, prefix: str) -> None:
    """Loops side by side and one after another, and threads: each goes on after a crash."""
    async with join("async", durable.url, key_prefix=prefix) as party:
        others = [party.beside(kind) for kind in ("async", "async", "sync")]
        parties = [party, *others]
        threads = threads_in(durable, prefix, 0, len(parties))

        async def step_all() -> None:
            """Our own loop, and a new one for each of the others."""
            running = [
                asyncio.to_thread(asyncio.run, each.step(thread))
                for each, thread in zip(others, threads[1:], strict=True)
            ]
            await asyncio.gather(party.step(threads[0]), *running)

        await step_all()
        await asyncio.to_thread(durable.hold_log, 0)
        await step_all()
        await asyncio.to_thread(durable.kill_primary, 0)
        await asyncio.gather(step_all(), asyncio.to_thread(replace_killed, durable))
        await until(lambda: party.reports)
        assert total(party.reports, "replayed") == 2 * len(threads)
        for each in parties:
            await each.twin.check()
        assert len(party.reports) == 1


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_forked_child_keeps_a_journal_and_a_monitor_of_its_own(
    durable: LocalCluster, prefix: str
) -> None:
    """Parent and child lose writes in the same crash, and each gives back its own."""
    ours, theirs = threads_in(durable, prefix, 0, 2)
    party = Party("sync", durable.url, key_prefix=prefix, durability="async", lag_bound_s=1.0)
    asyncio.run(party.step(ours))
    durable.hold_log(0)
    asyncio.run(party.step(ours))
    told, tells = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = _child(party, theirs, tells)
        finally:
            os._exit(code)
    os.close(tells)
    try:
        assert os.read(told, 1) == b"w"
        durable.kill_primary(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert wait_until(lambda: bool(party.reports), 5.0)
        assert total(party.reports, "replayed") == 2
        asyncio.run(party.twin.check())
        assert party.saver.get_tuple(config(theirs)) is not None
    finally:
        os.close(told)
        party.saver.close(0)


def _child(party: Party, thread: str, tells: int) -> int:
    """What the child does; its exit code: 0 if all is as it should be."""
    inherited = party.saver.health()
    asyncio.run(party.step(thread))
    written = party.saver.health()
    os.write(tells, b"w")
    if not wait_until(lambda: bool(party.reports), 10.0):
        return 2
    [report] = party.reports
    if (inherited.journal_entries, written.journal_entries, report.replayed) != (0, 2, 2):
        return 3
    return 0 if report.rewound == (thread,) else 4
