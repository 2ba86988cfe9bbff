"""Commits, on every store and both faces: each key once, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any, get_args

import pytest

from langgraph_valkey.errors import RunTakenOver
from langgraph_valkey.primary.records import CommitKey, CommitRequest, Fence, Scope
from tests.primary_ground import (
    AWKWARD,
    Ground,
    after,
    asked,
    gathered,
    new_run,
    started,
)

DUPLICATES = 40


async def test_a_commit_is_done_once(ground: Ground) -> None:
    first = await ground.call("commit", asked(), ground.adding(3, {"charged": [1, "ü\0"]}))
    again = await ground.call("commit", asked(), ground.adding(3, "another"))
    assert (first.replayed, again.replayed) == (False, True)
    assert first.result == again.result == {"charged": [1, "ü\0"]}
    assert (first.op, first.key, first.payload_sha256) == ("charge", "A17", "0" * 64)
    assert replace(first, replayed=True) == again
    assert await ground.call("receipt", asked().key) == again
    assert await ground.balance() == 3


async def test_results_are_as_a_duplicate_reads_them(ground: Ground) -> None:
    first = await ground.call("commit", asked(), ground.adding(1, {"b": (1, 2.5), "a": None}))
    assert first.result == {"a": None, "b": [1, 2.5]}
    nothing = await ground.call("commit", asked("no result"), ground.adding(1))
    again = await ground.call("commit", asked("no result"), ground.adding(1))
    assert (nothing.result, again.result, again.replayed) == (None, None, True)


async def test_of_many_at_once_one_is_done(ground: Ground) -> None:
    receipts = await gathered(
        [ground.call("commit", asked(), ground.adding(1, n)) for n in range(DUPLICATES)]
    )
    assert sum(not receipt.replayed for receipt in receipts) == 1
    assert len({receipt.result for receipt in receipts}) == 1
    assert await ground.balance() == 1


async def test_another_key_does_not_wait_for_long(ground: Ground) -> None:
    receipts = await gathered(
        [ground.call("commit", asked(str(n)), ground.adding(1)) for n in range(12)]
    )
    assert not any(receipt.replayed for receipt in receipts)
    assert await ground.balance() == 12


async def test_the_first_ones_payload_is_told(ground: Ground) -> None:
    await ground.call("commit", asked(about="a" * 64), ground.adding(1))
    again = await ground.call("commit", asked(about="b" * 64), ground.adding(1))
    assert (again.replayed, again.payload_sha256) == (True, "a" * 64)


async def test_what_raises_leaves_nothing(ground: Ground) -> None:
    def fail() -> None:
        raise KeyError("made up")

    request = asked(outbox=(("mail", "1"),))
    with pytest.raises(KeyError, match="made up"):
        await ground.call("commit", request, ground.adding(1, meanwhile=fail))
    assert await ground.call("receipt", request.key) is None
    assert await ground.call("take_messages", ["mail"], limit=5, for_s=5) == []
    assert await ground.balance() == 0
    assert not (await ground.call("commit", request, ground.adding(2))).replayed
    assert await ground.balance() == 2


async def test_a_result_that_can_not_be_kept_undoes_all(ground: Ground) -> None:
    for result in (object(), {1: 2}, float("nan"), b"", "x" * 2_000_000):
        with pytest.raises((TypeError, ValueError), match="result of commit 'charge'") as caught:
            await ground.call("commit", asked(), ground.adding(1, result))
        assert len(str(caught.value)) < 300
    assert await ground.call("receipt", asked().key) is None
    assert await ground.balance() == 0
    assert not (await ground.call("commit", asked(), ground.adding(2))).replayed


async def test_a_cancelled_commit_is_done_or_not(ground: Ground) -> None:
    """Whoever comes next finds out which; on the blocking face it can't be cancelled."""
    entered, go = threading.Event(), threading.Event()

    def meanwhile() -> Any:
        entered.set()
        if ground.face == "loops" and asyncio.iscoroutinefunction(fn):
            return asyncio.sleep(60)
        go.wait(20)
        return None

    fn = ground.adding(1, "first", meanwhile)
    task = asyncio.ensure_future(ground.call("commit", asked(), fn))
    assert await asyncio.to_thread(entered.wait, 20)
    task.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    receipt = await ground.call("commit", asked(), ground.adding(1, "second"))
    assert receipt.replayed == (receipt.result == "first")
    assert await ground.balance() == 1


async def test_any_characters_will_do(ground: Ground) -> None:
    for n, name in enumerate(AWKWARD):
        request = CommitRequest(CommitKey(name, name, "turn", name, name), "0" * 64, name, name)
        fenced = await started(ground, new_run(f"{n}{name}", name, owner=name))
        request = replace(request, fence=fenced.fence, outbox=((name, '"b"'),))
        first = await ground.call("commit", request, ground.adding(1, name))
        again = await ground.call("commit", request, ground.adding(1))
        assert (first.op, first.key, first.result) == (name, name, name)
        assert again == replace(first, replayed=True)
        assert await ground.call("receipts", name, name) == [again]
        [message] = await ground.call("take_messages", [name], limit=5, for_s=5)
        assert (message.topic, message.op, message.key) == (name, name, name)
    assert await ground.balance() == len(AWKWARD)


