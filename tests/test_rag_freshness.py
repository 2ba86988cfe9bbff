"""What was invalidated is never served: stories of readers, late writers and editors."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from langgraph_valkey.link import Script
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.scripts import assemble
from rag_cache import Computed, Scope
from rag_cache.freshness import standings
from rag_cache.freshness.changing import write_down
from rag_cache.freshness.verifying import KEPT_MS, packed_changes
from rag_cache.operations import calls
from rag_cache.partitions import recorded
from tests.failover_ground import until
from tests.rag_ground import SCOPE, Caches, Caller
from tests.rag_story import tell

QUESTION = "how do i reset my password"
STORIES = 150


def test_nothing_stale_is_served(valkey: LocalValkey, prefix: str, tmp_path: Path) -> None:
    counts = tell(valkey.url, prefix, tmp_path, STORIES, seed=3)
    assert counts["stale"] == counts["stored late"] == 0
    assert counts["hits"] > STORIES
    assert counts["refused stale"] > STORIES
    assert counts["miss stale"] > STORIES


MUTANTS = {
    "served without a look at its documents": (
        "serve",
        "not current(KEYS[1], entry[4], nonce, n, life)",
        "false",
    ),
    "stored without a look at its documents": (
        "store",
        "not current(KEYS[1], ARGV[9], nonce, made, life)",
        "false",
    ),
    "any fence is good enough": ("entries", "nonce == life and n >= sub(known, 1, 16)", "true"),
    "any version is the right one": ("entries", "return told == version", "return true"),
    "a change does not count": ("change", "redis.call('HSET', KEYS[1], field,", "tostring("),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_without_what_keeps_it_something_stale_is_served(
    name: str, valkey: LocalValkey, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, old, new = MUTANTS[name]
    done = []

    def broken(package: str, script: str, shared: tuple[str, ...], flags: str) -> Script:
        whole = assemble(package, script, shared, flags)
        if old in whole.source and where in (script, "entries"):
            done.append(script)
            return Script(script, whole.source.replace(old, new))
        return whole

    monkeypatch.setattr(calls, "assemble", broken)
    counts = tell(valkey.url, prefix, tmp_path, 40, seed=3)
    assert done
    assert counts["stale"] > 0


async def test_a_version_that_is_told_spares_what_has_it(call: Caller) -> None:
    await call("store", QUESTION, SCOPE, "new", evidence={"d1": "v2"})
    await call("invalidate", "d1", version="v2", corpus="handbook")
    assert await call("lookup", QUESTION, SCOPE)
    await call("invalidate", {"d1": "v3", "d2": None}, corpus="handbook")
    assert (await call("lookup", QUESTION, SCOPE)).reason == "stale"


async def test_without_a_fence_a_value_needs_the_told_version(call: Caller) -> None:
    await call("invalidate", "d1", corpus="handbook")
    await call("invalidate", "d2", version="v2", corpus="handbook")
    stored = await call("store", QUESTION, SCOPE, "x", evidence={"d1": "v1"})
    assert (stored.accepted, stored.reason) == (False, "stale")
    assert not await call("store", QUESTION, SCOPE, "x", evidence={"d2": "v1"})
    assert not await call("store", QUESTION, SCOPE, "x", evidence={"d2": None})
    assert await call("store", QUESTION, SCOPE, "x", evidence={"d2": "v2"})
    miss = await call("lookup", "something else", SCOPE)
    assert await call(
        "store", "something else", SCOPE, "x", evidence={"d1": "v2"}, fence=miss.fence
    )


@pytest.mark.parametrize(
    "change",
    [
        {"tag": "faq", "corpus": "handbook"},
        {"scope": SCOPE},
        {"tenant": "acme", "corpus": "handbook"},
        {"corpus": "handbook"},
        {"document": {f"d{n}": None for n in range(120)}, "corpus": "handbook"},
    ],
)
async def test_whatever_is_invalidated_is_stale_until_computed_anew(
    call: Caller, change: dict[str, Any]
) -> None:
    made = Computed("old", {"d119": "1"}, tags=["faq"])
    assert (await call.computed(QUESTION, made)).tier == "computed"
    assert (await call("lookup", QUESTION, SCOPE)).value == "old"
    await call("invalidate", **change)
    assert (await call("lookup", QUESTION, SCOPE)).reason == "stale"
    assert (await call.computed(QUESTION, Computed("new", {"d119": "2"}, ["faq"]))).value == "new"
    assert (await call("lookup", QUESTION, SCOPE)).value == "new"


async def test_other_tenants_entries_stay(call: Caller) -> None:
    other = Scope(tenant="other", corpus="handbook")
    for scope in (SCOPE, other):
        await call("store", QUESTION, scope, scope.tenant)
    await call("invalidate", tenant="other", corpus="handbook")
    assert (await call("lookup", QUESTION, SCOPE)).value == "acme"
    assert not await call("lookup", QUESTION, other)
    await call("invalidate", scope=other)
    assert (await call("lookup", QUESTION, SCOPE)).value == "acme"


async def test_a_document_is_invalidated_for_all_tenants_that_share_it(call: Caller) -> None:
    scopes = [Scope(tenant=f"tenant {n}", corpus="handbook") for n in range(20)]
    for scope in scopes:
        await call("store", QUESTION, scope, "x", evidence={"d1": "1"})
    await call("invalidate", "d1", corpus="handbook")
    assert not any([await call("lookup", QUESTION, scope) for scope in scopes])


async def test_versions_that_were_evicted_are_copied_again_before_anything_is_served(
    caches: Caches, kind: str, valkey: LocalValkey
) -> None:
    call = Caller(caches(), kind)
    await call("store", QUESTION, SCOPE, "old", evidence={"d1": "1"})
    await call("store", "another one", SCOPE, "fine", evidence={"d2": "1"})
    await call("invalidate", "d1", corpus="handbook")
    asking = call.cache._answers.asking(call.cache._blocking, QUESTION, SCOPE, None)
    valkey.command("DEL", asking.home.versions)
    seen = []
    for _ in range(200):
        found = await call("lookup", QUESTION, SCOPE)
        assert not found
        seen.append(found.reason)
        if await call("lookup", "another one", SCOPE):
            break
        await asyncio.sleep(0.01)
    assert seen[0] == "unverified"
    assert (await call("lookup", QUESTION, SCOPE)).reason == "stale"


async def test_an_old_change_never_undoes_a_newer_one(call: Caller) -> None:
    """Two invalidations of one document may reach a partition in the wrong order."""
    cache = call.cache
    await call("lookup", QUESTION, SCOPE)
    face, corpus = cache._blocking, recorded(cache.settings.key_prefix, SCOPE.corpus)
    first = await face.primary.change_versions(corpus, {"d:d1": "v2"})
    second = await face.primary.change_versions(corpus, {"d:d1": "v3"})
    home = cache._answers.asking(face, QUESTION, SCOPE, None).home
    for change in (second, first):
        packed = packed_changes(change.versions, change.number)
        await face.writes.send([calls.change(home, packed, KEPT_MS)])
    assert not await call("store", QUESTION, SCOPE, "x", evidence={"d1": "v2"})
    assert await call("store", QUESTION, SCOPE, "x", evidence={"d1": "v3"})


def test_threads_that_read_write_and_invalidate_at_once(caches: Caches) -> None:
    """As the stories, on real threads: the judge's clock is an invalidation that has ended."""
    party = [caches() for _ in range(2)]
    gone, now, stop = [0], [1], threading.Event()
    stale, hits = [], []

    def read(number: int) -> None:
        draw = random.Random(number)
        while not stop.is_set():
            cache = draw.choice(party)
            ended = gone[0]
            question = f"question {draw.randrange(3)}"
            found = cache.get_or_compute(question, SCOPE, lambda: Computed(now[0], {"d1": None}))
            if found.tier != "computed":
                hits.append(found.value)
                if found.value <= ended:
                    stale.append((found.value, ended))

    readers = [threading.Thread(target=read, args=(n,)) for n in range(4)]
    for each in readers:
        each.start()
    for _ in range(60):
        was = now[0]
        now[0] += 1
        party[0].invalidate("d1", corpus="handbook")
        gone[0] = was
        stop.wait(0.01)
    stop.set()
    for each in readers:
        each.join()
    assert stale == []
    assert len(hits) > 60


