"""The process as the registry knows it: the owner of the runs it executes.

It says that it lives, for a while at a time. Once it has fallen silent for longer than
it said, others may take its runs over; if it was only slow, the fence keeps what it
then commits out.

What it could not tell the registry of its attempts, since that was away, it tells
later: else its runs would pass for being executed as long as it lives.
"""

from __future__ import annotations

import os
import threading
import time

from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.primary.contract import Primary
from langgraph_valkey.primary.records import Fence, RunEnd

BEATS = 3
"""How often it says so in the time for which it is believed: one may fail."""


class Owner:
    """One process that executes runs.

    Args:
        alive_s: For how long it is believed to live after it said so.

    Attributes:
        id: As what the registry knows it; another one after a fork.
        has_left: Whether it has left, and waits for no run any more: what it used may be
            closed under those that are executed still.
    """

    def __init__(self, alive_s: float) -> None:
        self.alive_s = alive_s
        self.has_left = False
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew: the parent goes on under its own name."""
        self.id = os.urandom(12).hex()
        self._lock = threading.Lock()
        self._active: set[str] = set()
        self._untold: dict[Fence, RunEnd | None] = {}
        self._said_s: float | None = None

    @property
    def active(self) -> tuple[str, ...]:
        """The runs that are executed here now."""
        with self._lock:
            return tuple(self._active)

    def begin(self, run_id: str) -> bool:
        """A run is about to be executed here; False if it is already."""
        with self._lock:
            if run_id in self._active:
                return False
            self._active.add(run_id)
            return True

    def end(self, run_id: str) -> None:
        """It is not executed here any more."""
        with self._lock:
            self._active.discard(run_id)

    def tell_later(self, fence: Fence, end: RunEnd | None) -> None:
        """How an attempt ended could not be told; None if it was given up half-way."""
        with self._lock:
            self._untold[fence] = end

    def told(self, fence: Fence) -> None:
        """Nothing is to be told of this attempt (any more)."""
        with self._lock:
            self._untold.pop(fence, None)

    async def tell(self, primary: Primary) -> int:
        """Tell what could not be told before; of how many runs that was.

        Raises:
            Unreachable, OutcomeUnknown: It still can't be.
        """
        with self._lock:
            untold = list(self._untold.items())
        count = 0
        for fence, end in untold:
            if not self.begin(fence.run_id):
                continue  # It is executed again already.
            try:
                run = await primary.run(fence.run_id)
                # It may never have come to be recorded, or be another's.
                if run is not None and run.fence == fence and run.owner == self.id:
                    if end is None:
                        await primary.release_run(fence)
                    else:
                        await primary.end_run(fence, end)
                    count += 1
                self.told(fence)
            finally:
                self.end(fence.run_id)
        return count

    @property
    def silent_s(self) -> float | None:
        """How long ago it said that it lives; None if it never did."""
        return None if self._said_s is None else time.monotonic() - self._said_s

    @property
    def is_due(self) -> bool:
        """Whether it is time to say it again."""
        silent_s = self.silent_s
        return silent_s is None or silent_s >= self.alive_s / BEATS

    async def live(self, primary: Primary) -> None:
        """Say that it lives, if that is due."""
        if self.is_due:
            said_s = time.monotonic()
            await primary.alive(self.id, self.alive_s)
            self._said_s = said_s

    async def leave(self, primary: Primary) -> None:
        """Say that it leaves, if it ever said that it lives."""
        if self._said_s is not None:
            self._said_s = None
            await primary.alive(self.id, 0.0)
