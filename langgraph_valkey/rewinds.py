"""When to look for runs that were lost: after a failover, twice.

At once, for what died before; and again when a process that died together with the
primary counts as dead, which it does not before its last sign of life has run out.
"""

from __future__ import annotations

import threading
import time

from langgraph_valkey.fork import renew_after_fork

AGAIN = 1.2
"""When it is looked again, in times for which a process is believed to live."""


class Rewinds:
    """The recoveries that are due in one process; one at a time.

    Args:
        alive_s: For how long a process is believed to live after it said so.
    """

    def __init__(self, alive_s: float) -> None:
        self._alive_s = alive_s
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew: the parent looks for what it noticed."""
        self._lock = threading.Lock()
        self._due_s: list[float] = []
        self._under_way = threading.Lock()

    def failed_over(self) -> None:
        """A failover was noticed."""
        now_s = time.monotonic()
        with self._lock:
            self._due_s += [now_s, now_s + AGAIN * self._alive_s]

    def lost(self) -> None:
        """A run of this process was found to be lost."""
        with self._lock:
            self._due_s.append(time.monotonic())

    def begin(self) -> bool:
        """Whether a recovery is due; then it is under way until `end`."""
        now_s = time.monotonic()
        with self._lock:
            if all(due_s > now_s for due_s in self._due_s):
                return False
            if not self._under_way.acquire(blocking=False):
                return False  # Once more, when that one has ended.
            self._due_s = [due_s for due_s in self._due_s if due_s > now_s]
            return True

    def end(self) -> None:
        """The recovery has ended."""
        self._under_way.release()
