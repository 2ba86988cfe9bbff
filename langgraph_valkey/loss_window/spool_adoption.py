"""Taking over the spool of a process that is gone.

A file whose lock is free has no owner: it died, or left with rows that were not yet
durable. Several processes may look at once; each file goes to one of them.

After `limits.TOMBSTONE_TTL_MS` nobody remembers any more that a thread was deleted, so
older rows are discarded. What can't be read is never deleted, and never breaks the
process that found it: a damaged file gets another name and stays, a file of another
user or of a release with another format is left alone, and all of it is logged.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from langgraph_valkey import limits
from langgraph_valkey.loss_window.spool_file import FORMAT, SUFFIX, Row, SpoolFile

_FAILURES = (OSError, sqlite3.Error)
_log = logging.getLogger("langgraph_valkey")


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
                yield from self._file.read(serial)
            except sqlite3.DatabaseError:
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


def adopt(directory: Path) -> list[Adopted]:
    """Take all spool files in a directory that nobody holds."""
    found = (_adopted(path) for path in sorted(directory.glob(f"*{SUFFIX}")))
    return [each for each in found if each is not None]


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
        unused = file.execute("SELECT * FROM sqlite_master") == []
        if format_ != FORMAT and not unused:
            _log.warning("the spool %s is of another release: it is left alone", file.path)
            return None
        adopted = None if unused else Adopted(file)
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
    aside = file.set_aside()
    _log.warning(
        "the spool %s is damaged (%s): it is now %s; entries in it that the server lost are "
        "not replayed; delete it when you have no more use for it",
        file.path, why, aside,
    )  # fmt: skip
