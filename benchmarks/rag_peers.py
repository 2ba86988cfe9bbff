"""Other semantic caches, each set up as its own documentation recommends.

All of them need a search module, and none runs in cluster mode, so each is given a server
that has one, and serves from the same cosine on as ours. What tells tenants apart is what
each of them offers for that: a tag to filter by, a name, a category.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from benchmarks.contenders import tell
from benchmarks.faces import Connection, Contender, FaceName
from benchmarks.rag_faces import LIFE_S, Compute
from benchmarks.rag_questions import THRESHOLD, Prepared
from benchmarks.servers import HOST, Servers, ValkeyStore

REDISVL, LANGCHAIN_REDIS, BETTERDB = "redisvl", "langchain-redis", "betterdb-semantic-cache"

DISTANCE = 1 - THRESHOLD + 1e-6
"""Of two vectors, as redisvl and betterdb have it; what is as near as this is served."""

_LLM = "model m-1, temperature 0"
_numbers = itertools.count(1)


class _Peer:
    """What all of them have to be used like: none has a call that computes once."""

    async def ask(self, question: str, tenant: str = "") -> Any:
        """See `Asked`."""
        raise NotImplementedError

    async def keep(
        self, question: str, answer: str, tenant: str = "", life_s: int = LIFE_S
    ) -> None:
        """See `Asked`."""
        raise NotImplementedError

    async def answer(self, question: str, compute: Compute) -> Any:
        """Look, compute and store."""
        found = await self.ask(question)
        if found is None:
            found = await compute()
            await self.keep(question, found)
        return found


# --- redisvl ---------------------------------------------------------------------------


class AsyncRedisvl(_Peer):
    """redisvl's `SemanticCache` with a tag for tenants, async."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache

    def _filter(self, tenant: str) -> dict[str, Any]:
        from redisvl.query.filter import Tag

        return {"filter_expression": Tag("tenant") == tenant} if tenant else {}

    async def ask(self, question: str, tenant: str = "") -> Any:
        """See `Asked`."""
        found = await self.cache.acheck(prompt=question, **self._filter(tenant))
        return found[0]["response"] if found else None

    async def keep(
        self, question: str, answer: str, tenant: str = "", life_s: int = LIFE_S
    ) -> None:
        """See `Asked`."""
        filters = {"tenant": tenant} if tenant else None
        await self.cache.astore(prompt=question, response=answer, filters=filters, ttl=life_s)


class BlockingRedisvl(AsyncRedisvl):
    """The same, blocking."""

    async def ask(self, question: str, tenant: str = "") -> Any:
        """See `Asked`."""
        found = self.cache.check(prompt=question, **self._filter(tenant))
        return found[0]["response"] if found else None

    async def keep(
        self, question: str, answer: str, tenant: str = "", life_s: int = LIFE_S
    ) -> None:
        """See `Asked`."""
        filters = {"tenant": tenant} if tenant else None
        self.cache.store(prompt=question, response=answer, filters=filters, ttl=life_s)


def _redisvl_cache(store: ValkeyStore, embedder: Prepared) -> Any:
    from redisvl.extensions.cache.llm import SemanticCache
    from redisvl.utils.vectorize import CustomVectorizer

    return SemanticCache(
        name=f"redisvl{next(_numbers)}",
        distance_threshold=DISTANCE,
        ttl=LIFE_S,
        vectorizer=CustomVectorizer(
            embed=embedder.embed_query,
            embed_many=embedder.embed_documents,
            aembed=embedder.aembed_query,
        ),
        filterable_fields=[{"name": "tenant", "type": "tag"}],
        redis_url=f"redis://{HOST}:{store.port}",
    )


@contextlib.asynccontextmanager
async def _async_redisvl(store: ValkeyStore, embedder: Prepared) -> AsyncIterator[Any]:
    async with _redisvl_cache(store, embedder) as cache:
        yield AsyncRedisvl(cache)


@contextlib.contextmanager
def _redisvl(store: ValkeyStore, embedder: Prepared) -> Iterator[Any]:
    with _redisvl_cache(store, embedder) as cache:
        yield BlockingRedisvl(cache)


# --- langchain-redis -------------------------------------------------------------------


