"""The loss window as OpenTelemetry metrics and spans.

`Telemetry` reads the health of savers whenever metrics are collected, and is told of
recoveries and forks by their hooks::

    telemetry = Telemetry()
    saver = ValkeySaver(settings, hooks=telemetry.hooks())
    telemetry.observe(saver)

Of each shard, by its primary's identity (``langgraph_valkey.shard``):

=======================================  =====  =====================================
gauge                                    unit
=======================================  =====  =====================================
``langgraph_valkey.journal.entries``            what is not known to be durable
``langgraph_valkey.journal.bytes``       bytes  the same in bytes
``langgraph_valkey.watermark.age``       s      age of the last write known durable
``langgraph_valkey.rejecting.duration``  s      since when writes are refused; or 0
``langgraph_valkey.lag``                 s      how far replicas, or the log, lag
=======================================  =====  =====================================

Of each saver:

=======================================  =====  =====================================
counter or histogram                     unit
=======================================  =====  =====================================
``langgraph_valkey.recoveries``                 failovers noticed
``langgraph_valkey.uncovered``                  entries the journal had no room for
``langgraph_valkey.forks``                      branches beside a head
``langgraph_valkey.recovery.duration``   s      from the failover to the last replay
``langgraph_valkey.recovery.entries``           by ``langgraph_valkey.outcome``:
                                                replayed, already_there, deleted,
                                                expired, uncovered
``langgraph_valkey.recovery.threads``           that had lost something, by outcome:
                                                restored, incomplete
=======================================  =====  =====================================

Each recovery is a span as well, ``langgraph_valkey.recovery``, with the same counts.
Thread ids stand in neither: they are too many for metrics, and they may say who a
user is. What goes wrong here is logged once and never reaches a saver.

It needs ``langgraph-valkey[otel]``, and is free of cost where it is not imported.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.loss_window.report import Fork, Health, Hooks, RecoveryReport, ShardHealth
from langgraph_valkey.quiet import Quiet

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import TracerProvider

NAME = "langgraph_valkey"
SHARD = f"{NAME}.shard"
OUTCOME = f"{NAME}.outcome"

DURATION_BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Bounds of the histogram of recoveries: most take less than a second, and the
usual bounds are made for milliseconds."""

_log = logging.getLogger(__name__)

_Event = TypeVar("_Event")
_Marks: TypeAlias = dict[str, str]

_ENTRY_OUTCOMES = ("replayed", "already_there", "deleted", "expired", "uncovered")

_OF_SHARDS: Final[Mapping[str, tuple[str, str, Callable[[ShardHealth], float | None]]]] = {
    "journal.entries": (
        "{entry}",
        "Entries that are not known to be durable",
        lambda shard: shard.journal_entries,
    ),
    "journal.bytes": (
        "By",
        "Bytes of the entries that are not known to be durable",
        lambda shard: shard.journal_bytes,
    ),
    "watermark.age": (
        "s",
        "How long ago the last write was acknowledged that is known to be durable",
        lambda shard: shard.watermark_age_s,
    ),
    "rejecting.duration": (
        "s",
        "For how long the shard has been refusing writes",
        lambda shard: shard.rejecting_s or 0.0,
    ),
    "lag": (
        "s",
        "How far replicas, or the durable log, are behind",
        lambda shard: shard.lag_s,
    ),
}
_OF_SAVERS: Final[Mapping[str, tuple[str, str, Callable[[Health], int]]]] = {
    "recoveries": (
        "{recovery}",
        "Failovers that were noticed",
        lambda health: health.recoveries,
    ),
    "uncovered": (
        "{entry}",
        "Entries that could not be kept until they were durable",
        lambda health: health.uncovered,
    ),
}


class Observed(Protocol):
    """What has a health: a saver."""

    def health(self) -> Health:
        """Its loss window."""
        ...


