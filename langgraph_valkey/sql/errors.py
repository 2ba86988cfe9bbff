"""What an error of a database driver means, in the terms of this package.

Databases say it by codes: PostgreSQL by SQLSTATE, SQLite by its result codes. Only
where a connection is refused there is no code, and the text has to do.

None of our texts repeats a driver's: theirs may hold parameters, hence users' state, or
the URL with its password. The driver's error is the cause of ours.
"""

from __future__ import annotations

import enum
import sqlite3

from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from langgraph_valkey.errors import (
    ConfigurationError,
    LanggraphValkeyError,
    OutcomeUnknown,
    StoreFull,
    Unreachable,
)


class Trouble(enum.Enum):
    """What an error of a driver means.

    Attributes:
        BUSY: Others were in the way. All was undone, and may work the next time.
        GONE: The database, or the connection to it, is gone.
        CROWDED: All connections of the pool are in use, and stayed so.
        FULL: No room is left.
        READ_ONLY: The database may only be read, be it for now or on this connection.
        VIOLATED: What the user's function did is against a rule that is checked at the end.
        BROKEN: The transaction was given up, since a statement in it had failed.
        ROLLED_BACK: The user's function has rolled it back.
        NO_TABLES: The tables are not there.
        NOT_ALLOWED: The user may not do this, or not come in.
        NO_SETTING: A parameter of the URL is unknown to the driver, or has no such value.
        NO_DATABASE: There is no such database, or it is none.
        OTHER: Something that should not happen.
    """

    BUSY = enum.auto()
    GONE = enum.auto()
    CROWDED = enum.auto()
    FULL = enum.auto()
    READ_ONLY = enum.auto()
    VIOLATED = enum.auto()
    BROKEN = enum.auto()
    ROLLED_BACK = enum.auto()
    NO_TABLES = enum.auto()
    NOT_ALLOWED = enum.auto()
    NO_SETTING = enum.auto()
    NO_DATABASE = enum.auto()
    OTHER = enum.auto()


PASSING = frozenset({Trouble.BUSY, Trouble.GONE, Trouble.READ_ONLY})
"""What is tried again."""

_BY_STATE = {
    "40001": Trouble.BUSY,  # serialization_failure
    "40P01": Trouble.BUSY,  # deadlock_detected
    "55P03": Trouble.BUSY,  # lock_not_available
    "57014": Trouble.BUSY,  # query_canceled: it took longer than the user's own bound
    "25006": Trouble.READ_ONLY,  # read_only_sql_transaction: a primary that was replaced
    "57P01": Trouble.GONE,  # admin_shutdown
    "57P02": Trouble.GONE,  # crash_shutdown
    "57P03": Trouble.GONE,  # cannot_connect_now
    "57P05": Trouble.GONE,  # idle_session_timeout
    "53300": Trouble.GONE,  # too_many_connections
    "25P02": Trouble.BROKEN,  # in_failed_sql_transaction
    "22012": Trouble.ROLLED_BACK,  # division_by_zero: that is how it shows, see `sql_commits`
    "53100": Trouble.FULL,  # disk_full
    "53200": Trouble.FULL,  # out_of_memory
    "42P01": Trouble.NO_TABLES,  # undefined_table
    "42703": Trouble.NO_TABLES,  # undefined_column
    "3F000": Trouble.NO_TABLES,  # invalid_schema_name
    "42501": Trouble.NOT_ALLOWED,  # insufficient_privilege
    "28000": Trouble.NOT_ALLOWED,  # invalid_authorization_specification
    "28P01": Trouble.NOT_ALLOWED,  # invalid_password
    "3D000": Trouble.NO_DATABASE,  # invalid_catalog_name
}

_BY_CLASS = {
    "08": Trouble.GONE,  # connection_exception
    "23": Trouble.VIOLATED,  # integrity_constraint_violation: of a deferred constraint
    "P0": Trouble.VIOLATED,  # plpgsql_error: of a deferred trigger
}
"""By the first two characters of those that are not listed one by one."""

_BY_CODE = {
    sqlite3.SQLITE_BUSY: Trouble.BUSY,
    sqlite3.SQLITE_LOCKED: Trouble.BUSY,
    sqlite3.SQLITE_CONSTRAINT: Trouble.VIOLATED,
    sqlite3.SQLITE_FULL: Trouble.FULL,
    sqlite3.SQLITE_IOERR: Trouble.GONE,
    sqlite3.SQLITE_READONLY: Trouble.NOT_ALLOWED,
    sqlite3.SQLITE_PERM: Trouble.NOT_ALLOWED,
    sqlite3.SQLITE_AUTH: Trouble.NOT_ALLOWED,
    sqlite3.SQLITE_CANTOPEN: Trouble.NO_DATABASE,
    sqlite3.SQLITE_NOTADB: Trouble.NO_DATABASE,
    sqlite3.SQLITE_CORRUPT: Trouble.NO_DATABASE,
}
_PRIMARY_CODE = 0xFF
"""Extended result codes have the general one in their lowest byte."""

