"""The retriever around others: what is found again, and what makes it stale."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from pydantic import Field, ValidationError

from langgraph_valkey.local import LocalValkey
from rag_cache import SemanticCache
from rag_cache.faces import CachedRetriever
from tests.rag_ground import Bag, Caches
from tests.rag_models import ask

QUESTION, SIMILAR = "when does the shop open", "the shop when does open"


class Library(BaseRetriever):
    """A retriever that finds what it is given, and counts.

    Attributes:
        found: What it finds.
        asked: The queries, with further arguments.
        k: A parameter.
    """

    found: list[Document] = Field(default_factory=list)
    asked: list[Any] = Field(default_factory=list)
    k: int = 4

    def _get_relevant_documents(
        self, query: str, *, run_manager: Any, **kwargs: Any
    ) -> list[Document]:
        self.asked.append((query, kwargs))
        return self.found[: self.k]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: Any, **kwargs: Any
    ) -> list[Document]:
        await asyncio.sleep(0)
        return self._get_relevant_documents(query, run_manager=run_manager, **kwargs)


def documents(**versions: Any) -> list[Document]:
    return [
        Document(f"{name} says", metadata={"source": name, "version": version, "score": 0.5})
        for name, version in versions.items()
    ]


def around(cache: SemanticCache, library: Any, **given: Any) -> CachedRetriever:
    # Its parameters are counters here, which must not tell it from itself.
    given = {"identity": "library", **given}
    return CachedRetriever(retriever=library, cache=cache, **given)


async def test_what_was_found_is_found_again_for_the_same_meaning(
    caches: Caches, kind: str
) -> None:
    cache = caches()
    library = Library(found=documents(hours="1", map=2))
    retriever = around(cache, library)
    first = await ask(kind, retriever, QUESTION)
    again = await ask(kind, retriever, SIMILAR)
    assert first == again == library.found
    assert again is not first
    assert library.asked == [(QUESTION, {})]
    assert await ask(kind, retriever, "where is the weather made") == library.found
    assert len(library.asked) == 2
    counted = cache.stats()
    assert (counted.hits, counted.stored) == ({"process": 1}, 2)


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ({"document": "hours", "version": "2"}, True),
        ({"document": "hours", "version": "1"}, False),
        ({"document": "hours"}, True),
        ({"document": "map", "version": "8"}, True),
        ({"document": "map", "version": "7"}, False),
        ({"document": "else"}, False),
        ({"tag": "shop"}, True),
        ({"document": "hours", "corpus": "another"}, False),
    ],
)
async def test_a_document_that_changes_makes_its_results_stale(
    caches: Caches, kind: str, change: Any, stale: bool
) -> None:
    cache = caches()
    library = Library(found=documents(hours="1", map=7))
    retriever = around(cache, library, corpus="handbook", cache_tags=("shop",))
    await ask(kind, retriever, QUESTION)
    cache.invalidate(**{"corpus": "handbook", **change})
    library.found = documents(hours="2")
    assert await ask(kind, retriever, SIMILAR) == (
        documents(hours="2") if stale else documents(hours="1", map=7)
    )


async def test_ids_and_versions_are_read_where_they_are_said_to_be(
    caches: Caches, kind: str
) -> None:
    cache = caches()
    found = [Document("x", id="chunk", metadata={"doc": {"no": 1}, "etag": 5, "source": "s"})]
    retriever = around(cache, library := Library(found=found), id_key="none", version_key="etag")
    await ask(kind, retriever, QUESTION)
    for document, version, times in [("s", None, 1), ("chunk", "5", 1), ("chunk", "6", 2)]:
        cache.invalidate(document, version=version)
        await ask(kind, retriever, QUESTION)
        assert len(library.asked) == times


NO_ID = [Document("x", metadata={"version": "1"})]
MIXED = [*documents(a="1"), Document("x")]
TORN = [*documents(a="1"), *documents(b="1"), *documents(a="2")]
BARE_ID = [Document("x", metadata={"source": ""})]


@pytest.mark.parametrize("found", [NO_ID, MIXED, TORN, BARE_ID, []])
async def test_what_no_document_can_make_stale_is_not_kept(
    caches: Caches, kind: str, found: list[Document]
) -> None:
    cache = caches()
    retriever = around(cache, library := Library(found=found))
    for _ in range(2):
        assert await ask(kind, retriever, QUESTION) == found
    assert (len(library.asked), cache.stats().stored) == (2, 0)


async def test_results_without_ids_are_kept_if_that_is_wanted(caches: Caches, kind: str) -> None:
    retriever = around(caches(), library := Library(found=NO_ID), without_ids=True)
    for _ in range(2):
        assert await ask(kind, retriever, QUESTION) == NO_ID
    assert len(library.asked) == 1
    if kind == "async":
        await retriever.aclear()
    else:
        retriever.clear()
    library.found = []
    for _ in range(2):  # An empty result is kept by nobody.
        assert await ask(kind, retriever, QUESTION) == []
    assert len(library.asked) == 3


async def test_new_documents_are_found_once_it_was_told(caches: Caches, kind: str) -> None:
    cache = caches()
    library = Library(found=documents(a="1"))
    mine, theirs = (around(cache, library, tenant=name) for name in ("acme", "other"))
    for retriever in (mine, theirs):
        await ask(kind, retriever, QUESTION)
    library.found = documents(b="1", a="1")
    mine.clear()
    assert len(await ask(kind, mine, QUESTION)) == 2
    assert len(await ask(kind, theirs, QUESTION)) == 1


async def test_nothing_is_shared_by_tenants_corpora_retrievers_or_arguments(
    caches: Caches, kind: str
) -> None:
    cache = caches()
    found = documents(a="1", b="1")
    libraries = [Library(found=found, k=1 if at == 3 else 4) for at in range(5)]
    different: list[dict[str, Any]] = [
        {"tenant": "acme"},
        {"tenant": lambda: "other"},
        {"corpus": "handbook"},
        {},
        {"identity": "other"},
    ]
    for library, given in zip(libraries, different, strict=True):
        retriever = CachedRetriever(retriever=library, cache=cache, **given)
        assert len(await ask(kind, retriever, QUESTION)) == min(2, library.k)
        assert len(library.asked) == 1
    library = Library(found=found)
    retriever = around(cache, library)

    async def search(**given: Any) -> list[Document]:
        if kind == "async":
            return await retriever.ainvoke(QUESTION, **given)
        return await asyncio.to_thread(retriever.invoke, QUESTION, **given)

    for given, times in [({"filter": {"of": "ann"}}, 1), ({"filter": {"of": "bob"}}, 2), ({}, 3)]:
        for _ in range(2):
            await search(**given)
        assert len(library.asked) == times
        assert library.asked[-1] == (QUESTION, given)
    # An argument that can't be compared goes past the cache, and arrives.
    for unknown in (len, {1, 2}, float("nan")):
        before = len(library.asked)
        for _ in range(2):
            await search(filter=unknown)
        assert [given["filter"] for _, given in library.asked[before:]] == [unknown] * 2


async def test_results_live_as_long_as_is_said(
    caches: Caches, kind: str, valkey: LocalValkey, prefix: str
) -> None:
    cache = caches(ttl_s={"retrieval": 500, "answer": 5000})
    library = Library(found=documents(a="1"))
    for at, (given, least_s, most_s) in enumerate([({}, 400, 500), ({"ttl_s": 50}, 40, 50)], 1):
        await ask(kind, around(cache, library, identity=f"library {at}", **given), QUESTION)
        keys = valkey.command("KEYS", f"{prefix}:e:*")
        assert isinstance(keys, list)
        lives = [valkey.command("PTTL", key) for key in keys if isinstance(key, bytes)]
        assert len(lives) == at
        assert any(isinstance(ms, int) and least_s < ms / 1000 <= most_s for ms in lives)


async def test_what_are_no_documents_is_not_served(caches: Caches, kind: str) -> None:
    """As another program, or another release, may have stored it."""
    cache = caches()
    retriever = around(cache, Library(found=documents(a="1")))
    once = retriever._once(QUESTION, {})
    assert once is not None
    assert cache.store(QUESTION, once._scope, ["a text"])
    assert await ask(kind, retriever, QUESTION) == documents(a="1")


async def test_calls_past_the_cache(caches: Caches, kind: str) -> None:
    cache = caches()
    library = Library(found=documents(a="1"))
    nobody = around(cache, library, tenant=lambda: None)
    for retriever, query in [(nobody, QUESTION), (around(cache, library), "  ")]:
        for _ in range(2):
            assert await ask(kind, retriever, query) == library.found
    assert len(library.asked) == 4
    with pytest.raises(TypeError, match="tenant"):
        await ask(kind, around(cache, library, tenant=lambda: 5), QUESTION)


async def test_what_can_not_be_stored_is_returned(caches: Caches, kind: str) -> None:
    found = [Document("x", metadata={"source": "a", "lock": threading.Lock()})]
    retriever = around(caches(), library := Library(found=found))
    for _ in range(2):
        assert (await ask(kind, retriever, QUESTION))[0] is found[0]
    assert len(library.asked) == 2


@pytest.mark.parametrize("failure", [RuntimeError, TypeError, ValueError])
async def test_what_a_retriever_raises_is_raised(
    caches: Caches, kind: str, failure: type[Exception]
) -> None:
    def fail(query: str) -> list[Document]:
        raise failure("the store is away")

    retriever = CachedRetriever(retriever=RunnableLambda(fail), cache=caches(), identity="x")
    for _ in range(2):
        with pytest.raises(failure, match="the store is away"):
            await ask(kind, retriever, QUESTION)


async def test_of_many_at_once_one_retrieves(caches: Caches, kind: str) -> None:
    gate = threading.Event()
    times = 0

    def find(query: str) -> list[Document]:
        nonlocal times
        times += 1
        gate.wait(10)
        return documents(a="1")

    async def afind(query: str) -> list[Document]:
        return await asyncio.to_thread(find, query)

    cache = caches(lookup_deadline_ms=5000)
    retriever = CachedRetriever(retriever=RunnableLambda(find, afind), cache=cache, identity="x")
    asked = [asyncio.create_task(ask(kind, retriever, QUESTION)) for _ in range(20)]
    while times == 0:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    gate.set()
    assert await asyncio.gather(*asked) == [documents(a="1")] * 20
    assert times == 1


async def test_what_must_not_be_kept_is_retrieved_by_each(caches: Caches, kind: str) -> None:
    retriever = around(caches(lookup_deadline_ms=5000), library := Library(found=NO_ID))
    found = await asyncio.gather(*[ask(kind, retriever, QUESTION) for _ in range(8)])
    assert found == [NO_ID] * 8
    assert len(library.asked) == 8


class Runs(BaseCallbackHandler):
    """Keeps which retrievers began and ended, and under which."""

    def __init__(self) -> None:
        self.begun: dict[Any, Any] = {}
        self.ended: list[Any] = []

    def on_retriever_start(
        self, serialized: Any, query: str, *, run_id: Any, parent_run_id: Any = None, **more: Any
    ) -> None:
        self.begun[run_id] = parent_run_id

    def on_retriever_end(self, documents: Any, *, run_id: Any, **more: Any) -> None:
        self.ended.append((run_id, len(documents)))


async def test_callbacks_see_both_retrievers(caches: Caches, kind: str) -> None:
    runs = Runs()
    retriever = around(caches(), Library(found=documents(a="1")))
    await ask(kind, retriever, QUESTION, {"callbacks": [runs]})
    [outer, inner] = runs.begun
    assert runs.begun == {outer: None, inner: outer}
    assert runs.ended == [(inner, 1), (outer, 1)]
    await ask(kind, retriever, QUESTION, {"callbacks": [runs]})
    assert len(runs.begun) == 3
    assert runs.ended[-1][1] == 1


async def test_a_late_result_of_an_old_document_is_refused(caches: Caches, kind: str) -> None:
    cache = caches()

    def find(query: str) -> list[Document]:
        cache.invalidate("a", version="2")
        return documents(a="1")

    old = CachedRetriever(retriever=RunnableLambda(find), cache=cache, identity="x")
    await ask(kind, old, QUESTION)
    assert cache.stats().not_stored == {"stale": 1}
    new = around(cache, Library(found=documents(a="2")), identity="x")
    assert await ask(kind, new, QUESTION) == documents(a="2")


async def test_a_server_that_is_away_costs_no_result(kind: str, tmp_path: Any) -> None:
    with LocalValkey() as server:
        url = server.url
    primary = f"sqlite:///{tmp_path}/p.db"
    with SemanticCache(url, embedder=Bag(), primary=primary) as cache:
        retriever = around(cache, Library(found=documents(a="1")))
        for _ in range(3):
            assert await ask(kind, retriever, QUESTION) == documents(a="1")


def test_what_can_not_be_right_is_refused_at_the_door(caches: Caches) -> None:
    cache, library = caches(), Library()
    with pytest.raises(ValidationError):
        CachedRetriever(retriever=library, cache="redis://x")  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        CachedRetriever(retriever="x", cache=cache)  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        CachedRetriever(retriever=library, cache=cache, tenant=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ttl_s"):
        CachedRetriever(retriever=library, cache=cache, ttl_s=-1)
    assert "cache" not in repr(around(cache, library))
