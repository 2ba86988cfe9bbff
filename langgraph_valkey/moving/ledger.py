"""How far a migration has come, in a small file: so it may be killed at any time.

It holds names and digests, neither state nor addresses. A thread is noted before the first
thing of it is written, so what is found there is known to be this migration's own, or not.
"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from langgraph_valkey.errors import ConfigurationError

State: TypeAlias = Literal["begun", "copied", "verified"]

_FORMAT = "1"
_TABLES = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS threads (
    thread BLOB PRIMARY KEY, state TEXT NOT NULL, mark TEXT NOT NULL, goal TEXT NOT NULL
) WITHOUT ROWID;
"""


class Entry(NamedTuple):
    """A thread that was taken up.

    Attributes:
        state: "begun": something of it may have been written. "copied": all of it was, as
            it was then. "verified": and both sides gave the same back.
        mark: The thread's mark at the source, then.
        goal: Its mark at the target, as it was left there.
    """

    state: State
    mark: str
    goal: str


class Ledger:
    """The file.

    Args:
        path: Where it is, made if need be; None keeps it in memory.
        between: What two homes it is about.

    Raises:
        ConfigurationError: It is of another migration, in use, or no such file.
    """

    def __init__(self, path: Path | None, between: tuple[str, str]) -> None:
        self.path = path
        try:
            self._database = sqlite3.connect(path or ":memory:", isolation_level=None, timeout=0.5)
            # Held until it is closed: a second migration would undo what this one does.
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("BEGIN EXCLUSIVE")
            for statement in _TABLES.split(";"):
                self._database.execute(statement)
            self._database.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(
                f"the file {path} can't be used to note how far this is ({type(error).__name__}): "
                "another migration uses it, or it is something else; name another one by --state"
            ) from error
        self._require("format", _FORMAT, "was written by another release")
        places = hashlib.sha256("\n".join(between).encode()).hexdigest()
        self._require("between", places, "is of a migration between other places")

    def _require(self, name: str, value: str, otherwise: str) -> None:
        insert = "INSERT OR IGNORE INTO about VALUES (?, ?)"
        self._database.execute(insert, (name, value))
        find = "SELECT value FROM about WHERE name = ?"
        if self._database.execute(find, (name,)).fetchone() != (value,):
            self._database.close()
            raise ConfigurationError(f"the file {self.path} {otherwise}: name another by --state")

    def get(self, thread: str) -> Entry | None:
        """What is noted of a thread."""
        find = "SELECT state, mark, goal FROM threads WHERE thread = ?"
        with closing(self._database.execute(find, (_key(thread),))) as found:
            row = found.fetchone()
        return None if row is None else Entry(*row)

    def note(self, thread: str, state: State, mark: str = "", goal: str = "") -> None:
        """Note how a thread stands."""
        replace = "INSERT OR REPLACE INTO threads VALUES (?, ?, ?, ?)"
        self._database.execute(replace, (_key(thread), state, mark, goal))

    def forget(self, thread: str) -> None:
        """Forget a thread that is gone on both sides."""
        self._database.execute("DELETE FROM threads WHERE thread = ?", (_key(thread),))

    def threads(self) -> list[str]:
        """All that were taken up."""
        rows = self._database.execute("SELECT thread FROM threads").fetchall()
        return [row[0].decode("utf-8", "surrogatepass") for row in rows]

    def close(self, *, done: bool = False) -> None:
        """Close it; if all is done it is not needed any more, and removed."""
        self._database.close()
        if done and self.path is not None:
            self.path.unlink(missing_ok=True)


def _key(thread: str) -> bytes:
    return thread.encode("utf-8", "surrogatepass")
