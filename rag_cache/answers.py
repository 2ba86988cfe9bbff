"""What the cache does, written once for both of its faces.

`Face` is what differs between them: links, the primary store's face, and how to embed.
Nothing of a lookup or a store raises because a server is in trouble: what goes wrong is a
reason in the result, and a number in the metrics. Misuse raises, and so does an invalidation
that was not accepted, since then the caller has to know.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langgraph_valkey.errors import (
    ConfigurationError,
    OutcomeUnknown,
    StoreFull,
    Unreachable,
    WriteRejected,
)
from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.link import Link, NotSent
from langgraph_valkey.primary.contract import Primary
from langgraph_valkey.primary.versions import MARKS_MOST, PartitionKey
from rag_cache.asking import Asking, Bypass, Embed, Verify
from rag_cache.breakers import Breakers
from rag_cache.errors import InvalidationPending
from rag_cache.freshness.changing import write_down
from rag_cache.freshness.standings import Standings
from rag_cache.lookup import Finder
from rag_cache.metrics import Meter, MissReason
from rag_cache.operations import calls
from rag_cache.partitions import Partition, partition_of, recorded
from rag_cache.questions import normalized
from rag_cache.results import Fence, Hit, Miss, Stored
from rag_cache.scope import Scope
from rag_cache.settings import CacheSettings, check_ttl
from rag_cache.storing import About, Writer, ordered
from rag_cache.within import Within

_log = logging.getLogger("rag_cache")

COMPLAIN_S = 60.0
"""How often failures of one kind are logged."""

SCOPES_MOST = 10_000
"""Scopes that are kept ready."""


_AWAY = (WriteRejected, Unreachable, OutcomeUnknown)
"""What a breaker counts: the server can't serve. Any other failure is an answer."""


@dataclass(frozen=True, slots=True)
class Face:
    """What differs between blocking and async callers.

    Attributes:
        lookups: Link whose requests take no longer than a lookup may.
        writes: Link for all else.
        primary: Face of the primary store.
        finder: Looks up over `lookups`.
        writer: Stores over `writes`.
        embed: Embeds a question.
        verify: Asks the verifier; None if there is none.
        prepare: Makes the primary store ready.
    """

    lookups: Link
    writes: Link
    primary: Primary
    finder: Finder
    writer: Writer
    embed: Embed
    verify: Verify | None
    prepare: Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Keeping:
    """How a value is kept.

    Attributes:
        kind: Of which kind it is: decides how long it lives.
        ttl_s: How long it lives; that of its kind if None.
    """

    kind: str = "answer"
    ttl_s: float | None = None


