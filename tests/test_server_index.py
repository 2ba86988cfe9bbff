"""The server's own search: what it finds is served as if this process had found it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langgraph_valkey.errors import Unreachable
from langgraph_valkey.glide.link import LoopLink
from langgraph_valkey.link import finish
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.vectors.index import INDEXES_MOST, Index, IndexMissing, Nearest
from rag_cache import Scope, SemanticCache, server_index
from tests.failover_ground import until
from tests.link_ground import links
from tests.rag_ground import SCOPE, Bag, Caches, Caller, caches_on

MANY = 60
"""Entries: more than a reply tells of news to a process that has no room."""


@pytest.fixture
def searched(searching: LocalValkey, prefix: str, tmp_path: Path) -> Iterator[Caches]:
    """Caches on a server with a search module; their indexes are gone at the end."""
    with caches_on(searching.url, prefix, tmp_path) as made:
        yield made
    for name in indexes(searching):
        searching.command("FT.DROPINDEX", name)


def indexes(server: LocalValkey) -> set[str]:
    found = server.command("FT._LIST")
    assert isinstance(found, list)
    return {name.decode() for name in found if isinstance(name, bytes)}


def question(n: int) -> str:
    return f"what is known about subject{n} number{n * 7}"


def same(n: int) -> str:
    return f"number{n * 7} subject{n} about known is what"


async def ready(cache: SemanticCache) -> None:
    """Wait until lookups may ask the index; in another scope, so that none is learned."""
    cache.lookup("anything", Scope(tenant="nobody's"))
    await until(lambda: cache._index.is_ready)


def small(caches: Caches, **given: Any) -> SemanticCache:
    """A cache whose process has no room to know a scope."""
    return caches(rows_most=1, protocol=2, **given)


async def filled(caches: Caches, kind: str, scope: Scope = SCOPE, count: int = MANY) -> Caller:
    call = Caller(caches(protocol=2), kind)
    for n in range(count):
        assert await call("store", question(n), scope, n, evidence={f"d{n}": "1"})
    return call


async def test_who_does_not_know_the_scope_finds_it_by_the_index(
    searched: Caches, kind: str
) -> None:
    await filled(searched, kind)
    call = Caller(small(searched), kind)
    await ready(call.cache)
    for n in (0, 17, MANY - 1):
        hit = await call("lookup", same(n), SCOPE)
        assert hit, hit.reason
        assert (hit.value, hit.tier, hit.question) == (n, "server", question(n))
        assert hit.score > 0.99
    assert (await call("lookup", "something else", SCOPE)).reason == "below_threshold"
    assert (await call("lookup", question(3), SCOPE)).tier == "exact"
    assert call.cache.stats().hits == {"server": 3, "exact": 1}


async def test_nothing_crosses_scopes_in_a_shared_index(searched: Caches, kind: str) -> None:
    await filled(searched, kind)
    for other in (
        Scope(tenant="other", corpus="handbook"),
        Scope(tenant="acme", corpus="handbook", model="m"),
    ):
        await filled(searched, kind, other, 40)
        call = Caller(small(searched), kind)
        await ready(call.cache)
        assert (await call("lookup", same(50), other)).reason == "below_threshold"
        assert (await call("lookup", same(7), other)).value == 7


async def test_what_changed_is_not_served_from_an_index(searched: Caches, kind: str) -> None:
    writer = await filled(searched, kind)
    await writer("store", f"{question(5)} please", SCOPE, "second", evidence={"e": "1"})
    call = Caller(small(searched), kind)
    await ready(call.cache)
    assert (await call("lookup", same(5), SCOPE)).value == 5
    await writer("invalidate", "d5", corpus="handbook")
    assert (await call("lookup", same(5), SCOPE)).value == "second"
    await writer("invalidate", "e", corpus="handbook")
    assert (await call("lookup", same(5), SCOPE)).reason == "stale"


async def test_an_index_is_made_once_and_holds_entries_alone(
    searched: Caches, searching: LocalValkey, prefix: str
) -> None:
    one, other = small(searched), small(searched)
    for cache in (one, other):
        await ready(cache)
    assert indexes(searching) == {f"{prefix}-2048"}
    await filled(searched, "sync", count=5)
    info = searching.command("FT.INFO", f"{prefix}-2048")
    assert isinstance(info, list)
    assert info[info.index(b"num_docs") + 1] in (5, b"5")


async def test_a_large_scope_gets_an_index_of_its_own(
    searched: Caches, searching: LocalValkey, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_index, "LARGE", 50)
    writer = await filled(searched, "sync")
    await filled(searched, "sync", Scope(tenant="small"), 10)
    within = writer.cache._answers.asking(writer.cache._blocking, "x", SCOPE, None).within
    own = f"{prefix}-2048-{within.key[:8]}"
    await until(lambda: own in writer.cache._index._complete)
    assert indexes(searching) == {f"{prefix}-2048", own}
    # A process that only reads learns of it from the server.
    call = Caller(small(searched), "sync")
    await ready(call.cache)
    assert own in call.cache._index._complete
    asked = []
    link = call.cache._blocking.finder._link
    original = link.nearest

    async def nearest(query: Nearest) -> Any:
        asked.append((query.index, query.tag))
        return await original(query)

    monkeypatch.setattr(link, "nearest", nearest)
    assert (await call("lookup", same(9), SCOPE)).value == 9
    assert asked == [(own, None)]


async def test_a_full_server_gets_no_more_indexes(
    searched: Caches, searching: LocalValkey, kind: str
) -> None:
    with links(searching.url, protocol=2) as (blocking, _):
        for n in range(INDEXES_MOST):
            finish(blocking.create_index(Index(f"another's {n}", f"another{n}:", 4)))
    await filled(searched, kind)
    call = Caller(small(searched), kind)
    await until(lambda: call.cache._index._look_s > 0 or not call.cache.lookup("x", SCOPE))
    assert len(indexes(searching)) == INDEXES_MOST
    assert not call.cache._index.is_ready
    hit = await call("lookup", same(9), SCOPE)
    assert (hit.value, hit.tier) == (9, "process")


async def test_an_index_that_vanished_is_made_again(
    searched: Caches, searching: LocalValkey, prefix: str, kind: str
) -> None:
    await filled(searched, kind)
    call = Caller(small(searched), kind)
    await ready(call.cache)
    assert (await call("lookup", same(5), SCOPE)).tier == "server"
    searching.command("FT.DROPINDEX", f"{prefix}-2048")
    assert (await call("lookup", same(5), SCOPE)).reason == "warming"
    await until(lambda: call.cache._index.is_ready)
    assert (await call("lookup", same(5), SCOPE)).tier == "server"


async def test_an_index_that_fails_is_left_alone_and_costs_a_miss(
    searched: Caches, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(searched, kind)
    call = Caller(small(searched), kind)
    await ready(call.cache)
    asked = []

    async def away(query: Nearest) -> Any:
        asked.append(query)
        raise Unreachable("a shard does not answer")

    for face in (call.cache._blocking, call.cache._loops):
        monkeypatch.setattr(face.finder._link, "nearest", away)
    reasons = {(await call("lookup", same(5), SCOPE)).reason for _ in range(20)}
    assert reasons == {"warming"}
    assert len(asked) < 10  # The breaker opened,
    assert await call("lookup", question(5), SCOPE)  # but not for what needs no index.


async def test_a_lookup_walks_over_no_keys(searched: Caches, searching: LocalValkey) -> None:
    await filled(searched, "sync")
    call = Caller(small(searched), "sync")
    await ready(call.cache)
    searching.command("CONFIG", "RESETSTAT")
    for n in range(20):
        assert await call("lookup", same(n), SCOPE)
        await call("lookup", f"nothing like {n}", SCOPE)
    stats = searching.command("INFO", "commandstats")
    assert isinstance(stats, bytes)
    used = {line.partition(b":")[0][8:].decode() for line in stats.splitlines() if b":" in line}
    allowed = {"evalsha_ro", "evalsha", "FT.SEARCH", "ft.search", "info", "config|resetstat"}
    allowed |= {"hmget", "zrangebyscore", "hget", "zcard", "FT._LIST", "FT.INFO", "command|info"}
    assert used - allowed == set()


async def test_without_a_module_the_scope_is_learned_first(caches: Caches, kind: str) -> None:
    writer = Caller(caches(), kind)
    for n in range(MANY):
        await writer("store", question(n), SCOPE, n)
    call = Caller(small(caches), kind)
    hit = await call("lookup", same(50), SCOPE)
    assert (hit.value, hit.tier) == (50, "process")
    call.cache.tend()
    assert not call.cache._index.is_ready


async def test_part_of_a_scope_is_not_served_from(
    caches: Caches, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best entry, or a guard's neighbours, may be in the part that is not known yet."""
    writer = Caller(caches(), kind)
    for n in range(MANY):
        await writer("store", question(n), SCOPE, n)
    monkeypatch.setattr("rag_cache.lookup.NEWS_WARMING", 20)
    call = Caller(caches(), kind)
    assert await call("lookup", question(1), SCOPE)
    finder = (call.cache._blocking if kind == "sync" else call.cache._loops).finder
    monkeypatch.setattr(finder, "_has_time", lambda _: False)
    assert (await call("lookup", same(1), SCOPE)).reason == "warming"
    monkeypatch.undo()
    assert (await call("lookup", same(1), SCOPE)).value == 1


