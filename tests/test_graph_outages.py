"""A server that dies under running graphs: errors, then a resumed thread, never an empty one."""

from __future__ import annotations

import asyncio
import operator
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph

from langgraph_valkey.errors import LanggraphValkeyError, OutcomeUnknown, Unreachable, WriteRejected
from langgraph_valkey.keys import thread_keys
from langgraph_valkey.local import LocalCluster, LocalValkey
from tests.every_call import MARK, assert_silent
from tests.faces import FACES, Face, config, open_face

FAST: dict[str, Any] = {
    "request_timeout_ms": 250,
    "connection_timeout_ms": 250,
    "read_deadline_s": 0.3,
    "unknown_retry_deadline_s": 0.3,
    "reject_deadline_s": 0.5,
}
OUTAGE = (Unreachable, WriteRejected, OutcomeUnknown)
NODES = ("first", "second", "third", "fourth")


class State(TypedDict):
    told: Annotated[list[str], operator.add]


def turn(number: int) -> dict[str, list[str]]:
    return {"told": [f"{MARK} input {number}"]}


def after(*numbers: int) -> list[str]:
    """What the graph must have said after these turns."""
    return [f"{MARK} {who} {number}" for number in numbers for who in ("input", *NODES)]


def build(face: Face, hook: Callable[[str, int], None]) -> Any:
    """A chain of nodes, each of which tells its name and turn; the hook may do harm."""
    builder = StateGraph(State)
    for name in NODES:

        def node(state: State, name: str = name) -> State:
            number = int(state["told"][-1].rsplit(" ", 1)[1])
            hook(name, number)
            return {"told": [f"{MARK} {name} {number}"]}

        builder.add_node(name, node)
    for left, right in zip((START, *NODES[:-1]), NODES, strict=True):
        builder.add_edge(left, right)
    return builder.compile(checkpointer=face.saver)


async def answered(call: Callable[[], Awaitable[Any]]) -> Any:
    """Call until the server answers."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return await call()
        except OUTAGE:
            assert time.monotonic() < deadline


async def go_on(face: Face, graph: Any, where: Any, number: int) -> list[str]:
    """End the turn that broke off: from where it stands, or from its input if that was lost."""
    state = await answered(lambda: face.run(graph, "get_state", where))
    told: list[str] = state.values["told"]
    assert told
    # A task that ended before its step did is not in `next`; its writes are there.
    if not state.tasks and told[-1] == f"{MARK} {NODES[-1]} {number}":
        return told
    start = None if state.tasks else turn(number)
    ended = await face.run(graph, "invoke", start, where, durability="sync")
    found: list[str] = ended["told"]
    return found


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("kind", FACES)
async def test_a_killed_server_comes_back_with_the_thread(
    kind: str, durability: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    where = config("t")
    with LocalValkey(tmp_path) as server:
        kills = iter([server.kill])

        def harm(name: str, number: int) -> None:
            if (name, number) == ("third", 2):
                next(kills, lambda: None)()

        async with open_face(kind, server.url, key_prefix="lgv", **FAST) as face:
            graph = build(face, harm)
            await face.run(graph, "invoke", turn(1), where, durability=durability)
            with pytest.raises(LanggraphValkeyError) as caught:
                await face.run(graph, "invoke", turn(2), where, durability=durability)
            assert isinstance(caught.value, OUTAGE)
            assert_silent([caught.value], caplog.text)
            with pytest.raises(OUTAGE):
                await face.run(graph, "get_state", where)
            server.restart()
            state = await answered(lambda: face.run(graph, "get_state", where))
            if durability == "sync":
                assert state.next == ("third",)
            elif durability == "exit":
                assert state.next == ()
                assert state.values["told"] == after(1)
            assert await go_on(face, graph, where, 2) == after(1, 2)
        async with open_face(kind, server.url, key_prefix="lgv") as another:
            graph = build(another, harm)
            state = await another.run(graph, "get_state", where)
            assert state.next == ()
            assert state.values["told"] == after(1, 2)
            for one in await another.run(graph, "get_state_history", where):
                said = one.values.get("told", [])
                assert said == after(1, 2)[: len(said)]


@pytest.fixture
def whole(failover_cluster: LocalCluster) -> Iterator[LocalCluster]:
    yield failover_cluster
    for node in failover_cluster.nodes:
        if not node.running:
            failover_cluster.restart_node(node)
    failover_cluster.wait_healthy()


@pytest.mark.parametrize("kind", FACES)
async def test_a_crash_failover_under_running_graphs(
    kind: str, whole: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Runs end or raise; each thread is whole afterwards and goes on to the right end."""
    prefix = f"t{os.urandom(6).hex()}"
    options = {"read_deadline_s": 10, "unknown_retry_deadline_s": 10, "reject_deadline_s": 10}
    names = [f"thread {number}" for number in range(24)]
    shard = whole.shard_of(thread_keys(prefix, names[0]).state)
    hit = [n for n in names if whole.shard_of(thread_keys(prefix, n).state) == shard]
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    def note(name: str, number: int) -> None:
        if (name, number) == ("second", 2):
            loop.call_soon_threadsafe(began.set)

    async with open_face(kind, whole.url, key_prefix=prefix, **{**FAST, **options}) as face:
        graph = build(face, note)

        async def run(name: str, number: int) -> Any:
            return await face.run(graph, "invoke", turn(number), config(name), durability="sync")

        await asyncio.gather(*(run(name, 1) for name in names))
        whole.wait_replicated(shard)
        runs = asyncio.gather(*(run(name, 2) for name in names), return_exceptions=True)
        await began.wait()
        await asyncio.to_thread(whole.kill_primary, shard)
        ended = dict(zip(names, await runs, strict=True))
        failures = [result for result in ended.values() if isinstance(result, BaseException)]
        assert all(isinstance(failure, LanggraphValkeyError) for failure in failures), failures
        assert_silent(failures, caplog.text)
        await asyncio.to_thread(whole.wait_healthy)
        for name in names:
            found = ended[name]
            if not isinstance(found, BaseException):
                assert found["told"] == after(1, 2)
            if name in hit or isinstance(found, BaseException):
                for one in await answered(partial(face.listed, config(name))):
                    said = one.checkpoint["channel_values"].get("told", [])
                    assert said == after(1, 2)[: len(said)]
                assert await go_on(face, graph, config(name), 2) == after(1, 2)
            state = await face.run(graph, "get_state", config(name))
            assert state.values["told"] == after(1, 2)
