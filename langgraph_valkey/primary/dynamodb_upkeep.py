"""Dropping what is old, in DynamoDB.

Each list is walked from its oldest end. What the index names is looked at in the
table first: it may have been changed, or be gone. Leases are never dropped: their
tokens must not begin anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from langgraph_valkey.primary.dynamodb_errors import Refused
from langgraph_valkey.primary.dynamodb_items import (
    Item,
    digest_in,
    key_in,
    key_of,
    message_id,
    message_key,
    number,
    plain,
    untext,
    until,
)
from langgraph_valkey.primary.dynamodb_table import KEYS_MOST, Part
from langgraph_valkey.primary.records import Purged


class Upkeep(Part):
    """The upkeep of a store; see `contract.Primary`."""

    async def purge(self, older_than_s: float) -> Purged:
        """Drop what is of an age; see `contract.Primary.purge`.

        A run's age is counted from when it was settled.
        """
        before_s = max(self._table.now() - older_than_s, 0.0)
        commits = await self._purge_commits(before_s)
        runs = await self._purge_runs(before_s)
        tombstones = await self._purge_unchanged("tombstones", "buried_s", before_s)
        await self._purge_unchanged("turns", "last_s", before_s)
        await self._purge_unchanged("owners", "until", before_s)
        return Purged(commits=commits, runs=runs, tombstones=tombstones)

    async def _purge_commits(self, before_s: float) -> int:
        purged = 0
        async for rows in self._old("commits", before_s, ("messages",)):
            sent = [row for row in rows if await self._is_sent(row)]
            await self._table.delete_each([key_in(row) for row in sent])
            purged += len(sent)
        return purged

    async def _is_sent(self, commit: Item) -> bool:
        """Whether all messages of a commit were sent."""
        count = plain(commit)["messages"]
        keys = [message_key(message_id(digest_in(commit), place)) for place in range(count)]
        return not await self._table.get_each([key for key in keys if key is not None], ())

    async def _purge_runs(self, before_s: float) -> int:
        purged = 0
        async for rows in self._old("settled", before_s, ("state", "thread_id", "number")):
            settled = [row for row in rows if row["state"]["S"] == "settled"]
            await self._table.delete_each([key_in(row) for row in settled])
            purged += len(settled)
            last: dict[str, int] = {}
            for row in map(plain, settled):
                thread = untext(row["thread_id"])
                last[thread] = max(row["number"], last.get(thread, 0))
            for thread, run_number in last.items():
                await self._drop_thread(thread, run_number)
        return purged

    async def _drop_thread(self, thread_id: str, last: int) -> None:
        """Drop a thread's item with its last run. The next one is number 1 again."""
        with suppress(Refused):
            await self._table.delete(
                key_of("thread", thread_id),
                {"last": number(last)},
                "#last = :last AND attribute_not_exists(#open)",
            )

    async def _purge_unchanged(self, name: str, changed: str, before_s: float) -> int:
        """Drop items of a list that were changed last before then."""
        purged = 0
        async for rows in self._old(name, before_s, (changed,)):
            for row in rows:
                if plain(row)[changed] > before_s:
                    continue
                with suppress(Refused):
                    values = {"before": number(before_s)}
                    await self._table.delete(key_in(row), values, f"#{changed} <= :before")
                    purged += 1
        return purged

    async def _old(
        self, name: str, before_s: float, attributes: Sequence[str]
    ) -> AsyncIterator[list[Item]]:
        """Pages of what stood in a list before then."""
        at = ""
        while True:
            places = await self._table.listed(
                name, after=at, until=until(before_s), limit=KEYS_MOST
            )
            yield await self._table.get_each([place.key for place in places], attributes)
            if len(places) < KEYS_MOST:
                return
            at = places[-1].at
