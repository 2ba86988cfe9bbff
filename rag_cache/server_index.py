"""The server's own search, for scopes that this process does not have at hand.

A process knows most scopes whole, and then compares by itself. While it does not, because it
has just started, or because the scope is too large to keep, the server's search module is
asked for the nearest entries, if there is one. What it names is judged and served as if this
process had found it, so an index that is behind costs a hit and never a wrong answer.

Small scopes share one index, in which each is told apart by a tag. A scope that has grown
large gets one of its own, as far as the server has room for more (see `vectors.index`, also
for why).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from langgraph_valkey.vectors.index import Index, SearchLink
from langgraph_valkey.vectors.server_index import ServerIndexes
from rag_cache.partitions import SET_DIGITS, set_prefix

if TYPE_CHECKING:
    import numpy as np

_log = logging.getLogger("rag_cache")

LARGE = 2_000
"""Entries from which on a scope is worth an index of its own: in the shared one a query
compares about 800 of its entries in a millisecond."""

LARGE_MOST = 1_000
"""Large scopes that are remembered: there is room for a few of their indexes anyway."""

DIGITS_OF_ID = 32


class _Dimensioned(Protocol):
    """What knows how many numbers a vector has: an embedder."""

    dimension: int | None


class ServerIndex(ServerIndexes):
    """The indexes of one cache; safe to use from many threads.

    Args:
        prefix: What all keys begin with.
        embedder: Whose vectors are indexed.
        is_wanted: Whether to use the search module at all.
    """

    def __init__(self, prefix: str, embedder: _Dimensioned, *, is_wanted: bool = True) -> None:
        super().__init__(_log, is_wanted=is_wanted)
        self._prefix = prefix
        self._embedder = embedder
        self._large: dict[str, None] = {}

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
        found = await self.nearest(link, vector.tobytes(), count, key, self._of_one(key))
        if found is None:
            return None
        return [(name[-DIGITS_OF_ID:].decode(errors="replace"), score) for name, score in found]

    def grown(self, key: str, entries: int) -> None:
        """A scope has so many entries."""
        name = key[:SET_DIGITS]
        if entries >= LARGE and name not in self._large and len(self._large) < LARGE_MOST:
            self._large[name] = None
            self._look_soon()

    def _shared(self) -> Index | None:
        dimension = self._embedder.dimension
        if dimension is None:
            return None
        return Index(self._name(dimension), set_prefix(self._prefix), dimension)

    def _own(self, there: frozenset[str]) -> Sequence[Index]:
        """Of sets that have an index of their own, by any process, or want one."""
        stem = f"{self._name(self._embedder.dimension or 0)}-"
        known = [name.removeprefix(stem) for name in sorted(there) if name.startswith(stem)]
        return [self._of_one(key) for key in dict.fromkeys([*known, *tuple(self._large)])]

    def _of_one(self, key: str) -> Index:
        dimension = self._embedder.dimension or 0
        name = f"{self._name(dimension)}-{key[:SET_DIGITS]}"
        return Index(name, set_prefix(self._prefix, key), dimension, of_one_set=True)

    def _name(self, dimension: int) -> str:
        return f"{self._prefix}-{dimension}"
