"""Metrics and spans of the loss window, as OpenTelemetry's SDK gets to see them."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.loss_window.report import Fork, Health, Hooks, RecoveryReport, ShardHealth
from langgraph_valkey.telemetry import Telemetry

SHARD = ShardHealth(
    identity="a" * 40,
    watermark_age_s=16.5,
    journal_entries=7,
    journal_bytes=4_096,
    rejecting_s=2.5,
    lag_s=0.25,
    last_recovery=None,
)
NEW_SHARD = ShardHealth("b" * 40, None, 1, 100, None, None, None)
HEALTH = Health("async", "aws", (SHARD, NEW_SHARD), 8, 4_196, uncovered=3, recoveries=2)
FORK = Fork("thread of alice", "", head="2", branch="1")
REPORT = RecoveryReport(
    shard="b" * 40,
    replayed=5,
    already_there=40,
    deleted=1,
    expired=2,
    forks=(FORK,),
    rewound=("thread of alice", "thread of bob", "thread of carol"),
    incomplete=("thread of carol",),
    uncovered=4,
    duration_s=0.75,
)


@dataclass(eq=False)
class Saver:
    """As much of a saver as telemetry knows."""

    state: Health = HEALTH
    failures: list[Exception] = field(default_factory=list)

    def health(self) -> Health:
        if self.failures:
            raise self.failures[0]
        return self.state


def tell(hooks: Hooks, *events: RecoveryReport | Fork | int) -> None:
    """Call the hook of each event, as a saver does."""
    for event in events:
        hook: Any = hooks.on_uncovered
        if not isinstance(event, int):
            hook = hooks.on_fork if isinstance(event, Fork) else hooks.on_rewind
        hook(event)


@dataclass
class Collected:
    """Where metrics and spans end up."""

    reader: InMemoryMetricReader
    exporter: InMemorySpanExporter
    telemetry: Telemetry

    def metrics(self) -> dict[str, Any]:
        """Metrics by their name, without the package's."""
        data = self.reader.get_metrics_data()
        scopes = [] if data is None else data.resource_metrics[0].scope_metrics
        found = [metric for scope in scopes for metric in scope.metrics]
        assert len({metric.name for metric in found}) == len(found)
        return {metric.name.removeprefix("langgraph_valkey."): metric for metric in found}

    def values(self, name: str, key: str = "") -> dict[Any, Any]:
        """Values of a metric, by one of their attributes; none if it wasn't recorded."""
        metric = self.metrics().get(name)
        points = [] if metric is None else metric.data.data_points
        by_attribute = {point.attributes.get(key): point.value for point in points}
        assert len(by_attribute) == len(points)
        return by_attribute

    def by_shard(self, name: str) -> dict[str, float]:
        found = self.values(name, "langgraph_valkey.shard")
        return {identity[0]: value for identity, value in found.items()}

    def by_outcome(self, name: str) -> dict[str, int]:
        return self.values(name, "langgraph_valkey.outcome")

    def span(self) -> ReadableSpan:
        (span,) = self.exporter.get_finished_spans()
        return span


@pytest.fixture
def tracing() -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    yield provider
    provider.shutdown()


@pytest.fixture
def collected(tracing: TracerProvider) -> Iterator[Collected]:
    reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    metering = MeterProvider([reader], shutdown_on_exit=False)
    telemetry = Telemetry(meter_provider=metering, tracer_provider=tracing)
    yield Collected(reader, exporter, telemetry)
    metering.shutdown()


# --- health --------------------------------------------------------------------


def test_gauges_of_each_shard(collected: Collected) -> None:
    saver = Saver()
    collected.telemetry.observe(saver)
    assert collected.by_shard("journal.entries") == {"a": 7, "b": 1}
    assert collected.by_shard("journal.bytes") == {"a": 4_096, "b": 100}
    assert collected.by_shard("rejecting.duration") == {"a": 2.5, "b": 0}
    # What is not known is left out.
    assert collected.by_shard("watermark.age") == {"a": 16.5}
    assert collected.by_shard("lag") == {"a": 0.25}


