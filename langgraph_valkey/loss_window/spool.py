"""The spool: what of a process's journal stands on local disk.

It takes entries that memory has no room for, and keeps them when the process dies:
each process has a file of its own (see `spool_file`), and a later one that finds it
without an owner adopts it (see `spool_adoption`). A row is safe from a crash of the
process as soon as `add` has returned; a power cut may take the last ones.

What a row means is the journal's business. Here it is a serial number, the thread
that it belongs to (so that deleting a thread purges it), the time at which it was
first sent, and bytes.

A disk that is full or fails never breaks a put: `add` says that the row was not kept,
and what could not be removed is removed by a later call.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.keys import to_bytes
from langgraph_valkey.loss_window.spool_adoption import Adopted, adopt
from langgraph_valkey.loss_window.spool_file import Row, SpoolFile, lock

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
        self._unclean = False
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
                    found += [] if self._file is None else self._file.read(serial)
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
        """Take all files in the directory whose owner is gone."""
        return adopt(self._directory)

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
        """Do what is owed; what fails stays owed."""
        for step in (self._remove_next, self._clean):
            going_on = True
            while going_on:
                with lock:
                    if self._file is None:
                        return
                    try:
                        going_on = step(self._file)
                    except _FAILURES as error:
                        self._complain(error)
                        going_on = False

    def _remove_next(self, file: SpoolFile) -> bool:
        if not self._owed:
            return False
        removal = self._owed[0]
        [(entries, size)] = file.execute(removal.measure, *removal.values)
        if entries:
            file.execute(removal.delete, *removal.values)
            self._entries -= entries
            self._bytes -= int(size) + entries * ROW_BYTES
        self._unclean |= removal.mark in self._marks
        self._owed.popleft()
        return True

    def _clean(self, file: SpoolFile) -> bool:
        # An empty file is scrubbed too: that gives its room back, and costs 2 ms.
        if self._unclean or (self._marks and not self._entries):
            file.scrub()
            self._marks = {_mark(name) for (name,) in file.execute(_THREADS)}
            self._unclean = False
        return False

    def _complain(self, error: Exception) -> None:
        """Log the first failure; the rest would be more of the same."""
        if not self._complained:
            self._complained = True
            _log.warning(
                "the spool in %s fails (%s): entries are not kept on disk, or not removed "
                "from it, until it works again; free or check the disk",
                self._directory, error,
            )  # fmt: skip
