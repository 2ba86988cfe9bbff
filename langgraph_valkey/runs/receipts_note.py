"""Telling a re-run what its turn has committed already.

Exactly once is once per *key*. An agent that is run again may choose another key for
the same intent, and nothing in a database could tell. So it is told, before its first
step, what of this turn is done: by a message, where the graph's state has messages.

The message is a human one: providers take those at any place, while a system message
amid a conversation is refused by some. It has a stable id, so that it stands there once
however often the run is run again. It never comes between a model's tool calls and
their results, which no provider takes, and never last: a graph may go by its last
message, as by the user's question or by a tool's result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages import RemoveMessage as Remove

from langgraph_valkey.primary.records import Receipt, Run

MESSAGES = "messages"
REMOVE_ALL = "__remove_all__"
"""The id by which LangGraph's `add_messages` drops all that is there."""


class WithReceipts(Protocol):
    """How a graph is told what its turn has committed already."""

    def __call__(self, given: Any, receipts: Sequence[Receipt], values: Mapping[str, Any]) -> Any:
        """What the graph is given instead of its input.

        Args:
            given: The input; None if the run goes on from a checkpoint of its own, and
                what is returned is an update of the state, None for none.
            receipts: What was committed, in the order in which it was.
            values: The thread's state; empty if it has none.
        """
        ...


def by_message(
    graph: Any, run: Run, given: Any, receipts: Sequence[Receipt], values: Mapping[str, Any]
) -> Any:
    """`WithReceipts` for graphs whose state has messages; nothing for others."""
    note = HumanMessage(_text(receipts), id=f"receipts-{run.run_id}")
    placed = _placed(note, values.get(MESSAGES)) if _merges_by_id(graph) else None
    if given is None:
        return None if placed is None else {MESSAGES: placed}
    if not isinstance(given, dict) or MESSAGES not in given or MESSAGES not in graph.channels:
        return given
    messages = given[MESSAGES] if isinstance(given[MESSAGES], list) else [given[MESSAGES]]
    at = 0
    while at < len(messages) and _is_result(messages[at]):
        at += 1  # Results of tools that the caller has run belong to who asked for them.
    if at < len(messages):
        return {**given, MESSAGES: [*messages[:at], note, *messages[at:]]}
    # With nothing behind them the note goes before who asked, where it can be put there.
    return given if placed is None else {**given, MESSAGES: [*placed, *messages]}


def _is_result(message: Any) -> bool:
    """Whether it is a tool's result, in any of the forms that LangChain takes."""
    if isinstance(message, dict):
        return "tool" in (message.get("role"), message.get("type"))
    if isinstance(message, tuple):
        return bool(message) and message[0] == "tool"
    return isinstance(message, ToolMessage)


def _text(receipts: Sequence[Receipt]) -> str:
    lines = [
        f"- {receipt.op} {json.dumps(receipt.key)}: {json.dumps(receipt.result)}"
        for receipt in receipts
    ]
    return (
        "[Note of the system, not of the user] This request was interrupted and is being "
        "processed again. The following was already done for it and can't be undone by doing it "
        "again. Do not do it again, also not under another name; go on from these results:\n"
        + "\n".join(lines)
    )


def _merges_by_id(graph: Any) -> bool:
    """Whether messages are merged by `add_messages`, which replaces one of the same id."""
    operator = getattr(graph.channels.get(MESSAGES), "operator", None)
    return getattr(operator, "__name__", "") in ("_add_messages", "add_messages")


def _placed(note: HumanMessage, messages: Any) -> list[AnyMessage] | None:
    """The update that puts the note before the last message, or the last tool calls."""
    if not isinstance(messages, list) or not all(isinstance(m, BaseMessage) for m in messages):
        return None
    if not messages or any(message.id == note.id for message in messages):
        return [note]  # It takes the other one's place.
    at = len(messages) - 1
    while at and isinstance(messages[at], ToolMessage):
        at -= 1  # Results belong to the message that asked for them.
    return [Remove(id=REMOVE_ALL), *messages[:at], note, *messages[at:]]
