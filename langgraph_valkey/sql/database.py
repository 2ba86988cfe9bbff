"""One database behind two faces, and how a transaction is tried until it is decided.

The statements of this store are plain functions over a SQLAlchemy `Connection`. On the
blocking face they are called; on the async face SQLAlchemy runs the very same functions
over an async driver (`AsyncConnection.run_sync`). So both are written once.

What is tried again, after a pause: a transaction that was undone because others were in
the way, and one whose connection broke. If that happened while it committed, nobody
knows whether it is in force; that is why whatever runs here can be run again, a commit
by its key.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from langgraph_valkey.sql.errors import PASSING, Trouble, error_of, trouble_of
from langgraph_valkey.sql.schema import Tables

T = TypeVar("T")

TRIES_MOST = 12
"""How often a transaction is tried: many that stand in each other's way need a few."""

TRY_DEADLINE_S = 3.0
"""How long: a database that stays away must become an error soon."""

PAUSE_FIRST_S = 0.02
PAUSE_MOST_S = 0.5
"""Bounds of the pause between two tries; each is drawn between 0 and the bound (full
jitter), which doubles from try to try."""


class Transaction(Protocol):
    """An open transaction on one face."""

    async def run(self, statements: Callable[[Connection], T], *, patient: bool = False) -> T:
        """Run statements of this package in it; patiently: however long they take."""
        ...

    async def call(self, fn: Callable[..., Any]) -> Any:
        """Call a function of the user's with it; see `Primary.commit`."""
        ...

    async def commit(self) -> None:
        """Commit it."""
        ...

    def gave(self, failure: BaseException) -> bool:
        """Whether an error that came out of `call` is this transaction's.

        A function may use other databases, whose errors look the same.
        """
        ...


class Face(Protocol):
    """How one face reaches the database."""

    def open(self) -> AbstractAsyncContextManager[Transaction]:
        """A connection in which a transaction begins; what is not committed is undone."""
        ...

    def look(self) -> AbstractAsyncContextManager[Transaction]:
        """A connection for single statements that read, each for itself."""
        ...

    def now(self) -> float:
        """A monotonic clock, in seconds."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Wait."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


@dataclass(slots=True)
class Progress:
    """How far one try has come, and whether its transaction shall be kept.

    Attributes:
        in_users_hands: The user's function is running.
        is_users: The try has failed by the user's function, not by the database.
        committing: COMMIT was sent.
        is_first: No earlier try is in force, nor will one be.
        keep: Whether it is to be committed: False if there was nothing to do.
    """

    in_users_hands: bool = False
    is_users: bool = False
    committing: bool = False
    is_first: bool = False
    keep: bool = True


@dataclass(slots=True)
class _Lent:
    """A transaction that a function has been given."""

    database: object
    is_open: bool = True


_LENT: ContextVar[tuple[_Lent, ...]] = ContextVar("lgv_lent", default=())
"""Those in whose functions this code is, the outermost first."""


Work = Callable[[Transaction, Progress], Awaitable[T]]


class Database:
    """Transactions over one face.

    Args:
        face: The face.
        of: The same thing for both faces of a store.
        draw: Draws a pause between two bounds, in seconds.
    """

    def __init__(
        self, face: Face, of: object, draw: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._face = face
        self._of = of
        self._draw = draw
        self.close = face.close

    async def read(self, statements: Callable[[Connection], T]) -> T:
        """Run statements that only read."""

        async def attempt(_: Progress) -> T:
            async with self._face.look() as connection:
                return await connection.run(statements)

        return await self._until_decided(attempt)

    async def write(self, statements: Callable[[Connection], T], *, patient: bool = False) -> T:
        """Run statements in one transaction; patiently: however long they take."""

        async def work(transaction: Transaction, _: Progress) -> T:
            return await transaction.run(statements, patient=patient)

        return await self.transact(work)

    async def transact(self, work: Work[T]) -> T:
        """Do some work in one transaction; it may be done again, in another one.

        Raises:
            Unreachable, OutcomeUnknown, ConfigurationError, StoreFull: It failed for good.
        """

        async def attempt(progress: Progress) -> T:
            async with self._face.open() as transaction:
                try:
                    value = await work(transaction, progress)
                except Exception as failure:
                    progress.is_users = progress.in_users_hands and not transaction.gave(failure)
                    raise
                if progress.keep:
                    progress.committing = True
                    await transaction.commit()
            return value

        if any(each.database is self._of and each.is_open for each in _LENT.get()):
            raise RuntimeError(
                "the function of a commit must not call the primary store to write (commit, locks, "
                "runs): it would wait for itself. Write with the connection it was given"
            )
        return await self._until_decided(attempt)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Refuse to write from within a function of the user's that this is about."""
        mine = _Lent(self._of)
        token = _LENT.set((*_LENT.get(), mine))
        try:
            yield
        finally:
            mine.is_open = False  # For tasks that the function has left behind.
            _LENT.reset(token)

    async def _until_decided(self, attempt: Callable[[Progress], Awaitable[T]]) -> T:
        started, tries, may_be_done = self._face.now(), 0, False
        while True:
            progress = Progress()
            try:
                return await attempt(progress)
            except Exception as failure:
                trouble = trouble_of(failure)
                is_passing = trouble in PASSING
                if trouble is None or progress.is_users:
                    raise
                if progress.in_users_hands and not is_passing:
                    raise
                if progress.is_first and trouble is Trouble.VIOLATED:
                    raise  # By what the function did, as it shows only now.
                tries += 1
                may_be_done &= not progress.is_first
                may_be_done |= progress.committing and trouble is Trouble.GONE
                left_s = started + TRY_DEADLINE_S - self._face.now()
                if not is_passing or tries >= TRIES_MOST or left_s <= 0:
                    raise error_of(trouble, tries, may_be_done=may_be_done) from failure
            bound_s = min(PAUSE_FIRST_S * 2.0 ** (tries - 1), PAUSE_MOST_S, left_s)
            await self._face.sleep(self._draw(0.0, bound_s))


class SqlPart:
    """A part of one face of a SQL store.

    Args:
        database: The face's way to the database.
        tables: The tables.
    """

    def __init__(self, database: Database, tables: Tables) -> None:
        self._database = database
        self._tables = tables