# --- the link ----------------------------------------------------------------------


async def test_links_find_the_nearest(searching: LocalValkey, prefix: str) -> None:
    draw = np.random.default_rng(5)
    rows = draw.normal(size=(200, 16)).astype("<f4")
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    with links(searching.url, protocol=2) as (blocking, loop):
        tagged, own = f"{prefix}-t", f"{prefix}-o"
        finish(blocking.create_index(Index(tagged, f"{prefix}:e:", 16)))
        finish(blocking.create_index(Index(own, f"{prefix}:e:aa:", 16, of_one_set=True)))
        for n, row in enumerate(rows):
            group = "aa" if n % 2 else "bb"
            key = f"{prefix}:e:{group}:{{x}}:{n}"
            searching.command("HSET", key, "s", group, "v", row.tobytes())
        query = draw.normal(size=16).astype("<f4")
        scores = rows @ (query / np.linalg.norm(query))
        for group in ("aa", "bb"):
            mine = [n for n in np.argsort(-scores) if (n % 2 == 1) == (group == "aa")][:15]
            asked = Nearest(tagged, query.tobytes(), 15, tag=group)
            for found in (finish(blocking.nearest(asked)), await loop.nearest(asked)):
                assert [int(key.rpartition(b":")[2]) for key, _ in found] == mine
                assert np.allclose([score for _, score in found], scores[mine], atol=1e-5)
        asked = Nearest(own, query.tobytes(), 15)
        assert len(finish(blocking.nearest(asked))) == 15
        assert finish(blocking.is_built(tagged))
        assert {tagged, own} <= (finish(blocking.indexes()) or set())
        for name in (tagged, own):
            searching.command("FT.DROPINDEX", name)
        with pytest.raises(IndexMissing):
            finish(blocking.nearest(asked))
        with pytest.raises(IndexMissing):
            await loop.nearest(asked)


async def test_a_server_without_a_module_has_no_indexes(
    valkey: LocalValkey, capfd: pytest.CaptureFixture[str]
) -> None:
    with links(valkey.url) as (blocking, _):
        assert finish(blocking.indexes()) is None
    assert "unknown command" not in capfd.readouterr().err


def test_a_link_can_be_asked_from_another_loop(searching: LocalValkey, prefix: str) -> None:
    with links(searching.url, protocol=2) as (blocking, loop):
        finish(blocking.create_index(Index(prefix, f"{prefix}:", 4)))
        asked = Nearest(prefix, np.ones(4, "<f4").tobytes(), 3, tag="x")

        async def ask(link: LoopLink) -> list[Any]:
            return await link.nearest(asked)

        assert [asyncio.run(ask(loop)) for _ in range(3)] == [[], [], []]
        searching.command("FT.DROPINDEX", prefix)


def test_an_embedder_of_another_dimension_has_an_index_of_its_own(searched: Caches) -> None:
    class Short(Bag):
        id = "short"
        dimension = 8

        def embed_query(self, text: str) -> list[float]:
            return [1.0] * 8

    one, other = small(searched), small(searched, embedder=Short())
    assert one._index._shared() != other._index._shared()
