"""Which turn a run belongs to, and which graph it is of: what commits and re-runs go by."""

from __future__ import annotations

import operator
import threading
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.func import entrypoint
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.runtime import Runtime
from langgraph.types import Command, interrupt

from langgraph_valkey import ConfigurationError, ReplayIncomplete
from langgraph_valkey.primary.records import Receipt, moment
from langgraph_valkey.runs import graphs
from langgraph_valkey.runs.receipts_note import by_message
from tests.runs_fixtures import open_ground  # noqa: F401
from tests.runs_ground import Chat, Ground, Log, Trace, chain
from tests.test_commits import RUN


async def test_a_turn_goes_on_behind_an_edit_of_the_state(ground: Ground) -> None:
    """A person changes the state at an interrupt: what was committed stays committed."""
    party = ground.join()
    replayed: list[bool] = []

    def first(_: Log) -> dict[str, Any]:
        return {"log": ["first"]}

    def ship(_: Log) -> dict[str, Any]:
        replayed.append(party.commit("charge", "order").replayed)
        return {"log": [interrupt("ship?")]}

    builder: Any = StateGraph(Log)
    builder.add_node("first", first)
    builder.add_node("ship", ship)
    builder.add_edge(START, "first")
    builder.add_edge("first", "ship")
    graph = party.compiled(builder)
    await party.run(graph, {"log": []}, thread_id="t", run_id="r")
    for edit in ("one", "two"):
        graph.update_state({"configurable": {"thread_id": "t"}}, {"log": [edit]}, as_node="first")
    await party.run(graph, None, thread_id="t", run_id="r2")
    await party.run(graph, Command(resume="yes"), thread_id="t", run_id="r3")
    assert replayed == [False, True, True]
    assert {party.known(each).turn_id for each in ("r", "r2", "r3")} == {"r"}


async def test_a_new_question_is_a_new_turn(ground: Ground) -> None:
    party = ground.join()
    graph = party.compiled(chain(Trace()))
    for run_id in ("r", "r2"):
        await party.run(graph, {"log": ["in"]}, thread_id="t", run_id=run_id)
        assert party.known(run_id).turn_id == run_id


async def test_graphs_without_names_are_not_taken_for_one_another(ground: Ground) -> None:
    """All have the name that LangGraph gives; most agents have the same nodes as well."""
    party = ground.join()
    one, other = chain(Trace()), chain(Trace())
    for _ in range(2):  # Compiled anew it is the same.
        await party.run(one.compile(checkpointer=party.saver), {"log": []}, thread_id="t")
    with pytest.raises(ConfigurationError, match=r"compile\(name=\.\.\.\)"):
        await party.run(other.compile(checkpointer=party.saver), {"log": []}, thread_id="u")


@dataclass
class Handles:
    """What a process has open; no other one can use it."""

    lock: Any


async def test_a_context_that_can_not_be_kept_is_given_again(ground: Ground) -> None:
    trace = Trace()

    def node(_: Log, runtime: Runtime[Handles]) -> dict[str, Any]:
        trace.enter("node")
        with runtime.context.lock:
            return {"log": ["node"]}

    builder: Any = StateGraph(Log, context_schema=Handles)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    trace.die_at("node")
    writer, given = ground.join(), Handles(threading.Lock())
    await writer.dies(
        writer.compiled(builder), {"log": []}, thread_id="t", run_id="r", context=given
    )
    other = ground.join()
    graph = other.compiled(builder)
    assert "(context)" in (await other.recover(graph)).failed[0].why
    other.runs.register(graph, options={"context": Handles(threading.Lock())})
    assert (await other.recover()).rerun == ("r",)


async def test_the_same_call_gets_the_question_again(ground: Ground) -> None:
    """Also of a function, whose run has no values."""
    party = ground.join()

    @entrypoint(checkpointer=party.saver)
    def ask(_: str) -> str:
        return str(interrupt("sure?"))

    party.runs.register(ask, "ask")
    for _ in range(2):
        told = await party.run(ask, "in", thread_id="t", run_id="r")
        assert [question.value for question in told["__interrupt__"]] == ["sure?"]


