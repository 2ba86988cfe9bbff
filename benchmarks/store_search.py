"""Searches over many items in one namespace, with filters and by likeness.

Ours answers from what its process has at hand of a prefix, after asking all buckets for what
is new; that round trip is part of what is measured. The first search of a process, which
reads everything, has a row of its own, and so has a search after another process has changed
an item.

By likeness those are compared that need no module of a server for it. Vectors come from a
table: a model's time is left out. What ours takes where a prefix is too large to be held at
hand, with a search module and without one, is shown beside it.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
from langchain_core.embeddings import Embeddings
from langgraph.store.base import IndexConfig, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore

from benchmarks import store_peers
from benchmarks.contenders import tell
from benchmarks.faces import FACES, Contender, FaceName, Opened
from benchmarks.figures import Figure, Goal, take_turns
from benchmarks.session import Session
from benchmarks.store_faces import timed
from benchmarks.store_items import FOUND, fill, key, namespaces, puts, value
from benchmarks.store_right import Oracle, fits
from langgraph_valkey import limits

GOAL = Goal(2, "nothing")
ITEMS, ITEMS_QUICK = 10_000, 2_000
WARM_UP = 10
SEARCHES, SEARCHES_QUICK = 200, 30
ROUNDS, ROUNDS_QUICK = 11, 2
BUDGET_S = 1.0
[SPACE] = namespaces(1)

SEARCHED: dict[str, dict[str, Any]] = {
    "no filter": {},
    "one in 8, equal": {"filter": {"kind": "plan"}},
    "one in 8, equal, page 16": {"filter": {"kind": "plan"}, "offset": 15 * FOUND},
    "one of all, equal": {"filter": {"turn": 1_777}},
    "one in 10, compared": {"filter": {"importance": {"$gte": 0.9}}},
    "few of all, compared": {"filter": {"importance": {"$gte": 0.9995}}},
    "one in 16, both": {"filter": {"kind": "plan", "importance": {"$lt": 0.5}}},
}
ALIKE: dict[str, dict[str, Any]] = {
    "alike": {"query": "what does she like"},
    "alike, one in 8, equal": {"query": "what does she like", "filter": {"kind": "plan"}},
    "alike, few of all, compared": {
        "query": "what does she like",
        "filter": {"importance": {"$gte": 0.9995}},
    },
}
DIMENSION = 384
AT_HAND = 100
"""Items that a process may hold, where the prefix has to be too large."""


def measure(session: Session) -> list[Figure]:
    """Both faces."""
    size = ITEMS_QUICK if session.quick else ITEMS
    figure = Figure("store-search", f"A search over {size:,} items in one namespace, p50, ms")
    figure.notes += [
        "Ours asks the server what is new, in one round trip, and then answers in its process.",
        "InMemoryStore is a reference, not a peer: it stores nothing.",
    ]
    filling = puts([SPACE], size, session.seed)
    for face in FACES:
        _by_filters(session, figure, face, filling)
        _by_likeness(session, figure, face, filling)
    return [figure]


def _by_filters(session: Session, figure: Figure, face: FaceName, filling: Sequence[PutOp]) -> None:
    prefix = session.new_thread()
    ours = store_peers.ours(session.servers, face, prefix)
    lined_up = [ours, *store_peers.line_up(session.servers, face)]
    oracle = Oracle(filling)
    with session.opened(lined_up, figure) as opened:
        _fill(session, figure, opened, filling)
        for name, how in SEARCHED.items():
            case = figure.case(f"{name}, {face}", "ms", GOAL if how else None)
            ops = [SearchOp(SPACE, limit=FOUND, **how)]
            fit = [who for who in opened if fits(who, case, [(ops, oracle.judgements(ops))])]
            _time(session, figure, case.name, fit, how)
        _changed(session, figure, face, prefix, opened[0])
    _first(session, figure, face, prefix)


def _by_likeness(
    session: Session, figure: Figure, face: FaceName, filling: Sequence[PutOp]
) -> None:
    index: IndexConfig = {"dims": DIMENSION, "embed": Table(), "fields": ["text"]}
    ours = store_peers.ours(session.servers, face, session.new_thread(), index=index)
    memory = store_peers.in_memory(face, InMemoryStore(index=index))
    query = ALIKE["alike"]
    with session.opened([ours, memory], figure) as opened:
        _fill(session, figure, opened, filling)
        for name, how in ALIKE.items():
            case = figure.case(f"{name}, {face}", "ms", GOAL)
            mine, right = (_found(who, how) for who in opened)
            assert mine == right, f"{case.name}: other items than InMemoryStore's"
            _time(session, figure, case.name, opened, how)
        right = _found(opened[1], query)
    for name, large in _too_large(session, face, index):
        with session.opened([large], figure) as opened:
            _fill(session, figure, opened, filling)
            assert _found(opened[0], query) == right, f"{name}: other items than InMemoryStore's"
            _time(session, figure, f"alike, too large to hold, {name}, {face}", opened, query)


def _found(who: Opened, how: dict[str, Any]) -> set[str]:
    """Keys of what is found."""
    return {item.key for item in who.run(who.saver.search(SPACE, **how))}


def _too_large(
    session: Session, face: FaceName, index: IndexConfig
) -> Iterator[tuple[str, Contender]]:
    """Ours with next to no room in its process."""
    with patch.object(limits, "MIRROR_ROWS", AT_HAND):
        prefix = session.new_thread()
        yield "walked over", store_peers.ours(session.servers, face, prefix, index=index)
        try:
            server = session.servers.searching(cluster=True)
        except ImportError as error:
            tell(f"the server's index is left out, as there is no search module: {error}")
            return
        settings: dict[str, Any] = {"index": index, "protocol": 2}
        prefix = session.new_thread()
        ours = store_peers.ours(session.servers, face, prefix, server, **settings)
        yield "by the server's index", ours


def _fill(
    session: Session, figure: Figure, opened: Sequence[Opened], filling: Sequence[PutOp]
) -> None:
    for who in opened:
        session.progress(f"{figure.name}: storing, {who.contender.name}, {who.contender.face}")
        who.run(fill(who.saver, filling))


# --- what takes how long -----------------------------------------------------------------


def _sizes(session: Session) -> tuple[int, int]:
    """Rounds, and searches in each."""
    if session.quick:
        return ROUNDS_QUICK, SEARCHES_QUICK
    return ROUNDS, SEARCHES


def _time(
    session: Session, figure: Figure, name: str, who: Sequence[Opened], how: dict[str, Any]
) -> None:
    rounds, count = _sizes(session)
    case = figure.case(name, "ms")

    def one(who: Opened, turn: int) -> None:
        session.progress(f"{figure.name}: {name}, round {turn + 1}/{rounds}")
        search = _searching(who, how)
        who.run(timed(search, WARM_UP, BUDGET_S / 10))
        spent_s = who.run(timed(search, count, BUDGET_S))
        case.add(who.contender.name, statistics.median(spent_s) * 1e3)

    take_turns(who, rounds, one)


def _searching(who: Opened, how: dict[str, Any]) -> Callable[[int], Awaitable[Any]]:
    return lambda _: who.saver.search(SPACE, limit=FOUND, **how)


def _changed(session: Session, figure: Figure, face: FaceName, prefix: str, ours: Opened) -> None:
    """After another process has put one of the items anew."""
    case = figure.case(f"one in 8, equal, changed elsewhere, {face}", "ms", GOAL)
    rounds, count = _sizes(session)
    draw = random.Random(session.seed)
    elsewhere = store_peers.ours(session.servers, face, prefix)
    search = _searching(ours, SEARCHED["one in 8, equal"])
    with session.opened([elsewhere], figure) as [other]:

        async def change(number: int) -> None:
            await other.saver.put(SPACE, key(number), value(number, draw))

        for _ in range(rounds):
            spent_s = ours.run(timed(search, count, BUDGET_S, change))
            case.add(ours.contender.name, statistics.median(spent_s) * 1e3)


def _first(session: Session, figure: Figure, face: FaceName, prefix: str) -> None:
    """The first one of a process that is connected, but has read nothing yet."""
    case = figure.case(f"the first of a process, {face}", "ms")
    for _ in range(_sizes(session)[0]):
        with session.opened([store_peers.ours(session.servers, face, prefix)], figure) as [who]:
            who.run(who.saver.get(SPACE, key(0)))
            [spent_s] = who.run(timed(_searching(who, SEARCHED["one in 8, equal"]), 1, BUDGET_S))
            case.add(who.contender.name, spent_s * 1e3)


class Table(Embeddings):
    """A vector for each text, made from the text."""

    def __init__(self) -> None:
        self._of: dict[str, list[float]] = {}

    def embed_query(self, text: str) -> list[float]:
        """Look it up."""
        found = self._of.get(text)
        if found is None:
            draw = np.random.default_rng(list(text.encode()))
            found = self._of[text] = draw.standard_normal(DIMENSION).tolist()
        return found

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Look them up."""
        return [self.embed_query(text) for text in texts]

    async def aembed_query(self, text: str) -> list[float]:
        """Look it up at once: a thread would take longer."""
        return self.embed_query(text)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Look them up at once."""
        return self.embed_documents(texts)
