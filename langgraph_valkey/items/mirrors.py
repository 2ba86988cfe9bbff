"""All mirrors of a process: of the prefixes that it searched last, as far as there is room."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.items.mirror import Mirror

LARGE_S = 300.0
"""For how long it counts that a prefix had no room: to find that out takes reading as much
as there is room for."""

LARGE_MOST = 1_000
"""Prefixes of which that is remembered."""


class Mirrors:
    """All mirrors of a process, bounded together; the one used longest ago goes first.

    Args:
        dimension: Numbers in each vector; None where nothing is embedded.
        rows_most: How many items they may hold together.
        bytes_most: About how many bytes they may take together.
    """

    def __init__(self, dimension: int | None, *, rows_most: int, bytes_most: int) -> None:
        self.dimension = dimension
        self.rows_most = rows_most
        self.bytes_most = bytes_most
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew: the lock may be held by nobody."""
        self._lock = threading.Lock()
        self._of: OrderedDict[bytes, Mirror] = OrderedDict()
        self._sizes: dict[bytes, tuple[int, int]] = {}
        self._rows = self._bytes = 0
        self._large: OrderedDict[bytes, float] = OrderedDict()

    def of(self, prefix: bytes) -> Mirror:
        """The mirror of a prefix, by its name."""
        with self._lock:
            mirror = self._of.get(prefix)
            if mirror is None:
                mirror = self._of[prefix] = Mirror(self.dimension)
            self._of.move_to_end(prefix)
            return mirror

    def has_room(self, rows: int, nbytes: int) -> bool:
        """Whether so much may be held beneath one prefix."""
        return rows <= self.rows_most and nbytes <= self.bytes_most

    def make_room(self, used: Iterable[bytes]) -> None:
        """Drop the mirrors used longest ago, but never the last one used.

        Args:
            used: The prefixes whose mirrors may have another size by now. Only these are
                looked at: there may be thousands of others.
        """
        with self._lock:
            for prefix in used:
                self._count(prefix, self._of.get(prefix))
            while len(self._of) > 1 and not self.has_room(self._rows, self._bytes):
                prefix, _ = self._of.popitem(last=False)
                self._count(prefix, None)

    def _count(self, prefix: bytes, mirror: Mirror | None) -> None:
        rows, nbytes = self._sizes.pop(prefix, (0, 0))
        self._rows -= rows
        self._bytes -= nbytes
        if mirror is not None:
            rows, nbytes = self._sizes[prefix] = len(mirror), mirror.nbytes
            self._rows += rows
            self._bytes += nbytes

    def is_large(self, prefix: bytes, now_s: float) -> bool:
        """Whether there was no room for all beneath a prefix, some time ago."""
        return now_s < self._large.get(prefix, float("-inf"))

    def too_large(self, prefix: bytes, now_s: float) -> None:
        """Note that there is no room for all beneath a prefix, and drop what is held of it."""
        with self._lock:
            self._of.pop(prefix, None)
            self._count(prefix, None)
            self._large[prefix] = now_s + LARGE_S
            self._large.move_to_end(prefix)
            if len(self._large) > LARGE_MOST:
                self._large.popitem(last=False)
