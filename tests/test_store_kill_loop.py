"""The store's kill loop in short, and its judge; ``make failover`` runs it for longer."""

from __future__ import annotations

import math

import pytest

from tests.kill_loop.loop import Plan, run
from tests.kill_loop.report import errors
from tests.store_kill_loop.crew import Aboard
from tests.store_kill_loop.history import Change, History
from tests.store_kill_loop.report import MUST_BE_ZERO, figures

SEED = 2
"""Its first fault is in a shard that holds many of the namespaces."""


@pytest.mark.timeout(120)
def test_no_item_is_missing_and_none_is_back_after_failovers() -> None:
    plan = Plan(failovers=3, seed=SEED, kinds=("crash", "forced"), crews=1, writers=8)
    result = run(plan, aboard=Aboard)
    found = figures(plan, result)
    print(found, errors(result), sep="\n")
    assert {name: found[name] for name in MUST_BE_ZERO} == dict.fromkeys(MUST_BE_ZERO, 0)
    assert found["failovers"] >= 3
    assert found["lost_by_store"] > 0
    assert found["acked"] > 50


@pytest.mark.timeout(120)
def test_the_control_shows_which_items_the_servers_lose() -> None:
    """Without replay the same search finds them missing, so it does look."""
    plan = Plan(failovers=1, seed=SEED, kinds=("forced",), crews=1, writers=8, replays=False)
    assert figures(plan, run(plan, aboard=Aboard))["missing_after_replay"] > 0


PUT, LATER, DELETED, BRIEF = (
    Change(1, 10.0, None, 11.0), Change(2, 12.0, None, 13.0), Change(None, 12.0, None, 13.0),
    Change(3, 12.0, 5.0, 13.0),
)  # fmt: skip
UNKNOWN, UNKNOWN_DELETION = Change(4, 12.0), Change(None, 12.0)
BESIDE = Change(5, 10.5, None, 12.5)


@pytest.mark.parametrize(
    ("changes", "seen", "at_s", "wrong"),
    [
        ([], None, 20.0, None),
        ([PUT], 1, 20.0, None),
        ([PUT], 1, 10.5, None),
        ([PUT], None, 10.5, None),
        ([PUT], None, 20.0, "missing"),
        ([PUT, LATER], 1, 20.0, "missing"),
        ([PUT, LATER], 1, 12.5, None),
        ([PUT, LATER], None, 20.0, "missing"),
        ([PUT, DELETED], None, 20.0, None),
        ([PUT, DELETED], 1, 20.0, "resurrected"),
        ([PUT, DELETED], 1, 12.5, None),
        ([PUT, BRIEF], 3, 16.0, None),
        ([PUT, BRIEF], None, 16.0, "missing"),
        ([PUT, BRIEF], None, 17.5, None),
        ([PUT, BRIEF], 3, 17.5, None),
        ([PUT, BRIEF], None, 30.0, None),
        ([PUT, BRIEF], 3, 30.0, "outlived"),
        ([PUT, BRIEF], 1, 30.0, "missing"),
        ([PUT, UNKNOWN], 1, 20.0, None),
        ([PUT, UNKNOWN], 4, 20.0, None),
        ([PUT, UNKNOWN], None, 20.0, "missing"),
        ([PUT, UNKNOWN_DELETION], None, 20.0, None),
        ([PUT, UNKNOWN_DELETION], 1, 20.0, None),
        ([PUT, BESIDE], 1, 20.0, None),
        ([PUT, BESIDE], 5, 20.0, None),
        ([PUT, BESIDE], None, 20.0, "missing"),
    ],
)
def test_what_may_be_read_of_an_item(
    changes: list[Change], seen: int | None, at_s: float, wrong: str | None
) -> None:
    history = History(list(changes))
    assert history.wrong(seen, at_s, at_s) == wrong
    history.forget(at_s)
    assert history.wrong(seen, at_s, at_s) == wrong


def test_what_is_past_is_forgotten() -> None:
    history = History()
    for value in range(5):
        change = Change(value, 10.0 * value)
        history.begin(change)
        history.end(change, 10.0 * value + 1)
    history.begin(Change(9, 100.0))
    history.forget(35.0)
    assert [each.value for each in history.changes] == [3, 4, 9]
    assert history.touched_s == 41.0
    assert math.isinf(history.changes[-1].ended_s)
