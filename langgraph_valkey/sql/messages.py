"""Several statements to PostgreSQL in one message: BEGIN with the first, COMMIT with the last.

A driver sends each statement by itself, BEGIN and COMMIT too, and waits for its answer.
PostgreSQL takes several in one message of its simple protocol, with their values
written into them, and answers them together; once one has failed it skips the rest,
COMMIT included. So a commit's record costs two round trips, as many as BEGIN and COMMIT
do by themselves, and looking for a duplicate one, and another to undo nothing.

SQLAlchemy has no such way, so the driver is asked directly, below it. It has one for
that (pipeline mode), but its own work for it takes longer than a near server's answer.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
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


def begin_with(connection: Connection, statements: Sequence[Statement]) -> list[list[str] | None]:
    """Begin the transaction by some statements; of each the first row, as texts, if any."""
    connection.begin()  # Says so to SQLAlchemy; nothing is sent.
    driver: Any = connection.connection.driver_connection
    level = driver.isolation_level
    begin = f"BEGIN ISOLATION LEVEL {level.name.replace('_', ' ')}" if level else "BEGIN"
    return [_first(each) for each in _send(connection, [begin, *_written(driver, statements)])[1:]]


def commit_with(connection: Connection, statements: Sequence[Statement]) -> None:
    """End the transaction by some statements; if one of them fails it is not committed."""
    driver: Any = connection.connection.driver_connection
    _send(connection, [*_written(driver, statements), "COMMIT"])


def _written(driver: Any, statements: Sequence[Statement]) -> list[str]:
    """Statements with their values in them."""
    from psycopg import ClientCursor

    cursor = ClientCursor(driver)  # It asks nothing, so it serves for both faces.
    return [cursor.mogrify(*statement) for statement in statements]


def _send(connection: Connection, statements: Sequence[str]) -> list[Any]:
    proxied = connection.connection
    driver: Any = proxied.driver_connection
    adapted: Any = proxied.dbapi_connection
    message = ";".join(statements).encode()
    try:
        if connection.dialect.is_async:
            answers = adapted.run_async(lambda driver: driver.wait(_exchange(driver, message)))
        else:
            answers = driver.wait(_exchange(driver, message))
    except connection.dialect.loaded_dbapi.Error as failure:
        if driver.closed:  # Let SQLAlchemy see it too, and drop what else it has of that age.
            connection.exec_driver_sql("SELECT 1")
        raise _in_sqlalchemys_words(failure, connection) from failure
    return list(answers)


def _exchange(driver: Any, message: bytes) -> Generator[Any, Any, list[Any]]:
    """Send a message and receive its answers, in steps that either face can wait for."""
    from psycopg import generators
    from psycopg.errors import error_from_result
    from psycopg.pq import ExecStatus

    driver.pgconn.send_query(message)
    answers: list[Any] = yield from generators.execute(driver.pgconn)
    for answer in answers:
        if answer.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            raise error_from_result(answer)
    return answers


def _first(answer: Any) -> list[str] | None:
    if not answer.ntuples:
        return None
    return [answer.get_value(0, column).decode() for column in range(answer.nfields)]


def _in_sqlalchemys_words(failure: Exception, connection: Connection) -> Any:
    """The error that SQLAlchemy would have made of a driver's."""
    dialect: Any = connection.dialect
    kind = dialect.loaded_dbapi.Error
    return DBAPIError.instance(None, None, failure, kind, hide_parameters=True, dialect=dialect)
