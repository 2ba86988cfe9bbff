"""An in-memory keyspace that can be taken back.

It holds what the scripts use: hashes, sorted sets and strings, some with a deadline.
Each change goes through one of five primitives, which note how to undo it; so the
last writing calls can be rewound, as a failover rewinds them.

Hashes are walked in the order of a checksum of their fields, so that a cursor
stays good while others add and remove fields, which the server guarantees too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any, TypeAlias
from zlib import crc32

Hash: TypeAlias = dict[bytes, bytes]


class Scores(dict[bytes, float]):
    """A sorted set: member and score."""


class ServerError(Exception):
    """An error reply, as the server words it."""


WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
SYNTAX = "ERR syntax error"
NO_INTEGER = "ERR value is not an integer or out of range"


def integer(raw: bytes) -> int:
    """An integer in its one right spelling, as the server demands it."""
    try:
        value = int(raw)
    except ValueError:
        raise ServerError(NO_INTEGER) from None
    if b"%d" % value != raw or not -(2**63) <= value < 2**63:
        raise ServerError(NO_INTEGER)
    return value


class Keyspace:
    """Keys and their deadlines, by a clock that is set from outside.

    Attributes:
        now_ms: The server's clock; keys whose deadline it has passed are gone.
        undo: How to take back what was done since this list was last emptied.
    """

    def __init__(self) -> None:
        self.now_ms = 0
        self.undo: list[tuple[Any, ...]] = []
        self._values: dict[bytes, Any] = {}
        self._deadlines_ms: dict[bytes, int] = {}

    # --- reading ---------------------------------------------------------------

    def alive(self) -> list[bytes]:
        """All keys that are alive."""
        for key in list(self._deadlines_ms):
            self._expire(key)
        return list(self._values)

    def value(self, key: bytes) -> Any:
        """What a key holds, or None."""
        self._expire(key)
        return self._values.get(key)

    def hash(self, key: bytes) -> Hash:
        """The hash at a key, empty if there is none.

        Raises:
            ServerError: The key holds something else.
        """
        found = self.value(key)
        if isinstance(found, Scores | bytes):
            raise ServerError(WRONG_TYPE)
        return found if found is not None else {}

    def scores(self, key: bytes) -> Scores:
        """The sorted set at a key, empty if there is none; raises as `hash` does."""
        found = self.value(key)
        if found is not None and not isinstance(found, Scores):
            raise ServerError(WRONG_TYPE)
        return found if found is not None else Scores()

    def text(self, key: bytes) -> bytes | None:
        """The string at a key, or None; raises as `hash` does."""
        found = self.value(key)
        if found is not None and not isinstance(found, bytes):
            raise ServerError(WRONG_TYPE)
        return found

    def deadline_ms(self, key: bytes) -> int | None:
        """When a key goes, or None."""
        self._expire(key)
        return self._deadlines_ms.get(key)

    # --- changing --------------------------------------------------------------

    def set(self, key: bytes, member: bytes, value: Any, kind: type) -> bool:
        """Set a member of a hash or a sorted set; whether it is new."""
        holder = self._values.get(key)
        if holder is None:
            holder = self._values[key] = kind()
        fresh = member not in holder
        self.undo.append((self._set_back, key, holder, member, holder.get(member)))
        holder[member] = value
        return fresh

    def write(self, key: bytes, text: bytes) -> None:
        """Set a key to a string, whatever it held, and for ever."""
        if not self.remove(key):
            self.undo.append((self._forget, key))
        self._values[key] = text

    def drop(self, key: bytes, member: bytes) -> bool:
        """Remove a member, and the key with its last one; whether it was there."""
        holder = self.value(key)
        if holder is None or member not in holder:
            return False
        if len(holder) == 1:
            return self.remove(key)
        self.undo.append((self._set_back, key, holder, member, holder.pop(member)))
        return True

    def remove(self, key: bytes) -> bool:
        """Remove a key; whether it was there."""
        if self.value(key) is None:
            return False
        self._remove(key)
        return True

    def expire_at(self, key: bytes, deadline_ms: int) -> bool:
        """Give a key a deadline; whether it is there."""
        if self.value(key) is None:
            return False
        self.undo.append((self._deadline_back, key, self._deadlines_ms.get(key)))
        self._deadlines_ms[key] = deadline_ms
        self._expire(key)
        return True

    # --- taking back -----------------------------------------------------------

    def taken(self) -> list[tuple[Any, ...]]:
        """How to take back what was done since the last time."""
        undo, self.undo = self.undo, []
        return undo

    def take_back(self, undo: list[tuple[Any, ...]]) -> None:
        """Take back what was done; the newest first, if more than once."""
        for step, *args in reversed(undo):
            step(*args)
        self.undo.clear()

    def _set_back(self, key: bytes, holder: Any, member: bytes, old: Any) -> None:
        if old is None:
            del holder[member]
        else:
            holder[member] = old
        if not holder:
            del self._values[key]

    def _forget(self, key: bytes) -> None:
        self._values.pop(key, None)
        self._deadlines_ms.pop(key, None)

    def _key_back(self, key: bytes, holder: Any, deadline_ms: int | None) -> None:
        self._values[key] = holder
        self._deadline_back(key, deadline_ms)

    def _deadline_back(self, key: bytes, deadline_ms: int | None) -> None:
        self._deadlines_ms.pop(key, None)
        if deadline_ms is not None:
            self._deadlines_ms[key] = deadline_ms

    def _remove(self, key: bytes) -> None:
        undo = self._key_back, key, self._values.pop(key), self._deadlines_ms.pop(key, None)
        self.undo.append(undo)

    def _expire(self, key: bytes) -> None:
        if self._deadlines_ms.get(key, self.now_ms + 1) <= self.now_ms:
            self._remove(key)


def walk(members: Iterable[bytes], cursor: bytes, count: int) -> tuple[bytes, list[bytes]]:
    """A page of members in the order of their checksums, and the next cursor.

    Members of one checksum come on one page, so a page may be longer.
    """
    try:
        start = int(cursor)
    except ValueError:
        raise ServerError("ERR invalid cursor") from None
    ranked = sorted((crc32(member) + 1, member) for member in members)
    page = [item for item in ranked if item[0] >= start]
    if len(page) <= count:
        return b"0", [member for _, member in page]
    following = page[count][0]
    here = [member for rank, member in page if rank < following]
    if here:
        return b"%d" % following, here
    same = [member for rank, member in page if rank == following]
    return b"%d" % (following + 1), same


@cache
def glob(pattern: bytes) -> re.Pattern[bytes]:
    """A glob pattern as the server reads it: ``*``, ``?``, ``[a-c]``, ``[^a]``, backslash."""
    out, at = b"", 0
    while at < len(pattern):
        char = pattern[at : at + 1]
        at += 1
        if char == b"*":
            out += b".*"
        elif char == b"?":
            out += b"."
        elif char == b"\\" and at < len(pattern):
            out += re.escape(pattern[at : at + 1])
            at += 1
        elif char == b"[":
            inside = re.match(rb"(\^?)((?:\\.|[^\]])*)(\]|$)", pattern[at:], re.S)
            assert inside is not None
            at += inside.end()
            ranges = re.sub(rb"([\[&|~^])", rb"\\\1", inside.group(2))
            if ranges:
                out += b"[" + inside.group(1) + ranges + b"]"
            else:
                out += b"." if inside.group(1) else b"(?!)"
        else:
            out += re.escape(char)
    return re.compile(out, re.S)
