"""Searches by a query where no mirror has room: by the server's search, or by walking."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.store.base import PutOp

from langgraph_valkey import limits
from langgraph_valkey.errors import Unreachable
from langgraph_valkey.glide.link import BlockingLink, LoopLink
from langgraph_valkey.items import calls
from langgraph_valkey.items.buckets import Buckets
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.vectors.index import IndexMissing
from tests.store_ground import StoreFace
from tests.store_oracle import DIMENSION, Counting, Oracle, seen

INDEX: Any = {"dims": DIMENSION, "embed": Counting(), "fields": ["a", "b[*]"]}
WORDS = ("red", "red green", "blue and", "and", "green green", "blue red and", "and and red", "")


class Ground:
    """A server with a search module, and stores on it that have no room for a mirror."""

    def __init__(self, server: LocalValkey, prefix: str, kind: str) -> None:
        self.server = server
        self.prefix = prefix
        self.kind = kind
        self.opened: list[StoreFace] = []
        self.oracle = Oracle(index=INDEX)
        self.asked: list[str] = []

    def store(self, **given: Any) -> StoreFace:
        settings = {"key_prefix": self.prefix, "protocol": 2, "index": INDEX, **given}
        self.opened.append(StoreFace(self.kind, self.server.url, **settings))
        return self.opened[-1]

    async def fill(self, store: StoreFace, count: int = 60) -> None:
        """Put items with one vector, with several, and with none; in several namespaces."""
        await self.put(store, [self.item(n) for n in range(count)])

    @staticmethod
    def item(n: int) -> PutOp:
        value: dict[str, Any] = {"n": n, "a": WORDS[n % len(WORDS)]}
        if n % 3 == 0:
            value["b"] = [WORDS[n % 5], WORDS[n % 7]]
        where = ("x", f"{n % 4}", *["deep"] * (n % 2)), f"k{n}", value
        return PutOp(*where, False) if n % 11 == 0 else PutOp(*where)

    async def put(self, store: StoreFace, puts: list[PutOp]) -> None:
        await store.batch(puts)
        self.oracle.batch(puts)

    async def check(self, store: StoreFace, prefix: tuple[str, ...], **given: Any) -> int:
        """Search as InMemoryStore does; how many results there are."""
        found = await store.search(prefix, **given)
        assert seen(found) == seen(self.oracle.search(prefix, **given))
        return len(found)

    def keys(self, pattern: str) -> list[bytes]:
        found = self.server.command("KEYS", f"{self.prefix}:store:{pattern}")
        assert isinstance(found, list)
        return [key for key in found if isinstance(key, bytes)]


@pytest.fixture
def ground(
    searching: LocalValkey, prefix: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ground]:
    monkeypatch.setattr(limits, "MIRROR_ROWS", 3)
    made = Ground(searching, prefix, kind)
    for link in (BlockingLink, LoopLink):
        monkeypatch.setattr(link, "nearest", spied(made.asked, "nearest", link.nearest))
    monkeypatch.setattr(calls, "news", spied(made.asked, "news", calls.news))
    yield made
    for face in made.opened:
        face.store.close(0)
    for name in searching.command("FT._LIST"):  # type: ignore[union-attr]
        searching.command("FT.DROPINDEX", name)  # type: ignore[arg-type]


def spied(asked: list[str], name: str, original: Any) -> Any:
    def call(*args: Any, **given: Any) -> Any:
        asked.append(name)
        return original(*args, **given)

    return call


async def ready(ground: Ground, store: StoreFace) -> None:
    """Have it find out that there is no room, and that the index is complete."""
    for _ in range(100):
        await store.search(("x",), query="red")
        ground.asked.clear()
        await store.search(("x",), query="red", limit=3)
        if set(ground.asked) == {"nearest"}:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"the index is not asked, but {set(ground.asked)}")


SEARCHES: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (("x",), {"query": "red"}),
    (("x", "1"), {"query": "green blue"}),
    (("x", "1", "deep"), {"query": "red", "limit": 4}),
    ((), {"query": "and and red", "limit": 7, "offset": 5}),
    (("x",), {"query": "blue", "filter": {"n": {"$gte": 20}}}),
    (("x",), {"query": "blue", "filter": {"n": 17}}),
    (("x",), {"query": "red", "limit": 200}),
    (("x",), {"query": "red", "limit": 0}),
    (("x", "none"), {"query": "red"}),
    (("x",), {"limit": 5}),
]


async def test_what_the_server_finds_is_what_in_memory_finds(ground: Ground) -> None:
    store = ground.store()
    await ground.fill(store)
    await ready(ground, store)
    other = ground.store()  # Another process.
    await ready(ground, other)
    for face in (store, other):
        for prefix, given in SEARCHES:
            await ground.check(face, prefix, **given)
    # And after changes: another text, no text, other vectors, a new item, deletions.
    await ground.put(
        store,
        [
            PutOp(("x", "1", "deep"), "k1", {"n": 1, "a": "red red red"}),
            PutOp(("x", "3", "deep"), "k3", {"n": 3, "a": "blue"}),
            PutOp(("x", "2"), "k2", {"n": 2, "a": "red"}, False),
            PutOp(("x", "1"), "new", {"n": -1, "b": ["red", "blue"]}),
            *(PutOp(each.namespace, each.key, None) for each in map(ground.item, range(6, 30, 4))),
        ],
    )
    for face in (store, other):
        for prefix, given in SEARCHES:
            await ground.check(face, prefix, **given)
    await ready(ground, other)


async def test_what_few_match_or_has_no_vectors_is_walked_for(ground: Ground) -> None:
    store = ground.store()
    await ground.fill(store)
    await ready(ground, store)
    assert await ground.check(store, ("x",), query="red", filter={"n": 17}) == 1
    assert ground.asked.count("nearest") >= 2
    assert "news" in ground.asked
    ground.asked.clear()
    assert await ground.check(store, ("x",), query="red", limit=60) == 60
    assert "news" in ground.asked


async def test_many_that_are_alike_come_in_their_order(ground: Ground) -> None:
    """More than are asked for at first; an update keeps its place, but not the server's."""
    store = ground.store()
    await ground.fill(store, 8)
    alike = [PutOp(("x", "y"), f"k{n}", {"n": n, "a": "red"}) for n in range(60)]
    await ground.put(store, alike)
    await ready(ground, store)
    await ground.put(store, alike[:30])
    for given in ({"limit": 5}, {"limit": 3, "offset": 25}, {"filter": {"n": {"$gt": 7}}}):
        assert await ground.check(store, ("x",), query="red", **given) == given.get("limit", 10)
    assert set(ground.asked) == {"nearest"}


