"""A link, buckets and searches over them: what the tests of searching stand on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from langgraph.store.base import ListNamespacesOp, SearchOp

from langgraph_valkey.glide.link import BlockingLink
from langgraph_valkey.items.listing import Lister
from langgraph_valkey.items.mirrors import Mirrors
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


def remove_all(valkey: LocalValkey, buckets: PlainBuckets) -> None:
    stem = next(iter(buckets.keys.values())).state.partition(b"{")[0]
    found = valkey.command("KEYS", stem + b"*")
    assert isinstance(found, list)
    for key in found:
        assert isinstance(key, bytes)
        valkey.command("DEL", key)


class Primaries:
    """Buckets whose answers come from another primary from some round trip on."""

    def __init__(self, buckets: PlainBuckets, *turns: int) -> None:
        self.buckets = buckets
        self.turns = turns
        buckets.answer = self.answer  # type: ignore[method-assign]

    def answer(self, answer: Answer) -> Answer:
        which = sum(len(self.buckets.rounds) > turn for turn in self.turns)
        return answer._replace(identity=b"primary %d" % which)


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


def vector(*numbers: float) -> bytes:
    return np.array(numbers, "<f4").tobytes()


def listed(lister: Lister, link: BlockingLink, **given: Any) -> list[tuple[str, ...]]:
    [found] = finish(lister.list(link, [ListNamespacesOp(**{"limit": 10_000, **given})]))
    return found
