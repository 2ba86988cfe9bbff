"""What is executed of a run that was begun: answers, breakpoints and receipts above all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from langgraph_valkey.runs import attempts
from langgraph_valkey.runs.rerun import GONE, NOT_MADE_AGAIN, OTHER_QUESTION
from tests.runs_fixtures import new_trace, open_ground  # noqa: F401
from tests.runs_ground import Chat, Died, Ground, Log, Party, Trace, chain

IN = {"log": ["in"]}
WHERE = {"configurable": {"thread_id": "t"}}


def asking(trace: Trace, question: Callable[[], str] = lambda: "first?") -> Any:
    """A node before, one that asks twice, and one after."""

    def before(state: Log) -> Any:
        trace.enter("before")
        return {"log": ["before"]}

    def ask(state: Log) -> Any:
        trace.enter("ask")
        one = interrupt(question())
        trace.enter("asked once")
        two = interrupt("second?")
        trace.enter("asked twice")
        return {"log": [one, two]}

    def after(state: Log) -> Any:
        trace.enter("after")
        return {"log": ["after"]}

    builder = StateGraph(Log)
    for node in (before, ask, after):
        builder.add_node(node.__name__, node)
    builder.add_edge(START, "before")
    builder.add_edge("before", "ask")
    builder.add_edge("ask", "after")
    return builder


def questions(graph: Any) -> list[Any]:
    return [each.value for each in graph.get_state(WHERE).interrupts]


async def recovered(ground: Ground, builder: Any, **options: Any) -> tuple[Party, Any, Any]:
    other = ground.join()
    graph = other.compiled(builder, **options)
    return other, graph, await other.recover(graph)


async def test_an_answer_that_was_not_taken_is_given_again(ground: Ground, trace: Trace) -> None:
    """The process dies while the answer is on its way; the server has it, or lost it."""
    for is_lost in (False, True):
        writer = ground.join()
        graph = writer.compiled(asking(trace))
        await writer.run(graph, IN, thread_id="t", run_id=f"q{is_lost}")
        moment = ground.moment("t")
        trace.die_at("asked once")
        run_id = f"r{is_lost}"
        await writer.dies(graph, Command(resume="one"), thread_id="t", run_id=run_id)
        if is_lost:
            ground.rewind(moment)
        other, graph, report = await recovered(ground, asking(trace))
        assert run_id in report.rerun
        assert questions(graph) == ["second?"]
        assert other.known(run_id).outcome == "interrupted"
        trace.taken()
        await other.run(graph, Command(resume="two"), thread_id="t")
        assert graph.get_state(WHERE).values["log"][-3:] == ["one", "two", "after"]
        trace.taken()


async def test_an_answer_never_goes_to_the_next_question(
    ground: Ground, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second question was asked, and the process died before it could say so."""

    async def die(*_: Any) -> None:
        raise Died

    writer = ground.join()
    graph = writer.compiled(asking(trace))
    await writer.run(graph, IN, thread_id="t")
    with monkeypatch.context() as patched:
        patched.setattr(attempts, "_record", die)
        await writer.dies(graph, Command(resume="yes"), thread_id="t", run_id="r")
    trace.taken()
    other, graph, report = await recovered(ground, asking(trace))
    assert "r" in report.fine
    assert trace.taken() == []
    assert questions(graph) == ["second?"]
    assert other.known("r").outcome == "interrupted"


async def test_a_question_that_was_lost_is_asked_again(ground: Ground, trace: Trace) -> None:
    """The checkpoint is there, and what stood on it is not."""
    moments: list[Any] = []
    trace.on["ask"] = lambda: moments.append(ground.moment("t"))
    writer = ground.join()
    graph = writer.compiled(asking(trace))
    await writer.run(graph, IN, thread_id="t", run_id="q")
    await writer.run(graph, Command(resume="one"), thread_id="t", run_id="r")
    assert writer.known("q").head == writer.known("r").head
    trace.on.clear()
    writer.fall_silent()
    for moment, lost in ((moments[1], ("r",)), (moments[0], ("q", "r"))):
        ground.rewind(moment)
        other, graph, report = await recovered(ground, asking(trace))
        assert report.rerun == lost
        assert questions(graph) == ["second?"]
        other.fall_silent()


async def test_an_answer_is_wiped_where_something_else_waits(ground: Ground, trace: Trace) -> None:
    """Beside the task that asks stands one that did not finish: the step goes on for it."""

    def slow(state: Log) -> Any:
        trace.enter("slow")
        return {"log": ["slow"]}

    def both() -> Any:
        builder = asking(trace)
        builder.add_node("slow", slow)
        builder.add_edge("before", "slow")
        return builder

    def fail() -> None:
        raise ValueError("not yet")

    trace.on["slow"] = fail
    writer = ground.join()
    graph = writer.compiled(both())
    with pytest.raises(ValueError, match="not yet"):  # Its task waits beside the question.
        await writer.run(graph, IN, thread_id="t")
    with pytest.raises(ValueError, match="not yet"):
        await writer.run(graph, None, thread_id="t")
    assert questions(graph) == ["first?"]

    def die_late() -> None:
        while "asked once" not in trace.calls:
            pass
        trace.on.clear()
        raise Died

    trace.on["slow"] = die_late
    await writer.dies(graph, Command(resume="yes"), thread_id="t", run_id="r")
    trace.taken()
    other, graph, _ = await recovered(ground, both())
    assert "asked twice" not in trace.calls
    assert questions(graph) == ["second?"]
    await other.run(graph, Command(resume="no"), thread_id="t")
    assert sorted(graph.get_state(WHERE).values["log"][-4:]) == ["after", "no", "slow", "yes"]


