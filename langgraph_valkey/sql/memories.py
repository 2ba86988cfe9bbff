"""Memories on SQL.

A put locks the rows of its buckets first, which number it. The entering of a primary locks
the same row (`sql.versions`), so one of the two comes after the other and sees what it did.
Numbers are given under that lock and kept to the end of the transaction. So there are none
that are skipped, and where one is seen, all before it are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    case,
    func,
    select,
    tuple_,
)

from langgraph_valkey.primary.memories import (
    PAGE_BYTES,
    BucketStanding,
    Memory,
    NewMemory,
    Place,
    Putting,
    Recorded,
    corpus_of,
)
from langgraph_valkey.primary.records import digest_of
from langgraph_valkey.sql.database import SqlPart
from langgraph_valkey.sql.schema import ROOM, now_s
from langgraph_valkey.sql.versions import TOGETHER, lock_corpora


class SqlMemories(SqlPart):
    """Memories of a SQL store, on one face; see `primary.memories.Memories`."""

    async def put_memories(self, space: str, items: Sequence[NewMemory]) -> Recorded:
        """Put memories, or delete them; see `Memories`."""
        putting = Putting(items, ROOM)
        return await self._database.write(lambda at: self._put(at, space, putting))

    def _put(self, at: Connection, space: str, putting: Putting) -> Recorded:
        if putting.is_begun:
            # What the tries before have done shows under the lock, and does not change.
            self._lock(at, space, putting.buckets, step=0)
            putting.compare(self._there(at, space, putting.places))
        numbers = self._lock(at, space, putting.buckets_left(), step=1)
        putting.begin(numbers)
        for bucket, number in numbers.items():
            of_bucket = [item for item in putting.left.values() if item.bucket == bucket]
            self._write(at, space, of_bucket, {"change": number, "token": putting.token})
        standings = self._standings(at, space, putting.buckets)
        identities = {bucket: standing.identity for bucket, standing in standings.items()}
        return putting.recorded(identities)

    def _lock(
        self, at: Connection, space: str, buckets: Collection[str], *, step: int
    ) -> dict[str, int]:
        """Lock buckets; their numbers after the step."""
        if not buckets:
            return {}
        corpora = {corpus_of(space, bucket): bucket for bucket in buckets}
        locked = lock_corpora(at, self._tables, corpora, step=step)
        return {corpora[corpus]: number for corpus, number in locked.items()}

    def _there(
        self, at: Connection, space: str, places: Sequence[Place]
    ) -> dict[Place, tuple[int, str]]:
        """Number and token of those of these that are there."""
        named = {_id_of(space, *place): place for place in places}
        columns = self._tables.memories.c
        asked = select(columns.id, columns.change, columns.token).where(columns.id.in_(named))
        return {named[row.id]: (row.change, row.token) for row in at.execute(asked)}

    def _write(
        self, at: Connection, space: str, items: Sequence[NewMemory], put: dict[str, Any]
    ) -> None:
        """Write memories of one bucket, whose row is locked."""
        table = self._tables.memories
        rows = [
            {
                "id": _id_of(space, item.bucket, item.name),
                "bucket": digest_of(corpus_of(space, item.bucket)),
                "name": item.name,
                "record": item.record,
                "until_ms": item.until_ms,
                "gone_s": _gone_s(item),
                **put,
            }
            for item in items
        ]
        writing = self._tables.insert(table).values(rows)
        new = {name: writing.excluded[name] for name in rows[0] if name != "id"}
        at.execute(writing.on_conflict_do_update(index_elements=[table.c.id], set_=new))

    async def memory(self, space: str, bucket: str, names: Sequence[bytes]) -> list[Memory]:
        """What is known of some items of a bucket; see `Memories`."""
        ids = list({_id_of(space, bucket, name) for name in names})

        def reading(at: Connection) -> list[Memory]:
            found: list[Memory] = []
            for first in range(0, len(ids), TOGETHER):
                mine = self._tables.memories.c.id.in_(ids[first : first + TOGETHER])
                asked = select(*self._shown()).where(mine)
                found += [_memory(row) for row in at.execute(asked)]
            return found

        return await self._database.read(reading)

    async def memories(
        self, space: str, bucket: str, *, since: int = 0, after: Memory | None = None, limit: int
    ) -> list[Memory]:
        """A page of the memories of a bucket, by their numbers; see `Memories`."""
        table = self._tables.memories.c
        of_bucket = and_(table.bucket == digest_of(corpus_of(space, bucket)), table.change > since)
        if after is not None:
            last = (after.change, _id_of(space, bucket, after.name))
            of_bucket = and_(of_bucket, tuple_(table.change, table.id) > last)
        most = (
            select(table.id, *self._shown())
            .where(of_bucket)
            .order_by(table.change, table.id)
            .limit(limit)
            .subquery()
        )
        size = func.length(most.c.name) + func.coalesce(func.length(most.c.record), 0)
        upto = func.sum(size).over(order_by=(most.c.change, most.c.id))
        page = select(most, (upto - size).label("before")).subquery()
        found = select(page).where(page.c.before < PAGE_BYTES).order_by(page.c.change, page.c.id)
        return await self._database.read(lambda at: [_memory(row) for row in at.execute(found)])

    async def memory_standing(self, space: str, buckets: Sequence[str]) -> list[BucketStanding]:
        """How it stands with some buckets; see `Memories`."""
        found = await self._database.read(lambda at: self._standings(at, space, buckets))
        return [found[bucket] for bucket in buckets]

    def _standings(
        self, at: Connection, space: str, buckets: Sequence[str]
    ) -> dict[str, BucketStanding]:
        corpora, partitions = self._tables.corpora, self._tables.partitions
        both = corpora.outerjoin(partitions, partitions.c.corpus == corpora.c.id)
        named = {digest_of(corpus_of(space, bucket)): bucket for bucket in buckets}
        found = dict.fromkeys(buckets, BucketStanding("", 0))
        ids = list(named)
        for first in range(0, len(ids), TOGETHER):
            asked = (
                select(corpora.c.id, corpora.c.number, partitions.c.identity)
                .select_from(both)
                .where(corpora.c.id.in_(ids[first : first + TOGETHER]))
            )
            for row in at.execute(asked):
                found[named[row.id]] = BucketStanding(row.identity or "", row.number)
        return found

    def _shown(self) -> tuple[ColumnElement[Any], ...]:
        """What is read of a memory: no record of one that has expired."""
        table = self._tables.memories.c
        is_gone = table.gone_s <= now_s()
        record = case((is_gone, None), else_=table.record).label("record")
        return table.name, record, table.until_ms, table.change


def _gone_s(item: NewMemory) -> ColumnElement[float] | float | None:
    """Since when it is gone, or from when on it will be."""
    if item.record is None:
        return now_s()
    return None if item.until_ms is None else item.until_ms / 1000


def _memory(row: Row[Any]) -> Memory:
    record = None if row.record is None else bytes(row.record)
    return Memory(bytes(row.name), record, row.until_ms, row.change)


def _id_of(space: str, bucket: str, name: bytes) -> str:
    return digest_of(space, bucket, name.hex())