NOTE = [Receipt("charge", "1001", "done", replayed=True, committed_at=moment(0), payload_sha256="")]


RESULTS = [
    ToolMessage("blue", tool_call_id="1"),
    ("tool", "blue"),
    {"role": "tool", "content": "blue", "tool_call_id": "1"},
]


def chat(state: type) -> Any:
    builder: Any = StateGraph(state)
    builder.add_node("answer", lambda _: {"messages": [AIMessage("so")]})
    builder.add_edge(START, "answer")
    return builder.compile()


@pytest.mark.parametrize("result", RESULTS)
def test_a_note_does_not_part_results_from_the_calls_they_answer(result: Any) -> None:
    """The caller has run a tool itself, and gives its result: no provider takes another order."""
    given = {"messages": [result, HumanMessage("go on")]}
    told = by_message(chat(Chat), RUN, given, NOTE, {})["messages"]
    assert told[0] == result
    assert told[1].id == "receipts-run"
    assert told[2] == given["messages"][1]


@pytest.mark.parametrize("result", [RESULTS[0], RESULTS[2]])
def test_a_note_is_not_last_behind_results_alone(result: Any) -> None:
    """A graph goes by its last message: behind a note it would ask its tool again."""
    call = {"name": "pick", "args": {}, "id": "1"}
    before: Any = [HumanMessage("hi", id="a"), AIMessage("", id="b", tool_calls=[call])]
    values = {"messages": before}
    for _ in range(2):  # However often it is told.
        told = by_message(chat(Chat), RUN, {"messages": [result]}, NOTE, values)
        values = {"messages": add_messages(before, told["messages"])}
        assert [each.type for each in values["messages"]] == ["human", "human", "ai", "tool"]
        assert values["messages"][1].id == "receipts-run"
        before = values["messages"][:-1]


def test_a_note_that_has_no_place_is_left_out() -> None:
    """Where messages are not merged by their ids, nothing can be put between them."""

    class Plain(TypedDict):
        messages: Annotated[list[Any], operator.add]

    given = {"messages": [RESULTS[0]]}
    assert by_message(chat(Plain), RUN, given, NOTE, {"messages": []}) == given


async def test_a_thread_that_is_rewound_under_a_run_is_not_gone_on_with(ground: Ground) -> None:
    """A failover between the look at the thread and LangGraph's own first read."""
    trace = Trace()
    party = ground.join()
    graph = party.compiled(chain(trace))
    await party.run(graph, {"log": ["in"]}, thread_id="t", run_id="r")
    before = ground.moment("t")
    await party.run(graph, {"log": ["2"]}, thread_id="t", run_id="r2")
    trace.taken()
    started = party.store.blocking.start_run

    async def rewound(new: Any) -> Any:
        ground.rewind(before)
        return await started(new)

    for face in (party.store.blocking, party.store.loops):
        face.start_run = rewound  # type: ignore[method-assign]
    with pytest.raises(ReplayIncomplete, match="was rewound"):
        await party.run(graph, {"log": ["3"]}, thread_id="t", run_id="r3")
    assert trace.taken() == []
    party.fall_silent()
    other = ground.join()
    report = await other.recover(other.compiled(chain(trace)))
    assert (report.rerun, report.conflicts) == (("r2", "r3"), ())
    assert graph.get_state({"configurable": {"thread_id": "t"}}).values["log"] == [
        *("in", "a", "b", "c", "2", "a", "b", "c", "3", "a", "b", "c")
    ]


@pytest.mark.parametrize(("installed", "is_taken"), [("1.2.19", False), ("1.2.20", True)])
def test_langgraph_must_be_new_enough(
    installed: str, is_taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "version", lambda _: installed)
    check = graphs.require_langgraph.__wrapped__
    if is_taken:
        check()
    else:
        with pytest.raises(ConfigurationError, match=r"langgraph>=1\.2\.20"):
            check()
