"""The kill loop in short; ``make failover`` runs it for as long as you like."""

from __future__ import annotations

import pytest

from tests.kill_loop import report
from tests.kill_loop.faults import DECK, schedule
from tests.kill_loop.loop import Plan, run

SEED = 1
FAILOVERS = 13
"""Of one deck: `failback` and `double` are two each."""


@pytest.mark.timeout(180)
def test_nothing_acknowledged_is_missing_after_a_dozen_failovers() -> None:
    """A whole deck: each kind of fault at least once."""
    plan = Plan(failovers=FAILOVERS, seed=SEED, crews=2)
    result = run(plan)
    figures = report.figures(plan, result)
    print(report.table(result), report.errors(result), report.seen_back(result), sep="\n")
    assert {name: figures[name] for name in report.MUST_BE_ZERO} == dict.fromkeys(
        report.MUST_BE_ZERO, 0
    )
    assert figures["failovers"] >= FAILOVERS
    assert set(result.kinds) >= set(DECK)
    assert figures["lost_by_store"] > 0
    assert figures["acked"] > 1000


def test_the_control_shows_what_the_store_loses() -> None:
    """Without replay the same search finds it missing, so it does look."""
    plan = Plan(failovers=2, seed=SEED, kinds=("crash",), crews=1, replays=False)
    result = run(plan)
    assert report.figures(plan, result)["missing_after_replay"] > 0


def test_a_schedule_deals_each_kind_its_share() -> None:
    dealt = schedule(SEED)
    first = [next(dealt) for _ in DECK]
    again = schedule(SEED)
    assert sorted(first) == sorted(DECK)
    assert first == [next(again) for _ in DECK]
