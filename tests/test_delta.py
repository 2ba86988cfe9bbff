"""Channels stored as deltas: their history, and what keeps it from being cut.

A DeltaChannel's checkpoints hold no value, only writes and now and then a
snapshot (the *seed*). Its state is rebuilt from its ancestors, so every
operation that removes or copies checkpoints is a danger to it that no error
would show: the state would just be shorter.
"""

from __future__ import annotations

import operator
import random
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from langgraph_valkey import limits
from tests.faces import (
    FACES,
    Face,
    Twin,
    assert_equal,
    checkpoint,
    config,
    metadata,
    numbered_id,
    open_face,
)


@pytest.fixture(params=FACES)
async def twin(request: pytest.FixtureRequest, valkey: Any) -> AsyncIterator[Twin]:
    async with open_face(request.param, valkey.url) as face:
        yield Twin(face)


async def put(
    twin: Twin, number: int, parent: int | None, ns: str = "", seeds: Any = None
) -> Checkpoint:
    """A checkpoint whose delta channels have new versions; those in ``seeds`` a value, too."""
    before = twin.last.get(("t", f"{ns}{parent}"))
    made, new_versions = checkpoint(
        numbered_id(number), {"delta": None, "other": None, **(seeds or {})}, parent=before
    )
    for channel in ("delta", "other"):
        if channel not in (seeds or {}):
            del made["channel_values"][channel]
    where = config("t", ns, None if parent is None else numbered_id(parent))
    await twin.put(where, made, metadata(number), new_versions)
    twin.last["t", f"{ns}{number}"] = made
    return made


async def history(twin: Twin, where: Any, channels: Sequence[str]) -> Any:
    """The history, which must be InMemorySaver's and also what the base class would make of it."""
    found = await twin.face.aget_delta_channel_history(config=where, channels=channels)
    assert_equal(
        dict(found), dict(twin.oracle.get_delta_channel_history(config=where, channels=channels))
    )
    walked = await BaseCheckpointSaver.aget_delta_channel_history(
        twin.face, config=where, channels=channels
    )
    assert_equal(dict(found), dict(walked))
    return found


def values(entry: Any) -> list[Any]:
    return [value for _, _, value in entry["writes"]]


# --- the contract -------------------------------------------------------------


async def test_seed_and_writes_on_the_path(twin: Twin) -> None:
    """Seed, then the seed ancestor's own writes and all since, but not the target's."""
    for number, parent in ((1, None), (2, 1), (3, 2), (4, 3)):
        seeds = {"delta": _DeltaSnapshot(["seed"])} if number == 2 else {}
        await put(twin, number, parent, seeds=seeds)
        await twin.write(
            config("t", "", numbered_id(number)), [("delta", f"w{number}"), ("x", 0)], "task"
        )
    head = config("t")
    found = await history(twin, head, ["delta", "other"])
    assert found["delta"] == {
        "seed": _DeltaSnapshot(["seed"]),
        "writes": [("task", "delta", "w2"), ("task", "delta", "w3")],
    }
    assert found["other"] == {"writes": []}
    assert values((await history(twin, config("t", "", numbered_id(2)), ["delta"]))["delta"]) == [
        "w1"
    ]
    root = await history(twin, config("t", "", numbered_id(1)), ["delta"])
    assert root == {"delta": {"writes": []}}


async def test_order_of_writes(twin: Twin) -> None:
    await put(twin, 1, None)
    where = config("t", "", numbered_id(1))
    await twin.write(where, [("delta", "3a"), ("x", 0), ("delta", "3b")], "task 1", "path c")
    await twin.write(where, [("delta", "2")], "task 9", "path b")
    await twin.write(where, [("delta", "1")], "task 5")
    await twin.write(where, [("delta", f"4.{n}") for n in range(11)], "task 2", "path c")
    await put(twin, 2, 1)
    await twin.write(config("t", "", numbered_id(2)), [("delta", "5")], "task 0")
    await put(twin, 3, 2)
    found = await history(twin, config("t"), ["delta"])
    assert values(found["delta"]) == ["1", "2", "3a", "3b", *(f"4.{n}" for n in range(11)), "5"]


async def test_only_ancestors_on_the_path_count(twin: Twin) -> None:
    for number, parent in ((1, None), (2, 1), (3, 1), (4, 2), (5, 3)):
        await put(twin, number, parent)
        await twin.write(config("t", "", numbered_id(number)), [("delta", number)], "task")
    for target, expected in ((5, [1, 3]), (4, [1, 2]), (3, [1]), (2, [1])):
        found = await history(twin, config("t", "", numbered_id(target)), ["delta"])
        assert values(found["delta"]) == expected


