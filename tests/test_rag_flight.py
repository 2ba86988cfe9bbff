"""Single flight: of many who miss at once one computes, and none waits for what never comes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from langgraph_valkey.local import LocalValkey
from rag_cache import Computed, Hit, Miss, Scope, SemanticCache
from rag_cache.partitions import Partition, partition_of
from rag_cache.shelves import Shelf
from rag_cache.storing import EVIDENCE_MOST
from rag_cache.values import VALUE_BYTES_MAX
from tests.failover_ground import until
from tests.rag_crowd import Crowd
from tests.rag_flyer import QUESTION
from tests.rag_ground import SCOPE, Caches

ROOT = Path(__file__).resolve().parents[1]
MANY = 50
PATIENT_MS = 20_000
"""The deadline of lookups here: a busy machine must not turn them into misses."""


@pytest.fixture
def crowd(caches: Caches, kind: str) -> Crowd:
    return Crowd(caches(lookup_deadline_ms=PATIENT_MS), kind)


def home(prefix: str) -> Partition:
    return partition_of(prefix, SCOPE.corpus, SCOPE.tenant, 0)


def entry_id(cache: SemanticCache) -> str:
    return cache._answers.asking(cache._blocking, QUESTION, SCOPE, None).entry_id


def claim_of(cache: SemanticCache, prefix: str) -> bytes:
    return home(prefix).claims + entry_id(cache).encode()


async def test_of_many_at_once_one_computes(crowd: Crowd, valkey: LocalValkey, prefix: str) -> None:
    found = await crowd.ask(MANY, lambda _: "x", 0.2)
    assert [hit.value for hit in found] == ["x"] * MANY
    assert crowd.times == 1
    assert sorted(hit.tier for hit in found) == ["computed"] + ["exact"] * (MANY - 1)
    stats = crowd.cache.stats()
    assert (stats.hits, stats.misses) == ({"flight": MANY - 1}, {"absent": 1})
    assert not valkey.command("EXISTS", claim_of(crowd.cache, prefix))


@contextmanager
def flying(
    valkey: LocalValkey, prefix: str, folder: Path, takes_s: float, flight_s: float, callers: int
) -> Iterator[subprocess.Popen[str]]:
    """A process that is ready to ask; see `rag_flyer`."""
    given = [valkey.url, prefix, folder, folder / "log", callers, takes_s, flight_s]
    command = [sys.executable, "-m", "tests.rag_flyer", *map(str, given)]
    pipe = subprocess.PIPE
    flyer = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    try:
        yield flyer
    finally:
        flyer.kill()
        flyer.communicate()


def line_of(flyer: subprocess.Popen[str]) -> list[str]:
    assert flyer.stdout is not None
    return flyer.stdout.readline().split()


def begin(flyer: subprocess.Popen[str]) -> None:
    assert flyer.stdin is not None
    flyer.stdin.write("\n")
    flyer.stdin.flush()


def test_of_many_in_four_processes_one_computes(
    valkey: LocalValkey, prefix: str, tmp_path: Path
) -> None:
    given = (valkey, prefix, tmp_path, 0.5, 30.0, MANY)
    with flying(*given) as a, flying(*given) as b, flying(*given) as c, flying(*given) as d:
        assert [line_of(each) for each in (a, b, c, d)] == [["ready"]] * 4
        for each in (a, b, c, d):
            begin(each)
        counts = [line_of(each) for each in (a, b, c, d)]
    [computed_by] = (tmp_path / "log").read_text().split()
    assert counts == [[str(MANY), computed_by]] * 4


def test_a_process_that_is_killed_while_it_computes_leaves_it_to_another(
    caches: Caches, valkey: LocalValkey, prefix: str, tmp_path: Path
) -> None:
    cache = caches(lookup_deadline_ms=PATIENT_MS, flight_s=1.0)
    with flying(valkey, prefix, tmp_path, 60, 1.0, 1) as flyer:
        assert line_of(flyer) == ["ready"]
        begin(flyer)
        while not (tmp_path / "log").exists():
            time.sleep(0.01)
        flyer.kill()
    assert valkey.command("EXISTS", claim_of(cache, prefix))
    hit = cache.get_or_compute(QUESTION, SCOPE, lambda: "mine")
    assert (hit.value, hit.tier) == ("mine", "computed")
    assert not valkey.command("EXISTS", claim_of(cache, prefix))


async def test_of_those_who_wait_for_a_dead_process_one_computes(
    caches: Caches, valkey: LocalValkey, prefix: str
) -> None:
    party = [Crowd(caches(lookup_deadline_ms=PATIENT_MS, flight_s=1.0), "sync") for _ in range(3)]
    valkey.command("SET", claim_of(party[0].cache, prefix), "a dead one", "PX", 700)
    found = await asyncio.gather(*[each.ask(5, lambda _: "x", 0.6) for each in party])
    assert [hit.value for hits in found for hit in hits] == ["x"] * 15
    assert sum(each.times for each in party) == 1


def test_what_was_stored_between_the_look_and_the_claim_is_not_computed_again(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = (caches(lookup_deadline_ms=PATIENT_MS) for _ in range(2))
    link = mine._blocking.lookups
    send = link.send

    async def sent(requests: Any) -> Any:
        if requests[0].script.name == "claim" and not other.lookup(QUESTION, SCOPE):
            assert other.store(QUESTION, SCOPE, "theirs")
        return await send(requests)

    monkeypatch.setattr(link, "send", sent)
    assert mine.get_or_compute(QUESTION, SCOPE, lambda: "mine").value == "theirs"


def test_who_was_too_slow_does_not_give_back_anothers_claim(
    caches: Caches, valkey: LocalValkey, prefix: str
) -> None:
    cache = caches(lookup_deadline_ms=PATIENT_MS, flight_s=0.2)
    claim = claim_of(cache, prefix)

    def slow() -> str:
        while valkey.command("EXISTS", claim):
            time.sleep(0.01)
        valkey.command("SET", claim, "another one", "PX", 60_000)
        return "x"

    assert cache.get_or_compute(QUESTION, SCOPE, slow).value == "x"
    assert valkey.command("GET", claim) == b"another one"


async def test_a_leader_that_fails_keeps_nobody(
    crowd: Crowd, valkey: LocalValkey, prefix: str
) -> None:
    def value(number: int) -> Any:
        if number == 0:
            raise ValueError("the model is away")
        return number

    found = await crowd.ask(10, value, 0.1)
    failures = [each for each in found if isinstance(each, Exception)]
    assert [str(each) for each in failures] == ["the model is away"]
    assert len([each for each in found if isinstance(each, Hit)]) == 9
    # They have waited once, and compute at the same time.
    assert crowd.most > 1
    assert not valkey.command("EXISTS", claim_of(crowd.cache, prefix))


async def test_a_leader_that_is_cancelled_keeps_nobody(
    caches: Caches, valkey: LocalValkey, prefix: str
) -> None:
    cache = caches(lookup_deadline_ms=PATIENT_MS)
    begun = asyncio.Event()

    async def never() -> str:
        begun.set()
        await asyncio.sleep(3600)
        raise AssertionError

    async def soon() -> str:
        return "x"

    leader = asyncio.create_task(cache.aget_or_compute(QUESTION, SCOPE, never))
    await begun.wait()
    others = [asyncio.create_task(cache.aget_or_compute(QUESTION, SCOPE, soon)) for _ in range(5)]
    await asyncio.sleep(0.05)
    assert valkey.command("EXISTS", claim_of(cache, prefix))
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    assert [hit.value for hit in await asyncio.gather(*others)] == ["x"] * 5
    assert not valkey.command("EXISTS", claim_of(cache, prefix))


async def test_a_follower_that_is_cancelled_is_gone(crowd: Crowd) -> None:
    flight = asyncio.create_task(crowd.ask(3, lambda _: "x", 0.3))
    await until(lambda: crowd.times)

    async def never() -> str:
        raise AssertionError

    follower = asyncio.create_task(crowd.cache.aget_or_compute(QUESTION, SCOPE, never))
    await asyncio.sleep(0.05)
    follower.cancel()
    with pytest.raises(asyncio.CancelledError):
        await follower
    assert [hit.value for hit in await flight] == ["x"] * 3
    assert crowd.times == 1


async def test_both_faces_of_a_process_fly_together(caches: Caches) -> None:
    cache = caches(lookup_deadline_ms=PATIENT_MS)
    loops, threads = Crowd(cache, "async"), Crowd(cache, "sync")
    found = await asyncio.gather(
        loops.ask(20, lambda _: "x", 0.3), threads.ask(20, lambda _: "x", 0.3)
    )
    assert [hit.value for hits in found for hit in hits] == ["x"] * 40
    assert loops.times + threads.times == 1


async def test_a_blocking_call_on_the_leaders_event_loop_does_not_wait_for_it(
    caches: Caches,
) -> None:
    """The leader can't go on before it has returned."""
    cache = caches(lookup_deadline_ms=PATIENT_MS, flight_s=20.0)
    begun = asyncio.Event()

    async def slow() -> str:
        begun.set()
        await asyncio.sleep(0.1)
        return "the leader's"

    leader = asyncio.create_task(cache.aget_or_compute(QUESTION, SCOPE, slow))
    await begun.wait()
    began_s = time.monotonic()
    assert cache.get_or_compute(QUESTION, SCOPE, lambda: "mine").value == "mine"
    assert time.monotonic() - began_s < 10
    assert (await leader).value == "the leader's"