def test_counters_of_a_saver(collected: Collected) -> None:
    saver = Saver()
    collected.telemetry.observe(saver)
    assert collected.values("uncovered") == {None: 3}
    assert collected.values("recoveries") == {None: 2}
    saver.state = replace(HEALTH, shards=(NEW_SHARD,), uncovered=9)
    assert collected.values("uncovered") == {None: 9}
    assert collected.by_shard("journal.entries") == {"b": 1}


def test_units(collected: Collected) -> None:
    saver = Saver()
    collected.telemetry.observe(saver)
    tell(collected.telemetry.hooks(), REPORT, FORK)
    assert {name: metric.unit for name, metric in collected.metrics().items()} == {
        "journal.entries": "{entry}",
        "journal.bytes": "By",
        "watermark.age": "s",
        "rejecting.duration": "s",
        "lag": "s",
        "recoveries": "{recovery}",
        "uncovered": "{entry}",
        "forks": "{fork}",
        "recovery.duration": "s",
        "recovery.entries": "{entry}",
        "recovery.threads": "{thread}",
    }


def test_several_savers_by_attributes(collected: Collected) -> None:
    east, west = Saver(), Saver(replace(HEALTH, uncovered=5, shards=()))
    collected.telemetry.observe(east, attributes={"cluster": "east"})
    collected.telemetry.observe(west, attributes={"cluster": "west"})
    assert collected.values("uncovered", "cluster") == {"east": 3, "west": 5}
    tell(collected.telemetry.hooks(attributes={"cluster": "west"}), FORK)
    assert collected.values("forks", "cluster") == {"west": 1}


def test_a_saver_is_not_kept_alive(collected: Collected) -> None:
    saver = Saver()
    collected.telemetry.observe(saver)
    assert collected.values("uncovered") == {None: 3}
    del saver
    gc.collect()
    assert collected.metrics() == {}


def test_a_failing_health_is_logged_once(
    collected: Collected, caplog: pytest.LogCaptureFixture
) -> None:
    broken, well = Saver(failures=[RuntimeError("closed")]), Saver()
    collected.telemetry.observe(broken, attributes={"cluster": "broken"})
    collected.telemetry.observe(well, attributes={"cluster": "well"})
    with caplog.at_level(logging.ERROR):
        assert collected.values("uncovered", "cluster") == {"well": 3}
        assert collected.values("uncovered", "cluster") == {"well": 3}
        assert len(caplog.records) == 1
        assert "saver's health" in caplog.text

        broken.failures.clear()
        assert collected.values("uncovered", "cluster") == {"well": 3, "broken": 3}
        broken.failures.append(RuntimeError("closed again"))
        assert collected.values("uncovered", "cluster") == {"well": 3}
    assert len(caplog.records) == 2


# --- recoveries and forks ------------------------------------------------------


def test_a_recovery_is_counted(collected: Collected) -> None:
    second = replace(REPORT, replayed=100, rewound=(), incomplete=(), duration_s=3.0)
    tell(collected.telemetry.hooks(), REPORT, second)
    assert collected.by_outcome("recovery.entries") == {
        "replayed": 105,
        "already_there": 80,
        "deleted": 2,
        "expired": 4,
        "uncovered": 8,
    }
    assert collected.by_outcome("recovery.threads") == {"restored": 2, "incomplete": 1}
    (durations,) = collected.metrics()["recovery.duration"].data.data_points
    assert (durations.count, durations.sum) == (2, 3.75)
    assert 0.5 in durations.explicit_bounds
    # Forks of a recovery are told of one by one, too, and are counted then.
    assert collected.values("forks") == {}


def test_forks_are_counted(collected: Collected) -> None:
    tell(collected.telemetry.hooks(), FORK, FORK)
    assert collected.values("forks") == {None: 2}


