"""The spool: what of a process's journal stands on local disk.

It takes entries that memory has no room for, and keeps them when the process dies:
each process has a file of its own (see `spool_file`), and a later one that finds it
without an owner adopts it. A row is safe from a crash of the process as soon as `add`
has returned; a power cut may take the last ones.

What a row means is the journal's business. Here it is a serial number, the thread
that it belongs to (so that deleting a thread purges it), the time at which it was
first sent, and bytes. After `limits.TOMBSTONE_TTL_MS` nobody remembers any more that
a thread was deleted, so an adopter discards what is older.

A disk that is full or fails never breaks a put: `add` says that the row was not kept,
and what could not be removed is removed by a later call.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from langgraph_valkey import limits
from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.keys import to_bytes, to_text
from langgraph_valkey.loss_window.spool_file import FORMAT, SUFFIX, SpoolFile, lock

ROW_BYTES = 64
"""What a row costs beside its thread's name and its body, about."""

BATCH = 50
"""Rows removed in one transaction: adding waits for it, a few ms."""

MARKS = 65_536
"""Threads whose bytes may stand in the file are remembered by a hash modulo this: a
collision makes `forget` scrub the file in vain, no more."""

_SERIAL_MOST = 2**63 - 1
_FAILURES = (OSError, sqlite3.Error)
_log = logging.getLogger("langgraph_valkey")

_ADD = "INSERT INTO entries VALUES (?, ?, ?, ?)"
_THREADS = "SELECT DISTINCT thread FROM entries"
_READ = "SELECT serial, thread, first_sent_s, body FROM entries WHERE serial = ?"


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


class _Removal(NamedTuple):
    """What is to be removed: how to measure it, how to delete it, which mark to clean."""

    measure: str
    delete: str
    values: tuple[object, ...]
    mark: int | None


def _mark(thread: bytes) -> int:
    return hash(thread) % MARKS


def _of_serials(serials: Sequence[int]) -> _Removal:
    return _Removal(
        "SELECT count(*), total(length(thread) + length(body)) FROM entries "
        "WHERE serial IN (SELECT value FROM json_each(?))",
        "DELETE FROM entries WHERE serial IN (SELECT value FROM json_each(?))",
        (json.dumps(serials),),
        mark=None,
    )


def _of_thread(thread: bytes, up_to_serial: int) -> _Removal:
    return _Removal(
        "SELECT count(*), total(length(thread) + length(body)) FROM entries "
        "WHERE thread = ? AND serial <= ?",
        "DELETE FROM entries WHERE thread = ? AND serial <= ?",
        (thread, up_to_serial),
        mark=_mark(thread),
    )


class Spool:
    """The rows of this process; safe to use from many threads and after a fork.

    Args:
        directory: On a local disk; made if it is not there. Processes share it.
        bytes_max: How much this process may keep. The file takes a little more: it
            consists of pages, and a log of a few MiB stands beside it.

    Raises:
        ConfigurationError: The directory can't be used.
    """

    def __init__(self, directory: Path, *, bytes_max: int) -> None:
        self._directory = directory
        self._bytes_max = bytes_max
        self._closed = False
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._start(SpoolFile.create(directory))
        except _FAILURES as error:
            raise ConfigurationError(
                f"the spool can't keep files in {directory} ({error}): name a directory on a "
                "local disk in which this process may create files, or do without a spool"
            ) from error
        renew_after_fork(self)

    def _start(self, file: SpoolFile | None) -> None:
        self._file = file
        self._bytes = 0
        self._entries = 0
        self._owed: deque[_Removal] = deque()
        self._marks: set[int] = set()
        self._complained = False

    def after_fork(self) -> None:
        """Begin with nothing: the file is the parent's. The first `add` makes one."""
        self._start(None)

    @property
    def bytes(self) -> int:
        """Bytes of all rows, as counted against `bytes_max`."""
        return self._bytes

    @property
    def entries(self) -> int:
        """How many rows there are."""
        return self._entries

    def add(self, row: Row) -> bool:
        """Keep a row.

        Returns:
            False if there is no room for it, or the disk refuses it.
        """
        thread = to_bytes(row.thread)
        size = len(thread) + len(row.body) + ROW_BYTES
        with lock:
            if self._closed or self._bytes + size > self._bytes_max:
                return False
            try:
                if self._file is None:
                    self._file = SpoolFile.create(self._directory)
                self._file.execute(_ADD, row.serial, thread, row.first_sent_s, row.body)
            except _FAILURES as error:
                self._complain(error)
                return False
            self._bytes += size
            self._entries += 1
            self._marks.add(_mark(thread))
        return True

    def rows(self, serials: Sequence[int]) -> list[Row]:
        """Those rows, in serial order; without those that are not there or unreadable."""
        found: list[Row] = []
        for serial in sorted(serials):
            with lock:
                try:
                    found += [] if self._file is None else _read(self._file, serial)
                except _FAILURES as error:
                    self._complain(error)
        return found

    def discard(self, serials: Iterable[int]) -> None:
        """Remove rows that are no longer needed."""
        remaining = iter(serials)
        while batch := list(islice(remaining, BATCH)):
            self._owed.append(_of_serials(batch))
        self._settle()

    def forget(self, thread: str, up_to_serial: int | None = None) -> None:
        """Remove a thread's rows, and all traces of them and of those discarded before.

        Where there are any, this takes about 4 ms a MiB of the other rows.

        Args:
            thread: The thread.
            up_to_serial: The last row to remove; all of the thread if not given.
        """
        most = _SERIAL_MOST if up_to_serial is None else up_to_serial
        self._owed.append(_of_thread(to_bytes(thread), most))
        self._settle()

    def adopt(self) -> list[Adopted]:
        """Take all files in the directory whose owner is gone.

        Files that are damaged are renamed; files of another user, or of a release
        that writes another format, are left alone. Both are logged.
        """
        found = (_adopted(path) for path in sorted(self._directory.glob(f"*{SUFFIX}")))
        return [each for each in found if each is not None]

    def close(self) -> None:
        """Remove the file if no row is left; else leave it for adoption."""
        self._settle()
        with lock:
            file, self._file, self._closed = self._file, None, True
            if file is None:
                return
            try:
                if self._entries:
                    file.close()
                else:
                    file.remove()
            except _FAILURES as error:
                self._complain(error)

    def _settle(self) -> None:
        """Do the removals that are owed; what fails stays owed."""
        while True:
            with lock:
                if self._file is None:
                    self._owed.clear()
                if self._file is None or not self._owed:
                    return
                try:
                    self._remove(self._file, self._owed[0])
                except _FAILURES as error:
                    self._complain(error)
                    return
                self._owed.popleft()

    def _remove(self, file: SpoolFile, removal: _Removal) -> None:
        [(entries, size)] = file.execute(removal.measure, *removal.values)
        if entries:
            file.execute(removal.delete, *removal.values)
            self._entries -= entries
            self._bytes -= int(size) + entries * ROW_BYTES
        # An empty file is scrubbed too: that gives its room back, and costs 2 ms.
        if self._marks and (not self._entries or removal.mark in self._marks):
            file.scrub()
            self._marks = {_mark(name) for (name,) in file.execute(_THREADS)}

    def _complain(self, error: Exception) -> None:
        """Log the first failure; the rest would be more of the same."""
        if not self._complained:
            self._complained = True
            _log.warning(
                "the spool in %s fails (%s): entries are not kept on disk, or not removed "
                "from it, until it works again; free or check the disk",
                self._directory, error,
            )  # fmt: skip


