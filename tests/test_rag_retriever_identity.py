"""Which retrievers pass for the same, and which have to be told apart by who uses them."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore

from langgraph_valkey.errors import ConfigurationError
from rag_cache.faces import CachedRetriever
from tests.rag_ground import Bag, Caches
from tests.rag_models import ask
from tests.test_rag_retriever import QUESTION, Library, documents


async def test_around_a_vector_store(caches: Caches, kind: str) -> None:
    store = InMemoryVectorStore(Bag())
    store.add_documents(documents(hours="1", map="1", menu="1"))
    cache = caches()
    ones = [
        CachedRetriever(retriever=store.as_retriever(search_kwargs={"k": k}), cache=cache)
        for k in (1, 2)
    ]
    for _ in range(2):
        found = [len(await ask(kind, each, "what hours says")) for each in ones]
        assert found == [1, 2]
    assert cache.stats().hits == {"exact": 2}


class Wrapping(BaseRetriever):
    """A retriever around others, with a step between.

    Attributes:
        inner: The others.
        step: Anything.
    """

    inner: list[BaseRetriever]
    step: Any = None

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [found for each in self.inner for found in each.invoke(query)]


async def test_retrievers_in_retrievers_are_told_apart(caches: Caches, kind: str) -> None:
    cache = caches()
    found = documents(a="1", b="1", c="1")
    for ks in ([1], [2], [1, 1], [1], [2]):
        # A library tells what it was asked, so each is a new one.
        inner: list[BaseRetriever] = [Library(found=found, k=k) for k in ks]
        retriever = CachedRetriever(retriever=Wrapping(inner=inner), cache=cache)
        assert len(await ask(kind, retriever, QUESTION)) == sum(ks)
    assert cache.stats().hits == {"exact": 2}


@pytest.mark.parametrize(
    "unknown",
    [
        RunnableLambda(lambda _: []),
        RunnableLambda(str) | RunnableLambda(str.split),
        Wrapping(inner=[], step=lambda _: []),
        Wrapping(inner=[], step={"filter": lambda _: True}),
        Wrapping(inner=[], step=[RunnableLambda(len)]),
    ],
    ids=range(5),
)
def test_what_can_not_be_told_from_others_needs_an_identity(caches: Caches, unknown: Any) -> None:
    with pytest.raises(ConfigurationError, match="identity"):
        CachedRetriever(retriever=unknown, cache=caches())
    assert CachedRetriever(retriever=unknown, cache=caches(), identity="x")


async def test_a_parameter_that_is_changed_counts_from_then_on(caches: Caches, kind: str) -> None:
    store = InMemoryVectorStore(Bag())
    store.add_documents(documents(hours="1", map="1", menu="1"))
    inner = store.as_retriever(search_kwargs={"k": 1})
    retriever = CachedRetriever(retriever=inner, cache=caches())
    assert len(await ask(kind, retriever, QUESTION)) == 1
    inner.search_kwargs["k"] = 2
    assert len(await ask(kind, retriever, QUESTION)) == 2
    # What can't be told from another goes past the cache.
    inner.search_kwargs["filter"] = lambda document: document.metadata["source"] == "map"
    [found] = await ask(kind, retriever, QUESTION)
    inner.search_kwargs["filter"] = lambda document: document.metadata["source"] == "menu"
    [other] = await ask(kind, retriever, QUESTION)
    assert (found.metadata["source"], other.metadata["source"]) == ("map", "menu")