async def test_a_computation_that_asks_for_itself_does_not_wait_for_itself(
    caches: Caches, kind: str
) -> None:
    cache = caches(lookup_deadline_ms=PATIENT_MS, flight_s=20.0)
    began_s = time.monotonic()
    if kind == "async":

        async def ainner() -> str:
            return "inner"

        async def aouter() -> str:
            inner = asyncio.create_task(cache.aget_or_compute(QUESTION, SCOPE, ainner))
            return f"outer of {(await inner).value}"

        hit = await cache.aget_or_compute(QUESTION, SCOPE, aouter)
    else:

        def outer() -> str:
            return f"outer of {cache.get_or_compute(QUESTION, SCOPE, lambda: 'inner').value}"

        hit = await asyncio.to_thread(cache.get_or_compute, QUESTION, SCOPE, outer)
    assert hit.value == "outer of inner"
    assert time.monotonic() - began_s < 10


@contextmanager
def hanging(cache: SemanticCache) -> Iterator[threading.Event]:
    """A thread that computes until the event is set, and at the end."""
    begun, end = threading.Event(), threading.Event()

    def hangs() -> str:
        begun.set()
        end.wait()
        return "late"

    leader = threading.Thread(target=cache.get_or_compute, args=(QUESTION, SCOPE, hangs))
    leader.start()
    try:
        assert begun.wait(10)
        yield end
    finally:
        end.set()
        leader.join()


