"""What users' functions may do with the transaction of a SQL store, and what not."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from langgraph_valkey.link import finish
from langgraph_valkey.primary.records import Receipt
from langgraph_valkey.sql.transactions import guard
from tests.primary_ground import (
    SQL,
    STORES,
    SqlGround,
    asked,
)


async def test_what_a_function_is_given(sql_ground: SqlGround) -> None:
    def plain(given: Any) -> str:
        return type(given).__name__

    async def looping(given: Any) -> str:
        return type(given).__name__

    class Called:
        async def __call__(self, given: Any) -> str:
            return type(given).__name__

    assert (await sql_ground.call("commit", asked("1"), plain)).result == "Connection"
    for n, fn in enumerate((looping, Called())):
        commit = sql_ground.call("commit", asked(f"async {n}"), fn)
        if sql_ground.face == "loops":
            assert (await commit).result == "AsyncConnection"
        else:
            with pytest.raises(TypeError, match="use the async commit"):
                await commit


async def test_a_result_that_is_to_be_awaited_is_refused(sql_ground: SqlGround) -> None:
    async def looping() -> None: ...

    with pytest.raises(TypeError, match="async def"):
        await sql_ground.call("commit", asked(), lambda _: looping())
    assert await sql_ground.call("receipt", asked().key) is None


def _failing(connection: Connection) -> None:
    with suppress(DBAPIError):
        connection.execute(text("no SQL"))


def _driving(connection: Connection) -> None:
    connection.execute(text("ROLLBACK"))


@pytest.mark.parametrize(
    ("meddle", "hint"),
    [
        (lambda connection: connection.commit(), "must not commit"),
        (Connection.rollback, "rolled back"),
        (_driving, "rolled back"),
        (_failing, "after one of its statements had failed"),
    ],
)
async def test_a_function_that_meddles_with_the_transaction_undoes_all(
    sql_ground: SqlGround, meddle: Callable[[Connection], Any], hint: str
) -> None:
    add = text(f"UPDATE {sql_ground.bank} SET amount = amount + 1")

    def fn(connection: Connection) -> None:
        connection.execute(add)
        meddle(connection)
        if meddle is not _failing:
            connection.execute(add)

    if meddle is _failing and sql_ground.store.engine.dialect.name == "sqlite":
        await sql_ground.call("commit", asked(), fn)  # There a failed statement undoes itself only.
        assert await sql_ground.balance() == 1
        return
    with pytest.raises(RuntimeError, match=hint):
        await sql_ground.call("commit", asked(), fn)
    assert await sql_ground.call("receipt", asked().key) is None
    assert await sql_ground.balance() == 0
    assert not (await sql_ground.call("commit", asked(), sql_ground.adding(1))).replayed


async def test_a_function_that_goes_on_after_it_was_refused_to_commit(
    sql_ground: SqlGround,
) -> None:
    def fn(connection: Connection) -> str:
        with suppress(RuntimeError):
            connection.commit()
        connection.execute(text(f"UPDATE {sql_ground.bank} SET amount = amount + 1"))
        return "done"

    receipt = await sql_ground.call("commit", asked(), fn)
    assert (receipt.result, receipt.replayed) == ("done", False)
    assert await sql_ground.balance() == 1


async def test_the_databases_errors_of_a_function_are_its_own(sql_ground: SqlGround) -> None:

    def breaking(connection: Connection) -> None:
        connection.execute(text(f"INSERT INTO {sql_ground.bank} VALUES (NULL)"))

    with pytest.raises(IntegrityError):
        await sql_ground.call("commit", asked(), breaking)
    assert await sql_ground.call("receipt", asked().key) is None


async def test_a_function_in_whose_way_others_were_is_called_again(sql_ground: SqlGround) -> None:
    calls: list[int] = []
    in_the_way: Exception = psycopg.errors.SerializationFailure()
    if sql_ground.store.engine.dialect.name == "sqlite":
        in_the_way = sqlite3.OperationalError()
        in_the_way.sqlite_errorcode = sqlite3.SQLITE_BUSY

    def fail(_: Any, statement: str, *__: Any) -> None:
        if f"UPDATE {sql_ground.bank}" in statement:
            calls.append(1)
            if len(calls) < 3:
                raise in_the_way

    await sql_ground.call("receipt", asked().key)  # From now on there is an engine.
    for engine in sql_ground.engines():
        event.listen(engine, "do_execute", fail)
    receipt = await sql_ground.call("commit", asked(), sql_ground.adding(1, "done"))
    assert (receipt.result, receipt.replayed, len(calls)) == ("done", False, 3)
    assert await sql_ground.balance() == 1


async def test_a_function_may_use_savepoints(sql_ground: SqlGround) -> None:
    add = text(f"UPDATE {sql_ground.bank} SET amount = amount + 1")

    def fn(connection: Connection) -> None:
        with connection.begin_nested():
            connection.execute(add)
        with suppress(KeyError), connection.begin_nested():
            connection.execute(add)
            raise KeyError

    await sql_ground.call("commit", asked(), fn)
    assert await sql_ground.balance() == 1


async def test_cancelled_anywhere_nothing_is_left_behind(
    request: pytest.FixtureRequest, threads: ThreadPoolExecutor
) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    draw = random.Random(seed)
    for kind in SQL:
        async with STORES[kind](request, "loops", threads) as ground:
            await ground.call("setup")
            await ground.call("commit", asked("warm"), ground.adding(0))
            for n in range(60):
                fn = ground.adding(1, n, lambda: asyncio.sleep(0.001))
                task = asyncio.ensure_future(ground.call("commit", asked(str(n)), fn))
                await asyncio.wait([task], timeout=draw.uniform(0, 0.008))
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            for n in range(60):
                receipt = await ground.call("commit", asked(str(n)), ground.adding(1, n))
                assert receipt.result == n
            assert await ground.balance() == 60
            assert isinstance(ground, SqlGround)
            [engine] = ground.store._loops._engines.values()
            assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_a_cancelled_statement_locks_nobody_out(
    request: pytest.FixtureRequest, threads: ThreadPoolExecutor
) -> None:
    """Not even while somebody keeps the error, and by it the rows that nobody has fetched."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)"
    slow = text(f"{numbers} SELECT i, i % 7919 FROM n ORDER BY 2")
    for kind in SQL:
        async with STORES[kind](request, "loops", threads) as ground:
            await ground.call("setup")
            entered = asyncio.Event()

            async def fn(connection: AsyncConnection, entered: asyncio.Event = entered) -> None:
                asyncio.get_running_loop().call_later(0.02, entered.set)
                await connection.execute(slow)

            task = asyncio.ensure_future(ground.call("commit", asked(), fn))
            await entered.wait()
            task.cancel()
            kept = await asyncio.gather(task, return_exceptions=True)
            async with asyncio.timeout(2):
                receipt = await ground.call("commit", asked(), ground.adding(1))
            assert isinstance(kept[0], asyncio.CancelledError)
            assert not receipt.replayed


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


