"""Metrics of the semantic cache, as OpenTelemetry's SDK gets to see them."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from langgraph_valkey.errors import ConfigurationError, Unreachable
from rag_cache import Computed, InvalidationPending, Prices, Scope, SemanticCache
from rag_cache.guards import Numbers
from rag_cache.telemetry import Telemetry
from tests.rag_ground import SCOPE, Bag, Caches, Caller

QUESTION, SIMILAR = "how do i reset my password", "my password how do i reset"
USAGE = {"input_tokens": 1_000, "output_tokens": 200, "total_tokens": 1_200}
ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Collected:
    """Where metrics end up."""

    reader: InMemoryMetricReader
    telemetry: Telemetry

    def metrics(self) -> dict[str, Any]:
        """Metrics by their name, without the package's."""
        data = self.reader.get_metrics_data()
        scopes = [] if data is None else data.resource_metrics[0].scope_metrics
        found = [metric for scope in scopes for metric in scope.metrics]
        return {metric.name.removeprefix("rag_cache."): metric for metric in found}

    def values(self, name: str, key: str = "") -> dict[Any, Any]:
        """Values of a metric, by one of their attributes; none if it wasn't recorded."""
        metric = self.metrics().get(name)
        points = [] if metric is None else metric.data.data_points
        by_attribute = {point.attributes.get(f"rag_cache.{key}"): point.value for point in points}
        assert len(by_attribute) == len(points)
        return by_attribute

    def by_cache(self, name: str) -> dict[Any, Any]:
        metric = self.metrics().get(name)
        points = [] if metric is None else metric.data.data_points
        return {point.attributes.get("cache"): getattr(point, "value", None) for point in points}


@pytest.fixture
def collected() -> Iterator[Collected]:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    yield Collected(reader, Telemetry(meter_provider=provider))
    provider.shutdown()


def unserved(stack: ExitStack, folder: Path) -> SemanticCache:
    """A cache whose server is away."""
    primary = f"sqlite:///{folder}/versions.db"
    cache = SemanticCache("valkey://127.0.0.1:1", embedder=Bag(), primary=primary)
    return stack.enter_context(cache)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[SemanticCache]:
    """A cache that nobody looks up in: what it counts is told by the test."""
    with ExitStack() as stack:
        yield unserved(stack, tmp_path)


# --- what is counted -----------------------------------------------------------


async def test_what_a_cache_does_is_counted(
    caches: Caches, kind: str, collected: Collected
) -> None:
    call = Caller(caches(guards=[Numbers()], prices=Prices(2.0, 10.0, "EUR")), kind)
    collected.telemetry.observe(call.cache)
    made = Computed("click", {"d1": "1"}, usage=USAGE)
    assert (await call.computed(QUESTION, made)).tier == "computed"
    assert (await call("lookup", QUESTION, SCOPE)).tier == "exact"
    assert (await call("lookup", SIMILAR, SCOPE)).tier == "process"
    assert (await call("lookup", "what is the weather in paris", SCOPE)).reason
    assert (await call("lookup", f"{QUESTION} in 7 days", SCOPE)).refusals
    miss = await call("lookup", "another question", SCOPE)
    await call("invalidate", {"d1": None, "d2": None}, corpus="handbook")
    assert (await call("lookup", QUESTION, SCOPE)).reason == "stale"
    late = await call(
        "store", "another question", SCOPE, "x", evidence={"d2": None}, fence=miss.fence
    )
    assert not late

    assert collected.values("hits", "tier") == {"exact": 1, "process": 1}
    assert collected.values("misses", "reason") == {
        "absent": 1,
        "below_threshold": 2,
        "refused": 1,
        "stale": 1,
    }
    assert collected.values("refused", "guard") == {"numbers": 1}
    assert collected.values("stale_refused") == {None: 1}
    assert collected.values("stored") == {None: 1}
    assert collected.values("not_stored", "reason") == {"stale": 1}
    assert collected.values("invalidated") == {None: 2}
    assert collected.values("invalidations.pending") == {None: 0}
    assert collected.values("saved.tokens", "token_type") == {"input": 2_000, "output": 400}
    assert collected.values("saved.cost", "currency") == {"EUR": pytest.approx(0.008)}
    [saved] = collected.values("saved.time").values()
    assert 0 <= saved == call.cache.stats().saved_s


