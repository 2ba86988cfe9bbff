"""One line changes: a graph that kept its threads in memory keeps them in Valkey.

Run it twice, with ``python -m examples.drop_in_checkpointer``: the second time it goes
on where the first one ended. A server of your own is named by LANGGRAPH_VALKEY_URL;
without it a real one runs beside this program, with its data in ``demo-data``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.messages import AIMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph

from langgraph_valkey import ValkeySaver
from langgraph_valkey.local import LocalValkey

DATA = "demo-data/drop-in"


def answer(state: MessagesState) -> dict[str, Any]:
    """A node like any other; it knows nothing of where its state is kept."""
    asked = sum(message.type == "human" for message in state["messages"])
    return {"messages": [AIMessage(f"That was question {asked} of this thread.")]}


@contextmanager
def checkpointer() -> Iterator[BaseCheckpointSaver[str]]:
    """Where threads are kept: was ``InMemorySaver()``."""
    url = os.environ.get("LANGGRAPH_VALKEY_URL")
    if url is not None:
        with ValkeySaver.from_url(url) as saver:
            yield saver
    else:
        with LocalValkey(DATA) as valkey, ValkeySaver.from_url(valkey.url) as saver:
            yield saver


def main() -> None:
    """Ask one question more."""
    builder = StateGraph(MessagesState)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    with checkpointer() as saver:
        graph = builder.compile(checkpointer=saver)
        config: Any = {"configurable": {"thread_id": "drop-in"}}
        question: Any = {"messages": [("user", "And now?")]}
        state = graph.invoke(question, config)
        print(state["messages"][-1].text)
        print(f"{len(state['messages'])} messages so far; run it again.")


if __name__ == "__main__":
    main()
