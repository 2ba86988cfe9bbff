"""What a cache counts: quantiles, costs, from many threads, and as a text."""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_cache.metrics import BUCKETS_A_DECADE, SHORTEST_S, Meter, Prices, Stats
from tests.forks import holds_in_a_child

WIDTH = 10 ** (1 / BUCKETS_A_DECADE)
"""How far apart two bounds of buckets are: 12 %."""

QUANTILES = {"p50_s": Fraction(1, 2), "p95_s": Fraction(95, 100), "p99_s": Fraction(99, 100)}


def timed(*took_s: float) -> Stats:
    meter = Meter()
    for each in took_s:
        meter.lookup_took(each)
    return meter.snapshot()


# --- how long lookups take ---------------------------------------------------------


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(st.floats(SHORTEST_S, 100), min_size=1, max_size=130))
def test_quantiles_are_right_to_a_bucket(took_s: list[float]) -> None:
    stats, ordered = timed(*took_s), sorted(took_s)
    for name, part in QUANTILES.items():
        exact = ordered[math.ceil(part * len(ordered)) - 1]
        assert exact / (1 + 1e-9) <= getattr(stats, name) <= exact * WIDTH * (1 + 1e-9)


@pytest.mark.parametrize("count", [1, 2, 19, 20, 21, 99, 100, 101, 1_000])
def test_quantiles_of_many_different_times(count: int) -> None:
    took_s = [0.001 * WIDTH**at for at in range(count)] if count < 200 else [0.001] * count
    random.Random(1).shuffle(took_s)
    stats, ordered = timed(*took_s), sorted(took_s)
    for name, part in QUANTILES.items():
        exact = ordered[math.ceil(part * count) - 1]
        assert getattr(stats, name) == pytest.approx(exact, rel=0.13)
        assert getattr(stats, name) >= exact * (1 - 1e-9)


def test_without_lookups_there_are_no_quantiles() -> None:
    stats = timed()
    assert (stats.p50_s, stats.p95_s, stats.p99_s) == (None, None, None)
    assert (stats.lookups, stats.hit_rate) == (0, 0.0)


def test_a_few_slow_ones_show_in_the_last_quantile_alone() -> None:
    stats = timed(*[0.001] * 985, *[1.0] * 15)
    assert stats.p50_s == stats.p95_s == pytest.approx(0.001, rel=0.13)
    assert stats.p99_s == pytest.approx(1.0, rel=0.13)
    fewer = timed(*[0.001] * 992, *[1.0] * 8)
    assert fewer.p99_s == pytest.approx(0.001, rel=0.13)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9, SHORTEST_S])
def test_no_time_is_the_shortest(seconds: float) -> None:
    assert timed(seconds).p99_s == pytest.approx(SHORTEST_S)


def test_listeners_are_told_each_time() -> None:
    meter, one, other = Meter(), list[float](), list[float]()
    meter.lookup_took(0.1)
    meter.listen(one.append)
    meter.listen(other.append)
    for seconds in (0.25, 0.5):
        meter.lookup_took(seconds)
    assert one == other == [0.25, 0.5]


# --- what hits save ----------------------------------------------------------------


def test_hits_are_counted_with_what_they_save() -> None:
    meter = Meter(Prices(2.0, 10.0, "EUR"))
    meter.hit("exact", 1.5, {"input_tokens": 1_000, "output_tokens": 100, "total_tokens": 1_100})
    meter.hit("process", None, {})
    meter.hit("exact", 0.25, {"output_tokens": 50})
    stats = meter.snapshot()
    assert stats.hits == {"exact": 2, "process": 1}
    assert stats.saved_s == 1.75
    assert (stats.tokens_in, stats.tokens_out) == (1_000, 150)
    assert stats.cost_saved == pytest.approx((1_000 * 2 + 150 * 10) / 1e6)
    assert stats.currency == "EUR"
    assert (stats.lookups, stats.hit_rate) == (3, 1.0)


@pytest.mark.parametrize("count", ["7", None, 1.5, [7]])
def test_what_is_no_count_of_tokens_counts_for_none(count: Any) -> None:
    meter = Meter(Prices(1.0, 1.0))
    meter.hit("exact", 0.0, {"input_tokens": count, "output_tokens": 3})
    stats = meter.snapshot()
    assert (stats.tokens_in, stats.tokens_out) == (0, 3)
    assert stats.cost_saved == pytest.approx(3e-6)


