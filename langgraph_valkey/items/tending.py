"""Looking after durable items: what the keeper of a store does again and again.

It finds primaries of Valkey that lost something before anybody reads, and changes that a
process has recorded and then left. Such a one has to be missing in two rounds: it may just be
on its way. When the primary store was away, it also finds out that it is back.
"""

from __future__ import annotations

from langgraph_valkey.items import calls
from langgraph_valkey.items.buckets import Buckets
from langgraph_valkey.items.durable import Durables, PrimaryAway
from langgraph_valkey.items.memories import reach
from langgraph_valkey.link import Link

ROUND_S = 5.0
"""How often it looks; while something is missing, at each of its keeper's rounds."""

BRING_S = 600.0
"""For how long it brings what one bucket lacks; reads don't wait for that long."""


class Tending:
    """Looks after the durable items of one store.

    Args:
        buckets: The store's; without a primary store there is nothing to do.
    """

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._durables = buckets.durables
        self._due_s = float("-inf")
        self._missing: dict[str, int] = {}

    async def round(self, link: Link, *, now: bool = False) -> None:
        """One round, if it is time.

        Args:
            link: Over which.
            now: Whether it is time in any case.

        Raises:
            LanggraphValkeyError: One of the two servers can't be asked now.
        """
        if self._durables is None or (link.now() < self._due_s and not now):
            return
        self._due_s = link.now() + ROUND_S
        try:
            await self._look(link, self._durables)
        except PrimaryAway as away:
            raise away.failure from None

    async def _look(self, link: Link, durables: Durables) -> None:
        standings = await durables.ask_standings(link)
        buckets = [bucket for bucket, standing in standings.items() if standing.change]
        keys = self._buckets.keys
        asked = [(bucket, calls.read(keys[bucket], ())) for bucket in buckets]
        answers = await self._buckets.read(link, asked)
        for bucket, answer in zip(buckets, answers, strict=True):
            here, last = reach(answer).number, standings[bucket].change
            if here >= last:
                self._missing.pop(bucket, None)
                continue
            if self._missing.get(bucket, 0) > here:
                await durables.bring(link, bucket, last, link.now() + BRING_S)
            self._missing[bucket] = last
            self._due_s = link.now()
