"""What the cache has spared, over all lives of the agent's process."""

from __future__ import annotations

from collections import Counter
from typing import Any


class Tally:
    """Counts that go on when the process that counts is another one."""

    def __init__(self) -> None:
        self._before = _nothing()
        self._now = _nothing()

    def counted(self, counts: dict[str, Any]) -> bool:
        """The process that lives now has counted this; whether that is news."""
        is_news = counts != self._now
        self._now = counts
        return is_news

    def ended(self) -> None:
        """That process has ended."""
        self._before, self._now = self.total, _nothing()

    @property
    def total(self) -> dict[str, Any]:
        """All lives together."""
        return {name: _sum(self._before[name], self._now[name]) for name in self._before}


def _sum(first: Any, second: Any) -> Any:
    if isinstance(first, dict):
        return dict(Counter(first) + Counter(second))
    return first + second


def _nothing() -> dict[str, Any]:
    return {
        "hits": {},
        "misses": {},
        "stale_refused": 0,
        "saved_s": 0.0,
        "saved_tokens": 0,
        "saved_money": 0.0,
    }
