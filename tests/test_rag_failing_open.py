"""A server in trouble is a miss and a number, never an exception in somebody's pipeline."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from langgraph_valkey.local import LocalValkey
from langgraph_valkey.local.proxy import RejectingProxy, Request
from rag_cache import Hit, InvalidationPending, Miss, Scope, SemanticCache
from rag_cache.partitions import partition_of
from tests.failover_ground import until
from tests.rag_ground import SCOPE, Bag, Caches, Caller, caches_on

QUESTION, SIMILAR = "how do i reset my password", "my password how do i reset"
LOOKUPS = 12
BRISK = {"lookup_deadline_ms": 100, "request_timeout_ms": 300, "connection_timeout_ms": 100}
"""Settings of caches that shall soon be done with a server that does not answer."""
SLOW_S = 20.0
"""What a lookup that waits for a server that never answers would take at least."""


class Ground(NamedTuple):
    """A server of one test's own, and a proxy before it."""

    valkey: LocalValkey
    proxy: RejectingProxy
    caches: Caches


@pytest.fixture
def ground(prefix: str, tmp_path: Path) -> Iterator[Ground]:
    with (
        LocalValkey(tmp_path / "data") as valkey,
        RejectingProxy(valkey) as proxy,
        caches_on(proxy.url, prefix, tmp_path) as caches,
    ):
        yield Ground(valkey, proxy, caches)
        if valkey.pid is None:
            valkey.restart()


async def warm(call: Caller, value: str = "old", **given: Any) -> None:
    """Have a value that is served, however long a busy machine takes."""
    await until(lambda: call.cache.store(QUESTION, SCOPE, value, **given), 15)
    began_s = time.monotonic()
    while not await call("lookup", QUESTION, SCOPE):
        assert time.monotonic() - began_s < 15


def is_script(request: Request) -> bool:
    return request[0].upper().startswith(b"EVAL")


def home(prefix: str, scope: Scope = SCOPE) -> Any:
    return partition_of(prefix, scope.corpus, scope.tenant, 0)


def keys_of(call: Caller, prefix: str) -> dict[str, bytes]:
    """The keys of one question, by what they are."""
    asking = call.cache._answers.asking(call.cache._blocking, QUESTION, SCOPE, None)
    within, place = asking.within, home(prefix)
    return {
        "versions": place.versions,
        "scope": place.scopes + within.key.encode(),
        "entry": place.entries(within.key) + asking.entry_id.encode(),
        "claim": place.claims + asking.entry_id.encode(),
    }


# --- the server does not do what it is asked ----------------------------------------------


@contextmanager
def killed(ground: Ground) -> Iterator[None]:
    ground.valkey.kill()
    yield
    ground.valkey.restart()


@contextmanager
def frozen(ground: Ground) -> Iterator[None]:
    pid = ground.valkey.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def unanswered(ground: Ground) -> Iterator[None]:
    ground.proxy.stall(requests=False)
    try:
        yield
    finally:
        ground.proxy.flow()


def refusing(error: str, matching: Callable[[Request], bool] | None = is_script) -> Any:
    @contextmanager
    def refused(ground: Ground) -> Iterator[None]:
        ground.proxy.reject(error, matching=matching)
        yield
        ground.proxy.accept()

    return refused


@contextmanager
def without_memory(ground: Ground) -> Iterator[None]:
    ground.valkey.command("CONFIG", "SET", "maxmemory", "1")
    yield
    ground.valkey.command("CONFIG", "SET", "maxmemory", "0")


@contextmanager
def forbidden(ground: Ground) -> Iterator[None]:
    ground.valkey.command("ACL", "SETUSER", "default", "-@scripting")
    yield
    ground.valkey.command("ACL", "SETUSER", "default", "+@all")


