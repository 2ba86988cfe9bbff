"""Where one request, or one reply, ends and the next begins.

A proxy gets bytes as the network cuts them. Both classes here take such pieces and
give back whole requests or replies, as they came, without reading more of them
than their lengths: that is enough to know what a request does, and which reply
belongs to which request.

Replies may be of either protocol (RESP2, RESP3): a value that holds others is
walked by counting how many are still to come.
"""

from __future__ import annotations

from typing import NamedTuple

END = b"\r\n"

_COUNT = ord("*")
_SIZED = frozenset(b"$=!")
_LISTS = frozenset(b"*~>")
_MAP, _ATTRIBUTE = ord("%"), ord("|")


class Request(NamedTuple):
    """One command.

    Attributes:
        name: Its first word, in capitals.
        raw: All of it, as it came.
    """

    name: bytes
    raw: bytes


class Requests:
    """Cuts what a client sends into requests."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed = 0

    def feed(self, data: bytes) -> list[Request]:
        """Take what came; return the requests that it completed.

        Raises:
            ValueError: It is no protocol of a Valkey server.
        """
        self._buffer += data
        found: list[Request] = []
        start = 0
        while len(self._buffer) >= max(start + 1, self._needed):
            name, end = self._next(start)
            if end == 0:
                break
            if name:
                found.append(Request(name.upper(), bytes(self._buffer[start:end])))
            start = end
        del self._buffer[:start]
        self._needed = max(0, self._needed - start)
        return found

    def _next(self, start: int) -> tuple[bytes, int]:
        """Name and end of the request that starts there; end 0: not all of it came."""
        buffer = self._buffer
        line = buffer.find(END, start)
        if line < 0:
            return b"", 0
        if buffer[start] != _COUNT:
            words = bytes(buffer[start:line]).split()
            return (words[0] if words else b""), line + 2
        at, name = line + 2, b""
        for index in range(int(buffer[start + 1 : line])):
            line = buffer.find(END, at)
            if line < 0:
                return b"", 0
            end = line + 2 + int(buffer[at + 1 : line])
            if end + 2 > len(buffer):
                self._needed = end + 2
                return b"", 0
            if index == 0:
                name = bytes(buffer[line + 2 : end])
            at = end + 2
        return name, at


class Replies:
    """Cuts what a server sends into replies."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        self._to_come = 1

    def feed(self, data: bytes) -> list[bytes]:
        """Take what came; return the replies that it completed.

        Raises:
            ValueError: It is no protocol of a Valkey server.
        """
        self._buffer += data
        found: list[bytes] = []
        start = 0
        while self._whole():
            found.append(bytes(self._buffer[start : self._at]))
            start, self._to_come = self._at, 1
        del self._buffer[:start]
        self._at -= start
        return found

    def _whole(self) -> bool:
        """Walk on; return whether the reply under way has come to its end."""
        buffer = self._buffer
        while self._to_come:
            line = buffer.find(END, self._at)
            if line < 0:
                return False
            kind, end, inside = buffer[self._at], line + 2, 0
            if kind in _SIZED:
                size = int(buffer[self._at + 1 : line])
                end += size + 2 if size >= 0 else 0
                if end > len(buffer):
                    return False
            elif kind in _LISTS:
                inside = max(0, int(buffer[self._at + 1 : line]))
            elif kind == _MAP:
                inside = 2 * int(buffer[self._at + 1 : line])
            elif kind == _ATTRIBUTE:
                # What it says is about the value behind it, which is the reply.
                inside = 2 * int(buffer[self._at + 1 : line]) + 1
            self._at = end
            self._to_come += inside - 1
        return True
