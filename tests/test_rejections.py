"""Writes that a cluster refuses: waited out in bounds, told, and nothing lost or half done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from langgraph_valkey.errors import WriteRejected
from langgraph_valkey.local import LocalCluster
from langgraph_valkey.loss_window.report import ShardHealth
from tests.faces import checkpoint, config, metadata, numbered_id
from tests.failover_ground import (
    FAST_MS,
    Party,
    join,
    mend,
    replace_killed,
    threads_in,
    until,
)

BOUND_S = 0.5
DEADLINE_S = 0.6
REFUSAL = {"reject_deadline_s": DEADLINE_S, "lag_bound_s": BOUND_S}


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalCluster]:
    with LocalCluster(durability="async", lag_bound_s=BOUND_S, node_timeout_ms=FAST_MS) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared: LocalCluster) -> Iterator[LocalCluster]:
    yield shared
    mend(shared)


def lagging(cluster: LocalCluster) -> Callable[[], None]:
    """CLUSTERDOWN, since the log stands still; returns what ends it."""
    cluster.hold_log(0)
    return lambda: cluster.release_log(0)


def deserted(cluster: LocalCluster) -> Callable[[], None]:
    """NOREPLICAS; returns what ends it."""
    cluster.reject_writes(0)
    return lambda: cluster.accept_writes(0)


def shard_of(party: Party) -> ShardHealth:
    """The shard of the threads that a test writes."""
    [shard] = party.saver.health().shards
    return shard


def attempts(party: Party, thread: str, new: str) -> dict[str, Callable[[], Any]]:
    """Each kind of write, of something that is not there yet; InMemorySaver never gets it."""
    parent = party.twin.oracle.get_tuple(config(thread))
    assert parent is not None
    made, versions = checkpoint(numbered_id(900), {"short": "no"}, parent=parent.checkpoint)
    face = party.face
    return {
        "put": lambda: face.aput(parent.config, made, metadata(9), versions),
        "first put": lambda: face.aput(config(new), made, metadata(9), versions),
        "write": lambda: face.aput_writes(parent.config, [("short", "no")], "refused task"),
        "delete": lambda: face.adelete_thread(thread),
        "prune": lambda: face.aprune([thread]),
    }


@pytest.mark.parametrize("refuse", [lagging, deserted])
async def test_refused_writes_end_and_leave_nothing(
    kind: str,
    refuse: Callable[[LocalCluster], Callable[[], None]],
    cluster: LocalCluster,
    prefix: str,
) -> None:
    """Each is tried until its deadline; reads go on; then all is as if it had not been."""
    # By heartbeats, or by a write for no other reason, it learns when that has ended.
    settings: dict[str, Any] = {"durability": "none" if refuse is deserted else "async", **REFUSAL}
    async with join(kind, cluster.url, key_prefix=prefix, **settings) as party:
        thread, new = threads_in(cluster, prefix, 0, 2)
        await party.step(thread, thread)
        assert shard_of(party).rejecting_s is None
        if refuse is deserted:
            await until(party.is_durable)
        accept = await asyncio.to_thread(refuse, cluster)
        await until(lambda: cluster.lag_s(0) > BOUND_S or refuse is deserted)
        calls = attempts(party, thread, new)
        before = party.saver.health().journal_entries
        began_s = time.monotonic()
        trying = [asyncio.ensure_future(call()) for call in calls.values()]
        await until(lambda: shard_of(party).rejecting_s is not None)
        await party.twin.check()
        assert not any(each.done() for each in trying)
        for error in await asyncio.gather(*trying, return_exceptions=True):
            assert isinstance(error, WriteRejected)
            assert DEADLINE_S <= error.rejected_s < DEADLINE_S + 1
            assert isinstance(error.__cause__, WriteRejected)
        assert DEADLINE_S <= time.monotonic() - began_s < DEADLINE_S + 1
        health = party.saver.health()
        assert health.shards[0].rejecting_s == pytest.approx(DEADLINE_S, abs=0.4)
        assert health.journal_entries == before
        assert await party.saver.await_durable(config(new), 0)
        accept()
        await until(lambda: shard_of(party).rejecting_s is None)
        await party.twin.check()
        await party.step(thread)
        await party.twin.check()
        assert await party.face.aget_tuple(config(new)) is None
        assert not party.reports


async def test_a_refusal_that_ends_in_time_is_not_noticed(
    kind: str, cluster: LocalCluster, prefix: str
) -> None:
    async with join(kind, cluster.url, key_prefix=prefix, reject_deadline_s=10) as party:
        [thread] = threads_in(cluster, prefix, 0, 1)
        await party.step(thread)
        cluster.reject_writes(0)
        stepping = asyncio.ensure_future(party.step(thread, thread))
        await until(lambda: (shard_of(party).rejecting_s or 0) > 0.3)
        assert not stepping.done()
        cluster.accept_writes(0)
        await stepping
        assert shard_of(party).rejecting_s is None
        await party.twin.check()


@pytest.mark.parametrize("kind", ["async"])
async def test_while_writes_are_refused_nothing_becomes_durable(
    kind: str, cluster: LocalCluster, prefix: str
) -> None:
    """However long it lasts; and a crash then loses nothing that was acknowledged."""
    async with join(kind, cluster.url, key_prefix=prefix, **REFUSAL) as party:
        [thread] = threads_in(cluster, prefix, 0, 1)
        await party.step(thread)
        await until(party.is_durable)
        await asyncio.to_thread(cluster.hold_log, 0)
        await party.step(thread)
        # Nobody calls: it is the monitor that finds out.
        await until(lambda: (shard_of(party).rejecting_s or 0) > 2 * BOUND_S)
        shard = shard_of(party)
        assert shard.journal_entries == 2
        assert shard.watermark_age_s is not None
        assert shard.watermark_age_s > 3 * BOUND_S
        cluster.kill_primary(0)
        await asyncio.to_thread(replace_killed, cluster)
        await until(lambda: party.reports)
        assert party.reports[0].replayed == 2
        assert shard_of(party).rejecting_s is None
        await party.twin.check()
