"""What a cache is connected to, on each face: the cache cluster, twice, and the primary store.

Lookups have links of their own, on which no request takes longer than a lookup may, and
behind which no large value waits.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langgraph_valkey.glide.link import BlockingLink, LoopLink
from langgraph_valkey.primary.contract import PrimaryStore
from langgraph_valkey.primary.opening import open_store
from langgraph_valkey.vectors.index import IndexingLink
from rag_cache.answers import Face
from rag_cache.embedding import Embedder
from rag_cache.freshness.standings import Standings
from rag_cache.guards.verifier import Verifier, ask_blocking, ask_looping
from rag_cache.judging import Judge
from rag_cache.lookup import Finder, Reach
from rag_cache.server_index import ServerIndex
from rag_cache.settings import CacheSettings
from rag_cache.shelves import Shelves
from rag_cache.storing import Writer


@dataclass(frozen=True, slots=True)
class Parts:
    """What both faces share.

    Attributes:
        embedder: Embeds questions.
        judge: Decides which entries may answer.
        verifier: Is asked before one does; None if there is none.
        standings: Which primaries may be served from.
        index: The server's own search.
    """

    embedder: Embedder
    judge: Judge
    verifier: Verifier | None
    standings: Standings
    index: ServerIndex


class Connections:
    """The connections of one cache.

    Args:
        settings: All there is to set.
        store: An open primary store, which its owner closes; else the settings' is opened.
        parts: What both faces share.

    Attributes:
        blocking: The blocking face.
        loops: The async face.
        indexing: The blocking link over which indexes are made.

    Raises:
        ConfigurationError: The settings can't be used, or a package they take is missing.
    """

    def __init__(self, settings: CacheSettings, store: PrimaryStore | None, parts: Parts) -> None:
        self._settings = settings
        self._is_ours = store is None
        self._store = _opened(settings) if store is None else store
        self._preparing = threading.Lock()
        self._is_prepared = False
        self._parts = parts
        blocking = [BlockingLink(each) for each in (settings.for_lookups(), settings.for_writes())]
        lookups, writes = blocking
        turn_s = settings.lookup_deadline_ms / 1000
        loops = [LoopLink(lookups.settings, lookups, turn_s=turn_s)]
        loops.append(LoopLink(writes.settings, writes))
        self._links: list[BlockingLink | LoopLink] = [*loops, *blocking]
        shelves = Shelves(settings.rows_most)
        self.blocking = self._face(blocking, shelves, blocks=True)
        self.loops = self._face(loops, shelves, blocks=False)
        self.indexing: IndexingLink = blocking[1]

    def _face(self, links: Sequence[Any], shelves: Shelves, *, blocks: bool) -> Face:
        lookups, writes = links
        settings, parts = self._settings, self._parts
        standings, index, embedder = parts.standings, parts.index, parts.embedder
        finder = Finder(
            Reach(settings.key_prefix, settings.spread, settings.neighbours),
            *(lookups, standings, shelves, parts.judge, index, embedder),
        )
        writer = Writer(
            *(writes, standings, shelves, index, settings.entries_most),
            *(settings.ttl_jitter, random.Random()),  # noqa: S311 - jitter, no secret
        )
        verify = None
        if parts.verifier is not None:
            verify = (ask_blocking if blocks else ask_looping)(parts.verifier)
        return Face(
            lookups=lookups,
            writes=writes,
            primary=self._store.blocking if blocks else self._store.loops,
            finder=finder,
            writer=writer,
            embed=embedder.blocking if blocks else embedder.looping,
            verify=verify,
            prepare=self._prepare_blocking if blocks else self._prepare,
        )

    async def _prepare_blocking(self) -> None:
        """Make the primary store ready, once a process."""
        if not self._is_prepared:
            with self._preparing:
                if not self._is_prepared:
                    await self._store.blocking.setup()
                    self._is_prepared = True

    async def _prepare(self) -> None:
        if not self._is_prepared:
            await self._store.loops.setup()
            self._is_prepared = True

    def close(self) -> None:
        """Close all of them, but a primary store that is another one's."""
        for link in self._links:
            link.close()
        if self._is_ours:
            self._store.close()

    async def aclose(self) -> None:
        """Close all of them; see `close`."""
        for link in self._links:
            link.close()
        if self._is_ours:
            await self._store.aclose()


def _opened(settings: CacheSettings) -> PrimaryStore:
    options = {} if settings.primary_schema is None else {"schema": settings.primary_schema}
    return open_store(settings.primary.get_secret_value(), **options)
