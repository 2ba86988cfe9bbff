"""Clusters that are worse than documented: sloppy, of another clock, split in two."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.local import LocalCluster
from langgraph_valkey.local.log import Held, Log, Rule
from langgraph_valkey.local.node import wait_until
from langgraph_valkey.local.resp import CLUSTERDOWN
from tests.door_wire import Wire, keys_of, refused_after_s, surviving

BOUND_S = 0.4
LATE_S = 0.3
FAST_MS = 500


# --- the rule alone, on a clock that the test turns ----------------------------------


class Following:
    """A replica's connection, as the log sees it."""

    def __init__(self) -> None:
        self.held = Held()
        self.follows = True

    def deliver(self) -> None:
        self.held.clear()

    def cut(self) -> None:
        self.held.clear()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now_s = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    yield now_s
    monkeypatch.undo()


def bounds_drawn(log: Log, clock: list[float], count: int, step_s: float) -> list[float]:
    """At what age writes begin to be refused, stall after stall."""
    follower = Following()
    log.followers.add(follower)
    drawn = []
    for _ in range(count):
        began_s = clock[0]
        follower.held.put(log.rule.now_s(), b"x" * 100, writes=True)
        while not log.refuses():
            clock[0] += step_s
        drawn.append(clock[0] - began_s)
        log.release()
        assert not log.refuses()
        clock[0] += 1
    return drawn


def test_a_sloppy_bound_is_drawn_anew_each_time(clock: list[float]) -> None:
    rule = Rule("async", lag_bound_s=10, sloppy_s=4, seed=7)
    drawn = bounds_drawn(Log(rule, 0), clock, 60, 0.01)
    assert all(10 <= each <= 14.02 for each in drawn)
    assert min(drawn) < 10.5
    assert max(drawn) > 13.5
    again = bounds_drawn(Log(rule, 0), clock, 60, 0.01)
    assert again == pytest.approx(drawn)
    assert bounds_drawn(Log(rule, 1), clock, 3, 0.01) != pytest.approx(drawn[:3])


@pytest.mark.parametrize("rate", [0.5, 1.0, 2.0])
def test_a_clock_of_another_speed_keeps_its_own_bound(clock: list[float], rate: float) -> None:
    log = Log(Rule("async", lag_bound_s=10, clock_rate=rate), 0)
    assert bounds_drawn(log, clock, 3, 0.01) == pytest.approx([10 / rate] * 3, abs=0.03)


def test_a_follower_that_leaves_takes_no_age_with_it(clock: list[float]) -> None:
    log, first, second = Log(Rule("async"), 0), Following(), Following()
    log.followers |= {first, second}
    first.held.put(log.rule.now_s(), b"*3...SET", writes=True)
    clock[0] += 3
    log.lost(first)
    assert log.age_s() == 0.0, "the other one has it"
    second.held.put(log.rule.now_s(), b"*3...SET", writes=True)
    clock[0] += 2
    log.lost(second)
    clock[0] += 2
    assert log.age_s() == pytest.approx(4.0), "nobody has it"
    log.answered(log.rule.now_s())
    assert log.age_s() == pytest.approx(4.0)
    log.follows()
    assert log.age_s() == 0.0


# --- whole clusters ------------------------------------------------------------------


def test_a_sloppy_cluster_refuses_somewhere_in_its_range() -> None:
    with LocalCluster(1, 1, durability="async", lag_bound_s=0.2, sloppy_s=0.4, seed=3) as cluster:
        node, [key] = cluster.primary(0), keys_of(cluster, 0, 1)
        taken_s = []
        for _ in range(4):
            cluster.hold_log(0)
            taken_s.append(refused_after_s(node, key, 0.6 + LATE_S))
            cluster.release_log(0)
        assert all(0.2 <= each < 0.6 + LATE_S for each in taken_s)
        assert max(taken_s) - min(taken_s) > 0.05


