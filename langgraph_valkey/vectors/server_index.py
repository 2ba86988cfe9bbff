"""The server's own search, as far as it is there: making its indexes, and asking them.

A process that has all vectors of a set at hand compares by itself. While it has not, the
server's search module is asked, if there is one. Indexes are made and looked after in the
background; only one that was seen to be complete is ever asked, and one that fails is left
alone for a while. So a caller needs another way, and takes it where this one answers None.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence

from langgraph_valkey.breaker import Breaker
from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.vectors.index import (
    INDEXES_MOST,
    Index,
    IndexingLink,
    IndexMissing,
    Nearest,
    SearchLink,
)

LOOK_S = 30.0
"""How often indexes are looked at. One that vanished is noticed by the search that asks it."""


class ServerIndexes(ABC):
    """The indexes of one owner; safe to use from many threads.

    Args:
        log: Where to say that the server's search can't be used.
        is_wanted: Whether to use the search module at all.
    """

    def __init__(self, log: logging.Logger, *, is_wanted: bool = True) -> None:
        self._log = log
        self._is_wanted = is_wanted
        self._complete: frozenset[str] = frozenset()
        self._look_s = float("-inf")
        self._breaker = Breaker()
        self._complaint = ""

    @abstractmethod
    def _shared(self) -> Index | None:
        """The index that holds everything; None while it is not known what it must be like."""

    def _own(self, there: frozenset[str]) -> Sequence[Index]:  # noqa: ARG002 - for whoever has some
        """Indexes of sets that are worth one of their own.

        Args:
            there: Names of all that the server has.
        """
        return ()

    @property
    def is_ready(self) -> bool:
        """Whether it can be asked for any set."""
        shared = self._shared()
        return shared is not None and shared.name in self._complete

    async def nearest(
        self, link: SearchLink, vector: bytes, count: int, tag: str | None, own: Index | None = None
    ) -> list[tuple[bytes, float]] | None:
        """The nearest hashes of a set.

        Args:
            link: Over which to ask.
            vector: What they shall be near to: float32, little-endian.
            count: How many.
            tag: Of which set; None for any.
            own: The set's own index, which is asked if it is complete.

        Returns:
            Their keys and cosines, the best first; None if the index can't be asked now.
        """
        shared = self._shared()
        if shared is None or shared.name not in self._complete:
            return None
        began_s = link.now()
        if not self._breaker.allows(began_s):
            return None
        if own is not None and own.name in self._complete:
            query = Nearest(own.name, vector, count)
        else:
            query = Nearest(shared.name, vector, count, tag=tag)
        try:
            found = await link.nearest(query)
        except IndexMissing:
            self._breaker.dropped(link.now())
            self._complete = frozenset()
            self._look_soon()
            return None
        except LanggraphValkeyError:
            self._breaker.failed(link.now(), began_s)
            return None
        self._breaker.succeeded(link.now())
        return found

    def _look_soon(self) -> None:
        """Look at the indexes at the next opportunity."""
        self._look_s = float("-inf")

    async def tend(self, link: IndexingLink) -> None:
        """Make the indexes that are wanted, and see which are complete, if it is time to."""
        shared = self._shared()
        if not self._is_wanted or shared is None or link.now() < self._look_s:
            return
        self._look_s = link.now() + LOOK_S
        try:
            await self._look(link, shared)
            self._complaint = ""
        except (LanggraphValkeyError, IndexMissing) as failure:
            self._complete = frozenset()
            if str(failure) != self._complaint:
                self._log.warning(
                    "the server's search can't be used, and is done without: %s", failure
                )
            self._complaint = str(failure)

    async def _look(self, link: IndexingLink, shared: Index) -> None:
        there = await link.indexes()
        if there is None:  # No search module.
            self._complete = frozenset()
            return
        ours = {index.name: index for index in (shared, *self._own(there))}
        missing = [index for index in ours.values() if index.name not in there]
        for index in missing[: max(0, INDEXES_MOST - len(there))]:
            await link.create_index(index)
            there |= {index.name}
        left = there & ours.keys() - self._complete
        built = {name for name in left if await link.is_built(name)}
        if built != left:
            self._look_soon()  # One is being filled.
        self._complete = (self._complete & there) | built
