"""One execution of a run: what it is given, and how its end is recorded.

It ends in one of three ways. It comes to its end, or to an interrupt: then the thread's
head is recorded, so that its loss can be noticed. It raises what the user's code
raised: then the caller is told, and nobody runs it again; where there is no caller, it
is run again some times before. Or it is cut off, by an outage, by being cancelled, or
since its process leaves: then it is given free, for whoever recovers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.errors import GraphBubbleUp

from langgraph_valkey.commits.turns import config_of
from langgraph_valkey.errors import (
    CorruptState,
    ForkDetected,
    LanggraphValkeyError,
    OutcomeUnknown,
    ReplayIncomplete,
    RunTakenOver,
    StoreFull,
    ThreadDeleted,
    Unreachable,
    WriteRejected,
)
from langgraph_valkey.keys import thread_keys
from langgraph_valkey.operations import ANYONE
from langgraph_valkey.primary.records import Fence, Outcome, Run, RunEnd
from langgraph_valkey.runs.faces import Face
from langgraph_valkey.runs.graphs import Graphs, Known
from langgraph_valkey.runs.heads import Sight
from langgraph_valkey.runs.inputs import commands_stored, finished_tasks, open_questions
from langgraph_valkey.runs.owner import Owner
from langgraph_valkey.runs.rerun import checkpoint_id_of, run_id_of
from langgraph_valkey.runs.rewinds import Rewinds
from langgraph_valkey.runs.settling import Settling

OUTAGES = (
    Unreachable, WriteRejected, OutcomeUnknown, StoreFull, ReplayIncomplete, ForkDetected
)  # fmt: skip
"""Errors after which the run can be brought to its end later."""


ATTEMPTS_MOST = 10
"""Attempts after which a run that nobody waits for is given up when it raises: with the
pauses between recoveries, they outlast half an hour of a model provider's trouble."""


class Parts(NamedTuple):
    """What all executions of one `Runs` share."""

    owner: Owner
    graphs: Graphs
    settling: Settling
    rewinds: Rewinds


@dataclass(frozen=True, slots=True)
class Attempt:
    """An execution that may begin.

    Attributes:
        run: The run, with the number of this attempt.
        known: The graph.
        given: What the graph is given.
        config: Its config; thread, turn and attempt are put in.
        options: Further options of ``invoke`` or ``stream``.
        base: Id of the checkpoint that it goes on from; "" where there is none.
        is_called: Whether somebody waits for it, who will be told what it raises.
    """

    run: Run
    known: Known
    given: Any
    config: RunnableConfig
    options: Mapping[str, Any]
    base: str
    is_called: bool = False


def thread_config(thread_id: str, checkpoint_id: str = "") -> RunnableConfig:
    """The config of a thread's head, or of one of its checkpoints."""
    where = {"thread_id": thread_id, "checkpoint_ns": ""}
    return {"configurable": where | ({"checkpoint_id": checkpoint_id} if checkpoint_id else {})}


async def look(
    face: Face, thread_id: str, checkpoint_id: str = ""
) -> tuple[CheckpointTuple | None, Sight]:
    """Read a thread's head, or another checkpoint; and which primary had it then."""
    window = face.core.window
    keys = thread_keys(face.core.prefix, thread_id)
    before = window.primary_of(keys)
    found = await face.get_tuple(thread_config(thread_id, checkpoint_id))
    # Of two primaries the earlier one: that is out of date, and it is looked at again.
    identity = window.primary_of(keys) if before == ANYONE else before
    return found, Sight(identity, face.link.now())


async def execute(parts: Parts, face: Face, attempt: Attempt) -> Any:
    """Execute a run; what the graph returns.

    Raises:
        RunTakenOver: Another process has taken the run over.
        Exception: Whatever the graph raised.
    """
    try:
        config = config_of(attempt.run, attempt.config, attempt.base)
        options = {**attempt.options, "durability": "sync"}
        what = attempt.known.graph, attempt.given, config, options
        result = await face.invoke(*what, attempt.run.face)
        await _record(parts, face, attempt)
    except BaseException as error:
        await _give_up(parts, face, attempt, error)
        raise
    finally:
        parts.owner.end(attempt.run.run_id)
    return result


