"""What a semantic cache counts, as OpenTelemetry metrics.

`Telemetry` reads the `stats` of caches whenever metrics are collected::

    telemetry = Telemetry()
    cache = SemanticCache(settings, embedder=embedder)
    telemetry.observe(cache)

Of each cache, since this process made it:

====================================  ======  =======================================
counter                               unit
====================================  ======  =======================================
``rag_cache.hits``                            by ``rag_cache.tier``: exact, process,
                                              server, flight
``rag_cache.misses``                          by ``rag_cache.reason``: see
                                              `rag_cache.metrics.MissReason`
``rag_cache.refused``                         entries that were near enough and were
                                              refused, by ``rag_cache.guard``
``rag_cache.stale_refused``                   lookups that found what has changed since
``rag_cache.stored``                          values that were stored
``rag_cache.not_stored``                      values that were not, by
                                              ``rag_cache.reason``
``rag_cache.invalidated``                     documents, tags, scopes, tenants and
                                              corpora that were invalidated
``rag_cache.invalidations.pending``           invalidations that were left pending
``rag_cache.saved.time``              s       what computing the hits had taken
``rag_cache.saved.tokens``            tokens  what hits spared, by
                                              ``rag_cache.token_type``: input, output
``rag_cache.saved.cost``                      the same at the cache's prices, with its
                                              ``rag_cache.currency``; only if it has
                                              prices
====================================  ======  =======================================

And the histogram ``rag_cache.lookup.duration``, in seconds, without the time that embedding
takes. An invalidation that is pending alone is worth an alarm: lookups of its corpus miss.

Questions, answers, tenants and names of documents stand nowhere: they are too many for
metrics, and they are of users. What goes wrong here is logged once and never reaches a
lookup.

There are no spans: recording one would take a good part of what a lookup takes. Where one
request matters, put a span of your own around the call, and let `Hit` or `Miss` say the rest::

    with tracer.start_as_current_span("lookup") as span:
        found = cache.lookup(question, scope)
        span.set_attribute("rag_cache.outcome", found.tier if found else found.reason)

It needs ``langgraph-valkey[otel]``, and is free of cost where it is not imported.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.quiet import Quiet

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

    from rag_cache.metrics import Stats
    from rag_cache.semantic_cache import SemanticCache

NAME = "rag_cache"
TIER = f"{NAME}.tier"
REASON = f"{NAME}.reason"
GUARD = f"{NAME}.guard"
TOKEN_TYPE = f"{NAME}.token_type"
CURRENCY = f"{NAME}.currency"

DURATION_BOUNDS_S = (
    *(0.0001, 0.0002, 0.0003, 0.0005, 0.00075),
    *(0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
)
"""Bounds of the histogram of lookups: a hit takes some tenths of a millisecond, and a server
in trouble costs the deadline of 50 ms. The usual bounds begin where this ends."""

_log = logging.getLogger(__name__)

_Marks: TypeAlias = Mapping[str, str]


class _Counter(NamedTuple):
    """A counter over `Stats`.

    Attributes:
        unit: Its unit.
        text: What it counts.
        attribute: What tells its values apart; "" if there is only one.
        read: Reads its values, by that attribute.
    """

    unit: str
    text: str
    attribute: str
    read: Callable[[Stats], Mapping[str, float]]


_COUNTERS: Final[Mapping[str, _Counter]] = {
    "hits": _Counter("{hit}", "Lookups that were served, by where from", TIER, lambda s: s.hits),
    "misses": _Counter("{miss}", "Lookups that were not, by why", REASON, lambda s: s.misses),
    "refused": _Counter(
        "{entry}",
        "Entries that were near enough and were refused, by what refused them",
        GUARD,
        lambda stats: stats.refused,
    ),
    "stale_refused": _Counter(
        "{lookup}",
        "Lookups that would have served something stale",
        "",
        lambda stats: {"": stats.stale_refused},
    ),
    "stored": _Counter("{value}", "Values that were stored", "", lambda s: {"": s.stored}),
    "not_stored": _Counter(
        "{value}", "Values that were not stored, by why", REASON, lambda s: s.not_stored
    ),
    "invalidated": _Counter(
        "{mark}",
        "Documents, tags, scopes, tenants and corpora that were invalidated",
        "",
        lambda stats: {"": stats.invalidated},
    ),
    "invalidations.pending": _Counter(
        "{invalidation}",
        "Invalidations that were left pending",
        "",
        lambda stats: {"": stats.pending},
    ),
    "saved.time": _Counter(
        "s", "Time that computing the hits had taken", "", lambda stats: {"": stats.saved_s}
    ),
    "saved.tokens": _Counter(
        "{token}",
        "Tokens that hits spared",
        TOKEN_TYPE,
        lambda stats: {"input": stats.tokens_in, "output": stats.tokens_out},
    ),
    "saved.cost": _Counter(
        "{currency}",
        "What these tokens would have cost",
        CURRENCY,
        lambda s: {} if s.cost_saved is None else {s.currency: s.cost_saved},
    ),
}


class Telemetry:
    """Metrics of any number of caches. Make one for a process.

    OpenTelemetry lets only the first of several ask for counters of the same name.

    Args:
        meter_provider: Where metrics go; by default OpenTelemetry's global one.

    Raises:
        ConfigurationError: OpenTelemetry's API is not installed.
    """

    def __init__(self, *, meter_provider: MeterProvider | None = None) -> None:
        try:
            from opentelemetry import metrics
        except ImportError as error:
            raise ConfigurationError(
                "telemetry needs the `otel` extra: pip install 'langgraph-valkey[otel]'"
            ) from error
        self._caches: WeakKeyDictionary[SemanticCache, _Watched] = WeakKeyDictionary()
        meter = metrics.get_meter(NAME, meter_provider=meter_provider)
        for name, counter in _COUNTERS.items():
            read = partial(self._observations, counter)
            meter.create_observable_counter(f"{NAME}.{name}", [read], counter.unit, counter.text)
        self._duration = meter.create_histogram(
            f"{NAME}.lookup.duration",
            "s",
            "How long a lookup took, without the time that embedding takes",
            explicit_bucket_boundaries_advisory=DURATION_BOUNDS_S,
        )

    def observe(self, cache: SemanticCache, *, attributes: Mapping[str, str] | None = None) -> None:
        """Read what a cache counts whenever metrics are collected, for as long as it exists.

        Args:
            cache: It is not kept alive by being observed.
            attributes: What to record with each value: caches differ by these. Given again,
                they take the place of the former ones.
        """
        mine = _Watched()
        watched = self._caches.setdefault(cache, mine)
        watched.marks = dict(attributes or {})
        if watched is mine:
            cache._meter.listen(partial(self._looked_up, watched))  # noqa: SLF001

    def _looked_up(self, watched: _Watched, seconds: float) -> None:
        watched.recording.call(partial(self._duration.record, seconds, watched.marks))

    def _observations(self, counter: _Counter, _: CallbackOptions) -> Iterator[Observation]:
        """What is read off each cache that exists and answers."""
        from opentelemetry.metrics import Observation

        for reference in self._caches.keyrefs():
            cache = reference()
            if cache is None:
                continue
            watched = self._caches[cache]
            stats = watched.reading.call(cache.stats)
            if stats is not None:
                for which, value in counter.read(stats).items():
                    own = {counter.attribute: which} if counter.attribute else {}
                    yield Observation(value, {**watched.marks, **own})


class _Watched:
    """What is kept of one cache; not the cache itself."""

    def __init__(self) -> None:
        self.marks: _Marks = {}
        self.reading = Quiet("reading what a cache counts for metrics", _log)
        self.recording = Quiet("recording how long a lookup took", _log)
