"""Fewer round trips to PostgreSQL: BEGIN with the first statement, COMMIT with the last.

A driver sends BEGIN by itself and waits for the answer before it sends a statement, and
so with COMMIT. In psycopg's pipeline mode they go out together. A commit's record then
costs as many round trips less as it has statements of its own, and looking for a
duplicate takes two in all. Once a statement has failed the server skips the rest of
what was sent with it, COMMIT included.

SQLAlchemy has no such mode, so here the driver is asked directly, below it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ClauseElement, Connection
from sqlalchemy.dialects import registry
from sqlalchemy.exc import DBAPIError


class Statement(NamedTuple):
    """A statement in psycopg's own words.

    Attributes:
        text: With ``%(name)s`` for values.
        values: By their names, as psycopg takes them.
    """

    text: str
    values: Mapping[str, Any]


def in_drivers_words(statement: ClauseElement) -> str:
    """The text of a statement, for `Statement`."""
    dialect: Any = registry.load("postgresql.psycopg")
    return str(statement.compile(dialect=dialect()))


def begin_with(connection: Connection, statement: Statement) -> Any:
    """Begin the transaction by a statement that returns rows; the first one, or None."""
    connection.begin()  # Says so to SQLAlchemy; nothing is sent.
    return _send(connection, [statement], is_last=False)


def commit_with(connection: Connection, statements: Sequence[Statement]) -> None:
    """End the transaction by some statements; if one of them fails it is not committed."""
    _send(connection, statements, is_last=True)


def _send(connection: Connection, statements: Sequence[Statement], *, is_last: bool) -> Any:
    proxied = connection.connection
    driver: Any = proxied.driver_connection
    adapted: Any = proxied.dbapi_connection
    try:
        if connection.dialect.is_async:
            return adapted.run_async(lambda driver: _ask_async(driver, statements, is_last))
        return _ask(driver, statements, is_last)
    except connection.dialect.loaded_dbapi.Error as failure:
        if driver.closed:  # Let SQLAlchemy see it too, and drop what else it has of that age.
            connection.exec_driver_sql("SELECT 1")
        raise _in_sqlalchemys_words(failure, connection) from failure


def _in_sqlalchemys_words(failure: Exception, connection: Connection) -> Any:
    """The error that SQLAlchemy would have made of a driver's."""
    dialect: Any = connection.dialect
    kind = dialect.loaded_dbapi.Error
    return DBAPIError.instance(None, None, failure, kind, hide_parameters=True, dialect=dialect)


def _ask(driver: Any, statements: Sequence[Statement], is_last: bool) -> Any:
    with driver.pipeline():
        for statement in statements:
            cursor = driver.execute(*statement)
        if is_last:
            driver.commit()
    return cursor.fetchone()


async def _ask_async(driver: Any, statements: Sequence[Statement], is_last: bool) -> Any:
    async with driver.pipeline():
        for statement in statements:
            cursor = await driver.execute(*statement)
        if is_last:
            await driver.commit()
    return await cursor.fetchone()