class Answers:
    """The cache, without a face.

    Args:
        settings: All there is to set.
        embedder_id: Name of the embedder.
        standings: Which primaries may be served from.
        meter: Counts.
    """

    def __init__(
        self, settings: CacheSettings, embedder_id: str, standings: Standings, meter: Meter
    ) -> None:
        self._settings = settings
        self._embedder_id = embedder_id
        self._standings = standings
        self._meter = meter
        self._breakers = Breakers(standings)
        self._complained_s: dict[str, float] = {}
        self._scopes: OrderedDict[Scope, Within] = OrderedDict()
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew: a lock may be held by nobody."""
        self._lock = threading.Lock()

    # --- looking up ----------------------------------------------------------------------

    async def lookup(
        self, face: Face, question: str, scope: Scope, documents: Sequence[str] | None
    ) -> Hit | Miss:
        """Look an answer up; see `SemanticCache.lookup`."""
        result = await self.find(face, self.asking(face, question, scope, documents))
        self.count(result)
        return result

    def asking(
        self, face: Face, question: str, scope: Scope, documents: Sequence[str] | None
    ) -> Asking:
        """A lookup that is about to begin.

        Raises:
            TypeError: The question is no string, or the scope no `Scope`.
            ValueError: The question is empty.
        """
        within, home, question = self._place(question, scope)
        if isinstance(documents, str):
            raise TypeError("documents must be a sequence of ids, not one string")
        return Asking(
            *(question, within, within.entry_id(question), home),
            documents=None if documents is None else tuple(documents),
            embed=face.embed,
            verify=face.verify,
            until_s=face.lookups.now() + self._settings.lookup_deadline_ms / 1000,
        )

    async def find(self, face: Face, asking: Asking, *, is_timed: bool = True) -> Hit | Miss:
        """Look it up, whatever goes wrong."""
        link = face.lookups
        started_s, until_s = link.now(), asking.until_s
        breaker = self._breakers.of(self._asked(asking))
        if not breaker.allows(started_s):
            return Miss("breaker_open")
        result: Hit | Miss
        try:
            result = await face.finder.find(asking)
            breaker.succeeded(link.now())
        except Exception as failure:  # noqa: BLE001 - the pipeline goes on, whatever it is
            asking.was_late = isinstance(failure, NotSent)
            if isinstance(failure, _AWAY) and not asking.was_late:
                breaker.failed(link.now(), started_s)
            elif asking.was_answered:
                breaker.succeeded(link.now())
            else:
                breaker.dropped(link.now())
            result = Miss(self._why(failure, asking, link.now()), asking.given_fence())
        if is_timed:
            elsewhere_s = asking.until_s - until_s  # Spent by the embedder and the verifier.
            self._meter.lookup_took(max(0.0, link.now() - started_s - elsewhere_s))
        return result

    def _asked(self, asking: Asking) -> list[PartitionKey]:
        """The partitions that a lookup may ask, the one of the very question first."""
        names = [asking.home.name]
        if self._settings.spread > 1:
            corpus, tenant, home = names[0].corpus, names[0].tenant, names[0].number
            others = (n for n in range(self._settings.spread) if n != home)
            names += [PartitionKey(corpus, tenant, number) for number in others]
        return names

    def _why(self, failure: Exception, asking: Asking, now_s: float) -> MissReason:
        """The reason of a lookup that was not carried to its end."""
        match failure:
            case Bypass():
                if failure.__cause__ is not None:
                    _log.warning("a question could not be embedded", exc_info=failure.__cause__)
                return failure.reason
            case WriteRejected():
                return "rejected"
            case NotSent():
                return "slow"
            case Unreachable() | OutcomeUnknown():
                return "slow" if now_s >= asking.until_s - 0.001 else "unreachable"
        self._complain("a lookup failed, which counts as a miss", failure)
        return "misconfigured" if isinstance(failure, ConfigurationError) else "corrupt"

    def _complain(self, what: str, failure: Exception) -> None:
        """Log what nobody else will tell, now and then: each request may meet it."""
        kind, now_s = f"{what}: {type(failure).__name__}", time.monotonic()
        if now_s - self._complained_s.get(kind, float("-inf")) >= COMPLAIN_S:
            self._complained_s[kind] = now_s
            _log.error("%s; the like is not logged again for a while", what, exc_info=failure)

    def count(self, result: Hit | Miss) -> None:
        """Count a lookup by its result."""
        if isinstance(result, Hit):
            tier = "exact" if result.tier == "computed" else result.tier
            self._meter.hit(tier, result.saved_s, result.usage)
            return
        self._meter.miss(result.reason)
        for refusal in result.refusals:
            self._meter.refused(refusal.guard)

    def _place(self, question: str, scope: Scope) -> tuple[Within, Partition, str]:
        if not isinstance(scope, Scope):
            raise TypeError(f"scope must be a Scope, not {type(scope).__name__}")
        if not isinstance(question, str):
            raise TypeError(f"a question must be a string, not {type(question).__name__}")
        question = normalized(question)
        if not question:
            raise ValueError("a question must not be empty")
        within = self._within(scope)
        number = int(within.entry_id(question)[:8], 16) % self._settings.spread
        home = partition_of(self._settings.key_prefix, scope.corpus, scope.tenant, number)
        return within, home, question

    def _within(self, scope: Scope) -> Within:
        with self._lock:
            within = self._scopes.get(scope)
            if within is None:
                within = self._scopes[scope] = Within(scope, self._embedder_id)
                if len(self._scopes) > SCOPES_MOST:
                    self._scopes.popitem(last=False)
            return within

    # --- storing -------------------------------------------------------------------------

    async def store(
        self,
        face: Face,
        question: str,
        scope: Scope,
        value: Any,
        about: About,
        keeping: Keeping,
        fence: Fence | None,
    ) -> Stored:
        """Store a value; see `SemanticCache.store`."""
        within, home, question = self._place(question, scope)
        ttl_s = keeping.ttl_s
        ttl_s = self._settings.ttl_of(keeping.kind) if ttl_s is None else check_ttl(ttl_s)
        order = ordered(question, within, home, value, about, ttl_s, fence)
        stored = await self._keep(face, order, fence)
        if stored.accepted:
            self._meter.stored()
        else:
            self._meter.not_stored(stored.reason)
        return stored

    async def _keep(self, face: Face, order: Any, fence: Fence | None) -> Stored:
        """Store it, whatever goes wrong."""
        try:
            vector = None if fence is None else fence.vector
            if vector is None:
                vector = await face.embed(order.question)
        except Exception:  # noqa: BLE001 - whatever an embedder raises
            _log.exception("a question could not be embedded, so its answer is not stored")
            return Stored(accepted=False, reason="embedder_failed")
        try:
            return await face.writer.keep(order, vector)
        except WriteRejected:
            reason = "rejected"
        except StoreFull:
            reason = "full"
        except (Unreachable, OutcomeUnknown):
            reason = "unreachable"
        except Exception as failure:  # noqa: BLE001 - the caller has its answer
            self._complain("an answer could not be stored", failure)
            reason = "misconfigured" if isinstance(failure, ConfigurationError) else "failed"
        return Stored(accepted=False, reason=reason)

    # --- invalidating --------------------------------------------------------------------

    async def invalidate(self, face: Face, corpus: str, marks: Mapping[str, str | None]) -> None:
        """Make what was made from some documents stale; see `SemanticCache.invalidate`."""
        until_s = face.writes.now() + self._settings.invalidate_deadline_s
        await face.prepare()
        names = list(marks)
        for first in range(0, len(names), MARKS_MOST):
            some = {name: marks[name] for name in names[first : first + MARKS_MOST]}
            await self._change(face, corpus, some, until_s)

    async def _change(
        self, face: Face, corpus: str, marks: Mapping[str, str | None], until_s: float
    ) -> None:
        prefix = self._settings.key_prefix
        change = await face.primary.change_versions(recorded(prefix, corpus), marks)
        self._meter.invalidated(len(marks))
        why = await write_down(face.primary, face.writes, prefix, change, until_s)
        if why is None:
            return
        for kept in change.partitions:
            self._standings.withdraw(kept.key)
        self._meter.pending()
        raise InvalidationPending(
            "the change is in the primary store, but not every partition of the corpus has "
            "accepted it yet: lookups of the corpus miss until one of the processes has written "
            "it, which they keep trying",
            corpus=corpus,
        ) from why

    async def delete(self, face: Face, question: str, scope: Scope) -> bool:
        """Delete one entry; see `SemanticCache.delete`."""
        within, home, question = self._place(question, scope)
        call = calls.delete(home, within.key, within.entry_id(question))
        [there] = await face.writes.send([call])
        return bool(there)
