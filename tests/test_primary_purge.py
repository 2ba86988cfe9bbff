"""What is kept however old it is, since something still needs it; on every store and both faces."""

from __future__ import annotations

import asyncio

import pytest

from langgraph_valkey.primary.records import (
    CommitKey,
    CommitRequest,
    Purged,
    Receipt,
    Run,
    RunEnd,
    Scope,
)
from tests.primary_ground import (
    ABOUT,
    Ground,
    new_run,
    started,
)

FINISHED = RunEnd("finished", "head", 0)


def within(run: Run, key: str = "A17", scope: Scope = "turn", **given: object) -> CommitRequest:
    """A request for a commit in a run's turn."""
    thread_id = "" if scope == "global" else run.thread_id
    turn_id = run.turn_id if scope == "turn" else ""
    named = CommitKey("charge", key, scope, thread_id, turn_id)
    return CommitRequest(named, ABOUT, run.thread_id, run.turn_id, run.fence, **given)  # type: ignore[arg-type]


async def committed(ground: Ground, request: CommitRequest) -> Receipt:
    receipt = await ground.call("commit", request, ground.adding(1))
    assert isinstance(receipt, Receipt)
    return receipt


async def purged(ground: Ground) -> Purged:
    """Drop all that may be dropped."""
    await asyncio.sleep(0.02)
    found = await ground.call("purge", 0.001)
    assert isinstance(found, Purged)
    return found


# --- commits of turns that may be run again -------------------------------------------------


async def test_a_commit_is_kept_while_its_turn_may_be_run_again(ground: Ground) -> None:
    """Running, claimed or ended: until it is settled, whoever recovers may run it again."""
    run = await started(ground)
    await committed(ground, within(run))
    assert (await purged(ground)).commits == 0
    run = await ground.call("claim_run", run.fence, "another")
    assert (await purged(ground)).commits == 0
    assert (await committed(ground, within(run))).replayed
    assert await ground.call("end_run", run.fence, FINISHED)
    assert (await purged(ground)).commits == 0
    assert [each.key for each in await ground.call("receipts", "thread", "run")] == ["A17"]
    assert await ground.balance() == 1
    assert await ground.call("settle_runs", [run.fence]) == 1
    assert await purged(ground) == Purged(commits=1, runs=1, tombstones=0)
    assert await ground.call("receipts", "thread", "run") == []


@pytest.mark.parametrize("scope", ["thread", "global"])
async def test_whatever_its_key_is_unique_within(ground: Ground, scope: Scope) -> None:
    run = await started(ground)
    await committed(ground, within(run, scope=scope))
    assert (await purged(ground)).commits == 0
    await ground.call("end_run", run.fence, RunEnd("failed", "", 0))
    assert (await purged(ground)).commits == 1


async def test_any_unsettled_run_of_the_turn_keeps_it(ground: Ground) -> None:
    """The run that committed was interrupted and is settled; the one that resumed it is not."""
    first = await started(ground, new_run("first", turn_id="turn"))
    await committed(ground, within(first))
    await ground.call("end_run", first.fence, RunEnd("interrupted", "head", 0))
    assert await ground.call("settle_runs", [first.fence]) == 1
    second = await started(ground, new_run("second", turn_id="turn"))
    assert await purged(ground) == Purged(commits=0, runs=1, tombstones=0)
    assert (await committed(ground, within(second))).replayed


async def test_runs_of_other_turns_and_threads_keep_nothing(ground: Ground) -> None:
    done = await started(ground, new_run("done", turn_id="turn"))
    await committed(ground, within(done))
    await ground.call("end_run", done.fence, RunEnd("failed", "", 0))
    await started(ground, new_run("next", turn_id="another turn"))
    other = await started(ground, new_run("other", "another thread", turn_id="turn"))
    await committed(ground, within(other))
    assert await purged(ground) == Purged(commits=1, runs=1, tombstones=0)
    assert await ground.call("receipt", within(done).key) is None
    assert await ground.call("receipt", within(other).key) is not None


# --- what stands beside ---------------------------------------------------------------------


async def test_receipts_tell_of_all_that_is_kept(ground: Ground) -> None:
    """Else whoever runs the turn again would be told nothing, and the key would still hold."""
    run = await started(ground)
    await committed(ground, within(run, "plain"))
    await committed(ground, within(run, "sends", outbox=(("mail", "1"),)))
    await ground.call("end_run", run.fence, RunEnd("failed", "", 0))
    assert (await purged(ground)).commits == 1
    assert [each.key for each in await ground.call("receipts", "thread", "run")] == ["sends"]
    assert await ground.call("receipt", within(run, "sends").key) is not None


async def test_a_durable_delete_is_kept_until_the_server_knows_it(ground: Ground) -> None:
    told = await ground.call("bury", "told")
    await ground.call("buried", told, "1-stamp")
    untold = await ground.call("bury", "untold")
    again = await ground.call("bury", "again")
    await ground.call("buried", again, "1-stamp")
    again = await ground.call("bury", "again")
    assert (await purged(ground)).tombstones == 1
    assert await ground.call("tombstone", "told") is None
    assert await ground.call("tombstone", "untold") is not None
    assert await ground.call("tombstone", "again") is not None
    await ground.call("buried", untold, "2-stamp")
    await ground.call("buried", again, "2-stamp")
    assert (await purged(ground)).tombstones == 2


async def test_durable_deletes_may_have_another_age(ground: Ground) -> None:
    await ground.call("buried", await ground.call("bury", "thread"), "1-stamp")
    await asyncio.sleep(0.02)
    assert (await ground.call("purge", 0.001, 60.0)).tombstones == 0
    assert (await ground.call("purge", 60.0, 0.001)).tombstones == 1