async def test_namespaces_and_threads_are_apart(twin: Twin) -> None:
    for ns in ("", "child"):
        for number, parent in ((1, None), (2, 1)):
            await put(twin, number, parent, ns)
            where = config("t", ns, numbered_id(number))
            await twin.write(where, [("delta", ns)], "task")
    for ns in ("", "child"):
        found = await history(twin, config("t", ns), ["delta"])
        assert values(found["delta"]) == [ns]


SEEDS = {
    "none": None,
    "empty list": [],
    "plain list": ["from before the channel was a delta"],
    "snapshot": _DeltaSnapshot({"a": [1, 2]}),
    "long snapshot": _DeltaSnapshot([f"element {n}" for n in range(3000)]),
    "long list": [f"element {n}" for n in range(3000)],
}


@pytest.mark.parametrize("name", SEEDS)
async def test_kinds_of_seeds(twin: Twin, name: str) -> None:
    await put(twin, 1, None, seeds={"other": _DeltaSnapshot(["of the other"])})
    await put(twin, 2, 1, seeds={"delta": SEEDS[name]})
    await put(twin, 3, 2)
    found = await history(twin, config("t"), ["delta", "other", "never"])
    assert_equal(found["delta"]["seed"], SEEDS[name])
    assert found["other"]["seed"] == _DeltaSnapshot(["of the other"])
    assert found["never"] == {"writes": []}


async def test_edges(twin: Twin) -> None:
    assert await history(twin, config("t"), []) == {}
    assert await history(twin, config("absent"), ["delta"]) == {"delta": {"writes": []}}
    await put(twin, 1, None)
    await put(twin, 5, 4)  # its parent was never stored
    for where in (
        config("t"),
        config("t", "", numbered_id(3)),
        {"configurable": {"thread_id": "t"}},
    ):
        assert await history(twin, where, ["delta"]) == {"delta": {"writes": []}}


async def test_a_history_longer_than_a_page(twin: Twin) -> None:
    count = 2 * limits.HISTORY_PAGE + 5
    for number in range(count):
        seeds = {"other": _DeltaSnapshot([number])} if number == 3 else {}
        await put(twin, number, number - 1 if number else None, seeds=seeds)
        await twin.write(config("t", "", numbered_id(number)), [("delta", number)], "task")
    found = await history(twin, config("t"), ["delta", "other"])
    assert values(found["delta"]) == list(range(count - 1))
    assert found["other"]["seed"] == _DeltaSnapshot([3])


