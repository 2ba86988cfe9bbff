"""The ReAct loop: the model thinks, tools act, until the model asks for none.

    customer -> model -> tools -> model -> ... -> answer

Each arrow is a checkpoint. What is said is told to the page from within the model's step,
so that it is told in the same way whether the customer waits for it, or nobody does since
the turn is run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition

Agent: TypeAlias = CompiledStateGraph[Any, Any, Any, Any]

NAME = "support"

INSTRUCTIONS = (
    "You are the support agent of a shop for office furniture. Answer questions about shipping, "
    "returns, warranty, payment and products by search_help alone, and name the pages it cites. "
    "To take an order call reserve_stock, then charge_card with the order's number and price; the "
    "customer is asked for approval by charge_card itself, so don't ask before. "
    "Sell one product at a time. Be brief and friendly."
)


class Live(Protocol):
    """Who is told what happens in a step."""

    def thinks(self, config: RunnableConfig) -> None:
        """The model is asked."""
        ...

    def says(self, config: RunnableConfig, text: str) -> None:
        """The model says a bit more."""
        ...

    def said(self, config: RunnableConfig, message: BaseMessage) -> None:
        """A message is whole: the model's, or a tool's."""
        ...


def build_agent(
    model: BaseChatModel, tools: Sequence[BaseTool], saver: BaseCheckpointSaver[Any], live: Live
) -> Agent:
    """Put the agent together.

    Args:
        model: What it thinks with.
        tools: What it can do.
        saver: Where its threads are kept.
        live: Who is told what happens.
    """
    thinking = model.bind_tools(tools)

    def think(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        messages = state["messages"]
        live.thinks(config)
        for message in _results(messages):
            live.said(config, message)
        said: AIMessageChunk | None = None
        for chunk in thinking.stream([SystemMessage(INSTRUCTIONS), *messages]):
            assert isinstance(chunk, AIMessageChunk)
            if chunk.text:
                live.says(config, str(chunk.text))
            said = chunk if said is None else said + chunk
        assert said is not None, "a model says something"
        live.said(config, said)
        return {"messages": [said]}

    builder = StateGraph(MessagesState)
    builder.add_node("model", think)
    builder.add_node("tools", ToolNode(tools))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    return builder.compile(checkpointer=saver, name=NAME)


def _results(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """What tools have answered since the model said something."""
    found: list[BaseMessage] = []
    for message in reversed(messages):
        if not isinstance(message, ToolMessage):
            break
        found.insert(0, message)
    return found
