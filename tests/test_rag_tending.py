"""Looking after standings: what one partition's trouble must not do to the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langgraph_valkey.link import finish
from langgraph_valkey.local import LocalCluster, LocalValkey
from langgraph_valkey.local.proxy import RejectingProxy
from langgraph_valkey.primary.versions import PartitionKey
from rag_cache import Hit, InvalidationPending, Miss, Scope, SemanticCache
from rag_cache.freshness import verifying
from rag_cache.freshness.standings import STANDING_S, WAKE_S, Standings
from rag_cache.freshness.verifying import complete, enter
from rag_cache.partitions import Partition, partition_of, recorded
from tests.failover_ground import until
from tests.rag_ground import SCOPE, Caches, caches_on

QUESTION = "how do i reset my password"
MANY = 10


@pytest.fixture
def sharded(three_shards: LocalCluster, prefix: str, tmp_path: Path) -> Iterator[Caches]:
    """Caches on three shards, whose lookups take their time."""
    with caches_on(three_shards.url, prefix, tmp_path) as made:
        yield made


def home_of(prefix: str, scope: Scope) -> Partition:
    return partition_of(prefix, scope.corpus, scope.tenant, 0)


def scopes_in(cluster: LocalCluster, prefix: str, shard: int, count: int) -> list[Scope]:
    """Scopes whose partitions live in a shard."""
    scopes = (Scope(tenant=f"tenant {n}", corpus="handbook") for n in range(1000))
    found = (s for s in scopes if cluster.shard_of(home_of(prefix, s).versions) == shard)
    return [next(found) for _ in range(count)]


def replace_primary(cluster: LocalCluster, shard: int) -> None:
    """What a failover does to what the primary calls itself, and nothing else."""
    cluster.primary(shard).command("DEBUG", "CHANGE-REPL-ID")


def fill(cache: SemanticCache, scopes: list[Scope]) -> None:
    for scope in scopes:
        assert cache.store(QUESTION, scope, "x", evidence={"d1": "1"})
        assert cache.store("another one", scope, "fine", evidence={"d2": "1"})
        assert cache.lookup(QUESTION, scope)


async def test_a_failover_of_many_partitions_is_one_wait_and_no_other_shards_matter(
    sharded: Caches, three_shards: LocalCluster, prefix: str
) -> None:
    cache = sharded(lookup_deadline_ms=2000)
    lost = scopes_in(three_shards, prefix, 0, MANY)
    [kept] = scopes_in(three_shards, prefix, 1, 1)
    fill(cache, [*lost, kept])
    replace_primary(three_shards, 0)
    began_s = time.monotonic()
    waiting = list(lost)
    others: list[Hit | Miss] = []
    while waiting:
        waiting = [scope for scope in waiting if not cache.lookup(QUESTION, scope)]
        others.append(cache.lookup(QUESTION, kept))
        assert time.monotonic() - began_s < 4 * STANDING_S, f"{len(waiting)} still wait"
        await asyncio.sleep(0.01)
    assert time.monotonic() - began_s > STANDING_S * 0.9, "no process had time to stop"
    assert all(others)


def test_an_invalidation_after_a_failover_waits_once(
    sharded: Caches, three_shards: LocalCluster, prefix: str
) -> None:
    cache = sharded(lookup_deadline_ms=2000, invalidate_deadline_s=60)
    scopes = scopes_in(three_shards, prefix, 2, MANY)
    fill(cache, scopes)
    replace_primary(three_shards, 2)
    began_s = time.monotonic()
    cache.invalidate("d1", corpus="handbook")
    assert time.monotonic() - began_s < 4 * STANDING_S
    assert not any(cache.lookup(QUESTION, scope) for scope in scopes)


async def test_what_was_given_up_stays_pending_until_it_is_written(
    prefix: str, tmp_path: Path
) -> None:
    """Not only at once: standings are renewed while the change is young."""
    with (
        LocalValkey() as valkey,
        RejectingProxy(valkey) as proxy,
        caches_on(proxy.url, prefix, tmp_path) as caches,
    ):
        cache = caches(lookup_deadline_ms=2000, invalidate_deadline_s=0)
        fill(cache, [SCOPE])
        proxy.reject()
        with pytest.raises(InvalidationPending):
            cache.invalidate("d1", corpus=SCOPE.corpus)
        began_s = time.monotonic()
        while time.monotonic() - began_s < 1.5:
            found = cache.lookup("another one", SCOPE)
            assert isinstance(found, Miss)
            assert found.reason == "pending"
            await asyncio.sleep(0.005)
        # Others' changes that come and go don't keep it pending.
        proxy.accept()
        await until(lambda: cache.lookup("another one", SCOPE))
        assert not cache.lookup(QUESTION, SCOPE)


async def test_a_change_that_can_not_be_written_holds_up_no_other_one(
    caches: Caches, valkey: LocalValkey, prefix: str
) -> None:
    cache = caches(lookup_deadline_ms=2000)
    broken, whole = Scope(tenant="t", corpus="broken"), Scope(tenant="t", corpus="whole")
    fill(cache, [broken, whole])
    versions = home_of(prefix, broken).versions
    valkey.command("DEL", versions)
    valkey.command("SET", versions, "no hash")
    store: Any = cache._blocking.primary
    for corpus in ("broken", "whole"):
        finish(store.change_versions(recorded(prefix, corpus), {"d:d1": None}))

    def pending(scope: Scope) -> bool:
        [standing] = finish(store.standing([home_of(prefix, scope).name]))
        return standing.pending_s is not None

    await until(lambda: not pending(whole) or None)
    assert not cache.lookup(QUESTION, whole)
    assert pending(broken)
    with pytest.raises(InvalidationPending):
        SemanticCache.invalidate(caches(invalidate_deadline_s=0), "d2", corpus="broken")
    valkey.command("DEL", versions)
    await until(lambda: not pending(broken) or None)
    await until(lambda: isinstance(cache.lookup(QUESTION, broken), Miss))


class Evicting:
    """A link on whose server a key is evicted after some calls."""

    def __init__(self, link: Any, valkey: LocalValkey, key: bytes, after: int) -> None:
        self._link = link
        self._valkey, self._key = valkey, key
        self._left = after

    async def send(self, requests: Any) -> Any:
        replies = await self._link.send(requests)
        self._left -= 1
        if not self._left:
            self._valkey.command("DEL", self._key)
        return replies

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)


@pytest.mark.parametrize("after", range(1, 6))
def test_a_copy_that_is_evicted_half_way_does_not_count(
    after: int, caches: Caches, valkey: LocalValkey, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the entering, the token, each of two pages, and the end."""
    cache = caches(lookup_deadline_ms=2000)
    assert cache.store(QUESTION, SCOPE, "old", evidence={"d1": "1", "d2": "1", "d3": "1"})
    cache.invalidate({"d1": None, "d2": None, "d3": None}, corpus=SCOPE.corpus)
    cache.close()
    monkeypatch.setattr(verifying, "PAGE", 2)
    other = caches(lookup_deadline_ms=2000)
    home, face = home_of(prefix, SCOPE), other._blocking
    valkey.command("DEL", home.versions)
    link: Any = Evicting(face.writes, valkey, home.versions, after)
    successor = finish(enter(face.primary, link, home))
    assert successor is not None
    is_whole = finish(complete(face.primary, link, successor))
    assert is_whole == (after in (1, 5))
    assert valkey.command("HEXISTS", home.versions, "v") == (after == 1)
    assert not other.lookup(QUESTION, SCOPE)


