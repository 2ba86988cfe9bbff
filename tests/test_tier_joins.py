"""What the server lost of a thread comes back from the tier, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from langgraph_valkey import ValkeySaver
from langgraph_valkey.local import LocalCluster, LocalValkey
from langgraph_valkey.settings import Settings
from tests.faces import checkpoint, config, metadata
from tests.failover_ground import replace_killed, threads_in
from tests.tier_graphs import INPUT, NODES, chain, nested, working
from tests.tier_ground import (
    COMBINATIONS,
    Ground,
    WatchedTier,
    another,
    committing,
    ids,
    open_ground,
    open_tier,
)


@pytest.fixture(params=COMBINATIONS, ids=" over ".join)
async def ground(
    request: pytest.FixtureRequest, valkey: LocalValkey, prefix: str, tmp_path: Path
) -> AsyncIterator[Ground]:
    """Each face over each tier."""
    kind, tier_kind = request.param
    async with (
        open_tier(tier_kind, tmp_path) as tier,
        open_ground(kind, tier, valkey, prefix=prefix) as made,
    ):
        yield made


@pytest.fixture
async def watched(kind: str, valkey: LocalValkey, prefix: str) -> AsyncIterator[Ground]:
    """Each face over a tier that is watched."""
    async with open_ground(kind, WatchedTier(), valkey, prefix=prefix) as made:
        yield made


async def talk(ground: Ground, graph: Any, lose: Callable[[], None] = lambda: None) -> Any:
    """Two turns of a graph that asks; something is lost at each stop."""
    for _ in range(2):
        await ground.run(graph, "invoke", INPUT, ground.where)
        lose()
        while (state := await ground.run(graph, "get_state", ground.where)).next:
            answers = {one.id: f"answer to {one.value}" for one in state.interrupts}
            resume: Any = Command(resume=answers) if answers else None
            await ground.run(graph, "invoke", resume, ground.where)
            lose()
    return await ground.values(graph)


async def expected() -> Any:
    """The same without any loss, in InMemorySaver."""
    plain: Any = Ground("sync", InMemorySaver(), None, None)  # type: ignore[arg-type]
    return await talk(plain, working(plain.saver))


# --- what is lost comes back -----------------------------------------------------------


async def test_a_thread_that_is_wiped_goes_on(ground: Ground) -> None:
    """With subgraphs that wait, a branch that is done, and a subgraph that keeps its state."""
    graph = working(ground.saver, committing(ground))
    assert await talk(ground, graph, ground.wipe) == await expected()


async def test_a_thread_whose_state_is_evicted_goes_on(watched: Ground) -> None:
    graph = working(watched.saver, committing(watched))
    assert await talk(watched, graph, watched.lose_state) == await expected()


async def test_a_join_restores_what_was_there(ground: Ground) -> None:
    """Checkpoints, metadata, pending writes and their order, to the letter."""
    graph = working(ground.saver, committing(ground))
    await ground.run(graph, "invoke", INPUT, ground.where)
    before = {ids([one])[0]: one for one in await ground.face.listed(ground.where)}
    ground.wipe()
    after = await ground.face.listed(ground.where)
    assert len(after) >= 3
    for one in after:
        assert one._replace(pending_writes=[]) == before[ids([one])[0]]._replace(pending_writes=[])
    head, old = (max(some, key=lambda one: one.metadata["step"]) for some in (
        [one for one in line if not one.config["configurable"]["checkpoint_ns"]]
        for line in (after, before.values())
    ))  # fmt: skip
    assert head.pending_writes == old.pending_writes
    state = await ground.run(graph, "get_state", ground.where)
    assert sorted(one.value for one in state.interrupts) == ["book a?", "book b?"]


async def test_a_thread_that_expired_goes_on(kind: str, valkey: LocalValkey, prefix: str) -> None:
    async with open_ground(kind, WatchedTier(), valkey, prefix=prefix, ttl_s=0.2) as ground:
        graph = chain(ground.saver, committing(ground))
        await ground.run(graph, "invoke", INPUT, ground.where)
        while ground.keys():
            await asyncio.sleep(0.02)
        assert (await ground.values(graph))["told"] == ["input", *NODES]
        left_ms = valkey.command("PTTL", ground.state)
        assert isinstance(left_ms, int)
        assert 0 < left_ms <= 200
        await ground.run(graph, "invoke", INPUT, ground.where)
        assert (await ground.values(graph))["told"] == ["input", *NODES] * 2


async def test_a_thread_lost_in_the_middle_of_a_run_goes_on(watched: Ground) -> None:
    """A write that hangs on what was lost finds it again, and the run does not notice."""

    def act(name: str) -> None:
        if name == "second":
            watched.saver.crossed(watched.thread)
        elif name == "third":
            watched.wipe()

    await watched.run(chain(watched.saver, act), "invoke", INPUT, watched.where)
    assert (await watched.values(chain(watched.saver)))["told"] == ["input", *NODES]


async def test_a_process_that_starts_finds_what_was_rewound(
    kind: str, durable: LocalCluster, prefix: str, tmp_path: Path
) -> None:
    """A crash loses the last steps, their journal is gone, too; another process goes on."""
    [thread] = threads_in(durable, prefix, 0, 1)
    where: Any = {"configurable": {"thread_id": thread}}
    lab: Any = durable
    given: dict[str, Any] = {"durability": "async", "lag_bound_s": 1.0, "replay": False}
    async with (
        open_tier("sqlite", tmp_path) as tier,
        open_ground(kind, tier, lab, prefix=prefix, **given) as first,
        open_ground(kind, tier, lab, prefix=prefix, **given) as second,
    ):

        def act(name: str) -> None:
            if name == "first":
                durable.hold_log(0)
            elif name == "third":
                first.saver.crossed(thread)

        await second.run(chain(second.saver), "update_state", where, INPUT, "__start__")
        assert (await second.run(chain(second.saver), "get_state", where)).next == ("first",)
        await first.run(chain(first.saver, act), "invoke", None, where)
        await asyncio.to_thread(durable.kill_primary, 0)
        await asyncio.to_thread(replace_killed, durable)
        async with ValkeySaver(
            Settings.from_url(durable.url, key_prefix=prefix, durability="async", replay=False)
        ) as plain:
            lost = await plain.aget_tuple(where)
            assert lost is not None
            assert lost.checkpoint["channel_values"].get("told") in (["input"], None)
        for ground in (second, first):
            state = await ground.run(chain(ground.saver), "get_state", where)
            assert state.values["told"] == ["input", *NODES[:3]]
            assert state.next == ("fourth",)
        done = await second.run(chain(second.saver), "invoke", None, where)
        assert done["told"] == ["input", *NODES]
        await second.saver.aclose(0)
        await first.saver.aclose(0)


# --- nothing else does ----------------------------------------------------------------------


async def test_a_head_never_moves_back(ground: Ground) -> None:
    """Another process reads a thread that has gone on since the tier was told."""
    act = committing(ground, "second")
    await ground.run(chain(ground.saver, act), "invoke", INPUT, ground.where)
    async with another(ground) as other:
        found = await other.face.aget_tuple(ground.where)
    assert found is not None
    assert found.checkpoint["channel_values"]["told"] == ["input", *NODES]


async def test_a_deleted_thread_stays_deleted(ground: Ground, valkey: LocalValkey) -> None:
    """Also where the one who deleted it did not know of the tier; which is cleaned then."""
    graph = chain(ground.saver, committing(ground))
    await ground.run(graph, "invoke", INPUT, ground.where)
    prefix = ground.saver.settings.key_prefix
    with ValkeySaver.from_url(valkey.url, key_prefix=prefix) as plain:
        plain.delete_thread(ground.thread)
    assert await ground.stored()
    assert await ground.face.aget_tuple(ground.where) is None
    assert await ground.stored() == []
    await ground.run(graph, "invoke", INPUT, ground.where)
    ground.wipe()
    assert (await ground.values(graph))["told"] == ["input", *NODES]
    await ground.face.adelete_thread(ground.thread)
    assert await ground.stored() == []
    assert await ground.face.aget_tuple(ground.where) is None


async def test_what_was_removed_stays_removed(ground: Ground) -> None:
    """The last run is taken back: the tier has the state before it, not the one after."""
    graph = chain(ground.saver, committing(ground))
    for number in (1, 2):
        where = {**ground.where, "metadata": {"run_id": f"run {number}"}}
        await ground.run(graph, "invoke", INPUT, where)
    await ground.face.adelete_for_runs(["run 2"])
    assert (await ground.values(graph))["told"] == ["input", *NODES]
    ground.wipe()
    assert (await ground.values(graph))["told"] == ["input", *NODES]
    assert (await ground.read_from_tier(chain))["told"] == ["input", *NODES]


async def test_a_tier_that_can_remove_runs_is_asked_to(watched: Ground) -> None:
    asked: list[Any] = []

    async def remove(runs: Any) -> None:
        asked.append(runs)

    watched.tier.delete_for_runs = asked.append
    watched.tier.adelete_for_runs = remove
    where = {**watched.where, "metadata": {"run_id": "run"}}
    await watched.run(chain(watched.saver, committing(watched)), "invoke", INPUT, where)
    await watched.face.adelete_for_runs(["run"])
    assert asked == [["run"]]


async def test_pruned_and_copied_threads_come_back(ground: Ground) -> None:
    graph = chain(ground.saver, committing(ground, "second"))
    await ground.run(graph, "invoke", INPUT, ground.where)
    await ground.face.aprune([ground.thread])
    assert len(await ground.face.listed(ground.where)) == 1
    target = f"copy of {ground.thread}"
    await ground.face.acopy_thread(ground.thread, target)
    ground.wipe()
    assert (await ground.values(graph))["told"] == ["input", "first", "second"]
    copied = await ground.run(graph, "get_state", config(target))
    assert copied.values["told"] == ["input", *NODES]  # As it was when it was copied.
    await ground.face.aprune([target], strategy="delete")
    ground.wipe()
    assert await ground.face.aget_tuple(config(target)) is None


async def test_a_thread_that_is_put_back_is_in_the_same_life(watched: Ground) -> None:
    """By which deletes, late writes and replays know it."""
    await watched.run(chain(watched.saver, committing(watched)), "invoke", INPUT, watched.where)
    known = watched.saver._core.known
    before = known.standing(watched.thread)
    watched.wipe()
    assert await watched.face.aget_tuple(watched.where) is not None
    after = known.standing(watched.thread)
    assert after.gen == before.gen
    assert after.nonce != before.nonce


async def test_what_is_there_is_not_written_again(watched: Ground, valkey: LocalValkey) -> None:
    """A thread that waits, looked at by another process: nothing is missing."""
    graph = working(watched.saver, committing(watched))
    await watched.run(graph, "invoke", INPUT, watched.where)
    before = valkey.command("HLEN", watched.state)
    async with another(watched) as other:
        state = await other.run(working(other.saver), "get_state", watched.where)
    assert len(state.interrupts) == 2
    assert valkey.command("HLEN", watched.state) == before


async def test_a_subgraph_comes_back_to_a_thread_that_healed_itself(watched: Ground) -> None:
    """The graph's own checkpoint is newer than the tier's; that of its subgraph is gone."""
    graph = nested(watched.saver, committing(watched, "last"), keeps=True)
    await watched.run(graph, "invoke", INPUT, watched.where)
    child, head = await watched.there("child"), await watched.there()
    assert child is not None
    assert head is not None
    watched.wipe()
    newer, versions = checkpoint("9" + ids([head])[0][1:], {"told": ["newer"]})
    settings = watched.saver.settings
    with ValkeySaver(settings) as plain:
        plain.put(config(watched.thread), newer, metadata(9), versions)
    found = await watched.face.aget_tuple(watched.where)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"told": ["newer"]}
    below = await watched.face.aget_tuple(config(watched.thread, "child"))
    assert below is not None
    assert below.checkpoint == child.checkpoint
