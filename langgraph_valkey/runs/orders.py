"""What a caller of `Runs` asks for, checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig

from langgraph_valkey.keys import thread_name
from langgraph_valkey.runs.graphs import Known


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller asked for; see `Runs.run`."""

    known: Known
    given: Any
    thread_id: str
    run_id: str
    turn_id: str | None
    config: RunnableConfig
    options: Mapping[str, Any]
    wait_s: float


def order_of(
    known: Known,
    given: Any,
    thread_id: object,
    run_id: str | None,
    turn_id: str | None,
    config: RunnableConfig | None,
    wait_s: float,
    options: Mapping[str, Any],
) -> Order:
    """Check what is asked for; see `Runs.run`.

    Raises:
        ValueError: It can't be honoured.
    """
    thread = thread_name(thread_id)
    _check(thread, config, options)
    about: RunnableConfig = {**(config or {})}
    drawn = run_id or os.urandom(16).hex()
    return Order(known, given, thread, drawn, turn_id, about, dict(options), wait_s)


def _check(thread: str, config: RunnableConfig | None, options: Mapping[str, Any]) -> None:
    """Raise for what can't be honoured."""
    if options.get("durability") not in (None, "sync") or "checkpoint_during" in options:
        raise ValueError(
            "a run is executed with durability 'sync': otherwise its steps would go on before "
            "their checkpoints are stored"
        )
    configurable = (config or {}).get("configurable") or {}
    if configurable.get("checkpoint_id") or configurable.get("checkpoint_ns"):
        raise ValueError(
            "a run goes on from its thread's head: for another checkpoint call graph.invoke, or "
            "graph.update_state first"
        )
    if str(configurable.get("thread_id", thread)) != thread:
        raise ValueError("the config names another thread than thread_id")