def test_a_slow_clock_accepts_for_longer() -> None:
    with LocalCluster(1, 1, durability="async", lag_bound_s=0.5, clock_rate=0.5) as cluster:
        node, [key] = cluster.primary(0), keys_of(cluster, 0, 1)
        cluster.hold_log(0)
        assert 1.0 <= refused_after_s(node, key, 1.0 + LATE_S) < 1.0 + LATE_S
        assert 0.5 < cluster.lag_s(0) < 0.5 + LATE_S
        cluster.release_log(0)
        cluster.set_lag(0, 0.2)
        assert node.command("SET", key, "lagging") == b"OK"
        began_s = time.monotonic()
        assert wait_until(lambda: cluster.lag_s(0) > 0, 0.1)
        assert wait_until(lambda: cluster.lag_s(0) == 0.0, 1.0)
        assert 0.3 < time.monotonic() - began_s < 0.4 + LATE_S


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalCluster]:
    with LocalCluster(durability="async", lag_bound_s=BOUND_S, node_timeout_ms=FAST_MS) as cluster:
        yield cluster


@pytest.mark.parametrize("unbounded", [False, True])
def test_a_split_primary_acknowledges_what_is_lost(shared: LocalCluster, unbounded: bool) -> None:
    keys = keys_of(shared, 0, 200)
    kept, lost = keys[:20], keys[20:]
    node = shared.primary(0)
    with Wire(node.port) as wire:
        for key in kept:
            assert wire("SET", key, 1) == b"OK"
        old = shared.split_primary(0, unbounded=unbounded)
        assert old is node is not shared.primary(0)
        assert old not in shared.replicas(0)
        acknowledged, answer = list[str](), None
        began_s = time.monotonic()
        while answer != CLUSTERDOWN and time.monotonic() < began_s + 2 * BOUND_S:
            key = lost[len(acknowledged)]
            [answer] = wire.pipeline(("SET", key, 1))
            acknowledged += [key] if answer == b"OK" else []
            time.sleep(0.01)
        took_s = time.monotonic() - began_s
        assert unbounded == (answer == b"OK")
        assert unbounded or BOUND_S <= took_s < BOUND_S + LATE_S
        assert len(acknowledged) > 10
        assert surviving(old, keys) == kept + acknowledged
    assert surviving(shared.primary(0), keys) == kept
    shared.heal(0)
    assert old in shared.replicas(0)
    assert surviving(shared.primary(0), keys) == kept
    # Both serve again: the old one may be promoted, and persists as before.
    shared.wait_replicated(0)
    assert shared.promote(0) is old
    with Wire(old.port) as wire:
        assert wire("SET", lost[0], 2) == b"OK"
    shared.wait_replicated(0)
    assert shared.lag_s(0) == 0.0


def test_a_thawed_primary_acknowledges_for_a_moment(shared: LocalCluster) -> None:
    """What it had not persisted when it froze is lost, and so is what it then says."""
    keys = keys_of(shared, 1, 40)
    old = shared.primary(1)
    with Wire(old.port) as wire:
        shared.hold_log(1)
        for key in keys[:20]:
            assert wire("SET", key, 1) == b"OK"
        shared.freeze_primary(1)
        wire.send(*(("SET", key, 1) for key in keys[20:]))
        shared.wait_healthy()
        shared.resume(1)
        answers = [wire.receive() for _ in keys[20:]]
    assert answers == [b"OK"] * 20
    shared.wait_healthy()
    assert surviving(shared.primary(1), keys) == []
    assert shared.replicas(1) == (old,)


def test_splitting_works_without_durability(three_shards: LocalCluster) -> None:
    with pytest.raises(ConfigurationError, match="no running replica"):
        three_shards.split_primary(2)
    with LocalCluster(3, 1, node_timeout_ms=FAST_MS) as cluster:
        [key] = keys_of(cluster, 2, 1)
        old = cluster.split_primary(2)
        assert old.command("SET", key, "lost") == b"OK"
        cluster.restart_node(old)
        cluster.wait_healthy()
        assert cluster.replicas(2) == (old,)
        assert surviving(cluster.primary(2), [key]) == []
