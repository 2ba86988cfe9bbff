"""Who shares a breaker, and what a lookup tells it."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from langgraph_valkey import limits
from langgraph_valkey.breaker import FAILURES_MOST
from langgraph_valkey.errors import Unreachable
from langgraph_valkey.primary.versions import PartitionKey
from rag_cache import Hit, Miss, Scope, SemanticCache
from rag_cache.breakers import BREAKERS_MOST, Breakers
from rag_cache.freshness.standings import Standings
from rag_cache.partitions import partition_of
from tests.link_ground import in_a_thread
from tests.rag_ground import SCOPE, Caches

QUESTION = "how do i reset my password"
HOMES = [PartitionKey("rag|handbook", f"tenant {n}", 0) for n in range(4)]


@pytest.fixture
def standings() -> Standings:
    """Of four partitions: two on one primary, one on another, one that is not known."""
    made = Standings(lambda: None)
    for home, identity in zip(HOMES, ("a", "a", "b"), strict=False):
        made.confirm(home, identity, 0.0, 0)
    return made


def test_those_on_one_primary_share_one(standings: Standings) -> None:
    breakers = Breakers(standings)
    first, same, other, unknown = (breakers.of([home]) for home in HOMES)
    assert first is same
    assert len({id(each) for each in (first, other, unknown)}) == 3
    assert breakers.of(HOMES[3:]) is unknown
    standings.confirm(HOMES[3], "a", 0.0, 0)
    assert breakers.of(HOMES[3:]) is first


def test_those_that_ask_several_share_one_if_these_are_the_same(standings: Standings) -> None:
    """What fails does not say which one: a healthy shard must not be left alone for it."""
    breakers = Breakers(standings)
    both = breakers.of([HOMES[0], HOMES[2]])
    assert both is breakers.of([HOMES[2], HOMES[1]])
    assert both is not breakers.of([HOMES[0]])
    assert both is not breakers.of([HOMES[2]])
    assert breakers.of([HOMES[0], HOMES[1]]) is breakers.of([HOMES[0]])


def test_only_so_many_are_remembered(standings: Standings) -> None:
    breakers = Breakers(standings)
    kept = breakers.of(HOMES[:1])
    for n in range(BREAKERS_MOST + 1):
        if n % 100 == 0:
            assert breakers.of(HOMES[:1]) is kept
        breakers.of([PartitionKey("rag|handbook", f"unknown {n}", 0)])
    assert len(breakers._of) == BREAKERS_MOST


class Failing:
    """A link that fails, and counts how often it was asked."""

    def __init__(self, link: Any, failure: Exception) -> None:
        self._link = link
        self._failure = failure
        self.times = 0

    async def send(self, _: Any) -> Any:
        self.times += 1
        raise self._failure

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)


def reason(cache: SemanticCache, question: str, scope: Scope = SCOPE) -> str:
    found = cache.lookup(question, scope)
    return found.reason if isinstance(found, Miss) else ""


def test_an_answer_that_can_not_be_used_is_no_server_that_is_away(
    caches: Caches, caplog: pytest.LogCaptureFixture
) -> None:
    """And it is logged, but not with each of thousands of lookups."""
    cache = caches()
    assert cache.store(QUESTION, SCOPE, "x")
    finder = cache._blocking.finder
    broken: Any = Failing(finder._link, RuntimeError("nobody knows"))
    finder._link, whole = broken, finder._link
    with caplog.at_level(logging.ERROR, "rag_cache"):
        assert {reason(cache, QUESTION) for _ in range(4 * FAILURES_MOST)} == {"corrupt"}
    assert broken.times == 4 * FAILURES_MOST
    assert len(caplog.records) == 1
    finder._link = whole
    assert not reason(cache, QUESTION)


def test_a_lookup_that_asks_nothing_says_nothing_of_the_server(caches: Caches) -> None:
    """Its question can't be embedded: that is no sign of life."""
    cache = caches()
    assert cache.store(QUESTION, SCOPE, "x")
    assert reason(cache, "another one") == "below_threshold"  # Now it knows the scope.
    face = cache._blocking
    finder = face.finder
    broken: Any = Failing(finder._link, Unreachable("away"))
    finder._link, whole = broken, finder._link
    for _ in range(FAILURES_MOST - 1):
        assert reason(cache, QUESTION) == "unreachable"

    async def away(*_: Any) -> Any:
        raise OSError

    breaker = cache._answers._breakers.of([home(cache)])
    assert breaker._failures == FAILURES_MOST - 1
    object.__setattr__(face, "embed", away)
    cache._embedder.took_s = 0.0  # Else it is worth a call to ask for the very question.
    assert reason(cache, "another one") == "embedder_failed"
    assert breaker._failures == FAILURES_MOST - 1
    finder._link = whole
    assert not reason(cache, QUESTION)
    assert breaker._failures == 0


def test_a_lookup_of_a_corpus_that_is_spread_may_ask_all_of_its_partitions(caches: Caches) -> None:
    cache = caches(spread=4)
    asking = cache._answers.asking(cache._blocking, QUESTION, SCOPE, None)
    asked = cache._answers._asked(asking)
    assert asked[0] == asking.home.name
    prefix = cache.settings.key_prefix
    places = [partition_of(prefix, SCOPE.corpus, SCOPE.tenant, n).name for n in range(4)]
    assert sorted(asked, key=lambda name: name.number) == places


def test_a_lookup_that_finds_no_thread_in_time_is_a_miss_and_no_trouble_of_the_server(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WORKER_THREADS_MOST", 1)
    cache, free = caches(lookup_deadline_ms=200), threading.Event()
    assert cache.store(QUESTION, SCOPE, "x")
    assert cache.lookup(QUESTION, SCOPE)
    link: Any = cache._loops.lookups
    monkeypatch.setattr(link, "_here", lambda: None)  # As on a loop beside the one that reads.

    async def beside() -> list[Hit | Miss]:
        held = asyncio.ensure_future(link._in_thread(lambda: free.wait(10)))
        lookups = [
            asyncio.ensure_future(cache.alookup(QUESTION, SCOPE)) for _ in range(2 * FAILURES_MOST)
        ]
        await asyncio.sleep(0.4)
        free.set()
        await held
        return await asyncio.gather(*lookups)

    assert {each.reason for each in in_a_thread(beside)} == {"slow"}
    assert cache._answers._breakers.of([home(cache)])._failures == 0
    assert not reason(cache, QUESTION)


def home(cache: SemanticCache) -> PartitionKey:
    return cache._answers.asking(cache._blocking, QUESTION, SCOPE, None).home.name
