"""From a URL to engines: drivers, pools, and how connections are set up.

A URL may hold a password, so no error here repeats one.
"""

from __future__ import annotations

import importlib.util
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.sql.schema import Kind

POOL_SIZE = 10
"""Connections that one face keeps open, each async face for each event loop."""

POOL_OVERFLOW = 10
"""Connections beyond these that are opened in a rush and closed after it."""

POOL_TIMEOUT_S = 30.0
"""How long a call waits for a connection while all are in use."""

TURN_TIMEOUT_MS = 100
"""How long SQLite itself waits for another one's transaction. What is longer is waited
for outside of it, where a task can be cancelled and an event loop goes on; and a bit of
it inside, since it looks again the soonest."""

SET_UP_TIMEOUT_S = 5.0
"""How long a new connection waits while another one turns the write-ahead log on."""

CONNECT_TIMEOUT_S = 3
"""How long connecting to PostgreSQL may take, in whole seconds."""

LOCK_TIMEOUT_S = 10
"""How long a statement waits on PostgreSQL for another transaction, unless the database,
its user or the URL's options say something else: less than `sql_answers.ANSWER_S`."""

SILENT_S = 10
SILENT_AGAIN_S = 5
SILENT_COUNT = 3
"""After how long without a sign of life PostgreSQL asks the host of a connection for
one, how often, and how many it lets go by. Then it undoes what was open there and frees
its locks: by the system's own bounds after two hours."""

UNANSWERED_MS = 10_000
"""How long PostgreSQL's host may leave what was sent unacknowledged before the
connection counts as broken: the system's own bound is many minutes."""

_KINDS: dict[str, Kind] = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "sqlite+aiosqlite": "sqlite",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "postgresql+psycopg": "postgresql",
}
_DRIVERS: dict[Kind, tuple[str, str]] = {
    "sqlite": ("sqlite+pysqlite", "sqlite+aiosqlite"),
    "postgresql": ("postgresql+psycopg", "postgresql+psycopg"),
}
_NEEDED: dict[Kind, tuple[str, str]] = {
    "sqlite": ("aiosqlite", "sql"),
    "postgresql": ("psycopg", "postgres"),
}
"""Which module has to be there, and by which extra it comes."""


class Address:
    """Where a database is, and how engines for it are made.

    Args:
        url: ``sqlite:///path`` or ``postgresql://...``; other spellings of these that
            SQLAlchemy knows are taken too, and so are libpq's parameters in the query.
        pool_size: Connections that one face keeps open.

    Attributes:
        kind: Which database it is.

    Raises:
        ConfigurationError: The URL can't be used, or a driver is not installed.
    """

    def __init__(self, url: str, pool_size: int = POOL_SIZE) -> None:
        self._url = _parsed(url)
        self._pool_size = pool_size
        kind = _KINDS.get(self._url.drivername)
        if kind is None:
            raise ConfigurationError(
                f"a SQL store can't be on {self._url.drivername!r}: use sqlite:///path or "
                "postgresql://user@host/database (with psycopg)"
            )
        self.kind: Kind = kind
        module, extra = _NEEDED[kind]
        if importlib.util.find_spec(module) is None:
            raise ConfigurationError(
                f"{kind} needs {module}: pip install 'langgraph-valkey[{extra}]'"
            )
        if kind == "sqlite":
            _check_file(self._url)

    def engine(self) -> Engine:
        """An engine for the blocking face."""
        made = create_engine(self._url.set(drivername=_DRIVERS[self.kind][0]), **self._options())
        self._set_up(made)
        return made

    def async_engine(self) -> AsyncEngine:
        """An engine for one event loop."""
        url = self._url.set(drivername=_DRIVERS[self.kind][1])
        made = create_async_engine(url, **self._options())
        self._set_up(made.sync_engine)
        return made

    def _options(self) -> dict[str, Any]:
        if self.kind == "sqlite":
            arguments: dict[str, Any] = {"timeout": SET_UP_TIMEOUT_S}
        else:
            arguments = {
                "connect_timeout": CONNECT_TIMEOUT_S,
                "tcp_user_timeout": UNANSWERED_MS,
                "application_name": "langgraph-valkey",
            }
            arguments = {name: arguments[name] for name in arguments.keys() - self._url.query}
        return {
            "pool_size": self._pool_size,
            "max_overflow": POOL_OVERFLOW,
            "pool_timeout": POOL_TIMEOUT_S,
            "hide_parameters": True,
            "connect_args": arguments,
        }

    def _set_up(self, engine: Engine) -> None:
        event.listen(engine, "connect", _durable if self.kind == "sqlite" else _bounded)
        if self.kind == "sqlite":
            event.listen(engine, "invalidate", _free)


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise _unreadable() from None  # Its text has the URL.
    if "@" in (parsed.host or ""):  # The rest of a password.
        raise _unreadable()
    password = parsed.query.get("password")
    if isinstance(password, str):  # SQLAlchemy hides it only in its own place.
        parsed = parsed.set(password=password).difference_update_query(["password"])
    return parsed


def _unreadable() -> ConfigurationError:
    return ConfigurationError(
        "the URL of the primary store can't be read (it is not repeated here, since it may hold a "
        "password): write sqlite:///path or postgresql://user:password@host/database, with special "
        "characters of user and password percent-encoded"
    )


def _check_file(url: URL) -> None:
    """Refuse what is no file: two faces could not share it, and it would not be kept."""
    path = url.database or ""
    if path in ("", ":memory:") or "mode=memory" in str(url) or path == "file::memory:":
        raise ConfigurationError(
            "the primary store can't be a SQLite database in memory: it has to outlive this "
            "process. Give a file: sqlite:///relative/path or sqlite:////absolute/path"
        )
    if not path.startswith("file:") and not Path(path).parent.is_dir():
        raise ConfigurationError(
            "the folder of the primary store's SQLite file does not exist: make it, or check the "
            "path (sqlite:///relative/path or sqlite:////absolute/path)"
        )


def _durable(connection: Any, _: Any) -> None:
    """Have each commit on disk before it is acknowledged, and readers not wait for it."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute(f"PRAGMA busy_timeout={TURN_TIMEOUT_MS}")
    cursor.close()


def _free(connection: Any, *_: Any) -> None:
    """Free SQLite's locks before a connection is given up, as when a task was cancelled.

    Closing is not enough: SQLite goes on holding them for a statement whose rows nobody
    has fetched, and that lives as long as somebody keeps the error.
    """
    with suppress(SQLAlchemyError, sqlite3.Error):
        connection.rollback()


def _bounded(connection: Any, _: Any) -> None:
    """Have the server bound how long others wait for this connection, and it for others."""
    connection.autocommit = True  # No transaction: it would take two more round trips.
    cursor = connection.cursor()
    cursor.execute(
        f"SET tcp_keepalives_idle = {SILENT_S};"
        f"SET tcp_keepalives_interval = {SILENT_AGAIN_S};"
        f"SET tcp_keepalives_count = {SILENT_COUNT};"
        f"SELECT set_config('lock_timeout', '{LOCK_TIMEOUT_S}s', false) "
        "WHERE current_setting('lock_timeout') = '0'"
    )
    cursor.close()
    connection.autocommit = False
