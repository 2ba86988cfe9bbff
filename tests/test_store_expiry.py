"""Items that expire, by virtual time: when, what puts it off, and that nothing is left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from langgraph.store.base import GetOp, Op, PutOp, SearchOp

from langgraph_valkey import OutcomeUnknown, ValkeyStore, WriteRejected
from langgraph_valkey.glide.exchange import by_lane
from langgraph_valkey.items.names import bucket_keys, bucket_names
from langgraph_valkey.link import Call, Reply
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.testing import MemoryLink, memory_store

NS = ("a", "b")
HOUR_S = 3600.0
OPTIONS: dict[str, Any] = {"replay": False}


def alive(store: ValkeyStore) -> tuple[bool, bool, bool]:
    """Whether an item is there by a get, a search and a listing, without putting it off."""
    return (
        store.get(NS, "k", refresh_ttl=False) is not None,
        bool(store.search(NS, refresh_ttl=False)),
        bool(store.list_namespaces()),
    )


THERE, GONE = (True,) * 3, (False,) * 3


def test_an_item_lives_as_long_as_it_was_put_for() -> None:
    link = MemoryLink()
    store, other = memory_store(link, **OPTIONS), memory_store(link, **OPTIONS)
    store.put(NS, "k", {}, ttl=2)
    link.advance(119)
    assert alive(store) == alive(other) == THERE
    link.advance(1)
    assert alive(store) == alive(other) == GONE


@pytest.mark.parametrize("config", [None, {"refresh_on_read": True}, {"default_ttl": 2}])
@pytest.mark.parametrize("how", ["get", "search", "batch", "turn"])
def test_a_read_puts_the_end_off(config: Any, how: str) -> None:
    """By as long as the item was put for, for every process."""
    link = MemoryLink()
    store, other = memory_store(link, ttl=config, **OPTIONS), memory_store(link, **OPTIONS)
    store.put(NS, "k", {}, ttl=2)
    assert alive(other) == THERE
    for _ in range(3):
        link.advance(100)
        if how == "get":
            store.get(NS, "k")
        elif how == "search":
            store.search(("a",))
        elif how == "batch":
            store.batch([GetOp(NS, "k"), GetOp(NS, "none")])
        else:  # The bucket is changed in the same call.
            store.batch([GetOp(NS, "k"), PutOp(NS, "another", None)])
    link.advance(119)
    assert alive(store) == alive(other) == THERE
    link.advance(1)
    assert alive(store) == alive(other) == GONE


@pytest.mark.parametrize("config", [None, {"refresh_on_read": False}, {"default_ttl": 2}])
def test_a_read_need_not(config: Any) -> None:
    link = MemoryLink()
    store = memory_store(link, ttl=config, **OPTIONS)
    store.put(NS, "k", {}, ttl=2)
    link.advance(100)
    store.batch([GetOp(NS, "k", refresh_ttl=False), SearchOp(NS, refresh_ttl=False)])
    if config and "refresh_on_read" in config:
        store.get(NS, "k")
        store.search(NS)
    link.advance(20)
    assert alive(store) == GONE


def test_what_is_put_last_says_how_long() -> None:
    link = MemoryLink()
    store = memory_store(link, ttl={"default_ttl": 2}, **OPTIONS)
    store.put(NS, "k", {})
    store.put(NS, "k", {}, ttl=5)
    link.advance(299)
    assert alive(store) == THERE
    store.put(NS, "k", {})
    link.advance(119)
    assert alive(store) == THERE
    store.put(NS, "k", {}, ttl=None)
    link.advance(1000 * HOUR_S)
    assert alive(store) == THERE
    store.batch([PutOp(NS, "k", {})])  # As of other stores: a bare operation has no default.
    link.advance(1000 * HOUR_S)
    assert alive(store) == THERE


def test_a_mirror_asks_before_it_leaves_out_what_another_process_has_put_off() -> None:
    link = MemoryLink()
    store, other = memory_store(link, **OPTIONS), memory_store(link, **OPTIONS)
    store.put(NS, "k", {}, ttl=2)
    assert alive(store) == THERE
    link.advance(100)
    other.get(NS, "k")
    link.advance(100)
    assert alive(store) == THERE
    link.advance(100)
    assert alive(store) == GONE


@pytest.mark.parametrize("config", [None, {"default_ttl": 2}])
def test_reads_go_on_while_writes_are_refused(config: Any) -> None:
    link = MemoryLink()
    store = memory_store(link, ttl=config, **OPTIONS)
    store.put(NS, "k", {"n": 1}, ttl=2)
    for op in (GetOp(NS, "k"), SearchOp(NS)):
        link.fail_next(WriteRejected, script="slide")
        [found] = store.batch([op])
        [item] = found if isinstance(found, list) else [found]
        assert item.value == {"n": 1}  # type: ignore[union-attr]
        assert not link._faults


def test_nothing_is_left_of_what_has_expired() -> None:
    """Nor, after a day, of what was deleted; and mirrors that slept that long find out."""
    link = MemoryLink()
    store, sleeper = memory_store(link, **OPTIONS), memory_store(link, **OPTIONS)
    store.batch([PutOp(("gone", str(n)), "k", {}, ttl=1 + n % 2) for n in range(40)])
    store.batch([PutOp(("deleted", str(n)), "k", {}) for n in range(40)])
    store.put(("kept",), "k", {})
    assert len(sleeper.search((), limit=100)) == 81
    assert len(sleeper.list_namespaces(limit=100)) == 81
    store.batch([PutOp(("deleted", str(n)), "k", None) for n in range(40)])
    names = [("other", str(n)) for n in range(40)]
    for _ in range(3):
        link.advance(25 * HOUR_S)
        for _ in range(3):
            store.batch([PutOp(name, "k", {}) for name in names])
            store.batch([PutOp(name, "k", None) for name in names])
    link.advance(25 * HOUR_S)
    for _ in range(3):
        store.batch([PutOp(("kept", str(n)), "k", {}) for n in range(99)])
    left = b" ".join(b" ".join(link._server.keyspace.hash(keys.state)) for keys in buckets())
    assert b"gone" not in left
    assert b"deleted" not in left
    assert b"other" not in left
    assert not any(b":ends" in key or b"gone" in key or b"other" in key for key in link.keys)
    kept = [("kept",), *(("kept", str(n)) for n in range(99))]
    assert [each.namespace for each in sleeper.search((), limit=200)] == kept
    assert sleeper.list_namespaces() == sorted(kept)


def buckets() -> Sequence[Any]:
    """The keys of all buckets."""
    return [bucket_keys("lgv:store", bucket) for bucket in bucket_names(16)]


def test_a_retry_does_not_let_it_live_again() -> None:
    """The first try was applied, and what it stored has expired before the second one."""
    link = MemoryLink()
    store = memory_store(link, **OPTIONS)
    sent: list[Call] = []
    link.before_call = lambda call: sent.append(call) if call.script.name == "turn" else None
    store.put(NS, "k", {}, ttl=1)
    link.advance(61)
    assert alive(store) == GONE
    link.before_call = None
    link._run(sent[0])
    assert alive(store) == GONE


class Trips(MemoryLink):
    """Notes the round trips, each with the names of its scripts.

    On a real link, calls that go over several connections take a round trip for each.
    """

    trips: list[list[str]]

    async def send(self, calls: Sequence[Call]) -> list[Reply]:
        assert len(by_lane(calls)) == 1
        self.trips.append(sorted(call.script.name for call in calls))
        return await super().send(calls)


def test_a_batch_is_one_round_trip_with_one_call_for_each_bucket() -> None:
    link = Trips()
    link.trips = []
    store = memory_store(link, ttl={"default_ttl": 5}, **OPTIONS)
    places = [(str(n),) for n in range(40)]
    store.batch([PutOp(place, key, {}) for place in places for key in ("a", "b")])
    link.trips.clear()
    store.batch([PutOp(place, "c", {}) for place in places[:20]])
    [trip] = link.trips
    assert set(trip) == {"turn"}
    assert len(trip) <= 16
    link.trips.clear()
    gets = [GetOp(place, "a") for place in places]
    store.batch(gets)
    [trip] = link.trips
    assert set(trip) == {"slide"}
    link.trips.clear()
    mixed: list[Op] = [*gets, *(PutOp(place, "d", {}) for place in places[:3])]
    assert None not in store.batch(mixed)[:40]
    [trip] = link.trips
    assert trip.count("turn") <= 3
    assert trip.count("turn") + trip.count("slide") <= 16
    store.search(())
    store.list_namespaces()
    link.trips.clear()
    store.search((), refresh_ttl=False)
    store.list_namespaces()
    assert link.trips == [["news"] * 16, ["names"] * 16]


def test_what_a_batch_reads_and_changes_takes_two() -> None:
    """A try of which the answer was lost must not show, at the next one, what it changed."""
    link = Trips()
    link.trips = []
    store = memory_store(link, **OPTIONS)
    store.put(NS, "k", {"n": 1})
    link.trips.clear()
    [found, _] = store.batch([GetOp(NS, "k"), PutOp(NS, "k", {"n": 2})])
    assert found is not None
    assert found.value == {"n": 1}  # type: ignore[union-attr]
    assert link.trips == [["read"], ["turn"]]
    link.fail_next(OutcomeUnknown, applied=True, script="turn")
    with pytest.raises(OutcomeUnknown):
        store.put(NS, "k", {"n": 3})


async def test_the_server_expires_them(valkey: LocalValkey, prefix: str) -> None:
    """On a real one, too."""
    with ValkeyStore(valkey.url, key_prefix=prefix, replay=False) as store:
        store.put(NS, "k", {}, ttl=0.4 / 60)
        store.put(NS, "kept", {}, ttl=1)
        assert alive(store) == THERE
        time.sleep(0.5)
        assert store.get(NS, "k") is None
        assert [each.key for each in await store.asearch(NS)] == ["kept"]
        store.delete(NS, "kept")
        assert alive(store) == GONE
