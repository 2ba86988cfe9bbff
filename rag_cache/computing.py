"""Looking an answer up, or computing it: one of many at once computes.

All who wait look the answer up when it is there, so that it has passed the fence and is
still current (see `flights`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from rag_cache.answers import Answers, Face, Keeping
from rag_cache.flights import Flights
from rag_cache.metrics import Meter
from rag_cache.results import Computed, Hit, Miss
from rag_cache.scope import Scope
from rag_cache.storing import About
from rag_cache.values import TooLarge

_log = logging.getLogger("rag_cache")

WAITS_MOST = 2
"""For how many computations a caller waits before it computes by itself: one whose value
could not be stored, or was stale by then, must not make its callers compute in a row."""

LOOKS_MOST = 3
"""How often it is looked again before something is computed, if the time is over before the
server is asked: this machine is busy then, and computing would make it busier."""

Compute: TypeAlias = Callable[[], Awaitable[Any]]


class Computing:
    """Computes what is missing, for both faces.

    Args:
        answers: The cache.
        meter: Counts.
        flight_s: For how long a computation is left to the process that does it already.
    """

    def __init__(self, answers: Answers, meter: Meter, flight_s: float) -> None:
        self._answers = answers
        self._meter = meter
        self._flights = Flights(flight_s)

    async def compute(
        self,
        face: Face,
        question: str,
        scope: Scope,
        compute: Compute,
        documents: Sequence[str] | None,
        keeping: Keeping,
    ) -> Hit:
        """Look an answer up, or compute it once; see `SemanticCache.get_or_compute`."""
        look = _Look(self._answers, face, question, scope, documents)
        found = await look()
        waits = 0
        while isinstance(found, Miss):
            # Many at once may be late because they are many: one of them will do.
            if waits == WAITS_MOST or (found.fence is None and not look.was_late):
                break
            flight, leads = self._flights.board(look.entry_id)
            if leads:
                return await self._lead(flight, look, compute, keeping)
            await self._flights.wait(flight, face.lookups)
            waits = WAITS_MOST if flight.failed else waits + 1
            found = await look()
        self._count_first(look, found)
        if isinstance(found, Hit):
            return found
        return await self._computed(look, compute, keeping)

    async def _lead(self, flight: Any, look: _Look, compute: Compute, keeping: Keeping) -> Hit:
        """Compute for all who wait, unless another process has done so."""
        asking = self._answers.asking(look.face, look.question, look.scope, look.documents)
        home, link = asking.home, look.face.lookups
        failed = True
        try:
            found = await self._flights.claim(flight, link, home, look.hit)
            self._count_first(look, found if found is not None else look.last)
            if found is None:
                found = await self._computed(look, compute, keeping)
            failed = False
            return found
        finally:
            self._flights.land(flight, failed=failed)
            await self._flights.give_back(flight, link, home)

    def _count_first(self, look: _Look, found: Hit | Miss) -> None:
        """Count the lookup by its end: a hit that was waited for is one of single flight."""
        if isinstance(found, Hit) and look.times > 1:
            self._meter.hit("flight", found.saved_s, found.usage)
        else:
            self._answers.count(found)

    async def _computed(self, look: _Look, compute: Compute, keeping: Keeping) -> Hit:
        """Compute it, and store it under the fence of the last look."""
        face = look.face
        assert isinstance(look.last, Miss)
        fence = look.last.fence
        started_s = face.lookups.now()
        value = await compute()
        took_s = face.lookups.now() - started_s
        given = value if isinstance(value, Computed) else Computed(value)
        about = About(given.evidence, given.tags, given.usage, took_s)
        if fence is not None:
            try:
                await self._answers.store(
                    *(face, look.question, look.scope, given.value, about, keeping, fence)
                )
            except TooLarge as failure:  # The caller has its value: this must not cost it.
                _log.warning("a value of kind %r is not stored: %s", keeping.kind, failure)
                self._meter.not_stored("too_large")
        entry_id = fence.entry_id if fence is not None else ""
        return Hit(
            *(given.value, look.question, 1.0, "computed", entry_id, 0.0),
            evidence=given.evidence,
            saved_s=None,
            usage=dict(given.usage or {}),
        )


class _Look:
    """Looks for one answer again and again."""

    def __init__(
        self,
        answers: Answers,
        face: Face,
        question: str,
        scope: Scope,
        documents: Sequence[str] | None,
    ) -> None:
        self.face = face
        self.question = question
        self.scope = scope
        self.documents = documents
        self.times = 0
        self.entry_id = ""
        self.was_late = False
        self.last: Hit | Miss = Miss("absent")
        self._answers = answers
        self._vector: Any = None

    async def __call__(self) -> Hit | Miss:
        asking = self._answers.asking(self.face, self.question, self.scope, self.documents)
        asking.vector = self._vector
        self.last = await self._answers.find(self.face, asking)
        self._vector = asking.vector
        self.entry_id, self.was_late = asking.entry_id, asking.was_late
        self.times += 1
        return self.last

    async def hit(self) -> Hit | None:
        """The answer, if it is there; looks again if it was too late to ask for it."""
        for _ in range(LOOKS_MOST):
            found = await self()
            if not self.was_late:
                break
        return found if isinstance(found, Hit) else None
