"""The outbox on SQL: messages wait here in the order of their commits.

A message that was sent is dropped. One that was taken for sending is not due before its
time is over, so nobody else takes it. Several who take at once step over each other's
rows (``SKIP LOCKED``); on SQLite they come one after the other anyway.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, delete, select, update

from langgraph_valkey.primary.records import Message, digest_of
from langgraph_valkey.sql.database import SqlPart
from langgraph_valkey.sql.schema import now_s


class SqlOutbox(SqlPart):
    """The outbox of a SQL store, on one face."""

    async def take_messages(
        self, topics: Sequence[str], *, limit: int, for_s: float
    ) -> list[Message]:
        """Take messages that are due; see `Primary`."""
        outbox = self._tables.outbox.c
        due = (
            select(outbox.id)
            .where(outbox.topic_digest.in_([digest_of(topic) for topic in topics]))
            .where(outbox.due_s <= now_s())
            .order_by(outbox.seq)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        taking = (
            update(self._tables.outbox)
            .where(outbox.id.in_(select(due.c.id)))
            .values(due_s=now_s() + for_s, attempts=outbox.attempts + 1)
            .returning(*outbox)
        )
        return await self._database.write(
            lambda at: [
                _message(row) for row in sorted(at.execute(taking), key=lambda row: row.seq)
            ]
        )

    async def sent_messages(self, ids: Sequence[str]) -> None:
        """These were sent; see `Primary`."""
        dropping = delete(self._tables.outbox).where(self._tables.outbox.c.id.in_(ids))
        await self._database.write(lambda at: at.execute(dropping).rowcount)

    async def failed_message(self, message_id: str, error: str, again_in_s: float | None) -> None:
        """It could not be sent; see `Primary`."""
        due_s = None if again_in_s is None else now_s() + again_in_s
        failing = update(self._tables.outbox).where(self._tables.outbox.c.id == message_id)
        noting = failing.values(due_s=due_s, error=error)
        await self._database.write(lambda at: at.execute(noting).rowcount)

    async def dead_letters(self, *, limit: int) -> list[Message]:
        """Messages that were given up; see `Primary`."""
        outbox = self._tables.outbox.c
        dead = (
            select(self._tables.outbox)
            .where(outbox.due_s.is_(None))
            .order_by(outbox.seq)
            .limit(limit)
        )
        return await self._database.read(lambda at: [_message(row) for row in at.execute(dead)])

    async def revive_messages(self, ids: Sequence[str]) -> int:
        """Send dead letters again; see `Primary`."""
        outbox = self._tables.outbox.c
        dead = update(self._tables.outbox).where(outbox.id.in_(ids), outbox.due_s.is_(None))
        reviving = dead.values(due_s=now_s(), attempts=0)
        return await self._database.write(lambda at: int(at.execute(reviving).rowcount))


def _message(row: Row[Any]) -> Message:
    """A message; its id is drawn from its commit's, so it is a good idempotency key."""
    return Message(
        id=row.id,
        topic=row.topic,
        body=json.loads(row.body),
        op=row.op,
        key=row.key,
        idempotency_key=row.id,
        attempts=row.attempts,
        created_s=row.created_s,
        error=row.error,
    )
