"""What the tier has of a thread once a run is over: all that was committed, and no half turns."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_valkey.errors import Unreachable
from tests.runs_fixtures import new_trace, open_ground  # noqa: F401
from tests.runs_ground import Ground, Party, Trace, chain

IN = {"log": ["in"]}
DONE = {"log": ["in", "a", "b", "c"]}
WHERE: Any = {"configurable": {"thread_id": "t"}}


class FailingTier(InMemorySaver):
    """A tier that is away for as long as it is told to be."""

    is_away = False
    puts = 0

    def put(self, *args: Any) -> RunnableConfig:
        if self.is_away:
            raise ConnectionResetError("the disk is on fire")
        self.puts += 1
        return super().put(*args)


@pytest.fixture
def tier() -> FailingTier:
    return FailingTier()


def commits(party: Party, trace: Trace, node: str) -> None:
    """Have a node commit something, as `StateTiers.commit` does."""
    saver: Any = party.saver

    def charge() -> None:
        party.commit("charge", "1")
        saver.crossed("t")

    trace.on[node] = charge


@pytest.mark.parametrize("where", ["a", "c"])
async def test_the_tier_is_not_left_amid_a_turn(
    ground: Ground, trace: Trace, tier: FailingTier, where: str
) -> None:
    before = ground.moment("t")
    party = ground.join(tier=tier)
    graph = party.compiled(chain(trace))
    commits(party, trace, where)
    await party.run(graph, IN, thread_id="t", run_id="r")
    ground.rewind(before)  # It has expired, say.
    other = ground.join(tier=tier)
    graph = other.compiled(chain(trace))
    state = graph.get_state(WHERE)
    assert (state.values, state.next) == (DONE, ())
    trace.taken()
    assert (await other.recover(graph)).rerun == ()
    assert trace.taken() == []


async def test_a_turn_that_commits_nothing_costs_the_tier_nothing(
    ground: Ground, trace: Trace, tier: FailingTier
) -> None:
    party = ground.join(tier=tier)
    await party.run(party.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    assert tier.puts == 0


@pytest.mark.parametrize("where", ["b", "c"])
async def test_what_was_committed_reaches_the_tier_by_whoever_recovers(
    ground: Ground, trace: Trace, tier: FailingTier, where: str
) -> None:
    """The tier is away after the commit, and so the process gives up; it dies after that."""
    before = ground.moment("t")
    party = ground.join(tier=tier)
    commits(party, trace, where)
    tier.is_away = True
    with pytest.raises(Unreachable):
        await party.run(party.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    party.fall_silent()
    tier.is_away = False
    trace.on.clear()
    other = ground.join(tier=tier)
    report = await other.recover(other.compiled(chain(trace)))
    assert (report.failed, report.conflicts) == ((), ())
    ground.rewind(before)
    third = ground.join(tier=tier)
    state = third.compiled(chain(trace)).get_state(WHERE)
    assert (state.values, state.next) == (DONE, ())


async def test_a_commit_is_not_forgotten_by_who_recovers_and_dies(
    ground: Ground, trace: Trace, tier: FailingTier
) -> None:
    """It did not make the commit: it knows of it by the receipts."""
    before = ground.moment("t")
    party = ground.join(tier=tier)
    commits(party, trace, "b")
    tier.is_away = True
    with pytest.raises(Unreachable):
        await party.run(party.compiled(chain(trace, "abcd")), IN, thread_id="t", run_id="r")
    party.fall_silent()
    tier.is_away = False
    trace.on.clear()
    trace.die_at("d")
    other = ground.join(tier=tier)
    await other.dies_recovering(other.compiled(chain(trace, "abcd")))
    ground.rewind(before)
    third = ground.join(tier=tier)
    state = third.compiled(chain(trace, "abcd")).get_state(WHERE)
    assert (state.values, state.next) == (DONE, ("d",))
