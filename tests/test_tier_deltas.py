"""Channels stored as deltas are whole in the tier, or refused."""

from __future__ import annotations

import operator
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Send
from typing_extensions import TypedDict

from langgraph_valkey.boundary.tiered_saver import TieredSaver
from langgraph_valkey.errors import ConfigurationError, CorruptState, ReplayIncomplete
from langgraph_valkey.local import LocalValkey
from tests.tier_ground import COMBINATIONS, Ground, WatchedTier, open_ground, open_tier


def extend(state: Any, batches: Sequence[Any]) -> Any:
    return [*state, *(one for batch in batches for one in batch)]


class Deltas(TypedDict):
    often: Annotated[list, DeltaChannel(extend, list, snapshot_frequency=3)]
    never: Annotated[list, DeltaChannel(extend, list, snapshot_frequency=1000)]
    total: Annotated[int, operator.add]


class Plain(TypedDict):
    often: Annotated[list, operator.add]
    never: Annotated[list, operator.add]
    total: Annotated[int, operator.add]


def built(saver: BaseCheckpointSaver[Any], act: Any = lambda _: None, schema: Any = Deltas) -> Any:
    """A step, three at once, and a last one."""

    def note(state: Any) -> Any:
        act("note")
        return {"often": [f"note {state['total']}"], "never": ["noted"], "total": 1}

    def work(state: Any) -> Any:
        act(f"work {state['name']}")
        return {"often": [f"work {state['name']}"], "never": [f"worked {state['name']}"]}

    def report(state: Any) -> Any:
        act("report")
        return {"never": [f"report {state['total']}"]}

    builder = StateGraph(schema)
    builder.add_node("note", note)
    builder.add_node("work", work)
    builder.add_node("report", report)
    builder.add_edge(START, "note")
    builder.add_conditional_edges(
        "note", lambda _: [Send("work", {"name": name}) for name in "cab"], ["work"]
    )
    builder.add_edge("work", "report")
    return builder.compile(checkpointer=saver)


def turn(number: int) -> Any:
    return {"often": [f"in {number}"], "never": [], "total": 10}


def expected(turns: int) -> Any:
    """The state after so many turns, of a graph without deltas."""
    graph = built(InMemorySaver(), schema=Plain)
    for number in range(turns):
        graph.invoke(turn(number), {"configurable": {"thread_id": "t"}})
    return graph.get_state({"configurable": {"thread_id": "t"}}).values


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


async def test_a_thread_is_whole_in_the_tier_behind_each_commit(ground: Ground) -> None:
    """As graphs on the tier itself have it, and after the server lost it."""
    graph = built(ground.saver, lambda name: ground.saver.crossed(ground.thread))
    for number in range(4):
        await ground.run(graph, "invoke", turn(number), ground.where)
        assert await ground.read_from_tier(built) == expected(number + 1)
        if number % 2:
            ground.wipe()
            assert await ground.values(graph) == expected(number + 1)


@pytest.mark.parametrize("only", ["note", "work a", "report"])
async def test_commits_far_apart(ground: Ground, only: str) -> None:
    """All between two of them goes along with the second one."""

    def act(name: str) -> None:
        if name == only and number in (1, 4):
            ground.saver.crossed(ground.thread)

    graph = built(ground.saver, act)
    for number in range(5):
        await ground.run(graph, "invoke", turn(number), ground.where)
    last = await ground.there()
    assert last is not None
    here = await ground.run(graph, "get_state", ground.at(last))
    assert await ground.read_from_tier(built) == here.values
    ground.wipe()
    assert await ground.values(graph) == here.values
    await ground.run(graph, "invoke", None, ground.where)
    assert await ground.values(graph) == expected(5)


async def test_another_process_brings_what_the_tier_lacks(ground: Ground) -> None:
    """It does not know what the first one brought, and asks the tier."""

    def act(name: str) -> None:
        if name == "note":
            now.crossed(ground.thread)

    now = ground.saver
    await ground.run(built(now, act), "invoke", turn(0), ground.where)
    settings = ground.saver.settings
    async with TieredSaver(settings, tier=ground.tier) as now:
        other = Ground(ground.face.kind, now, ground.tier, ground.valkey)
        await other.run(built(now, act), "invoke", turn(1), ground.where)
        assert (await ground.read_from_tier(built))["often"] == [
            *expected(1)["often"], "in 1", "note 21"
        ]  # fmt: skip
        ground.wipe()
        await other.run(built(now), "invoke", None, ground.where)
        assert (await other.run(built(now), "get_state", ground.where)).values == expected(2)


