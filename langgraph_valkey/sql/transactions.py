"""An open transaction on either face, and how a function of the user's is lent it.

The function must leave the transaction open: what it did and the commit's record are
committed together, once it has returned.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import PendingRollbackError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from langgraph_valkey.sql import answers as sql_answers
from langgraph_valkey.sql.errors import Trouble, trouble_of, was_rolled_back

T = TypeVar("T")

_GUARDED = "lgv_guarded"
"""Marks a connection that is lent to a function of the user's."""


_FAILURE = "lgv_failure"
"""The driver's last error on it meanwhile."""


_WATCHED: weakref.WeakSet[Engine] = weakref.WeakSet()
"""Engines that have our listener. SQLAlchemy's own book goes by `id`, and what it says of
an engine may be about another one that is gone."""


def guard(engine: Engine) -> None:
    """Have an eye on errors that functions meet which are lent a connection of it.

    Only on these: SQLAlchemy asks at each statement whether to tell somebody of others.
    """
    if engine not in _WATCHED:
        event.listen(engine, "handle_error", _note)
        _WATCHED.add(engine)


def _refuse() -> None:
    raise RuntimeError(
        "the function must not commit: what it does becomes part of a transaction that is "
        "committed once it has returned. Nothing was committed"
    )


def _note(context: ExceptionContext) -> None:
    connection = context.connection
    if connection is not None and not connection.invalidated and _GUARDED in connection.info:
        connection.info[_FAILURE] = context.original_exception


class _Open:
    """What both faces' transactions have in common.

    Args:
        connection: The connection, as statements of this package see it.
    """

    def __init__(self, connection: Connection) -> None:
        self.at = connection
        self.noted: BaseException | None = None  # The driver's last error while it was lent.

    def gave(self, failure: BaseException) -> bool:
        """Whether an error that came out of `call` is this transaction's."""
        if isinstance(failure, PendingRollbackError):  # The connection broke, and this went on.
            return self.noted is not None
        return self.noted is not None and getattr(failure, "orig", failure) is self.noted

    def answered(self, *, patient: bool = False) -> AbstractContextManager[None]:
        """See to it that the database answers; it breaks the connection otherwise."""
        if patient or self.at.invalidated or self.at.dialect.name == "sqlite":
            return nullcontext()
        driver: Any = self.at.connection.driver_connection
        if driver.closed:
            return nullcontext()
        return sql_answers.ANSWERS.within(sql_answers.ANSWER_S, driver)


@contextmanager
def _lent(to: _Open) -> Iterator[None]:
    """Lend it, and look afterwards whether its transaction is still what it was."""
    connection = to.at
    info, transaction = connection.info, connection.get_transaction()
    info[_GUARDED] = True
    connection.commit = _refuse  # type: ignore[method-assign]  # Of this one alone.
    try:
        yield
    finally:
        del connection.commit
        info.pop(_GUARDED, None)
        to.noted = info.pop(_FAILURE, None)
    if connection.get_transaction() is not transaction:
        raise was_rolled_back()
    if not _is_begun(connection):
        raise RuntimeError(
            "the function has ended the transaction it was given: it must neither have rolled back "
            "nor committed, be it by a statement or a script (sqlite3's executescript does)"
        )


def _is_begun(connection: Connection) -> bool:
    """Whether the database is in a transaction on this connection."""
    if connection.invalidated:
        return True  # It broke, which shows later.
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        return bool(driver.in_transaction)
    return bool(driver.info.transaction_status)  # 0: idle.


def _settled(result: Any) -> Any:
    """A result that is none yet is a mistake of the caller's."""
    if inspect.iscoroutine(result):
        result.close()
    if inspect.isawaitable(result):
        raise TypeError(
            "the function of a commit returned something to be awaited: give a coroutine "
            "function (async def) to the async commit"
        )
    return result


def _is_async(fn: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
        getattr(fn, "__call__", None)  # noqa: B004  # Of an object whose call is async.
    )


def _is_of_no_use(failure: BaseException | None) -> bool:
    """Whether a connection is to be dropped, since another one may be able to write."""
    return failure is not None and trouble_of(failure) is Trouble.READ_ONLY


class BlockingTransaction(_Open):
    """On the blocking face; see `Transaction`."""

    async def run(self, statements: Callable[[Connection], T], *, patient: bool = False) -> T:
        """Run statements of this package in it."""
        with self.answered(patient=patient):
            return statements(self.at)

    async def call(self, fn: Callable[..., Any]) -> Any:
        """Call a function of the user's with it."""
        if _is_async(fn):
            raise TypeError(
                "the function of a blocking commit is a coroutine function: use the async commit"
            )
        with _lent(self):
            return _settled(fn(self.at))

    async def commit(self) -> None:
        """Commit it."""
        with self.answered():
            self.at.commit()

    async def end(self, failure: BaseException | None) -> None:
        """Undo what is not committed; drop the connection if it is of no use."""
        with suppress(SQLAlchemyError), self.answered():  # Closing sees to a broken connection.
            if self.at.get_transaction() is not None:
                self.at.rollback()
            if _is_of_no_use(failure):
                self.at.invalidate()


class LoopTransaction(_Open):
    """On the async face; see `Transaction`."""

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__(connection.sync_connection)  # type: ignore[arg-type]
        self._connection = connection

    async def run(self, statements: Callable[[Connection], T], *, patient: bool = False) -> T:
        """Run statements of this package in it."""
        with self.answered(patient=patient):
            return await self._connection.run_sync(statements)

    async def call(self, fn: Callable[..., Any]) -> Any:
        """Call a function of the user's with it."""
        with _lent(self):
            if _is_async(fn):
                return await fn(self._connection)
            return _settled(await self._connection.run_sync(fn))

    async def commit(self) -> None:
        """Commit it."""
        with self.answered():
            await self._connection.commit()

    async def end(self, failure: BaseException | None) -> None:
        """Undo what is not committed; drop the connection if it is of no use."""
        with suppress(SQLAlchemyError), self.answered():
            if self.at.get_transaction() is not None:
                await self._connection.rollback()
            if _is_of_no_use(failure):
                await self._connection.invalidate()
