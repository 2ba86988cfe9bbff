"""A circuit breaker: whoever has failed several times in a row is left alone for a while.

Who waits for a deadline at each request, while a shard is away, holds up everything that
hangs on it. After a few failures the breaker is *open*: nothing is asked. When its time is
over, one request is let through; if that succeeds it closes, else it stays open for longer.

Requests that were under way together when something went wrong fail together, for one
reason. So they count once: many at a time must not be what opens it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from langgraph_valkey.fork import renew_after_fork

FAILURES_MOST = 5
"""Failures in a row that open it: one or two may be chance, or a failover's end."""

OPEN_FIRST_S, OPEN_MOST_S = 0.5, 5.0
"""For how long it is open: the first time, and at most, doubling. A failover takes about
1.5 s; a server that comes back must not be left alone for long."""


class Breaker:
    """One breaker; safe to use from many threads.

    Args:
        draw: Draws a number between two bounds, so that processes don't all try at once.
    """

    def __init__(self, draw: Callable[[float, float], float] = random.uniform) -> None:
        self._draw = draw
        self._failures = 0
        self._open_s = OPEN_FIRST_S
        self._until_s: float | None = None
        self._counted_s = float("-inf")
        self._probing = False
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin with a free lock: the parent's may be held by nobody here."""
        self._lock = threading.Lock()

    def allows(self, now_s: float) -> bool:
        """Whether to try now. Whoever is let through has to say how it ended."""
        if not self._failures:
            return True
        with self._lock:
            if self._until_s is None:
                return True
            if now_s < self._until_s:
                return False
            # One at a time; a probe that never tells is given up after as long again.
            self._until_s = now_s + self._open_s
            self._probing = True
            return True

    def succeeded(self, now_s: float) -> None:  # noqa: ARG002 - as `failed`
        """It worked: closed."""
        if self._failures:
            with self._lock:
                self._failures = 0
                self._open_s = OPEN_FIRST_S
                self._until_s = None
                self._probing = False

    def dropped(self, now_s: float) -> None:
        """It was not tried after all, or failed for another reason: the next one may try."""
        if self._failures:
            with self._lock:
                if self._probing:
                    self._probing = False
                    self._until_s = now_s

    def failed(self, now_s: float, began_s: float | None = None) -> None:
        """It did not.

        Args:
            now_s: The time.
            began_s: When it began: it counts for nothing if another one failed since.
        """
        with self._lock:
            if began_s is not None and began_s < self._counted_s:
                return
            self._counted_s = now_s
            self._failures += 1
            if self._failures < FAILURES_MOST:
                return
            if self._until_s is not None and not self._probing:
                return  # It was under way when the breaker opened.
            if self._probing:
                self._open_s = min(2 * self._open_s, OPEN_MOST_S)
            self._probing = False
            self._until_s = now_s + self._draw(self._open_s / 2, self._open_s)
