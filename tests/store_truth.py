"""What of a store's items must be there, and what may: the judge of its random stories."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from langgraph.store.base import Item

NAME = tuple[tuple[str, ...], str]


class Broken(AssertionError):
    """Something that was promised does not hold."""


@dataclass
class Told:
    """An operation that somebody was told of, or that was sent and may have been applied.

    Attributes:
        stamp: The server's; 0 if nobody knows it.
        value: None for a deletion.
        number: Of its call.
        by: Who sent it.
        ends_ms: When it expires, on the server's clock; 0 for never.
        excused: It need not be there: whoever knows of it died before it was durable, or
            its process does not know yet that the primary which took it had been replaced.
        created: The stamp of the item's first put.
        is_vague: It was seen, and nobody knows when it expires at the earliest.
        is_durable: Its process held it to be durable when it died.
        known_to: Processes that were told of it, or have read it.
        order: Of all that was sent.
    """

    stamp: int
    value: Any
    number: bytes
    by: str
    ends_ms: int = 0
    excused: bool = False
    created: int = 0
    is_vague: bool = False
    is_durable: bool = False
    known_to: set[str] = field(default_factory=set)
    order: int = 0


@dataclass
class Truth:
    """What was told of each item, and what may have been done to it beside."""

    acked: dict[NAME, list[Told]] = field(default_factory=dict)
    doubted: dict[NAME, list[Told]] = field(default_factory=dict)

    def best(self, name: NAME) -> Told | None:
        """What must be there at least."""
        sure = [told for told in self.acked.get(name, ()) if not told.excused]
        return max(sure, key=lambda told: told.stamp, default=None)

    def _doubted(self, name: NAME) -> list[Told]:
        """What may have been done, unless its process was told of something later."""
        last: dict[str, int] = {}
        for told in self.acked.get(name, ()):
            if not told.excused:
                last[told.by] = max(told.order, last.get(told.by, 0))
        return [each for each in self.doubted.get(name, ()) if each.order >= last.get(each.by, 0)]

    def judge(self, name: NAME, found: Item | None, clock_ms: int, who: str) -> None:
        """Whether a process may be given this."""
        best = self.best(name)
        maybe = [t for t in self.acked.get(name, ()) if t.excused] + self._doubted(name)
        newer = [
            told for told in maybe if best is None or not told.stamp or told.stamp > best.stamp
        ]
        if found is None:
            if best is None or best.value is None or 0 < best.ends_ms <= clock_ms or best.is_vague:
                return
            if not any(told.value is None or told.ends_ms for told in newer):
                raise Broken(f"{who}: {name} is missing, and should be {best}")
            return
        stamp = round(found.updated_at.timestamp() * 1e6)
        mine = [told for told in self.acked.get(name, ()) if told.stamp == stamp]
        if mine and mine[0].value != found.value:
            raise Broken(f"{who}: {name} is {found.value}, and was {mine[0]}")
        if mine and mine[0].created != round(found.created_at.timestamp() * 1e6):
            raise Broken(f"{who}: {name} was created at {found.created_at}, and was {mine[0]}")
        if mine and mine[0].ends_ms and mine[0].ends_ms < clock_ms - 1:
            raise Broken(f"{who}: {name} is back, though {mine[0]} has expired at {clock_ms}")
        if best is not None and stamp < best.stamp:
            raise Broken(f"{who}: {name} is as it was at {stamp}, before {best}")
        if not mine and not any(told.value == found.value for told in newer):
            raise Broken(f"{who}: {name} is {found.value}, which nobody put after {best}")
