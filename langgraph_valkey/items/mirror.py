"""What a process has at hand of the items beneath a prefix.

A *mirror* holds them parsed once and in the order of results: namespaces by when they were
born, items within them by when they were first put. It is made of a *part* for each bucket,
and a part is as current as the news that it took last. So before a search each bucket is
asked for what is new since then; that is little, and mostly nothing.

A part is of one primary and one life of its bucket. Where news come from others, they tell
everything anew, and what was known is dropped.

The server expires items without a word. A mirror knows when each would expire, and compares
that with the server's clock as the news told it. But a deadline may have been put off by who
read the item; so what looks expired is asked for before it is left out (`Mirror.overdue`).
"""

from __future__ import annotations

import heapq
import threading
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.items.fields import Fields
from langgraph_valkey.items.filters import Filter
from langgraph_valkey.items.records import Record
from langgraph_valkey.items.telling import NOWHERE, Basis, Name, Unreadable
from langgraph_valkey.stored.codec import Damaged
from langgraph_valkey.vectors.matrix import Matrix

FEW = 64
"""Changes that are put in their places one by one; more are sorted in."""

ROW_BYTES = 1_000
"""About what a row takes besides its record and the value in it: objects, keys, places."""

EMPTY_BYTES = 10_000
"""About what a mirror takes that holds nothing."""

VALUE_TIMES = 4
"""A value that was read takes about so many times the bytes of its stored form."""


class Changes(NamedTuple):
    """What a bucket told.

    Attributes:
        basis: Of whom, and up to when.
        since: From where on; `NOWHERE` where it told everything.
        records: Items by their names; None for those that are gone.
        server_ms: The server's clock.
    """

    basis: Basis
    since: Basis
    records: Mapping[Name, Record | None]
    server_ms: int


class Row:
    """An item in a mirror.

    Attributes:
        name: Its name.
        record: What was read.
        order: Its place in results.
        paths: Of its vectors, as far as they can be compared.
        value: Its value, for filters alone: never to be handed out. None until it is read.
        size: About how many bytes it takes.
    """

    __slots__ = ("name", "order", "paths", "record", "size", "value")

    def __init__(self, name: Name, record: Record, dimension: int | None) -> None:
        self.name = name
        self.record = record
        self.order = order_of(name, record)
        self.value: Any = None
        self.paths = comparable(record, dimension)
        bare = len(record.body) - sum(map(len, record.vectors.values()))
        self.size = ROW_BYTES + len(record.body) + VALUE_TIMES * bare


def order_of(name: Name, record: Record) -> tuple[int, bytes, int, bytes]:
    """An item's place in results. Ties are broken, so that the order is one."""
    return record.namespace_born, name[0], record.born, name[1]


def comparable(record: Record, dimension: int | None) -> list[str]:
    """Paths of the vectors that have a dimension. Others count as not embedded."""
    size = 4 * (dimension or 0)
    return [path for path, raw in record.vectors.items() if len(raw) == size]


_by_order = attrgetter("order")


class _Part:
    """The rows of one bucket."""

    __slots__ = ("basis", "ends", "rows", "server_ms")

    def __init__(self) -> None:
        self.basis = NOWHERE
        self.server_ms = 0
        self.rows: dict[Name, Row] = {}
        self.ends: list[tuple[int, Name]] = []
        """A heap of deadlines; some are of rows that are gone, or live longer by now."""

    def overdue(self) -> list[Row]:
        """What looks expired; it stays so until someone learned what became of it."""
        found = {}
        while self.ends and self.ends[0][0] <= self.server_ms:
            deadline_ms, name = heapq.heappop(self.ends)
            row = self.rows.get(name)
            if row is not None and row.record.deadline_ms == deadline_ms:
                found[name] = row
        for name, row in found.items():
            heapq.heappush(self.ends, (row.record.deadline_ms or 0, name))
        return list(found.values())