AWAY = {"unreachable", "slow", "breaker_open"}
FAULTS: dict[str, tuple[Any, set[str], set[str]]] = {
    # What goes wrong, why lookups miss (they hit if there is nothing), why nothing is stored.
    "killed": (killed, AWAY, {"unreachable"}),
    "frozen": (frozen, AWAY, {"unreachable"}),
    "unanswered": (unanswered, AWAY, {"unreachable"}),
    "loading": (
        *(refusing("LOADING Valkey is loading the dataset in memory"), AWAY),
        {"rejected", "unreachable"},
    ),
    "refuses writes": (refusing("NOREPLICAS Not enough good replicas", None), set(), {"rejected"}),
    "full": (without_memory, set(), {"full"}),
    "forbidden": (forbidden, {"misconfigured"}, {"misconfigured"}),
    "an error of its own": (refusing("ERR nobody knows"), {"corrupt"}, {"failed"}),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_server_in_trouble_is_a_miss(name: str, ground: Ground, kind: str) -> None:
    fault, misses, refusals = FAULTS[name]
    call = Caller(ground.caches(**(BRISK if misses == AWAY else {})), kind)
    await warm(call)
    before = call.cache.stats()
    with fault(ground):
        found = [await call("lookup", QUESTION, SCOPE) for _ in range(LOOKUPS)]
        computed = [await call.computed(f"another {n}", n) for n in range(3)]
        stored = await call("store", QUESTION, SCOPE, "new")
    assert [hit.value for hit in computed] == [0, 1, 2]
    assert not stored
    assert stored.reason in refusals
    after = call.cache.stats()
    if misses:
        reasons = {miss.reason for miss in found}
        assert reasons <= misses
        # Nothing can be stored by one who does not know what is current.
        assert {miss.fence for miss in found} == {None}
        counted = {name: after.misses[name] for name in after.misses if name in misses}
        assert sum(counted.values()) == LOOKUPS + 3
        assert set(counted) >= reasons
    else:
        assert [hit.value for hit in found] == ["old"] * LOOKUPS
        assert after.hits["exact"] - before.hits["exact"] == LOOKUPS
        assert sum(after.not_stored.values()) == 4
    await until(lambda: call.cache.lookup(QUESTION, SCOPE), 15)
    assert (await call("lookup", QUESTION, SCOPE)).value in ("old", "new")


async def test_after_some_failures_nothing_is_asked_for_a_while(ground: Ground, kind: str) -> None:
    """Each slow lookup costs its deadline; these would cost the pipeline minutes together."""
    call = Caller(ground.caches(**BRISK), kind)
    await warm(call)
    began_s = time.monotonic()
    with frozen(ground):
        reasons = [(await call("lookup", QUESTION, SCOPE)).reason for _ in range(500)]
    assert time.monotonic() - began_s < SLOW_S
    assert reasons.count("breaker_open") > 400


async def test_a_server_that_was_never_there_is_a_miss(ground: Ground, kind: str) -> None:
    ground.valkey.kill()
    call = Caller(ground.caches(**BRISK), kind)
    found = [await call("lookup", QUESTION, SCOPE) for _ in range(LOOKUPS)]
    assert {miss.reason for miss in found} <= {"unverified", *AWAY}
    assert (await call.computed(QUESTION, "x")).value == "x"
    assert not await call("store", QUESTION, SCOPE, "x")
    assert call.cache.stats().lookups == LOOKUPS + 1
    ground.valkey.restart()
    await until(lambda: call.cache.store(QUESTION, SCOPE, "x"), 15)
    await until(lambda: call.cache.lookup(QUESTION, SCOPE), 15)


async def test_connections_that_break_are_misses_at_most(ground: Ground, kind: str) -> None:
    call = Caller(ground.caches(**BRISK), kind)
    await warm(call)
    for executed in (True, False):
        ground.proxy.cut_next(executed=executed, matching=is_script)
        assert isinstance(await call("lookup", QUESTION, SCOPE), Hit | Miss)
        ground.proxy.cut_next(executed=executed, matching=is_script)
        assert (await call.computed("another one", "y")).value == "y"
        ground.proxy.cut()
        assert isinstance(await call("lookup", QUESTION, SCOPE), Hit | Miss)
    await until(lambda: call.cache.lookup(QUESTION, SCOPE), 15)


async def test_an_invalidation_still_works_on_a_full_server(ground: Ground, kind: str) -> None:
    call = Caller(ground.caches(), kind)
    await warm(call, evidence={"d1": "1"})
    with without_memory(ground):
        await call("invalidate", "d1", corpus=SCOPE.corpus)
        assert (await call("lookup", QUESTION, SCOPE)).reason == "stale"


# --- what stands in the server is not what should -----------------------------------------


@pytest.mark.parametrize("name", ["versions", "scope", "entry", "claim"])
async def test_a_key_of_another_type_is_a_miss(
    name: str, caches: Caches, valkey: LocalValkey, prefix: str, kind: str
) -> None:
    """As if another program used our keys."""
    call, other = Caller(caches(), kind), Caller(caches(), kind)
    await warm(call, evidence={"d1": "1"})
    await warm(other, evidence={"d1": "1"})
    key = keys_of(call, prefix)[name]
    valkey.command("DEL", key)
    valkey.command(*(("SADD", key, "x") if name == "claim" else ("SET", key, "no hash")))
    for each in (call, other):
        for question in (QUESTION, SIMILAR):
            found = await each("lookup", question, SCOPE)
            assert isinstance(found, Hit) if name == "claim" else isinstance(found, Miss)
        assert (await each.computed(f"one of {each.cache!r}", "y")).value == "y"
    if name == "versions":
        with pytest.raises(InvalidationPending):
            await Caller(caches(invalidate_deadline_s=0), kind)(
                "invalidate", "d1", corpus="handbook"
            )
    valkey.command("DEL", key)
    if name != "claim":
        await until(lambda: call.cache.store(QUESTION, SCOPE, "x"), 15)
    await until(lambda: call.cache.lookup(QUESTION, SCOPE), 15)


async def test_what_others_left_among_the_ids_of_a_scope_is_passed_over(
    caches: Caches, valkey: LocalValkey, prefix: str, kind: str
) -> None:
    call, other = Caller(caches(), kind), Caller(caches(), kind)
    await warm(call)
    for name in (b"\xff\xfe", b"", b"no such entry", b"\0"):
        valkey.command("ZADD", keys_of(call, prefix)["scope"], "17", name)
    for each in (call, other):
        assert await each("lookup", SIMILAR, SCOPE)


def rubbish(draw: random.Random) -> bytes:
    """Something that may stand in a field."""
    shapes: tuple[Callable[[], bytes], ...] = (
        lambda: b"",
        lambda: draw.randbytes(draw.randint(1, 80)),
        lambda: b"%d" % draw.randint(-(2**70), 2**70),
        lambda: b"\x97\x01" + draw.randbytes(20),
        lambda: bytes(48),
        lambda: b"nan",
    )
    return draw.choice(shapes)()


async def test_rubbish_in_any_field_is_never_raised_nor_served(
    caches: Caches, valkey: LocalValkey, prefix: str, kind: str
) -> None:
    draw = random.Random(5)
    call = Caller(caches(), kind)
    keys = keys_of(call, prefix)
    served = 0
    for _ in range(80):
        await call(
            "store", QUESTION, SCOPE, "good", evidence={"d1": "1"}, usage={"input_tokens": 1}
        )
        which = draw.choice(["versions", "entry"])
        fields = valkey.command("HKEYS", keys[which])
        assert isinstance(fields, list)
        if fields:
            field = draw.choice([each for each in fields if isinstance(each, bytes)])
            valkey.command("HSET", keys[which], field, rubbish(draw))
        if draw.random() < 0.3:
            score = draw.choice(["1e300", "-inf", "inf", "17.5", "9007199254740993"])
            valkey.command("ZADD", keys["scope"], score, rubbish(draw))
        for question in (QUESTION, SIMILAR):
            found = await call("lookup", question, SCOPE)
            assert isinstance(found, Miss) or found.value == "good"
            served += bool(found)
        assert (await call.computed(QUESTION, "good")).value == "good"
        if draw.random() < 0.3:
            valkey.command("DEL", keys["versions"], keys["scope"], keys["entry"])
    valkey.command("DEL", keys["versions"], keys["scope"], keys["entry"])
    await until(lambda: call.cache.store(QUESTION, SCOPE, "good"), 15)
    await until(lambda: call.cache.lookup(SIMILAR, SCOPE), 15)


# --- the primary store --------------------------------------------------------------------


@contextmanager
def unprepared(url: str, prefix: str, file: Path) -> Iterator[SemanticCache]:
    """A cache whose primary store nobody has looked at yet."""
    given: dict[str, Any] = {"key_prefix": prefix, "primary": f"sqlite:///{file}", **BRISK}
    with SemanticCache(url, embedder=Bag(), **given) as cache:
        yield cache


async def test_a_primary_store_that_is_locked_is_a_miss(
    prefix: str, tmp_path: Path, valkey: LocalValkey
) -> None:
    file = tmp_path / "versions.db"
    with unprepared(valkey.url, prefix, file) as cache:
        call = Caller(cache, "async")
        with closing(sqlite3.connect(file, isolation_level=None)) as database:
            database.execute("BEGIN EXCLUSIVE")
            for _ in range(LOOKUPS):
                assert (await call("lookup", QUESTION, SCOPE)).reason == "unverified"
            assert (await call.computed(QUESTION, "x")).value == "x"
            stored = await call("store", QUESTION, SCOPE, "x")
            assert (stored.accepted, stored.reason) == (False, "unverified")
        await until(lambda: cache.store(QUESTION, SCOPE, "x"), 15)
        await until(lambda: cache.lookup(QUESTION, SCOPE), 15)


async def test_a_primary_store_that_can_not_be_opened_is_a_miss(
    prefix: str, tmp_path: Path, valkey: LocalValkey
) -> None:
    file = tmp_path / "versions.db"
    file.mkdir()
    with unprepared(valkey.url, prefix, file) as cache:
        call = Caller(cache, "sync")
        for _ in range(LOOKUPS):
            assert (await call("lookup", QUESTION, SCOPE)).reason == "unverified"
        assert (await call.computed(QUESTION, "x")).value == "x"
        file.rmdir()
        await until(lambda: cache.store(QUESTION, SCOPE, "x"), 15)
        await until(lambda: cache.lookup(QUESTION, SCOPE), 15)


# --- time ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["frozen", "unanswered"])
async def test_a_lookup_keeps_its_deadline(name: str, ground: Ground, kind: str) -> None:
    """While other requests may take a minute."""
    call = Caller(ground.caches(lookup_deadline_ms=200, request_timeout_ms=60_000), kind)
    await warm(call)
    with FAULTS[name][0](ground):
        began_s = time.monotonic()
        assert not await call("lookup", QUESTION, SCOPE)
        assert time.monotonic() - began_s < SLOW_S
