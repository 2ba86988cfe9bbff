"""One file of a spool: a table in SQLite, and the lock that says whose it is.

**Whose it is.** The owner holds `flock` on the file itself, and the kernel takes it
back when the process ends in whatever way. SQLite's own locks are off: only an owner
opens the table, and they would be lost whenever the process closes any descriptor
of the file. Who gets the lock looks whether the file still has its name: the owner
before may have removed it in between. Names are random and never used twice.

**Fork.** A child inherits the descriptor, and the lock with it, so it closes its copy
at once. An open SQLite database must not be carried into a child: every connection
is closed before a fork, and opened again by its next use in the parent. One lock of
the process serialises all use of SQLite, so that no fork comes in the middle.

**Deleted is not gone.** SQLite leaves copies of deleted rows in free pages, in gaps
inside pages (even with `secure_delete`: it moves rows between pages), and in its log
(the file that ends in ``-wal``). `scrub` writes all of it anew.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import weakref
from pathlib import Path
from typing import Any, NamedTuple, Self

from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.keys import to_text

SUFFIX = ".spool"
ASIDE = ".damaged"
FORMAT = 1
"""Stands in each file as SQLite's `user_version`; 0 is a file without a table yet."""

_COMPANIONS = ("-wal", "-journal", "-shm")
_SET_UP = (
    # Before the first look at the log: it then needs no memory shared with others.
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA synchronous = NORMAL",
)
_CREATE = f"""
PRAGMA journal_mode = WAL;
BEGIN IMMEDIATE;
CREATE TABLE entries (
    serial INTEGER PRIMARY KEY, thread BLOB NOT NULL, first_sent_s REAL NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX of_thread ON entries (thread);
PRAGMA user_version = {FORMAT};
COMMIT;
"""

_READ = "SELECT serial, thread, first_sent_s, body FROM entries WHERE serial = ?"
_TYPES = [int, bytes, float, bytes]

lock = threading.RLock()
"""Held by whoever uses a `SpoolFile`, and during a fork. It can be taken twice by one
thread, since a signal handler may fork."""

_files: weakref.WeakSet[SpoolFile] = weakref.WeakSet()


class Row(NamedTuple):
    """One entry of a journal.

    Attributes:
        serial: Its number in the journal; rows are read in this order.
        thread: The thread that it belongs to; any characters.
        first_sent_s: When it was first sent, by the wall clock.
        body: The entry, as the journal wrote it.
    """

    serial: int
    thread: str
    first_sent_s: float
    body: bytes


class SpoolFile:
    """A file that this process holds; made by `create` and `take`.

    Attributes:
        path: Where it is.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor
        self._connection: sqlite3.Connection | None = None
        _files.add(self)
        renew_after_fork(self)

    @classmethod
    def create(cls, directory: Path) -> Self:
        """Make a new, empty one that only this user can read.

        Raises:
            OSError, sqlite3.Error: The directory can't be used.
        """
        while True:
            path = directory / f"{os.urandom(8).hex()}{SUFFIX}"
            with lock:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
                os.fchmod(descriptor, 0o600)
                file = cls._held(path, descriptor)
                if file is None:  # an adopter was quicker, and removes an empty file
                    continue
                try:
                    file.make_table()
                except sqlite3.Error:
                    file.remove()
                    raise
                return file

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """Get an existing one; None if somebody holds it, or it is gone.

        Raises:
            OSError: It can't be opened.
        """
        with lock:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            except FileNotFoundError:
                return None
            return cls._held(path, descriptor)

    @classmethod
    def _held(cls, path: Path, descriptor: int) -> Self | None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                return cls(path, descriptor)
        except (BlockingIOError, FileNotFoundError):
            pass
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    @property
    def foreign(self) -> bool:
        """Whether it belongs to another user."""
        return self.path.stat().st_uid != os.geteuid()

    @property
    def beheaded(self) -> bool:
        """Whether it is empty, but its log is not: opening it would delete the log."""
        log = self._companion("-wal")
        return self.path.stat().st_size == 0 and log.exists() and log.stat().st_size > 0

    def make_table(self) -> None:
        """Create the table, in the file itself: a format of 0 then means no row ever.

        Raises:
            sqlite3.Error: The disk is full.
        """
        with lock:
            self._connected().executescript(_CREATE)
            self._truncate_log()

    def execute(self, sql: str, *values: object) -> list[Any]:
        """Run one statement in a transaction of its own; all rows of its answer.

        Raises:
            sqlite3.Error: The disk is full, or the file is damaged.
            ValueError: The file is closed, or it is that of the parent process.
        """
        with lock:
            return self._connected().execute(sql, values).fetchall()

    def read(self, serial: int) -> list[Row]:
        """The row of that number, if there is one.

        Raises:
            sqlite3.DatabaseError: It is damaged, or as `execute`.
        """
        found = self.execute(_READ, serial)
        if any([type(value) for value in values] != _TYPES for values in found):
            raise sqlite3.DatabaseError("an entry is not as it was written")
        try:
            return [Row(serial, to_text(thread), *rest) for _, thread, *rest in found]
        except UnicodeDecodeError:
            raise sqlite3.DatabaseError("the name of an entry's thread is damaged") from None

    def scrub(self) -> None:
        """Write the file anew, with nothing in it or its log but the rows there are.

        It takes about 4 ms a MiB of these, and as much room on disk while it runs.

        Raises:
            sqlite3.Error: As `execute`.
        """
        with lock:
            self.execute("VACUUM")
            self._truncate_log()

    def close(self) -> None:
        """Give the lock back; whoever comes may take the file."""
        with lock:
            self.disconnect()
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def remove(self) -> None:
        """Delete the file, log first: what is left by a crash between is found again."""
        with lock:
            if self._descriptor is not None:
                self.disconnect()
                for suffix in (*_COMPANIONS, ""):
                    self._companion(suffix).unlink(missing_ok=True)
            self.close()

    def set_aside(self) -> Path:
        """Rename it, so that nobody takes it again; where it is now."""
        aside = self.path.with_suffix(ASIDE)
        with lock:
            if self._descriptor is not None:
                self.disconnect()
                for suffix in ("", *_COMPANIONS):
                    if self._companion(suffix).exists():
                        self._companion(suffix).rename(f"{aside}{suffix}")
            self.close()
        return aside

    def disconnect(self) -> None:
        """Close the connection, not the file; the next use connects again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def after_fork(self) -> None:
        """It is the parent's file: let go of it."""
        self.close()

    def _truncate_log(self) -> None:
        self.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _companion(self, suffix: str) -> Path:
        return Path(f"{self.path}{suffix}")

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            if self._descriptor is None:
                raise ValueError("the spool file is closed: this process no longer holds it")
            self._connection = _connect(self.path)
        return self._connection


def _connect(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?vfs=unix-none&mode=rw"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    try:
        for pragma in _SET_UP:
            connection.execute(pragma).fetchall()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _before_fork() -> None:
    lock.acquire()
    for file in tuple(_files):
        file.disconnect()


os.register_at_fork(before=_before_fork, after_in_parent=lock.release, after_in_child=lock.release)