def test_a_recovery_is_a_span(collected: Collected, tracing: TracerProvider) -> None:
    before_ns = time.time_ns()
    with tracing.get_tracer("a request").start_as_current_span("that waits for the replay"):
        tell(collected.telemetry.hooks(attributes={"cluster": "east"}), REPORT)
        span = collected.span()
    assert span.name == "langgraph_valkey.recovery"
    assert span.parent is None
    assert span.start_time is not None
    assert span.end_time is not None
    assert before_ns <= span.end_time <= time.time_ns()
    assert span.end_time - span.start_time == 750_000_000
    assert span.status.status_code is trace.StatusCode.ERROR
    assert dict(span.attributes or {}) == {
        "cluster": "east",
        "langgraph_valkey.shard": "b" * 40,
        "langgraph_valkey.recovery.replayed": 5,
        "langgraph_valkey.recovery.already_there": 40,
        "langgraph_valkey.recovery.deleted": 1,
        "langgraph_valkey.recovery.expired": 2,
        "langgraph_valkey.recovery.uncovered": 4,
        "langgraph_valkey.recovery.restored": 2,
        "langgraph_valkey.recovery.incomplete": 1,
        "langgraph_valkey.recovery.forks": 1,
    }


def test_a_full_recovery_is_no_error(collected: Collected) -> None:
    tell(collected.telemetry.hooks(), replace(REPORT, incomplete=()))
    assert collected.span().status.status_code is trace.StatusCode.UNSET


def test_threads_are_named_nowhere(collected: Collected, caplog: pytest.LogCaptureFixture) -> None:
    saver = Saver(replace(HEALTH, shards=(replace(SHARD, last_recovery=REPORT),)))
    collected.telemetry.observe(saver)
    tell(collected.telemetry.hooks(), REPORT, FORK)
    data = collected.reader.get_metrics_data()
    assert data is not None
    told = data.to_json() + collected.span().to_json() + caplog.text
    assert "langgraph_valkey.forks" in told
    assert "thread of" not in told


# --- hooks of the user, and failures -------------------------------------------


def test_hooks_of_the_user_are_called(collected: Collected) -> None:
    told: list[object] = []
    hooks = collected.telemetry.hooks(Hooks(told.append, told.append, told.append))
    tell(hooks, REPORT, FORK, 17)
    assert told == [REPORT, FORK, 17]


def test_failing_hooks_of_the_user_change_nothing(collected: Collected) -> None:
    def fail(_: object) -> None:
        raise ValueError("of the user")

    hooks = collected.telemetry.hooks(Hooks(on_rewind=fail, on_fork=fail))
    with pytest.raises(ValueError, match="of the user"):
        tell(hooks, REPORT)
    with pytest.raises(ValueError, match="of the user"):
        tell(hooks, FORK)
    assert collected.by_outcome("recovery.entries")["replayed"] == 5
    assert collected.values("forks") == {None: 1}
    assert collected.span().name == "langgraph_valkey.recovery"


def test_failing_telemetry_reaches_no_saver(
    collected: Collected, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(collected.telemetry._forks, "add", fail)
    told: list[object] = []
    with caplog.at_level(logging.ERROR):
        tell(collected.telemetry.hooks(Hooks(on_fork=told.append)), FORK, FORK)
    assert told == [FORK, FORK]
    assert len(caplog.records) == 1


# --- without OpenTelemetry -----------------------------------------------------


def test_without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'langgraph-valkey\[otel\]'"):
        Telemetry()


def test_opentelemetry_is_imported_only_when_used() -> None:
    program = "import sys, langgraph_valkey.telemetry; sys.exit('opentelemetry' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_without_an_sdk_nothing_is_recorded_and_nothing_fails() -> None:
    """As in a program that sets up no providers: the API alone records nothing."""
    program = """
from tests.test_telemetry import FORK, REPORT, Saver, Telemetry, tell
telemetry, saver = Telemetry(), Saver()
telemetry.observe(saver)
tell(telemetry.hooks(), REPORT, FORK)
"""
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True, timeout=60)
