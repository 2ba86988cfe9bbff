"""After a commit the thread's checkpoint is in the tier, before anything goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.config import get_config
from langgraph.types import Command

from langgraph_valkey import ValkeySaver
from langgraph_valkey.boundary import acquaintance
from langgraph_valkey.boundary.acquaintance import Crossings
from langgraph_valkey.boundary.carrying import LABEL, beside
from langgraph_valkey.boundary.tiered_saver import TieredSaver
from langgraph_valkey.errors import ThreadDeleted, Unreachable
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.settings import Settings
from langgraph_valkey.testing import MemoryLink
from tests.faces import checkpoint, config, metadata, numbered_id
from tests.tier_graphs import INPUT, NODES, asking_after, chain, nested
from tests.tier_ground import COMBINATIONS, Ground, WatchedTier, open_ground, open_tier


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


async def test_the_checkpoint_behind_a_commit_is_there_before_the_next_step(
    ground: Ground,
) -> None:
    """It, and no other; with the channels that did not change since."""
    seen: dict[str, Any] = {}

    def act(name: str) -> None:
        if name == "second":
            ground.saver.crossed(ground.thread)
        seen[name] = asyncio.run_coroutine_threadsafe(ground.stored(), loop).result(10)

    loop = asyncio.get_running_loop()
    # A node is called in a thread, on both faces.
    await ground.run(chain(ground.saver, act), "invoke", INPUT, ground.where)
    assert {name: len(found) for name, found in seen.items()} == {
        "first": 0, "second": 0, "third": 1, "fourth": 1
    }  # fmt: skip
    [found] = seen["fourth"]
    assert found.checkpoint["channel_values"]["told"] == ["input", "first", "second"]
    assert found.checkpoint["channel_values"]["order"] == INPUT["order"]
    assert await ground.read_from_tier(chain) == {
        "told": ["input", "first", "second"], "order": INPUT["order"]
    }  # fmt: skip
    assert (await ground.values(chain(ground.saver)))["told"] == ["input", *NODES]


async def test_each_commit_brings_its_checkpoint(watched: Ground) -> None:
    def act(name: str) -> None:
        if name in ("first", "third"):
            watched.saver.crossed(watched.thread)
            watched.saver.crossed(watched.thread)

    await watched.run(chain(watched.saver, act), "invoke", INPUT, watched.where)
    told = [each.checkpoint["channel_values"]["told"][-1] for each in await watched.stored()]
    assert told == ["third", "first"]
    # The first question is that of the first read.
    assert watched.tier.asked == ["get_tuple", "put", "put"]


async def test_other_threads_are_left_alone(watched: Ground) -> None:
    watched.saver.crossed("another thread")
    await watched.run(chain(watched.saver), "invoke", INPUT, watched.where)
    assert await watched.stored() == []


async def test_what_is_in_the_tier_is_what_the_server_has(ground: Ground) -> None:
    def act(name: str) -> None:
        ground.saver.crossed(ground.thread)

    where = {**ground.where, "metadata": {"run_id": "run 1", "user": "me"}}
    await ground.run(chain(ground.saver, act), "invoke", INPUT, where)
    here = {each.checkpoint["id"]: each for each in await ground.face.listed(ground.where)}
    there = await ground.stored()
    assert len(there) == len(NODES)
    for each in there:
        same = here[each.checkpoint["id"]]
        assert each.checkpoint == same.checkpoint
        assert {k: v for k, v in each.metadata.items() if k != LABEL} == same.metadata
        assert each.parent_config == same.parent_config


# --- a tier that fails -------------------------------------------------------------------


async def test_a_tier_that_does_not_take_it_stops_the_run(watched: Ground) -> None:
    """The error names the tier; run again, the thread goes on and the tier gets it."""
    ran: list[str] = []

    def act(name: str) -> None:
        ran.append(name)
        if name == "second" and len(ran) == 2:
            watched.saver.crossed(watched.thread)
            watched.tier.failing = {"put"}

    graph = chain(watched.saver, act)
    with pytest.raises(
        Unreachable, match=r"tier \(WatchedTier\).*put\(\).*ConnectionResetError"
    ) as raised:
        await watched.run(graph, "invoke", INPUT, watched.where)
    assert isinstance(raised.value.__cause__, ConnectionResetError)
    assert ran == ["first", "second"]
    with pytest.raises(Unreachable):
        await watched.run(graph, "invoke", None, watched.where)
    watched.tier.failing = set()
    await watched.run(graph, "invoke", None, watched.where)
    assert ran == ["first", "second", "third", "fourth"]
    [found] = await watched.stored()
    assert found.checkpoint["channel_values"]["told"] == ["input", *NODES]


async def test_what_users_keep_is_not_in_the_error(watched: Ground) -> None:
    watched.saver.crossed(watched.thread)
    watched.tier.failing = {"put"}
    with pytest.raises(Unreachable) as raised:
        await watched.run(chain(watched.saver), "invoke", INPUT, watched.where)
    assert "input" not in str(raised.value)


# --- subgraphs ----------------------------------------------------------------------------


async def test_a_commit_in_a_subgraph_brings_it_and_what_it_hangs_on(ground: Ground) -> None:
    seen: dict[str, Any] = {}
    loop = asyncio.get_running_loop()

    def act(step: str, name: str) -> None:
        if step == "pay":
            ground.saver.crossed(ground.thread)
        elif step == "book":
            seen[name] = asyncio.run_coroutine_threadsafe(ground.stored(), loop).result(10)

    await ground.run(nested(ground.saver, act), "invoke", INPUT, ground.where)
    for name in ("a", "b"):
        [child] = [
            each
            for each in seen[name]
            if each.checkpoint["channel_values"].get("told") == [f"paid {name}"]
        ]
        root_id = child.metadata["parents"][""]
        [root] = [each for each in seen[name] if each.checkpoint["id"] == root_id]
        assert beside(root)[child.config["configurable"]["checkpoint_ns"]] == child.checkpoint["id"]
    last = await ground.there()
    assert last is not None
    assert sorted(last.checkpoint["channel_values"]["told"])[:2] == ["booked a", "booked b"]
    assert beside(last) == {}


async def test_a_subgraph_that_keeps_its_state_goes_along(watched: Ground) -> None:
    """Also where the commit is in a later step of the graph itself."""

    def act(step: str, name: str) -> None:
        if step == "last":
            watched.saver.crossed(watched.thread)

    await watched.run(nested(watched.saver, act, keeps=True), "invoke", INPUT, watched.where)
    root, child = await watched.there(), await watched.there("child")
    assert root is not None
    assert child is not None
    assert child.checkpoint["channel_values"]["told"] == ["paid a", "booked a"]
    assert beside(root) == {"child": child.checkpoint["id"]}
    before = watched.tier.asked.count("put")
    watched.saver.crossed(watched.thread)
    await watched.run(nested(watched.saver), "update_state", watched.where, {"told": ["x"]}, "last")
    assert watched.tier.asked.count("put") == before + 1  # The child has not changed.


# --- when no checkpoint comes behind it --------------------------------------------------


async def test_an_interrupt_behind_a_commit_is_in_the_tier(ground: Ground) -> None:
    graph = asking_after(ground.saver, lambda: ground.saver.crossed(ground.thread))
    await ground.run(graph, "invoke", INPUT, ground.where)
    found = await ground.there()
    assert found is not None
    assert [write[1] for write in found.pending_writes or ()] == ["__interrupt__"]
    await ground.run(graph, "invoke", Command(resume="yes"), ground.where)
    assert (await ground.read_from_tier(asking_after))["told"] == ["input", "yes"]


@pytest.mark.parametrize("durability", ["async", "exit"])
async def test_carry_brings_what_is_there_now(ground: Ground, durability: str) -> None:
    """For commits under another durability; what comes behind goes there, too."""
    graph = chain(ground.saver, lambda name: ground.saver.crossed(ground.thread))
    await ground.run(graph, "invoke", INPUT, ground.where, durability=durability)
    assert await ground.face.call("carry", ground.thread)
    assert (await ground.read_from_tier(chain))["told"] == ["input", *NODES]
    assert not await ground.face.call("carry", "no such thread")


async def test_carry_within_a_subgraph(watched: Ground) -> None:
    loop = asyncio.get_running_loop()
    seen: list[Any] = []

    def act(step: str, name: str) -> None:
        if (step, name) == ("book", "a"):
            namespace = get_config()["configurable"]["checkpoint_ns"]
            carrying = watched.face.call("carry", watched.thread, namespace)
            assert asyncio.run_coroutine_threadsafe(carrying, loop).result(10)
            seen.append(asyncio.run_coroutine_threadsafe(watched.stored(), loop).result(10))

    await watched.run(nested(watched.saver, act), "invoke", INPUT, watched.where)
    told = [each.checkpoint["channel_values"].get("told") for each in seen[0]]
    assert ["paid a"] in told
    assert ["input"] in told
    assert len(told) == 2


# --- deleted meanwhile -------------------------------------------------------------------


async def test_a_thread_deleted_in_the_middle_does_not_stay_in_the_tier(
    watched: Ground, valkey: LocalValkey, prefix: str
) -> None:
    """The server had taken the checkpoint; another process deletes; then comes the tier's turn."""
    other = ValkeySaver.from_url(valkey.url, key_prefix=prefix)

    def delete(method: str) -> None:
        if method == "put":
            other.delete_thread(watched.thread)

    with other:
        watched.tier.before = delete
        watched.saver.crossed(watched.thread)
        with pytest.raises(ThreadDeleted):
            await watched.run(chain(watched.saver), "invoke", INPUT, watched.where)
        watched.tier.before = lambda _: None
    assert await watched.stored() == []
    assert await watched.face.aget_tuple(watched.where) is None


