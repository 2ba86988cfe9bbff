"""Real LangGraph graphs: they run, stop, resume and fork as with InMemorySaver.

Each graph is deterministic and is run once with the saver and once with
InMemorySaver; results and the whole history of states must be the same, ids
and times aside.
"""

from __future__ import annotations

import asyncio
import operator
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.types import Command, Interrupt, Send, interrupt
from typing_extensions import TypedDict

from tests.faces import FACES, AsyncFace, Face, SyncFace, assert_equal, open_face

DURABILITIES = ["sync", "async", "exit"]


class Pair:
    """The same graph over the saver and over InMemorySaver."""

    def __init__(self, face: Face, build: Callable[[BaseCheckpointSaver[str]], Any]) -> None:
        oracle = {"async": AsyncFace, "sync": SyncFace}[face.kind](InMemorySaver())
        self.runs = [(one, build(one.saver)) for one in (face, oracle)]

    async def do(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of both graphs; the results must be the same."""
        found, expected = [
            await one.run(graph, method, *args, **kwargs) for one, graph in self.runs
        ]
        assert_equal(without_ids(found), without_ids(expected))
        return found

    async def histories(self, thread_id: str = "t", **criteria: Any) -> list[list[Any]]:
        return [
            await one.run(graph, "get_state_history", of(thread_id), **criteria)
            for one, graph in self.runs
        ]

    async def check(self, thread_id: str = "t") -> list[Any]:
        """Compare the whole history of states; return ours, newest first."""
        found, expected = await self.histories(thread_id)
        assert_equal([told(state) for state in found], [told(state) for state in expected])
        assert len(found) >= 1
        return found

    async def fork(self, pick: Callable[[Any], bool], update: Any, as_node: str | None) -> None:
        """Go back to the newest state that fits, change it, and run on from there."""
        for (one, graph), history in zip(self.runs, await self.histories(), strict=True):
            state = next(state for state in history if pick(state))
            where = await one.run(graph, "update_state", state.config, update, as_node)
            await one.run(graph, "invoke", None, where)


def of(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id}}


def without_ids(result: Any) -> Any:
    """A result with its interrupts' values alone: their ids differ from run to run."""
    if isinstance(result, Interrupt):
        return result.value
    if isinstance(result, dict):
        return {key: without_ids(value) for key, value in result.items()}
    if isinstance(result, list | tuple):
        return [without_ids(one) for one in result]
    return result


def told(state: Any) -> Any:
    """What a snapshot says, without ids and times, which differ from run to run."""
    metadata = {
        key: value for key, value in state.metadata.items() if key not in ("parents", "run_id")
    }
    tasks = [
        (one.name, one.path[:2], one.error, [i.value for i in one.interrupts], one.result)
        for one in state.tasks
    ]
    has_parent = state.parent_config is not None
    return state.values, state.next, metadata, sorted(tasks, key=repr), has_parent


@pytest.fixture(params=["valkey", "three_shards"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param).url
    return found


@pytest.fixture(params=FACES)
async def face(request: pytest.FixtureRequest, url: str) -> AsyncIterator[Face]:
    async with open_face(request.param, url) as opened:
        yield opened


# --- graphs -------------------------------------------------------------------


class State(TypedDict):
    log: Annotated[list[str], operator.add]
    count: int


def approving(saver: BaseCheckpointSaver[str]) -> Any:
    """Draft, ask twice, send."""

    def draft(state: State) -> Any:
        return {"log": ["drafted"], "count": state.get("count", 0) + 1}

    def ask(state: State) -> Any:
        first = interrupt({"draft": state["log"]})
        second = interrupt("sure?")
        return {"log": [f"said {first} and {second}"]}

    builder = StateGraph(State)
    builder.add_node("draft", draft)
    builder.add_node("ask", ask)
    builder.add_node("send", lambda state: {"log": ["sent"]})
    builder.add_edge(START, "draft")
    builder.add_edge("draft", "ask")
    builder.add_edge("ask", "send")
    builder.add_edge("send", END)
    return builder.compile(checkpointer=saver)


def nested(saver: BaseCheckpointSaver[str]) -> Any:
    """A graph in a graph in a graph, with an interrupt in the innermost."""

    def inner(name: str, *inside: Any) -> Any:
        builder = StateGraph(State)
        builder.add_node(f"{name} start", lambda state: {"log": [f"{name} starts"]})
        last = f"{name} start"
        builder.add_edge(START, last)
        for node in inside:
            builder.add_node(f"{name} inside", node)
            builder.add_edge(last, last := f"{name} inside")
        builder.add_edge(last, END)
        return builder

    def ask(state: State) -> Any:
        return {"log": [f"heard {interrupt('anyone?')}"], "count": 1}

    innermost = inner("innermost", ask).compile(checkpointer=True)
    middle = inner("middle", innermost).compile()
    return inner("outer", middle).compile(checkpointer=saver)


def fanning(saver: BaseCheckpointSaver[str]) -> Any:
    """One task a letter by Send, twice over; the order of the writes is the order of the sends."""
    builder = StateGraph(State)
    builder.add_node("plan", lambda state: {"count": len(state["log"])})
    builder.add_node("work", lambda one: {"log": [f"{one['letter']} done"]})
    builder.add_node("gather", lambda state: {"log": ["gathered"]})
    builder.add_edge(START, "plan")
    builder.add_conditional_edges(
        "plan", lambda state: [Send("work", {"letter": x}) for x in "zyxwvutsrqponm"], ["work"]
    )
    builder.add_edge("work", "gather")
    builder.add_edge("gather", END)
    return builder.compile(checkpointer=saver)


def functional(saver: BaseCheckpointSaver[str]) -> Any:
    @task
    def double(number: int) -> int:
        return 2 * number

    @entrypoint(checkpointer=saver)
    def work(numbers: list[int], *, previous: Any = None) -> Any:
        doubled = [one.result() for one in [double(number) for number in numbers]]
        approved = interrupt({"doubled": doubled})
        total = sum(doubled) + (previous or 0)
        return entrypoint.final(value={"total": total, "approved": approved}, save=total)

    return work


def chatting(saver: BaseCheckpointSaver[str]) -> Any:
    class Chat(TypedDict):
        messages: Annotated[Sequence[AnyMessage], add_messages]

    def answer(state: Chat) -> Any:
        last = state["messages"][-1]
        return {"messages": [AIMessage(f"You said: {last.content}", id=f"ai {last.id}")]}

    builder = StateGraph(Chat)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    builder.add_edge("answer", END)
    return builder.compile(checkpointer=saver)


def failing(gate: list[str], saver: BaseCheckpointSaver[str]) -> Any:
    """Two parallel nodes: one fails till the gate is open; the other runs once, not twice."""

    def sure(state: State) -> Any:
        gate.append("sure ran")
        return {"log": ["sure ran"]}

    def unsure(state: State) -> Any:
        if "open" in gate:
            return {"log": ["unsure ran"]}
        while not any(name == "log" for _, name, _ in pending()):
            time.sleep(0.01)  # till what its neighbour wrote is stored
        raise RuntimeError("not yet")

    def pending() -> Any:
        found = saver.get_tuple(of("t"))
        return (found and found.pending_writes) or []

    builder = StateGraph(State)
    builder.add_node("sure", sure)
    builder.add_node("unsure", unsure)
    builder.add_node("end", lambda state: {"log": ["end"]})
    builder.add_edge(START, "sure")
    builder.add_edge(START, "unsure")
    builder.add_edge(["sure", "unsure"], "end")
    return builder.compile(checkpointer=saver)


# --- tests --------------------------------------------------------------------


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_interrupt_and_resume(face: Face, durability: str) -> None:
    pair = Pair(face, approving)
    start = {"log": ["start"], "count": 0}
    resumes: list[Any] = [start, Command(resume="yes"), Command(resume={"very": True})]
    for resume in resumes:
        await pair.do("stream", resume, of("t"), stream_mode="values", durability=durability)
        await pair.check()
    states = await pair.check()
    assert states[0].values["log"] == ["start", "drafted", "said yes and {'very': True}", "sent"]
    assert states[0].next == ()


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_subgraphs(face: Face, durability: str) -> None:
    pair = Pair(face, nested)
    for turn in (1, 2):  # the innermost graph remembers the first turn
        await pair.do("invoke", {"log": [f"turn {turn}"]}, of("t"), durability=durability)
        inner = [
            await one.run(graph, "get_state", of("t"), subgraphs=True) for one, graph in pair.runs
        ]
        assert_equal(*[told(state.tasks[0].state) for state in inner])
        await pair.do("invoke", Command(resume="me"), of("t"), durability=durability)
        states = await pair.check()
    assert states[0].values["log"].count("heard me") >= 2
    namespaces = {
        found.config["configurable"]["checkpoint_ns"].count("|")
        for found in await face.listed(of("t"))
    }
    assert namespaces >= {0, 1}


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_send_fan_out(face: Face, durability: str) -> None:
    pair = Pair(face, fanning)
    for _ in range(2):
        await pair.do("invoke", {"log": ["start"]}, of("t"), durability=durability)
    states = await pair.check()
    done = [entry for entry in states[0].values["log"] if entry.endswith("done")]
    assert done == [f"{x} done" for x in "zyxwvutsrqponm"] * 2


async def test_functional_api(face: Face) -> None:
    pair = Pair(face, functional)
    for approval in ("yes", "no"):
        await pair.do("stream", [1, 2, 3], of("t"), stream_mode="values")
        await pair.check()
        await pair.do("invoke", Command(resume=approval), of("t"))
    assert (await pair.check())[0].values == {"total": 24, "approved": "no"}


async def test_time_travel(face: Face) -> None:
    pair = Pair(face, approving)
    steps: list[Any] = [{"log": ["start"], "count": 0}, Command(resume="a"), Command(resume="b")]
    for step in steps:
        await pair.do("invoke", step, of("t"))
    await pair.fork(lambda state: state.next == ("send",), {"log": ["forked"]}, "ask")
    states = await pair.check()
    assert states[0].values["log"][-2:] == ["forked", "sent"]
    await pair.fork(lambda state: state.next == ("ask",), {"count": 7}, None)
    states = await pair.check()
    assert states[0].next == ("ask",)  # it asks anew
    assert states[0].values["count"] == 7
    found, expected = await pair.histories(limit=4, filter={"source": "update"})
    assert_equal([told(state) for state in found], [told(state) for state in expected])
    assert len(found) == 2


async def test_replay_from_an_earlier_checkpoint(face: Face) -> None:
    pair = Pair(face, chatting)
    for number in range(4):
        await pair.do("invoke", {"messages": [HumanMessage("hi", id=str(number))]}, of("t"))
    for (one, graph), history in zip(pair.runs, await pair.histories(), strict=True):
        early = next(state for state in history if len(state.values["messages"]) == 4)
        fresh = {"messages": [HumanMessage("instead", id="x")]}
        result = await one.run(graph, "invoke", fresh, early.config)
        assert [message.id for message in result["messages"]][-3:] == ["ai 1", "x", "ai x"]
    await pair.check()


async def test_a_failed_step_keeps_what_succeeded(face: Face) -> None:
    gate: list[str] = []
    pair = Pair(face, partial(failing, gate))
    for one, graph in pair.runs:
        with pytest.raises(RuntimeError, match="not yet"):
            await one.run(graph, "invoke", {"log": [], "count": 0}, of("t"), durability="sync")
    tasks = {one.name: one for one in (await pair.check())[0].tasks}
    assert tasks["unsure"].error == "RuntimeError('not yet')"
    assert tasks["sure"].result == {"log": ["sure ran"]}
    gate.append("open")
    result = await pair.do("invoke", None, of("t"))
    assert result["log"] == ["sure ran", "unsure ran", "end"]
    assert gate.count("sure ran") == len(pair.runs)
    await pair.check()


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_many_threads_at_once(face: Face, durability: str) -> None:
    graph = chatting(face.saver)

    async def converse(name: str) -> None:
        for number in range(5):
            sent = {"messages": [HumanMessage(f"{name} {number}", id=f"{name} {number}")]}
            await face.run(graph, "invoke", sent, of(name), durability=durability)
        state = await face.run(graph, "get_state", of(name))
        contents = [message.content for message in state.values["messages"]]
        assert contents[::2] == [f"{name} {number}" for number in range(5)]
        assert contents[1::2] == [f"You said: {name} {number}" for number in range(5)]

    await asyncio.gather(*(converse(f"user {number}") for number in range(30)))


async def test_a_long_conversation(face: Face) -> None:
    pair = Pair(face, chatting)
    for number in range(100):  # 200 messages
        sent = {"messages": [HumanMessage(f"{number} " * (number % 30), id=str(number))]}
        result = await pair.do("invoke", sent, of("t"))
    assert len(result["messages"]) == 200
    states = await pair.check()
    assert len(states) == 300
    assert len(states[0].values["messages"]) == 200
