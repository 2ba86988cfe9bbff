"""The two faces of a SQL database: an engine, and an async engine for each event loop.

An async driver's connections belong to the event loop in which they were opened. Loops
come and go (each `asyncio.run`, each test), so each has an engine of its own, made when
it first asks. Engines whose loop was closed are disposed of by the next one that is
made, since their connections would stay open.

SQLite lets one write at a time. A transaction that begins to read and writes later may
find that another one wrote in between, and fails then however long it is willing to
wait; so each begins as a writer (``BEGIN IMMEDIATE``), and waits in the beginning: a
little in SQLite, where nothing can end it, and else here, where a task can be cancelled.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import OperationalError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.primary.sql_database import Face, Transaction
from langgraph_valkey.primary.sql_errors import Trouble, trouble_of, was_rolled_back

T = TypeVar("T")

TURN_MOST_S = 30.0
"""How long a transaction waits for another one's on SQLite: longer than any that is
meant to be short."""

TURN_PAUSE_S = 0.01
"""How long one stands aside between two looks whether SQLite lets it write."""

_GUARDED = "lgv_guarded"
"""Marks a connection that is lent to a function of the user's."""


_FAILURE = "lgv_failure"
"""The driver's last error on it meanwhile."""


def guard(engine: Engine) -> None:
    """Have an eye on functions that are lent a connection of it: they can't commit."""
    if not event.contains(engine, "commit", _refuse):
        event.listen(engine, "commit", _refuse)
        event.listen(engine, "handle_error", _note)


def _refuse(connection: Connection) -> None:
    if connection.info.get(_GUARDED):
        raise _may_not_commit()


def _note(context: ExceptionContext) -> None:
    if context.connection is not None and _GUARDED in context.connection.info:
        context.connection.info[_FAILURE] = context.original_exception


def _may_not_commit() -> RuntimeError:
    return RuntimeError(
        "the function must not commit: what it does becomes part of a transaction that is "
        "committed once it has returned. Nothing was committed"
    )


class _Lendable:
    """What both faces' transactions have in common.

    Attributes:
        noted: The driver's last error while a function had the connection.
    """

    noted: BaseException | None = None

    def gave(self, failure: BaseException) -> bool:
        """Whether an error that came out of `call` is this transaction's."""
        if isinstance(failure, PendingRollbackError):  # The connection broke, and this went on.
            return self.noted is not None
        return self.noted is not None and getattr(failure, "orig", failure) is self.noted


@contextmanager
def _lent(connection: Connection, to: _Lendable) -> Iterator[None]:
    """Lend it, and look afterwards whether its transaction is still what it was."""
    info, transaction = connection.info, connection.get_transaction()
    info[_GUARDED] = True
    try:
        yield
    finally:
        info.pop(_GUARDED, None)
        to.noted = info.pop(_FAILURE, None)
    if connection.get_transaction() is not transaction:
        raise was_rolled_back()
    if not _is_begun(connection):
        raise RuntimeError(
            "the function has ended the transaction it was given: it must neither have rolled back "
            "nor committed, be it by a statement or a script (sqlite3's executescript does)"
        )
    if transaction is not None and not transaction.is_active and not connection.invalidated:
        raise _may_not_commit()  # It tried to, and went on.


def _begin_on_sqlite(connection: Connection) -> None:
    """Become a writer at once."""
    if not connection.in_transaction():
        connection.begin()  # An engine of the user's may send a BEGIN of its own by this.
    driver: Any = connection.connection.driver_connection
    if not driver.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


async def _in_turn(begin: Callable[[], Awaitable[None]], face: Face, for_s: float) -> None:
    """Begin as soon as others are done."""
    until_s = face.now() + for_s
    while True:
        try:
            return await begin()
        except OperationalError as failure:
            if trouble_of(failure) is not Trouble.BUSY or face.now() >= until_s:
                raise
        await face.sleep(TURN_PAUSE_S)


def _is_of_no_use(failure: BaseException) -> bool:
    """Whether a connection is to be dropped, since another one may be able to write."""
    return trouble_of(failure) is Trouble.READ_ONLY


