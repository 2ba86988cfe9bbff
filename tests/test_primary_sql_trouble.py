"""Functions that break the rules, and databases that are in trouble."""

from __future__ import annotations

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, event, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from langgraph_valkey.errors import ConfigurationError, OutcomeUnknown, Unreachable
from langgraph_valkey.link import finish
from langgraph_valkey.primary.records import Purged, RunEnd
from langgraph_valkey.sql import answers as sql_answers
from langgraph_valkey.sql import database as sql_database
from langgraph_valkey.sql import engines as sql_engines
from langgraph_valkey.sql.store import SqlStore
from tests.postgres_wire import PostgresWire
from tests.primary_ground import (
    FACES,
    STORES,
    Ground,
    Postgres,
    SqlGround,
    asked,
    new_name,
    started,
)

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


# --- databases -----------------------------------------------------------------------------------


async def test_connections_that_only_read_are_replaced(
    postgres: Postgres, threads: ThreadPoolExecutor
) -> None:
    url = postgres.url_of_new_database()
    store = SqlStore(url)
    name = store.engine.url.database
    for face, call in (("blocking", _finished), ("loops", _awaited)):
        primary = getattr(store, face)
        await call(primary.setup())
        _set_read_only(postgres, name, "on")
        await _forget(store)
        with pytest.raises(Unreachable, match="only be read"):
            await call(primary.commit(asked(face), lambda _: 1))
        await call(primary.receipts("thread", "turn"))  # Leaves one in the pool.
        _set_read_only(postgres, name, "off")
        assert not (await call(primary.commit(asked(face), lambda _: 1))).replayed
    await store.aclose()


async def _finished(coroutine: Any) -> Any:
    return finish(coroutine)


async def _awaited(coroutine: Any) -> Any:
    return await coroutine


def _set_read_only(postgres: Postgres, database: str | None, value: str) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(
            f"ALTER DATABASE {database} SET default_transaction_read_only = {value}".encode()
        )


async def _forget(store: SqlStore) -> None:
    """Have both faces connect anew."""
    store.engine.dispose()
    await store._loops.close()


@pytest.mark.parametrize("face", FACES)
async def test_a_server_that_never_answers_is_not_waited_for_for_ever(
    postgres: Postgres, threads: ThreadPoolExecutor, face: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_answers, "ANSWER_S", 0.3)
    monkeypatch.setattr(sql_database, "TRY_DEADLINE_S", 0.2)
    schema = new_name()
    with PostgresWire(postgres.socket) as wire:
        store = SqlStore(wire.url, schema=schema, pool_size=1)
        ground = SqlGround.__new__(SqlGround)
        Ground.__init__(ground, store, face, threads)
        await ground.call("setup")
        await ground.call("commit", asked("warm"), lambda _: 1)

        def silence(_: Any) -> int:
            wire.is_silent = True
            return 1

        for kind, method, given in (
            (OutcomeUnknown, "commit", (asked(), silence)),
            (Unreachable, "alive", ("owner", 5.0)),
            (Unreachable, "receipts", ("thread", "turn")),
        ):
            wire.is_silent = False
            await ground.call("receipt", asked().key)  # Connects, if it has to.
            wire.is_silent = method != "commit"
            with pytest.raises(kind):
                await asyncio.wait_for(ground.call(method, *given), 20)
        wire.is_silent = False
        assert not (await ground.call("commit", asked(), lambda _: 2)).replayed
        await store.aclose()
    assert not sql_answers.ANSWERS._open


def test_the_socket_of_an_answered_question_is_left_alone() -> None:
    mine, other = socket.socketpair()
    answers = sql_answers.Answers()
    with mine, other:
        with answers.within(0.0, mine):
            pass
        with answers.within(60.0, mine):
            time.sleep(2 * sql_answers.LOOK_S)
            mine.sendall(b"?")
            assert other.recv(1) == b"?"
        with answers.within(0.0, mine):
            assert mine.recv(1) == b""  # Shut down, else this would wait for ever.


async def test_a_silent_owners_open_commit_is_not_waited_for_for_ever(
    request: pytest.FixtureRequest, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_engines, "LOCK_TIMEOUT_S", 1)
    monkeypatch.setattr(sql_database, "TRY_DEADLINE_S", 0.2)
    async with STORES["postgresql"](request, "loops", threads) as ground:
        await ground.call("setup")
        run = await started(ground)
        inside, over = asyncio.Event(), asyncio.Event()

        async def slow(_: Any) -> None:
            inside.set()
            await over.wait()

        request_ = asked(fence=run.fence)
        silent = asyncio.create_task(ground.call("commit", request_, slow))
        await inside.wait()
        for method, given in (
            ("claim_run", (run.fence, "another")),
            ("commit", (request_, lambda _: 2)),
        ):
            with pytest.raises(Unreachable, match="others were in the way"):
                await asyncio.wait_for(ground.call(method, *given), 20)
        over.set()
        assert not (await silent).replayed


async def test_the_server_bounds_waiting_unless_it_is_told_otherwise(postgres: Postgres) -> None:
    found = text(
        "SELECT current_setting('lock_timeout'), count(*) FILTER (WHERE source = 'session') "
        "FROM pg_settings WHERE name LIKE 'tcp_keepalives%'"
    )
    for options, lock_timeout in (({}, "10s"), ({"options": "-c lock_timeout=7s"}, "7s")):
        url = make_url(postgres.url).update_query_dict(options)
        store = SqlStore(url.render_as_string(hide_password=False))
        for face in (store.blocking, store.loops):
            row = await face._database.read(lambda at: at.execute(found).one())
            assert tuple(row) == (lock_timeout, 3)
        await store.aclose()


# --- keeping -------------------------------------------------------------------------------------


async def test_what_a_run_that_may_be_run_again_committed_is_kept(sql_ground: SqlGround) -> None:
    run = await started(sql_ground)
    request = asked(turn=run.turn_id, fence=run.fence)
    await sql_ground.call("commit", request, lambda _: 1)
    await sql_ground.call("commit", asked("another turn"), lambda _: 1)
    tomb = await sql_ground.call("bury", "thread")
    assert await sql_ground.call("purge", 0.0) == Purged(commits=1, runs=0, tombstones=0)
    assert (await sql_ground.call("commit", request, lambda _: 2)).replayed
    await sql_ground.call("buried", tomb, "1-stamp")
    await sql_ground.call("end_run", run.fence, RunEnd("failed", "", 0))
    assert await sql_ground.call("purge", 0.0) == Purged(commits=1, runs=1, tombstones=1)