async def stream(parts: Parts, face: Face, attempt: Attempt) -> AsyncGenerator[Any, None]:
    """Execute a run, and yield what the graph streams; see `execute`."""
    try:
        config = config_of(attempt.run, attempt.config, attempt.base)
        options = {**attempt.options, "durability": "sync"}
        what = attempt.known.graph, attempt.given, config, options
        async with aclosing(face.stream(*what)) as chunks:
            async for chunk in chunks:
                yield chunk
        await _record(parts, face, attempt)
    except BaseException as error:
        await _give_up(parts, face, attempt, error)
        raise
    finally:
        parts.owner.end(attempt.run.run_id)


async def _record(parts: Parts, face: Face, attempt: Attempt) -> None:
    """Record that it has come to its end, or to an interrupt.

    Raises:
        ReplayIncomplete: What it was to go on with was lost under it, so it did nothing.
    """
    run = attempt.run
    found, sight = await look(face, run.thread_id)
    if found is None or not _is_its_end(attempt, found):
        raise ReplayIncomplete(
            f"thread {run.thread_id!r} lost what run {run.run_id!r} was to go on with, so that it "
            "did not come to its end: what was lost is executed again first",
            thread_ids=[run.thread_id],
        )
    outcome: Outcome = "finished"
    if found is not None and await _is_interrupted(face, attempt, found):
        outcome = "interrupted"
    await record_end(parts, face, attempt.run, outcome, found, sight)


def _is_its_end(attempt: Attempt, found: CheckpointTuple) -> bool:
    """Whether a head may be the last one of a run: its own, or its base, if it did nothing."""
    made_by = run_id_of(found)
    if made_by == attempt.run.run_id:
        return True
    at = checkpoint_id_of(found)
    # An edit by hand may have come upon what it did.
    return at == attempt.base or (not made_by and at > attempt.base)


async def record_end(
    parts: Parts,
    face: Face,
    run: Run,
    outcome: Outcome,
    found: CheckpointTuple | None,
    sight: Sight,
) -> None:
    """Record the end of an attempt, with the thread's head; and see to it that it is settled.

    If its turn has committed anything, that head goes to the tier as well.

    Raises:
        RunTakenOver: It is not the last attempt any more.
        Unreachable: The tier does not take the head; the run has not ended then.
    """
    if face.has_tier and await face.primary.receipts(run.thread_id, run.turn_id):
        # It has what came next after a commit: a thread that is put back from there would
        # stand amid a turn of which everybody was told that it had ended.
        await face.carry(run.thread_id)
    head = checkpoint_id_of(found) if found is not None else ""
    end = RunEnd(outcome, head, len((found and found.pending_writes) or ()))
    if not await face.primary.end_run(run.fence, end):
        raise taken_over(run)
    parts.settling.add(run, end.head, end.writes, sight)


def taken_over(run: Run) -> RunTakenOver:
    """The error for an attempt that is not the last one."""
    return RunTakenOver(
        f"run {run.run_id!r} was taken over by another process, which took this one for dead, and "
        "goes on there: nothing more is done here",
        run_id=run.run_id,
    )


async def _is_interrupted(face: Face, attempt: Attempt, found: CheckpointTuple) -> bool:
    if open_questions(attempt.known.serde, found.pending_writes):
        return True
    if not any(breakpoints(attempt.known, attempt.options)):
        return False
    state = await face.state(attempt.known.graph, thread_config(attempt.run.thread_id))
    return bool(state.tasks)