# --- functions and other databases ---------------------------------------------------------------


@pytest.mark.parametrize("key", ["the same", "another"])
async def test_a_commit_within_a_function_is_refused_at_once(
    sql_ground: SqlGround, key: str
) -> None:
    store, left = sql_ground.store, []

    def within(_: Any) -> None:
        finish(store.blocking.commit(asked(key), lambda _: 1))

    async def within_async(_: Any) -> None:
        left.append(asyncio.create_task(afterwards()))
        await store.loops.commit(asked(key), lambda _: 1)

    async def afterwards() -> Receipt:
        await over.wait()
        return await store.loops.commit(asked(key), lambda _: 1)

    over = asyncio.Event()
    fn = within if sql_ground.face == "blocking" else within_async
    with pytest.raises(RuntimeError, match="wait for itself"):
        await sql_ground.call("commit", asked("the same"), fn)
    assert await sql_ground.call("receipts", "thread", "turn") == []
    # A task that was begun there may commit once the function is over.
    over.set()
    for task in left:
        assert not (await task).replayed


async def test_a_rule_that_is_checked_at_the_end_is_the_functions_own(
    sql_ground: SqlGround,
) -> None:
    schema = f"{sql_ground.schema}." if sql_ground.schema else ""
    engine = sql_ground.store.engine
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE {schema}one (id INTEGER PRIMARY KEY)"))
        connection.execute(
            text(
                f"CREATE TABLE {schema}two (id INTEGER REFERENCES {schema}one (id) "
                "DEFERRABLE INITIALLY DEFERRED)"
            )
        )

    def fn(connection: Connection) -> None:
        if engine.dialect.name == "sqlite":
            connection.execute(text("PRAGMA defer_foreign_keys = ON"))
        connection.execute(text(f"INSERT INTO {schema}two VALUES (9)"))

    for each in sql_ground.engines():
        if engine.dialect.name == "sqlite":
            event.listen(each, "checkout", _checking)
    for _ in range(2):
        with pytest.raises(IntegrityError):
            await sql_ground.call("commit", asked(), fn)
    assert await sql_ground.call("receipt", asked().key) is None


def _checking(driver: Any, *_: Any) -> None:
    cursor = driver.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


async def test_a_function_is_not_called_again_for_another_databases_trouble(
    sql_ground: SqlGround, tmp_path: Path
) -> None:
    given = {"connect_args": {"timeout": 0.01}}
    locked = create_engine(f"sqlite:///{tmp_path}/other.db", **given)
    away = create_engine("postgresql+psycopg://user@127.0.0.1:1/db")
    calls = []

    def of_locked(_: Any) -> None:
        calls.append(1)
        with locked.begin() as connection:
            connection.execute(text("CREATE TABLE other (id INTEGER)"))

    def of_away(_: Any) -> None:
        calls.append(1)
        away.connect()

    with locked.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError):
            await sql_ground.call("commit", asked(), of_locked)
    with pytest.raises(OperationalError):
        await sql_ground.call("commit", asked(), of_away)
    assert len(calls) == 2
    assert not (await sql_ground.call("commit", asked(), lambda _: 1)).replayed
    locked.dispose()
    away.dispose()


def test_errors_on_any_engine_are_noted() -> None:
    """Also on one that has the address of one that is gone."""
    outlived = []
    for _ in range(300):
        engine = create_engine("sqlite://")
        guard(engine)
        guard(engine)
        assert len(list(engine.dialect.dispatch.handle_error)) == 1
        outlived.append(engine.dialect)
        del engine
