"""What happened to a thread that something is wrong with, told for whoever looks for the cause."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import StateSnapshot

from langgraph_valkey.primary.records import Run
from tests.double_fault.crew import Turn
from tests.double_fault.trace import Step


def of_run(turn: Turn, run: Run | None, steps: Iterable[Step]) -> Iterator[str]:
    """A run: what the registry says, and who executed it."""
    kind = f"{turn.kind}, {turn.face}" + (", asks" if turn.asks else "")
    kind += f", resumes {turn.resumes}" if turn.resumes else ""
    yield f"{turn.run_id} ({kind}, {len(turn.intents)} intents)"
    if run is not None:
        yield (
            f"    {run.state} {run.outcome}, number {run.number}, attempt {run.attempt}, "
            f"head {run.head} with {run.writes} writes"
        )
    mine: dict[tuple[int, int], list[Step]] = defaultdict(list)
    for step in steps:
        if step.run_id == turn.run_id:
            mine[step.attempt, step.process].append(step)
    for (attempt, process), done in mine.items():
        nodes = " ".join(f"{step.node}@{step.at_s:.2f}" for step in done)
        yield f"    attempt {attempt} by {process}: {nodes}"


def of_thread(graph: CompiledStateGraph, thread_id: str) -> Iterator[str]:
    """A thread: its checkpoints, the newest first, and what was said."""
    config = {"configurable": {"thread_id": thread_id}}
    state = graph.get_state(config)  # type: ignore[arg-type]
    yield f"head {_id(state)}, next {state.next}"
    for past in graph.get_state_history(config):  # type: ignore[arg-type]
        told = past.metadata or {}
        parent = (past.parent_config or {}).get("configurable", {}).get("checkpoint_id")
        yield (
            f"    {_id(past)} of {parent}, {told.get('source')} {told.get('step')} of "
            f"{told.get('run_id')}, {len(past.values.get('messages', []))} messages"
        )
    yield from _said(state.values.get("messages", []))


def _id(state: StateSnapshot) -> str:
    return str(state.config["configurable"].get("checkpoint_id"))


def _said(messages: Sequence[AnyMessage]) -> Iterator[str]:
    for each in messages:
        if isinstance(each, ToolMessage):
            yield f"    {each.tool_call_id}: {each.text}"
        else:
            calls = [call["id"] for call in each.tool_calls] if isinstance(each, AIMessage) else ""
            yield f"    {each.type} {each.name or ''} {each.id}: {each.text[:60]!r} {calls}"