async def test_a_thread_lost_in_the_middle_of_a_run(ground: Ground) -> None:
    """What siblings had written is lost, too: the run must not build upon what is back."""
    lost: list[str] = []

    def act(name: str) -> None:
        if name == "note":
            ground.saver.crossed(ground.thread)
        elif name == "work a" and not lost:
            lost.append(name)
            ground.wipe()

    graph = built(ground.saver, act)
    with pytest.raises(ReplayIncomplete):
        await ground.run(graph, "invoke", turn(0), ground.where)
    assert (await ground.values(graph))["often"][:2] == ["in 0", "note 10"]
    # A sibling that ends only after the refusal leaves a note, by which one more is refused.
    with suppress(ReplayIncomplete):
        await ground.run(graph, "invoke", None, ground.where)
    await ground.run(graph, "invoke", None, ground.where)
    assert await ground.values(graph) == expected(1)


@pytest.mark.parametrize("reads", ["this process", "another process"])
async def test_a_reader_does_not_hide_that_writes_were_lost(
    kind: str, valkey: Any, prefix: str, reads: str
) -> None:
    """It joins the parent back in the middle of a run, without what was written on that."""
    async with (
        open_ground(kind, WatchedTier(), valkey, prefix=prefix) as ground,
        open_ground(kind, ground.tier, valkey, prefix=prefix) as other,
    ):
        graph = built(ground.saver, lambda _: ground.saver.crossed(ground.thread))
        await ground.run(graph, "invoke", turn(0), ground.where)
        made = await ground.face.aget_tuple(ground.where)
        assert made is not None
        parent = made.config
        await ground.face.aput_writes(parent, [("never", ["lost"])], "task")
        ground.wipe()
        reader = ground if reads == "this process" else other
        assert await reader.face.aget_tuple(ground.where) is not None
        versions = {**made.checkpoint["channel_versions"], "never": "9"}
        child: Any = {
            **made.checkpoint, "id": "9" + made.checkpoint["id"][1:], "channel_versions": versions
        }  # fmt: skip
        metadata: Any = {**made.metadata, "counters_since_delta_snapshot": {"never": [9, 9]}}
        with pytest.raises(ReplayIncomplete):
            await ground.face.aput(parent, child, metadata, {"never": "9"})
        await ground.run(graph, "invoke", turn(1), ground.where)
        assert await ground.values(graph) == expected(2)


async def test_it_does_not_bring_what_the_tier_has(kind: str, valkey: Any, prefix: str) -> None:
    """Only the newest one that it has goes once more, with the writes that came since."""
    async with open_ground(kind, WatchedTier(), valkey, prefix=prefix) as ground:

        def act(name: str) -> None:
            if name == "report":
                ground.saver.crossed(ground.thread)

        graph = built(ground.saver, act)
        puts = []
        for number in range(4):
            before = ground.tier.asked.count("put")
            await ground.run(graph, "invoke", turn(number), ground.where)
            puts.append(ground.tier.asked.count("put") - before)
        assert len(await ground.face.listed(ground.where)) == 4 * 5
        assert puts == [5, 6, 6, 6]
        assert await ground.read_from_tier(built) == expected(4)


class Forgetful(WatchedTier):
    """Keeps the last checkpoint of a namespace, as shallow savers do."""

    def put(self, config: RunnableConfig, checkpoint: Any, *args: Any) -> RunnableConfig:
        where = config["configurable"]
        stored = self.storage[where["thread_id"]][where["checkpoint_ns"]]
        for old in list(stored):
            if old != checkpoint["id"]:
                del stored[old]
        return super().put(config, checkpoint, *args)


async def test_a_tier_that_cannot_give_it_back_is_refused(
    kind: str, valkey: Any, prefix: str
) -> None:
    async with open_ground(kind, Forgetful(), valkey, prefix=prefix) as ground:
        graph = built(ground.saver, lambda _: ground.saver.crossed(ground.thread))
        with pytest.raises(ConfigurationError, match="does not give back DeltaChannel 'never'"):
            await ground.run(graph, "invoke", turn(0), ground.where)


async def test_a_tier_that_lost_a_part_puts_nothing_back(
    kind: str, valkey: Any, prefix: str
) -> None:
    async with open_ground(kind, WatchedTier(), valkey, prefix=prefix) as ground:
        graph = built(ground.saver, lambda _: ground.saver.crossed(ground.thread))
        await ground.run(graph, "invoke", turn(0), ground.where)
        stored = ground.tier.storage[ground.thread][""]
        del stored[sorted(stored)[1]]
        ground.wipe()
        with pytest.raises(CorruptState, match="delta channel"):
            await ground.face.aget_tuple(ground.where)
        assert ground.keys() == []


async def test_a_copy_is_whole_in_the_tier(ground: Ground) -> None:
    graph = built(ground.saver)
    for number in range(2):
        await ground.run(graph, "invoke", turn(number), ground.where)
    target = f"copy of {ground.thread}"
    await ground.face.acopy_thread(ground.thread, target)
    ground.wipe()
    copied = {"configurable": {"thread_id": target}}
    assert (await ground.run(graph, "get_state", copied)).values == expected(2)
