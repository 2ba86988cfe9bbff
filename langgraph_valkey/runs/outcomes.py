"""What a run that has ended returned, as its thread still tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langgraph_valkey.errors import ReplayIncomplete
from langgraph_valkey.primary.records import Run
from langgraph_valkey.runs.attempts import thread_config
from langgraph_valkey.runs.faces import Face
from langgraph_valkey.runs.orders import Order


async def values_of(face: Face, order: Order, run: Run) -> Any:
    """The thread's values at the end of a run, as ``graph.invoke`` returns them.

    Raises:
        ReplayIncomplete: They are gone: the thread has expired, or was pruned.
    """
    if not run.head:
        return None
    graph = order.known.graph
    state = await face.state(graph, thread_config(run.thread_id, run.head))
    if state.created_at is None:
        raise ReplayIncomplete(
            f"run {run.run_id!r} has ended, and its last checkpoint is gone from thread "
            f"{run.thread_id!r} (expired, pruned or deleted): give another run_id to run it anew",
            thread_ids=[run.thread_id],
        )
    wanted = order.options.get("output_keys") or graph.output_channels
    values = state.values
    if isinstance(values, dict) and not isinstance(wanted, str):
        values = {key: values[key] for key in wanted if key in values}
        if state.interrupts:
            values["__interrupt__"] = list(state.interrupts)
    elif state.interrupts:
        values = {"__interrupt__": list(state.interrupts)}
    elif isinstance(values, dict) and wanted in values:
        values = values[wanted]
    return values


def chunks_of(order: Order, values: Any) -> Sequence[Any]:
    """What of a run that has ended can still be streamed: its last values."""
    modes = order.options.get("stream_mode") or order.known.graph.stream_mode
    if isinstance(modes, str):
        return [values] if modes == "values" else []
    return [("values", values)] if "values" in modes else []
