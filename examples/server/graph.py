"""The graph that the example server serves: it counts what it is told."""

from __future__ import annotations

import operator
from typing import Annotated, TypedDict

from langgraph.graph import START, StateGraph


class State(TypedDict):
    """What was said, and how often something was."""

    said: Annotated[list[str], operator.add]
    count: int


def count(state: State) -> dict[str, int]:
    """Count."""
    return {"count": len(state["said"])}


# No checkpointer here: the server passes its own to each run.
graph = StateGraph(State).add_node(count).add_edge(START, "count").compile()
