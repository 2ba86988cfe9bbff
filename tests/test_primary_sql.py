"""What is special to SQL stores: URLs, engines, loops, forks, and users' functions."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from langgraph_valkey.errors import ConfigurationError, StoreFull, Unreachable
from langgraph_valkey.link import finish
from langgraph_valkey.primary.opening import open_store
from langgraph_valkey.sql import database as sql_database
from langgraph_valkey.sql.store import SqlStore
from tests.primary_ground import (
    Postgres,
    asked,
    gathered,
    new_name,
    new_run,
)


@pytest.fixture
def store(sql_store: SqlStore) -> SqlStore:
    """A store, set up."""
    finish(sql_store.blocking.setup())
    return sql_store


# --- opening -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("mysql://user:secret@host/db", "'mysql'"),
        ("postgresql+psycopg2://user:secret@host/db", "psycopg2"),
        ("postgresql://user:secret@host:port/db", "can't be read"),
        ("secret", "can't be read"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///file::memory:?cache=shared&uri=true", "in memory"),
        ("sqlite:///file:x?mode=memory&uri=true", "in memory"),
        ("sqlite:///no/such/folder/primary.db", "folder"),
    ],
)
def test_a_url_that_can_not_be_used_is_refused(url: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=hint) as caught:
        SqlStore(url)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+aiosqlite", "sqlite+pysqlite"])
def test_one_url_gives_both_faces(scheme: str, tmp_path: Path) -> None:
    store = open_store(f"{scheme}:///{tmp_path}/primary.db", pool_size=2)
    finish(store.blocking.setup())
    assert not finish(store.blocking.commit(asked(), lambda _: 1)).replayed
    assert asyncio.run(store.loops.commit(asked(), lambda _: 1)).replayed
    store.close()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_is_spoken_to_by_psycopg(scheme: str) -> None:
    store = open_store(f"{scheme}://user@127.0.0.1/db")
    assert isinstance(store, SqlStore)
    assert store.engine.dialect.driver == "psycopg"
    store.close()


def test_other_stores_are_opened_or_refused_by_their_scheme() -> None:
    with pytest.raises(ConfigurationError, match="'redis'"):
        open_store("redis://user:secret@host")
    opened = open_store("dynamodb://table?region=eu-west-1")
    assert type(opened).__name__ == "DynamoStore"
    opened.close()


@pytest.mark.parametrize(
    ("url", "extra"), [("sqlite:///x.db", "[sql]"), ("postgresql:///x", "[postgres]")]
)
def test_a_missing_driver_is_named(url: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError) as caught:
        SqlStore(url)
    assert f"pip install 'langgraph-valkey{extra}'" in str(caught.value)


@pytest.mark.parametrize("given", [{}, {"url": "sqlite:///x.db", "schema": "s"}, {"engine": 1}])
def test_arguments_that_do_not_go_together_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"either a URL|no schemas"):
        SqlStore(**given)


async def test_engines_of_the_users_are_used_and_left_open(tmp_path: Path) -> None:
    path = f"{tmp_path}/primary.db"
    engine = create_engine(f"sqlite:///{path}")
    async_engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    store = SqlStore(engine=engine, async_engine=async_engine)
    await store.loops.setup()
    assert not (await store.loops.commit(asked(), lambda _: 1)).replayed
    assert finish(store.blocking.commit(asked(), lambda _: 1)).replayed
    pools = engine.pool, async_engine.sync_engine.pool
    await store.aclose()
    assert (engine.pool, async_engine.sync_engine.pool) == pools
    engine.dispose()
    await async_engine.dispose()


def test_sqlite_has_each_commit_on_disk(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/primary.db")
    with store.engine.connect() as connection:
        for name, value in (("journal_mode", "wal"), ("synchronous", 2)):
            assert connection.exec_driver_sql(f"PRAGMA {name}").scalar() == value
    store.close()


# --- loops, processes --------------------------------------------------------------------------


def test_several_loops_one_after_another_and_side_by_side(
    store: SqlStore, threads: ThreadPoolExecutor
) -> None:
    for n in range(3):
        asyncio.run(store.loops.commit(asked(f"after {n}"), lambda _: 1))

    async def several(number: int) -> None:
        commits = [store.loops.commit(asked(f"{number} {n}"), lambda _: 1) for n in range(4)]
        await gathered(list(commits))

    waited = [threads.submit(asyncio.run, several(number)) for number in range(4)]
    for each in waited:
        each.result(60)
    assert len(finish(store.blocking.receipts("thread", "turn"))) == 3 + 16


FORKED = """
import asyncio, os, sys
from langgraph_valkey.link import finish
from langgraph_valkey.sql.store import SqlStore
from tests.primary_ground import asked

def forked(work):
    child = os.fork()
    if not child:
        asyncio._set_running_loop(None)
        assert store.engine.pool.checkedin() == 0, "the parent's connections"
        work()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

async def main(store):
    await store.loops.commit(asked("parent"), lambda _: 1)
    assert finish(store.blocking.receipt(asked("parent").key)).replayed
    forked(lambda: finish(store.blocking.commit(asked("child"), lambda _: 1)))
    assert finish(store.blocking.receipt(asked("child").key)).replayed
    forked(lambda: asyncio.run(store.loops.commit(asked("child's loop"), lambda _: 1)))
    assert await store.loops.receipt(asked("child's loop").key) is not None
    await store.aclose()

