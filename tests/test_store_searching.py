"""Searches and listings over real buckets: what is asked, and what comes of the answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from langgraph.store.base import ListNamespacesOp, SearchOp

from langgraph_valkey import limits
from langgraph_valkey.errors import CorruptState, Unreachable, WriteRejected
from langgraph_valkey.glide.link import BlockingLink
from langgraph_valkey.items import listing, telling
from langgraph_valkey.items.listing import Lister
from langgraph_valkey.items.mirror import Mirrors
from langgraph_valkey.items.searching import Searcher, wanted
from langgraph_valkey.link import finish
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.operations import Answer
from tests.link_ground import links
from tests.store_buckets import BUCKETS, PlainBuckets

Items = dict[tuple[tuple[str, ...], str], Any]
DIMENSION = 4


@pytest.fixture
def link(valkey: LocalValkey) -> Iterator[BlockingLink]:
    with links(valkey.url) as (blocking, _):
        yield blocking


@pytest.fixture
def buckets(prefix: str) -> PlainBuckets:
    return PlainBuckets(prefix)


class Searching:
    """A process that searches."""

    def __init__(self, buckets: PlainBuckets, link: BlockingLink, **bounds: int) -> None:
        bounds = {"rows_most": 10_000, "bytes_most": 10**9, **bounds}
        self.mirrors = Mirrors(DIMENSION, **bounds)
        self.searcher = Searcher(buckets, self.mirrors)
        self._link = link

    def __call__(self, *prefix: str, query: Any = None, **given: Any) -> list[str]:
        search = wanted(SearchOp(prefix, **{"limit": 10_000, **given}))
        if query is not None:
            search = search._replace(query=np.array(query, "<f4"))
        [found] = finish(self.searcher.search(self._link, [search]))
        assert len(found.heard) == BUCKETS
        return [hit.record.key for hit in found.hits]


@pytest.fixture
def search(buckets: PlainBuckets, link: BlockingLink) -> Searching:
    return Searching(buckets, link)


def many(count: int, *, start: int = 0, namespaces: int = 1) -> Items:
    return {(("a", str(n % namespaces)), f"k{n}"): {"n": n} for n in range(start, start + count)}


def test_a_search_of_what_is_known_takes_one_round_trip(
    buckets: PlainBuckets, link: BlockingLink, search: Searching
) -> None:
    buckets.put(link, many(20, namespaces=5))
    assert len(search("a")) == 20
    buckets.rounds.clear()
    buckets.put(link, {(("a", "1"), "new"): {"n": 1}, (("a", "2"), "k2"): None})
    found = search("a", filter={"n": 1})
    assert found == ["k1", "new"]
    assert "k2" not in search("a")
    assert buckets.rounds == [["news"] * BUCKETS] * 2


def test_a_prefix_holds_what_is_beneath_it_and_nothing_else(
    buckets: PlainBuckets, link: BlockingLink, search: Searching
) -> None:
    names = [("a",), ("a", "b"), ("ab",), ("a\0b",), ("a\x01",), ("*",), ("b", "a"), ("", "a")]
    buckets.put(link, {(name, repr(name)): {} for name in names})
    for prefix in [*names, (), ("a", "c"), ("",)]:
        beneath = {repr(name) for name in names if name[: len(prefix)] == prefix}
        assert set(search(*prefix)) == beneath


def test_what_takes_many_pages_is_read_whole(
    buckets: PlainBuckets, link: BlockingLink, search: Searching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "PAGE_ITEMS", 7)
    buckets.put(link, many(100, namespaces=3))
    assert search("a") == [f"k{n}" for first in range(3) for n in range(first, 100, 3)]
    assert len(buckets.rounds) > 3
    buckets.put(link, many(50, start=100))
    assert len(search("a")) == 150
    buckets.put(link, dict.fromkeys(many(100, namespaces=3)))
    assert search("a") == [f"k{n}" for n in range(100, 150)]


def test_what_changes_while_pages_are_read_is_not_missed(
    buckets: PlainBuckets, link: BlockingLink, search: Searching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "PAGE_ITEMS", 7)
    buckets.put(link, many(60))

    def change(round_: int) -> None:
        if round_ == 3:
            key = ("a", "0")
            buckets.put(link, {(key, "k1"): None, (key, "k2"): {"n": -2}, (key, "late"): {"n": 0}})

    buckets.before = change
    assert len(set(search("a")) - {"k1", "late"}) == 59
    assert set(search("a")) == {f"k{n}" for n in range(60) if n != 1} | {"late"}
    assert search("a", filter={"n": {"$lt": 0}}) == ["k2"]


def test_another_life_of_the_buckets_is_read_anew(
    valkey: LocalValkey, buckets: PlainBuckets, link: BlockingLink, search: Searching
) -> None:
    buckets.put(link, many(20, namespaces=9))
    assert len(search("a")) == 20
    remove_all(valkey, buckets)
    assert search("a") == []
    buckets.put(link, {(("a", "0"), "k0"): {"n": 0}})
    assert search("a") == ["k0"]
    remove_all(valkey, buckets)
    buckets.put(link, many(12, start=5, namespaces=9))
    assert len(search("a")) == 12


def remove_all(valkey: LocalValkey, buckets: PlainBuckets) -> None:
    stem = next(iter(buckets.keys.values())).state.partition(b"{")[0]
    found = valkey.command("KEYS", stem + b"*")
    assert isinstance(found, list)
    for key in found:
        assert isinstance(key, bytes)
        valkey.command("DEL", key)


@pytest.mark.parametrize("items", [3, 20])
def test_what_is_gone_for_so_long_that_nobody_remembers_is_dropped(
    valkey: LocalValkey,
    buckets: PlainBuckets,
    link: BlockingLink,
    search: Searching,
    monkeypatch: pytest.MonkeyPatch,
    items: int,
) -> None:
    """News go back to where graves were levelled last; before that all is told anew."""
    monkeypatch.setattr(telling, "PAGE_ITEMS", 7)
    buckets.put(link, many(items))
    lister = Lister(buckets)
    assert len(search("a")) == items
    assert listed(lister, link) == [("a", "0")]
    [keys] = [keys for keys in buckets.keys.values() if valkey.command("EXISTS", keys.state)]
    stem = keys.state[: -len(b"state")]
    for n in range(items - 1):
        valkey.command("DEL", stem + b"i:a\x000\x00\x01/k%d" % n)
        valkey.command("ZREM", stem + b"n:a\x000\x00", b"k%d" % n)
    buckets.put(link, {(("a", "0"), "new"): {}})
    assert len(search("a")) == items + 1  # Nobody told of it.
    buckets.put(link, {(("a", "0"), "newer"): {}})
    stamp = valkey.command("HGET", keys.state, "i")
    assert isinstance(stamp, bytes)
    valkey.command("HSET", keys.state, "z", stamp[32:48])
    valkey.command("ZREM", stem + b"names", b"a\x000\x00")
    valkey.command("ZREM", stem + b"index", b"a\x000\x00")
    assert listed(lister, link) == []
    valkey.command("ZADD", stem + b"index", 0, b"a\x000\x00")
    assert search("a") == [f"k{items - 1}", "new", "newer"]


class Primaries:
    """Buckets whose answers come from another primary from some round trip on."""

    def __init__(self, buckets: PlainBuckets, *turns: int) -> None:
        self.buckets = buckets
        self.turns = turns
        buckets.answer = self.answer  # type: ignore[method-assign]

    def answer(self, answer: Answer) -> Answer:
        which = sum(len(self.buckets.rounds) > turn for turn in self.turns)
        return answer._replace(identity=b"primary %d" % which)


def test_another_primary_is_asked_from_the_start(
    buckets: PlainBuckets, link: BlockingLink, search: Searching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the middle of its pages, and where the news seem to follow."""
    monkeypatch.setattr(telling, "PAGE_ITEMS", 7)
    buckets.put(link, many(30))
    Primaries(buckets, 2, 8)
    gone: Items = {(("a", "0"), "k5"): None}  # Nothing of what the first one has told may stay.
    buckets.before = lambda round_: buckets.put(link, gone) if round_ == 2 else None
    assert search("a") == [f"k{n}" for n in range(30) if n != 5]
    asked = len(buckets.rounds)
    assert asked >= 2 + 5  # Two pages of the first, all of the second.
    while len(buckets.rounds) < 9:
        assert len(search("a")) == 29
    assert search.mirrors.of(b"a\0").basis(next(iter(buckets.keys))).identity == b"primary 2"


