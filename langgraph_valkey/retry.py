"""Trying again, for as long as it makes sense.

A failure says by its class what happened, and so how long to go on:

=================  ======================  =====================================
failure            tried again for         because
=================  ======================  =====================================
`WriteRejected`    ``reject_deadline_s``   the server answers and says "not now"
`Unreachable`      ``read_deadline_s``     a failover takes about 1.5 s
`OutcomeUnknown`   ``unknown_retry_...``   our writes are idempotent
=================  ======================  =====================================

The clock of a class starts at its first failure and stops when another class
follows, so a failover in the middle of a long rejection gets its own time. All
together never take longer than the longest of the three, plus one request.

Waits grow exponentially with full jitter (drawn between 0 and the bound): when
a cluster comes back, its clients must not all call in the same millisecond.

A write that once ended unknown stays unknown until it succeeds: a later "nothing
was applied" speaks only for the later try.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from langgraph_valkey import limits
from langgraph_valkey.errors import OutcomeUnknown, Unreachable, WriteRejected
from langgraph_valkey.link import Call, Link, Reply
from langgraph_valkey.settings import ConnectionSettings
from langgraph_valkey.vectors.index import IndexingLink, indexing_of

T = TypeVar("T")
_Failure = WriteRejected | Unreachable | OutcomeUnknown
_RETRIED = (WriteRejected, Unreachable, OutcomeUnknown)


class Retrying:
    """A link that tries again what another link failed to do.

    Args:
        link: The link that sends. Its clock and its sleep are used, no others.
        settings: The three deadlines.
        draw: Draws a wait between two bounds, in seconds; `random.uniform`
            unless a test wants to know it.
        note: Is told of each try that failed: its calls, and why.
    """

    def __init__(
        self,
        link: Link,
        settings: ConnectionSettings,
        draw: Callable[[float, float], float] = random.uniform,
        note: Callable[[Sequence[Call], Exception], None] = lambda _calls, _failure: None,
    ) -> None:
        self._link = link
        self._draw = draw
        self._note = note
        self._deadline_s: dict[type[Exception], float] = {
            WriteRejected: settings.reject_deadline_s,
            Unreachable: settings.read_deadline_s,
            OutcomeUnknown: settings.unknown_retry_deadline_s,
        }
        self.sleep = link.sleep
        self.now = link.now

    async def send(self, calls: Sequence[Call]) -> list[Reply]:
        """Run the calls; see `Link.send`.

        All calls of a failed send are sent again: they are idempotent.
        """
        started = self._link.now()
        try:
            return await self._link.send(calls)
        except _RETRIED as failure:
            first = failure
        return await self._again(lambda: self._link.send(calls), started, first, calls)

    async def scan(self, cursor: Any, pattern: bytes) -> tuple[Any, list[bytes]]:
        """One page of a walk over keys; see `Link.scan`."""
        started = self._link.now()
        try:
            return await self._link.scan(cursor, pattern)
        except _RETRIED as failure:
            first = failure
        return await self._again(lambda: self._link.scan(cursor, pattern), started, first)

    @property
    def indexing(self) -> IndexingLink | None:
        """The link itself, if indexes can be made and asked over it.

        That is not tried again: who searches has another way.
        """
        return indexing_of(self._link)

    async def _again(
        self,
        attempt: Callable[[], Awaitable[T]],
        started: float,
        failure: _Failure,
        calls: Sequence[Call] = (),
    ) -> T:
        """Try until it works or there is no time left."""
        record = _Record(self._deadline_s, started, failure)
        is_patient = all(call.patient for call in calls)
        while True:
            self._note(calls, failure)
            if isinstance(failure, WriteRejected) and not is_patient:
                raise failure
            left_s = record.left_s(self._link.now())
            if left_s <= 0:
                raise record.verdict(self._link.now())
            await self._link.sleep(min(self._draw(0.0, record.bound_s()), left_s))
            try:
                return await attempt()
            except _RETRIED as another:
                failure = another
                record.note(failure, self._link.now())


class _Record:
    """What is known about one call that failed at least once."""

    def __init__(
        self, deadline_s: dict[type[Exception], float], started: float, failure: _Failure
    ) -> None:
        self._deadline_s = deadline_s
        self._started = started
        self._failure = failure
        self._class_since = started
        self._tries = 1
        self._unknown = failure if isinstance(failure, OutcomeUnknown) else None

    def note(self, failure: _Failure, now: float) -> None:
        """Add one more failed try."""
        if type(failure) is not type(self._failure):
            self._class_since = now
        if isinstance(failure, OutcomeUnknown):
            self._unknown = failure
        self._failure = failure
        self._tries += 1

    def left_s(self, now: float) -> float:
        """How much longer it may be tried."""
        own = self._class_since + self._deadline_s[type(self._failure)] - now
        whole = self._started + max(self._deadline_s.values()) - now
        return min(own, whole)

    def bound_s(self) -> float:
        """The longest wait before the next try."""
        doubled = limits.REJECT_BACKOFF_FIRST_S * 2.0 ** min(self._tries - 1, 30)
        return min(doubled, limits.REJECT_BACKOFF_MOST_S)

    def verdict(self, now: float) -> Exception:
        """The error to raise at the end."""
        tried_s = now - self._started
        if self._unknown is not None:
            return self._unknown
        if isinstance(self._failure, WriteRejected):
            last = WriteRejected(
                f"the server refused the write for {tried_s:.1f} s ({self._tries} tries) and "
                "nothing was applied; call again later. If it lasts, look at the cluster's health "
                "and, on a durable cluster, at its durability lag",
                rejected_s=tried_s,
            )
            last.__cause__ = self._failure
            return last
        return self._failure