class Telemetry:
    """Metrics and spans of any number of savers. Make one for a process.

    OpenTelemetry lets only the first of several ask for gauges of the same name.

    Args:
        meter_provider: Where metrics go; by default OpenTelemetry's global one.
        tracer_provider: Where spans go; likewise.

    Raises:
        ConfigurationError: OpenTelemetry's API is not installed.
    """

    def __init__(
        self,
        *,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError as error:
            raise ConfigurationError(
                "telemetry needs the `otel` extra: pip install 'langgraph-valkey[otel]'"
            ) from error
        self._savers: WeakKeyDictionary[Observed, tuple[_Marks, Quiet]] = WeakKeyDictionary()
        self._quiet = Quiet("recording what happened", _log)
        self._tracer = trace.get_tracer(NAME, tracer_provider=tracer_provider)
        meter = metrics.get_meter(NAME, meter_provider=meter_provider)
        for name, (unit, text, of_shard) in _OF_SHARDS.items():
            meter.create_observable_gauge(
                f"{NAME}.{name}", [partial(self._by_shard, of_shard)], unit, text
            )
        for name, (unit, text, of_saver) in _OF_SAVERS.items():
            meter.create_observable_counter(
                f"{NAME}.{name}", [partial(self._by_saver, of_saver)], unit, text
            )
        self._duration = meter.create_histogram(
            f"{NAME}.recovery.duration",
            "s",
            "From the first word of a new primary to the last replay",
            explicit_bucket_boundaries_advisory=DURATION_BOUNDS_S,
        )
        self._entries = meter.create_counter(
            f"{NAME}.recovery.entries", "{entry}", "Entries of recoveries, by what came of them"
        )
        self._threads = meter.create_counter(
            f"{NAME}.recovery.threads", "{thread}", "Threads that had lost something"
        )
        self._forks = meter.create_counter(
            f"{NAME}.forks", "{fork}", "Branches that came to stand beside a head"
        )

    def hooks(
        self, mine: Hooks | None = None, *, attributes: Mapping[str, str] | None = None
    ) -> Hooks:
        """Hooks for a saver, which count recoveries and forks, then call the given ones.

        Args:
            mine: Hooks of your own. What they raise, they raise as without telemetry.
            attributes: What to record with each value: savers differ by these.
        """
        mine, marks = mine or Hooks(), dict(attributes or {})
        return replace(
            mine,
            on_rewind=self._before(mine.on_rewind, partial(self._recovered, marks)),
            on_fork=self._before(mine.on_fork, partial(self._forked, marks)),
        )

    def observe(self, saver: Observed, *, attributes: Mapping[str, str] | None = None) -> None:
        """Read a saver's health whenever metrics are collected, for as long as it exists.

        Args:
            saver: It is not kept alive by being observed.
            attributes: What to record with each value: savers differ by these.
        """
        quiet = Quiet("reading a saver's health for metrics", _log)
        self._savers[saver] = (dict(attributes or {}), quiet)

    def _before(
        self, theirs: Callable[[_Event], None] | None, note: Callable[[_Event], None]
    ) -> Callable[[_Event], None]:
        """A hook that takes note, which never fails, and then calls theirs, which may."""

        def hook(event: _Event) -> None:
            self._quiet.call(partial(note, event))
            if theirs is not None:
                theirs(event)

        return hook

    def _by_shard(
        self, read: Callable[[ShardHealth], float | None], _: CallbackOptions
    ) -> Iterator[Observation]:
        """What is read off each shard of each saver, where it is known."""
        from opentelemetry.metrics import Observation

        for health, marks in self._healths():
            for shard in health.shards:
                value = read(shard)
                if value is not None:
                    yield Observation(value, marks | {SHARD: shard.identity})

    def _by_saver(self, read: Callable[[Health], int], _: CallbackOptions) -> Iterator[Observation]:
        """What is read off each saver."""
        from opentelemetry.metrics import Observation

        for health, marks in self._healths():
            yield Observation(read(health), marks)

    def _healths(self) -> Iterator[tuple[Health, _Marks]]:
        """Health and attributes of each saver that exists and answers."""
        for reference in self._savers.keyrefs():
            saver = reference()
            if saver is not None:
                marks, quiet = self._savers[saver]
                health = quiet.call(saver.health)
                if health is not None:
                    yield health, marks

    def _recovered(self, marks: _Marks, report: RecoveryReport) -> None:
        entries = {outcome: getattr(report, outcome) for outcome in _ENTRY_OUTCOMES}
        lost, incomplete = set(report.rewound), set(report.incomplete)
        threads = {"restored": len(lost - incomplete), "incomplete": len(incomplete)}
        self._duration.record(report.duration_s, marks)
        for outcome, count in entries.items():
            self._entries.add(count, marks | {OUTCOME: outcome})
        for outcome, count in threads.items():
            self._threads.add(count, marks | {OUTCOME: outcome})
        self._trace(report, marks, entries | threads | {"forks": len(report.forks)})

    def _trace(self, report: RecoveryReport, marks: _Marks, counts: Mapping[str, int]) -> None:
        """A span in a trace of its own: a recovery is part of no single request."""
        from opentelemetry.context import Context
        from opentelemetry.trace import StatusCode

        counted = {f"{NAME}.recovery.{name}": count for name, count in counts.items()}
        end_ns = time.time_ns()
        span = self._tracer.start_span(
            f"{NAME}.recovery",
            context=Context(),
            attributes={**marks, SHARD: report.shard, **counted},
            start_time=end_ns - int(report.duration_s * 1e9),
        )
        if report.incomplete:
            span.set_status(StatusCode.ERROR, "some threads could not be restored from here")
        span.end(end_ns)

    def _forked(self, marks: _Marks, _: Fork) -> None:
        self._forks.add(1, marks)
