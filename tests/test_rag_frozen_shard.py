"""A frozen shard costs the others nothing; and what is raised all the same: misuse."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langgraph_valkey.breaker import FAILURES_MOST
from langgraph_valkey.local import LocalCluster
from rag_cache import Computed, Scope
from rag_cache.partitions import partition_of
from tests.failover_ground import until
from tests.rag_ground import SCOPE, Caches, Caller, caches_on

QUESTION = "how do i reset my password"
BRISK = {"lookup_deadline_ms": 100, "request_timeout_ms": 300, "connection_timeout_ms": 100}
"""Settings of caches that shall soon be done with a server that does not answer."""
SLOW_S = 20.0
"""What a lookup that waits for a server that never answers would take at least."""


@pytest.fixture
def frozen_shard() -> Iterator[LocalCluster]:
    """Three shards, of which the second one may be frozen."""
    with LocalCluster(shards=3, replicas=0) as cluster:
        yield cluster


async def test_a_frozen_shard_costs_the_others_nothing(
    frozen_shard: LocalCluster, prefix: str, tmp_path: Path, kind: str
) -> None:
    with caches_on(frozen_shard.url, prefix, tmp_path) as caches:
        call = Caller(caches(**BRISK), kind)
        scopes = [Scope(tenant=f"tenant {n}", corpus="handbook") for n in range(9)]
        shards = [
            frozen_shard.shard_of(partition_of(prefix, scope.corpus, scope.tenant, 0).versions)
            for scope in scopes
        ]
        assert set(shards) == {0, 1, 2}
        for scope in scopes:
            await until(lambda scope=scope: call.cache.store(QUESTION, scope, "x"))  # type: ignore[misc]
            assert await call("lookup", QUESTION, scope)
        frozen_shard.freeze_primary(1)
        came: Counter[tuple[bool, str]] = Counter()
        took_s = []
        for _ in range(40):
            for scope, shard in zip(scopes, shards, strict=True):
                began_s = time.monotonic()
                found = await call("lookup", QUESTION, scope)
                took_s.append(time.monotonic() - began_s)
                came[shard == 1, "" if found else found.reason] += 1
        frozen_shard.resume(1)
        healthy = sum(shard != 1 for shard in shards) * 40
        # A busy machine, or one call that is held up by another, may make some of them late.
        assert came[False, ""] >= 0.95 * healthy, came
        assert not came[False, "breaker_open"]
        assert not came[True, ""]
        assert came[True, "breaker_open"] > came[True, "slow"] > 0
        # They live in one place, and find out together: five slow ones, and a few trials.
        lost = [scope for scope, shard in zip(scopes, shards, strict=True) if shard == 1]
        waited = sum(n for (is_lost, why), n in came.items() if is_lost and why != "breaker_open")
        assert len(lost) > 1
        assert FAILURES_MOST <= waited < len(lost) * FAILURES_MOST
        assert max(took_s) < SLOW_S / 4
        for scope in lost:
            await until(lambda scope=scope: call.cache.lookup(QUESTION, scope), 15)  # type: ignore[misc]


def test_misuse_is_raised(caches: Caches) -> None:
    cache: Any = caches()
    for question, scope in ((7, SCOPE), ("", SCOPE), ("x", "acme")):
        with pytest.raises((TypeError, ValueError)):
            cache.lookup(question, scope)
        with pytest.raises((TypeError, ValueError)):
            cache.get_or_compute(question, scope, lambda: Computed("x"))
    assert cache.stats().lookups == 0
