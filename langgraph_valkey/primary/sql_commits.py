"""Commits on SQL: the key's row, the function's work and its result in one transaction.

The key's row is put in first, by its unique ``id``. Whoever comes second with the same
key waits in that very statement: PostgreSQL until the first transaction has ended,
SQLite until it may write at all. Then it finds the row, or, if the first one was
undone, puts in its own. So nobody has to keep or expire a state "in progress".

The fence is part of the same statement: it is put in only if the run's row still has
this attempt, and that row is locked (``FOR SHARE``) until the transaction ends. Who
claims the run has to change it, hence waits for commits that are under way and then
sees what they did; commits that come later find another attempt.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    BindParameter,
    Column,
    Connection,
    Row,
    bindparam,
    insert,
    literal_column,
    select,
    true,
    update,
)

from langgraph_valkey.errors import RunTakenOver
from langgraph_valkey.primary import json_text
from langgraph_valkey.primary.records import (
    CommitKey,
    CommitRequest,
    Receipt,
    digest_of,
    moment,
)
from langgraph_valkey.primary.sql_database import Progress, SqlPart, Transaction
from langgraph_valkey.primary.sql_schema import ROOM, now_s

_GIVEN = (
    *("id", "turn", "op", "key", "scope", "thread_id", "turn_id"),
    *("run_id", "attempt", "payload_sha256"),
)
"""Columns of a key's row that are known before."""

_OPEN = "null"
"""Its result until there is one; nobody else sees it."""


class SqlCommits(SqlPart):
    """Commits of a SQL store, on one face."""

    async def commit(self, request: CommitRequest, fn: Callable[..., Any]) -> Receipt:
        """Do something exactly once; see `Primary`."""

        async def work(transaction: Transaction, progress: Progress) -> Receipt:
            placed = await transaction.run(functools.partial(self._place, request))
            if isinstance(placed, Receipt):
                progress.keep = False
                return placed
            progress.is_first = progress.in_users_hands = True
            result = await transaction.call(fn)
            progress.in_users_hands = False
            what = f"the result of commit {request.key.op!r}"
            text = json_text.encode(result, what, ROOM.result_bytes_max)
            await transaction.run(functools.partial(self._complete, request, text))
            return _receipt(request, text, placed)

        return await self._database.transact(work)

    async def receipt(self, key: CommitKey) -> Receipt | None:
        """The receipt of a commit; see `Primary`."""
        return await self._database.read(functools.partial(self._find, key.id))

    async def receipts(self, thread_id: str, turn_id: str) -> list[Receipt]:
        """What was committed in a turn; see `Primary`."""
        commits = self._tables.commits.c
        found = select(*self._asked).where(commits.turn == digest_of(thread_id, turn_id))

        def statements(connection: Connection) -> list[Receipt]:
            return [_read(row) for row in connection.execute(found.order_by(commits.seq))]

        return await self._database.read(statements)

    def _find(self, commit_id: str, connection: Connection) -> Receipt | None:
        found = select(*self._asked).where(self._tables.commits.c.id == commit_id)
        row = connection.execute(found).one_or_none()
        return None if row is None else _read(row)

    @property
    def _asked(self) -> tuple[Column[Any], ...]:
        """The columns of a receipt."""
        commits = self._tables.commits.c
        return (
            *(commits.op, commits.key, commits.payload_sha256),
            *(commits.result, commits.committed_s),
        )

    # --- putting in the key's row --------------------------------------------------

    def _place(self, request: CommitRequest, connection: Connection) -> Receipt | float:
        """Put in the key's row; when that was, or the receipt that is there.

        Raises:
            RunTakenOver: The fence does not hold.
        """
        placing = self._placing if request.fence is None else self._placing_fenced
        row = connection.execute(placing, _given(request)).one_or_none()
        if row is not None and row.placed_s is not None:
            return float(row.placed_s)
        # The row that is there came with the answer (PostgreSQL) unless it was put in
        # while this statement waited: then it is visible only to the next one.
        if row is not None and row.op is not None:
            return _read(row)
        found = self._find(request.key.id, connection)
        if found is None:
            raise RunTakenOver(
                f"commit {request.key.op!r} was not made: another process has taken over the run "
                "in which it was asked for. It goes on there; stop here",
                run_id=request.fence.run_id if request.fence else "",
            )
        return found

    @functools.cached_property
    def _placing(self) -> Any:
        """The statement that puts in a key's row, unless it is there."""
        values = {name: self._value(name) for name in _GIVEN}
        put = self._tables.insert(self._tables.commits)
        return self._with_answer(put.values(**values, result=_OPEN, committed_s=now_s()))

    @functools.cached_property
    def _placing_fenced(self) -> Any:
        """The same, if the fence holds; it is held then."""
        commits, runs = self._tables.commits, self._tables.runs
        values = {name: self._value(name) for name in _GIVEN}
        held = (
            select(*values.values(), literal_column(f"'{_OPEN}'"), now_s())
            .where(runs.c.id == bindparam("run"), runs.c.attempt == values["attempt"])
            .with_for_update(read=True)
        )
        put = self._tables.insert(commits)
        return self._with_answer(put.from_select([*values, "result", "committed_s"], held))

    def _value(self, name: str) -> BindParameter[Any]:
        return bindparam(name, type_=self._tables.commits.c[name].type)

    def _with_answer(self, put: Any) -> Any:
        """Have it say when the row was put in, and PostgreSQL the row that is there."""
        commits = self._tables.commits
        put = put.on_conflict_do_nothing().returning(commits.c.committed_s.label("placed_s"))
        if self._tables.kind != "postgresql":
            return put
        placed = put.cte("placed")
        one = select(literal_column("1").label("one")).subquery("one")
        joined = one.outerjoin(placed, true()).outerjoin(commits, commits.c.id == self._value("id"))
        return select(placed.c.placed_s, *self._asked).select_from(joined)

    # --- and what it came to -------------------------------------------------------

    def _complete(self, request: CommitRequest, result: str, connection: Connection) -> None:
        """Add the result to the row, and what is to be sent."""
        commits = self._tables.commits
        done = update(commits).where(commits.c.id == request.key.id).values(result=result)
        if connection.execute(done).rowcount != 1:
            raise RuntimeError(
                f"the function of commit {request.key.op!r} has rolled back the transaction, so "
                "nothing was committed: let it raise an exception instead"
            )
        if request.outbox:
            sending = insert(self._tables.outbox).values(due_s=now_s(), created_s=now_s())
            connection.execute(sending, _messages(request))


