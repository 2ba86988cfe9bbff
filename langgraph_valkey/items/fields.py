"""Which rows of a mirror have a value in a field: what most filters ask.

A field is indexed when a filter first asks for one of its values. Rows of a value stand in
the order of results. What they have to be equal to can be looked up, so it has a hash; a list
or an object has none, and is never equal to it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Protocol, TypeVar

FIELDS_MOST = 16
"""Fields of one mirror that are indexed, at about 100 bytes for each item."""


class Ordered(Protocol):
    """A row: `mirror.Row`."""

    value: Any

    @property
    def order(self) -> Any:
        """Its place in results."""
        ...


R = TypeVar("R", bound=Ordered)
_by_order = attrgetter("order")


class Fields:
    """The indexed fields of some rows, of which the values were read."""

    def __init__(self) -> None:
        self._of: dict[str, dict[Hashable, list[Any]]] = {}

    def clear(self) -> None:
        """Forget all."""
        self._of.clear()

    def fewest(self, rows: Sequence[R], equal: Iterable[tuple[str, Hashable]]) -> Sequence[R]:
        """All rows that can have these values, in their order, and maybe others.

        Args:
            rows: All there are, in their order.
            equal: Fields, and what they have to be equal to.
        """
        fewest = rows
        for field, value in equal:
            if field not in self._of and len(self._of) < FIELDS_MOST:
                self._of[field] = _indexed(rows, field)
            if field in self._of:
                having = self._of[field].get(value, ())
                fewest = min(fewest, having, key=len)
        return fewest

    def enter(self, row: Ordered) -> None:
        """A row was added, and its value read."""
        for field, index in self._of.items():
            value = row.value.get(field)
            if _has_hash(value):
                insort(index.setdefault(value, []), row, key=_by_order)

    def leave(self, row: Ordered) -> None:
        """A row was removed, of which the value had been read."""
        for field, index in self._of.items():
            value = row.value.get(field)
            if _has_hash(value):
                rows = index[value]
                del rows[bisect_left(rows, row.order, key=_by_order)]
                if not rows:
                    del index[value]


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
