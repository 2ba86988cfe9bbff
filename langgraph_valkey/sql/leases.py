"""Leases and tombstones on SQL: a row each, decided by one statement.

A lease's row stays when it is given back, so that no token is ever given twice.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Row, and_, case, or_, select, tuple_, update

from langgraph_valkey.primary.records import Lease, Tombstone, digest_of
from langgraph_valkey.sql.database import SqlPart
from langgraph_valkey.sql.schema import now_s

_GIVEN_BACK = 0.0
"""The time until which a lease holds that was given back."""


class SqlLeases(SqlPart):
    """Leases of a SQL store, on one face."""

    async def acquire(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        """Get a lease, or get it again; see `Primary`."""
        leases, until_s = self._tables.leases.c, now_s() + ttl_s
        is_held, is_mine = leases.until_s > now_s(), leases.holder == holder
        # Mine, and given back: this call was sent before that and comes late.
        is_late = and_(is_mine, leases.until_s == _GIVEN_BACK)
        getting = (
            self._tables.insert(self._tables.leases)
            .values(id=digest_of(name), name=name, holder=holder, token=1, until_s=until_s)
            .on_conflict_do_update(
                index_elements=[leases.id],
                set_={
                    "holder": holder,
                    "token": case((is_held, leases.token), else_=leases.token + 1),
                    "until_s": until_s,
                },
                where=or_(and_(is_held, is_mine), and_(~is_held, ~is_late)),
            )
            .returning(leases.token)
        )
        token = await self._database.write(lambda at: at.execute(getting).scalar())
        return None if token is None else Lease(name, int(token), ttl_s)

    async def renew(self, lease: Lease, holder: str) -> bool:
        """Hold it on; see `Primary`."""
        held = and_(self._has(lease, holder), self._tables.leases.c.until_s > now_s())
        holding = update(self._tables.leases).where(held).values(until_s=now_s() + lease.ttl_s)
        return bool(await self._database.write(lambda at: at.execute(holding).rowcount))

    async def release(self, lease: Lease, holder: str) -> None:
        """Give it back; see `Primary`."""
        giving = (
            update(self._tables.leases).where(self._has(lease, holder)).values(until_s=_GIVEN_BACK)
        )
        await self._database.write(lambda at: at.execute(giving).rowcount)

    def _has(self, lease: Lease, holder: str) -> ColumnElement[bool]:
        leases = self._tables.leases.c
        return and_(
            leases.id == digest_of(lease.name),
            leases.token == lease.token,
            leases.holder == holder,
        )


class SqlTombstones(SqlPart):
    """Tombstones of a SQL store, on one face."""

    async def bury(self, thread_id: str) -> Tombstone:
        """Delete a thread for good; see `Primary`."""
        fresh = {"buried_s": now_s(), "stamp": ""}
        burying = (
            self._tables.insert(self._tables.tombstones)
            .values(id=digest_of(thread_id), thread_id=thread_id, **fresh)
            .on_conflict_do_update(index_elements=[self._tables.tombstones.c.id], set_=fresh)
            .returning(*self._tables.tombstones.c)
        )
        return await self._database.write(lambda at: _tombstone(at.execute(burying).one()))

    async def buried(self, tomb: Tombstone, stamp: str) -> None:
        """The Valkey server has deleted it; see `Primary`."""
        tombstones = self._tables.tombstones.c
        is_new, is_that_one = tombstones.stamp == "", tombstones.buried_s == tomb.buried_s
        confirming = update(self._tables.tombstones).where(
            tombstones.id == digest_of(tomb.thread_id),
            or_(and_(is_new, is_that_one), and_(~is_new, tombstones.stamp < stamp)),
        )
        await self._database.write(lambda at: at.execute(confirming.values(stamp=stamp)).rowcount)

    async def tombstone(self, thread_id: str) -> Tombstone | None:
        """A thread's newest tombstone; see `Primary`."""
        found = select(self._tables.tombstones).where(
            self._tables.tombstones.c.id == digest_of(thread_id)
        )
        row = await self._database.read(lambda at: at.execute(found).one_or_none())
        return None if row is None else _tombstone(row)

    async def tombstones(
        self, *, since_s: float, after: tuple[float, str] | None = None, limit: int
    ) -> list[Tombstone]:
        """Those of the last `since_s` seconds; see `Primary`."""
        columns = self._tables.tombstones.c
        found = select(self._tables.tombstones).where(columns.buried_s >= now_s() - since_s)
        if after is not None:
            last = (after[0], digest_of(after[1]))
            found = found.where(tuple_(columns.buried_s, columns.id) > last)
        found = found.order_by(columns.buried_s, columns.id).limit(limit)
        return await self._database.read(lambda at: [_tombstone(row) for row in at.execute(found)])


def _tombstone(row: Row[Any]) -> Tombstone:
    return Tombstone(row.thread_id, row.buried_s, row.stamp)
