"""Single flight: of many who miss the same answer at once, one computes it.

In a process the first one leads and the others wait for it. Among processes the leader
claims the computation in the cache cluster, for a time; whoever does not get the claim
looks for the answer again and again. Nobody is handed another one's result directly: all of
them look it up when it is there, so that it has passed the fence and is still current.

A leader that fails sets the others free. One that is not heard of is left alone when its
time is over, and another one leads: a call that hangs must not hang all that come after it.
And nobody waits for what can't go on meanwhile: a computation that asks for itself, or one
that runs on the event loop which the caller holds up.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.link import Link
from rag_cache.operations import calls
from rag_cache.partitions import Partition

PAUSE_FIRST_S, PAUSE_MOST_S = 0.002, 0.05
"""Pauses, doubling, of those who wait in the leader's process: they only look at memory."""

LOOK_FIRST_S, LOOK_MOST_S = 0.01, 0.25
"""The same for those in other processes, who ask the server."""

CLAIMS = 2
"""For how many claims' time a process waits: a holder that died costs one, and whoever gets
the claim then may take as long."""

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Flight:
    """A computation under way in this process.

    Attributes:
        entry_id: Of which entry.
        holder: By what name its claim is held.
        has_landed: It has ended.
        failed: It has failed.
        is_forsaken: It is not waited for any more.
        may_hold: It may hold the claim.
        due_s: Until when it is waited for, by the links' clock.
        thread: The thread on which it runs.
        link: The link of its face.
    """

    entry_id: str
    holder: bytes = field(default_factory=lambda: os.urandom(16))
    has_landed: bool = False
    failed: bool = False
    is_forsaken: bool = False
    may_hold: bool = False
    due_s: float = float("inf")
    thread: int = field(default_factory=threading.get_ident)
    link: Link | None = None


_led: ContextVar[tuple[Flight, ...]] = ContextVar("rag_cache_flights_led", default=())
"""The flights in whose computations this code runs."""


class Flights:
    """Computations under way; safe to use from many threads and tasks.

    Args:
        claim_s: For how long a claim lasts, and a leader is waited for.
    """

    def __init__(self, claim_s: float) -> None:
        self._claim_s = claim_s
        self._under_way: dict[str, Flight] = {}
        self._forsaken: dict[str, Flight] = {}
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew: those under way land in the parent."""
        self._under_way = {}
        self._forsaken = {}
        self._lock = threading.Lock()

    def board(self, entry_id: str) -> tuple[Flight, bool]:
        """The flight for an entry, and whether the caller leads it."""
        with self._lock:
            flight = self._under_way.get(entry_id)
            if flight is not None:
                return flight, False
            flight = Flight(entry_id)
            former = self._forsaken.pop(entry_id, None)
            if former is not None:  # Which has the claim of this process.
                flight.holder = former.holder
            self._under_way[entry_id] = flight
        _led.set((*_led.get(), flight))
        return flight, True

    def land(self, flight: Flight, *, failed: bool) -> None:
        """The leader's computation has ended."""
        entry_id = flight.entry_id
        with self._lock:
            flight.failed = failed
            flight.has_landed = True
            if self._under_way.get(entry_id) is flight:
                del self._under_way[entry_id]
            if self._forsaken.get(entry_id) is flight:
                del self._forsaken[entry_id]
        _led.set(tuple(each for each in _led.get() if each is not flight))

    async def wait(self, flight: Flight, link: Link) -> None:
        """Wait in the leader's process until it has landed, or for as long as makes sense."""
        pause_s = PAUSE_FIRST_S
        while not (flight.has_landed or flight.is_forsaken):
            if _holds_up(flight, link) or link.now() >= flight.due_s:
                self._forsake(flight)
                return
            await link.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MOST_S)

    def _forsake(self, flight: Flight) -> None:
        """Let another one lead."""
        with self._lock:
            if self._under_way.get(flight.entry_id) is flight:
                del self._under_way[flight.entry_id]
                self._forsaken[flight.entry_id] = flight
            flight.is_forsaken = True

    async def claim(
        self,
        flight: Flight,
        link: Link,
        home: Partition,
        look: Callable[[], Awaitable[T | None]],
    ) -> T | None:
        """Claim the computation among processes, or get what another one has computed.

        Args:
            flight: The caller's, which leads in this process.
            link: To the cache cluster.
            home: Partition of the entry.
            look: Looks for the entry.

        Returns:
            What `look` found; None if the caller is to compute.
        """
        flight.link = link
        until_s = link.now() + CLAIMS * self._claim_s
        flight.due_s = until_s + self._claim_s
        try:
            return await self._claim(flight, link, home, look, until_s)
        finally:
            flight.due_s = link.now() + self._claim_s

    async def _claim(
        self,
        flight: Flight,
        link: Link,
        home: Partition,
        look: Callable[[], Awaitable[T | None]],
        until_s: float,
    ) -> T | None:
        pause_s = LOOK_FIRST_S
        call = calls.claim(
            home, flight.entry_id, flight.holder, max(1, round(self._claim_s * 1000))
        )
        while True:
            flight.may_hold = True
            try:
                [is_mine] = await link.send([call])
            except LanggraphValkeyError:
                return None  # Who can't ask computes.
            flight.may_hold = bool(is_mine)
            if is_mine or link.now() >= until_s:
                # What another one stored between our miss and our claim is there now.
                return await look()
            await link.sleep(pause_s)
            pause_s = min(2 * pause_s, LOOK_MOST_S)
            found = await look()
            if found is not None:
                return found

    async def give_back(self, flight: Flight, link: Link, home: Partition) -> None:
        """Give the claim back, so that nobody waits for its end."""
        if not flight.may_hold:
            return
        try:
            await link.send([calls.claim(home, flight.entry_id, flight.holder, 0)])
        except LanggraphValkeyError:
            return  # It ends by itself.


def _holds_up(flight: Flight, link: Link) -> bool:
    """Whether the flight can't land before this caller returns.

    Either this code was called by its computation. Or both run on one thread and on
    different faces: then one of them blocks the loop of the other.
    """
    is_on_thread = flight.thread == threading.get_ident()
    return flight in _led.get() or (is_on_thread and flight.link is not link)