async def _give_up(parts: Parts, face: Face, attempt: Attempt, error: BaseException) -> None:
    """Record that it was cut off, or failed."""
    run = attempt.run
    if isinstance(error, RunTakenOver):
        return
    end = end_by(parts.owner, attempt, error)
    is_told = await let_go(parts, face, run.fence, end)
    if end is None and isinstance(error, Exception):
        parts.rewinds.left()
    if end is None or not is_told:
        error.add_note(
            f"run {run.run_id!r} of thread {run.thread_id!r} is recorded, and recover() will bring "
            "it to its end; so does the same call with this run_id"
        )


def end_by(owner: Owner, attempt: Attempt, error: BaseException) -> RunEnd | None:
    """How a run ends by an error; None if it is to be brought to its end later."""
    if isinstance(error, ThreadDeleted):
        return RunEnd("cancelled", "", 0)
    if not isinstance(error, Exception) or isinstance(error, GraphBubbleUp):
        return None
    if is_cut_off(owner, error):
        return None
    is_over = attempt.is_called or attempt.run.attempt >= ATTEMPTS_MOST
    return RunEnd("failed", "", 0) if is_over else None


async def let_go(parts: Parts, face: Face, fence: Fence, end: RunEnd | None = None) -> bool:
    """Tell the registry that an attempt is over; if that can't be done now, it is later.

    Args:
        parts: Those of this process.
        face: Over which.
        fence: The attempt.
        end: How it ended; None if it was given up half-way.

    Returns:
        Whether it was told.
    """
    primary, told = face.primary, False
    with suppress(LanggraphValkeyError):
        try:
            step = primary.release_run(fence) if end is None else primary.end_run(fence, end)
            told = await face.undisturbed(step)
        finally:
            if not told:
                parts.owner.tell_later(fence, end)
    return told


def breakpoints(known: Known, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """Before, and after, which nodes a graph stops: names, or "*" for all."""
    graph = known.graph
    return (
        options.get("interrupt_before") or graph.interrupt_before_nodes,
        options.get("interrupt_after") or graph.interrupt_after_nodes,
    )


async def at_rest(
    face: Face, known: Known, run: Run, options: Mapping[str, Any], found: CheckpointTuple
) -> Outcome:
    """As what a run has ended whose thread is where this head is; "" if it has not."""
    if commands_stored(found.pending_writes):
        return ""  # They may send it to further nodes, which LangGraph does not list.
    state = await face.state(known.graph, thread_config(run.thread_id))
    if not state.tasks:
        return "finished"
    finished = finished_tasks(found.pending_writes or [])
    waiting = [task for task in state.tasks if task.id not in finished]
    if waiting and all(task.interrupts for task in waiting):
        return "interrupted"
    before, after = breakpoints(known, options)
    names = {task.name for task in state.tasks}
    if _meets(before, names):
        return "interrupted"
    if after and found.metadata.get("source") == "loop" and found.parent_config is not None:
        parent = await face.get_tuple(found.parent_config)
        if _meets(after, _executed(found, parent)):
            return "interrupted"
    return ""


def _executed(found: CheckpointTuple, parent: CheckpointTuple | None) -> set[str]:
    """The nodes that made this checkpoint of its parent."""
    before = parent.checkpoint["versions_seen"] if parent is not None else {}
    seen = found.checkpoint["versions_seen"]
    return {node for node in seen if seen[node] != before.get(node)} - {"__interrupt__"}


def _meets(stops: Any, names: Collection[str]) -> bool:
    shown = {name for name in names if not name.startswith("__")}
    return bool(shown) if stops == "*" else bool(shown.intersection(stops or ()))


def is_cut_off(owner: Owner, error: BaseException) -> bool:
    """Whether this says nothing about the run: it is an error of ours, or follows one.

    What a run raises after its process has left may come of anything that was closed
    under it, the user's own clients among them.
    """
    return owner.has_left or isinstance(error, (*OUTAGES, CorruptState))