_CHOSEN = ("integer", "sslmode", "gssencmode", "channel_binding", "target_session_attrs")
"""What libpq checks when it connects."""

_BY_TEXT = {
    "invalid connection option": Trouble.NO_SETTING,
    "bad value for connect_timeout": Trouble.NO_SETTING,
    **{f"invalid {name} value": Trouble.NO_SETTING for name in _CHOSEN},
    "no such table: lgv_": Trouble.NO_TABLES,
    "no such column": Trouble.NO_TABLES,
    "has no column named": Trouble.NO_TABLES,
    "authentication failed": Trouble.NOT_ALLOWED,
    "no password supplied": Trouble.NOT_ALLOWED,
    "no pg_hba.conf entry": Trouble.NOT_ALLOWED,
    "does not exist": Trouble.NO_DATABASE,
}

_TEXTS = {
    Trouble.FULL: "the primary store has no room left, and nothing was written: make room",
    Trouble.NO_TABLES: (
        "the primary store's tables are missing or of an older version: call setup() once"
    ),
    Trouble.NOT_ALLOWED: (
        "the primary store's database does not let this user in, or not do this: check the user, "
        "its password and its rights on the database and the schema"
    ),
    Trouble.NO_SETTING: (
        "a parameter in the URL of the primary store is unknown to the database's driver, or has a "
        "value that is none for it: check what comes after the question mark"
    ),
    Trouble.NO_DATABASE: (
        "the primary store's database does not exist or is damaged: check the URL's path or name, "
        "and that a SQLite file is one and its folder is there"
    ),
}

_WHY = {
    Trouble.BUSY: "others were in the way",
    Trouble.CROWDED: "all connections are in use: give the store a larger pool_size",
    Trouble.GONE: "it does not answer",
    Trouble.READ_ONLY: "it may only be read, so it is not the primary server of its database",
}


def trouble_of(failure: BaseException) -> Trouble | None:
    """What an error means; None if no database gave it."""
    if isinstance(failure, PoolTimeoutError):
        return Trouble.CROWDED
    if isinstance(failure, PendingRollbackError):  # The connection broke, and this went on.
        return Trouble.GONE
    origin: BaseException | None = failure
    if isinstance(failure, DBAPIError):
        if failure.connection_invalidated:
            return Trouble.GONE
        origin = failure.orig
    elif not hasattr(failure, "sqlstate"):  # The driver's own has it.
        return None
    state = getattr(origin, "sqlstate", None)
    if state is not None:
        return _BY_STATE.get(state) or _BY_CLASS.get(state[:2], Trouble.OTHER)
    code = getattr(origin, "sqlite_errorcode", None)
    if code is not None and (code & _PRIMARY_CODE) in _BY_CODE:
        return _BY_CODE[code & _PRIMARY_CODE]
    text = str(origin)
    found = (trouble for words, trouble in _BY_TEXT.items() if words in text)
    kinds = [kind.__name__ for kind in type(origin).__mro__]
    is_of_connection = code is None and "OperationalError" in kinds
    return next(found, Trouble.GONE if is_of_connection else Trouble.OTHER)


def error_of(trouble: Trouble, tries: int, *, may_be_done: bool) -> Exception:
    """What the caller is told, after the last try.

    Args:
        trouble: What stood in the way at last.
        tries: How often it was tried.
        may_be_done: Whether a try may have been applied: its COMMIT got no answer.
    """
    if may_be_done:
        return OutcomeUnknown(
            f"the connection to the primary store broke while it committed ({tries} tries), so it "
            "may have been done or not: call again, with the same key"
        )
    if trouble is Trouble.BROKEN:
        return RuntimeError(
            "the function went on after one of its statements had failed, so all of it was "
            "undone: let it raise, or put what may fail into `with connection.begin_nested():`"
        )
    if trouble is Trouble.ROLLED_BACK:
        return was_rolled_back()
    if trouble in _TEXTS:
        kind: type[LanggraphValkeyError] = ConfigurationError
        return (StoreFull if trouble is Trouble.FULL else kind)(_TEXTS[trouble])
    if trouble in (Trouble.OTHER, Trouble.VIOLATED):
        return ConfigurationError(
            "the primary store's database gave an unexpected error, and nothing was done: look at "
            "the cause of this one"
        )
    return Unreachable(
        f"the primary store can't be used ({tries} tries), and nothing was done: {_WHY[trouble]}"
    )


def was_rolled_back() -> RuntimeError:
    """What the caller is told if the function has rolled back the transaction."""
    return RuntimeError(
        "the function has rolled back the transaction it was given, so nothing was committed: let "
        "it raise an exception instead"
    )