async def test_a_leader_that_hangs_is_left_alone_when_its_time_is_over(caches: Caches) -> None:
    cache = caches(lookup_deadline_ms=PATIENT_MS, flight_s=1.0)
    with hanging(cache):
        crowd = Crowd(cache, "sync")
        found = await asyncio.wait_for(crowd.ask(10, lambda _: "x", 0.5), 15)
        assert [hit.value for hit in found] == ["x"] * 10
        assert crowd.times == 1
    assert cache.lookup(QUESTION, SCOPE)


@pytest.mark.parametrize("processes", [1, 2])
async def test_who_waits_for_what_becomes_stale_gets_what_is_current(
    caches: Caches, kind: str, processes: int
) -> None:
    """The document changes while the leader computes: its answer is the leader's alone."""
    party = [Crowd(caches(lookup_deadline_ms=PATIENT_MS), kind) for _ in range(processes)]
    now = [1]

    def value(_: int) -> Computed:
        return Computed(made, {"d1": None}) if (made := now[0]) > 1 else Computed(1, {"d1": None})

    first, second = party[0], party[-1]
    leads = asyncio.create_task(first.ask(1, lambda _: Computed(1, {"d1": None}), 0.6))
    await until(lambda: first.times)
    waits = asyncio.create_task(first.ask(10, value, 0.1))
    across = asyncio.create_task(second.ask(10, value, 0.1))
    await asyncio.sleep(0.2)
    now[0] = 2
    await asyncio.to_thread(first.cache.invalidate, "d1", corpus=SCOPE.corpus)
    late = asyncio.create_task(second.ask(10, value, 0.1))
    assert [hit.value for hit in await leads] == [1]
    for crowd in (waits, across, late):
        assert [hit.value for hit in await crowd] == [2] * 10
    assert sum(each.times for each in party) == 2
    assert first.cache.stats().not_stored == {"stale": 1}


