"""What happened, in plain words, and with what was measured."""

from __future__ import annotations

import time
from typing import Any, Literal, TypeAlias

from examples.agent_app.hub import Hub

Level: TypeAlias = Literal["plain", "good", "warn", "bad"]

ENTRIES_MOST = 300


class Timeline:
    """All entries, oldest first.

    Args:
        hub: Who is told of each.

    Attributes:
        entries: As the page shows them.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._count = 0
        self.entries: list[dict[str, Any]] = []

    def add(self, kind: str, title: str, text: str, level: Level = "plain", **numbers: Any) -> None:
        """Add an entry.

        Args:
            kind: What sort of thing happened; tests and the page go by that.
            title: In a few words.
            text: In a sentence or two.
            level: How one should feel about it.
            **numbers: What was measured.
        """
        self._count += 1
        entry = {
            "number": self._count,
            "at": time.time(),
            "kind": kind,
            "title": title,
            "text": text,
            "level": level,
            "numbers": numbers,
        }
        self.entries.append(entry)
        del self.entries[:-ENTRIES_MOST]
        self._hub.tell("timeline", entry)


def counted(count: int, noun: str) -> str:
    """A number with its noun: ``1 order``, ``2 orders``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def size(count: int) -> str:
    """So many bytes, as one reads them."""
    if count < 1024:
        return counted(count, "byte")
    return f"{count / 1024:,.1f} KiB"
