"""When each primary last answered, accepted a write, or began to refuse them."""

from __future__ import annotations

from langgraph_valkey.loss_window.watermark import NOTHING_YET

NEWS_S = 0.005
"""Two signs of one primary within this time are one."""


class Pulse:
    """Signs of life, by primary, in seconds of a monotonic clock; its owner locks."""

    def __init__(self) -> None:
        self._heard_s: dict[bytes, float] = {}
        self._accepted_s: dict[bytes, float] = {}
        self._rejecting_s: dict[bytes, float] = {}

    def heard(self, identity: bytes, now_s: float) -> None:
        """It answered."""
        self._heard_s[identity] = now_s

    def is_news(self, identity: bytes, now_s: float) -> bool:
        """Whether it is worth noting that it accepted a write now."""
        return now_s - self._accepted_s.get(identity, NOTHING_YET) >= NEWS_S

    def accepted(self, identity: bytes, now_s: float) -> None:
        """It accepted a write."""
        self._heard_s[identity] = self._accepted_s[identity] = now_s
        if self._rejecting_s:
            self._rejecting_s.pop(identity, None)

    def rejected(self, identity: bytes, now_s: float) -> None:
        """It refused a write."""
        self._rejecting_s.setdefault(identity, now_s)

    def replaced(self, identity: bytes) -> None:
        """Another primary answers in its place."""
        self._rejecting_s.pop(identity, None)

    def silent_s(self, identity: bytes, now_s: float) -> float:
        """For how long it has not answered."""
        return now_s - self._heard_s.get(identity, NOTHING_YET)

    def idle_s(self, identity: bytes, now_s: float) -> float:
        """For how long it has not accepted a write."""
        return now_s - self._accepted_s.get(identity, NOTHING_YET)

    def rejecting_s(self, identity: bytes, now_s: float) -> float | None:
        """For how long it has been refusing writes; None if it is not."""
        since_s = self._rejecting_s.get(identity)
        return None if since_s is None else now_s - since_s
