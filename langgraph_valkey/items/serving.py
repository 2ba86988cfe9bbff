"""Serving a batch: from operations to their results, over any link.

All reads of a batch see what was there before it, so searches and listings are answered
first; what it changes goes last. Whatever can go wrong before anything is sent does: bad
input, values that can't be stored, an embedder that fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from langgraph.store.base import Item, Op, Result, SearchItem

from langgraph_valkey import limits
from langgraph_valkey.drafts import Writer
from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.items import batch as batches
from langgraph_valkey.items import records
from langgraph_valkey.items.asking import Asking
from langgraph_valkey.items.batch import Batch, Put
from langgraph_valkey.items.buckets import Buckets
from langgraph_valkey.items.embedding import Face, Indexing
from langgraph_valkey.items.indexed import Indexes
from langgraph_valkey.items.keeping import Keeper
from langgraph_valkey.items.listing import Lister, NamesUpdate
from langgraph_valkey.items.mirrors import Mirrors
from langgraph_valkey.items.names import pack_namespace
from langgraph_valkey.items.ranking import Hit, Wanted
from langgraph_valkey.items.reading import Gets, Reader
from langgraph_valkey.items.records import Record
from langgraph_valkey.items.searching import Searcher, wanted
from langgraph_valkey.items.telling import Name
from langgraph_valkey.keys import to_bytes
from langgraph_valkey.link import Link
from langgraph_valkey.stored.codec import Damaged


class Serving:
    """Serves batches over a link and a face of the embedder, given with each.

    Args:
        buckets: The store's.
        indexing: What is embedded, and how; None if nothing is.
        slides: Whether items are expected to expire.
        indexes: The server's index of what is embedded; None if it is not to be used.
    """

    def __init__(
        self,
        buckets: Buckets,
        indexing: Indexing | None,
        *,
        slides: bool,
        indexes: Indexes | None = None,
    ) -> None:
        writer = Writer()
        self._buckets = buckets
        self._indexing = indexing
        self._indexes = indexes
        self._reader = Reader(buckets, writer, slides=slides)
        self._keeper = Keeper(buckets, self._reader, writer)
        dimension = None if indexing is None else indexing.dimension
        rows, nbytes = limits.MIRROR_ROWS, limits.MIRROR_BYTES
        mirrors = Mirrors(dimension, rows_most=rows, bytes_most=nbytes)
        self._searcher = Searcher(buckets, mirrors, indexes)
        self._lister = Lister(buckets)

    async def run(self, link: Link, face: Face | None, ops: Iterable[Op]) -> list[Result]:
        """Serve a batch; see `BaseStore.batch`.

        Args:
            link: Over which.
            face: The embedder, if there is one.
            ops: The operations.
        """
        batch = batches.sort(ops, self._buckets.count)
        if batch.lasting and self._buckets.durables is None:
            raise ConfigurationError(
                "durable=True takes a primary store, and this store has none: make it with "
                "primary_store='sqlite:///path', 'postgresql://...', 'dynamodb://...', or an open "
                "one. Nothing of this batch was stored"
            )
        searches = [wanted(search) for search in batch.searches.values()]
        bodies = await self._bodies(link, batch, face)
        searches = await self._with_queries(batch, searches, face)
        await self._buckets.lay_out(link, writes=bool(batch.changes))
        results: list[Result] = [None] * batch.size
        # What is read is asked for in one go: news, names, and items.
        names = self._lister.update() if batch.listings else None
        beside: list[NamesUpdate | Gets] = [] if names is None else [names]
        gets = Gets(self._reader, {})
        if (searches or names) and not self._reader.slides:
            gets = Gets(self._reader, batch.gets)
            batch.gets = {}
            beside.append(gets)
        found = await self._search(link, batch, searches, beside)
        for at, hits in zip(batch.searches, found, strict=True):
            results[at] = hits
        if names is not None:
            listed = await self._lister.list(link, list(batch.listings.values()), names)
            for at, namespaces in zip(batch.listings, listed, strict=True):
                results[at] = list(namespaces)
        read = {**await gets.found(link), **await self._keeper.run(link, batch, bodies)}
        for at, record in read.items():
            results[at] = None if record is None else self._item(record)
        return results

    # --- what is put ----------------------------------------------------------------------

    async def _bodies(self, link: Link, batch: Batch, face: Face | None) -> dict[Name, bytes]:
        """What is stored, by the items' names."""
        puts = [put for put in batch.changes if put.op.value is not None]
        vectors: list[dict[str, bytes]] = [{} for _ in puts]
        if puts and self._indexing is not None and face is not None:
            vectors = await self._indexing.of_puts(face, [put.op for put in puts])
        seen = False
        if any(vectors) and self._indexes is not None:
            await self._buckets.lay_out(link, writes=True)  # Who can't be asked is waited for.
            seen = await self._indexes.sees(link)
        return {
            (put.namespace, put.key): self._body(put, its, seen=seen)
            for put, its in zip(puts, vectors, strict=True)
        }

    def _body(self, put: Put, vectors: dict[str, bytes], *, seen: bool) -> bytes:
        assert put.op.value is not None
        try:
            return records.pack(self._buckets.codec, put.op.value, vectors, seen=seen)
        except Exception as failure:  # noqa: BLE001 - whatever its classes raise
            raise TypeError(
                f"the value of item {put.op.key!r} can't be stored ({type(failure).__name__}): "
                "store plain data, or what the serializer can hold"
            ) from None

    # --- what is found --------------------------------------------------------------------

    async def _with_queries(
        self, batch: Batch, searches: list[Wanted], face: Face | None
    ) -> list[Wanted]:
        """Searches with their queries embedded; without an index a query counts for nothing."""
        if self._indexing is None or face is None:
            return searches
        asked = [search.query for search in batch.searches.values()]
        queries = await self._indexing.of_queries(face, [query for query in asked if query])
        return [
            search._replace(query=queries[query]) if query else search
            for search, query in zip(searches, asked, strict=True)
        ]

    async def _search(
        self, link: Link, batch: Batch, searches: list[Wanted], beside: Sequence[Asking]
    ) -> list[list[SearchItem]]:
        found = await self._searcher.search(link, searches, beside)
        refreshed: dict[tuple[tuple[str, ...], str], Record] = {}
        for search, (hits, heard) in zip(batch.searches.values(), found, strict=True):
            self._reader.note(link, [hit.record for hit in hits], heard)
            if search.refresh_ttl:
                refreshed.update({(r.namespace, r.key): r for r, _ in hits})
        await self._reader.put_off(link, refreshed.values())
        return [[self._hit(hit) for hit in hits] for hits, _ in found]

    def _hit(self, hit: Hit) -> SearchItem:
        record = hit.record
        return SearchItem(
            namespace=record.namespace,
            key=record.key,
            value=self._value(record),
            created_at=record.created_at,
            updated_at=record.updated_at,
            score=hit.score,
        )

    def _item(self, record: Record) -> Item:
        return Item(
            namespace=record.namespace,
            key=record.key,
            value=self._value(record),
            created_at=record.created_at,
            updated_at=record.updated_at,
        )

    def _value(self, record: Record) -> dict[str, Any]:
        """An item's value, which is the caller's from now on."""
        try:
            return record.read_value()
        except Damaged as damage:
            name = pack_namespace(record.namespace), to_bytes(record.key)
            raise self._buckets.corrupt(name, damage) from damage