# --- what it costs -----------------------------------------------------------------------


def test_without_tier_and_store_it_costs_nothing() -> None:
    calls = []
    for make in (ValkeySaver, TieredSaver):
        link = MemoryLink()
        with make(Settings(durability="sync"), link=link) as saver:
            if isinstance(saver, TieredSaver):
                saver.crossed("t")
            assert saver.get_tuple(config("t")) is None
            made, versions = checkpoint(numbered_id(1), {"value": 1})
            stored = saver.put(config("t"), made, metadata(1), versions)
            saver.put_writes(stored, [("value", 2)], "task")
            assert saver.get_tuple(config("t")) is not None
            assert len(list(saver.list(config("t")))) == 1
            saver.delete_thread("t")
        calls.append(link.calls)
    assert calls[0] == calls[1]


async def test_a_known_thread_costs_no_question_to_the_tier(watched: Ground) -> None:
    graph = nested(watched.saver)
    for _ in range(3):
        await watched.run(graph, "invoke", INPUT, watched.where)
        await watched.values(graph)
        await watched.face.listed(watched.where)
    assert watched.tier.asked == ["get_tuple"]


def test_crossings_are_bounded(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(acquaintance, "CROSSINGS_MOST", 2)
    crossings = Crossings()
    with caplog.at_level(logging.WARNING):
        for thread in ("a", "b", "c"):
            crossings.note(thread, {})
    assert [crossings.due(thread, "", "1", "") for thread in ("a", "b", "c")] == [0, 1, 1]
    assert "more than 2 threads" in caplog.text


def test_a_commit_meanwhile_is_due_still() -> None:
    crossings = Crossings()
    crossings.note("t", {})
    due = crossings.due("t", "", "1", "")
    crossings.note("t", {})
    crossings.done("t", "", due)
    assert crossings.due("t", "", "2", "1") == 2
    crossings.done("t", "", 2)
    assert crossings.due("t", "", "3", "2") == 0


def test_only_what_was_made_after_a_commit_is_due() -> None:
    """Under durability="async" earlier checkpoints may be stored after it was made."""
    crossings = Crossings()
    crossings.note("t", {"": "3"})
    crossings.note("t", {"": "3"})
    crossings.note("t", {"": "5", "sub": "7"})
    assert [crossings.due("t", "", at, "") for at in ("2", "3", "4", "5", "6")] == [0, 0, 2, 2, 3]
    assert crossings.due("t", "", "1", "3") == 2  # A child, although its clock is behind.
    assert [crossings.due("t", "sub", at, "") for at in ("7", "8")] == [2, 3]
    crossings.done("t", "", 2)
    assert [crossings.due("t", "", at, "") for at in ("4", "5", "6")] == [0, 0, 3]
    crossings.done("t", "", 3)
    assert crossings.due("t", "", "9", "8") == 0
