"""How the tables of a SQL store come to be, and grow with what is in them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from sqlalchemy import insert, inspect, text

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.link import finish
from langgraph_valkey.primary.records import RunEnd, digest_of
from langgraph_valkey.sql import migrations as sql_migrations
from langgraph_valkey.sql.migrations import STEPS, bring_up
from langgraph_valkey.sql.schema import PREFIX, Tables
from langgraph_valkey.sql.store import SqlStore
from tests.primary_ground import (
    Postgres,
    asked,
    new_run,
)

LAST = len(STEPS)


def tables_of(store: SqlStore) -> Tables:
    kind: Any = store.engine.dialect.name
    return Tables(kind)


def version(store: SqlStore) -> int:
    with store.engine.connect() as connection:
        return int(connection.execute(text("SELECT max(version) FROM lgv_version")).scalar_one())


def at_version(store: SqlStore, number: int) -> None:
    """Make the tables as they were then."""
    with store.engine.begin() as connection:
        bring_up(connection, tables_of(store), upto=number)


def test_the_tables_are_as_the_statements_see_them(sql_store: SqlStore) -> None:
    finish(sql_store.blocking.setup())
    seen = inspect(sql_store.engine)
    expected = {
        table.name: {column.name for column in table.columns}
        for table in tables_of(sql_store).metadata.tables.values()
    }
    names = [name for name in seen.get_table_names() if name.startswith(PREFIX)]
    made = {name: {column["name"] for column in seen.get_columns(name)} for name in names}
    assert made == expected
    assert version(sql_store) == LAST


def test_setting_up_again_changes_nothing(
    sql_store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(sql_store.blocking.setup())
    monkeypatch.setattr(sql_migrations, "STEPS", (("no SQL",),) * LAST)
    finish(sql_store.blocking.setup())
    asyncio.run(sql_store.loops.setup())


def test_what_an_older_version_wrote_is_kept(sql_store: SqlStore) -> None:
    """Commits of version 1 are found by this one, and everything newer works beside them."""
    at_version(sql_store, 1)
    key = asked().key
    row = {
        "id": key.id,
        "turn": digest_of("thread", "turn"),
        "op": '"charge"',
        "key": '"A17"',
        "scope": "turn",
        "thread_id": '"thread"',
        "turn_id": '"turn"',
        "payload_sha256": "0" * 64,
        "result": '{"charged":5}',
        "committed_s": 1_700_000_000.5,
    }
    columns = ", ".join(row)
    values = ", ".join(f":{name}" for name in row)
    with sql_store.engine.begin() as connection:
        connection.execute(text(f"INSERT INTO lgv_commits ({columns}) VALUES ({values})"), row)
    finish(sql_store.blocking.setup())
    assert version(sql_store) == LAST
    receipt = finish(sql_store.blocking.commit(asked(), lambda _: "another"))
    assert (receipt.replayed, receipt.result) == (True, {"charged": 5})
    assert receipt.committed_at.timestamp() == 1_700_000_000.5
    sending = replace(asked("next"), outbox=(("mail", "1"),))
    finish(sql_store.blocking.commit(sending, lambda _: None))
    assert [each.key for each in finish(sql_store.blocking.receipts("thread", "turn"))] == [
        "A17",
        "next",
    ]
    assert len(finish(sql_store.blocking.take_messages(["mail"], limit=5, for_s=5))) == 1


@pytest.mark.parametrize("number", range(1, LAST))
def test_every_older_version_is_brought_up(sql_store: SqlStore, number: int) -> None:
    at_version(sql_store, number)
    if number >= 2:
        with sql_store.engine.begin() as connection:
            tables = tables_of(sql_store)
            connection.execute(insert(tables.threads), {"id": digest_of("thread"), "number": 7})
    finish(sql_store.blocking.setup())
    started = finish(sql_store.blocking.start_run(new_run()))
    assert started.run is not None
    assert started.run.number == (8 if number >= 2 else 1)
    assert finish(sql_store.blocking.end_run(started.run.fence, RunEnd("failed", "", 0)))
    assert finish(sql_store.blocking.acquire("report", "me", 5)) is not None


def test_a_newer_version_is_refused(sql_store: SqlStore) -> None:
    finish(sql_store.blocking.setup())
    with sql_store.engine.begin() as connection:
        connection.execute(text(f"INSERT INTO lgv_version VALUES ({LAST + 1})"))
    newer = f"of version {LAST + 1}.*newer release"
    with pytest.raises(ConfigurationError, match=newer):
        finish(sql_store.blocking.setup())
    with pytest.raises(ConfigurationError, match=newer):
        asyncio.run(sql_store.loops.setup())


def test_a_step_that_fails_leaves_nothing(
    sql_store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_version(sql_store, 1)
    broken = ("CREATE TABLE {at}half (id {text})", "CREATE TABLE {at}half (id {text})")
    monkeypatch.setattr(sql_migrations, "STEPS", (STEPS[0], broken))
    with pytest.raises(ConfigurationError, match="unexpected error"):
        finish(sql_store.blocking.setup())
    assert version(sql_store) == 1
    assert not inspect(sql_store.engine).has_table("lgv_half")


def test_processes_that_set_up_at_once_do_it_once(
    sql_url: str, threads: ThreadPoolExecutor
) -> None:
    """Stores share nothing within a process but the database, so threads will do."""
    stores = [SqlStore(sql_url) for _ in range(6)]
    try:
        waited = [threads.submit(finish, store.blocking.setup()) for store in stores]
        for setting_up in waited:
            setting_up.result(60)
        assert version(stores[0]) == LAST
    finally:
        for store in stores:
            store.close()


def test_what_is_not_set_up_says_so(sql_store: SqlStore) -> None:
    asking: tuple[tuple[Callable[[Any], Any], Any], ...] = (
        (finish, sql_store.blocking.receipt(asked().key)),
        (finish, sql_store.blocking.commit(asked(), str)),
        (asyncio.run, sql_store.loops.commit(asked(), str)),
        (finish, sql_store.blocking.unsettled_runs(limit=5)),
    )
    for run, call in asking:
        with pytest.raises(ConfigurationError, match=r"call setup\(\) once"):
            run(call)


def test_a_schema_of_its_own(postgres: Postgres) -> None:
    url = postgres.url_of_new_database()
    first, second = SqlStore(url, schema="Agents 1"), SqlStore(url, schema="agents_2")
    try:
        for store in (first, second):
            finish(store.blocking.setup())
            finish(store.blocking.setup())
        finish(first.blocking.commit(asked(), lambda _: 1))
        assert finish(second.blocking.receipt(asked().key)) is None
        seen = inspect(first.engine)
        assert "lgv_commits" in seen.get_table_names("Agents 1")
        assert seen.get_table_names("public") == []
    finally:
        first.close()
        second.close()


def test_a_user_who_may_not_make_schemas_can_use_one(postgres: Postgres) -> None:
    url = postgres.url_of_new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(b"CREATE ROLE clerk LOGIN")
        connection.execute(b"CREATE SCHEMA agents AUTHORIZATION clerk")
    store = SqlStore(url.replace("postgres:@", "clerk@"), schema="agents")
    refused = SqlStore(url.replace("postgres:@", "clerk@"), schema="others")
    try:
        finish(store.blocking.setup())
        with pytest.raises(ConfigurationError, match="rights on the database"):
            finish(refused.blocking.setup())
    finally:
        store.close()
        refused.close()