KEY = PartitionKey("handbook", "acme", 0)


def test_a_busy_process_does_not_ask_for_a_standing_with_every_lookup() -> None:
    wakes: list[float] = []
    now_s = [0.0]
    standings = Standings(lambda: wakes.append(now_s[0]))
    for step in range(1000):
        now_s[0] = step / 1000
        assert standings.identity(KEY, now_s[0]) is None
    assert len(wakes) == pytest.approx(1 / WAKE_S, abs=1)
    # One that was never used before may come at once.
    assert standings.identity(PartitionKey("handbook", "other", 0), now_s[0]) is None
    assert wakes[-1] == now_s[0]
    for _ in range(9):
        standings.doubt(KEY)
    assert len(wakes) == pytest.approx(1 / WAKE_S + 2, abs=1)


def test_what_was_asked_before_a_withdrawal_does_not_undo_it() -> None:
    standings = Standings(lambda: None)
    assert standings.identity(KEY, 0.0) is None
    before = standings.withdrawals()
    standings.confirm(KEY, "a", 0.0, before)
    assert standings.identity(KEY, 0.1) == "a"
    standings.withdraw(KEY)
    standings.confirm(KEY, "a", 0.1, before)
    assert standings.identity(KEY, 0.2) is None
    assert standings.why(KEY) == "pending"
    standings.confirm(KEY, "a", 0.2, standings.withdrawals())
    assert standings.identity(KEY, 0.3) == "a"


def test_a_withdrawal_ends_when_all_that_is_pending_is_younger() -> None:
    standings = Standings(lambda: None)
    assert standings.identity(KEY, 0.0) is None
    assert not standings.waits_for(KEY, begun_s=0.0)
    standings.withdraw(KEY)  # By who has made the change, and does not say when.
    assert standings.waits_for(KEY, begun_s=7.0)
    standings.withdraw(KEY, 7.5)
    assert standings.waits_for(KEY, begun_s=7.5)
    assert not standings.waits_for(KEY, begun_s=7.6)
    standings.withdraw(KEY, 7.9)
    assert not standings.waits_for(KEY, begun_s=7.6)
    standings.withdraw(KEY)  # Another one, made since.
    assert standings.waits_for(KEY, begun_s=8.0)
