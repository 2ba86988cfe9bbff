"""The server's own search, for scopes that this process does not have at hand.

A process knows most scopes whole, and then compares by itself. While it does not, because it
has just started, or because the scope is too large to keep, the server's search module is
asked for the nearest entries, if there is one. What it names is judged and served as if this
process had found it, so an index that is behind costs a hit and never a wrong answer.

Small scopes share one index, in which each is told apart by a tag. A scope that has grown
large gets one of its own, as far as the server has room for more (see `vectors.index`, also
for why). Indexes are made and looked after in the background; a lookup only ever asks one
that was seen to be complete.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.vectors.index import (
    INDEXES_MOST,
    Index,
    IndexingLink,
    IndexMissing,
    Nearest,
    SearchLink,
)
from rag_cache.breaker import Breaker
from rag_cache.partitions import SET_DIGITS, set_prefix

if TYPE_CHECKING:
    import numpy as np

_log = logging.getLogger("rag_cache")

LARGE = 2_000
"""Entries from which on a scope is worth an index of its own: in the shared one a query
compares about 800 of its entries in a millisecond."""

LARGE_MOST = 1_000
"""Large scopes that are remembered: there is room for a few of their indexes anyway."""

LOOK_S = 30.0
"""How often indexes are looked at. One that vanished is noticed by the lookup that asks it."""

DIGITS_OF_ID = 32


class _Dimensioned(Protocol):
    """What knows how many numbers a vector has: an embedder."""

    dimension: int | None


class ServerIndex:
    """The indexes of one cache; safe to use from many threads.

    Args:
        prefix: What all keys begin with.
        embedder: Whose vectors are indexed.
        is_wanted: Whether to use the search module at all.
    """

    def __init__(self, prefix: str, embedder: _Dimensioned, *, is_wanted: bool = True) -> None:
        self._prefix = prefix
        self._embedder = embedder
        self._is_wanted = is_wanted
        self._complete: frozenset[str] = frozenset()
        self._large: dict[str, None] = {}
        self._look_s = float("-inf")
        self._breaker = Breaker()
        self._complaint = ""

    @property
    def is_ready(self) -> bool:
        """Whether lookups can ask for any scope."""
        return bool(self._complete) and self._shared().name in self._complete

    async def search(
        self, link: SearchLink, key: str, vector: np.ndarray[Any, Any], count: int
    ) -> list[tuple[str, float]] | None:
        """The nearest entries of a scope.

        Args:
            link: To the cache cluster.
            key: The scope's key.
            vector: The question's embedding.
            count: How many entries.

        Returns:
            Their ids and cosines, the best first; None if the index can't be asked now.
        """
        if not self.is_ready or not self._breaker.allows(link.now()):
            return None
        own = self._own(key)
        if own.name in self._complete:
            query = Nearest(own.name, vector.tobytes(), count)
        else:
            query = Nearest(self._shared().name, vector.tobytes(), count, tag=key)
        try:
            found = await link.nearest(query)
        except IndexMissing:
            self._complete = frozenset()
            self._look_s = float("-inf")
            return None
        except LanggraphValkeyError:
            self._breaker.failed(link.now())
            return None
        self._breaker.succeeded(link.now())
        return [(name[-DIGITS_OF_ID:].decode(errors="replace"), score) for name, score in found]

    def grown(self, key: str, entries: int) -> None:
        """A scope has so many entries."""
        name = key[:SET_DIGITS]
        if entries >= LARGE and name not in self._large and len(self._large) < LARGE_MOST:
            self._large[name] = None
            self._look_s = float("-inf")

    async def tend(self, link: IndexingLink) -> None:
        """Make the indexes that are wanted, and see which are complete, if it is time to."""
        if not self._is_wanted or self._embedder.dimension is None or link.now() < self._look_s:
            return
        self._look_s = link.now() + LOOK_S
        try:
            await self._look(link)
            self._complaint = ""
        except (LanggraphValkeyError, IndexMissing) as failure:
            self._complete = frozenset()
            if str(failure) != self._complaint:
                _log.warning("the server's search can't be used, and is done without: %s", failure)
            self._complaint = str(failure)

    async def _look(self, link: IndexingLink) -> None:
        there = await link.indexes()
        if there is None:  # No search module.
            self._complete = frozenset()
            return
        ours = {index.name: index for index in (self._shared(), *map(self._own, self._sets(there)))}
        missing = [index for index in ours.values() if index.name not in there]
        for index in missing[: max(0, INDEXES_MOST - len(there))]:
            await link.create_index(index)
            there |= {index.name}
        left = there & ours.keys() - self._complete
        built = {name for name in left if await link.is_built(name)}
        if built != left:
            self._look_s = float("-inf")  # One is being filled: look again soon.
        self._complete = (self._complete & there) | built

    def _sets(self, there: frozenset[str]) -> list[str]:
        """The sets that have an index of their own, by any process, or want one."""
        stem = f"{self._shared().name}-"
        known = [name.removeprefix(stem) for name in sorted(there) if name.startswith(stem)]
        return list(dict.fromkeys([*known, *tuple(self._large)]))

    def _shared(self) -> Index:
        dimension = self._embedder.dimension or 0
        return Index(f"{self._prefix}-{dimension}", set_prefix(self._prefix), dimension)

    def _own(self, key: str) -> Index:
        dimension = self._embedder.dimension or 0
        name = f"{self._shared().name}-{key[:SET_DIGITS]}"
        return Index(name, set_prefix(self._prefix, key), dimension, of_one_set=True)
