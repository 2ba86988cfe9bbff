"""Which turn a piece of work belongs to, as a graph's config tells it.

A *turn* is what one request of a user sets off, up to its answer: all executions of
its run, and the runs that resume it after an interrupt. Its id is what makes a commit
of a second execution the same as that of the first, although task ids, steps, tool
call ids, and whatever else a model makes up, differ. So it has to come from outside
the graph, in the config::

    {"configurable": {"thread_id": "42", "turn_id": "request-7f3a"}}

`runs` puts it there, together with the run and the attempt that `Fence` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config

from langgraph_valkey.place import HEAD_EXPECTED
from langgraph_valkey.primary.records import Fence, Run

TURN_ID = "turn_id"
RUN = "__lgv_run"
ATTEMPT = "__lgv_attempt"
"""Which attempt of which run it is. Not in the config's metadata, which a node may have
replaced by its own; keys with two underscores are kept out of a checkpoint's."""
_DURABILITY = "__pregel_durability"
"""Where LangGraph puts a run's durability, if the caller chose one (CONFIG_KEY_DURABILITY)."""
_UNCHOSEN_DURABILITY = "async"
"""What LangGraph does if not."""
_TASK_ID = "__pregel_task_id"
"""Where it puts the id of the task that a node or tool runs in (CONFIG_KEY_TASK_ID)."""
_MADE_ON = "checkpoint_map"
"""Where it puts the ids of the checkpoints that a task was made on, by their namespaces
(CONFIG_KEY_CHECKPOINT_MAP)."""


class Turn(NamedTuple):
    """What a config says of where a piece of work belongs.

    Attributes:
        thread_id: The thread; "" if it names none.
        turn_id: The turn; "" if it names none.
        fence: Run and attempt, if it was started by `runs`.
        durability: When LangGraph stores checkpoints: "sync", "async" or "exit"; ""
            outside a graph.
        namespace: The checkpoint namespace: "" in the graph itself.
        made_on: In each namespace that the task is in, the id of the checkpoint it was
            made on; nothing outside a graph.
    """

    thread_id: str
    turn_id: str
    fence: Fence | None
    durability: str
    namespace: str
    made_on: Mapping[str, str] = MappingProxyType({})


def turn_of(config: RunnableConfig | None = None) -> Turn:
    """Where a piece of work belongs.

    Args:
        config: A config; that of the node or tool that runs now if not given.
    """
    given = _configurable(config)
    around = given if config is None else _configurable(None)
    if around.get("thread_id") != given.get("thread_id"):
        around = given
    # A config of the caller's own, within a run: it still is that run's and that task's work.
    task = given if _TASK_ID in given else around
    unchosen = _UNCHOSEN_DURABILITY if _TASK_ID in task else ""
    return Turn(
        _text(given.get("thread_id")),
        _text(given.get(TURN_ID)),
        _fence_in(given) or _fence_in(around),
        str(task.get(_DURABILITY) or unchosen),
        str(task.get("checkpoint_ns") or ""),
        dict(task.get(_MADE_ON) or {}),
    )


def _configurable(config: RunnableConfig | None) -> dict[str, Any]:
    return ensure_config(config).get("configurable") or {}


def _fence_in(configurable: dict[str, Any]) -> Fence | None:
    run_id, attempt = configurable.get(RUN), configurable.get(ATTEMPT)
    if isinstance(run_id, str) and isinstance(attempt, int):
        return Fence(run_id, attempt)
    return None


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def config_of(run: Run, config: RunnableConfig, head: str | None = None) -> RunnableConfig:
    """A config for an attempt of a run.

    Args:
        run: The attempt.
        head: The id of the checkpoint that it goes on from, "" if the thread is to begin
            with it; None if that is not known.
        config: What else it has to say; thread, turn and run are put in its place.
    """
    configurable = {
        **(config.get("configurable") or {}),
        "thread_id": run.thread_id,
        TURN_ID: run.turn_id,
        RUN: run.run_id,
        ATTEMPT: run.attempt,
    }
    if head is not None:
        configurable[HEAD_EXPECTED] = (run.thread_id, run.run_id, head)
    metadata = {**(config.get("metadata") or {}), "run_id": run.run_id}
    return {**config, "configurable": configurable, "metadata": metadata}
