"""Telling a re-run what its turn has committed, where messages have no ids of their own."""

from __future__ import annotations

import itertools
import time
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.graph import START, StateGraph
from langgraph.types import Send

from langgraph_valkey.link import finish
from langgraph_valkey.primary.records import CommitKey, CommitRequest
from tests.runs_fixtures import new_trace, open_ground  # noqa: F401
from tests.runs_ground import Chat, Died, Ground, Party, Trace

WHERE: Any = {"configurable": {"thread_id": "t"}}


class Call(TypedDict):
    id: str


@pytest.mark.parametrize("left", ["the input", "one of two results"])
async def test_what_has_no_id_is_not_doubled_by_the_note(
    ground: Ground, trace: Trace, left: str
) -> None:
    """What is pending on the head is applied by the graph, and must not be in the note."""
    writer = ground.join()
    party = [writer]
    graph = writer.compiled(_with_two_tools(trace, party))
    if left == "the input":
        _commit_before(ground)
        _die_after_the_input(graph, ground.kind)
    else:
        trace.die_at("slow")
        trace.on["slow"] = _after_a_result(graph, trace.on["slow"])
    question = {"messages": [HumanMessage("buy both")]}
    await writer.dies(graph, question, thread_id="t", run_id="r")
    other = party[0] = ground.join()
    graph = other.compiled(_with_two_tools(trace, party))
    report = await other.recover(graph)
    assert report.rerun == ("r",), report
    messages = graph.get_state(WHERE).values["messages"]
    kinds = [type(m).__name__ for m in messages if m.id != "receipts-r"]
    assert kinds == ["HumanMessage", "AIMessage", "ToolMessage", "ToolMessage", "AIMessage"]
    assert [m.id for m in messages].count("receipts-r") == 1


def _commit_before(ground: Ground) -> None:
    """As if a longer execution of the turn had been lost."""
    key = CommitKey("greet", "first", "turn", "t", "r")
    request = CommitRequest(key, "", "t", "r")
    finish(ground.store.blocking.commit(request, lambda _: "done"))


def _die_after_the_input(graph: Any, kind: str) -> None:
    method = "aput" if kind == "async" else "put"
    put, count = getattr(graph.checkpointer, method), itertools.count()

    def once(*given: Any) -> Any:
        if next(count):
            raise Died
        return put(*given)

    setattr(graph.checkpointer, method, once)


def _after_a_result(graph: Any, die: Any) -> Any:
    def wait() -> None:
        while not any(write[1] == "messages" for write in _pending(graph)):
            time.sleep(0.01)
        die()

    return wait


def _pending(graph: Any) -> Any:
    return graph.checkpointer.get_tuple(WHERE).pending_writes


def _with_two_tools(trace: Trace, party: list[Party]) -> Any:
    """A model that calls two tools at once; none of its messages has an id."""

    def model(state: Chat) -> Any:
        trace.enter("model")
        if isinstance(state["messages"][-1], ToolMessage):
            return {"messages": [AIMessage("done")]}
        calls: Any = [{"name": name, "args": {}, "id": name} for name in ("fast", "slow")]
        return {"messages": [AIMessage("", tool_calls=calls)]}

    def tool(state: Call) -> Any:
        trace.enter(state["id"])
        receipt = party[0].commit("pay", state["id"])
        return {"messages": [ToolMessage(receipt.result, tool_call_id=state["id"])]}

    builder = StateGraph(Chat)
    builder.add_node(model)
    builder.add_node(tool)
    builder.add_edge(START, "model")
    builder.add_conditional_edges(
        "model", lambda s: [Send("tool", call) for call in s["messages"][-1].tool_calls], ["tool"]
    )
    builder.add_edge("tool", "model")
    return builder
