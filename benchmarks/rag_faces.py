"""One way to ask them all: a semantic cache's `ask` and `keep`, awaited.

As with savers, the methods of blocking caches are coroutines that never suspend. A cache
is used as its documentation says, with the questions' own embedder in place of a model.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Protocol

from benchmarks.contenders import OURS
from benchmarks.faces import Contender, FaceName, Role
from benchmarks.rag_questions import THRESHOLD, Prepared, Questions
from benchmarks.servers import Servers, ValkeyStore
from langgraph_valkey.link import finish
from rag_cache import Scope, SemanticCache

LIFE_S = 3600


Compute = Callable[[], Coroutine[Any, Any, str]]


class Asked(Protocol):
    """A cache, as it is used here."""

    async def ask(self, question: str, tenant: str = "") -> Any:
        """The answer; None if there is none to be served."""
        ...

    async def keep(
        self, question: str, answer: str, tenant: str = "", life_s: int = LIFE_S
    ) -> None:
        """Store an answer."""
        ...

    async def answer(self, question: str, compute: Compute) -> Any:
        """The answer, computed and stored if need be."""
        ...


class _Scopes:
    """A scope for each tenant."""

    def __init__(self) -> None:
        self._of: dict[str, Scope] = {}

    def of(self, tenant: str) -> Scope:
        """That of a tenant: such as a service would have."""
        found = self._of.get(tenant)
        if found is None:
            prompt = "Answer from the handbook, briefly."
            found = Scope(tenant=tenant, corpus="handbook", system_prompt=prompt, model="m-1")
            self._of[tenant] = found
        return found


class AsyncOurs:
    """Our cache, async.

    Args:
        cache: The cache.
    """

    def __init__(self, cache: SemanticCache) -> None:
        self.cache = cache
        self.scopes = _Scopes()

    async def ask(self, question: str, tenant: str = "") -> Any:
        """See `Asked`."""
        found = await self.cache.alookup(question, self.scopes.of(tenant))
        return found.value if found else None

    async def keep(
        self, question: str, answer: str, tenant: str = "", life_s: int = LIFE_S
    ) -> None:
        """See `Asked`."""
        stored = await self.cache.astore(question, self.scopes.of(tenant), answer, ttl_s=life_s)
        if not stored:
            raise AssertionError(f"an answer was not stored: {stored.reason}")

    async def answer(self, question: str, compute: Compute) -> Any:
        """See `Asked`."""
        found = await self.cache.aget_or_compute(question, self.scopes.of(""), compute)
        return found.value


class BlockingOurs(AsyncOurs):
    """Our cache, blocking."""

    async def ask(self, question: str, tenant: str = "") -> Any:
        """See `Asked`."""
        found = self.cache.lookup(question, self.scopes.of(tenant))
        return found.value if found else None

    async def keep(
        self, question: str, answer: str, tenant: str = "", life_s: int = LIFE_S
    ) -> None:
        """See `Asked`."""
        stored = self.cache.store(question, self.scopes.of(tenant), answer, ttl_s=life_s)
        if not stored:
            raise AssertionError(f"an answer was not stored: {stored.reason}")

    async def answer(self, question: str, compute: Compute) -> Any:
        """See `Asked`."""
        scope = self.scopes.of("")
        return self.cache.get_or_compute(question, scope, lambda: finish(compute())).value


def ours(
    servers: Servers,
    face: FaceName,
    store: ValkeyStore,
    prefix: str,
    embedder: Prepared,
    *,
    role: Role = "ours",
    **settings: Any,
) -> Contender:
    """Our cache with its defaults.

    Args:
        servers: Where the versions of documents are kept: in a file.
        face: How it will be called.
        store: A Valkey.
        prefix: Of its keys.
        embedder: Embeds the questions.
        role: What it is compared as.
        **settings: What is not as by default.
    """
    given: dict[str, Any] = {
        "embedder": embedder,
        "threshold": THRESHOLD,
        "key_prefix": prefix,
        "primary": f"sqlite:///{servers.sqlite(prefix).path}",
        **settings,
    }
    opening = _async_ours(store.url, given) if face == "async" else _ours(store.url, given)
    return Contender(OURS, role, face, True, store, opening)


@contextlib.asynccontextmanager
async def _async_ours(url: str, given: dict[str, Any]) -> AsyncIterator[AsyncOurs]:
    async with SemanticCache(url, **given) as cache:
        yield AsyncOurs(cache)


@contextlib.contextmanager
def _ours(url: str, given: dict[str, Any]) -> Iterator[BlockingOurs]:
    with SemanticCache(url, **given) as cache:
        yield BlockingOurs(cache)


async def fill(cache: AsyncOurs, questions: Questions, tenant: str = "") -> None:
    """Store all answers with their evidence, as the fastest way does: on the blocking face."""
    for number, question in enumerate(questions.stored):
        stored = cache.cache.store(
            *(question, cache.scopes.of(tenant), questions.answer(number)),
            evidence=questions.evidence(number),
            ttl_s=LIFE_S,
        )
        if not stored:
            raise AssertionError(f"an answer was not stored: {stored.reason}")
