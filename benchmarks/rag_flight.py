"""Many who miss at once, and a shard that has stopped answering.

The same question is asked by 50 callers at the same moment, in one process and in four, and
counted is how often the answer is computed. A peer that has no call for that is used as its
documentation says: look, compute, store.

Then one shard of three is frozen: it takes requests and answers none. Entries of many
tenants lie on all of them. Counted is how long lookups on that shard hold up their callers,
and whether those on the others still hit. A lookup that is *held up* has waited for the
server; after a few of them the cache leaves a partition alone for a while, and misses at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from benchmarks import rag_faces, rag_peers, rag_process
from benchmarks.contenders import OURS
from benchmarks.faces import FACES, FaceName
from benchmarks.figures import Column, Figure, Goal
from benchmarks.rag_process import CALLERS, COMPUTES_S
from benchmarks.rag_questions import THRESHOLD, Prepared, Questions
from benchmarks.session import Session
from langgraph_valkey.link import finish
from langgraph_valkey.local import LocalCluster
from rag_cache import CacheSettings, Scope, SemanticCache
from rag_cache.partitions import partition_of

PROCESSES = 4
ROUNDS, ROUNDS_QUICK = 11, 2
ONCE = Goal(1, "nothing")

FREEZES, FREEZES_QUICK = 5, 1
SHARDS, FROZEN = 3, 1
TENANTS, NEWCOMERS = 48, 12
"""Those whose entries are known, and those who come when a shard is frozen already."""

FROZEN_S = 5.0
CALLERS_MEANWHILE = 4
PAUSE_S = 0.01
"""Between two lookups of one of them."""

HELD_UP, ALL = Goal(60, "nothing"), Goal(100, "nothing", at_least=True)
QUESTION = "How do I change the address of my contract?"


def measure(session: Session) -> list[Figure]:
    """Single flight, and the frozen shard."""
    return [_flights(session), _frozen(session)]


# --- single flight ---------------------------------------------------------------------


def _flights(session: Session) -> Figure:
    figure = Figure("rag-flight", f"{CALLERS} ask the same at once: how often it is computed")
    figure.notes.append(
        f"A computation takes {COMPUTES_S:g} s. The most of all rounds is shown. Peers have no "
        "call that computes once, so there each caller looks, computes and stores."
    )
    embedder = Prepared(Questions(1, session.seed))
    store = session.servers.valkey(cluster=True)
    rounds = ROUNDS_QUICK if session.quick else ROUNDS
    for face in FACES:
        lined_up = [
            rag_faces.ours(session.servers, face, store, session.new_thread(), embedder),
            *rag_peers.line_up(session.servers, face, embedder),
        ]
        case = figure.case(f"in one process, {face}", "", ONCE)
        with session.opened(lined_up, figure) as opened:
            for who in opened:
                session.progress(f"{figure.name}: {who.contender.name}, {face}")
                who.run(who.saver.ask("What is this?"))  # Indexes and connections are made.
                times = [
                    rag_process.asked_by_all(session.runner, face, who.saver, each)
                    for each in _questions(session, rounds)
                ]
                case.add(who.contender.name, max(times))
    for face in FACES:
        session.progress(f"{figure.name}: {PROCESSES} processes, {face}")
        prefix = session.new_thread()
        primary = f"sqlite:///{session.servers.sqlite(prefix).path}"
        with rag_process.processes(PROCESSES, store.url, prefix, primary, face) as started:
            times = [started.asked_by_all(each) for each in _questions(session, rounds)]
        case = figure.case(f"in {PROCESSES} processes, {face}", "", ONCE)
        case.add(OURS, max(times))
    return figure


def _questions(session: Session, count: int) -> list[str]:
    return [f"{QUESTION} It is {session.new_thread()}." for _ in range(count)]


# --- a frozen shard --------------------------------------------------------------------


class _Looked(NamedTuple):
    """A lookup: whose, how long it took, and what came of it."""

    tenant: str
    spent_ms: float
    came: str


@dataclass(frozen=True, slots=True)
class _Tenants:
    """Who asks.

    Attributes:
        scopes: Of each, by its name.
        shard: Where its entries are.
        known: Those who have an answer, and were served before.
    """

    scopes: dict[str, Scope]
    shard: dict[str, int]
    known: frozenset[str]


def _frozen(session: Session) -> Figure:
    figure = Figure("rag-frozen", f"One shard of {SHARDS} frozen: lookups meanwhile")
    figure.columns.append(Column(OURS, "ours", speaks_valkey=True))
    figure.notes.append(
        f"{TENANTS} tenants with an answer each, and {NEWCOMERS} more who come while the shard is "
        f"frozen; {CALLERS_MEANWHILE} callers, {FROZEN_S:g} s, no replicas. 'Held up': has waited "
        "for the server."
    )
    embedder = Prepared(Questions(1, session.seed))
    with LocalCluster(shards=SHARDS, replicas=0) as cluster:
        for turn in range(FREEZES_QUICK if session.quick else FREEZES):
            for face in FACES:
                session.progress(f"{figure.name}: {face}, freeze {turn + 1}")
                prefix = session.new_thread()
                primary = f"sqlite:///{session.servers.sqlite(prefix).path}"
                settings = CacheSettings.from_url(
                    cluster.url, key_prefix=prefix, primary=primary, threshold=THRESHOLD
                )
                with SemanticCache(settings, embedder=embedder) as cache:
                    tenants = _tenants(cluster, prefix)
                    _prepare(session, cache, face, tenants)
                    cluster.freeze_primary(FROZEN)
                    try:
                        looked = _look(session, cache, face, tenants)
                    finally:
                        cluster.resume(FROZEN)
                        cluster.wait_healthy()
                _score(figure, face, looked, tenants)
    return figure


def _tenants(cluster: LocalCluster, prefix: str) -> _Tenants:
    names = [f"tenant {number}" for number in range(TENANTS + NEWCOMERS)]
    scopes = {name: Scope(tenant=name, corpus="handbook") for name in names}
    shard = {
        name: cluster.shard_of(partition_of(prefix, "handbook", name, 0).versions) for name in names
    }
    return _Tenants(scopes, shard, frozenset(names[:TENANTS]))


def _prepare(session: Session, cache: SemanticCache, face: FaceName, tenants: _Tenants) -> None:
    """Have an answer for each, and be connected."""
    for name in tenants.known:
        scope = tenants.scopes[name]
        stored = cache.store(QUESTION, scope, f"That of {name}.")
        if face == "async":
            found = session.runner.run(cache.alookup(QUESTION, scope))
        else:
            found = cache.lookup(QUESTION, scope)
        if not stored or not found:
            raise AssertionError("an answer was not stored, or not served")


def _look(
    session: Session, cache: SemanticCache, face: FaceName, tenants: _Tenants
) -> list[_Looked]:
    """What callers see, each with tenants of its own."""
    until_s = time.monotonic() + FROZEN_S
    names = list(tenants.scopes)
    parts = [names[first::CALLERS_MEANWHILE] for first in range(CALLERS_MEANWHILE)]

    async def blocking(scope: Scope) -> Any:
        return cache.lookup(QUESTION, scope)

    async def hold(delay_s: float) -> None:
        time.sleep(delay_s)

    async def looping(scope: Scope) -> Any:
        return await cache.alookup(QUESTION, scope)

    async def all_tasks() -> list[list[_Looked]]:
        callers = (_caller(looping, asyncio.sleep, each, tenants, until_s) for each in parts)
        return await asyncio.gather(*callers)

    if face == "async":
        found = session.runner.run(all_tasks())
    else:
        with ThreadPoolExecutor(len(parts)) as pool:
            found = list(
                pool.map(
                    lambda each: finish(_caller(blocking, hold, each, tenants, until_s)), parts
                )
            )
    return [looked for some in found for looked in some]


async def _caller(
    look: Callable[[Scope], Awaitable[Any]],
    rest: Callable[[float], Awaitable[None]],
    names: Sequence[str],
    tenants: _Tenants,
    until_s: float,
) -> list[_Looked]:
    seen = []
    while time.monotonic() < until_s:
        for name in names:
            started = time.perf_counter()
            found = await look(tenants.scopes[name])
            spent_ms = (time.perf_counter() - started) * 1e3
            seen.append(_Looked(name, spent_ms, "hit" if found else found.reason))
            await rest(PAUSE_S)
    return seen


WAITED = ("slow", "unreachable")


def _score(figure: Figure, face: FaceName, looked: Sequence[_Looked], tenants: _Tenants) -> None:
    there = [each for each in looked if tenants.shard[each.tenant] == FROZEN]
    held_up = [each for each in there if each.came in WAITED]
    others = [
        each
        for each in looked
        if tenants.shard[each.tenant] != FROZEN and each.tenant in tenants.known
    ]
    for name, unit, value, goal in (
        ("of the frozen shard, held up: p99", "ms", _p99(held_up), HELD_UP),
        ("of the frozen shard, all: p99", "ms", _p99(there), None),
        ("of the frozen shard: longest", "ms", max(each.spent_ms for each in there), None),
        ("of the frozen shard: misses", "%", 100 - _hits(there), ALL),
        ("of the other shards: hits", "%", _hits(others), None),
        ("of the other shards: p99", "ms", _p99(others), None),
    ):
        figure.case(f"{name}, {face}", unit, goal).add(OURS, value)
    figure.case(f"of the frozen shard, held up: how many, {face}", "").add(OURS, len(held_up))


def _p99(looked: Sequence[_Looked]) -> float:
    return float(np.quantile([each.spent_ms for each in looked], 0.99))


def _hits(looked: Sequence[_Looked]) -> float:
    return 100 * sum(each.came == "hit" for each in looked) / len(looked)