@pytest.mark.parametrize("seed", range(4))
async def test_random_chains(twin: Twin, seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    for number in range(25):
        parent = chance.choice([None, *range(number), *([number - 1] * number)])
        seeds = {
            name: _DeltaSnapshot([name, number])
            for name in ("delta", "other")
            if chance.random() < 0.15
        }
        await put(twin, number, parent, seeds=seeds)
        for _ in range(chance.randrange(4)):
            written = [
                (chance.choice(["delta", "other", "x"]), chance.random())
                for _ in range(chance.randrange(4))
            ]
            where = config("t", "", numbered_id(number))
            task, path = f"task {chance.randrange(9)}", chance.choice(["", "a", "b"])
            await twin.write(where, written, task, path)
    for number in range(25):
        channels = chance.choice([["delta"], ["other", "delta"], ["delta", "x", "other"]])
        await history(twin, config("t", "", numbered_id(number)), channels)


# --- real graphs --------------------------------------------------------------


def extend(state: Any, batches: Sequence[Any]) -> Any:
    return [*state, *(one for batch in batches for one in batch)]


class Deltas(TypedDict):
    items: Annotated[list, DeltaChannel(extend, list, snapshot_frequency=4)]
    never_snapshot: Annotated[list, DeltaChannel(extend, list, snapshot_frequency=1000)]
    total: Annotated[int, operator.add]


class Plain(TypedDict):
    items: Annotated[list, operator.add]
    never_snapshot: Annotated[list, operator.add]
    total: Annotated[int, operator.add]


def built(schema: Any, saver: BaseCheckpointSaver[str]) -> Any:
    def note(state: Any) -> Any:
        return {"items": [f"note {state['total']}"], "total": 1}

    def report(state: Any) -> Any:
        return {"never_snapshot": [f"report {state['total']}"], "items": ["r"]}

    builder = StateGraph(schema)
    builder.add_node("note", note)
    builder.add_node("report", report)
    builder.add_edge(START, "note")
    builder.add_edge("note", "report")
    builder.add_edge("report", END)
    return builder.compile(checkpointer=saver)


def turn_of(number: int, thread_id: str = "t") -> Any:
    return {"configurable": {"thread_id": thread_id}, "metadata": {"run_id": f"run {number}"}}


async def converse(face: Face, graph: Any, turns: range, durability: str = "sync") -> Any:
    for number in turns:
        await face.run(
            graph,
            "invoke",
            {"items": [f"in {number}"], "total": 10},
            turn_of(number),
            durability=durability,
        )
    return (await face.run(graph, "get_state", config("t"))).values


def expected(turns: int) -> Any:
    """The state after so many turns, of a graph without deltas in InMemorySaver."""
    graph = built(Plain, InMemorySaver())
    for number in range(turns):
        graph.invoke({"items": [f"in {number}"], "total": 10}, turn_of(number))
    return graph.get_state(config("t")).values


@pytest.fixture(params=FACES)
async def face(request: pytest.FixtureRequest, valkey: Any) -> AsyncIterator[Face]:
    async with open_face(request.param, valkey.url) as one:
        yield one


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("turns", [1, 3, 7])
async def test_pruned_thread_reads_as_before(face: Face, durability: str, turns: int) -> None:
    graph = built(Deltas, face.saver)
    assert await converse(face, graph, range(turns), durability) == expected(turns)
    await face.aprune(["t"])
    assert (await face.run(graph, "get_state", config("t"))).values == expected(turns)
    assert await converse(face, graph, range(turns, turns + 2), durability) == expected(turns + 2)


async def test_prune_cuts_at_the_snapshot(face: Face) -> None:
    """With a snapshot every few updates a long thread keeps only a few checkpoints."""

    class Often(TypedDict):
        items: Annotated[list, DeltaChannel(extend, list, snapshot_frequency=2)]
        never_snapshot: Annotated[list, operator.add]
        total: Annotated[int, operator.add]

    graph = built(Often, face.saver)
    await converse(face, graph, range(8))
    before = len(await face.listed(config("t")))
    await face.aprune(["t"])
    assert (await face.run(graph, "get_state", config("t"))).values == expected(8)
    assert before >= 24
    assert 1 <= len(await face.listed(config("t"))) <= 4


async def test_prune_of_a_plain_thread_leaves_one_checkpoint(face: Face) -> None:
    """Its consumed channels have versions and no values: not deltas, no reason to keep more."""
    graph = built(Plain, face.saver)
    await converse(face, graph, range(3))
    head = await face.aget_tuple(config("t"))
    assert head is not None
    consumed = head.checkpoint["channel_versions"].keys() - head.checkpoint["channel_values"].keys()
    assert any(name.startswith("branch:to:") for name in consumed)
    await face.aprune(["t"])
    assert len(await face.listed(config("t"))) == 1
    assert_equal(await face.aget_tuple(config("t")), head)
    assert await converse(face, graph, range(3, 4)) == expected(4)


@pytest.mark.parametrize("durability", ["sync", "exit"])
async def test_copied_thread_reads_as_the_source(face: Face, durability: str) -> None:
    graph = built(Deltas, face.saver)
    await converse(face, graph, range(5), durability)
    await face.acopy_thread("t", "copy")
    await face.adelete_thread("t")
    assert (await face.run(graph, "get_state", config("copy"))).values == expected(5)
    await face.run(graph, "invoke", {"items": ["in 5"], "total": 10}, turn_of(5, "copy"))
    assert (await face.run(graph, "get_state", config("copy"))).values == expected(6)


@pytest.mark.parametrize("deleted", [[0], [1, 2], [0, 1, 2, 3]])
async def test_deleting_earlier_runs_changes_no_later_state(face: Face, deleted: list[int]) -> None:
    graph = built(Deltas, face.saver)
    await converse(face, graph, range(5))
    await face.adelete_for_runs([f"run {number}" for number in deleted])
    assert (await face.run(graph, "get_state", config("t"))).values == expected(5)
    assert await converse(face, graph, range(5, 7)) == expected(7)


async def test_deleting_the_last_run_goes_back_to_the_one_before(face: Face) -> None:
    graph = built(Deltas, face.saver)
    await converse(face, graph, range(3))
    await face.adelete_for_runs(["run 2"])
    assert (await face.run(graph, "get_state", config("t"))).values == expected(2)


async def test_forks_of_a_thread_with_deltas(face: Face) -> None:
    graph = built(Deltas, face.saver)
    await converse(face, graph, range(4))
    states = await face.run(graph, "get_state_history", config("t"))
    old = next(s for s in states if s.metadata["run_id"] == "run 1" and not s.next)
    assert old.values == expected(2)
    fork = await face.run(graph, "update_state", old.config, {"items": ["forked"]}, "report")
    assert (await face.run(graph, "get_state", fork)).values["items"] == [
        *expected(2)["items"],
        "forked",
    ]
    await face.aprune(["t"])
    assert (await face.run(graph, "get_state", config("t"))).values["items"][-1] == "forked"
