"""Dropping what is old, in DynamoDB.

Each list is walked from its oldest end. What the index names is looked at in the
table first: it may have been changed, or be gone. Leases are never dropped: their
tokens must not begin anew.

Whoever runs a turn again must find what was committed in it. So a commit stays while
its turn has a run that is not settled, and a turn's list while one of its commits does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from langgraph_valkey.dynamodb.errors import Refused
from langgraph_valkey.dynamodb.items import (
    Item,
    commit_key,
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
from langgraph_valkey.dynamodb.run_items import run_key, thread_of
from langgraph_valkey.dynamodb.table import KEYS_MOST, Part
from langgraph_valkey.primary.records import Purged

Turn: TypeAlias = tuple[str, str]
"""Ids of a thread and of a turn in it."""


class Upkeep(Part):
    """The upkeep of a store; see `contract.Primary`."""

    async def purge(self, older_than_s: float, tombstones_s: float | None = None) -> Purged:
        """Drop what is of an age; see `contract.Primary.purge`.

        A run's age is counted from when it was settled.
        """
        now = self._table.now()
        before_s = max(now - older_than_s, 0.0)
        buried_s = before_s if tombstones_s is None else max(now - tombstones_s, 0.0)
        commits = await self._purge_commits(before_s)
        runs = await self._purge_runs(before_s)
        tombstones = await self._purge_tombstones(buried_s)
        memories = await self._purge_memories(buried_s)
        await self._purge_turns(before_s)
        # Others count one as dead only so much later.
        await self._purge_owners(min(before_s, now - self._table.skew_s))
        return Purged(commits=commits, runs=runs, tombstones=tombstones, memories=memories)

    async def _purge_commits(self, before_s: float) -> int:
        purged = 0
        async for rows in self._old("commits", before_s, ("messages", "thread_id", "turn_id")):
            open_turns = await self._open_turns(rows)
            done = [row for row in rows if _turn_of(row) not in open_turns]
            done = [row for row in done if await self._is_sent(row)]
            await self._table.delete_each([key_in(row) for row in done])
            purged += len(done)
        return purged

    async def _open_turns(self, commits: Sequence[Item]) -> set[Turn]:
        """Turns of the threads of these commits that have a run which is not settled."""
        threads = {turn[0] for turn in map(_turn_of, commits) if turn is not None}
        keys = [key_of("thread", thread) for thread in threads]
        found = map(thread_of, await self._table.get_each(keys, ("version", "last", "open")))
        runs = [run_key(digest) for thread in found for digest in thread.open]
        rows = await self._table.get_sure(runs, ("thread_id", "turn_id"))
        return {turn for turn in map(_turn_of, rows) if turn is not None}

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

    async def _purge_turns(self, before_s: float) -> None:
        """Take what was dropped out of lists of commits, and drop those with nothing left."""
        async for rows in self._old("turns", before_s, ("last_s", "commits")):
            for row in rows:
                listed = plain(row)["commits"]
                found = await self._table.get_each([commit_key(each.hex()) for each in listed], ())
                there = {digest_in(commit) for commit in found}
                left = [{"B": each} for each in listed if each.hex() in there]
                if not left:
                    await self._drop_unchanged(row, "last_s", before_s)
                elif len(left) < len(listed):
                    await self._shorten(row, left, before_s)

    async def _shorten(self, turn: Item, commits: list[dict[str, Any]], before_s: float) -> None:
        """Have a turn list these commits only, unless another one was made since then."""
        values = {"commits": {"L": commits}, "before": number(before_s)}
        with suppress(Refused):
            await self._table.update(
                key_in(turn), values, "SET #commits = :commits", "#last_s <= :before"
            )

    async def _purge_tombstones(self, before_s: float) -> int:
        """Drop those of threads that the Valkey server has deleted; how many there were."""
        purged = 0
        async for rows in self._old("tombstones", before_s, ("buried_s", "stamp")):
            done = [row for row in rows if "stamp" in row]
            purged += sum([await self._drop_unchanged(row, "buried_s", before_s) for row in done])
        return purged

    async def _purge_memories(self, before_s: float) -> int:
        """Drop those that were deleted or had expired; how many there were."""
        purged = 0
        async for rows in self._old("memories", before_s, ("gone_s",)):
            gone = [row for row in rows if "gone_s" in row]
            purged += sum([await self._drop_unchanged(row, "gone_s", before_s) for row in gone])
        return purged

    async def _purge_owners(self, before_s: float) -> None:
        async for rows in self._old("owners", before_s, ("until",)):
            for row in rows:
                await self._drop_unchanged(row, "until", before_s)

    async def _drop_unchanged(self, row: Item, changed: str, before_s: float) -> bool:
        """Drop an item, unless it was changed since then; whether it was dropped."""
        if plain(row)[changed] > before_s:
            return False
        with suppress(Refused):
            values = {"before": number(before_s)}
            await self._table.delete(key_in(row), values, f"#{changed} <= :before")
            return True
        return False

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


def _turn_of(row: Item) -> Turn | None:
    """The turn in which a commit was made, or of which a run is; None if in none."""
    if "turn_id" not in row:
        return None
    return untext(row["thread_id"]["S"]), untext(row["turn_id"]["S"])