async def test_an_answer_does_not_wander_within_a_subgraph(ground: Ground, trace: Trace) -> None:
    """The first question was answered there, the second not asked yet: the outer graph
    knows of neither."""

    def first(state: Log) -> Any:
        return {"log": [interrupt("first?")]}

    def second(state: Log) -> Any:
        trace.enter("second")
        return {"log": [interrupt("second?")]}

    inner = StateGraph(Log)
    inner.add_node(first)
    inner.add_node(second)
    inner.add_edge(START, "first")
    inner.add_edge("first", "second")
    outer = StateGraph(Log)
    outer.add_node("inner", inner.compile())
    outer.add_edge(START, "inner")
    writer = ground.join()
    graph = writer.compiled(outer)
    await writer.run(graph, IN, thread_id="t", run_id="q")
    trace.die_at("second")
    await writer.dies(graph, Command(resume="yes"), thread_id="t", run_id="r")
    other, graph, report = await recovered(ground, outer)
    assert "r" in report.rerun
    assert questions(graph) == ["second?"]
    await other.run(graph, Command(resume="no"), thread_id="t")
    assert graph.get_state(WHERE).values["log"][-2:] == ["yes", "no"]


async def test_a_question_and_its_answer_are_both_executed_again(
    ground: Ground, trace: Trace
) -> None:
    before = ground.moment("t")
    writer = ground.join()
    graph = writer.compiled(asking(trace))
    await writer.run(graph, IN, thread_id="t", run_id="q")
    await writer.run(graph, Command(resume="one"), thread_id="t", run_id="r1")
    [second] = graph.get_state(WHERE).interrupts
    await writer.run(graph, Command(resume={second.id: "two"}), thread_id="t", run_id="r2")
    ground.rewind(before)
    writer.fall_silent()
    other, graph, report = await recovered(ground, asking(trace))
    assert report.rerun == ("q", "r1", "r2")
    assert graph.get_state(WHERE).values["log"] == ["in", "before", "one", "two", "after"]
    assert {other.known(each).turn_id for each in ("q", "r1", "r2")} == {"q"}


async def test_an_answer_is_not_given_to_another_question(ground: Ground, trace: Trace) -> None:
    before = ground.moment("t")
    asked = ["pay 1?"]
    writer = ground.join()
    graph = writer.compiled(asking(trace, lambda: asked[0]))
    await writer.run(graph, IN, thread_id="t", run_id="q")
    await writer.run(graph, Command(resume="yes"), thread_id="t", run_id="r")
    ground.rewind(before)
    writer.fall_silent()
    asked[0] = "pay 1000?"
    _, graph, report = await recovered(ground, asking(trace, lambda: asked[0]))
    assert report.rerun == ("q",)
    assert [(c.run_id, c.why) for c in report.conflicts] == [("r", OTHER_QUESTION)]
    assert questions(graph) == ["pay 1000?"]


@pytest.mark.parametrize(("by", "why"), [("nobody", NOT_MADE_AGAIN), ("one that failed", GONE)])
async def test_going_on_needs_something_to_go_on_with(
    ground: Ground, trace: Trace, by: str, why: str
) -> None:
    before = ground.moment("t")
    writer = ground.join()
    graph = writer.compiled(chain(trace))
    if by == "nobody":
        graph.invoke(IN, WHERE, durability="sync", interrupt_before=["b"])
    else:
        trace.on["b"] = lambda: 1 / 0
        with pytest.raises(ZeroDivisionError):
            await writer.run(graph, IN, thread_id="t", run_id="failed")
        trace.on.clear()
    await writer.run(graph, None, thread_id="t", run_id="r")
    ground.rewind(before)
    writer.fall_silent()
    _, _, report = await recovered(ground, chain(trace))
    assert [(c.run_id, c.why) for c in report.conflicts] == [("r", why)]


async def test_what_was_built_upon_an_edit_needs_the_edit(ground: Ground, trace: Trace) -> None:
    """A person told the agent something; without it the turn would be another one."""
    writer = ground.join()
    graph = writer.compiled(chain(trace))
    await writer.run(graph, IN, thread_id="t", run_id="r")
    before = ground.moment("t")
    graph.update_state(WHERE, {"log": ["never mail"]})
    await writer.run(graph, IN, thread_id="t", run_id="r2")
    ground.rewind(before)
    writer.fall_silent()
    trace.taken()
    _, _, report = await recovered(ground, chain(trace))
    assert [(c.run_id, c.why) for c in report.conflicts] == [("r2", NOT_MADE_AGAIN)]
    assert trace.taken() == []


