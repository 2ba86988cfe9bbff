"""The run registry on SQL.

Runs of a thread queue up at the thread's row, which counts them: whoever records one
first adds to that number, and the row stays locked until it is decided. A run is taken
over by changing its row, which waits for whoever holds it: a commit that is under way.

Whether a run's owner lives is not written down with the run: it is looked up in the
owner's last sign of life each time.

Each wish to start or to claim a run draws a name (``claim``), written down with it. So
one that is sent again, since its answer was lost, knows its own work when it sees it.
"""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    exists,
    func,
    or_,
    select,
    tuple_,
    update,
)

from langgraph_valkey.primary.records import (
    Fence,
    NewRun,
    Run,
    RunEnd,
    Settling,
    Started,
    digest_of,
)
from langgraph_valkey.sql.database import Progress, SqlPart, Transaction
from langgraph_valkey.sql.schema import now_s

SETTLED_AT_ONCE = 500
"""Runs that one statement settles: databases bound the parameters of a statement."""

_NOBODY = digest_of("")
_SETTLED = {"state": "settled", "input": b""}


class SqlRuns(SqlPart):
    """The run registry of a SQL store, on one face."""

    # --- starting ------------------------------------------------------------------

    async def start_run(self, new: NewRun) -> Started:
        """Record a run before it starts; see `Primary`."""
        claim = _drawn()

        async def work(transaction: Transaction, progress: Progress) -> Started:
            started = await transaction.run(lambda at: self._start(at, new, claim))
            progress.keep = started.is_new
            return started

        return await self._database.transact(work)

    def _start(self, connection: Connection, new: NewRun, claim: str) -> Started:
        thread, run_id = digest_of(new.thread_id), digest_of(new.run_id)
        number = self._number(connection, thread)
        runs = self._tables.runs.c
        of_thread = and_(runs.thread == thread, runs.state != "settled")
        rows = connection.execute(
            self._found(or_(runs.id == run_id, of_thread)).order_by(runs.number)
        ).all()
        there = next((row for row in rows if row.id == run_id), None)
        if there is not None:
            before = self._before(connection, there)
            return Started(_run(there), there.claim == claim, before)
        before = tuple(_run(row) for row in rows)
        if any(run.state == "running" and run.owner_alive for run in before):
            return Started(None, is_new=False, before=before)
        made = self._insert(connection, new, number, claim)
        if made is None:  # Recorded at this moment, for another thread.
            [there] = connection.execute(self._found(runs.id == run_id)).all()
            return Started(_run(there), is_new=False, before=self._before(connection, there))
        return Started(_run(made), is_new=True, before=before)

    def _number(self, connection: Connection, thread: str) -> int:
        """The thread's next number, which nobody else gets while this is undecided."""
        threads = self._tables.threads
        more = {"number": threads.c.number + 1}
        counting = (
            self._tables.insert(threads)
            .values(id=thread, number=1)
            .on_conflict_do_update(index_elements=[threads.c.id], set_=more)
            .returning(threads.c.number)
        )
        return int(connection.execute(counting).scalar_one())

    def _before(self, connection: Connection, row: Row[Any]) -> tuple[Run, ...]:
        """The older runs of the same thread that are not settled."""
        runs = self._tables.runs.c
        older = and_(runs.thread == row.thread, runs.state != "settled", runs.number < row.number)
        found = connection.execute(self._found(older).order_by(runs.number))
        return tuple(_run(each) for each in found)

    def _insert(
        self, connection: Connection, new: NewRun, number: int, claim: str
    ) -> Row[Any] | None:
        runs = self._tables.runs
        recording = (
            self._tables.insert(runs)
            .values(
                id=digest_of(new.run_id),
                run_id=new.run_id,
                thread=digest_of(new.thread_id),
                thread_id=new.thread_id,
                turn_id=new.turn_id,
                graph=new.graph,
                face=new.face,
                input=new.input,
                input_sha256=new.input_sha256,
                context=new.context,
                number=number,
                attempt=1,
                claim=claim,
                owner=new.owner,
                owner_digest=digest_of(new.owner),
                state="running",
                outcome="",
                head="",
                writes=0,
                started_s=now_s(),
            )
            .on_conflict_do_nothing()
            .returning(*runs.c, self._is_alive(digest_of(new.owner)))
        )
        return connection.execute(recording).one_or_none()

    # --- ending --------------------------------------------------------------------

    async def end_run(self, fence: Fence, end: RunEnd) -> bool:
        """An attempt has ended; see `Primary`."""
        is_over = end.outcome in ("failed", "cancelled")
        change = {
            **(_SETTLED if is_over else {"state": "ended"}),
            "outcome": end.outcome,
            "head": end.head,
            "writes": end.writes,
            "ended_s": now_s(),
        }

        def statements(connection: Connection) -> bool:
            if connection.execute(self._changing(fence).values(change)).rowcount:
                return True
            # It may have been settled by this very call, whose answer was lost.
            return connection.execute(select(1).where(*self._is(fence))).scalar() is not None

        return await self._database.write(statements)

    async def settle_runs(self, fences: Settling) -> int:
        """Nobody will run these again; see `Primary`."""
        # In one order, so that two who settle the same ones don't wait for each other.
        named = sorted({(digest_of(fence.run_id), fence.attempt) for fence in fences})
        runs = self._tables.runs

        def statements(connection: Connection) -> int:
            count = 0
            for start in range(0, len(named), SETTLED_AT_ONCE):
                these = tuple_(runs.c.id, runs.c.attempt).in_(
                    named[start : start + SETTLED_AT_ONCE]
                )
                settling = update(runs).where(these, runs.c.state == "ended").values(_SETTLED)
                count += connection.execute(settling).rowcount
            return count

        return await self._database.write(statements) if named else 0

    async def release_run(self, fence: Fence) -> None:
        """The attempt was given up half-way; see `Primary`."""
        nobody = self._changing(fence).values(owner="", owner_digest=_NOBODY)
        await self._database.write(lambda connection: connection.execute(nobody).rowcount)

    async def claim_run(self, fence: Fence, owner: str) -> Run | None:
        """Take a run over; see `Primary`."""
        runs, claim, mine = self._tables.runs, _drawn(), digest_of(owner)
        is_free = or_(
            runs.c.owner_digest.in_([_NOBODY, mine]), ~self._is_alive(runs.c.owner_digest)
        )
        claiming = (
            self._changing(fence)
            .where(is_free)
            .values(attempt=runs.c.attempt + 1, claim=claim, owner=owner, owner_digest=mine)
            .values(state="running", outcome="", head="", writes=0, ended_s=None)
            .returning(*runs.c, self._is_alive(mine))
        )
        # Taken by this very call, whose answer was lost.
        taken = self._found(runs.c.id == digest_of(fence.run_id), runs.c.claim == claim)

        def statements(connection: Connection) -> Run | None:
            row = connection.execute(claiming).one_or_none()
            return _run_or_none(row or connection.execute(taken).one_or_none())

        return await self._database.write(statements)

    # --- looking -------------------------------------------------------------------

    async def run(self, run_id: str) -> Run | None:
        """A run; see `Primary`."""
        found = self._found(self._tables.runs.c.id == digest_of(run_id))
        return await self._database.read(
            lambda connection: _run_or_none(connection.execute(found).one_or_none())
        )

    async def unsettled_runs(
        self, *, thread_id: str | None = None, after: tuple[float, str] | None = None, limit: int
    ) -> list[Run]:
        """Runs that are not settled; see `Primary`."""
        runs = self._tables.runs.c
        found = self._found(runs.state != "settled").limit(limit)
        last = digest_of(after[1]) if after is not None else ""
        if thread_id is not None:
            others = self._tables.runs.alias()
            number = select(others.c.number).where(others.c.id == last).scalar_subquery()
            found = found.where(runs.thread == digest_of(thread_id))
            found = found.where(runs.number > func.coalesce(number, 0)).order_by(runs.number)
        else:
            found = found.order_by(runs.started_s, runs.id)
            if after is not None:
                found = found.where(tuple_(runs.started_s, runs.id) > (after[0], last))
        return await self._database.read(
            lambda connection: [_run(row) for row in connection.execute(found)]
        )

    async def alive(self, owner: str, for_s: float) -> None:
        """A process says that it lives; see `Primary`."""
        owners = self._tables.owners
        until_s = now_s() + for_s
        saying = (
            self._tables.insert(owners)
            .values(id=digest_of(owner), owner=owner, until_s=until_s)
            .on_conflict_do_update(index_elements=[owners.c.id], set_={"until_s": until_s})
        )
        await self._database.write(lambda connection: connection.execute(saying).rowcount)

    # --- parts of statements -------------------------------------------------------

    def _is(self, fence: Fence) -> tuple[ColumnElement[bool], ...]:
        runs = self._tables.runs.c
        return runs.id == digest_of(fence.run_id), runs.attempt == fence.attempt

    def _changing(self, fence: Fence) -> Any:
        """A change of a run that is not settled, by its last attempt."""
        runs = self._tables.runs
        return update(runs).where(*self._is(fence), runs.c.state != "settled")

    def _found(self, *conditions: ColumnElement[bool]) -> Select[Any]:
        runs = self._tables.runs
        return select(*runs.c, self._is_alive(runs.c.owner_digest)).where(*conditions)

    def _is_alive(self, owner: Any) -> ColumnElement[bool]:
        """Whether the owner of this digest has lately said that it lives."""
        owners = self._tables.owners.c
        return exists().where(owners.id == owner, owners.until_s > now_s()).label("owner_alive")


def _drawn() -> str:
    return secrets.token_hex(8)


def _run_or_none(row: Row[Any] | None) -> Run | None:
    return None if row is None else _run(row)


def _run(row: Row[Any]) -> Run:
    return Run(
        run_id=row.run_id,
        thread_id=row.thread_id,
        turn_id=row.turn_id,
        graph=row.graph,
        face=row.face,
        input=bytes(row.input),
        input_sha256=row.input_sha256,
        context=row.context,
        number=row.number,
        attempt=row.attempt,
        owner=row.owner,
        owner_alive=bool(row.owner_alive),
        state=row.state,
        outcome=row.outcome,
        head=row.head,
        writes=row.writes,
        started_s=row.started_s,
        ended_s=row.ended_s,
    )
