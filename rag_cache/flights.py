"""Single flight: of many who miss the same answer at once, one computes it.

In a process the first one leads and the others wait for it. Among processes the leader
claims the computation in the cache cluster, for a time; whoever does not get the claim
looks for the answer again and again. Nobody is handed another one's result directly: all of
them look it up when it is there, so that it has passed the fence and is still current.

A leader that fails sets the others free, and each of them leads or waits once more, then
computes by itself: a broken computation must not make its callers wait in a row.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
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

T = TypeVar("T")


@dataclass(slots=True)
class Flight:
    """A computation under way in this process."""

    has_landed: bool = False
    failed: bool = False
    holder: bytes = field(default_factory=lambda: os.urandom(16))


class Flights:
    """Computations under way; safe to use from many threads and tasks.

    Args:
        claim_s: For how long a claim lasts.
    """

    def __init__(self, claim_s: float) -> None:
        self._claim_ms = round(claim_s * 1000)
        self._under_way: dict[str, Flight] = {}
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew: those under way land in the parent."""
        self._under_way = {}
        self._lock = threading.Lock()

    def board(self, entry_id: str) -> tuple[Flight, bool]:
        """The flight for an entry, and whether the caller leads it."""
        with self._lock:
            flight = self._under_way.get(entry_id)
            if flight is not None:
                return flight, False
            flight = self._under_way[entry_id] = Flight()
            return flight, True

    def land(self, entry_id: str, flight: Flight, *, failed: bool) -> None:
        """The leader's computation has ended."""
        with self._lock:
            flight.failed = failed
            flight.has_landed = True
            if self._under_way.get(entry_id) is flight:
                del self._under_way[entry_id]

    async def wait(self, flight: Flight, link: Link) -> None:
        """Wait in the leader's process until it has landed."""
        pause_s = PAUSE_FIRST_S
        while not flight.has_landed:
            await link.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MOST_S)

    async def claim(
        self,
        flight: Flight,
        link: Link,
        home: Partition,
        entry_id: str,
        look: Callable[[], Awaitable[T | None]],
    ) -> T | None:
        """Claim the computation among processes, or get what another one has computed.

        Args:
            flight: The caller's, which leads in this process.
            link: To the cache cluster.
            home: Partition of the entry.
            entry_id: Its name.
            look: Looks for the entry.

        Returns:
            What `look` found; None if the caller is to compute.
        """
        pause_s = LOOK_FIRST_S
        until_s = link.now() + self._claim_ms / 1000
        while True:
            try:
                [is_mine] = await link.send(
                    [calls.claim(home, entry_id, flight.holder, self._claim_ms)]
                )
            except LanggraphValkeyError:
                return None  # Who can't ask computes.
            if is_mine or link.now() >= until_s:
                # What another one stored between our miss and our claim is there now.
                return await look()
            await link.sleep(pause_s)
            pause_s = min(2 * pause_s, LOOK_MOST_S)
            found = await look()
            if found is not None:
                return found

    async def give_back(self, flight: Flight, link: Link, home: Partition, entry_id: str) -> None:
        """Give the claim back, so that nobody waits for its end."""
        try:
            await link.send([calls.claim(home, entry_id, flight.holder, 0)])
        except LanggraphValkeyError:
            return  # It ends by itself.
