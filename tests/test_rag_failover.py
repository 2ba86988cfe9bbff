"""Failovers, refusals and splits: nothing that was invalidated is served, and it comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from langgraph_valkey.local import LocalCluster
from rag_cache import InvalidationPending, Miss, Scope
from rag_cache.partitions import partition_of, recorded
from tests.failover_ground import until
from tests.rag_ground import Caches, Caller, caches_on

QUESTION = "how do i reset my password"


@pytest.fixture
def many(plain: LocalCluster, prefix: str, tmp_path: Path) -> Iterator[Caches]:
    """Caches on three shards with a replica each."""
    with caches_on(plain.url, prefix, tmp_path) as made:
        yield made


def scope_in(cluster: LocalCluster, prefix: str, shard: int, number: int = 0) -> Scope:
    """A scope whose partition lives in a shard."""
    for n in range(number * 1000, number * 1000 + 1000):
        scope = Scope(tenant=f"tenant {n}", corpus="handbook")
        home = partition_of(prefix, scope.corpus, scope.tenant, 0)
        if cluster.shard_of(home.versions) == shard:
            return scope
    raise AssertionError


def reason(call: Caller, question: str, scope: Scope) -> str:
    """Why it misses; "" if it hits."""
    found = call.cache.lookup(question, scope)
    return found.reason if isinstance(found, Miss) else ""


async def hit_again(call: Caller, question: str, scope: Scope, bound_s: float = 15) -> float:
    began_s = time.monotonic()
    while not await call("lookup", question, scope):
        assert time.monotonic() - began_s < bound_s, "it never served again"
        await asyncio.sleep(0.02)
    return time.monotonic() - began_s


async def test_an_invalidation_that_a_failover_lost_is_in_force(
    plain: LocalCluster, many: Caches, prefix: str, kind: str
) -> None:
    mine, other = Caller(many(), kind), Caller(many(), kind)
    for shard in range(3):
        scope = scope_in(plain, prefix, shard, shard)
        await mine("store", QUESTION, scope, "old", evidence={f"d{shard}": "1"})
        await mine("store", "another one", scope, "fine", evidence={"d9": "1"})
        for each in (mine, other):
            assert await each("lookup", QUESTION, scope)
        plain.hold_replication(shard, 20_000)
        await mine("invalidate", f"d{shard}", corpus="handbook")
        assert not await other("lookup", QUESTION, scope)
        plain.kill_primary(shard)
        plain.force_failover(shard)

        def lost(scope: Scope = scope) -> bool:
            home = partition_of(prefix, scope.corpus, scope.tenant, 0)
            fields = plain.primary(plain.shard_of(home.versions)).command("HKEYS", home.versions)
            assert isinstance(fields, list)
            return not any(isinstance(name, bytes) and name[:1] == b"m" for name in fields)

        assert shard > 0 or lost()
        ended_s = time.monotonic() + 15
        while not await mine("lookup", "another one", scope):
            for each in (mine, other):
                assert not await each("lookup", QUESTION, scope)
            assert time.monotonic() < ended_s
        for each in (mine, other):
            assert not await each("lookup", QUESTION, scope)
        await hit_again(other, "another one", scope)
        # A process that starts now knows nothing of the failover.
        late = Caller(many(), kind)
        assert not await late("lookup", QUESTION, scope)
        assert await late("lookup", "another one", scope)


async def test_a_late_writer_across_a_failover_is_refused(
    plain: LocalCluster, many: Caches, prefix: str, kind: str
) -> None:
    call, scope = Caller(many(), kind), scope_in(plain, prefix, 0)
    miss = await call("lookup", QUESTION, scope)
    plain.hold_replication(0, 20_000)
    await call("invalidate", "d1", corpus="handbook")
    plain.kill_primary(0)
    plain.force_failover(0)
    await until(lambda: reason(call, "other", scope) == "absent", 20)
    stored = await call("store", QUESTION, scope, "late", evidence={"d1": "1"}, fence=miss.fence)
    assert (stored.accepted, stored.reason) == (False, "stale")


async def test_a_primary_that_was_frozen_and_replaced_serves_nothing_stale(
    plain: LocalCluster, many: Caches, prefix: str
) -> None:
    """It wakes up and answers as if nothing had happened, to whoever still asks it."""
    call, scope = Caller(many(), "sync"), scope_in(plain, prefix, 1)
    stays = Caller(many(), "sync")
    await call("store", QUESTION, scope, "old", evidence={"d1": "1"})
    assert await stays("lookup", QUESTION, scope)
    plain.freeze_primary(1)
    plain.promote(1)
    await call("invalidate", "d1", corpus="handbook")
    plain.resume(1)
    for _ in range(100):
        assert not await stays("lookup", QUESTION, scope)
        assert not await call("lookup", QUESTION, scope)


async def test_a_primary_that_is_cut_off_serves_nothing_stale(
    plain: LocalCluster, many: Caches, prefix: str
) -> None:
    """It acknowledges whatever it is told, and is no primary any more."""
    scope = scope_in(plain, prefix, 2)
    call, stays = Caller(many(), "sync"), Caller(many(), "sync")
    await call("store", QUESTION, scope, "old", evidence={"d1": "1"})
    await call("store", "another one", scope, "fine")
    assert await stays("lookup", QUESTION, scope)
    plain.split_primary(2)
    fresh = Caller(many(), "sync")  # It finds the new primary.
    await fresh("invalidate", "d1", corpus="handbook")
    for _ in range(200):
        for each in (call, stays, fresh):
            assert not await each("lookup", QUESTION, scope)
    plain.heal(2)
    await hit_again(fresh, "another one", scope)


async def test_an_invalidation_that_is_rejected_makes_everyone_miss(
    plain: LocalCluster, many: Caches, prefix: str, kind: str
) -> None:
    scope = scope_in(plain, prefix, 0)
    call = Caller(many(invalidate_deadline_s=0.3), kind)
    other = Caller(many(), kind)
    await call("store", QUESTION, scope, "old", evidence={"d1": "1"})
    await call("store", "another one", scope, "fine", evidence={"d2": "1"})
    assert await other("lookup", QUESTION, scope)
    plain.reject_writes(0)
    with pytest.raises(InvalidationPending):
        await call("invalidate", "d1", corpus="handbook")
    assert (await call("lookup", QUESTION, scope)).reason == "pending"
    assert (await call("lookup", "another one", scope)).reason == "pending"
    await until(lambda: reason(other, "another one", scope) == "pending", 6)
    plain.accept_writes(0)
    for each in (call, other):
        await hit_again(each, "another one", scope)
        assert not await each("lookup", QUESTION, scope)


async def test_what_a_process_left_pending_another_one_finishes(
    plain: LocalCluster, many: Caches, prefix: str
) -> None:
    scope = scope_in(plain, prefix, 0)
    call, other = Caller(many(), "sync"), Caller(many(), "sync")
    await call("store", QUESTION, scope, "old", evidence={"d1": "1"})
    await call("store", "another one", scope, "fine")
    assert await other("lookup", QUESTION, scope)
    # The process dies between the primary store and the partition.
    await call.cache._blocking.primary.change_versions(recorded(prefix, "handbook"), {"d:d1": None})
    await call("close")
    await until(lambda: not other.cache.lookup(QUESTION, scope), 8)
    await hit_again(other, "another one", scope)
    assert not await other("lookup", QUESTION, scope)
