"""What a process has at hand of each scope: its entries' questions, as vectors.

A *shelf* is one scope's matrix. It holds what the server told: each answer brings what is
new since the last one, and a verdict on entries that are gone or stale takes them off. So a
shelf is as current as the last answer, without any message from process to process, and
what it does not know yet costs a hit, never a wrong one: the server decides what is served.

Shelves together have a bounded number of rows; the one that was used longest ago goes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.vectors.matrix import ROWS_FIRST, Matrix
from rag_cache.entries import Card, Corrupt

if TYPE_CHECKING:
    import numpy as np

SHELVES_MOST = 20_000
"""Shelves of a process, most of them empty: each conversation may be a scope of its own. An
empty one takes about 2 KB."""

LOOK_EVERY = 16
"""Every so many times that something was put on a shelf all of them are counted, which takes
a while where there are many."""

NOWHERE = (b"", b"0")
"""The nonce and the counter of one who knows nothing of a scope."""


class Filed(NamedTuple):
    """An entry on a shelf."""

    entry_id: str
    card: Card


class Shelf:
    """One scope's entries at hand; safe to use from many threads.

    Args:
        dimension: Of the embeddings.

    Attributes:
        is_whole: Whether all that the server has is here, for each of its partitions.
    """

    def __init__(self, dimension: int) -> None:
        self._matrix: Matrix[Filed] = Matrix(dimension)
        self._dimension = dimension
        self._known: dict[int, tuple[bytes, bytes]] = {}
        self._whole: set[int] = set()
        self._heard_s: dict[int, float] = {}
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew: a lock may be held by nobody, and the matrix may have lost its rows."""
        self._known, self._whole, self._heard_s = {}, set(), {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._matrix)

    @property
    def rows(self) -> int:
        """What it counts for: a few rows take the memory of some more."""
        return max(len(self._matrix), min(self._matrix.capacity, ROWS_FIRST))

    def __contains__(self, entry_id: str) -> bool:
        return self._matrix.get(entry_id) is not None

    def known(self, number: int) -> tuple[bytes, bytes]:
        """Up to where a partition is known: its nonce and counter."""
        return self._known.get(number, NOWHERE)

    def is_whole(self, numbers: Iterable[int]) -> bool:
        """Whether all that these partitions have is here."""
        return self._whole.issuperset(numbers)

    def wants_news(self, number: int, now_s: float, every_s: float) -> bool:
        """Whether a partition was not heard of for some time."""
        return now_s - self._heard_s.get(number, float("-inf")) >= every_s

    def search(self, vector: np.ndarray[Any, Any], count: int) -> list[tuple[float, Filed]]:
        """The nearest entries, the best first, with their cosines."""
        return [(found.score, found.payload) for found in self._matrix.search(vector, count)]

    def drop(self, entry_id: str) -> None:
        """Take an entry off."""
        self._matrix.remove(entry_id)

    def learn(
        self, number: int, nonce: bytes, news: Sequence[Sequence[bytes]], most: int, now_s: float
    ) -> bool:
        """Take what an answer told of a partition.

        Args:
            number: Which one.
            nonce: Its nonce now.
            news: Of each new entry: counter, id, card, vector; oldest first.
            most: How many were asked for: fewer mean that there are no more.
            now_s: When it was asked.

        Returns:
            Whether anything was put on the shelf.
        """
        added = [
            self.put(raw_id.decode(errors="replace"), card, vector)
            for _, raw_id, card, vector in news
        ]
        with self._lock:
            self._heard_s[number] = now_s
            former, counter = self._known.get(number, NOWHERE)
            if former != nonce:
                counter = b"0"
                self._whole.discard(number)
            if news:
                counter = max(counter.zfill(16), news[-1][0])
            self._known[number] = (nonce, counter)
            if len(news) < most:
                self._whole.add(number)
        return any(added)

    def put(self, entry_id: str, raw_card: bytes, raw_vector: bytes) -> bool:
        """Put an entry on the shelf, if it is whole; whether it was."""
        import numpy as np

        if len(raw_vector) != 4 * self._dimension:
            return False  # It has none, or has gone meanwhile.
        try:
            card = Card.unpack(raw_card)
            self._matrix.put(entry_id, np.frombuffer(raw_vector, "<f4"), Filed(entry_id, card))
        except (Corrupt, ValueError):
            return False
        return True


class Shelves:
    """All shelves of a process.

    Args:
        rows_most: How many entries they may hold together.
    """

    def __init__(self, rows_most: int) -> None:
        self._rows_most = rows_most
        self._looks = 0
        self._of: OrderedDict[tuple[str, int], Shelf] = OrderedDict()
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew: a lock may be held by nobody."""
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._of)

    def of(self, key: str, dimension: int) -> Shelf:
        """The shelf of a scope, for embeddings of a dimension."""
        name = (key, dimension)
        with self._lock:
            shelf = self._of.get(name)
            if shelf is None:
                shelf = self._of[name] = Shelf(dimension)
                if len(self._of) > SHELVES_MOST:
                    self._of.popitem(last=False)
            self._of.move_to_end(name)
            return shelf

    def has_room(self, shelf: Shelf) -> bool:
        """Whether a shelf may grow by itself."""
        return len(shelf) < self._rows_most

    def make_room(self) -> None:
        """Drop the ones used longest ago, but never the last one used."""
        with self._lock:
            self._looks += 1
            if self._looks % LOOK_EVERY:
                return
            rows = sum(shelf.rows for shelf in self._of.values())
            while rows > self._rows_most and len(self._of) > 1:
                _, shelf = self._of.popitem(last=False)
                rows -= shelf.rows
