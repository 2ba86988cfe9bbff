"""Listing namespaces over real buckets, and what of them can't be read."""

from __future__ import annotations

import pytest

from langgraph_valkey import limits
from langgraph_valkey.errors import CorruptState, Unreachable, WriteRejected
from langgraph_valkey.glide.link import BlockingLink
from langgraph_valkey.items import listing, telling
from langgraph_valkey.items.listing import Lister
from langgraph_valkey.local import LocalValkey
from tests.searching_ground import (
    Items,
    Primaries,
    Searching,
    keys_of,
    listed,
    many,
    remove_all,
    wait_until_gone,
)
from tests.store_buckets import BUCKETS, PlainBuckets


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


def test_primaries_that_keep_changing_are_an_outage_of_listings_too(
    buckets: PlainBuckets, link: BlockingLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "PAGE_NAMES", 2)
    buckets.put(link, {(("b", str(n)), "k"): {} for n in range(60)})
    lister = Lister(buckets)
    tells = ["one"]
    buckets.answer = lambda answer: answer._replace(identity=tells[-1].encode())  # type: ignore[method-assign]

    def change(_: int) -> None:
        if len(tells) == 1:
            tells.append("other")
            assert len(listed(lister, link)) == 60
            tells.pop()

    buckets.before = change
    with pytest.raises(Unreachable, match="kept changing under this listing"):
        listed(lister, link)
    buckets.before = lambda _: None
    assert len(listed(lister, link)) == 60


def test_what_another_primary_has_told_does_not_stay(
    buckets: PlainBuckets, link: BlockingLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "PAGE_NAMES", 2)
    names = [("b", str(n)) for n in range(90)]
    buckets.put(link, {(name, "k"): {} for name in names})
    Primaries(buckets, 1)
    gone: Items = {(name, "k"): None for name in names[:60]}
    buckets.before = lambda round_: buckets.put(link, gone) if round_ == 1 else None
    assert listed(Lister(buckets), link) == sorted(names[60:])
