"""Versions of documents on SQL.

A change and an entering of a primary lock the row of their corpus first. So one of them
comes after the other, and sees what it did: see `primary.versions`. Changes of a corpus are
numbered under that lock, so a later one has the higher number.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, update

from langgraph_valkey.primary.records import digest_of
from langgraph_valkey.primary.versions import (
    FORMER_MOST,
    Change,
    Entered,
    KeptPartition,
    PartitionKey,
    Standing,
    Version,
    check_versions,
)
from langgraph_valkey.sql.database import SqlPart
from langgraph_valkey.sql.schema import Tables, now_s

TOGETHER = 400
"""Partitions that one statement asks for: SQLite takes 999 parameters at least."""


class SqlVersions(SqlPart):
    """Versions of a SQL store, on one face; see `primary.versions.Versions`."""

    async def change_versions(self, corpus: str, versions: Mapping[str, str | None]) -> Change:
        """Record new versions; see `Versions`."""
        check_versions(versions)

        def changing(at: Connection) -> Change:
            number = lock_corpora(at, self._tables, [corpus], step=1)[corpus]
            for mark, version in versions.items():
                new = {"version": version, "change": number}
                table = self._tables.versions
                at.execute(
                    self._tables.insert(table)
                    .values(id=digest_of(corpus, mark), corpus=digest_of(corpus), mark=mark, **new)
                    .on_conflict_do_update(index_elements=[table.c.id], set_=new)
                )
            at.execute(
                self._tables.changes.insert().values(
                    id=digest_of(corpus, str(number)),
                    corpus=digest_of(corpus),
                    corpus_name=corpus,
                    number=number,
                    versions=json.dumps(dict(versions)),
                    begun_s=now_s(),
                )
            )
            return Change(corpus, number, dict(versions), self._partitions(at, corpus))

        return await self._database.write(changing)

    async def settle_change(self, change: Change) -> None:
        """All who have to know of it do; see `Versions`."""
        settling = delete(self._tables.changes).where(
            self._tables.changes.c.id == digest_of(change.corpus, str(change.number))
        )
        await self._database.write(lambda at: at.execute(settling).rowcount)

    async def pending_changes(
        self, corpus: str, *, older_than_s: float, limit: int
    ) -> list[Change]:
        """Changes of a corpus that are pending for longer than this; see `Versions`."""
        changes = self._tables.changes.c
        found = (
            select(self._tables.changes)
            .where(changes.corpus == digest_of(corpus), changes.begun_s <= now_s() - older_than_s)
            .order_by(changes.number)
            .limit(limit)
        )

        def reading(at: Connection) -> list[Change]:
            return [self._change(at, row) for row in at.execute(found).all()]

        return await self._database.read(reading)

    def _change(self, at: Connection, row: Row[Any]) -> Change:
        versions = json.loads(row.versions)
        partitions = self._partitions(at, row.corpus_name)
        return Change(row.corpus_name, row.number, versions, partitions)

    async def versions(self, corpus: str, *, after: str | None, limit: int) -> list[Version]:
        """A page of all versions of a corpus; see `Versions`."""
        columns = self._tables.versions.c
        last = "" if after is None else digest_of(corpus, after)
        found = (
            select(columns.mark, columns.version, columns.change)
            .where(columns.corpus == digest_of(corpus), columns.id > last)
            .order_by(columns.id)
            .limit(limit)
        )

        def reading(at: Connection) -> list[Version]:
            return [Version(row.mark, row.version, row.change) for row in at.execute(found)]

        return await self._database.read(reading)

    async def enter(self, key: PartitionKey, identity: str) -> Entered:
        """Have this primary's copy count from now on; see `Versions`."""

        def entering(at: Connection) -> Entered:
            lock_corpora(at, self._tables, [key.corpus], step=0)
            table = self._tables.partitions
            mine = table.c.id == _id_of(key)
            asked = select(table.c.identity, table.c.former, now_s() - table.c.entered_s)
            row = at.execute(asked.where(mine)).one_or_none()
            if row is None:
                at.execute(
                    table.insert().values(
                        id=_id_of(key),
                        corpus=digest_of(key.corpus),
                        corpus_name=key.corpus,
                        tenant=key.tenant,
                        number=key.number,
                        identity=identity,
                        former="[]",
                        entered_s=now_s(),
                    )
                )
                return Entered(accepted=True)
            current, former, age_s = row[0], json.loads(row[1]), row[2]
            if current == identity:
                return Entered(accepted=True, since_s=max(0.0, age_s) if former else None)
            if identity in former:
                return Entered(accepted=False)
            former = [*former, current][-FORMER_MOST:]
            new = {"identity": identity, "former": json.dumps(former), "entered_s": now_s()}
            at.execute(update(table).where(mine).values(**new))
            return Entered(accepted=True, since_s=0.0)

        return await self._database.write(entering)

    async def standing(self, keys: Sequence[PartitionKey]) -> list[Standing]:
        """How it stands with some partitions; see `Versions`."""
        partitions, changes = self._tables.partitions.c, self._tables.changes.c
        ids = [_id_of(key) for key in keys]
        oldest = select(changes.corpus, now_s() - func.min(changes.begun_s)).group_by(
            changes.corpus
        )

        def reading(at: Connection) -> list[Standing]:
            # What is pending is read first: a change that comes in between finds the
            # identity that is read here, or a later one.
            pending = {row[0]: max(0.0, row[1]) for row in at.execute(oldest)}
            found: dict[str, str] = {}
            for first in range(0, len(ids), TOGETHER):
                some = ids[first : first + TOGETHER]
                asked = select(partitions.id, partitions.identity).where(partitions.id.in_(some))
                found.update((row.id, row.identity) for row in at.execute(asked))
            return [
                Standing(found.get(each, ""), pending.get(digest_of(key.corpus)))
                for key, each in zip(keys, ids, strict=True)
            ]

        return await self._database.read(reading)

    async def forget_partition(self, key: PartitionKey) -> None:
        """It is gone; see `Versions`."""
        table = self._tables.partitions
        forgetting = delete(table).where(table.c.id == _id_of(key))
        await self._database.write(lambda at: at.execute(forgetting).rowcount)

    def _partitions(self, at: Connection, corpus: str) -> tuple[KeptPartition, ...]:
        columns = self._tables.partitions.c
        found = select(columns.tenant, columns.number, columns.identity).where(
            columns.corpus == digest_of(corpus)
        )
        return tuple(
            KeptPartition(PartitionKey(corpus, row.tenant, row.number), row.identity)
            for row in at.execute(found.order_by(columns.id))
        )


def lock_corpora(
    at: Connection, tables: Tables, corpora: Collection[str], *, step: int
) -> dict[str, int]:
    """Lock rows of corpora until the end of the transaction; their numbers after the step.

    All lock several of them in the same order, so none waits for one who waits for it.
    """
    named = {digest_of(corpus): corpus for corpus in corpora}
    table = tables.corpora
    locking = (
        tables.insert(table)
        .values([{"id": each, "number": step} for each in sorted(named)])
        .on_conflict_do_update(index_elements=[table.c.id], set_={"number": table.c.number + step})
        .returning(table.c.id, table.c.number)
    )
    return {named[row.id]: row.number for row in at.execute(locking)}


def _id_of(key: PartitionKey) -> str:
    return digest_of(key.corpus, key.tenant, str(key.number))