class Mirror:
    """The items beneath one prefix; safe to use from many threads.

    Args:
        dimension: Numbers in each vector; None where nothing is embedded.

    Attributes:
        lock: To be held by who reads the others.
        rows: In the order of results.
        matrix: Their vectors; None where nothing is embedded.
        flat: Rows with a vector of zeros, which has no direction.
    """

    lock: threading.RLock
    rows: list[Row]
    matrix: Matrix[Row] | None
    flat: dict[Name, Row]

    def __init__(self, dimension: int | None = None) -> None:
        self._dimension = dimension
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew: the lock may be held by nobody, and what it guards be half done."""
        self.lock = threading.RLock()
        self.rows = []
        self.matrix = None if self._dimension is None else Matrix(self._dimension)
        self.flat = {}
        self._parts: dict[str, _Part] = {}
        self._births: dict[bytes, int] = {}
        self._unread: dict[Name, Row] = {}
        self._fields = Fields()
        self._row_bytes = 0

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """About how many bytes all of it takes."""
        matrix = 0 if self.matrix is None else self.matrix.nbytes
        return EMPTY_BYTES + self._row_bytes + matrix

    def basis(self, bucket: str) -> Basis:
        """Of whom a bucket's part was told, and up to when."""
        part = self._parts.get(bucket)
        return part.basis if part is not None else NOWHERE

    def reaches(self, seen: Mapping[str, Basis]) -> bool:
        """Whether each of some buckets is known as far as was seen, or further."""
        return all(self.basis(bucket).reaches(basis) for bucket, basis in seen.items())

    def learn(self, bucket: str, told: Changes) -> bool:
        """Take what a bucket told, unless it is known already, or what was before is not.

        Returns:
            Whether what it told is known now; if not, it has to be asked anew.
        """
        with self.lock:
            part = self._parts.setdefault(bucket, _Part())
            if not part.basis.reaches(told.basis):
                if told.since == NOWHERE:
                    self._change(part, {**dict.fromkeys(part.rows), **told.records})
                    part.server_ms = 0  # It may be another server's clock.
                elif part.basis.reaches(told.since):
                    if told.records:
                        self._change(part, told.records)
                else:
                    return False
                part.basis = told.basis
            part.server_ms = max(part.server_ms, told.server_ms)
            return True

    def overdue(self) -> dict[str, list[Row]]:
        """Items that look expired, by their buckets."""
        with self.lock:
            found = {bucket: part.overdue() for bucket, part in self._parts.items() if part.ends}
            return {bucket: rows for bucket, rows in found.items() if rows}

    def settle(self, bucket: str, row: Row, record: Record | None) -> None:
        """Take what became of an item that looked expired; None if it is gone.

        If the item was told of meanwhile, that is newer, and stays.
        """
        with self.lock:
            part = self._parts.get(bucket)
            if part is None or part.rows.get(row.name) is not row:
                return
            if record is not None:
                record.namespace_born = row.record.namespace_born
            self._change(part, {row.name: record})

    def matching(self, wanted: Filter | None) -> Iterator[Row]:
        """The rows that match a filter, in their order; all without one.

        Raises:
            Unreadable: The value of one can't be read.
        """
        if wanted is None:
            return iter(self.rows)
        self.read_values()
        matches = wanted.matches
        some = self._fields.fewest(self.rows, wanted)
        return (row for row in some if matches(row.value))

    def read_values(self) -> None:
        """Read the values of all rows, for a filter.

        Raises:
            Unreadable: One can't be read.
        """
        while self._unread:
            name, row = next(iter(self._unread.items()))
            try:
                row.value = row.record.read_value()
            except Damaged as damage:
                raise Unreadable(name, damage) from damage
            del self._unread[name]
            self._fields.enter(row)

    # --- changing rows ---------------------------------------------------------------

    def _change(self, part: _Part, changes: Mapping[Name, Record | None]) -> None:
        removed, added = [], []
        for name, record in changes.items():
            row = part.rows.pop(name, None)
            if row is not None:
                self._leave(row)
                removed.append(row)
            if record is not None:
                row = part.rows[name] = Row(name, record, self._dimension)
                self._enter(row)
                added.append(row)
                if record.deadline_ms is not None:
                    heapq.heappush(part.ends, (record.deadline_ms, name))
        if self._moves(added) or len(removed) + len(added) > FEW:
            self._sort()
            return
        for row in removed:
            del self.rows[bisect_left(self.rows, row.order, key=_by_order)]
        for row in added:
            insort(self.rows, row, key=_by_order)

    def _enter(self, row: Row) -> None:
        self._unread[row.name] = row
        self._row_bytes += row.size
        if self.matrix is not None:
            for path in row.paths:
                vector = _numbers(row.record.vectors[path])
                try:
                    self.matrix.put((row.name, path), vector, row)
                except ValueError:  # It has no direction.
                    self.flat[row.name] = row

    def _leave(self, row: Row) -> None:
        if self._unread.pop(row.name, None) is None:
            self._fields.leave(row)
        self._row_bytes -= row.size
        self.flat.pop(row.name, None)
        if self.matrix is not None:
            for path in row.paths:
                self.matrix.remove((row.name, path))

    def _moves(self, added: Sequence[Row]) -> bool:
        """Whether a namespace turns out to stand elsewhere; if so, all its rows learn that."""
        moved = set()
        for row in added:
            namespace, born = row.name[0], row.record.namespace_born
            if self._births.setdefault(namespace, born) != born:
                self._births[namespace] = born
                moved.add(namespace)
        if moved:
            for row in self._all():
                if row.name[0] in moved:
                    row.record.namespace_born = self._births[row.name[0]]
                    row.order = order_of(row.name, row.record)
        return bool(moved)

    def _sort(self) -> None:
        self._fields.clear()
        self.rows = sorted(self._all(), key=_by_order)
        self._births = {row.name[0]: row.record.namespace_born for row in self.rows}

    def _all(self) -> Iterable[Row]:
        return (row for part in self._parts.values() for row in part.rows.values())


def _numbers(raw: bytes) -> Any:
    import numpy as np

    return np.frombuffer(raw, "<f4")
