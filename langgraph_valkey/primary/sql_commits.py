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

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
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
from langgraph_valkey.primary.sql_errors import was_rolled_back
from langgraph_valkey.primary.sql_pipeline import (
    Statement,
    begin_with,
    commit_with,
    in_drivers_words,
)
from langgraph_valkey.primary.sql_schema import ROOM, as_kept, now_s

_GIVEN = (
    *("id", "turn", "op", "key", "scope", "thread_id", "turn_id"),
    *("run_id", "attempt", "payload_sha256"),
)
"""Columns of a key's row that are known before."""

_SENT = ("id", "commit_id", "topic", "topic_digest", "body", "op", "key", "attempts", "error")
"""Columns of a message's row that are known before."""

_OPEN: ColumnElement[Any] = literal_column("''")
"""The result until there is one: no JSON. Nobody else sees it, unless the function has
ended the transaction by itself."""


class _Placed(NamedTuple):
    """What came of putting in a key's row: when that was (or None), or what is there."""

    placed_s: float | None = None
    payload_sha256: str = ""
    result: str | None = None
    committed_s: float = 0.0


class SqlCommits(SqlPart):
    """Commits of a SQL store, on one face."""

    async def commit(self, request: CommitRequest, fn: Callable[..., Any]) -> Receipt:
        """Do something exactly once; see `Primary`."""

        async def work(transaction: Transaction, progress: Progress) -> Receipt:
            receipt = await transaction.run(lambda at: self._place(at, request))
            if receipt.replayed:
                progress.keep = False
                return receipt
            progress.is_first = progress.in_users_hands = True
            with self._database.lent():
                result = await transaction.call(fn)
            progress.in_users_hands = False
            what = f"the result of commit {request.key.op!r}"
            text = json_text.encode(result, what, ROOM.result_bytes_max)
            progress.committing = True
            await transaction.run(lambda at: self._complete(at, request, text))
            return dataclasses.replace(receipt, result=json.loads(text))

        return await self._database.transact(work)

    async def receipt(self, key: CommitKey) -> Receipt | None:
        """The receipt of a commit; see `Primary`."""
        return await self._database.read(lambda at: self._find(at, key.id))

    async def receipts(self, thread_id: str, turn_id: str) -> list[Receipt]:
        """What was committed in a turn; see `Primary`."""
        commits = self._tables.commits.c
        of_turn = select(*self._asked).where(commits.turn == digest_of(thread_id, turn_id))
        found = of_turn.order_by(commits.seq)
        return await self._database.read(lambda at: [_read(row) for row in at.execute(found)])

    def _find(self, connection: Connection, commit_id: str) -> Receipt | None:
        row = connection.execute(self._finding, {"id": commit_id}).one_or_none()
        return None if row is None else _read(row)

    @functools.cached_property
    def _finding(self) -> Any:
        return select(*self._asked).where(self._tables.commits.c.id == self._value("id"))

    @property
    def _asked(self) -> tuple[Column[Any], ...]:
        commits = self._tables.commits.c
        return (commits.op, commits.key, *self._of_receipt)

    @property
    def _of_receipt(self) -> tuple[Column[Any], ...]:
        commits = self._tables.commits.c
        return commits.payload_sha256, commits.result, commits.committed_s

    # --- putting in the key's row --------------------------------------------------

    def _place(self, connection: Connection, request: CommitRequest) -> Receipt:
        """Put in the key's row: a receipt without result yet, or the one that is there.

        Raises:
            RunTakenOver: The fence does not hold.
        """
        key, placed = request.key, self._ask(connection, request)
        if placed.placed_s is not None:
            at = moment(placed.placed_s)
            return Receipt(key.op, key.key, None, False, at, request.payload_sha256)
        # The row that is there came with the answer (PostgreSQL) unless it was put in
        # while this statement waited: then it is visible only to the next one.
        if placed.result is not None:
            at = moment(placed.committed_s)
            result = _result_of(key.op, placed.result)
            return Receipt(key.op, key.key, result, True, at, placed.payload_sha256)
        found = self._find(connection, key.id)
        if found is None:
            raise RunTakenOver(
                f"commit {key.op!r} was not made: another process has taken over the run in which "
                "it was asked for. It goes on there; stop here",
                run_id=request.fence.run_id if request.fence else "",
            )
        return found

    def _ask(self, connection: Connection, request: CommitRequest) -> _Placed:
        given = _given(request)
        placing = self._placing if request.fence is None else self._placing_fenced
        if self._tables.kind == "postgresql":
            row = begin_with(connection, Statement(placing, as_kept(self._tables.commits, given)))
        else:
            row = connection.execute(placing, given).one_or_none()
        return _Placed(*(row or ()))

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
            select(*values.values(), _OPEN, now_s())
            .where(runs.c.id == bindparam("run"), runs.c.attempt == values["attempt"])
            .with_for_update(read=True)
        )
        put = self._tables.insert(commits)
        return self._with_answer(put.from_select([*values, "result", "committed_s"], held))

    def _value(self, name: str) -> BindParameter[Any]:
        return bindparam(name, type_=self._tables.commits.c[name].type)

    def _with_answer(self, put: Any) -> Any:
        """Have it say when the row was put in; on PostgreSQL, what is there otherwise."""
        commits = self._tables.commits
        put = put.on_conflict_do_nothing().returning(commits.c.committed_s.label("placed_s"))
        if self._tables.kind != "postgresql":
            return put
        placed = put.cte("placed")
        one = select(literal_column("1").label("one")).subquery("one")
        joined = one.outerjoin(placed, true()).outerjoin(commits, commits.c.id == self._value("id"))
        return in_drivers_words(select(placed.c.placed_s, *self._of_receipt).select_from(joined))

    # --- and what it came to -------------------------------------------------------

    def _complete(self, connection: Connection, request: CommitRequest, result: str) -> None:
        """Add the result to the row, and what is to be sent; on PostgreSQL, commit."""
        given, messages = {"of_id": request.key.id, "to_result": result}, _messages(request)
        if self._tables.kind == "postgresql":
            kept = [as_kept(self._tables.outbox, message) for message in messages]
            sending = [Statement(self._sending, message) for message in kept]
            commit_with(connection, [Statement(self._completing, given), *sending])
            return
        if connection.execute(self._completing, given).rowcount != 1:
            raise was_rolled_back()
        if messages:
            connection.execute(self._sending, messages)

    @functools.cached_property
    def _completing(self) -> Any:
        """The statement that adds the result.

        On PostgreSQL it fails if the row is not there, so that COMMIT, which is sent
        along with it, is skipped: by a division, since nothing plainer does that.
        """
        commits = self._tables.commits
        done = update(commits).where(commits.c.id == bindparam("of_id"))
        done = done.values(result=bindparam("to_result"))
        if self._tables.kind != "postgresql":
            return done
        rows = done.returning(commits.c.id).cte("done")
        return in_drivers_words(select(literal_column("1 / count(*)")).select_from(rows))

    @functools.cached_property
    def _sending(self) -> Any:
        outbox = self._tables.outbox
        named = {name: bindparam(name, type_=outbox.c[name].type) for name in _SENT}
        put = insert(outbox).values(**named, due_s=now_s(), created_s=now_s())
        return in_drivers_words(put) if self._tables.kind == "postgresql" else put


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


def _read(row: Row[Any]) -> Receipt:
    return Receipt(
        op=row.op,
        key=row.key,
        result=_result_of(row.op, row.result),
        replayed=True,
        committed_at=moment(row.committed_s),
        payload_sha256=row.payload_sha256,
    )


def _result_of(op: str, result: str) -> Any:
    """What a commit came to, if it is known."""
    if not result:
        raise RuntimeError(
            f"a commit {op!r} has a record but no result: its function has ended the transaction "
            "by itself, by a COMMIT of its own or a script, so nobody knows whether all of it was "
            "done. Mend the function, find out what it did, then delete the row of table "
            "lgv_commits whose result is empty, or give it its result"
        )
    return json.loads(result)
