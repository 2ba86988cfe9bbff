"""Messages and checkpoints as the page shows them: plain JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.graph import START
from langgraph.types import StateSnapshot

from examples.agent_app.agent.scripted import NOTE, is_question


def message_shown(message: BaseMessage) -> dict[str, Any]:
    """A message."""
    shown: dict[str, Any] = {"id": message.id, "text": str(message.text)}
    if str(message.id or "").startswith(NOTE):
        return {**shown, "role": "note"}
    if isinstance(message, AIMessage):
        calls = [
            {"id": call["id"], "name": call["name"], "args": call["args"]}
            for call in message.tool_calls
        ]
        return {**shown, "role": "agent", "calls": calls}
    if isinstance(message, ToolMessage):
        return {
            **shown,
            "id": message.tool_call_id,
            "role": "tool",
            "name": message.name,
            "details": message.artifact if isinstance(message.artifact, dict) else {},
        }
    return {**shown, "role": "customer"}


def thread_shown(state: StateSnapshot) -> dict[str, Any]:
    """A thread as its head has it."""
    messages = state.values.get("messages", [])
    head = state.config.get("configurable", {}).get("checkpoint_id", "")
    return {
        "messages": [message_shown(each) for each in messages],
        "pending": [{"id": each.id, **each.value} for each in state.interrupts],
        "next": list(state.next),
        "checkpoint": head,
        "step": (state.metadata or {}).get("step"),
        "turns": turns_of(messages),
    }


def turns_of(messages: Iterable[BaseMessage]) -> dict[str, bool]:
    """The customer's messages that are there, by id, and whether each has its answer."""
    turns: dict[str, bool] = {}
    last = ""
    for message in messages:
        if is_question(message):
            last = str(message.id)
            turns[last] = False
        elif last and isinstance(message, AIMessage) and not message.tool_calls:
            turns[last] = True
    return turns


def history_shown(found: Iterable[StateSnapshot]) -> list[dict[str, Any]]:
    """The checkpoints of a thread, newest first, with those marked that its head stands on."""
    shown = [_checkpoint_shown(each) for each in found]
    parents = {each["id"]: each["parent"] for each in shown}
    line: set[str] = set()
    at = shown[0]["id"] if shown else None
    while at is not None and at not in line:
        line.add(at)
        at = parents.get(at)
    return [{**each, "on_line": each["id"] in line} for each in shown]


def _checkpoint_shown(state: StateSnapshot) -> dict[str, Any]:
    metadata: dict[str, Any] = dict(state.metadata or {})
    messages = state.values.get("messages", [])
    parent = (state.parent_config or {}).get("configurable", {}).get("checkpoint_id")
    return {
        "id": state.config["configurable"]["checkpoint_id"],
        "parent": parent,
        "step": metadata.get("step", 0),
        "source": metadata.get("source", ""),
        "time": state.created_at,
        "messages": len(messages),
        "next": list(state.next),
        "can_travel": START not in state.next,
        "summary": _summary(messages, state),
    }


def _summary(messages: list[BaseMessage], state: StateSnapshot) -> str:
    if START in state.next:
        return "A message arrives"
    if not messages:
        return "The conversation begins"
    last = messages[-1]
    if isinstance(last, AIMessage) and last.tool_calls:
        names = ", ".join(call["name"] for call in last.tool_calls)
        waits = ", and waits for approval" if state.interrupts else ""
        return f"The model asks for {names}{waits}"
    if isinstance(last, ToolMessage):
        return f"{last.name} has answered"
    if is_question(last):
        return f"Customer: {last.text}"
    if isinstance(last, AIMessage):
        return f"Agent: {last.text}"
    return "A note on what was done already"
