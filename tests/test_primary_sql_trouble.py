# ruff: noqa: F811
"""Functions that break the rules, and databases that are in trouble."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, text

from langgraph_valkey.primary.sql import SqlStore
from tests.primary_ground import (  # noqa: F401
    STORES,
    Ground,
    Postgres,
    SqlGround,
    asked,
    new_name,
    postgres,
    threads,
)

SQL = [f"{store}-{face}" for store in ("sqlite", "postgresql") for face in ("blocking", "loops")]


@pytest.fixture(params=SQL)
async def ground(
    request: pytest.FixtureRequest, threads: ThreadPoolExecutor
) -> AsyncIterator[SqlGround]:
    """Each SQL store on each face."""
    store, face = str(request.param).split("-")
    async with STORES[store](request, face, threads) as opened:
        assert isinstance(opened, SqlGround)
        await opened.call("setup")
        yield opened


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
    ground: SqlGround, end: Callable[[Connection], None], then: str
) -> None:
    if end is _by_script and ground.store.engine.dialect.name != "sqlite":
        end = _by_statement

    def fn(connection: Connection) -> int:
        end(connection)
        if then == "raises":
            raise KeyError("declined")
        return 1

    with pytest.raises(KeyError if then == "raises" else RuntimeError, match="declined|has ended"):
        await ground.call("commit", asked(), fn)
    for method, given in (
        ("commit", (asked(), lambda _: 1)),
        ("receipt", (asked().key,)),
        ("receipts", ("thread", "turn")),
    ):
        with pytest.raises(RuntimeError, match="no result"):
            await ground.call(method, *given)
    # What can be done about it, as the error says.
    table = f"{ground.schema}.lgv_commits" if ground.schema else "lgv_commits"
    with ground.store.engine.begin() as connection:
        connection.execute(text(f"DELETE FROM {table} WHERE result = ''"))
    assert not (await ground.call("commit", asked(), lambda _: 1)).replayed
