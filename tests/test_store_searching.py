"""Searches and listings over real buckets: what is asked, and what comes of the answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.store.base import SearchOp

from langgraph_valkey.errors import Unreachable
from langgraph_valkey.glide.link import BlockingLink
from langgraph_valkey.items import telling
from langgraph_valkey.items.listing import Lister
from langgraph_valkey.items.mirrors import Mirrors
from langgraph_valkey.items.searching import Searcher, wanted
from langgraph_valkey.link import finish
from langgraph_valkey.local import LocalValkey
from tests.link_ground import links
from tests.searching_ground import (
    Items,
    Primaries,
    Searching,
    keys_of,
    listed,
    many,
    remove_all,
    vector,
    wait_until_gone,
)
from tests.store_buckets import BUCKETS, PlainBuckets


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


def test_another_primary_is_asked_from_the_start(
    buckets: PlainBuckets, link: BlockingLink, search: Searching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the middle of its pages, and where the news seem to follow."""
    monkeypatch.setattr(telling, "PAGE_ITEMS", 7)
    buckets.put(link, many(30))
    Primaries(buckets, 2, 8)
    gone: Items = {(("a", "0"), "k10"): None}  # Nothing of what the first one has told may stay.
    buckets.before = lambda round_: buckets.put(link, gone) if round_ == 2 else None
    assert search("a") == [f"k{n}" for n in range(30) if n != 10]
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
        buckets.put(link, {(("a", "0"), "k10"): None}) if round_ == gone else None
    )
    left = [key for key in expected if key != "k10"]
    assert small("a", **given) == left

    changed = len(buckets.rounds) + 2
    buckets.before = lambda round_: (
        buckets.put(link, {(("a", "0"), "k11"): {"n": 99}}) if round_ == changed else None
    )
    found = small("a", filter={"n": {"$lt": 99}})
    assert sorted(found) == sorted(key for key in left if key != "k11")


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
