"""Which rows of a mirror have a value in a field: what most filters ask.

A field is indexed when a filter first asks for one of its values. Rows of a value stand in
the order of results. What they have to be equal to can be looked up, so it has a hash; a list
or an object has none, and is never equal to it. Where numbers are compared, rows stand by these.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Hashable, Iterable, Iterator, Sequence
from operator import attrgetter, itemgetter
from typing import Any, Protocol, TypeVar

from langgraph_valkey.items.filters import Filter, number_of

FIELDS_MOST = 16
"""Fields of one mirror that are indexed, at about 100 bytes for each item."""

RANGE_FEW = 128
"""So many rows in a range are put in their order at once; of more, the first ones are found
sooner by looking at all."""


class Ordered(Protocol):
    """A row: `mirror.Row`."""

    value: Any

    @property
    def order(self) -> Any:
        """Its place in results."""
        ...


R = TypeVar("R", bound=Ordered)
_by_order = attrgetter("order")
_by_number, _by_place = itemgetter(0), itemgetter(0, 1)


class Fields:
    """The indexed fields of some rows, of which the values were read."""

    def __init__(self) -> None:
        self._of: dict[str, dict[Hashable, list[Any]]] = {}
        self._numbers: dict[str, list[tuple[float, Any, Any]]] = {}

    def clear(self) -> None:
        """Forget all."""
        self._of.clear()
        self._numbers.clear()

    def fewest(self, rows: Sequence[R], wanted: Filter) -> Sequence[R]:
        """All rows that can match a filter, in their order, and maybe others.

        Args:
            rows: All there are, in their order.
            wanted: The filter.
        """
        fewest = rows
        for field, value in wanted.equal:
            if field not in self._of and self._has_room:
                self._of[field] = _indexed(rows, field)
            if field in self._of:
                having = self._of[field].get(value, ())
                fewest = min(fewest, having, key=len)
        for field, least, most in wanted.between:
            if field not in self._numbers and self._has_room:
                self._numbers[field] = sorted(_numbered(rows, field), key=_by_place)
            if field in self._numbers:
                index = self._numbers[field]
                start = bisect_left(index, least, key=_by_number)
                end = bisect_right(index, most, lo=start, key=_by_number)
                if end - start < min(len(fewest), RANGE_FEW):
                    fewest = sorted((row for *_, row in index[start:end]), key=_by_order)
        return fewest

    @property
    def _has_room(self) -> bool:
        return len(self._of) + len(self._numbers) < FIELDS_MOST

    def enter(self, row: Ordered) -> None:
        """A row was added, and its value read."""
        for field, index in self._of.items():
            value = row.value.get(field)
            if _has_hash(value):
                insort(index.setdefault(value, []), row, key=_by_order)
        for field, places in self._numbers.items():
            for place in _numbered((row,), field):
                insort(places, place, key=_by_place)

    def leave(self, row: Ordered) -> None:
        """A row was removed, of which the value had been read."""
        for field, index in self._of.items():
            value = row.value.get(field)
            if _has_hash(value):
                rows = index[value]
                del rows[bisect_left(rows, row.order, key=_by_order)]
                if not rows:
                    del index[value]
        for field, places in self._numbers.items():
            for place in _numbered((row,), field):
                del places[bisect_left(places, _by_place(place), key=_by_place)]


def _numbered(rows: Iterable[R], field: str) -> Iterator[tuple[float, Any, R]]:
    """The rows that have a number in a field: that, their order, and they themselves."""
    for row in rows:
        number = number_of(row.value.get(field))
        if number is not None:
            yield number, row.order, row


def _indexed(rows: Iterable[R], field: str) -> dict[Hashable, list[R]]:
    index: dict[Hashable, list[R]] = {}
    for row in rows:
        value = row.value.get(field)
        if _has_hash(value):
            index.setdefault(value, []).append(row)
    return index


def _has_hash(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
