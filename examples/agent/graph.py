"""The ReAct loop: the model thinks, tools act, until the model asks for none.

        question -> model -> tools -> model -> ... -> answer

Each arrow is a checkpoint. `write_note` interrupts the tools node: the thread then
rests in the checkpointer, for a second or a year, until it is resumed with a
decision, by whatever process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import SystemMessage
from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from examples.agent.models import DemoError, first_line

Agent: TypeAlias = CompiledStateGraph[MessagesState, Any, MessagesState, MessagesState]

_INSTRUCTIONS = (
    "You answer questions about a software repository, from its documents alone. First search, "
    "then read the best passages. On the first question of a conversation offer a short note of "
    "what you found by write_note, before you answer; the user may decline it. Answer in three "
    "sentences at most, and name the passages as [path # heading]."
)


def build_agent(
    model: BaseChatModel, tools: Sequence[BaseTool], saver: BaseCheckpointSaver[Any]
) -> Agent:
    """Put the agent together.

    Args:
        model: What it thinks with.
        tools: What it can do.
        saver: Where its threads are kept.
    """
    thinking = model.bind_tools(tools)

    def think(state: MessagesState) -> dict[str, Any]:
        try:
            said = thinking.invoke([SystemMessage(_INSTRUCTIONS), *state["messages"]])
        except Exception as error:
            raise DemoError(
                f"the chat model failed: {first_line(error)}\n"
                "The thread is kept: start again to go on."
            ) from error
        return {"messages": [said]}

    builder = StateGraph(MessagesState)
    builder.add_node("model", think)
    builder.add_node("tools", ToolNode(tools))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    return builder.compile(checkpointer=saver)