class AsyncLangchainRedis(_Peer):
    """langchain-redis' `RedisSemanticCache`, async as LangChain makes it: by a thread.

    A cache has a life for all of its entries, and each tenant a name.
    """

    def __init__(self, store: ValkeyStore, embedder: Prepared) -> None:
        self._store = store
        self._embedder = embedder
        self._caches: dict[tuple[str, int], Any] = {}
        self._name = f"langchain{next(_numbers)}"

    def cache(self, tenant: str, life_s: int) -> Any:
        """That of a tenant."""
        found = self._caches.get((tenant, life_s))
        if found is None:
            from langchain_redis import RedisSemanticCache

            found = self._caches[tenant, life_s] = RedisSemanticCache(
                embeddings=self._embedder,
                redis_url=f"redis://{HOST}:{self._store.port}",
                distance_threshold=DISTANCE,
                ttl=life_s,
                name=f"{self._name}-{tenant}",
            )
        return found

    def _of(self, tenant: str) -> Any:
        """That which has a tenant's answers."""
        known = [cache for (name, _), cache in self._caches.items() if name == tenant]
        return known[0] if known else self.cache(tenant, LIFE_S)

    async def ask(self, question: str, tenant: str = "") -> Any:
        """See `Asked`."""
        found = await self._of(tenant).alookup(question, _LLM)
        return found[0].text if found else None

    async def keep(
        self, question: str, answer: str, tenant: str = "", life_s: int = LIFE_S
    ) -> None:
        """See `Asked`."""
        from langchain_core.outputs import Generation

        await self.cache(tenant, life_s).aupdate(question, _LLM, [Generation(text=answer)])


class BlockingLangchainRedis(AsyncLangchainRedis):
    """The same, blocking."""

    async def ask(self, question: str, tenant: str = "") -> Any:
        """See `Asked`."""
        found = self._of(tenant).lookup(question, _LLM)
        return found[0].text if found else None

    async def keep(
        self, question: str, answer: str, tenant: str = "", life_s: int = LIFE_S
    ) -> None:
        """See `Asked`."""
        from langchain_core.outputs import Generation

        self.cache(tenant, life_s).update(question, _LLM, [Generation(text=answer)])


@contextlib.asynccontextmanager
async def _async_langchain_redis(store: ValkeyStore, embedder: Prepared) -> AsyncIterator[Any]:
    yield AsyncLangchainRedis(store, embedder)


@contextlib.contextmanager
def _langchain_redis(store: ValkeyStore, embedder: Prepared) -> Iterator[Any]:
    yield BlockingLangchainRedis(store, embedder)


# --- betterdb --------------------------------------------------------------------------


class AsyncBetterdb(_Peer):
    """betterdb's `SemanticCache`, which is async only; a tenant is a category."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache

    async def ask(self, question: str, tenant: str = "") -> Any:
        """See `Asked`."""
        from betterdb_semantic_cache import CacheCheckOptions

        found = await self.cache.check(question, CacheCheckOptions(category=tenant))
        return found.response if found.hit else None

    async def keep(
        self, question: str, answer: str, tenant: str = "", life_s: int = LIFE_S
    ) -> None:
        """See `Asked`."""
        from betterdb_semantic_cache import CacheStoreOptions

        await self.cache.store(question, answer, CacheStoreOptions(ttl=life_s, category=tenant))


@contextlib.asynccontextmanager
async def _async_betterdb(store: ValkeyStore, embedder: Prepared) -> AsyncIterator[Any]:
    from betterdb_semantic_cache import SemanticCache, SemanticCacheOptions
    from betterdb_semantic_cache.types import AnalyticsOptions
    from valkey.asyncio import Valkey

    client = Valkey(host=HOST, port=store.port)
    cache = SemanticCache(
        SemanticCacheOptions(
            client=client,
            embed_fn=embedder.aembed_query,
            name=f"betterdb{next(_numbers)}",
            default_threshold=DISTANCE,
            default_ttl=LIFE_S,
            analytics=AnalyticsOptions(disabled=True),
        )
    )
    try:
        await cache.initialize()
        yield AsyncBetterdb(cache)
    finally:
        await cache.shutdown()
        await client.aclose()


# --- all of them -----------------------------------------------------------------------

Opening = Callable[[ValkeyStore, Prepared], Connection]

PEERS: dict[tuple[str, FaceName], Opening] = {
    (REDISVL, "async"): _async_redisvl,
    (REDISVL, "sync"): _redisvl,
    (LANGCHAIN_REDIS, "async"): _async_langchain_redis,
    (LANGCHAIN_REDIS, "sync"): _langchain_redis,
    (BETTERDB, "async"): _async_betterdb,
}
_MODULES = {
    REDISVL: "redisvl",
    LANGCHAIN_REDIS: "langchain_redis",
    BETTERDB: "betterdb_semantic_cache",
}


def line_up(servers: Servers, face: FaceName, embedder: Prepared) -> list[Contender]:
    """Those that are installed and have this face, not yet open."""
    found = []
    for (name, theirs), opening in PEERS.items():
        if theirs != face:
            continue
        try:
            __import__(_MODULES[name])
            store = servers.searching(cluster=False)
        except ImportError as error:
            tell(f"{name} is left out, as it or a search module is not installed: {error}")
            continue
        found.append(Contender(name, "peer", face, True, store, opening(store, embedder)))
    return found