def _check_on_postgresql(connection: Connection) -> None:
    """Refuse a connection that commits each statement by itself."""
    driver: Any = connection.connection.driver_connection
    if driver.autocommit:
        raise ConfigurationError(
            "the primary store's engine is in AUTOCOMMIT mode, which has no transactions: give it "
            "an engine of any other isolation_level"
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


class _BlockingTransaction(_Lendable):
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def run(self, statements: Callable[[Connection], T]) -> T:
        return statements(self._connection)

    async def call(self, fn: Callable[..., Any]) -> Any:
        if _is_async(fn):
            raise TypeError(
                "the function of a blocking commit is a coroutine function: use the async commit"
            )
        with _lent(self._connection, self):
            return _settled(fn(self._connection))

    async def commit(self) -> None:
        self._connection.commit()


class BlockingFace:
    """The blocking face.

    Args:
        engine: The engine.
        is_ours: Whether to close it; an engine of the user's is left open.
    """

    def __init__(self, engine: Engine, *, is_ours: bool) -> None:
        guard(engine)
        self.engine = engine
        self._reading = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._is_ours = is_ours
        self._turn_s = TURN_MOST_S if is_ours else 0.0
        self._inherited: list[Any] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Transaction]:
        """Begin a transaction; see `Face`."""
        with self.engine.connect() as connection:
            if connection.dialect.name == "sqlite":

                async def begin() -> None:
                    _begin_on_sqlite(connection)

                await _in_turn(begin, self, self._turn_s)
            else:
                _check_on_postgresql(connection)
            try:
                yield _BlockingTransaction(connection)
            except BaseException as failure:
                with suppress(SQLAlchemyError):  # Closing sees to a broken connection.
                    connection.rollback()
                    if _is_of_no_use(failure):
                        connection.invalidate()
                raise

    @asynccontextmanager
    async def look(self) -> AsyncIterator[Transaction]:
        """A connection to read; see `Face`."""
        with self._reading.connect() as connection:
            yield _BlockingTransaction(connection)

    def now(self) -> float:
        """A monotonic clock."""
        return time.monotonic()

    async def sleep(self, delay_s: float) -> None:
        """Wait: the thread stands still."""
        time.sleep(delay_s)

    async def close(self) -> None:
        """Close the connections."""
        if self._is_ours:
            self.engine.dispose()

    def after_fork(self) -> None:
        """Leave the parent's connections alone: the child opens its own."""
        self._inherited.append(self.engine.pool)  # Kept, since collecting it would close them.
        self.engine.dispose(close=False)


class _LoopTransaction(_Lendable):
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def run(self, statements: Callable[[Connection], T]) -> T:
        return await self._connection.run_sync(statements)

    async def call(self, fn: Callable[..., Any]) -> Any:
        connection = self._connection
        with _lent(connection.sync_connection, self):  # type: ignore[arg-type]
            if _is_async(fn):
                return await fn(connection)
            return _settled(await connection.run_sync(fn))

    async def commit(self) -> None:
        await self._connection.commit()


class LoopsFace:
    """The async face.

    Args:
        engine: Makes an async engine for the running loop.
        is_ours: Whether to close them; an engine of the user's is left open.
    """

    def __init__(self, engine: Callable[[], AsyncEngine], *, is_ours: bool) -> None:
        self._make = engine
        self._is_ours = is_ours
        self._turn_s = TURN_MOST_S if is_ours else 0.0
        self._lock = threading.Lock()
        self._engines: dict[asyncio.AbstractEventLoop, AsyncEngine] = {}
        self._inherited: list[Any] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Transaction]:
        """Begin a transaction; see `Face`."""
        engine = await self._engine()
        async with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                begin = functools.partial(connection.run_sync, _begin_on_sqlite)
                await _in_turn(begin, self, self._turn_s)
            else:
                _check_on_postgresql(connection.sync_connection)  # type: ignore[arg-type]
            try:
                yield _LoopTransaction(connection)
            except BaseException as failure:
                with suppress(SQLAlchemyError):
                    await connection.rollback()
                    if _is_of_no_use(failure):
                        await connection.invalidate()
                raise

    @asynccontextmanager
    async def look(self) -> AsyncIterator[Transaction]:
        """A connection to read; see `Face`."""
        engine = await self._engine()
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            yield _LoopTransaction(connection)

    async def _engine(self) -> AsyncEngine:
        loop = asyncio.get_running_loop()
        engine = self._engines.get(loop)
        if engine is not None:
            return engine
        made = self._make()
        guard(made.sync_engine)
        with self._lock:
            left = [each for each in self._engines if each.is_closed()]
            forsaken = [self._engines.pop(each) for each in left]
            self._engines[loop] = made
        await self._dispose(forsaken)
        return made

    async def _dispose(self, engines: list[AsyncEngine]) -> None:
        if self._is_ours:
            for engine in engines:
                await engine.dispose()

    def now(self) -> float:
        """A monotonic clock."""
        return time.monotonic()

    async def sleep(self, delay_s: float) -> None:
        """Wait."""
        await asyncio.sleep(delay_s)

    async def close(self) -> None:
        """Close the connections, those of other loops too."""
        with self._lock:
            engines = list(self._engines.values())
            self._engines.clear()
        await self._dispose(engines)

    def close_from_outside(self) -> None:
        """Close the connections, where no event loop may be entered."""
        if self._engines:
            closing = threading.Thread(target=lambda: asyncio.run(self.close()))
            closing.start()
            closing.join()

    def after_fork(self) -> None:
        """Leave the parent's connections alone: the child opens its own."""
        self._inherited.append(self._engines)  # Kept, since collecting them would close them.
        self._engines = {}
        self._lock = threading.Lock()
