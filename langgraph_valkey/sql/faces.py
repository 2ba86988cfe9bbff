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
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.sql.database import Face, Transaction
from langgraph_valkey.sql.errors import Trouble, trouble_of
from langgraph_valkey.sql.transactions import (
    BlockingTransaction,
    LoopTransaction,
    guard,
)

TURN_MOST_S = 30.0
"""How long a transaction waits for another one's on SQLite: longer than any that is
meant to be short."""

TURN_PAUSE_S = 0.01
"""How long one stands aside between two looks whether SQLite lets it write."""


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


@asynccontextmanager
async def _ended(
    transaction: BlockingTransaction | LoopTransaction,
) -> AsyncIterator[Transaction]:
    """See to it that it is ended."""
    try:
        yield transaction
    except BaseException as failure:
        await transaction.end(failure)
        raise
    await transaction.end(None)


def _check_on_postgresql(connection: Connection) -> None:
    """Refuse a connection that commits each statement by itself."""
    driver: Any = connection.connection.driver_connection
    if driver.autocommit:
        raise ConfigurationError(
            "the primary store's engine is in AUTOCOMMIT mode, which has no transactions: give it "
            "an engine of any other isolation_level"
        )


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
            async with _ended(BlockingTransaction(connection)) as transaction:
                yield transaction

    @asynccontextmanager
    async def look(self) -> AsyncIterator[Transaction]:
        """A connection to read; see `Face`."""
        with self._reading.connect() as connection:
            yield BlockingTransaction(connection)

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
            async with _ended(LoopTransaction(connection)) as transaction:
                yield transaction

    @asynccontextmanager
    async def look(self) -> AsyncIterator[Transaction]:
        """A connection to read; see `Face`."""
        engine = await self._engine()
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            yield LoopTransaction(connection)

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