async def test_what_can_never_be_stored_is_not_computed_by_one_after_the_other(
    crowd: Crowd,
) -> None:
    """As while the server is full: many who wait for each other in vain would take for ever."""
    crowd.cache.invalidate("d1", version="2", corpus=SCOPE.corpus)
    found = await crowd.ask(20, lambda _: Computed("x", {"d1": "1"}), 0.2)
    assert [hit.value for hit in found] == ["x"] * 20
    assert crowd.most >= 15
    assert crowd.cache.stats().not_stored == {"stale": 20}


async def test_of_many_who_are_too_late_to_ask_one_computes(
    caches: Caches, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a busy machine: it is their own time that is over, not the server's answer."""
    many = 10 if kind == "sync" else 4
    crowd = Crowd(caches(lookup_deadline_ms=500), kind)
    assert not crowd.cache.lookup("who are you", SCOPE)  # It knows the scope whole now.
    search, calls = Shelf.search, count()

    def late(*args: Any) -> Any:
        if next(calls) <= many:  # Of the lookup below, and of the first one of each.
            time.sleep(0.6)
        return search(*args)

    monkeypatch.setattr(Shelf, "search", late)
    missed = crowd.cache.lookup(QUESTION, SCOPE)
    assert isinstance(missed, Miss)
    assert (missed.reason, missed.fence) == ("slow", None)
    found = await crowd.ask(many, lambda _: "x", 0.2)
    assert {hit.value for hit in found} == {"x"}
    assert crowd.times == 1


def test_other_questions_and_tenants_do_not_wait(caches: Caches) -> None:
    cache = caches(lookup_deadline_ms=PATIENT_MS)
    other = Scope(tenant="other", corpus=SCOPE.corpus)
    with hanging(cache):
        assert cache.get_or_compute("something else", SCOPE, lambda: "a").value == "a"
        assert cache.get_or_compute(QUESTION, other, lambda: "b").value == "b"
    assert cache.lookup(QUESTION, SCOPE)


@pytest.mark.parametrize(
    "made",
    [
        Computed(b"x" * VALUE_BYTES_MAX),
        Computed("x", {f"d{n}": None for n in range(EVIDENCE_MOST)}, ["tag"]),
    ],
    ids=["bytes", "evidence"],
)
async def test_what_is_too_large_to_be_stored_is_returned(
    made: Computed, crowd: Crowd, caplog: pytest.LogCaptureFixture
) -> None:
    """It has been paid for."""
    with caplog.at_level("WARNING", "rag_cache"):
        [found] = await crowd.ask(1, lambda _: made, 0.0)
    assert (found.value, found.tier) == (made.value, "computed")
    assert crowd.cache.stats().not_stored == {"too_large": 1}
    assert "is not stored" in caplog.text
    assert not crowd.cache.lookup(QUESTION, SCOPE)
    with pytest.raises(ValueError, match=r"at most|may have"):
        crowd.cache.store(QUESTION, SCOPE, made.value, evidence=made.evidence, tags=made.tags)
