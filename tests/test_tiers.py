"""`StateTiers` on a real server and a real database: everything in its place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Durability

from langgraph_valkey import Unreachable
from langgraph_valkey.errors import LockUnavailable
from langgraph_valkey.link import finish
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.primary.records import Message, Outgoing
from langgraph_valkey.settings import Settings
from langgraph_valkey.tiers.state_tiers import StateTiers
from tests.facade_ground import Ground, agent, charge
from tests.failover_ground import new_prefix


@pytest.fixture
def ground(valkey: LocalValkey, tmp_path: Path) -> Iterator[Ground]:
    made = Ground(valkey, tmp_path)
    yield made
    made.lose()


def thread(thread_id: str = "t", turn_id: str = "turn") -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "turn_id": turn_id}}


def run(tiers: StateTiers, face: str, *args: Any, **options: Any) -> Any:
    """Run a turn on one face."""
    if face == "sync":
        return tiers.run(*args, **options)
    return asyncio.run(tiers.arun(*args, **options))


# --- commits and runs ------------------------------------------------------------------


def test_a_turn_is_run_and_commits_once(ground: Ground) -> None:
    with ground.tiers() as tiers:
        graph = agent(tiers)
        found = tiers.run(graph, {"order_id": "7"}, thread_id="t", run_id="r")
        assert found["steps"] == ["charged 7", "done"]
        again = tiers.run(graph, {"order_id": "7"}, thread_id="t", run_id="r")
        assert again == found
        assert ground.charges == ["7"]
        [receipt] = tiers.receipts(thread(turn_id="r"))
        assert (receipt.op, receipt.key, receipt.result) == ("charge", "7", "charged 7")


async def test_a_turn_is_run_and_commits_once_on_the_async_face(ground: Ground) -> None:
    async with ground.tiers() as tiers:
        graph = agent(tiers)
        found = await tiers.arun(graph, {"order_id": "7"}, thread_id="t", run_id="r")
        assert found["steps"] == ["charged 7", "done"]
        chunks = [
            each
            async for each in tiers.astream(graph, {"order_id": "8"}, thread_id="t", run_id="s")
        ]
        assert {"end": {"steps": ["done"]}} in chunks
        assert ground.charges == ["7", "8"]
        [receipt] = await tiers.areceipts(thread(turn_id="r"))
        assert receipt.key == "7"


def test_a_turn_is_streamed(ground: Ground) -> None:
    with ground.tiers() as tiers:
        chunks = list(tiers.stream(agent(tiers), {"order_id": "7"}, thread_id="t", run_id="r"))
    assert chunks == [{"pay": {"steps": ["charged 7"]}}, {"end": {"steps": ["done"]}}]


@pytest.mark.parametrize("face", ["sync", "async"])
def test_what_was_lost_is_found_run_again_and_not_charged_again(ground: Ground, face: str) -> None:
    """A process ends amid a turn, and the server loses the thread with it."""
    with ground.tiers() as tiers:

        def cut_off(_: Any) -> None:
            raise Unreachable("the server went away")

        graph = agent(tiers, cut_off)
        with pytest.raises(Unreachable):
            run(tiers, face, graph, {"order_id": "7"}, thread_id="t", run_id="r")
        tiers.close(drain_s=0)
    ground.lose()
    with ground.tiers() as tiers:
        graph = agent(tiers)
        tiers.register(graph)
        report = tiers.recover() if face == "sync" else asyncio.run(tiers.arecover())
        assert report.rerun == ("r",)
        assert ground.charges == ["7"]
        values = graph.get_state(thread()).values
        assert values == {"order_id": "7", "steps": ["charged 7 again", "done"]}
        assert tiers.recover().fine == ("r",)


@pytest.mark.parametrize("face", ["sync", "async"])
def test_what_is_purged_would_be_applied_again(ground: Ground, face: str) -> None:
    with ground.tiers() as tiers:

        def charged() -> bool:
            config: Any = thread(turn_id="r")
            return tiers.commit("charge", key="7", fn=lambda _: 1, config=config).replayed

        assert [charged(), charged()] == [False, True]
        gone = tiers.purge(0.0) if face == "sync" else asyncio.run(tiers.apurge(0.0))
        assert (gone.commits, gone.runs) == (1, 0)
        assert not charged()


@pytest.mark.parametrize("face", ["sync", "async"])
def test_what_is_purged_has_an_age(ground: Ground, face: str) -> None:
    """Else the tombstones and owners of the moment would go along."""
    with ground.tiers() as tiers:

        def purge(age: Any) -> Any:
            return tiers.purge(age) if face == "sync" else asyncio.run(tiers.apurge(age))

        store = tiers.primary.blocking
        tomb = finish(store.bury("deleted"))
        finish(store.buried(tomb, "0000000000000017"))
        for age in (-60.0, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="older_than_s"):
                purge(age)
        for other in ("5", None, True):
            with pytest.raises(TypeError, match="older_than_s"):
                purge(other)
        assert purge(0).tombstones == 0
        assert finish(store.tombstone("deleted")) is not None, "servers may have lost it still"


def test_a_run_that_is_cancelled_is_not_run_again(ground: Ground) -> None:
    with ground.tiers() as tiers:

        def cut_off(_: Any) -> None:
            raise Unreachable("the server went away")

        graph = agent(tiers, cut_off)
        for run_id in ("r", "s"):
            with pytest.raises(Unreachable):
                tiers.run(graph, {"order_id": "7"}, thread_id=run_id, run_id=run_id)
        assert tiers.cancel("r")
        assert asyncio.run(tiers.acancel("s"))
        assert not tiers.cancel("r")
        assert tiers.recover(agent(tiers)).rerun == ()


def test_a_commit_outside_a_graph_names_its_turn(ground: Ground) -> None:
    with ground.tiers() as tiers:
        with pytest.raises(ValueError, match="names no thread"):
            tiers.commit("charge", key="7", fn=lambda c: charge(c, "7"))
        with pytest.raises(ValueError, match="no turn is named"):
            tiers.receipts()
        assert not tiers.commit(
            "charge", key="7", fn=lambda c: charge(c, "7"), config=thread()
        ).replayed
        assert tiers.commit(
            "charge", key="7", fn=lambda c: charge(c, "7"), config=thread()
        ).replayed
        tiers.commit("charge", key="7", fn=lambda c: charge(c, "7"), scope="global")
    assert ground.charges == ["7", "7"]


def test_the_decorator_commits_by_the_running_turn(ground: Ground) -> None:
    with ground.tiers() as tiers:
        sent: list[Message] = []

        @tiers.committed(op="refund", key="order_id", outbox=[Outgoing("invoice", 1)])
        def refund(connection: Any, order_id: str) -> str:
            return charge(connection, order_id)

        graph = agent(tiers, lambda state: print(refund(state["order_id"])))
        tiers.run(graph, {"order_id": "7"}, thread_id="t", run_id="r")
        assert [each.op for each in tiers.receipts(thread(turn_id="r"))] == ["charge", "refund"]
        tiers.outbox.handle("invoice", sent.append)
        assert tiers.outbox.drain().sent == 1
        assert (sent[0].op, sent[0].key) == ("refund", "7")
    assert ground.charges == ["7", "7"]


@pytest.mark.parametrize("face", ["sync", "async"])
async def test_a_commit_wakes_the_outbox_at_once(ground: Ground, face: str) -> None:
    async with ground.tiers(settings={"outbox_poll_s": 3600.0}) as tiers:
        loop, sent = asyncio.get_running_loop(), asyncio.Event()
        tiers.outbox.handle("invoice", lambda _: loop.call_soon_threadsafe(sent.set))
        tiers.outbox.start()
        await asyncio.sleep(0.1)  # Its first look is over: it waits now.
        graph = agent(tiers, outbox=[Outgoing("invoice", 1)])
        given: Any = {"order_id": "7"}
        if face == "sync":
            await asyncio.to_thread(tiers.run, graph, given, thread_id="t", run_id="r")
        else:
            await tiers.arun(graph, given, thread_id="t", run_id="r")
        await asyncio.wait_for(sent.wait(), 20)


# --- the tier --------------------------------------------------------------------------


def test_the_checkpoint_after_a_commit_is_in_the_tier(ground: Ground) -> None:
    tier = InMemorySaver()
    with ground.tiers(tier=tier) as tiers:

        def look(_: Any) -> None:
            found = tier.get_tuple(thread())
            assert found is not None  # Before the next step goes on.
            assert found.checkpoint["channel_values"]["steps"] == ["charged 7"]

        graph = agent(tiers, look)
        tiers.run(graph, {"order_id": "7"}, thread_id="t", run_id="r")
        ground.lose()
        tiers.close(drain_s=0)
    with ground.tiers(tier=tier) as tiers:
        # And what the turn came to.
        assert agent(tiers).get_state(thread()).values["steps"] == ["charged 7", "done"]


@pytest.mark.parametrize("face", ["sync", "async"])
@pytest.mark.parametrize("durability", ["exit", "async", None])
def test_a_commit_under_another_durability_brings_the_thread_to_the_tier_itself(
    ground: Ground, face: str, durability: Durability | None, caplog: pytest.LogCaptureFixture
) -> None:
    tier, there = InMemorySaver(), list[bool]()
    with ground.tiers(tier=tier) as tiers:
        graph = agent(tiers, lambda _: there.append(tier.get_tuple(thread()) is not None))
        graph.invoke({"order_id": "1"}, thread(), durability="sync")
        for order_id in ("7", "8"):
            tier.storage.clear()
            if face == "sync":
                graph.invoke({"order_id": order_id}, thread(), durability=durability)
            else:
                asyncio.run(graph.ainvoke({"order_id": order_id}, thread(), durability=durability))
    assert there == [True] * 3
    assert caplog.text.count(f"durability='{durability or 'async'}'") == 1


@pytest.mark.parametrize("slow_s", [0.0, 0.02, 0.15])
def test_what_was_stored_after_a_commit_and_made_before_is_not_taken_for_its_checkpoint(
    ground: Ground, slow_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = InMemorySaver()
    with ground.tiers(tier=tier) as tiers:
        put = tiers.saver.put

        def slow(*given: Any) -> Any:
            time.sleep(slow_s)
            return put(*given)

        monkeypatch.setattr(tiers.saver, "put", slow)
        agent(tiers).invoke({"order_id": "7"}, thread())
        found = tier.get_tuple(thread())
    assert found is not None
    assert found.checkpoint["channel_values"]["steps"][0] == "charged 7"


@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_commit_says_that_it_was_made_although_the_tier_is_away(
    ground: Ground, face: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tier, asked = InMemorySaver(), list[int]()

    def away_once(of: Any) -> Any:
        def put(*given: Any) -> Any:
            asked.append(1)
            if len(asked) == 1:
                raise OSError("away")
            return of(*given)

        return put

    with ground.tiers(tier=tier) as tiers:
        agent(tiers).update_state(thread(), {"steps": ["begun"]}, "end")
        monkeypatch.setattr(tier, "put", away_once(tier.put))
        graph = agent(tiers)
        if face == "sync":
            state = graph.invoke({"order_id": "7"}, thread(), durability="exit")
        else:
            state = asyncio.run(graph.ainvoke({"order_id": "7"}, thread(), durability="exit"))
        found = tier.get_tuple(thread())
    assert state["steps"] == ["begun", "charged 7", "done"]
    assert "could not be brought to the tier (Unreachable)" in caplog.text
    assert found is not None  # The next one was brought.
    assert found.checkpoint["channel_values"]["steps"] == state["steps"]


def test_a_config_of_the_nodes_own_is_of_the_same_task(ground: Ground) -> None:
    tier, there = InMemorySaver(), list[bool]()
    with ground.tiers(tier=tier) as tiers:
        own = thread(turn_id="mine")
        look = lambda _: there.append(tier.get_tuple(thread()) is not None)  # noqa: E731
        graph = agent(tiers, look, config=own)
        graph.invoke({"order_id": "1"}, thread(), durability="sync")
        tier.storage.clear()
        graph.invoke({"order_id": "2"}, thread(), durability="exit")
    assert there == [True] * 2


def test_a_thread_is_deleted_everywhere_and_for_good(ground: Ground) -> None:
    tier = InMemorySaver()
    with ground.tiers(tier=tier) as tiers:
        graph = agent(tiers)
        tiers.register(graph)
        tiers.run(graph, {"order_id": "7"}, thread_id="t", run_id="r")
        kept = tier.storage.copy()
        tiers.delete_thread("t")
        assert finish(tiers.primary.blocking.unsettled_runs(thread_id="t", limit=9)) == []
        assert tier.get_tuple(thread()) is None
        assert graph.get_state(thread()).values == {}
        ground.lose()  # Also the server's own note of the deletion.
        tier.storage.update(kept)
        report = tiers.recover()
        assert (report.rerun, report.failed, report.conflicts) == ((), (), ())
        assert graph.get_state(thread()).values == {}  # Though the tier has it again.
        assert asyncio.run(_deleted(tiers)) == {}


async def _deleted(tiers: StateTiers) -> Any:
    """What is left of a thread that is deleted on the async face."""
    graph = agent(tiers)
    await tiers.arun(graph, {"order_id": "8"}, thread_id="t", run_id="s")
    await tiers.adelete_thread("t")
    found = (await graph.aget_state(thread())).values
    await tiers.primary.loops.close()
    return found


# --- locks -----------------------------------------------------------------------------


async def test_locks_are_in_the_primary_and_never_in_the_transient_cluster(ground: Ground) -> None:
    async with ground.tiers() as tiers:
        with tiers.lock("report", 30) as lock:
            assert lock.token == 1
            with pytest.raises(LockUnavailable):
                await tiers.lock("report", 30).__aenter__()
        async with tiers.lock("report", 30, wait_s=5) as lock:
            assert lock.token == 2
        assert ground.keys("*lock*") == []
        assert "lgv_leases" in ground.tables


async def test_locks_are_in_the_coordination_cluster_if_there_is_one(ground: Ground) -> None:
    prefix = new_prefix()
    place = Settings.from_url(ground.valkey.url, key_prefix=prefix, durability="sync")
    async with ground.tiers(settings={"coordination": place}) as tiers:
        with tiers.lock("report", 30):
            with pytest.raises(LockUnavailable):
                await tiers.lock("report", 30).__aenter__()
            assert ground.valkey.command("KEYS", f"{prefix}*") == [
                f"{prefix}:{{report}}:lock".encode()
            ]
            assert finish(tiers.primary.blocking.acquire("report", "me", 1)) is not None
