"""Computing once for many, and keeping only what may be kept.

`SemanticCache.get_or_compute` keeps whatever was computed. A face decides when it sees the
value; and whatever becomes of the value in the cache, its caller gets it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from rag_cache.results import Computed, Hit
from rag_cache.scope import Scope

if TYPE_CHECKING:
    from rag_cache.semantic_cache import SemanticCache

T = TypeVar("T")
_log = logging.getLogger("rag_cache")


class NotKept(Exception):
    """A value was computed that must not be kept: leaves `get_or_compute` without a store."""


class Once(Generic[T]):
    """One computation.

    Args:
        cache: The cache.
        question: The question alone.
        scope: Within what a value may be reused.
        describe: What is kept of a value, and what it was made from; None if nothing is.
        kind: Of which kind it is.
        ttl_s: How long it is kept; that of its kind if None.
    """

    def __init__(
        self,
        cache: SemanticCache,
        question: str,
        scope: Scope,
        describe: Callable[[T], Computed | None],
        *,
        kind: str,
        ttl_s: float | None,
    ) -> None:
        self._cache = cache
        self._question = question
        self._scope = scope
        self._describe = describe
        self._kind = kind
        self._ttl_s = ttl_s
        self._made: list[T] = []

    def run(self, make: Callable[[], T]) -> T | Hit:
        """What is in the cache, or else what `make` returns; what it raises is raised."""
        try:
            hit = self._cache.get_or_compute(
                *(self._question, self._scope, lambda: self._computed(make())),
                kind=self._kind,
                ttl_s=self._ttl_s,
            )
        except (NotKept, TypeError, ValueError) as failure:
            if not self._made:
                raise
            return self._in_spite_of(failure)
        return self._made[0] if self._made else hit

    async def arun(self, make: Callable[[], Awaitable[T]]) -> T | Hit:
        """What is in the cache, or else what is awaited; see `run`."""

        async def compute() -> Computed:
            return self._computed(await make())

        try:
            hit = await self._cache.aget_or_compute(
                *(self._question, self._scope, compute), kind=self._kind, ttl_s=self._ttl_s
            )
        except (NotKept, TypeError, ValueError) as failure:
            if not self._made:
                raise
            return self._in_spite_of(failure)
        return self._made[0] if self._made else hit

    def _computed(self, value: T) -> Computed:
        self._made.append(value)
        try:
            found = self._describe(value)
        except Exception:  # noqa: BLE001 - the caller has its answer: this must not cost it
            _log.exception("what a value was made from can't be told, so it is not kept")
            raise NotKept from None
        if found is None:
            raise NotKept
        return found

    def _in_spite_of(self, failure: Exception) -> T:
        """The value that was made, though it is not kept."""
        if not isinstance(failure, NotKept):
            _log.warning("a value of kind %r can't be kept: %s", self._kind, failure)
        return self._made[0]
