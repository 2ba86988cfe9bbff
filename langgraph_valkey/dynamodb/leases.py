"""Leases and tombstones in DynamoDB: an item each, changed on a condition.

A lease ends by the clock of whoever wants it next, `skew_s` after the time that its
holder's machine chose. Clocks may be wrong; tokens are not: each is higher than all
before, and what is done under a lease carries it.
"""

from __future__ import annotations

from langgraph_valkey.dynamodb.errors import Refused
from langgraph_valkey.dynamodb.items import (
    Item,
    digest_in,
    in_list,
    key_of,
    number,
    place_of,
    plain,
    since,
    text,
    untext,
    word,
)
from langgraph_valkey.dynamodb.table import Part
from langgraph_valkey.primary.records import Lease, Tombstone

_HELD = "#token = :token AND #holder = :holder"
_IN_TIME = f"{_HELD} AND #until > :now"
_NOT_RETURNED = f"{_HELD} AND #until > :zero"
_FREE = (
    "attribute_not_exists(#pk) OR (#until <= :over AND NOT (#until = :zero AND #holder = :holder))"
)


class Leases(Part):
    """The leases of a store; see `contract.Primary`."""

    async def acquire(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        """Get a lease, if nobody holds it, or get it again.

        Its token is higher than all before. Who asks by the same name while he holds it
        gets what he has; once he has given it back, that name is used up.
        """
        now = self._table.now()
        values = {
            "holder": text(holder),
            "until": number(now + ttl_s),
            "over": number(now - self._table.skew_s),
            "zero": number(0),
            "one": number(1),
        }
        try:
            row = await self._table.update(
                key_of("lease", name),
                values,
                "SET #holder = :holder, #until = :until, "
                "#token = if_not_exists(#token, :zero) + :one",
                _FREE,
            )
        except Refused as refused:
            row = refused.old
            if row["holder"] != text(holder):
                return None
            again = Lease(name, plain(row)["token"], ttl_s)
            return again if await self._hold(again, holder, _NOT_RETURNED) else None
        return Lease(name, plain(row)["token"], ttl_s)

    async def renew(self, lease: Lease, holder: str) -> bool:
        """Hold it on for its time; False if it was lost."""
        return await self._hold(lease, holder, _IN_TIME)

    async def _hold(self, lease: Lease, holder: str, condition: str) -> bool:
        now = self._table.now()
        values = {
            "token": number(lease.token),
            "holder": text(holder),
            "until": number(now + lease.ttl_s),
            "now": number(now),
            "zero": number(0),
        }
        try:
            await self._table.update(
                key_of("lease", lease.name), values, "SET #until = :until", condition
            )
        except Refused:
            return False
        return True

    async def release(self, lease: Lease, holder: str) -> None:
        """Give it back. The token stays used."""
        values = {"token": number(lease.token), "holder": text(holder), "zero": number(0)}
        try:
            await self._table.update(
                key_of("lease", lease.name), values, "SET #until = :zero", _HELD
            )
        except Refused:
            return


class Tombstones(Part):
    """The tombstones of a store; see `contract.Primary`."""

    async def bury(self, thread_id: str) -> Tombstone:
        """Delete a thread for good: recorded before anything else is done about it."""
        key, now = key_of("tombstone", thread_id), self._table.now()
        values = {
            **in_list("tombstones", now, key),
            "thread_id": text(thread_id),
            "buried_s": number(now),
        }
        row = await self._table.update(
            key,
            values,
            "SET #thread_id = :thread_id, #buried_s = :buried_s, #list = :list, #at = :at "
            "REMOVE #stamp",
        )
        return _tombstone_of(row)

    async def buried(self, tomb: Tombstone, stamp: str) -> None:
        """The Valkey server has deleted it, under this stamp; see `contract.Primary.buried`."""
        try:
            await self._table.update(
                key_of("tombstone", tomb.thread_id),
                {"stamp": word(stamp), "buried_s": number(tomb.buried_s)},
                "SET #stamp = :stamp",
                "(attribute_not_exists(#stamp) AND #buried_s = :buried_s) OR #stamp < :stamp",
            )
        except Refused:
            return

    async def tombstone(self, thread_id: str) -> Tombstone | None:
        """A thread's newest tombstone; None if it has none."""
        found = await self._table.get(key_of("tombstone", thread_id))
        return None if found is None else _tombstone_of(found)

    async def tombstones(
        self, *, since_s: float, after: tuple[float, str] | None = None, limit: int
    ) -> list[Tombstone]:
        """Those of the last `since_s` seconds, the oldest first.

        They come from the index: one of the last second may not be there yet.
        """
        at = since(self._table.now() - since_s)
        if after is not None:
            at = max(at, place_of(after[0], key_of("tombstone", after[1])))
        places = await self._table.listed("tombstones", after=at, limit=limit)
        rows = await self._table.get_each([place.key for place in places])
        found = {digest_in(row): row for row in rows}
        there = (found.get(digest_in(place.key)) for place in places)
        return [_tombstone_of(row) for row in there if row]


def _tombstone_of(item: Item) -> Tombstone:
    row = plain(item)
    return Tombstone(untext(row["thread_id"]), row["buried_s"], row.get("stamp", ""))
