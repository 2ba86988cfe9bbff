"""Retrieval, cached for LangChain: a retriever around any other.

```python
retriever = CachedRetriever(
    retriever=store.as_retriever(search_kwargs={"k": 4}),
    cache=cache, tenant=current_tenant, corpus="handbook", version_key="version",
)
```

What was found is served again for a question of the same meaning, while every document in it
is current: their ids and versions are read from the metadata, and ``cache.invalidate(id,
version=new, corpus="handbook")`` after a document has changed makes all stale that had the
old one. Of many equal questions at once one is retrieved.

A document that is *new* is in no result yet, so no result can tell that it is missing. Call
`CachedRetriever.clear` after documents were added, or live with the time to live of
"retrieval". For the same reason an empty result is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, RetrieverLike
from langchain_core.runnables import Runnable
from pydantic import BaseModel, Field, PrivateAttr

from langgraph_valkey.errors import ConfigurationError
from rag_cache.faces.evidence import ID_KEY, VERSION_KEY, evidence_of
from rag_cache.faces.once import Once
from rag_cache.faces.owner import Owner
from rag_cache.questions import normalized
from rag_cache.results import Computed, Hit
from rag_cache.semantic_cache import SemanticCache
from rag_cache.settings import check_ttl

NESTED_MOST = 8
"""Levels of retrievers in retrievers, and of their parameters, that are told apart."""


class CachedRetriever(BaseRetriever):
    """A retriever that asks a cache first; see the module for how it is used.

    Raises:
        ConfigurationError: The retriever can't be told from others: it needs an `identity`.
        TypeError, ValueError: Something is of a wrong type or size.

    Attributes:
        retriever: The retriever that is asked otherwise: any that LangChain knows.
        cache: The semantic cache; whoever made it closes it.
        tenant: Whose results these are, or a function that tells it for each call; None
            from it means that the call goes past the cache.
        corpus: Name of the collection of documents that is searched.
        identity: What tells the retriever from others over the same corpus. Not given: its
            class and its parameters, as LangChain's retrievers tell them; stores and clients
            among them count by their class.
        id_key: Under which key of its metadata a document has its id; one without goes by
            its ``id``.
        version_key: The same for its version.
        without_ids: Whether to keep results in which a document has no id. Nothing but
            `clear` and their end makes them stale then.
        cache_tags: Names by which results can be invalidated.
        ttl_s: How long results are kept; as the cache's settings say for "retrieval" if None.
    """

    retriever: RetrieverLike
    cache: SemanticCache = Field(repr=False)
    tenant: str | Callable[[], str | None] = ""
    corpus: str = "default"
    identity: str | None = None
    id_key: str = ID_KEY
    version_key: str = VERSION_KEY
    without_ids: bool = False
    cache_tags: tuple[str, ...] = ()
    ttl_s: float | None = None

    _owner: Owner = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Refuse what can't be right."""
        super().model_post_init(context)
        if self.ttl_s is not None:
            check_ttl(self.ttl_s)
        self._owner = Owner("retriever", self.tenant, self.corpus)
        self._told()

    # --- as LangChain calls it -------------------------------------------------------------

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        def retrieve() -> list[Document]:
            return self.retriever.invoke(query, {"callbacks": run_manager.get_child()}, **kwargs)

        once = self._once(query, kwargs)
        found = None if once is None else _documents(once.run(retrieve))
        return retrieve() if found is None else found

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        async def retrieve() -> list[Document]:
            config = {"callbacks": run_manager.get_child()}
            return await self.retriever.ainvoke(query, config, **kwargs)  # type: ignore[arg-type]

        once = self._once(query, kwargs)
        found = None if once is None else _documents(await once.arun(retrieve))
        return await retrieve() if found is None else found

    # --- more ------------------------------------------------------------------------------

    def clear(self, tenant: str | None = None) -> None:
        """Forget results, in all processes: call it after documents were added.

        Args:
            tenant: Whose. Not given: those of its own tenant, or of all tenants if each call
                tells its own.

        Raises:
            InvalidationPending: See `SemanticCache.invalidate`.
        """
        self._owner.clear(self.cache, tenant)

    async def aclear(self, tenant: str | None = None) -> None:
        """Forget results; see `clear`."""
        await self._owner.aclear(self.cache, tenant)

    def _told(self) -> Any:
        """What tells the retriever from others now: its parameters may be changed any time."""
        return _identity(self.retriever) if self.identity is None else self.identity

    def _once(self, query: str, arguments: Mapping[str, Any]) -> Once[list[Document]] | None:
        """The retrieval for all who ask the same; None if nothing is cached for this call."""
        tenant = self._owner.tenant_now()
        if tenant is None or not normalized(query):
            return None
        try:
            told = {"retriever": self._told(), "arguments": arguments}
            scope = self._owner.scope(tenant, told)
        except (TypeError, ConfigurationError):
            return None  # What can't be compared might be somebody's filter.

        def describe(documents: list[Document]) -> Computed | None:
            evidence = evidence_of(documents, self.id_key, self.version_key)
            if evidence is None and self.without_ids:
                evidence = {}
            if evidence is None or not documents:
                return None
            return Computed(documents, evidence, self._owner.tags(tenant, self.cache_tags))

        return Once(self.cache, query, scope, describe, kind="retrieval", ttl_s=self.ttl_s)


def _documents(found: list[Document] | Hit) -> list[Document] | None:
    """The documents of a hit; None if it is something else."""
    documents = found.value if isinstance(found, Hit) else found
    is_whole = isinstance(documents, list) and all(isinstance(d, Document) for d in documents)
    return documents if is_whole else None


def _identity(value: Any, depth: int = 0) -> Any:
    """A retriever's class and parameters as plain data, down to what has no parameters.

    Raises:
        ConfigurationError: There is something in it that can't be told from another.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if depth < NESTED_MOST:
        if isinstance(value, list | tuple):
            return [_identity(each, depth + 1) for each in value]
        if isinstance(value, dict):
            return {str(name): _identity(each, depth + 1) for name, each in value.items()}
        if isinstance(value, BaseModel):
            names = type(value).model_fields
            told = {name: _identity(getattr(value, name), depth + 1) for name in names}
            return [_name(type(value)), told]
        if isinstance(value, type):
            return _name(value)
        if not isinstance(value, Runnable) and not callable(value):
            return _name(type(value))  # A store or a client: the corpus tells which one.
    raise ConfigurationError(
        f"a {_name(type(value))} can't be told from others of its class, whose results may be "
        "different: give CachedRetriever an identity that tells the retriever apart"
    )


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