def test_primaries_that_keep_changing_are_an_outage(
    buckets: PlainBuckets, link: BlockingLink, search: Searching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another search of the same prefix is told by another one, each time in between."""
    monkeypatch.setattr(telling, "PAGE_ITEMS", 2)
    buckets.put(link, many(5))
    tells = ["one"]
    buckets.answer = lambda answer: answer._replace(identity=tells[-1].encode())  # type: ignore[method-assign]

    def change(_: int) -> None:
        if len(tells) == 1:
            tells.append("other")
            search("a")
            tells.pop()

    buckets.before = change
    with pytest.raises(Unreachable, match="kept changing"):
        search("a")
    buckets.before = lambda _: None
    assert len(search("a")) == 5


def test_the_tasks_of_a_loop_share_a_mirror(
    valkey: LocalValkey, buckets: PlainBuckets, link: BlockingLink
) -> None:
    buckets.put(link, many(200, namespaces=20))
    mirrors = Mirrors(None, rows_most=10_000, bytes_most=10**9)
    searcher = Searcher(buckets, mirrors)

    async def run() -> None:
        with links(valkey.url) as (_, loop):
            searches = [wanted(SearchOp(("a",), limit=1000))]
            for at in range(5):
                found = await asyncio.gather(*(searcher.search(loop, searches) for _ in range(8)))
                assert {len(one.hits) for [one] in found} == {200 + at}
                await asyncio.to_thread(buckets.put, link, {(("a", "new"), f"{at}"): {"n": at}})

    asyncio.run(run())


def test_several_searches_are_answered_side_by_side(
    buckets: PlainBuckets, link: BlockingLink, search: Searching
) -> None:
    buckets.put(link, many(9, namespaces=3))
    searches = [
        wanted(SearchOp(("a",))),
        wanted(SearchOp(("a", "1"))),
        wanted(SearchOp(("a",), {"n": 3})),
    ]
    found = finish(search.searcher.search(link, searches))
    assert [len(each.hits) for each in found] == [9, 3, 1]
    assert buckets.rounds == [["news"] * 2 * BUCKETS]


# --- items that expire ---------------------------------------------------------------


def test_what_has_expired_is_left_out_without_a_word_from_the_server(
    valkey: LocalValkey, buckets: PlainBuckets, link: BlockingLink, search: Searching
) -> None:
    buckets.put(link, {(("a",), "brief"): {}, (("a",), "kept"): {}}, ttl_ms=300)
    buckets.put(link, {(("a",), "lasting"): {}})
    assert search("a") == ["brief", "kept", "lasting"]
    valkey.command("PEXPIRE", *keys_of(valkey, buckets, b"kept"), 60_000)
    wait_until_gone(valkey, buckets, b"brief")
    buckets.rounds.clear()
    assert search("a") == ["kept", "lasting"]
    assert search("a") == ["kept", "lasting"]
    assert [set(names) for names in buckets.rounds] == [{"news"}, {"read"}, {"news"}]


def keys_of(valkey: LocalValkey, buckets: PlainBuckets, key: bytes) -> list[bytes]:
    """The keys of the items of this key."""
    stem = next(iter(buckets.keys.values())).state.partition(b"{")[0]
    found = valkey.command("KEYS", stem + b"*:i:*" + key)
    assert isinstance(found, list)
    return [name for name in found if isinstance(name, bytes)]


def wait_until_gone(valkey: LocalValkey, buckets: PlainBuckets, key: bytes) -> None:
    for _ in range(1_000):
        if not keys_of(valkey, buckets, key):
            return
        threading.Event().wait(0.01)


# --- what has no room ----------------------------------------------------------------


def vector(*numbers: float) -> bytes:
    return np.array(numbers, "<f4").tobytes()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"limit": 5, "offset": 3},
        {"limit": 7, "filter": {"n": {"$gte": 30}}},
        {"limit": 1000, "filter": {"n": 11}},
        {"limit": -2, "offset": 1},
        {"query": [1, 1, 0, 0], "limit": 5},
        {"query": [1, 1, 0, 0], "limit": 6, "offset": 4, "filter": {"n": {"$lt": 40}}},
        {"query": [0, 1, 0, 0], "limit": 100},
        {"query": [0, 1, 0, 0], "limit": -1, "offset": 20},
    ],
)
def test_what_has_no_room_is_walked_over_with_the_same_results(
    buckets: PlainBuckets,
    link: BlockingLink,
    search: Searching,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, Any],
) -> None:
    monkeypatch.setattr(telling, "PAGE_ITEMS", 7)
    monkeypatch.setattr("langgraph_valkey.items.walking.SLACK", 3)
    for n in range(0, 60, 3):
        few = many(3, start=n, namespaces=4)
        made = {"x": vector(n % 7, n % 5, 1, 0), "y": vector(1, n % 11, 0, 0)}
        buckets.put(link, few, vectors=made if n % 6 else {})
    expected = search("a", **given)
    small = Searching(buckets, link, rows_most=20)
    assert small("a", **given) == expected
    assert len(small.mirrors.of(b"a\0")) == 0
    buckets.rounds.clear()
    assert small("a", **given) == expected  # Without trying to hold it again.
    assert len(small("a", "2")) == 15  # What is beneath may have room.


def test_a_walk_tells_of_each_item_as_it_was_told_last(
    buckets: PlainBuckets, link: BlockingLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changes while it is under way, and what another primary does not have."""
    monkeypatch.setattr(telling, "PAGE_ITEMS", 7)
    made = {"x": vector(1, 0, 0, 0)}
    buckets.put(link, many(30), vectors=made)
    small = Searching(buckets, link, rows_most=1)
    assert len(small("a")) == 30
    first = len(buckets.rounds)

    def change(round_: int) -> None:
        if round_ == first + 2:
            place = ("a", "0")
            buckets.put(link, {(place, "k0"): {"n": 99}, (place, "k1"): {"n": 1}})
            buckets.put(link, {(place, "k2"): {"n": 2}}, vectors=made)

    buckets.before = change
    expected = [f"k{n}" for n in (2, *range(3, 30), 1)]
    given: dict[str, Any] = {"query": [1, 0, 0, 0], "filter": {"n": {"$lt": 99}}}
    assert small("a", **given) == expected
    Primaries(buckets, len(buckets.rounds) + 2)
    gone = len(buckets.rounds) + 2
    buckets.before = lambda round_: (
        buckets.put(link, {(("a", "0"), "k5"): None}) if round_ == gone else None
    )
    assert small("a", **given) == [key for key in expected if key != "k5"]


def test_mirrors_share_their_room(buckets: PlainBuckets, link: BlockingLink) -> None:
    small = Searching(buckets, link, rows_most=20)
    buckets.put(link, many(30, namespaces=2))
    assert len(small("a", "0")) == 15
    assert len(small("a", "1")) == 15
    assert len(small.mirrors.of(b"a\x000\x00")) == 0
    assert len(small.mirrors.of(b"a\x001\x00")) == 15


def test_a_mirror_that_outgrows_its_room_is_dropped(
    buckets: PlainBuckets, link: BlockingLink
) -> None:
    small = Searching(buckets, link, rows_most=20)
    buckets.put(link, many(15))
    assert len(small("a")) == 15
    buckets.put(link, many(15))  # The same ones: there is room.
    assert len(small("a")) == 15
    assert not small.mirrors.is_large(b"a\0", link.now())
    buckets.put(link, many(10, start=15))
    assert len(small("a")) == 25
    assert small.mirrors.is_large(b"a\0", link.now())


def test_what_has_no_room_is_not_read_to_its_end_to_find_that_out(
    buckets: PlainBuckets, link: BlockingLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "PAGE_ITEMS", 7)
    buckets.put(link, many(140))
    small = Searching(buckets, link, rows_most=20)
    assert len(small("a")) == 140
    assert len(buckets.rounds) == 3 + 140 // 7 + 1


def test_a_mirror_that_is_read_anew_is_not_counted_twice(
    buckets: PlainBuckets, link: BlockingLink
) -> None:
    small = Searching(buckets, link, rows_most=20)
    buckets.put(link, many(15))
    Primaries(buckets, 2)
    for _ in range(3):
        assert len(small("a")) == 15
    assert not small.mirrors.is_large(b"a\0", link.now())


# --- damage ----------------------------------------------------------------------------


@pytest.mark.parametrize("rows_most", [10_000, 1])
def test_an_item_that_cannot_be_read_is_named(
    valkey: LocalValkey, buckets: PlainBuckets, link: BlockingLink, rows_most: int
) -> None:
    buckets.put(link, many(3))
    [key] = keys_of(valkey, buckets, b"k1")
    raw = valkey.command("GET", key)
    assert isinstance(raw, bytes)
    valkey.command("SET", key, raw[:-2] + b"xx")
    search = Searching(buckets, link, rows_most=rows_most)
    with pytest.raises(CorruptState, match="overwritten") as caught:
        search("a")
    assert "k1" in caught.value.key
    valkey.command("SET", key, raw)
    assert len(search("a")) == 3


# --- listing ---------------------------------------------------------------------------


def listed(lister: Lister, link: BlockingLink, **given: Any) -> list[tuple[str, ...]]:
    [found] = finish(lister.list(link, [ListNamespacesOp(**{"limit": 10_000, **given})]))
    return found


def test_a_listing_of_what_is_known_takes_one_round_trip(
    buckets: PlainBuckets, link: BlockingLink
) -> None:
    names = [("b", str(n)) for n in range(200)]
    buckets.put(link, {(name, "k"): {} for name in names})
    lister = Lister(buckets)
    assert listed(lister, link) == sorted(names)
    buckets.put(link, {(("a",), "k"): {}, (("b", "7"), "k"): None, (("b", "8"), "other"): {}})
    buckets.rounds.clear()
    assert listed(lister, link) == [("a",), *sorted(set(names) - {("b", "7")})]
    assert buckets.rounds == [["names"] * BUCKETS]


def test_namespaces_that_take_many_pages_are_listed_whole(
    valkey: LocalValkey, buckets: PlainBuckets, link: BlockingLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "PAGE_NAMES", 5)
    names = [("b", str(n)) for n in range(300)]
    buckets.put(link, {(name, "k"): {} for name in names})
    lister = Lister(buckets)
    assert listed(lister, link) == sorted(names)
    buckets.put(link, dict.fromkeys([(name, "k") for name in names[:150]]))
    assert listed(lister, link) == sorted(names[150:])
    Primaries(buckets, len(buckets.rounds) + 3)
    buckets.put(link, {(name, "k"): {} for name in names[:150]})
    for _ in range(3):
        assert listed(lister, link) == sorted(names)
    remove_all(valkey, buckets)
    assert listed(lister, link) == []


def test_too_many_namespaces_to_keep_are_read_anew(
    buckets: PlainBuckets, link: BlockingLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "KEPT_MOST", 5)
    buckets.put(link, {(("b", str(n)), "k"): {} for n in range(6)})
    lister = Lister(buckets)
    for _ in range(2):
        assert len(listed(lister, link)) == 6
        assert lister._mirror.namespaces == []


def test_a_namespace_of_expired_items_is_not_listed(
    valkey: LocalValkey, buckets: PlainBuckets, link: BlockingLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SWEPT_AT_ONCE", 2)
    brief: Items = {(("a", "brief"), f"k{n}"): {} for n in range(5)}
    buckets.put(link, brief, ttl_ms=100)
    buckets.put(link, {(("a", "lasting"), "k"): {}})
    lister = Lister(buckets)
    assert listed(lister, link) == [("a", "brief"), ("a", "lasting")]
    wait_until_gone(valkey, buckets, b"k4")
    buckets.rounds.clear()
    assert listed(lister, link) == [("a", "lasting")]
    assert [set(names) for names in buckets.rounds] == [{"names"}, {"sweep"}] * 3 + [{"names"}]


def test_a_server_that_takes_no_writes_is_listed_all_the_same(
    valkey: LocalValkey, buckets: PlainBuckets, link: BlockingLink
) -> None:
    buckets.put(link, {(("a",), "k1"): {}}, ttl_ms=50)
    buckets.put(link, {(("b",), "k"): {}})
    wait_until_gone(valkey, buckets, b"k1")

    def refuse(round_: int) -> None:
        if round_ % 2:
            raise WriteRejected("its log lags")

    buckets.before = refuse
    assert listed(Lister(buckets), link) == [("a",), ("b",)]


def test_bounds_fit_together() -> None:
    """A first page travels with the small calls, and no page is larger than pages are."""
    assert telling.FIRST_BYTES < limits.LARGE_VALUE_BYTES <= telling.PAGE_BYTES
    assert telling.PAGE_BYTES <= limits.PAGE_BYTES
