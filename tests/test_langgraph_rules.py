"""Rules of LangGraph that re-running builds upon. They are its own, and may change."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import INTERRUPT, RESUME
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from langgraph_valkey.commits.turns import ATTEMPT, TURN_ID
from langgraph_valkey.runs.inputs import NULL_TASK

WHERE: Any = {"configurable": {"thread_id": "t"}}
IN = {"log": ["in"]}


class State(TypedDict):
    log: Annotated[list[Any], operator.add]


class Down(Exception):
    """What a node raises that does not work yet."""


class Graph:
    """Nodes in a row, executed with a run id on one face.

    Attributes:
        calls: The nodes that were executed.
        down: Those that raise.
    """

    def __init__(self, kind: str, **options: Any) -> None:
        self.kind = kind
        self.calls: list[str] = []
        self.down: set[str] = set()
        self.saver = InMemorySaver()
        builder = StateGraph(State)
        for name in ("a", "ask", "b"):
            builder.add_node(name, self._node(name))
        builder.add_edge(START, "a")
        builder.add_edge("a", "ask")
        builder.add_edge("ask", "b")
        self.graph = builder.compile(checkpointer=self.saver, **options)

    def _node(self, name: str) -> Any:
        def node(state: State) -> dict[str, Any]:
            self.calls.append(name)
            if name in self.down:
                raise Down
            asked = [interrupt("1?"), interrupt("2?")] if name == "ask" and self.asks else [name]
            return {"log": asked}

        return node

    asks = False

    async def run(self, given: Any, run_id: str) -> Any:
        config: Any = {
            "configurable": {"thread_id": "t", TURN_ID: "turn", ATTEMPT: 3},
            "metadata": {"run_id": run_id},
        }
        if self.kind == "async":
            return await self.graph.ainvoke(given, config, durability="sync")
        return await asyncio.to_thread(self.graph.invoke, given, config, durability="sync")

    def taken(self) -> list[str]:
        calls, self.calls = self.calls, []
        return calls

    @property
    def head(self) -> Any:
        found = self.saver.get_tuple(WHERE)
        assert found is not None
        return found

    @property
    def log(self) -> list[Any]:
        return list(self.graph.get_state(WHERE).values["log"])


async def test_a_checkpoint_tells_its_run_and_turn_and_not_the_attempt(kind: str) -> None:
    graph = Graph(kind)
    await graph.run(IN, "r")
    assert (graph.head.metadata["run_id"], graph.head.metadata[TURN_ID]) == ("r", "turn")
    assert ATTEMPT not in graph.head.metadata


@pytest.mark.parametrize("down", ["a", "ask", "b"])
async def test_the_same_run_goes_on_and_its_input_is_ignored(kind: str, down: str) -> None:
    graph = Graph(kind)
    graph.down.add(down)
    with pytest.raises(Down):
        await graph.run(IN, "r")
    graph.taken()
    graph.down.clear()
    assert await graph.run(IN, "r") == {"log": ["in", "a", "ask", "b"]}
    assert graph.taken() == ["a", "ask", "b"][["a", "ask", "b"].index(down) :]


async def test_another_run_begins_anew(kind: str) -> None:
    graph = Graph(kind)
    await graph.run(IN, "r")
    await graph.run(IN, "another")
    assert graph.log == ["in", "a", "ask", "b"] * 2


@pytest.mark.parametrize("given", [IN, None])
async def test_the_same_run_returns_at_once_where_nothing_is_left(kind: str, given: Any) -> None:
    graph = Graph(kind)
    expected = await graph.run(IN, "r")
    graph.taken()
    before = graph.head.config
    assert await graph.run(given, "r") == expected
    assert graph.taken() == []
    assert graph.head.config == before


async def test_an_update_is_applied_at_the_head_and_waiting_tasks_go_on(kind: str) -> None:
    graph = Graph(kind)
    graph.down.add("ask")
    with pytest.raises(Down):
        await graph.run(IN, "r")
    graph.down.clear()
    graph.taken()
    assert await graph.run(Command(update={"log": ["told"]}), "r") == {
        "log": ["in", "a", "told", "ask", "b"]
    }
    assert graph.taken() == ["ask", "b"]


async def test_an_update_stays_on_the_head_until_a_step_is_done(kind: str) -> None:
    """So one that is on it is not given again."""
    graph = Graph(kind)
    graph.down.add("ask")
    with pytest.raises(Down):
        await graph.run(IN, "r")
    with pytest.raises(Down):
        await graph.run(Command(update={"log": ["told"]}), "r")
    assert (NULL_TASK, "log", ["told"]) in graph.head.pending_writes
    graph.down.clear()
    assert await graph.run(None, "r") == {"log": ["in", "a", "told", "ask", "b"]}


async def test_an_answer_is_found_again_and_given_to_the_next_question(kind: str) -> None:
    """Why an answer that was taken has to be wiped."""
    graph = Graph(kind)
    graph.asks = True
    await graph.run(IN, "q")
    await graph.run(Command(resume="yes"), "r")
    assert (NULL_TASK, RESUME, "yes") in graph.head.pending_writes
    assert [each.value for each in graph.graph.get_state(WHERE).interrupts] == ["2?"]
    await graph.run(None, "r")
    assert graph.log == ["in", "a", "yes", "yes", "b"]


async def test_none_is_no_answer(kind: str) -> None:
    """How it is wiped."""
    graph = Graph(kind)
    graph.asks = True
    await graph.run(IN, "q")
    await graph.run(Command(resume="yes"), "r")
    graph.saver.put_writes(graph.head.config, [(RESUME, None)], NULL_TASK)
    await graph.run(None, "r")
    assert [each.value for each in graph.graph.get_state(WHERE).interrupts] == ["2?"]
    await graph.run(Command(resume="no"), "r2")
    assert graph.log == ["in", "a", "yes", "no", "b"]


async def test_an_answer_by_its_questions_id_goes_to_no_other(kind: str) -> None:
    graph = Graph(kind)
    graph.asks = True
    await graph.run(IN, "q")
    [asked] = graph.graph.get_state(WHERE).interrupts
    await graph.run(Command(resume={asked.id: "yes"}), "r")
    [second] = graph.graph.get_state(WHERE).interrupts
    assert (second.value, second.id != asked.id) == ("2?", True)
    await graph.run(None, "r")
    assert [each.value for each in graph.graph.get_state(WHERE).interrupts] == ["2?"]


async def test_a_question_stands_on_the_head_with_its_id(kind: str) -> None:
    graph = Graph(kind)
    graph.asks = True
    await graph.run(IN, "q")
    [asked] = [value for _, channel, value in graph.head.pending_writes if channel == INTERRUPT]
    assert [each.value for each in asked] == ["1?"]
    assert len(asked[0].id) == 32


@pytest.mark.parametrize("stop", ["interrupt_before", "interrupt_after"])
async def test_the_same_run_passes_a_breakpoint(kind: str, stop: str) -> None:
    """Why a re-run looks whether its run had stopped at one."""
    stops = {stop: ["b" if stop == "interrupt_before" else "ask"]}
    graph = Graph(kind, **stops)
    await graph.run(IN, "r")
    assert graph.taken() == ["a", "ask"]
    await graph.run(IN, "r")
    assert graph.taken() == ["b"]