def test_without_prices_there_is_no_cost() -> None:
    meter = Meter()
    meter.hit("exact", 1.0, {"input_tokens": 7})
    stats = meter.snapshot()
    assert (stats.cost_saved, stats.currency, stats.tokens_in) == (None, "", 7)
    assert Meter(Prices(1.0, 1.0)).snapshot().cost_saved == 0.0
    assert Prices(1.0, 1.0).currency == "USD"


# --- everything else ---------------------------------------------------------------


def busy() -> Meter:
    """A meter that counted a different number of everything."""
    meter = Meter(Prices(1.0, 2.0))
    for _ in range(1_200):
        meter.hit("exact", 2.0, {"input_tokens": 10, "output_tokens": 1})
    meter.hit("flight", None, {})
    for _ in range(3):
        meter.miss("stale")
    for _ in range(4):
        meter.miss("absent")
    for _ in range(5):
        meter.refused("numbers")
    meter.refused("names")
    for _ in range(6):
        meter.stored()
    meter.not_stored("full")
    meter.invalidated(7)
    meter.invalidated(2)
    meter.pending()
    meter.lookup_took(0.002)
    return meter


def test_everything_is_counted_where_it_belongs() -> None:
    stats = busy().snapshot()
    assert stats.hits == {"exact": 1_200, "flight": 1}
    assert stats.misses == {"stale": 3, "absent": 4}
    assert stats.refused == {"numbers": 5, "names": 1}
    assert (stats.stored, stats.not_stored) == (6, {"full": 1})
    assert (stats.stale_refused, stats.invalidated, stats.pending) == (3, 9, 1)
    assert stats.lookups == 1_208
    assert stats.hit_rate == 1_201 / 1_208


def test_a_snapshot_stays_as_it_is() -> None:
    meter = busy()
    before = meter.snapshot()
    meter.hit("exact", 1.0, {})
    meter.miss("slow")
    meter.refused("names")
    meter.not_stored("full")
    assert before == busy().snapshot()
    assert meter.snapshot() != before


def test_a_snapshot_is_a_table_to_read() -> None:
    assert str(busy().snapshot()).splitlines() == [
        "lookups           1,208, 99.4% hits",
        "hits              exact 1,200, flight 1",
        "misses            stale 3, absent 4",
        "refused by        numbers 5, names 1",
        "stored            6; not: full 1",
        "stale refused     3",
        "lookup p50/95/99  2.24 ms / 2.24 ms / 2.24 ms",
        "saved             2,400.0 s, 13,200 tokens",
        "                  0.0144 USD",
    ]
    assert str(Meter().snapshot()).splitlines() == [
        "lookups           0, 0.0% hits",
        "hits              -",
        "misses            -",
        "refused by        -",
        "stored            0; not: -",
        "stale refused     0",
        "lookup p50/95/99  - / - / -",
        "saved             0.0 s, 0 tokens",
    ]


class Slow(dict):
    """A usage that lets others run in the middle of being counted."""

    def get(self, *given: Any) -> Any:
        time.sleep(1e-5)
        return super().get(*given)


def test_many_threads_lose_no_count() -> None:
    meter, turns = Meter(), 200

    def count(number: int) -> None:
        for turn in range(turns):
            meter.hit("exact", 1.0, Slow(input_tokens=2, output_tokens=1))
            meter.miss("stale")
            meter.refused(f"guard {number % 2}")
            meter.lookup_took(0.001)
            if turn % 20 == 0:
                meter.snapshot()

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(count, range(8)))
    finally:
        sys.setswitchinterval(interval_s)
    stats = meter.snapshot()
    assert stats.hits == {"exact": 8 * turns}
    assert stats.misses == {"stale": 8 * turns}
    assert stats.stale_refused == 8 * turns
    assert stats.refused == {"guard 0": 4 * turns, "guard 1": 4 * turns}
    assert (stats.tokens_in, stats.tokens_out) == (16 * turns, 8 * turns)
    assert stats.saved_s == 8 * turns
    assert sum(meter._counts.took.values()) == 8 * turns


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_counts_for_itself() -> None:
    def counted(meter: Meter) -> Mapping[str, int]:
        meter.miss("absent")
        return meter.snapshot().misses

    meter = busy()
    with meter._lock:  # As if a thread of the parent were counting.
        assert holds_in_a_child(lambda: counted(meter) == {"absent": 1})
    assert meter.snapshot() == busy().snapshot()