async def test_a_standing_that_lapses_is_no_hit(
    caches: Caches, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the primary store is away nobody can know whether another primary counts."""
    call = Caller(caches(), kind)
    await call("store", QUESTION, SCOPE, "x")
    assert await call("lookup", QUESTION, SCOPE)
    store = call.cache._blocking.primary

    async def away(*_: Any, **__: Any) -> Any:
        raise OSError

    monkeypatch.setattr(store, "standing", away)
    monkeypatch.setattr(standings, "STANDING_S", 0.2)
    await asyncio.sleep(0.25)
    assert (await call("lookup", QUESTION, SCOPE)).reason == "unverified"
    monkeypatch.undo()
    for _ in range(100):
        if await call("lookup", QUESTION, SCOPE):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never served again")


class Elsewhere:
    """A link whose next answers come from another primary, which knows nothing of it."""

    def __init__(self, link: Any, answers: int) -> None:
        self._link = link
        self._left = answers

    async def send(self, requests: Any) -> Any:
        replies = await self._link.send(requests)
        if self._left:
            self._left -= 1
            for reply in replies:
                reply[1] = b"f" * 40
        return replies

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)


def test_what_another_primary_answers_is_not_served(caches: Caches) -> None:
    cache = caches()
    assert cache.store(QUESTION, SCOPE, "x")
    finder = cache._blocking.finder
    finder._link = Elsewhere(finder._link, 1)
    assert cache.lookup(QUESTION, SCOPE).reason == "unverified"  # type: ignore[union-attr]


async def test_what_another_primary_has_acknowledged_is_not_done(caches: Caches) -> None:
    """A primary that was replaced may acknowledge: then the one that counts is told."""
    cache = caches()
    assert cache.store(QUESTION, SCOPE, "x", evidence={"d1": "1"})
    face = cache._blocking
    entered = []

    class Primary:
        def __getattr__(self, name: str) -> Any:
            return getattr(face.primary, name)

        async def enter(self, *given: Any) -> Any:
            entered.append(given)
            return await face.primary.enter(*given)

    prefix = cache.settings.key_prefix
    corpus = recorded(prefix, SCOPE.corpus)
    change = await face.primary.change_versions(corpus, {"d:d1": None})
    primary: Any = Primary()
    link: Any = Elsewhere(face.writes, 1)
    assert await write_down(primary, link, prefix, change, link.now() + 5) is None
    assert entered
    assert not cache.lookup(QUESTION, SCOPE)


async def test_a_copy_that_was_verified_for_another_primary_is_not_served_by(
    caches: Caches, valkey: LocalValkey
) -> None:
    """As on a replica that was promoted: it has the marker of the one it replaces."""
    cache = caches()
    assert cache.store(QUESTION, SCOPE, "x")
    asking = cache._answers.asking(cache._blocking, QUESTION, SCOPE, None)
    valkey.command("HSET", asking.home.versions, "v", "f" * 40)
    assert cache.lookup(QUESTION, SCOPE).reason == "unverified"  # type: ignore[union-attr]
    await until(lambda: cache.lookup(QUESTION, SCOPE))


class Late:
    """A link whose answers take so long that something else has happened meanwhile."""

    def __init__(self, link: Any, meanwhile: Callable[[], None]) -> None:
        self._link = link
        self._meanwhile = meanwhile

    async def send(self, requests: Any) -> Any:
        replies = await self._link.send(requests)
        self._meanwhile()
        return replies

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)


@pytest.mark.parametrize("what", ["pending", "unverified"])
def test_an_answer_that_comes_when_its_primary_counts_no_more_is_not_served(
    what: str, caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = caches()
    assert cache.store(QUESTION, SCOPE, "x")
    assert cache.lookup(QUESTION, SCOPE)
    home = cache._answers.asking(cache._blocking, QUESTION, SCOPE, None).home.name
    cache._keeper.stop()

    def meanwhile() -> None:
        if what == "pending":
            cache._standings.withdraw(home)
        else:
            monkeypatch.setattr(standings, "STANDING_S", 0.0)

    finder = cache._blocking.finder
    finder._link = Late(finder._link, meanwhile)
    assert cache.lookup(QUESTION, SCOPE).reason == what  # type: ignore[union-attr]