@pytest.mark.parametrize("where", ["interrupt_before", "interrupt_after"])
async def test_a_breakpoint_is_not_passed_by_a_rerun(
    ground: Ground, trace: Trace, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    async def die(*_: Any) -> None:
        raise Died

    stops = {where: ["b"] if where == "interrupt_before" else ["a"]}
    writer = ground.join()
    graph = writer.compiled(chain(trace), **stops)
    with monkeypatch.context() as patched:
        patched.setattr(attempts, "_record", die)
        await writer.dies(graph, IN, thread_id="t", run_id="r")
    assert trace.taken() == ["a"]
    other, graph, report = await recovered(ground, chain(trace), **stops)
    assert report.fine == ("r",)
    assert trace.taken() == []
    assert other.known("r").outcome == "interrupted"
    trace.die_at("c")
    await other.dies(graph, None, thread_id="t", run_id="r2")
    assert trace.taken() == ["b", "c"]
    other, _, report = await recovered(ground, chain(trace), **stops)
    assert "r2" in report.rerun
    assert trace.taken() == ["c"]
    assert {other.known(each).turn_id for each in ("r", "r2")} == {"r"}


@pytest.mark.parametrize("is_lost", [False, True])
async def test_what_a_command_changes_is_applied_once(
    ground: Ground, trace: Trace, *, is_lost: bool
) -> None:
    writer = ground.join()
    graph = writer.compiled(chain(trace))
    await writer.run(graph, IN, thread_id="t")
    moment = ground.moment("t")
    command: Command[Any] = Command(update={"log": ["more"]}, goto="c")
    trace.die_at("c")
    await writer.dies(graph, command, thread_id="t", run_id="r")
    if is_lost:
        ground.rewind(moment)
    _, graph, report = await recovered(ground, chain(trace))
    assert report.rerun == ("r",)
    assert graph.get_state(WHERE).values["log"][4:] == ["more", "c"]


# --- receipts ------------------------------------------------------------------------


def talking(trace: Trace, party: list[Party]) -> Any:
    """A model that calls a tool, the tool, and the model again."""

    def model(state: Chat) -> Any:
        trace.enter("model")
        if isinstance(state["messages"][-1], ToolMessage):
            return {"messages": [AIMessage("done", id="answer")]}
        call = {"name": "pay", "args": {}, "id": f"call {len(trace.calls)}"}
        return {"messages": [AIMessage("", id="calls", tool_calls=[call])]}

    def tool(state: Chat) -> Any:
        receipt = party[0].commit("pay", "order 1")
        trace.enter("tool")
        [call] = state["messages"][-1].tool_calls  # type: ignore[union-attr]
        return {"messages": [ToolMessage(receipt.result, tool_call_id=call["id"], id="result")]}

    builder = StateGraph(Chat)
    builder.add_node(model)
    builder.add_node(tool)
    builder.add_edge(START, "model")
    builder.add_conditional_edges(
        "model", lambda s: "tool" if s["messages"][-1].tool_calls else "__end__"
    )
    builder.add_edge("tool", "model")
    return builder


ASKED = {"messages": [HumanMessage("buy it", id="question")]}


def ids(graph: Any) -> list[str]:
    return [message.id for message in graph.get_state(WHERE).values["messages"]]


@pytest.mark.parametrize("left", ["nothing", "the call", "the result"])
async def test_a_rerun_is_told_what_was_committed(ground: Ground, trace: Trace, left: str) -> None:
    moments = {"nothing": ground.moment("t")}
    writer = ground.join()
    party = [writer]
    graph = writer.compiled(talking(trace, party))
    trace.die_at("tool" if left != "the result" else "model")
    if left == "the result":
        del trace.on["model"]
        trace.on["tool"] = lambda: trace.die_at("model")
    await writer.dies(graph, ASKED, thread_id="t", run_id="r")
    if left in moments:
        ground.rewind(moments[left])
    # The first one to execute it again dies, too, having told the graph.
    trace.die_at("model" if left != "the call" else "tool")
    second = party[0] = ground.join()
    await second.dies_recovering(second.compiled(talking(trace, party)))
    third = party[0] = ground.join()
    graph = third.compiled(talking(trace, party))
    report = await third.recover(graph)
    assert report.rerun == ("r",), report
    expected = {
        "nothing": ["receipts-r", "question", "calls", "result", "answer"],
        "the call": ["question", "receipts-r", "calls", "result", "answer"],
        "the result": ["question", "receipts-r", "calls", "result", "answer"],
    }
    assert ids(graph) == expected[left]
    messages = {m.id: m for m in graph.get_state(WHERE).values["messages"]}
    assert '- pay "order 1": "pay order 1 done"' in messages["receipts-r"].content
    assert len(third.receipts("t", "r")) == 1