for url in sys.argv[1:]:
    store = SqlStore(url)
    finish(store.blocking.setup())
    asyncio.run(main(store))
"""


def test_a_forked_process_opens_connections_of_its_own(postgres: Postgres, tmp_path: Path) -> None:
    urls = [postgres.url_of_new_schema(), f"sqlite:///{tmp_path}/primary.db"]
    command = [sys.executable, "-W", "error", "-c", FORKED, *urls]
    ended = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")


# --- outages -----------------------------------------------------------------------------------


def test_nothing_secret_is_told_of_an_outage() -> None:
    store = SqlStore("postgresql://user:secret@127.0.0.1:1/db")
    with pytest.raises(Unreachable, match="does not answer") as caught:
        finish(store.blocking.commit(asked("a private key"), lambda _: 1))
    told = [str(caught.value), str(caught.value.__cause__), str(caught.value.__context__)]
    assert not any("secret" in each or "a private key" in each for each in told)
    store.close()


def test_parameters_are_hidden_in_causes(store: SqlStore) -> None:
    def fn(connection: Connection) -> None:
        connection.execute(text("SELECT :what FROM nowhere"), {"what": "a private matter"})

    with pytest.raises(DBAPIError) as caught:
        finish(store.blocking.commit(asked(), fn))
    assert "a private matter" not in str(caught.value)


def test_a_writer_that_stays_in_the_way_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_database, "TRIES_MOST", 2)
    path = f"{tmp_path}/primary.db"
    SqlStore(f"sqlite:///{path}").engine.dispose()
    given = {"connect_args": {"timeout": 0.01}}
    engine = create_engine(f"sqlite:///{path}", **given)
    async_engine = create_async_engine(f"sqlite+aiosqlite:///{path}", **given)
    store = SqlStore(engine=engine, async_engine=async_engine)
    finish(store.blocking.setup())
    with engine.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(Unreachable, match="others were in the way"):
            finish(store.blocking.commit(asked(), lambda _: 1))
    assert not finish(store.blocking.commit(asked(), lambda _: 1)).replayed
    engine.dispose()


def test_too_few_connections_are_told_of(postgres: Postgres) -> None:
    url = postgres.url.replace("postgresql://", "postgresql+psycopg://")
    engine = create_engine(url, pool_size=1, max_overflow=0, pool_timeout=0.05)
    store = SqlStore(engine=engine, async_engine=create_async_engine(url), schema=new_name())
    with engine.connect(), pytest.raises(Unreachable, match="pool_size"):
        finish(store.blocking.setup())
    engine.dispose()


@pytest.mark.parametrize(
    ("state", "kind", "hint"),
    [
        ("28P01", ConfigurationError, "password"),
        ("42501", ConfigurationError, "rights"),
        ("3D000", ConfigurationError, "does not exist"),
        ("53100", StoreFull, "no room left"),
        ("40P01", Unreachable, "others were in the way"),
        ("57P03", Unreachable, "does not answer"),
        ("08006", Unreachable, "does not answer"),
        ("XX000", ConfigurationError, "unexpected"),
    ],
)
def test_what_a_database_says_is_told_by_what_to_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    kind: type[Exception],
    hint: str,
) -> None:
    monkeypatch.setattr(sql_database, "TRIES_MOST", 2)
    store = SqlStore(f"sqlite:///{tmp_path}/primary.db")

    class Made(Exception):
        sqlstate = state

    @event.listens_for(store.engine, "before_cursor_execute")
    def fail(*_: Any) -> None:
        raise OperationalError("SELECT", {}, Made())

    with pytest.raises(kind, match=hint):
        finish(store.blocking.receipts("thread", "turn"))
    store.close()


# --- many --------------------------------------------------------------------------------------


def test_a_thousand_unsettled_runs_are_found_among_many(store: SqlStore) -> None:
    finish(store.blocking.start_run(new_run("first")))
    columns = "thread, thread_id, turn_id, graph, face, input, input_sha256, context, number"
    columns += ", attempt, claim, owner, owner_digest, outcome, head, writes, started_s, ended_s"
    with store.engine.begin() as connection:
        for state, count in (("running", 999), ("settled", 4_000)):
            rows = [
                {"id": f"{state} {n}", "name": f'"{state} {n}"', "state": state}
                for n in range(count)
            ]
            connection.execute(
                text(
                    f"INSERT INTO lgv_runs (id, run_id, state, {columns}) "
                    f"SELECT :id, :name, :state, {columns} FROM lgv_runs WHERE run_id = '\"first\"'"
                ),
                rows,
            )
    plan = "EXPLAIN QUERY PLAN" if store.engine.dialect.name == "sqlite" else "EXPLAIN"
    found = finish(store.blocking.unsettled_runs(limit=2_000))
    assert len(found) == 1_000
    with store.engine.connect() as connection:
        if plan == "EXPLAIN":
            connection.execute(text("ANALYZE lgv_runs"))
        told = connection.execute(
            text(
                f"{plan} SELECT * FROM lgv_runs WHERE state <> 'settled' "
                "ORDER BY started_s, id LIMIT 100"
            )
        ).all()
    assert "lgv_runs_unsettled" in str(told)