class Adopted:
    """A file that a process left, in this one's care until `finish` or `release`.

    Attributes:
        path: The file.
        entries: Rows to be read.
        discarded: Rows that are too old to be.
        empty: Whether there is neither.
    """

    def __init__(self, file: SpoolFile) -> None:
        oldest_s = time.time() - limits.TOMBSTONE_TTL_MS / 1000
        young = "SELECT serial FROM entries WHERE first_sent_s >= ? ORDER BY serial"
        self._file = file
        self._serials: list[int] = [serial for (serial,) in file.execute(young, oldest_s)]
        [(in_all,)] = file.execute("SELECT count(*) FROM entries")
        self._unreadable: set[int] = set()
        self.path = file.path
        self.entries = len(self._serials)
        self.discarded: int = in_all - self.entries
        self.empty: bool = in_all == 0

    def rows(self) -> Iterator[Row]:
        """Its rows in serial order, read one by one; without those that are damaged."""
        for serial in self._serials:
            try:
                yield from _read(self._file, serial)
            except sqlite3.Error:
                self._unreadable.add(serial)

    def finish(self) -> None:
        """Delete the file: its rows are where they belong. A damaged one is kept aside."""
        try:
            if self._unreadable:
                _set_aside(self._file, f"{len(self._unreadable)} of its entries can't be read")
            else:
                self._file.remove()
        except OSError as error:
            _log.warning("can't remove the adopted spool %s: %s", self.path, error)

    def release(self) -> None:
        """Leave the file to whoever adopts it next."""
        self._file.close()


def _read(file: SpoolFile, serial: int) -> list[Row]:
    return [
        Row(number, to_text(thread), first_sent_s, body)
        for number, thread, first_sent_s, body in file.execute(_READ, serial)
    ]


def _adopted(path: Path) -> Adopted | None:
    adopted = file = None
    try:
        file = SpoolFile.take(path)
        adopted = None if file is None else _opened(file)
    except _FAILURES as error:
        _log.warning("can't adopt the spool %s now: %s", path, error)
    if adopted is None and file is not None:
        file.close()
    return adopted


def _opened(file: SpoolFile) -> Adopted | None:
    if file.foreign:
        _log.warning("the spool %s belongs to another user: it is left alone", file.path)
        return None
    if file.beheaded:
        _set_aside(file, "only its log is there")
        return None
    try:
        [(format_,)] = file.execute("PRAGMA user_version")
        if format_ not in (0, FORMAT):
            _log.warning("the spool %s is of another release: it is left alone", file.path)
            return None
        adopted = Adopted(file) if format_ else None
    except sqlite3.OperationalError:  # of the disk, not of the file
        raise
    except sqlite3.DatabaseError as error:
        _set_aside(file, str(error))
        return None
    if adopted is None or adopted.empty:
        file.remove()
        return None
    return adopted


def _set_aside(file: SpoolFile, why: str) -> None:
    _log.warning(
        "the spool %s is damaged (%s): it is now %s; entries in it that the server lost are "
        "not replayed; delete it when you have no more use for it",
        file.path, why, file.set_aside(),
    )  # fmt: skip