def _messages(request: CommitRequest) -> list[dict[str, Any]]:
    key = request.key
    return [
        {
            "id": digest_of(key.id, str(number)),
            "commit_id": key.id,
            "topic": topic,
            "topic_digest": digest_of(topic),
            "body": body,
            "op": key.op,
            "key": key.key,
            "attempts": 0,
            "error": "",
        }
        for number, (topic, body) in enumerate(request.outbox)
    ]


def _given(request: CommitRequest) -> dict[str, Any]:
    key, fence = request.key, request.fence
    return {
        "id": key.id,
        "turn": digest_of(request.thread_id, request.turn_id),
        "op": key.op,
        "key": key.key,
        "scope": key.scope,
        "thread_id": request.thread_id,
        "turn_id": request.turn_id,
        "run_id": fence.run_id if fence else None,
        "attempt": fence.attempt if fence else None,
        "payload_sha256": request.payload_sha256,
        **({"run": digest_of(fence.run_id)} if fence else {}),
    }


def _receipt(request: CommitRequest, text: str, committed_s: float) -> Receipt:
    """The receipt of what was done now; the result is as a duplicate will read it."""
    return Receipt(
        op=request.key.op,
        key=request.key.key,
        result=json.loads(text),
        replayed=False,
        committed_at=moment(committed_s),
        payload_sha256=request.payload_sha256,
    )


def _read(row: Row[Any]) -> Receipt:
    return Receipt(
        op=row.op,
        key=row.key,
        result=json.loads(row.result),
        replayed=True,
        committed_at=moment(row.committed_s),
        payload_sha256=row.payload_sha256,
    )
