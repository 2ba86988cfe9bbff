"""Graphs whose steps commit: what tests of the tier run.

Each takes a saver, and a function that its steps call with their name (and the branch
they are in) before they tell it: there a test says that something was committed.
"""

from __future__ import annotations

import operator
from typing import Annotated, Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.types import Send, interrupt
from typing_extensions import TypedDict

NODES = ("first", "second", "third", "fourth")


class State(TypedDict):
    told: Annotated[list[str], operator.add]
    order: dict[str, Any]


def chain(saver: BaseCheckpointSaver[Any], act: Any = lambda _: None) -> Any:
    """Nodes one after another, each of which acts and tells its name."""
    builder = StateGraph(State)
    for name in NODES:

        def node(state: State, name: str = name) -> Any:
            act(name)
            return {"told": [name]}

        builder.add_node(name, node)
    for left, right in zip((START, *NODES[:-1]), NODES, strict=True):
        builder.add_edge(left, right)
    return builder.compile(checkpointer=saver)


INPUT = {"told": ["input"], "order": {"items": [1, 2], "to": "me"}}


class Inner(TypedDict):
    told: Annotated[list[str], operator.add]
    name: str


def nested(saver: BaseCheckpointSaver[Any], act: Any = lambda *_: None, keeps: Any = None) -> Any:
    """Two children at once, of two steps each; then a last step."""
    child = StateGraph(Inner)

    def pay(state: Inner) -> Any:
        act("pay", state["name"])
        return {"told": [f"paid {state['name']}"]}

    def book(state: Inner) -> Any:
        act("book", state["name"])
        return {"told": [f"booked {state['name']}"]}

    child.add_node(pay)
    child.add_node(book)
    child.add_edge(START, "pay")
    child.add_edge("pay", "book")
    builder = StateGraph(State)
    builder.add_node("child", child.compile(checkpointer=keeps))

    def last(state: State) -> Any:
        act("last", "")
        return {"told": ["last"]}

    def fan(state: State) -> Any:
        many = ("a",) if keeps else ("a", "b")
        return [Send("child", {"told": [], "name": name}) for name in many]

    builder.add_node(last)
    builder.add_conditional_edges(START, fan, ["child"])
    builder.add_edge("child", "last")
    return builder.compile(checkpointer=saver)


def asking_after(saver: BaseCheckpointSaver[Any], act: Any = lambda: None) -> Any:
    """One step that commits, and then asks."""
    builder = StateGraph(State)

    def pay(state: State) -> Any:
        act()
        return {"told": [interrupt("sure?")]}

    builder.add_node(pay)
    builder.add_edge(START, "pay")
    return builder.compile(checkpointer=saver)


def working(saver: BaseCheckpointSaver[Any], act: Any = lambda *_: None) -> Any:
    """All at once: branches that ask in a subgraph, one that does not, and one that counts."""
    keeping = StateGraph(Inner)

    def count(state: Inner) -> Any:
        act("count", "")
        return {"told": [f"count {len(state['told'])}"]}

    keeping.add_node(count)
    keeping.add_edge(START, "count")
    child = StateGraph(Inner)

    def pay(state: Inner) -> Any:
        act("pay", state["name"])
        return {"told": [f"paid {state['name']}"]}

    def ask(state: Inner) -> Any:
        answer = interrupt(f"book {state['name']}?") if state["name"] != "c" else "itself"
        act("ask", state["name"])
        return {"told": [f"booked {state['name']}: {answer}"]}

    child.add_node(pay)
    child.add_node(ask)
    child.add_edge(START, "pay")
    child.add_edge("pay", "ask")
    kept = keeping.compile(checkpointer=True)

    def remember(state: State) -> Any:
        told = kept.invoke({"told": [], "name": "k"})["told"]
        return {"told": [f"remembered {told}"]}

    builder = StateGraph(State)
    builder.add_node("remember", remember)
    builder.add_node("child", child.compile())
    builder.add_edge(START, "remember")

    def fan(state: State) -> Any:
        return [Send("child", {"told": [], "name": name}) for name in "abc"]

    builder.add_conditional_edges("remember", fan, ["child"])
    return builder.compile(checkpointer=saver)
