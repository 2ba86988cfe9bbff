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
    ColumnElement,
    Connection,
    bindparam,
    insert,
    literal_column,
    select,
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
from langgraph_valkey.sql.database import Progress, SqlPart, Transaction
from langgraph_valkey.sql.errors import was_rolled_back
from langgraph_valkey.sql.messages import (
    Statement,
    begin_with,
    commit_with,
    in_drivers_words,
)
from langgraph_valkey.sql.schema import ROOM, as_kept, now_s

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


class _Kept(NamedTuple):
    """A record that is there, as far as its key does not tell it."""

    payload_sha256: str
    result: str
    committed_s: float


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
        return await self._database.read(lambda at: self._find(at, key))

    async def receipts(self, thread_id: str, turn_id: str) -> list[Receipt]:
        """What was committed in a turn; see `Primary`."""
        commits = self._tables.commits.c
        columns = (commits.payload_sha256, commits.result, commits.committed_s)
        of_turn = select(*columns, commits.op, commits.key)
        of_turn = of_turn.where(commits.turn == digest_of(thread_id, turn_id)).order_by(commits.seq)
        return await self._database.read(
            lambda at: [_read(row, _Kept(*row[:3])) for row in at.execute(of_turn)]
        )

    def _find(self, connection: Connection, key: CommitKey) -> Receipt | None:
        commits = self._tables.commits.c
        kept = select(commits.payload_sha256, commits.result, commits.committed_s)
        row = connection.execute(kept.where(commits.id == key.id)).one_or_none()
        return None if row is None else _read(key, _Kept(*row))

    # --- putting in the key's row --------------------------------------------------

    def _place(self, connection: Connection, request: CommitRequest) -> Receipt:
        """Put in the key's row: a receipt without result yet, or the one that is there.

        Raises:
            RunTakenOver: The fence does not hold.
        """
        key, (placed_s, kept) = request.key, self._ask(connection, request)
        if placed_s is not None:
            at = moment(placed_s)
            return Receipt(key.op, key.key, None, False, at, request.payload_sha256)
        if kept is None:
            raise RunTakenOver(
                f"commit {key.op!r} was not made: another process has taken over the run in which "
                "it was asked for. It goes on there; stop here",
                run_id=request.fence.run_id if request.fence else "",
            )
        return _read(key, kept)

    def _ask(
        self, connection: Connection, request: CommitRequest
    ) -> tuple[float | None, _Kept | None]:
        """Put in the key's row: when that was, or else what is there.

        Two statements, since the second sees what others have put in while the first
        waited for them.
        """
        given = _given(request)
        placing = self._placing if request.fence is None else self._placing_fenced
        if self._tables.kind == "postgresql":
            values = as_kept(self._tables.commits, given)
            placed, kept = begin_with(
                connection, [Statement(placing, values), Statement(self._finding_kept, values)]
            )
            if placed is not None:
                return float(placed[0]), None
            return None, _Kept(kept[0], kept[1], float(kept[2])) if kept else None
        placed_s = connection.execute(placing, given).scalar()
        if placed_s is not None:
            return placed_s, None
        row = connection.execute(self._finding_kept, {"id": request.key.id}).one_or_none()
        return None, _Kept(*row) if row else None

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
        """Have it say when the row was put in."""
        commits = self._tables.commits.c
        return self._worded(put.on_conflict_do_nothing().returning(commits.committed_s))

    @functools.cached_property
    def _finding_kept(self) -> Any:
        commits = self._tables.commits.c
        kept = select(commits.payload_sha256, commits.result, commits.committed_s)
        return self._worded(kept.where(commits.id == self._value("id")))

    def _worded(self, statement: Any) -> Any:
        """As it is sent: on PostgreSQL not by way of SQLAlchemy."""
        return in_drivers_words(statement) if self._tables.kind == "postgresql" else statement

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
        return self._worded(put)


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


def _read(named: Any, kept: _Kept) -> Receipt:
    """A receipt of what is there; `named` has its operation and its key."""
    return Receipt(
        op=named.op,
        key=named.key,
        result=_result_of(named.op, kept.result),
        replayed=True,
        committed_at=moment(kept.committed_s),
        payload_sha256=kept.payload_sha256,
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
