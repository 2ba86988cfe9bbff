"""A thread as the tree of its checkpoints: its history, and two branches side by side."""

from __future__ import annotations

from dataclasses import dataclass

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.checkpoint.base import CheckpointTuple

from examples.agent.show import Screen, short
from langgraph_valkey import ValkeySaver

_COLUMN = 46
_ID_SHOWN = 18
"""A checkpoint id begins with the time, so its beginning is what tells them apart."""


@dataclass(frozen=True, slots=True)
class Step:
    """One checkpoint.

    Attributes:
        id: Its id.
        parent: The id of the one it follows; None for the first.
        number: LangGraph's step.
        source: What made it: ``input``, ``loop``, ``update`` or ``fork``.
        messages: How many messages its state holds.
        what: What had just happened.
    """

    id: str
    parent: str | None
    number: int
    source: str
    messages: int
    what: str


def steps(saver: ValkeySaver, thread: str) -> dict[str, Step]:
    """All checkpoints of a thread by id, oldest first, whatever branch they are on."""
    found = saver.list({"configurable": {"thread_id": thread}})
    return {step.id: step for step in reversed([_step(each) for each in found])}


def line_to(tree: dict[str, Step], end: str) -> list[Step]:
    """The steps from the first one to a given one: one branch of the tree."""
    line: list[Step] = []
    at: str | None = end
    while at is not None and at in tree:
        line.append(tree[at])
        at = tree[at].parent
    return line[::-1]


def show_history(screen: Screen, line: list[Step], killed_at: int, pids: tuple[int, int]) -> None:
    """A branch as a table.

    Args:
        screen: Where to show it.
        line: The branch.
        killed_at: The last step of the first process.
        pids: The ids of the first process and the second.
    """
    rows = [
        (
            str(step.number),
            step.id[:_ID_SHOWN],
            str(pids[step.number > killed_at]),
            str(step.messages),
            short(step.what, 50),
        )
        for step in line
    ]
    screen.table(("step", "checkpoint", "process", "messages", "what"), rows, right="><>>")


def show_two(screen: Screen, old: list[Step], new: list[Step]) -> None:
    """Two branches side by side, under the steps that they share."""
    shared = [step for step in old if step in new]
    for step in shared:
        screen.line(f"  {_cell(step)}")
    left, right = old[len(shared) :], new[len(shared) :]
    bar = "─" * _COLUMN
    screen.line(f"   ├{bar}─┐", "dim")
    for at in range(max(len(left), len(right))):
        cells = [_cell(side[at]) if at < len(side) else "" for side in (left, right)]
        screen.line(f"  {cells[0]:<{_COLUMN}}  {cells[1]}".rstrip())


def _cell(step: Step) -> str:
    return f"{step.number:>2}  {short(step.what, _COLUMN - 4)}"


def _step(found: CheckpointTuple) -> Step:
    messages: list[BaseMessage] = found.checkpoint["channel_values"].get("messages", [])
    parent = (found.parent_config or {}).get("configurable", {}).get("checkpoint_id")
    source = found.metadata.get("source", "")
    return Step(
        id=found.checkpoint["id"],
        parent=parent,
        number=found.metadata.get("step", 0),
        source=source,
        messages=len(messages),
        what=_what(messages[-1]) if messages else "the question arrives",
    )


def _what(message: BaseMessage) -> str:
    if isinstance(message, AIMessage) and message.tool_calls:
        names = dict.fromkeys(call["name"] for call in message.tool_calls)
        times = f" x {len(message.tool_calls)}" if len(message.tool_calls) > 1 else ""
        return f"model asks for {', '.join(names)}{times}"
    if isinstance(message, ToolMessage):
        return f"{message.name}: {message.text}"
    return str(message.text) if isinstance(message, AIMessage) else f"you: {message.text}"
