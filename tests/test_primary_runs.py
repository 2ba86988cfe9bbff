"""The run registry, on every store and both faces."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from langgraph_valkey.primary.records import Fence, Outcome, Run, RunEnd
from tests.primary_ground import (
    Ground,
    after,
    gathered,
    new_run,
    started,
)

FOREVER_S = 1_000.0
FINISHED = RunEnd("finished", "head", 2)


async def ended(ground: Ground, run: Run, outcome: Outcome = "finished") -> Run:
    """End a run; as it is then."""
    assert await ground.call("end_run", run.fence, replace(FINISHED, outcome=outcome))
    found: Run = await ground.call("run", run.run_id)
    return found


async def test_a_run_is_recorded_whole(ground: Ground) -> None:
    await ground.call("alive", "me", FOREVER_S)
    before_s = time.time()
    new = new_run()
    run = await started(ground, new)
    told = {"run_id", "thread_id", "turn_id", "graph", "face", "input", "context", "owner"}
    assert {name: getattr(run, name) for name in told} == {
        name: getattr(new, name) for name in told
    }
    assert run.input_sha256 == new.input_sha256
    assert (run.number, run.attempt, run.owner_alive) == (1, 1, True)
    assert (run.state, run.outcome, run.head, run.writes) == ("running", "", "", 0)
    assert before_s - 2 < run.started_s < time.time() + 2
    assert run.ended_s is None
    assert await ground.call("run", "run") == run
    assert await ground.call("run", "no such run") is None


async def test_a_run_is_recorded_once(ground: Ground) -> None:
    first = await started(ground)
    again = await ground.call("start_run", new_run(input=b"other", owner="other"))
    assert (again.run, again.is_new, again.before) == (first, False, ())
    elsewhere = await ground.call("start_run", new_run(thread_id="elsewhere"))
    assert (elsewhere.run, elsewhere.is_new) == (first, False)
    assert (await started(ground, new_run("next", "elsewhere"))).number == 1


async def test_runs_of_a_thread_are_numbered(ground: Ground) -> None:
    runs = [await started(ground, new_run(f"run {n}")) for n in range(3)]
    assert [run.number for run in runs] == [1, 2, 3]
    third = await ground.call("start_run", new_run("run 3", owner="other"))
    assert third.before == tuple(runs)
    again = await ground.call("start_run", new_run("run 1"))
    assert again.before == (runs[0],)
    assert (await started(ground, new_run("elsewhere", "other thread"))).number == 1


async def test_a_run_waits_for_a_living_one_of_its_thread(ground: Ground) -> None:
    await ground.call("alive", "me", FOREVER_S)
    first = await started(ground)
    refused = await ground.call("start_run", new_run("next", owner="other"))
    assert (refused.run, refused.is_new, refused.before) == (None, False, (first,))
    assert await ground.call("run", "next") is None
    done = await ended(ground, first)
    second = await ground.call("start_run", new_run("next", owner="other"))
    assert (second.is_new, second.before) == (True, (done,))
    assert second.run.number > first.number
    await ground.call("settle_runs", [first.fence])
    await ground.call("end_run", second.run.fence, FINISHED)
    third = await ground.call("start_run", new_run("last", owner="other"))
    assert [run.run_id for run in third.before] == ["next"]


async def test_of_runs_at_once_one_is_started(ground: Ground) -> None:
    await ground.call("alive", "me", FOREVER_S)
    results = await gathered([ground.call("start_run", new_run(f"run {n}")) for n in range(8)])
    assert sum(result.is_new for result in results) == 1
    same = await gathered(
        [ground.call("start_run", new_run("same", "other thread")) for _ in range(8)]
    )
    assert sum(result.is_new for result in same) == 1
    assert {result.run.run_id for result in same} == {"same"}


async def test_a_run_ends_and_is_settled(ground: Ground) -> None:
    run = await started(ground)
    done = await ended(ground, run)
    assert (done.state, done.outcome, done.head, done.writes) == ("ended", "finished", "head", 2)
    assert done.ended_s is not None
    assert done.input == run.input
    assert await ground.call("end_run", run.fence, FINISHED)  # Its answer was lost.
    assert await ground.call("settle_runs", [run.fence, Fence("nowhere", 1)]) == 1
    settled = await ground.call("run", "run")
    assert (settled.state, settled.outcome, settled.input) == ("settled", "finished", b"")
    assert settled.input_sha256 == run.input_sha256
    assert await ground.call("settle_runs", [run.fence]) == 0
    assert await ground.call("end_run", run.fence, RunEnd("failed", "", 0))
    assert await ground.call("run", "run") == settled
    assert await ground.call("claim_run", run.fence, "me") is None
    assert await ground.call("settle_runs", []) == 0


async def test_who_was_told_of_a_failure_has_nothing_left_to_settle(ground: Ground) -> None:
    for outcome in ("failed", "cancelled"):
        run = await started(ground, new_run(outcome))
        done = await ended(ground, run, outcome)
        assert (done.state, done.outcome, done.input) == ("settled", outcome, b"")
    interrupted = await ended(ground, await started(ground, new_run()), "interrupted")
    assert (interrupted.state, interrupted.outcome) == ("ended", "interrupted")


async def test_only_ended_runs_are_settled_and_only_by_their_last_attempt(ground: Ground) -> None:
    run = await started(ground)
    assert await ground.call("settle_runs", [run.fence]) == 0
    taken = await ground.call("claim_run", run.fence, "other")
    assert not await ground.call("end_run", run.fence, FINISHED)
    assert (await ground.call("run", "run")).state == "running"
    await ended(ground, taken)
    assert await ground.call("settle_runs", [run.fence]) == 0
    assert await ground.call("settle_runs", [taken.fence]) == 1


async def test_a_silent_owners_run_is_claimed_once(ground: Ground) -> None:
    run = await started(ground)
    claims = await gathered([ground.call("claim_run", run.fence, f"other {n}") for n in range(8)])
    [taken] = [claim for claim in claims if claim is not None]
    assert taken.fence == after(run.fence)
    assert taken.owner.startswith("other ")
    assert (taken.input, taken.number, taken.started_s) == (run.input, 1, run.started_s)
    assert await ground.call("run", "run") == taken
    assert await ground.call("claim_run", run.fence, "other") is None
    assert await ground.call("claim_run", Fence("nowhere", 1), "other") is None


async def test_a_living_owner_keeps_its_runs(ground: Ground) -> None:
    await ground.call("alive", "me", FOREVER_S)
    run = await started(ground)
    assert await ground.call("claim_run", run.fence, "other") is None
    mine = await ground.call("claim_run", run.fence, "me")
    assert (mine.fence, mine.owner_alive) == (after(run.fence), True)
    await ground.call("alive", "me", 0)
    taken = await ground.call("claim_run", mine.fence, "other")
    assert (taken.owner, taken.owner_alive) == ("other", False)


async def test_a_released_run_is_anybodys(ground: Ground) -> None:
    await ground.call("alive", "me", FOREVER_S)
    run = await started(ground)
    await ground.call("release_run", replace(run.fence, attempt=2))
    assert (await ground.call("run", "run")).owner == "me"
    await ground.call("release_run", run.fence)
    released = await ground.call("run", "run")
    assert (released.owner, released.owner_alive, released.state) == ("", False, "running")
    assert (await ground.call("claim_run", run.fence, "other")).owner == "other"


async def test_an_ended_run_that_is_claimed_runs_again(ground: Ground) -> None:
    run = await ended(ground, await started(ground))
    taken = await ground.call("claim_run", run.fence, "other")
    assert (taken.state, taken.outcome, taken.head, taken.writes) == ("running", "", "", 0)
    assert taken.ended_s is None


async def test_an_owner_is_believed_for_its_time(ground: Ground) -> None:
    run = await started(ground)
    await ground.call("alive", "me", 0.3)
    assert (await ground.call("run", "run")).owner_alive
    await asyncio.sleep(0.35)
    assert not (await ground.call("run", "run")).owner_alive
    await ground.call("alive", "me", FOREVER_S)
    [listed] = await ground.call("unsettled_runs", limit=5)
    assert (listed.run_id, listed.owner_alive) == (run.run_id, True)


async def test_unsettled_runs_come_page_by_page(ground: Ground) -> None:
    runs = [await started(ground, new_run(f"run {n}", f"thread {n % 2}")) for n in range(7)]
    await ended(ground, runs[2], "failed")
    ended_run = await ended(ground, runs[5])
    left = [*runs[:2], *runs[3:5], ended_run, runs[6]]
    for thread_id, expected in ((None, left), ("thread 0", [left[0], left[3], left[5]])):
        found, after = [], None
        while page := await ground.call(
            "unsettled_runs", thread_id=thread_id, after=after, limit=2
        ):
            found += page
            after = (page[-1].started_s, page[-1].run_id)
        assert found == expected
    assert await ground.call("unsettled_runs", thread_id="nowhere", limit=5) == []
