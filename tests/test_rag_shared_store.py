"""Several caches on one primary store: each settles its own changes, and no other's."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from langgraph_valkey.link import finish
from langgraph_valkey.local import LocalValkey
from rag_cache import CacheSettings, InvalidationPending, Miss, SemanticCache
from rag_cache.freshness import tending
from rag_cache.partitions import partition_named, partition_of, recorded
from tests.failover_ground import until
from tests.rag_ground import SCOPE, Caches, caches_on

QUESTION = "how do i reset my password"
ANOTHER = "what are your opening hours"


async def fill(cache: SemanticCache) -> None:
    """Store two entries, of different documents."""
    for question, document in ((QUESTION, "d1"), (ANOTHER, "d2")):

        def stored(question: str = question, document: str = document) -> bool:
            return bool(cache.store(question, SCOPE, "x", evidence={document: "1"}))

        await until(stored)


async def test_a_cache_does_not_settle_what_another_one_left_pending(
    caches: Caches, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can tell the partitions under its own prefix only: the other's would stay stale."""
    monkeypatch.setattr(tending, "PENDING_S", 0.05)
    mine, others = caches(), caches(key_prefix=f"{prefix}-2")
    for cache in (mine, others):
        await fill(cache)
    # The other cache's process dies between the primary store and the partition.
    others.close()
    for corpus in {recorded(f"{prefix}-2", SCOPE.corpus), recorded(prefix, SCOPE.corpus)}:
        finish(mine._blocking.primary.change_versions(corpus, {"d:d1": None}))
    await until(lambda: isinstance(mine.lookup(QUESTION, SCOPE), Miss))
    await until(lambda: mine.lookup(ANOTHER, SCOPE))
    assert not mine.lookup(QUESTION, SCOPE)
    late = caches(key_prefix=f"{prefix}-2")
    assert not late.lookup(QUESTION, SCOPE)
    await until(lambda: late.lookup(ANOTHER, SCOPE))
    assert not late.lookup(QUESTION, SCOPE)


async def test_each_cache_is_told_what_it_is_told(caches: Caches, prefix: str) -> None:
    mine, others = caches(), caches(key_prefix=f"{prefix}-2")
    for cache in (mine, others):
        await fill(cache)
    mine.invalidate("d1", corpus=SCOPE.corpus)
    assert not mine.lookup(QUESTION, SCOPE)
    assert others.lookup(QUESTION, SCOPE)
    others.invalidate("d1", corpus=SCOPE.corpus)
    assert not others.lookup(QUESTION, SCOPE)


@pytest.mark.parametrize("corpus", ["handbook", "", "a|b", "é\0"])
def test_a_partition_is_found_by_what_the_primary_store_calls_it(corpus: str) -> None:
    partition = partition_of("rag", corpus, "acme", 3)
    assert partition_named("rag", partition.name) is partition
    with pytest.raises(ValueError, match="another key_prefix"):
        partition_named("rag-2", partition.name)


def test_no_prefix_has_the_character_that_ends_it() -> None:
    """Else a corpus of one prefix could be called as one of another prefix is."""
    assert recorded("a", "b|c") == recorded("a|b", "c")
    with pytest.raises(ValueError, match="key_prefix"):
        CacheSettings(key_prefix="a|b")


async def test_two_clusters_under_one_prefix_are_told_apart_and_said_so(
    caches: Caches,
    prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The one that came last counts; the other one serves nothing, and says why."""
    monkeypatch.setattr(tending, "REPLACED_S", 0.2)
    first = caches(invalidate_deadline_s=0)
    await fill(first)
    with LocalValkey() as elsewhere, caches_on(elsewhere.url, prefix, tmp_path) as there:
        second = there()
        await fill(second)
        with caplog.at_level(logging.WARNING, "langgraph_valkey"):
            await until(
                lambda: (
                    isinstance(first.lookup(QUESTION, SCOPE), Miss)
                    and "another cluster" in caplog.text
                )
            )
        with pytest.raises(InvalidationPending) as caught:
            first.invalidate("d1", corpus=SCOPE.corpus)
        assert "key_prefix" in str(caught.value.__cause__)
        await until(lambda: not second.lookup(QUESTION, SCOPE))
        for cache in (first, second):
            assert not cache.lookup(QUESTION, SCOPE)
