"""When the tier is asked, what for, and what it means if it does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.types import Command

from langgraph_valkey import ValkeySaver
from langgraph_valkey.boundary.carrying import LABEL
from langgraph_valkey.errors import CorruptState, Unreachable
from langgraph_valkey.local import LocalValkey
from tests.faces import config
from tests.tier_graphs import INPUT, NODES, chain, nested, working
from tests.tier_ground import (
    COMBINATIONS,
    Ground,
    WatchedTier,
    committing,
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


async def test_an_outage_of_the_tier_is_no_empty_thread(watched: Ground) -> None:
    watched.tier.failing = {"get_tuple"}
    with pytest.raises(Unreachable, match="WatchedTier") as raised:
        await watched.face.aget_tuple(watched.where)
    assert isinstance(raised.value.__cause__, ConnectionResetError)
    with pytest.raises(Unreachable):
        await watched.face.listed(watched.where)
    watched.tier.failing = set()
    assert await watched.face.aget_tuple(watched.where) is None


async def test_a_thread_that_was_only_to_be_checked_is_not_served_either(
    watched: Ground, valkey: LocalValkey
) -> None:
    """It may be rewound. Once it has been checked, the tier may be away."""
    graph = chain(watched.saver)
    prefix = watched.saver.settings.key_prefix
    with ValkeySaver.from_url(valkey.url, key_prefix=prefix) as plain:
        chain(plain).invoke(INPUT, watched.where)
    watched.tier.failing = {"get_tuple"}
    with pytest.raises(Unreachable):
        await watched.values(graph)
    watched.tier.failing = set()
    assert (await watched.values(graph))["told"] == ["input", *NODES]
    watched.tier.failing = {"get_tuple"}
    assert (await watched.values(graph))["told"] == ["input", *NODES]
    watched.wipe()
    with pytest.raises(Unreachable):
        await watched.values(graph)


async def test_a_checkpoint_by_its_id_comes_from_the_tier(ground: Ground) -> None:
    graph = chain(ground.saver, committing(ground, "second", "fourth"))
    await ground.run(graph, "invoke", INPUT, ground.where)
    head, old = await ground.stored()
    ground.wipe()
    assert (await ground.values(graph))["told"] == ["input", *NODES]
    assert len(await ground.face.listed(ground.where)) == 1
    found = await ground.face.aget_tuple(old.config)
    assert found is not None
    assert found.checkpoint == old.checkpoint
    assert LABEL not in found.metadata
    now = await ground.face.aget_tuple(ground.where)
    assert now is not None
    assert now.checkpoint["id"] == head.checkpoint["id"]
    gone = config(ground.thread, "", "1f000000-0000-6000-8000-000000000000")
    assert await ground.face.aget_tuple(gone) is None


async def test_threads_of_another_saver_are_taken_over(ground: Ground) -> None:
    """The tier was the checkpointer so far; also in the middle of a turn."""
    if ground.face.kind == "async" and ground.tier.__class__.__name__.startswith("Async"):
        graph = working(ground.tier)
        await graph.ainvoke(INPUT, ground.where, durability="sync")
    else:
        working(ground.tier).invoke(INPUT, ground.where, durability="sync")
    graph = working(ground.saver, committing(ground))
    state = await ground.run(graph, "get_state", ground.where)
    assert sorted(one.value for one in state.interrupts) == ["book a?", "book b?"]
    answers = {one.id: f"answer to {one.value}" for one in state.interrupts}
    await ground.run(graph, "invoke", Command(resume=answers), ground.where)
    ground.wipe()
    await ground.run(graph, "invoke", INPUT, ground.where)
    told = (await ground.values(graph))["told"]
    assert told[:2] == ["input", "remembered ['count 0']"]
    assert "remembered ['count 0', 'count 1']" in told


async def test_a_tier_with_holes_is_told(watched: Ground) -> None:
    """A subgraph's checkpoint is gone from it: the thread is not put back by half."""
    await watched.run(working(watched.saver, committing(watched)), "invoke", INPUT, watched.where)
    del watched.tier.storage[watched.thread]["remember"]
    watched.wipe()
    with pytest.raises(CorruptState, match="WatchedTier"):
        await watched.face.aget_tuple(watched.where)
    assert watched.keys() == []


async def test_a_reader_that_is_overtaken_reads_again(
    watched: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it read is from before another one joined the thread."""
    await watched.run(chain(watched.saver, committing(watched)), "invoke", INPUT, watched.where)
    watched.wipe()
    core, saver = watched.saver._core, watched.saver
    read = core.get_tuple
    overtaken: list[Any] = []

    async def slowly(link: Any, where: Any) -> Any:
        found = await read(link, where)
        if not overtaken:
            overtaken.append(found)
            if watched.face.kind == "async":
                await saver.aget_tuple(where)
            else:
                saver.get_tuple(where)
        return found

    monkeypatch.setattr(core, "get_tuple", slowly)
    found = await watched.face.aget_tuple(watched.where)
    assert overtaken == [None]
    assert found is not None
    assert found.checkpoint["channel_values"]["told"] == ["input", *NODES]


async def test_several_readers_at_once(ground: Ground) -> None:
    graph = nested(ground.saver, committing(ground), keeps=True)
    await ground.run(graph, "invoke", INPUT, ground.where)
    for _ in range(3):
        ground.wipe()
        found = await asyncio.gather(*(ground.values(graph) for _ in range(8)))
        assert all(each == found[0] for each in found)
        assert found[0]["told"][-1] == "last"
