"""What a bucket tells of the items beneath a prefix, page by page.

Each page is of one primary and one life of the bucket. If that changes between two pages, or
since the watermark that was asked by, what was told counts for nothing, and the bucket is
asked from the start. So whoever takes all pages has something that was true on one server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

from langgraph_valkey.items import calls, records
from langgraph_valkey.items.calls import FROM_THE_START, Names, News
from langgraph_valkey.items.records import Record
from langgraph_valkey.keys import ThreadKeys
from langgraph_valkey.link import Call
from langgraph_valkey.operations import Answer
from langgraph_valkey.stored.codec import Codec, Damaged

FIRST_BYTES, PAGE_BYTES = 64 * 1024, 512 * 1024
"""Bytes in the first page, mostly the only one, and in each that follows it: the first one
must not count as large, and travel over a connection that may have to be opened for it."""

PAGE_ITEMS = 500
"""Items in one page: a script takes about 5 us for each."""

PAGE_NAMES = 5_000
"""Names of namespaces in one page."""


Name = tuple[bytes, bytes]
"""An item: the name of its namespace, and its key."""


class Unreadable(Damaged):
    """An item can't be read.

    Attributes:
        name: Which one.
    """

    def __init__(self, name: Name, damage: Damaged) -> None:
        super().__init__(str(damage))
        self.name = name


class Basis(NamedTuple):
    """Of whom something was told, and up to when.

    Attributes:
        identity: Which primary told it.
        nonce: Which life of the bucket it was.
        watermark: Up to when: what to ask by for what is new after it.
    """

    identity: bytes = b""
    nonce: bytes = b""
    watermark: bytes = FROM_THE_START

    def is_as(self, other: Basis) -> bool:
        """Whether both are of the same primary and life."""
        return self[:2] == other[:2]

    def reaches(self, other: Basis) -> bool:
        """Whether whoever was told this knows what the other told."""
        return self[:2] == other[:2] and self.watermark >= other.watermark


NOWHERE = Basis()
"""Of who knows nothing."""


class Page(Protocol):
    """A page: `News` or `Names`."""

    @property
    def cursor(self) -> bytes:
        """Where the next one begins; b"" if this was the last."""
        ...

    @property
    def watermark(self) -> bytes:
        """What to ask by for what is new after this."""
        ...

    @property
    def anew(self) -> bool:
        """Whether all is told from this page on."""
        ...


T = TypeVar("T", bound=Page)


class Telling(Generic[T]):
    """What one bucket tells.

    Args:
        ask: Asks for a page, by a watermark and a cursor.
        read: Reads what was answered.
        since: From where on to tell; `NOWHERE` for everything.

    Attributes:
        since: From where on it tells.
        basis: Of whom, and up to when: good once all is told.
        is_done: Whether all is told.
    """

    __slots__ = ("_ask", "_cursor", "_read", "basis", "is_done", "since")

    def __init__(
        self,
        ask: Callable[[bytes, bytes], Call],
        read: Callable[[Answer], T],
        since: Basis = NOWHERE,
    ) -> None:
        self._ask = ask
        self._read = read
        self._begin(since)

    def _begin(self, since: Basis) -> None:
        self.since = NOWHERE if since.watermark == FROM_THE_START else since
        self.basis = self.since
        self.is_done = False
        self._cursor = b""

    def call(self) -> Call:
        """What to ask for next."""
        return self._ask(self.since.watermark, self._cursor)

    def take(self, answer: Answer) -> T | None:
        """Take what was answered.

        Returns:
            A page. If it is told anew, pages before count for nothing. None if this one
            doesn't count either, and all is asked for again.
        """
        told = self._read(answer)
        basis = Basis(answer.identity, answer.standing.nonce, told.watermark)
        if told.anew:
            self._begin(NOWHERE)
        elif self.basis != NOWHERE and not basis.is_as(self.basis):
            self._begin(NOWHERE)
            return None
        self.basis = basis
        self._cursor = told.cursor
        self.is_done = not told.cursor
        return told


def news_of(keys: ThreadKeys, prefix: bytes, since: Basis = NOWHERE) -> Telling[News]:
    """What a bucket tells of the items beneath a prefix."""

    def ask(watermark: bytes, cursor: bytes) -> Call:
        bytes_most = PAGE_BYTES if cursor else FIRST_BYTES
        return calls.news(
            keys, prefix, watermark, cursor, bytes_most=bytes_most, items_most=PAGE_ITEMS
        )

    return Telling(ask, calls.read_news, since)


def names_of(keys: ThreadKeys, since: Basis = NOWHERE) -> Telling[Names]:
    """What a bucket tells of its namespaces."""

    def ask(watermark: bytes, cursor: bytes) -> Call:
        return calls.names(keys, watermark, cursor, names_most=PAGE_NAMES)

    return Telling(ask, calls.read_names, since)


def read(codec: Codec, news: News) -> dict[Name, Record | None]:
    """The items of a page by their names; None for those that are gone.

    Args:
        codec: The store's.
        news: The page.

    Raises:
        Unreadable: One of them is not what was stored.
    """
    return {
        (namespace, key): None if raw is None else record_of(codec, (namespace, key), raw)
        for namespace, key, raw in news.changes
    }


def record_of(codec: Codec, name: Name, raw: bytes) -> Record:
    """An item as a script gave it.

    Raises:
        Unreadable: It is not what was stored.
    """
    try:
        return records.unpack(codec, *name, raw)
    except Damaged as damage:
        raise Unreadable(name, damage) from damage
