"""Memories in DynamoDB: those of a bucket stand under one key, beside the number of its puts.

A put is one transaction, which raises the number from what was read. If somebody else has
raised it meanwhile nothing is done, and it is tried again: so puts into a bucket come one
after the other, some 50 a second at most. The primary that counts is read only after that
(`dynamodb.versions` says why no lock is needed). It can't be a condition of the transaction:
while one is being applied, plain reads still give some of its items as they were before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langgraph_valkey.dynamodb.errors import Cancelled
from langgraph_valkey.dynamodb.items import (
    Item,
    corpus_key,
    in_list,
    number,
    plain,
    word,
)
from langgraph_valkey.dynamodb.sizes import ROOM
from langgraph_valkey.dynamodb.table import Part
from langgraph_valkey.dynamodb.versions import partition_key
from langgraph_valkey.errors import OutcomeUnknown, Unreachable
from langgraph_valkey.primary.memories import (
    BucketStanding,
    Memory,
    NewMemory,
    Place,
    Putting,
    Recorded,
    bucket_key,
    corpus_of,
)
from langgraph_valkey.primary.records import digest_of

_KIND = "memory#"
_LAST = "~"
"""Comes after whatever follows the name of the kind in `sk`."""


class Memories(Part):
    """The memories of a store; see `primary.memories.Memories`."""

    async def put_memories(self, space: str, items: Sequence[NewMemory]) -> Recorded:
        """Put memories, or delete them; see `Memories`."""
        putting = Putting(items, ROOM)
        patience = self._table.patience()
        may_be_done = False
        while True:
            last = await self._numbers(space, putting.buckets)
            if may_be_done:  # Whoever puts one of these after this look raises a number.
                putting.compare(await self._there(space, putting.places))
            numbers = {bucket: last[bucket] + 1 for bucket in putting.buckets_left()}
            putting.begin(numbers)
            raising = [
                self._raising(space, bucket, last[bucket]) for bucket in putting.buckets_left()
            ]
            writing = [
                self._table.putting(self._item(space, item, numbers[item.bucket], putting.token))
                for item in putting.left.values()
            ]
            if not raising:
                break
            try:
                await self._table.transact([*raising, *writing])
                break
            except Cancelled as cancelled:
                if not any(map(cancelled.failed, range(len(raising)))):
                    raise cancelled.error from None
                may_be_done |= cancelled.may_be_done
            if not await patience.pause():
                why = f"others put memories into the same buckets of {self._table.name!r}"
                if may_be_done:
                    raise OutcomeUnknown(f"{why}, and an answer was lost: call again")
                raise Unreachable(f"{why} all the time, and nothing was done: call again")
        return putting.recorded(await self._identities(space, putting.buckets))

    async def memory(self, space: str, bucket: str, names: Sequence[bytes]) -> list[Memory]:
        """What is known of some items of a bucket; see `Memories`."""
        keys = [memory_key(space, bucket, name) for name in dict.fromkeys(names)]
        rows = await self._table.get_each(keys, ("name", "record", "until_ms", "change"))
        now = self._table.now()
        return [_memory(row, now) for row in rows]

    async def memories(
        self, space: str, bucket: str, *, since: int = 0, after: Memory | None = None, limit: int
    ) -> list[Memory]:
        """A page of the memories of a bucket, by digests of their names; see `Memories`."""
        name = "" if after is None else _digest_of(after.name)
        first = corpus_key(corpus_of(space, bucket), _KIND + name)
        start: Item | None = None
        while True:
            rows, start = await self._table.page(
                first,
                _KIND + _LAST,
                start=start,
                values={"since": number(since)},
                condition="#change > :since",
                limit=limit,
            )
            if rows or start is None:
                now = self._table.now()
                return [_memory(row, now) for row in rows]

    async def memory_standing(self, space: str, buckets: Sequence[str]) -> list[BucketStanding]:
        """How it stands with some buckets; see `Memories`."""
        each = list(dict.fromkeys(buckets))
        identities = await self._identities(space, each)
        numbers = await self._numbers(space, each)
        return [BucketStanding(identities[bucket], numbers[bucket]) for bucket in buckets]

    async def _numbers(self, space: str, buckets: Sequence[str]) -> dict[str, int]:
        """Number of the last put into each of these buckets."""
        keys = {bucket: _number_key(space, bucket) for bucket in buckets}
        rows = await self._table.get_each(list(keys.values()), ("number",))
        found = {row["pk"]["S"]: int(plain(row)["number"]) for row in rows}
        return {bucket: found.get(key["pk"]["S"], 0) for bucket, key in keys.items()}

    async def _identities(self, space: str, buckets: Sequence[str]) -> dict[str, str]:
        """The primary of Valkey whose copy counts, of each of these buckets."""
        keys = {bucket: partition_key(bucket_key(space, bucket)) for bucket in buckets}
        rows = await self._table.get_each(list(keys.values()), ("identity",))
        found = {row["pk"]["S"]: str(plain(row)["identity"]) for row in rows}
        return {bucket: found.get(key["pk"]["S"], "") for bucket, key in keys.items()}

    async def _there(self, space: str, places: Sequence[Place]) -> dict[Place, tuple[int, str]]:
        """Number and token of those of these that are there."""
        keys = {_place_of(memory_key(space, *place)): place for place in places}
        wanted = [memory_key(space, *place) for place in places]
        rows = await self._table.get_each(wanted, ("change", "token"))
        found = {keys[_place_of(row)]: plain(row) for row in rows}
        return {place: (row["change"], row["token"]) for place, row in found.items()}

    def _raising(self, space: str, bucket: str, last: int) -> dict[str, Any]:
        """The action that raises a bucket's number, unless somebody else has."""
        return self._table.updating(
            _number_key(space, bucket),
            {"last": number(last), "next": number(last + 1)},
            "SET #number = :next",
            "#number = :last" if last else "attribute_not_exists(#number)",
        )

    def _item(self, space: str, memory: NewMemory, change: int, token: str) -> Item:
        """A memory as it is kept."""
        key = memory_key(space, memory.bucket, memory.name)
        item: Item = {
            **key,
            "name": {"B": memory.name},
            "change": number(change),
            "token": word(token),
        }
        gone_s: float | None = None
        if memory.record is None:
            gone_s = self._table.now()
        else:
            item["record"] = {"B": memory.record}
        if memory.until_ms is not None:
            item["until_ms"] = number(memory.until_ms)
            gone_s = memory.until_ms / 1000
        if gone_s is not None:
            item |= {"gone_s": number(gone_s), **in_list("memories", gone_s, key)}
        return item


def _memory(item: Item, now_s: float) -> Memory:
    row = plain(item)
    until_ms = row.get("until_ms")
    is_gone = until_ms is not None and until_ms <= now_s * 1000
    record = None if is_gone else row.get("record")
    return Memory(row["name"], record, until_ms, row["change"])


def memory_key(space: str, bucket: str, name: bytes) -> Item:
    """Where a memory stands."""
    return corpus_key(corpus_of(space, bucket), _KIND + _digest_of(name))


def _digest_of(name: bytes) -> str:
    return digest_of(name.hex())


def _number_key(space: str, bucket: str) -> Item:
    return corpus_key(corpus_of(space, bucket), "corpus")


def _place_of(key: Item) -> tuple[str, str]:
    return key["pk"]["S"], key["sk"]["S"]
