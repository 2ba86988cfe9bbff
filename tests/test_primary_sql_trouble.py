# ruff: noqa: F811
"""Functions that break the rules, and databases that are in trouble."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.ext.asyncio import create_async_engine

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.link import finish
from langgraph_valkey.primary.sql import SqlStore
from tests.primary_ground import (  # noqa: F401
    Postgres,
    SqlGround,
    asked,
    new_name,
    postgres,
    sql_ground,
    threads,
)

# --- functions that end the transaction by themselves --------------------------------------------


def _by_statement(connection: Connection) -> None:
    connection.execute(text("COMMIT"))


def _by_script(connection: Connection) -> None:
    adapted: Any = connection.connection.dbapi_connection
    if connection.dialect.is_async:
        adapted.run_async(lambda driver: driver.executescript("SELECT 1"))
    else:
        adapted.executescript("SELECT 1")


@pytest.mark.parametrize("end", [_by_statement, _by_script])
@pytest.mark.parametrize("then", ["raises", "returns"])
async def test_what_a_function_committed_by_itself_is_not_taken_for_done(
    sql_ground: SqlGround, end: Callable[[Connection], None], then: str
) -> None:
    if end is _by_script and sql_ground.store.engine.dialect.name != "sqlite":
        end = _by_statement

    def fn(connection: Connection) -> int:
        end(connection)
        if then == "raises":
            raise KeyError("declined")
        return 1

    with pytest.raises(KeyError if then == "raises" else RuntimeError, match=r"declined|has ended"):
        await sql_ground.call("commit", asked(), fn)
    for method, given in (
        ("commit", (asked(), lambda _: 1)),
        ("receipt", (asked().key,)),
        ("receipts", ("thread", "turn")),
    ):
        with pytest.raises(RuntimeError, match="no result"):
            await sql_ground.call(method, *given)
    # What can be done about it, as the error says.
    table = f"{sql_ground.schema}.lgv_commits" if sql_ground.schema else "lgv_commits"
    with sql_ground.store.engine.begin() as connection:
        connection.execute(text(f"DELETE FROM {table} WHERE result = ''"))
    assert not (await sql_ground.call("commit", asked(), lambda _: 1)).replayed


# --- engines of the users' -----------------------------------------------------------------------


def test_an_engine_without_transactions_is_refused(postgres: Postgres) -> None:
    url = postgres.url.replace("postgresql://", "postgresql+psycopg://")
    given = {"isolation_level": "AUTOCOMMIT"}
    engine = create_engine(url, **given)
    async_engine = create_async_engine(url, **given)
    store = SqlStore(engine=engine, async_engine=async_engine, schema=new_name())

    async def looping() -> None:
        try:
            await store.loops.commit(asked(), lambda _: 1)
        finally:
            await async_engine.dispose()

    with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
        finish(store.blocking.commit(asked(), lambda _: 1))
    with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
        asyncio.run(looping())
    engine.dispose()


def test_an_engine_on_another_driver_is_refused() -> None:
    engine = create_engine("postgresql+psycopg://user@host/db")
    engine.dialect.driver = "psycopg2"
    async_engine = create_async_engine("postgresql+psycopg://user@host/db")
    with pytest.raises(ConfigurationError, match=r"postgresql\+psycopg://"):
        SqlStore(engine=engine, async_engine=async_engine)


@pytest.mark.parametrize("words", ["BEGIN", "BEGIN IMMEDIATE"])
async def test_an_engine_that_sends_its_own_begin_is_used(words: str, tmp_path: Path) -> None:
    path = f"{tmp_path}/primary.db"
    engine = create_engine(f"sqlite:///{path}")
    async_engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    for each in (engine, async_engine.sync_engine):
        # As SQLAlchemy's documentation tells to do.
        event.listen(each, "connect", lambda driver, _: setattr(driver, "isolation_level", None))
        event.listen(each, "begin", lambda connection: connection.exec_driver_sql(words))
    store = SqlStore(engine=engine, async_engine=async_engine)
    await store.loops.setup()
    assert not finish(store.blocking.commit(asked("1"), lambda _: 1)).replayed
    assert not (await store.loops.commit(asked("2"), lambda _: 1)).replayed
    with pytest.raises(IndexError):
        finish(store.blocking.commit(asked("3"), lambda _: [][1]))
    assert len(await store.loops.receipts("thread", "turn")) == 2
    engine.dispose()
    await async_engine.dispose()


# --- waiting -------------------------------------------------------------------------------------


async def test_who_waits_for_another_writer_can_be_cancelled(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/primary.db")
    await store.loops.setup()
    with store.engine.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(store.loops.commit(asked("1"), lambda _: 1))
        await asyncio.wait([waiting], timeout=0.3)
        waiting.cancel()
        started = time.monotonic()
        await asyncio.wait([waiting], timeout=20)
        assert waiting.cancelled()
        assert time.monotonic() - started < 5
        patient = asyncio.create_task(store.loops.commit(asked("2"), lambda _: 1))
        await asyncio.wait([patient], timeout=0.3)
        assert not patient.done()
    assert not (await patient).replayed
    await store.aclose()
