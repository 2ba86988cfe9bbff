"""Both watermarks, and the conditions without which they would lose writes.

All rules stand side by side in the same simulated runs; see `watermark_world`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langgraph_valkey.loss_window.watermark import (
    CONFIRMED_AFTER,
    LOOKS_MOST,
    MARGIN,
    NOTHING_YET,
    SAMPLES_A_BOUND,
    AsyncWatermark,
    ReplicatedWatermark,
)
from tests.watermark_world import (
    BOUND_S,
    CLOCK_RATES,
    HEARTBEAT_S,
    SLOPPY_S,
    ZOMBIE_MOST_S,
    AgeRing,
    Ring,
    Story,
    World,
    ran,
    traffic,
)

SEEDS = range(300)
BEHIND_S = BOUND_S * (1 + MARGIN)
CONFIRM_S = BOUND_S * CONFIRMED_AFTER
SPACING_S = BOUND_S / SAMPLES_A_BOUND
FORGET_S = 60.0
TIME_S = 1e-6
"""What the arithmetic of floats may be off by."""


# --- async durability: the rule, and what is not enough ---------------------------


class NoMargin(AsyncWatermark):
    def __init__(self, lag_bound_s: float) -> None:
        super().__init__(lag_bound_s)
        self._behind_s = lag_bound_s


class HalfMargin(AsyncWatermark):
    def __init__(self, lag_bound_s: float) -> None:
        super().__init__(lag_bound_s)
        self._behind_s = lag_bound_s * 1.5


class NoConfirmation(AsyncWatermark):
    def __init__(self, lag_bound_s: float) -> None:
        super().__init__(lag_bound_s)
        self._confirm_s = 0.0


class ConfirmedFromSending(AsyncWatermark):
    def accepted(self, sent_s: float, acked_s: float) -> None:
        super().accepted(sent_s, sent_s)


AGES_S = (10, 15, 20)
WEAKER: dict[str, Callable[[], Ring]] = {
    "no margin": lambda: Ring(lambda: NoMargin(BOUND_S)),
    "a margin of half a bound": lambda: Ring(lambda: HalfMargin(BOUND_S)),
    "no confirmation": lambda: Ring(lambda: NoConfirmation(BOUND_S)),
    "confirmed from sending": lambda: Ring(lambda: ConfirmedFromSending(BOUND_S)),
    "one for all primaries": lambda: Ring(one_for_all=True),
    "no re-stamping": lambda: Ring(restamps=False),
}


@dataclass
class Tally:
    """What came of all runs under one rule: unreplayable writes, and in which runs."""

    writes: int = 0
    seeds: list[int] = field(default_factory=list)


@dataclass
class Runs:
    """All runs: under each rule, what was lost in all, and what was not there at the end."""

    rules: dict[str, Tally]
    lost: int = 0
    failovers: int = 0
    not_restored: list[int] = field(default_factory=list)

    def table(self) -> str:
        seeds = len(SEEDS)
        lines = [f"{seeds} runs, {self.failovers} failovers, {self.lost} acknowledged writes lost"]
        lines.append(f"{'kept':<28}{'unreplayable':>14}{'share':>8}{'in runs':>9}  seeds")
        for name, tally in self.rules.items():
            share = f"{100 * tally.writes / self.lost:.1f} %"
            runs = len(tally.seeds)
            lines.append(f"{name:<28}{tally.writes:>14}{share:>8}{runs:>9}  {tally.seeds[:5]}")
        return "\n".join(lines)


@cache
def runs() -> Runs:
    makers: dict[str, Callable[[], Ring]] = {"the rule": Ring}
    makers |= {f"the last {age_s} s": partial(AgeRing, age_s) for age_s in AGES_S}
    makers |= WEAKER
    out = Runs({name: Tally() for name in makers})
    for seed in SEEDS:
        rings = {name: make() for name, make in makers.items()}
        world = ran(seed, list(rings.values()))
        out.lost += len(world.lost)
        out.failovers += len(world.story.failovers)
        if world.missing:
            out.not_restored.append(seed)
        for name, ring in rings.items():
            if ring.unreplayable:
                out.rules[name].writes += len(ring.unreplayable)
                out.rules[name].seeds.append(seed)
    return out


def test_nothing_lost_is_unreplayable() -> None:
    """And at the end of each run everything acknowledged is there."""
    print("\n" + runs().table())
    assert runs().lost > 5_000
    assert runs().rules["the rule"] == Tally(), f"seeds {runs().rules['the rule'].seeds}"
    assert not runs().not_restored, f"seeds {runs().not_restored}"


@pytest.mark.parametrize("age_s", AGES_S)
def test_keeping_the_last_seconds_is_not_enough(age_s: int) -> None:
    assert runs().rules[f"the last {age_s} s"].writes > runs().lost / 20


@pytest.mark.parametrize("name", WEAKER)
def test_each_condition_is_needed(name: str) -> None:
    assert runs().rules[name].seeds, f"nothing was lost with {name}"


def test_the_constants_cover_the_worst_of_the_world() -> None:
    assert SLOPPY_S / min(CLOCK_RATES) < BEHIND_S
    assert ZOMBIE_MOST_S < CONFIRM_S


def calm(seed: int, rate_per_s: float | None) -> World:
    """Ten minutes without a fault; traffic in bursts, or at one rate."""
    rng = random.Random(seed)
    times = [n / rate_per_s for n in range(int(600 * rate_per_s))] if rate_per_s else []
    if rate_per_s is None:
        times = list(traffic(rng, 600))
    story = Story(1.0, [BOUND_S], [(600.0, 600.0)], [], times, 1.0, first_sent=False)
    return World(story, rng, [Ring()]).run()


@pytest.mark.parametrize("rate_per_s", [0.05, 20, None])
def test_in_calm_weather_the_ring_does_not_grow(rate_per_s: float | None) -> None:
    """An entry is held for 21 s and a heartbeat, and trimmed at the next second.

    The slack is for the spacing of samples and rare delays of the network.
    """
    most_s = 21.0 + 2 * HEARTBEAT_S + 1.5
    for seed in range(5):
        world = calm(seed, rate_per_s)
        oldest_s = max(age_s for _, age_s in world.oldest_s)
        assert 1.0 < oldest_s <= most_s, f"seed {seed}"
        assert not world.rings[0].entries, f"seed {seed}: not empty after a quiet time"


# --- async durability: the definition ----------------------------------------------

ACKS = st.lists(
    st.tuples(
        st.floats(0.0, 8.0),
        st.one_of(st.floats(0.0, 0.01), st.floats(0.0, 40.0)),
        st.integers(0, 19).map(lambda drawn: drawn == 0),
    ),
    max_size=60,
)
"""Acknowledgements: how long after the one before, how long after sending, and whether
the watermark is reset first."""


@settings(derandomize=True, max_examples=300, deadline=None)
@given(ACKS)
def test_never_above_what_was_confirmed(acks: list[tuple[float, float, bool]]) -> None:
    """A sample counts once a write was sent half a bound after its acknowledgement."""
    watermark = AsyncWatermark(BOUND_S)
    now, before = 0.0, NOTHING_YET
    allowed = reached = NOTHING_YET
    heard: list[tuple[float, float]] = []
    for pause_s, took_s, resets in acks:
        if resets:
            watermark.reset()
            heard.clear()
        now += pause_s
        sent = now - took_s
        watermark.accepted(sent, now)
        confirmed = [b for b, acked in heard if acked <= sent - CONFIRM_S]
        allowed = max([allowed, *(b - BEHIND_S for b in confirmed)])
        heard.append((sent, now))
        assert before <= watermark.durable_s <= allowed
        before = watermark.durable_s
        # Nor is it far below: samples close to one another stand for each other, and
        # where acknowledgements come in the order of sending nothing else is left out.
        if took_s <= 0.01 and all(a - b <= 0.01 for b, a in heard):
            reached = max([reached, *(b - BEHIND_S for b in confirmed)])
            assert watermark.durable_s >= reached - SPACING_S - 0.01 - TIME_S


def test_it_takes_no_more_samples_than_it_needs() -> None:
    watermark = AsyncWatermark(BOUND_S)
    for millisecond in range(60_000):
        watermark.accepted(millisecond / 1000, millisecond / 1000 + 0.001)
    assert len(watermark._accepted) <= SAMPLES_A_BOUND * CONFIRMED_AFTER + 2
    assert watermark.durable_s == pytest.approx(60 - BEHIND_S - CONFIRM_S, abs=2 * SPACING_S)


def test_a_reset_asks_for_a_confirmation_of_later_writes() -> None:
    watermark = AsyncWatermark(BOUND_S)
    watermark.accepted(0.0, 0.0)
    watermark.reset()
    watermark.accepted(6.0, 6.0)
    assert watermark.durable_s == NOTHING_YET
    watermark.accepted(11.0, 11.0)
    assert watermark.durable_s == 6.0 - BEHIND_S


# --- plain replication ---------------------------------------------------------------


@dataclass
class Replica:
    """Where it is in the stream, whether it is connected, when it last was at a look."""

    offset: int = 0
    connected: bool = True
    seen_s: float = NOTHING_YET


def stirred(rng: random.Random, replicas: dict[str, Replica], written: int) -> None:
    """Each replica goes on, or lags, leaves, comes back, or starts anew; others join."""
    if len(replicas) < 4 and rng.random() < 0.02:
        replicas[f"replica {len(replicas)}"] = Replica(offset=written)
    for replica in replicas.values():
        if rng.random() < 0.05:
            replica.connected = not replica.connected
        if replica.connected and rng.random() < 0.6:
            replica.offset += int((written - replica.offset) * rng.choice([1, rng.random(), 0]))


@pytest.mark.parametrize("seed", range(40))
def test_replicas_have_what_is_claimed(seed: int) -> None:
    """All that were connected in the last minute, whether or not they are now."""
    rng = random.Random(seed)
    watermark = ReplicatedWatermark(FORGET_S)
    replicas = {f"replica {n}": Replica() for n in range(rng.randrange(3))}
    acked: list[tuple[float, int]] = []
    now, written, claims = 0.0, 0, 0
    for _ in range(500):
        now += rng.expovariate(1)
        for _ in range(rng.choice([0, 1, 5])):
            written += rng.randrange(1, 1000)
            acked.append((now, written))
        asked = now
        now += rng.expovariate(100)
        stirred(rng, replicas, written)
        told = {name: r.offset for name, r in replicas.items() if r.connected}
        for name in told:
            replicas[name].seen_s = asked
        before = watermark.durable_s
        watermark.looked(asked, written, told)
        known = [r.offset for r in replicas.values() if asked - r.seen_s <= FORGET_S]
        assert watermark.durable_s >= before, f"seed {seed}"
        if watermark.durable_s > before:
            claims += 1
            durable = max((at for s, at in acked if s <= watermark.durable_s), default=0)
            assert known, f"seed {seed}: claimed without replicas"
            assert durable <= min(known), f"seed {seed}: a replica does not have it"
    assert claims or not replicas, f"seed {seed}: never claimed anything"


def test_without_replicas_nothing_is_claimed() -> None:
    watermark = ReplicatedWatermark(FORGET_S)
    for second in range(3 * LOOKS_MOST):
        watermark.looked(float(second), 100, {})
    assert (watermark.durable_s, watermark.lag_s) == (NOTHING_YET, None)
    assert len(watermark._looks) <= LOOKS_MOST
    watermark.looked(5000.0, 100, {"new": 100})
    assert (watermark.durable_s, watermark.lag_s) == (5000.0, 0.0)


def test_one_that_comes_does_not_stand_for_one_that_left() -> None:
    watermark = ReplicatedWatermark(FORGET_S)
    watermark.looked(0.0, 100, {"a": 100})
    watermark.looked(1.0, 200, {"a": 100})
    assert (watermark.durable_s, watermark.lag_s) == (0.0, 1.0)
    watermark.looked(2.0, 300, {"b": 300})
    assert (watermark.durable_s, watermark.lag_s) == (0.0, 2.0)
    watermark.looked(2.0 + FORGET_S, 400, {"b": 400})
    assert (watermark.durable_s, watermark.lag_s) == (2.0 + FORGET_S, 0.0)
    watermark.looked(3.0 + 2 * FORGET_S, 400, {})
    assert (watermark.durable_s, watermark.lag_s) == (2.0 + FORGET_S, None)


def test_each_replica_is_waited_for_from_when_it_left_itself() -> None:
    watermark = ReplicatedWatermark(FORGET_S)
    watermark.looked(0.0, 100, {"a": 100, "b": 100, "c": 100})
    watermark.looked(FORGET_S - 1, 200, {"a": 200, "b": 100})
    watermark.looked(FORGET_S + 1, 300, {"a": 300})
    assert watermark.durable_s == 0.0


LOOKS = st.lists(
    st.tuples(
        st.floats(0.0, 30.0),
        st.integers(0, 1000),
        st.dictionaries(st.sampled_from("abc"), st.integers(0, 2000)),
    ),
    max_size=60,
)
"""Looks: how long after the one before, how much was written since, and by how much
each replica that is connected lags."""


@settings(derandomize=True, max_examples=300, deadline=None)
@given(LOOKS)
def test_never_above_what_all_replicas_told(looks: list[tuple[float, int, dict[str, int]]]) -> None:
    watermark = ReplicatedWatermark(FORGET_S)
    now, written = 0.0, 0
    told: dict[str, tuple[float, int]] = {}
    asked: list[tuple[float, int]] = []
    for pause_s, more, lags in looks:
        now, written = now + pause_s, written + more
        offsets = {name: max(0, written - lag) for name, lag in lags.items()}
        before = watermark.durable_s
        watermark.looked(now, written, offsets)
        told |= {name: (now, offset) for name, offset in offsets.items()}
        asked.append((now, written))
        waited_for = [at for seen, at in told.values() if seen >= now - FORGET_S]
        all_have = min(waited_for, default=-1)
        allowed = max((at for at, point in asked if point <= all_have), default=NOTHING_YET)
        assert watermark.durable_s == max(before, allowed)
        assert watermark.lag_s is None or watermark.lag_s == now - watermark.durable_s


def test_a_reset_forgets_the_looks() -> None:
    watermark = ReplicatedWatermark(FORGET_S)
    watermark.looked(0.0, 100, {"a": 0})
    watermark.reset()
    watermark.looked(1.0, 200, {"a": 150})
    assert watermark.durable_s == NOTHING_YET