async def test_vectors_end_with_their_items(ground: Ground) -> None:
    store = ground.store(ttl={"refresh_on_read": False})
    await ground.fill(store)
    await store.put(("x", "1"), "brief", {"a": "green green green"}, ttl=0.3 / 60)
    await ready(ground, store)
    for _ in range(1000):
        if not ground.keys("*:i:*brief"):
            break
        await asyncio.sleep(0.01)
    assert not ground.keys("w:*brief")
    await ground.check(store, ("x",), query="green")
    ground.asked.clear()
    await ground.check(store, ("x",), query="green", limit=3)
    assert ground.asked == ["nearest"]


async def test_a_read_puts_off_the_end_of_vectors_too(ground: Ground) -> None:
    store = ground.store(ttl={"refresh_on_read": True})
    await store.put(("x",), "k", {"a": "red", "b": ["blue", "green"]}, ttl=1)
    vectors = ground.keys("w:*k")
    assert len(vectors) == 3
    for key in (*vectors, *ground.keys("*:i:*k")):
        ground.server.command("PEXPIRE", key, 20_000)
    await store.get(("x",), "k")
    for key in (*vectors, *ground.keys("*:i:*k")):
        left_ms = ground.server.command("PTTL", key)
        assert isinstance(left_ms, int)
        assert left_ms > 30_000
    await store.put(("x",), "k", {"a": "red"})
    assert len(ground.keys("w:*k")) == 1
    assert [ground.server.command("PTTL", key) for key in ground.keys("w:*k")] == [-1]
    await store.delete(("x",), "k")
    assert ground.keys("w:*") == []


async def test_a_bucket_of_which_the_search_sees_a_part_is_walked_over(ground: Ground) -> None:
    store = ground.store()
    await ground.fill(store)
    await ready(ground, store)
    unseen = ground.store(server_index=False)
    await ground.put(unseen, [PutOp(("x", "1"), "unseen", {"a": "red red"})])
    assert ground.keys("w:*unseen") == []
    ground.asked.clear()
    assert await ground.check(store, ("x",), query="red", limit=3) == 3
    assert set(ground.asked) == {"news"}


async def test_another_primary_in_between_counts_for_nothing(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ground.store()
    await ground.fill(store)
    await ready(ground, store)
    read = Buckets.read
    times = 0

    async def other(self: Buckets, link: Any, asked: Any) -> Any:
        nonlocal times
        answers = await read(self, link, asked)
        if asked[0][1].script.name == "seek":
            times += 1
            answers[3] = answers[3]._replace(identity=b"%040d" % times)
        return answers

    monkeypatch.setattr(Buckets, "read", other)
    ground.asked.clear()
    assert await ground.check(store, ("x",), query="red", limit=3) == 3
    assert set(ground.asked) == {"nearest", "news"}


@pytest.mark.parametrize("failure", [IndexMissing("gone"), Unreachable("a shard is away")])
async def test_an_index_that_fails_is_done_without(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    store = ground.store()
    await ground.fill(store)
    await ready(ground, store)

    async def away(*_: Any) -> Any:
        raise failure

    for link in (BlockingLink, LoopLink):
        monkeypatch.setattr(link, "nearest", away)
    assert await ground.check(store, ("x",), query="red", limit=3) == 3


async def test_replayed_items_bring_their_vectors(ground: Ground) -> None:
    store = ground.store(durability="async")
    await ground.fill(store)
    await ready(ground, store)
    for key in ground.keys("*"):
        ground.server.command("DEL", key)
    assert (await store.recover()).replayed == 60
    ground.asked.clear()
    assert await ground.check(store, ("x",), query="red", limit=3) == 3
    assert ground.asked == ["nearest"]


async def test_encrypted_vectors_are_not_put_where_the_search_sees_them(ground: Ground) -> None:
    class Cipher:
        """Not one, but told by its name."""

        def encrypt(self, plain: bytes) -> tuple[str, bytes]:
            return "flip", bytes(each ^ 1 for each in plain)

        def decrypt(self, name: str, hidden: bytes) -> bytes:
            return bytes(each ^ 1 for each in hidden)

    serde = EncryptedSerializer(Cipher(), JsonPlusSerializer())
    store = ground.store(serde=serde, digest_key=os.urandom(32))
    await ground.fill(store, 10)
    assert ground.keys("w:*") == []
    assert await ground.check(store, ("x",), query="red", limit=3) == 3


async def test_without_a_module_vectors_are_kept_once(
    valkey: LocalValkey, prefix: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MIRROR_ROWS", 3)
    ground = Ground(valkey, prefix, kind)
    store = ground.store()
    try:
        await ground.fill(store, 30)
        assert ground.keys("w:*") == []
        for search, given in SEARCHES:
            await ground.check(store, search, **given)
    finally:
        await store.store.aclose(0)
