"""The circuit breaker: when it opens, whom it lets through, and when it closes."""

from __future__ import annotations

import threading

import pytest

from langgraph_valkey.breaker import FAILURES_MOST, OPEN_FIRST_S, OPEN_MOST_S, Breaker


def longest(_: float, most: float) -> float:
    """Draws the upper bound."""
    return most


@pytest.fixture
def breaker() -> Breaker:
    return Breaker(longest)


def fail(breaker: Breaker, times: int, now_s: float = 0.0) -> None:
    for _ in range(times):
        assert breaker.allows(now_s)
        breaker.failed(now_s)


def test_it_opens_after_some_failures_in_a_row(breaker: Breaker) -> None:
    fail(breaker, FAILURES_MOST - 1)
    assert breaker.allows(0.0)
    breaker.succeeded(0.0)
    fail(breaker, FAILURES_MOST)
    assert not breaker.allows(0.0)
    assert not breaker.allows(OPEN_FIRST_S - 0.001)


def test_one_at_a_time_is_let_through_and_closes_it(breaker: Breaker) -> None:
    fail(breaker, FAILURES_MOST)
    assert breaker.allows(OPEN_FIRST_S)
    assert not breaker.allows(OPEN_FIRST_S)
    breaker.failed(OPEN_FIRST_S)
    assert not breaker.allows(3 * OPEN_FIRST_S - 0.001)
    assert breaker.allows(3 * OPEN_FIRST_S)
    assert not breaker.allows(3 * OPEN_FIRST_S)
    breaker.succeeded(3 * OPEN_FIRST_S)
    # It begins anew: as many failures, and as short a time.
    fail(breaker, FAILURES_MOST, 3 * OPEN_FIRST_S)
    assert not breaker.allows(4 * OPEN_FIRST_S - 0.001)
    assert breaker.allows(4 * OPEN_FIRST_S)


def test_it_stays_open_for_twice_as_long_each_time_up_to_a_bound(breaker: Breaker) -> None:
    fail(breaker, FAILURES_MOST)
    now_s, waits = 0.0, []
    for _ in range(7):
        began_s = now_s
        while not breaker.allows(now_s):
            now_s += 0.0625
        waits.append(now_s - began_s)
        breaker.failed(now_s)
    assert waits == pytest.approx([0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0])
    assert waits[-1] == OPEN_MOST_S


def test_times_are_drawn_so_that_processes_do_not_come_together() -> None:
    bounds = []

    def draw(least: float, most: float) -> float:
        bounds.append((least, most))
        return least

    breaker = Breaker(draw)
    fail(breaker, FAILURES_MOST)
    assert bounds == [(OPEN_FIRST_S / 2, OPEN_FIRST_S)]
    assert breaker.allows(OPEN_FIRST_S / 2)


def test_one_that_never_tells_is_given_up(breaker: Breaker) -> None:
    fail(breaker, FAILURES_MOST)
    assert breaker.allows(OPEN_FIRST_S)
    assert not breaker.allows(2 * OPEN_FIRST_S - 0.001)
    assert breaker.allows(2 * OPEN_FIRST_S)
    breaker.failed(2 * OPEN_FIRST_S)
    assert not breaker.allows(4 * OPEN_FIRST_S - 0.001)
    assert breaker.allows(4 * OPEN_FIRST_S)


def test_what_was_under_way_when_it_opened_does_not_hold_it_open_for_longer(
    breaker: Breaker,
) -> None:
    fail(breaker, FAILURES_MOST)
    for _ in range(50):
        breaker.failed(OPEN_FIRST_S - 0.001)
    assert breaker.allows(OPEN_FIRST_S)
    breaker.succeeded(OPEN_FIRST_S)
    assert breaker.allows(OPEN_FIRST_S)


def test_those_that_fail_together_count_once(breaker: Breaker) -> None:
    for n in range(FAILURES_MOST - 1):
        for _ in range(50):
            breaker.failed(n + 0.9, began_s=n + 0.1)
            breaker.failed(n + 0.95, began_s=n + 0.2)
        assert breaker.allows(n + 1.0)
    breaker.failed(FAILURES_MOST, began_s=FAILURES_MOST - 0.5)
    assert not breaker.allows(FAILURES_MOST)


def test_one_of_those_before_does_not_fail_in_place_of_the_one_let_through(
    breaker: Breaker,
) -> None:
    fail(breaker, FAILURES_MOST, 1.0)
    assert breaker.allows(1.0 + OPEN_FIRST_S)
    breaker.failed(1.1 + OPEN_FIRST_S, began_s=0.5)
    assert not breaker.allows(1.0 + 2 * OPEN_FIRST_S - 0.001)
    assert breaker.allows(1.0 + 2 * OPEN_FIRST_S)


def test_one_that_was_not_tried_neither_closes_it_nor_keeps_others_from_trying(
    breaker: Breaker,
) -> None:
    fail(breaker, FAILURES_MOST - 1)
    breaker.dropped(0.0)
    fail(breaker, 1)
    assert not breaker.allows(0.0)
    breaker.dropped(0.0)  # It was under way when the breaker opened.
    assert not breaker.allows(0.0)
    assert breaker.allows(OPEN_FIRST_S)
    assert not breaker.allows(OPEN_FIRST_S)
    breaker.dropped(OPEN_FIRST_S)
    assert breaker.allows(OPEN_FIRST_S)
    breaker.failed(OPEN_FIRST_S)
    assert not breaker.allows(3 * OPEN_FIRST_S - 0.001)


def test_of_many_threads_one_is_let_through(breaker: Breaker) -> None:
    fail(breaker, FAILURES_MOST)
    together = threading.Barrier(16)
    allowed: list[float] = []

    def ask() -> None:
        for step in range(1, 51):
            now_s = step * OPEN_MOST_S
            together.wait()
            if breaker.allows(now_s):
                allowed.append(now_s)
            together.wait()
            if allowed[-1] == now_s and threading.current_thread() is threads[0]:
                breaker.failed(now_s)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert allowed == [step * OPEN_MOST_S for step in range(1, 51)]