async def test_scopes_and_parts_of_a_key_tell_commits_apart(ground: Ground) -> None:
    keys = {CommitKey("op", "key", scope, "a", "b") for scope in get_args(Scope)}
    keys |= {CommitKey("o", "pkey", "turn", "a", "b"), CommitKey("op", "key", "turn", "ab", "")}
    for key in keys:
        receipt = await ground.call("commit", CommitRequest(key, "0" * 64), ground.adding(1))
        assert not receipt.replayed
    assert await ground.balance() == len(keys)


async def test_receipts_of_a_turn_come_in_order(ground: Ground) -> None:
    for n in range(5):
        await ground.call("commit", asked(f"key {9 - n}"), ground.adding(1, n))
        await ground.call("commit", asked(f"key {n}", turn="other"), ground.adding(1, n))
    whole = CommitRequest(CommitKey("op", "all", "global"), "0" * 64, "thread", "turn")
    await ground.call("commit", whole, ground.adding(1, 5))
    receipts = await ground.call("receipts", "thread", "turn")
    assert [receipt.result for receipt in receipts] == [0, 1, 2, 3, 4, 5]
    assert all(receipt.replayed for receipt in receipts)
    moments = [receipt.committed_at for receipt in receipts]
    assert moments == sorted(moments)
    assert await ground.call("receipts", "thread", "none") == []


# --- fences ----------------------------------------------------------------------------


async def test_only_the_last_attempt_commits(ground: Ground) -> None:
    run = await started(ground)
    assert not (await ground.call("commit", asked("1", fence=run.fence), ground.adding(1))).replayed
    taken = await ground.call("claim_run", run.fence, "other")
    with pytest.raises(RunTakenOver) as caught:
        await ground.call("commit", asked("2", fence=run.fence), ground.adding(1))
    assert caught.value.run_id == "run"
    assert await ground.call("receipt", asked("2").key) is None
    later = await ground.call("commit", asked("2", fence=taken.fence), ground.adding(1))
    assert not later.replayed
    assert await ground.balance() == 2


async def test_what_was_committed_is_given_back_whatever_the_attempt(ground: Ground) -> None:
    run = await started(ground)
    await ground.call("commit", asked(fence=run.fence), ground.adding(1, "done"))
    taken = await ground.call("claim_run", run.fence, "other")
    for fence in (run.fence, taken.fence):
        again = await ground.call("commit", asked(fence=fence), ground.adding(1))
        assert (again.replayed, again.result) == (True, "done")


async def test_a_run_that_is_not_there_commits_nothing(ground: Ground) -> None:
    with pytest.raises(RunTakenOver):
        await ground.call("commit", asked(fence=Fence("nowhere", 1)), ground.adding(1))
    assert await ground.balance() == 0


async def test_who_claims_a_run_sees_all_that_its_last_attempt_committed(ground: Ground) -> None:
    """A commit under way is waited for, or comes too late: there is nothing in between."""
    run = await started(ground)
    entered, go = threading.Event(), threading.Event()

    def meanwhile() -> Any:
        entered.set()
        if ground.face == "loops" and asyncio.iscoroutinefunction(fn):
            return asyncio.to_thread(go.wait, 20)
        go.wait(20)
        return None

    fn = ground.adding(1, "first", meanwhile)
    request = asked(fence=run.fence)

    async def claim() -> Any:
        taken = await ground.call("claim_run", run.fence, "other")
        return taken, await ground.call("receipt", request.key)

    committing = asyncio.ensure_future(ground.call("commit", request, fn))
    assert await asyncio.to_thread(entered.wait, 20)
    claiming = asyncio.ensure_future(claim())
    await asyncio.wait([claiming], timeout=0.3)  # Time to do it, if nothing held it.
    go.set()
    [committed], (taken, seen) = await gathered([_outcome(committing), claiming])
    assert taken.fence == after(run.fence)
    assert (committed == "first") == (seen is not None)
    assert await ground.balance() == (seen is not None)


async def test_claims_and_commits_at_once_agree(ground: Ground) -> None:
    for n in range(10):
        run = await started(ground, new_run(f"run {n}", f"thread {n}"))
        request = asked(str(n), fence=run.fence)

        async def claim(fence: Fence = run.fence, key: CommitKey = request.key) -> Any:
            assert await ground.call("claim_run", fence, "other") is not None
            return await ground.call("receipt", key)

        committing = _outcome(ground.call("commit", request, ground.adding(1, "first")))
        [committed], seen = await gathered([committing, claim()])
        assert (committed == "first") == (seen is not None)


async def _outcome(committing: Any) -> list[str]:
    try:
        return [(await committing).result]
    except RunTakenOver:
        return ["taken over"]
