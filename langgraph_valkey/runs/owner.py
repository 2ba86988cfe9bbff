"""The process as the registry knows it: the owner of the runs it executes.

It says that it lives, for a while at a time. Once it has fallen silent for longer than
it said, others may take its runs over; if it was only slow, the fence keeps what it
then commits out.

What it could not tell the registry of its attempts, since that was away, it tells
later: else its runs would pass for being executed as long as it lives.

One that leaves begins nothing more: nobody says any longer that it lives, so others
would execute the same runs beside it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from langgraph_valkey.errors import ConfigurationError
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
        is_leaving: Whether it leaves, and begins nothing more. A child of one that does is
            born so.
        has_left: Whether it has left, and waits for no run any more: what it used may be
            closed under those that are executed still.
    """

    def __init__(self, alive_s: float) -> None:
        self.alive_s = alive_s
        self.is_leaving = False
        self.has_left = False
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew: the parent goes on under its own name."""
        self.id = os.urandom(12).hex()
        self._lock = threading.Lock()
        self._active: set[str] = set()
        self._recoveries = 0
        self._untold: dict[Fence, RunEnd | None] = {}
        self._said_s: float | None = None

    @property
    def active(self) -> tuple[str, ...]:
        """The runs that are executed here now."""
        with self._lock:
            return tuple(self._active)

    @property
    def is_busy(self) -> bool:
        """Whether anything is executed, or looked for, here now."""
        with self._lock:
            return bool(self._active or self._recoveries)

    def begin(self, run_id: str) -> bool:
        """A run is about to be executed here; False if it is already.

        Raises:
            ConfigurationError: This is leaving.
        """
        with self._lock:
            self._check_stays()
            return self._enter(run_id)

    def _enter(self, run_id: str) -> bool:
        is_new = run_id not in self._active
        self._active.add(run_id)
        return is_new

    def _check_stays(self) -> None:
        if self.is_leaving:
            raise ConfigurationError("these runs were closed, and none is begun: make a new object")

    def end(self, run_id: str) -> None:
        """It is not executed here any more."""
        with self._lock:
            self._active.discard(run_id)

    @contextmanager
    def recovering(self) -> Iterator[None]:
        """Runs are looked for, that may then be executed here.

        Raises:
            ConfigurationError: This is leaving.
        """
        with self._lock:
            self._check_stays()
            self._recoveries += 1
        try:
            yield
        finally:
            with self._lock:
                self._recoveries -= 1

    def turn_away(self) -> None:
        """It leaves: from now on nothing is begun here."""
        with self._lock:
            self.is_leaving = True

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
            with self._lock:
                is_free = self._enter(fence.run_id)
            if not is_free:
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
        """Say that it lives, if that is due, and it has not left."""
        if self.is_due and not self.has_left:
            said_s = time.monotonic()
            await primary.alive(self.id, self.alive_s)
            self._said_s = said_s

    async def leave(self, primary: Primary) -> None:
        """Say that it leaves, if it ever said that it lives."""
        if self._said_s is not None:
            self._said_s = None
            await primary.alive(self.id, 0.0)
