"""The search alone: nearest neighbours in this process and by the server's index.

That is without the call that checks whether what was found is still right, and without
embedding. In this process a search is one product of a matrix and a vector; beside it
stands that product by numpy, which it can't go below. Judging what was found (the threshold
and all guards) has rows of its own.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import rag_faces
from benchmarks.contenders import OURS, tell
from benchmarks.faces import FACES
from benchmarks.figures import Column, Figure, Goal
from benchmarks.rag_questions import DIMENSION, THRESHOLD, Prepared, Questions
from benchmarks.session import Session
from langgraph_valkey.glide.link import BlockingLink, LoopLink
from langgraph_valkey.link import finish
from langgraph_valkey.settings import ConnectionSettings
from langgraph_valkey.vectors.index import Nearest, SearchLink
from rag_cache.embedding import Embedder
from rag_cache.entries import Card
from rag_cache.guards import DEFAULT_GUARDS
from rag_cache.judging import Judge
from rag_cache.shelves import Shelf
from rag_cache.within import Within

SIZES = {1_000: Goal(0.1, "nothing"), 10_000: Goal(0.6, "nothing")}
SMALLEST = min(SIZES)
BY_INDEX = Goal(0.6, "nothing")
NEIGHBOURS = 8
SEARCHES, SEARCHES_QUICK = 300, 60
ROUNDS, ROUNDS_QUICK = 11, 2
INDEX_LOOKS, INDEX_LOOK_S = 100, 0.1
"""How often, and how long apart, is looked for the index that a cache makes by itself."""
PRODUCT = "the product alone"


def measure(session: Session) -> Figure:
    """All tiers that search."""
    figure = Figure("rag-search", "Search alone, without the call that checks freshness, p50, ms")
    figure.columns += [
        Column(OURS, "ours", speaks_valkey=True),
        Column(PRODUCT, "reference", speaks_valkey=False),
    ]
    figure.notes.append(f"The {NEIGHBOURS} nearest of float32 vectors of {DIMENSION} numbers.")
    for size, goal in SIZES.items():
        _in_process(session, figure, size, goal)
    try:
        _by_index(session, figure)
    except ImportError as error:
        tell(f"the server's index is left out, as there is no search module: {error}")
    return figure


def _in_process(session: Session, figure: Figure, size: int, goal: Goal) -> None:
    questions = Questions(size, session.seed)
    shelf, judge = Shelf(DIMENSION), Judge(THRESHOLD, DEFAULT_GUARDS)
    for number, question in enumerate(questions.stored):
        card = Card(question, f"{number:032x}", tuple(questions.evidence(number)))
        shelf.put(f"{number:032x}", card.pack(), _vector(questions, question).tobytes())
    matrix = np.array([_vector(questions, text) for text in questions.stored])

    def search(_: str, vector: Any) -> bool:
        return len(shelf.search(vector, NEIGHBOURS)) == NEIGHBOURS

    def judged(text: str, vector: Any) -> bool:
        found = judge.judge(text, shelf.search(vector, NEIGHBOURS), None)
        return len(found.admitted) == 1

    def product(_: str, vector: Any) -> bool:
        return len(matrix @ vector) == size

    name = f"in this process, {size:,}"
    for _ in range(ROUNDS_QUICK if session.quick else ROUNDS):
        session.progress(f"{figure.name}: {name}")
        asked = [(text, _vector(questions, text)) for text in questions.reworded(_count(session))]
        figure.case(name, "ms", goal).add(OURS, _median_ms(search, asked))
        figure.case(name, "ms").add(PRODUCT, _median_ms(product, asked))
        figure.case(f"{name}, judged", "ms").add(OURS, _median_ms(judged, asked))


def _median_ms(run: Callable[[str, Any], bool], asked: Sequence[tuple[str, Any]]) -> float:
    spent_ms = []
    for text, vector in asked:
        started = time.perf_counter()
        found = run(text, vector)
        spent_ms.append((time.perf_counter() - started) * 1e3)
        if not found:
            raise AssertionError(f"not found: {text!r}")
    return statistics.median(spent_ms)


def _vector(questions: Questions, text: str) -> np.ndarray[Any, Any]:
    return np.array(questions.vector(text), "<f4")


def _count(session: Session) -> int:
    return SEARCHES_QUICK if session.quick else SEARCHES


def _by_index(session: Session, figure: Figure) -> None:
    """The server's index of small scopes, in which this one is told apart by its tag."""
    questions = Questions(SMALLEST, session.seed)
    store, embedder = session.servers.searching(cluster=True), Prepared(questions)
    prefix = session.new_thread()
    cache = rag_faces.ours(session.servers, "sync", store, prefix, embedder, protocol=2)
    settings = ConnectionSettings.from_url(store.url, protocol=2)
    with session.opened([cache], figure) as [who]:
        session.progress(f"{figure.name}: storing")
        who.run(rag_faces.fill(who.saver, questions))
        key = Within(who.saver.scopes.of(""), Embedder(embedder).id).key
        with contextlib.closing(BlockingLink(settings)) as blocking:
            name = _index_of(blocking, prefix)
            loops = LoopLink(settings, blocking)
            queries = [
                Nearest(name, _vector(questions, text).tobytes(), NEIGHBOURS, key)
                for text in questions.reworded(_count(session))
            ]
            for face in FACES:
                link: Any = loops if face == "async" else blocking
                run: Any = session.runner.run if face == "async" else finish
                row = f"server's index, {SMALLEST:,}, {face}"
                for _ in range(ROUNDS_QUICK if session.quick else ROUNDS):
                    session.progress(f"{figure.name}: {row}")
                    run(_asked_ms(link, queries))
                    figure.case(row, "ms", BY_INDEX).add(OURS, run(_asked_ms(link, queries)))
            loops.close()


async def _asked_ms(link: SearchLink, queries: Sequence[Nearest]) -> float:
    spent_ms = []
    for query in queries:
        started = time.perf_counter()
        found = await link.nearest(query)
        spent_ms.append((time.perf_counter() - started) * 1e3)
        if len(found) != NEIGHBOURS:
            raise AssertionError(f"the index told {len(found)} entries")
    return statistics.median(spent_ms)


def _index_of(link: BlockingLink, prefix: str) -> str:
    """The name of the index that a cache has made; waits for it."""
    for _ in range(INDEX_LOOKS):
        found = [name for name in finish(link.indexes()) or () if name.startswith(prefix)]
        if found:
            return found[0]
        time.sleep(INDEX_LOOK_S)
    raise AssertionError("the cache has made no index")