async def test_each_lookup_takes_its_time(caches: Caches, kind: str, collected: Collected) -> None:
    call = Caller(caches(), kind)
    await call("lookup", QUESTION, SCOPE)  # Nobody listens yet.
    collected.telemetry.observe(call.cache)
    for question in (QUESTION, SIMILAR, "another"):
        await call("lookup", question, SCOPE)
    [durations] = collected.metrics()["lookup.duration"].data.data_points
    assert durations.count == 3
    assert 0 < durations.sum < 3
    assert {0.0001, 0.001, 0.05} <= set(durations.explicit_bounds)


def test_a_lookup_is_recorded_as_long_as_it_took(
    cache: SemanticCache, collected: Collected
) -> None:
    collected.telemetry.observe(cache)
    for seconds in (0.0004, 0.0004, 0.03):
        cache._meter.lookup_took(seconds)
    [durations] = collected.metrics()["lookup.duration"].data.data_points
    by_bound = dict(zip(durations.explicit_bounds, durations.bucket_counts, strict=False))
    assert {bound: count for bound, count in by_bound.items() if count} == {0.0005: 2, 0.05: 1}


def test_an_invalidation_that_is_left_pending_is_counted(
    caches: Caches, collected: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = caches(invalidate_deadline_s=0)
    collected.telemetry.observe(cache)
    assert cache.store(QUESTION, SCOPE, "click", evidence={"d1": "1"})

    async def away(*_: Any) -> Any:
        raise Unreachable("away")

    monkeypatch.setattr(cache._blocking.writes, "send", away)
    with pytest.raises(InvalidationPending):
        cache.invalidate("d1", corpus="handbook")
    assert collected.values("invalidations.pending") == {None: 1}
    assert collected.values("invalidated") == {None: 1}


def test_units(cache: SemanticCache, collected: Collected) -> None:
    meter = cache._meter
    meter._prices = Prices(1.0, 1.0)
    meter.hit("exact", 1.0, USAGE)
    meter.miss("absent")
    meter.refused("numbers")
    meter.not_stored("stale")
    collected.telemetry.observe(cache)
    meter.lookup_took(0.001)
    assert {name: metric.unit for name, metric in collected.metrics().items()} == {
        "hits": "{hit}",
        "misses": "{miss}",
        "refused": "{entry}",
        "stale_refused": "{lookup}",
        "stored": "{value}",
        "not_stored": "{value}",
        "invalidated": "{mark}",
        "invalidations.pending": "{invalidation}",
        "saved.time": "s",
        "saved.tokens": "{token}",
        "saved.cost": "{currency}",
        "lookup.duration": "s",
    }


def test_the_documentation_lists_what_there_is(cache: SemanticCache, collected: Collected) -> None:
    from rag_cache import telemetry

    assert telemetry.__doc__ is not None
    test_units(cache, collected)
    for name in collected.metrics():
        assert f"``rag_cache.{name}``" in telemetry.__doc__


def test_without_prices_there_is_no_cost(cache: SemanticCache, collected: Collected) -> None:
    collected.telemetry.observe(cache)
    cache._meter.hit("exact", 1.0, USAGE)
    assert collected.values("saved.cost", "currency") == {}
    assert collected.values("saved.tokens", "token_type")["input"] == 1_000


# --- which caches --------------------------------------------------------------


def test_several_caches_by_attributes(tmp_path: Path, collected: Collected) -> None:
    with ExitStack() as stack:
        for name, hits in (("answers", 1), ("retrieval", 3)):
            cache = unserved(stack, tmp_path)
            collected.telemetry.observe(cache, attributes={"cache": name})
            for _ in range(hits):
                cache._meter.hit("exact", None, {})
                cache._meter.lookup_took(0.001)
        assert collected.by_cache("hits") == {"answers": 1, "retrieval": 3}
        assert set(collected.by_cache("lookup.duration")) == {"answers", "retrieval"}


def test_to_observe_again_changes_attributes_and_counts_nothing_twice(
    cache: SemanticCache, collected: Collected
) -> None:
    for name in ("before", "after"):
        collected.telemetry.observe(cache, attributes={"cache": name})
    cache._meter.hit("exact", None, {})
    cache._meter.lookup_took(0.001)
    assert collected.by_cache("hits") == {"after": 1}
    [durations] = collected.metrics()["lookup.duration"].data.data_points
    assert (durations.count, durations.attributes["cache"]) == (1, "after")


def test_a_cache_is_not_kept_alive(tmp_path: Path, collected: Collected) -> None:
    with ExitStack() as stack:
        collected.telemetry.observe(unserved(stack, tmp_path))
        assert collected.values("stored") == {None: 0}
    del stack
    gc.collect()
    assert collected.metrics() == {}


async def test_what_is_of_users_stands_nowhere(
    caches: Caches, kind: str, collected: Collected, caplog: pytest.LogCaptureFixture
) -> None:
    call = Caller(caches(guards=[Numbers()], threshold=0.5), kind)
    collected.telemetry.observe(call.cache)
    scope = Scope(tenant="secret tenant", corpus="secret corpus", system_prompt="secret prompt")
    made = Computed("secret answer", {"secret document": "1"}, ["secret tag"], USAGE)
    await call.computed("secret question", made, scope)
    for question in ("secret question", "secret question 7", "question secret"):
        await call("lookup", question, scope)
    await call("invalidate", "secret document", tag="secret tag", corpus="secret corpus")
    await call("lookup", "secret question", scope)
    data = collected.reader.get_metrics_data()
    assert data is not None
    told = data.to_json() + caplog.text
    assert all(f"rag_cache.{name}" in told for name in ("hits", "refused", "stale_refused"))
    assert "secret" not in told


# --- failures ------------------------------------------------------------------


def test_what_can_not_be_read_is_logged_once(
    tmp_path: Path,
    collected: Collected,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise RuntimeError("of another world")

    with ExitStack() as stack, caplog.at_level(logging.ERROR):
        for name in ("broken", "well"):
            cache = unserved(stack, tmp_path)
            if name == "broken":
                monkeypatch.setattr(cache, "stats", fail)
            collected.telemetry.observe(cache, attributes={"cache": name})
        for _ in range(2):
            assert collected.by_cache("stored") == {"well": 0}
        assert len(caplog.records) == 1
        monkeypatch.undo()
        assert collected.by_cache("stored") == {"well": 0, "broken": 0}


async def test_a_provider_that_fails_reaches_no_lookup(
    caches: Caches,
    kind: str,
    collected: Collected,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    call = Caller(caches(), kind)
    collected.telemetry.observe(call.cache)
    monkeypatch.setattr(collected.telemetry._duration, "record", fail)
    await call("store", QUESTION, SCOPE, "click")
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            assert (await call("lookup", QUESTION, SCOPE)).value == "click"
    assert len(caplog.records) == 1


# --- without OpenTelemetry -----------------------------------------------------


def test_without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'langgraph-valkey\[otel\]'"):
        Telemetry()


def test_opentelemetry_is_imported_only_when_used() -> None:
    program = "import sys, rag_cache.telemetry; sys.exit('opentelemetry' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


def test_without_an_sdk_nothing_is_recorded_and_nothing_fails(tmp_path: Path) -> None:
    """As in a program that sets up no provider: the API alone records nothing."""
    program = """
from contextlib import ExitStack
from pathlib import Path
from tests.test_rag_telemetry import Telemetry, unserved
with ExitStack() as stack:
    cache = unserved(stack, Path("."))
    Telemetry().observe(cache)
    cache._meter.lookup_took(0.001)
    assert cache.stats().p50_s
"""
    subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=60,
    )
