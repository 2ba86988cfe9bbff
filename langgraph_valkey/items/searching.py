"""Searching: from an operation to its results.

A prefix that was searched before costs one round trip: all buckets are asked for what is
new, side by side, and the mirror then answers. One that is new to this process is read
whole at first, page by page. Beneath one that is too large for that, what is like a query is
found by the server's search, where it has one (`indexed`), and all else by walking (`walking`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from langgraph.store.base import SearchOp

from langgraph_valkey.errors import Unreachable
from langgraph_valkey.items import calls, indexed, names
from langgraph_valkey.items.asking import TRIES, Asking, Buckets, ask_all
from langgraph_valkey.items.filters import compiled
from langgraph_valkey.items.indexed import Indexes
from langgraph_valkey.items.mirrors import Mirrors
from langgraph_valkey.items.ranking import Hit, Page, Wanted, ranked
from langgraph_valkey.items.telling import Unreadable, record_of
from langgraph_valkey.items.updating import Update
from langgraph_valkey.items.walking import Walk
from langgraph_valkey.link import Link
from langgraph_valkey.operations import Answer


def wanted(search: SearchOp) -> Wanted:
    """What a search wants, but for its query.

    Raises:
        ValueError, TypeError: Its filter can't be meant.
    """
    prefix = names.pack_namespace(tuple(search.namespace_prefix))
    return Wanted(prefix, compiled(search.filter), Page(search.limit, search.offset))


class Found(NamedTuple):
    """What a search found.

    Attributes:
        hits: The results. Their records are shared: read values by `Record.read_value`.
        heard: The last answer of each bucket: which primary told of them, and its standing.
    """

    hits: list[Hit]
    heard: Mapping[str, Answer]


class Searcher:
    """Answers searches, over any link.

    Args:
        buckets: What asks buckets.
        mirrors: The process' mirrors.
        indexes: The server's index of the store's vectors; None where nothing is embedded.
    """

    def __init__(self, buckets: Buckets, mirrors: Mirrors, indexes: Indexes | None = None) -> None:
        self._buckets = buckets
        self._mirrors = mirrors
        self._indexes = indexes

    async def search(
        self, link: Link, searches: Sequence[Wanted], beside: Sequence[Asking] = ()
    ) -> list[Found]:
        """Answer some searches.

        Args:
            link: Over which to ask.
            searches: What is wanted.
            beside: What else is to be asked, along with what they ask first.

        Raises:
            CorruptState: An item beneath a prefix can't be read.
            Unreachable: A bucket kept changing its primary.
        """
        found: dict[int, Found] = {}
        try:
            for _ in range(TRIES):
                left = {at: search for at, search in enumerate(searches) if at not in found}
                if left or beside:
                    found.update(await self._search(link, left, beside))
                beside = ()
        except Unreadable as damage:
            raise self._buckets.corrupt(damage.name, damage) from damage
        if len(found) < len(searches):
            raise Unreachable("the store's buckets kept changing under this search: call again")
        return [found[at] for at in range(len(searches))]

    async def _search(
        self, link: Link, searches: Mapping[int, Wanted], beside: Sequence[Asking]
    ) -> dict[int, Found]:
        """Answer those searches that can be, at the first go."""
        prefixes = dict.fromkeys(search.prefix for search in searches.values())
        updates = self._updates(link, prefixes)
        await self._bring_up(link, updates, beside)
        found = {}
        for at, search in searches.items():
            update = updates.get(search.prefix)
            if update is None:
                found[at] = await self._without_mirror(link, search)
                continue
            # At once: nobody may change a bucket between the look and the answer.
            with update.mirror.lock:
                if update.mirror.reaches(update.seen):
                    found[at] = Found(ranked(update.mirror, search), update.heard)
        self._mirrors.make_room(prefixes)
        return found

    async def _without_mirror(self, link: Link, search: Wanted) -> Found:
        """Answer a search beneath a prefix that is too large to be held."""
        buckets = self._buckets
        if self._indexes is not None:
            found = await indexed.search(buckets, link, self._indexes, search)
            if found is not None:
                return Found(*found)
        walk = Walk(buckets.codec, buckets.keys, search, self._mirrors.dimension)
        await ask_all(buckets, link, [walk])
        return Found(walk.hits(), walk.heard)

    def _updates(self, link: Link, prefixes: Iterable[bytes]) -> dict[bytes, Update]:
        """Updates of the mirrors that some prefixes have; not of those that are too large."""
        now_s, buckets = link.now(), self._buckets
        return {
            prefix: Update(self._mirrors, buckets.codec, buckets.keys, prefix)
            for prefix in prefixes
            if not self._mirrors.is_large(prefix, now_s)
        }

    async def _bring_up(
        self, link: Link, updates: dict[bytes, Update], beside: Sequence[Asking]
    ) -> None:
        """Do updates, side by side; those that can't be done are taken out."""
        await ask_all(self._buckets, link, [*updates.values(), *beside])
        for prefix, update in tuple(updates.items()):
            if update.is_too_large:
                self._mirrors.too_large(prefix, link.now())
                del updates[prefix]
        await self._settle(link, updates)

    async def _settle(self, link: Link, updates: Mapping[bytes, Update]) -> None:
        """Ask for what looks expired: it may have been given more time by a read."""
        asked = [
            (update.mirror, bucket, rows)
            for update in updates.values()
            for bucket, rows in update.mirror.overdue().items()
        ]
        if not asked:
            return
        keys = self._buckets.keys
        reads = [
            (bucket, calls.read(keys[bucket], [names.item_name(*row.name) for row in rows]))
            for _, bucket, rows in asked
        ]
        answers = await self._buckets.read(link, reads)
        for (mirror, bucket, rows), answer in zip(asked, answers, strict=True):
            for row, raw in zip(rows, calls.read_items(answer), strict=True):
                record = None if raw is None else record_of(self._buckets.codec, row.name, raw)
                mirror.settle(bucket, row, record)
