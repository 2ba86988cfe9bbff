"""Bringing one run to its end: judge it, take it over, and execute what is left.

A run is judged before it is taken over, so that what needs nothing, or must not be
touched, is not; and judged again after, since only then nobody else moves it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.types import RESUME
from langgraph.types import Command

from langgraph_valkey.errors import LanggraphValkeyError, RunTakenOver
from langgraph_valkey.primary.records import Receipt, Run, RunEnd
from langgraph_valkey.runs.attempts import (
    ATTEMPTS_MOST,
    Attempt,
    Parts,
    at_rest,
    end_by,
    execute,
    is_cut_off,
    let_go,
    look,
    record_end,
    thread_config,
)
from langgraph_valkey.runs.bygone import has_expired, is_deleted
from langgraph_valkey.runs.faces import Face
from langgraph_valkey.runs.graphs import Known
from langgraph_valkey.runs.heads import Sight
from langgraph_valkey.runs.inputs import NULL_TASK, About, about_of, load
from langgraph_valkey.runs.receipts_note import MESSAGES, by_message
from langgraph_valkey.runs.rerun import Head, Plan, checkpoint_id_of, head_of, plan, run_id_of

_log = logging.getLogger("langgraph_valkey")

OLDER_MOST = 1_000
"""Runs of one thread that are looked at: those of a day, of a busy one."""

Kind = Literal["fine", "rerun", "conflict", "failed", "left", "busy", "unknown", "deleted"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a run.

    Attributes:
        kind: "fine", "rerun", "conflict", "busy", "unknown" and "deleted" are as of
            `RunsReport`; "failed" raised, and has ended; "left" could not be tried.
        why: In one sentence, where it is trouble.
        error: What was raised, if that is what it was.
    """

    kind: Kind
    why: str = ""
    error: Exception | None = None


BUSY = Verdict("busy")
FINE = Verdict("fine")


@dataclass(frozen=True, slots=True)
class _Case:
    """A run with what was recorded of it."""

    run: Run
    known: Known
    about: About
    given: Any


async def redo(parts: Parts, face: Face, run: Run, known: Known | None) -> Verdict:
    """Bring a run to its end, if that is not where it is.

    Args:
        parts: Those of this process.
        face: Over which.
        run: The run; its owner is gone, or is this process.
        known: Its graph; None if that is not known.

    Raises:
        Unreachable, OutcomeUnknown: It can't be judged now.
        ConfigurationError: This process leaves.
    """
    if not parts.owner.begin(run.run_id):
        return BUSY
    try:
        came = await _prepared(parts, face, run.run_id, known)
    except BaseException:
        parts.owner.end(run.run_id)
        raise
    if isinstance(came, Verdict):
        parts.owner.end(run.run_id)
        return came
    try:
        await execute(parts, face, came)
    except RunTakenOver:
        return BUSY
    except Exception as error:  # noqa: BLE001 - it is the user's, and is reported
        what = type(error).__name__
        if end_by(parts.owner, came, error):
            return Verdict("failed", f"it raised {what}", error)
        if is_cut_off(parts.owner, error):
            return Verdict("left", f"it was cut off: {what}", error)
        tried = f"in attempt {came.run.attempt} of {ATTEMPTS_MOST}"
        return Verdict("left", f"it raised {what} {tried}", error)
    return Verdict("rerun")


async def _prepared(
    parts: Parts, face: Face, run_id: str, known: Known | None
) -> Attempt | Verdict:
    """`prepare`, of what the run is by now; what it raises of others' does not get out."""
    run = await face.primary.run(run_id)
    if run is None or run.state == "settled":
        return FINE
    if run.state == "running" and run.owner_alive and run.owner != parts.owner.id:
        return BUSY
    try:
        return await prepare(parts, face, run, known)
    except LanggraphValkeyError:
        raise
    except Exception as error:  # noqa: BLE001 - of a state, a record, a user's function
        return Verdict("left", f"it can't be judged: {type(error).__name__}", error)


async def prepare(parts: Parts, face: Face, run: Run, known: Known | None) -> Attempt | Verdict:
    """Judge a run, and take it over if something is left to be executed.

    Args: See `redo`; the caller has begun the run with its owner.
    """
    seen = await look(face, run.thread_id)
    if run.state != "running" and await stands(parts, face, run, seen):
        return FINE
    if await is_deleted(face, run):
        return await _buried(parts, face, run)
    if await has_expired(face, run, seen[0]):
        await face.primary.settle_runs([run.fence])
        return FINE
    if known is None:
        return Verdict("unknown", f"its graph {run.graph!r} is not known here: register it")
    try:
        about, given = about_of(known.serde, run.context), load(known.serde, run.input)
    except ValueError as error:
        return Verdict("left", "its input can't be deserialized here", error)
    missing = [name for name in about.left_out if not known.has(name)]
    if missing:
        names = ", ".join(missing)
        return Verdict(
            "left", f"it was given what can't be kept ({names}): give that to register() as well"
        )
    case = _Case(run, known, about, given)
    judged, _ = await _judge(face, case)
    if judged.conflict and await _is_beside(parts, face, run):
        return BUSY  # What it lacks may be made right now.
    if judged.conflict:
        return Verdict("conflict", judged.conflict)
    taken = await face.primary.claim_run(run.fence, parts.owner.id)
    if taken is None:
        return BUSY
    try:
        if not await _is_beside(parts, face, taken):
            return await _taken_over(parts, face, replace(case, run=taken))
    except BaseException:
        await let_go(parts, face, taken.fence)
        raise
    await let_go(parts, face, taken.fence)
    return BUSY


async def _buried(parts: Parts, face: Face, run: Run) -> Verdict:
    """End a run whose thread was deleted for good."""
    taken: Run | None = run
    if run.state == "running":
        taken = await face.primary.claim_run(run.fence, parts.owner.id)
    if taken is None:
        return BUSY
    await face.primary.end_run(taken.fence, RunEnd("cancelled", "", 0))
    return Verdict("deleted")


async def _is_beside(parts: Parts, face: Face, taken: Run) -> bool:
    """Whether another run of its thread came to be executed while this one was judged."""
    others = await face.primary.unsettled_runs(thread_id=taken.thread_id, limit=OLDER_MOST)
    active = parts.owner.active
    return any(
        other.state == "running"
        and other.run_id != taken.run_id
        and (other.run_id in active if other.owner == parts.owner.id else other.owner_alive)
        for other in others
    )


async def stands(
    parts: Parts, face: Face, run: Run, seen: tuple[CheckpointTuple | None, Sight] | None = None
) -> bool:
    """Whether a thread still stands on the last checkpoint of a run that has ended.

    That is its head, or it is there and the head is of a later run, which was built upon
    it. One that is there beside an older head is on a side line since a failover.

    Args:
        parts: Those of this process; the run is then waited for to be settled.
        face: Over which.
        run: The run.
        seen: The thread's head, if it was just read.
    """
    found, sight = seen or await look(face, run.thread_id)
    if run.head and (found is None or checkpoint_id_of(found) != run.head):
        if not await _is_built_upon(face, run, found):
            return False
        found, sight = await look(face, run.thread_id, run.head)
        if found is None:
            return False
    elif found is not None and len(found.pending_writes or ()) < run.writes:
        return False
    if run.state == "ended":
        parts.settling.add(run, run.head, run.writes, sight)
    return True


async def _is_built_upon(face: Face, run: Run, found: CheckpointTuple | None) -> bool:
    """Whether a head is of a later run, or edits (of nobody) lead from it to this run's."""
    while found is not None and checkpoint_id_of(found) > run.head:
        number = await _number_of(face, run, found)
        if number is not None:
            return number > run.number
        found = await face.get_tuple(found.parent_config) if found.parent_config else None
    return found is not None and checkpoint_id_of(found) == run.head


async def _taken_over(parts: Parts, face: Face, case: _Case) -> Attempt | Verdict:
    run = case.run
    judged, found = await _judge(face, case)
    if judged.conflict:
        await face.primary.release_run(run.fence)
        return Verdict("conflict", judged.conflict)
    if await is_deleted(face, run):
        return await _buried(parts, face, run)
    options = {**case.known.options, **case.about.options}
    receipts = await face.primary.receipts(run.thread_id, run.turn_id)
    if judged.midway and found is not None and judged.input is None:
        outcome = await at_rest(face, case.known, run, options, found)
        if outcome:
            found, sight = await look(face, run.thread_id)
            await record_end(parts, face, run, outcome, found, sight)
            return FINE
    if judged.wipe and found is not None:
        # None is no answer; LangGraph takes the newest one that stands there.
        await face.put_writes(found.config, [(RESUME, None)], NULL_TASK)
    given = judged.input
    if receipts:
        # Whoever has committed them may have died before its checkpoint was in the tier.
        face.crossed(run.thread_id)
        given = await _told(face, case, judged, found, receipts)
    _log.info("run %r of thread %r is executed again", run.run_id, run.thread_id)
    base = checkpoint_id_of(found) if found is not None else ""
    return Attempt(run, case.known, given, _config(case), options, base)


async def _judge(face: Face, case: _Case) -> tuple[Plan, CheckpointTuple | None]:
    found, _ = await look(face, case.run.thread_id)
    head: Head | None = None
    if found is not None:
        head = head_of(found, case.known.serde, await _number_of(face, case.run, found))
    built_on = await _built_on(face, case)
    return plan(case.run.run_id, case.run.number, case.about, case.given, head, built_on), found


async def _built_on(face: Face, case: _Case) -> int | None:
    """Number of the run that made the checkpoint on which this one began; see `plan`."""
    made_by = case.about.base_run
    maker = await face.primary.run(made_by) if made_by else None
    if maker is None or maker.thread_id != case.run.thread_id:
        return None
    # One that has failed is not executed again, and what it had left may be gone.
    return 0 if maker.outcome in ("failed", "cancelled") else maker.number


async def _number_of(face: Face, run: Run, found: CheckpointTuple) -> int | None:
    """Number of the run of the same thread that made a checkpoint; None if not known."""
    made_by = run_id_of(found)
    if made_by == run.run_id:
        return run.number
    maker = await face.primary.run(made_by) if made_by else None
    return maker.number if maker is not None and maker.thread_id == run.thread_id else None


async def _told(
    face: Face, case: _Case, judged: Plan, found: CheckpointTuple | None, receipts: list[Receipt]
) -> Any:
    """What the graph is given, with what its turn has committed."""
    run, known, given = case.run, case.known, judged.input
    goes_on = given is None or isinstance(given, Command)
    about = None if goes_on else given, receipts
    if known.with_receipts is not None:
        state = await face.state(known.graph, thread_config(run.thread_id))
        told = known.with_receipts(*about, state.values if isinstance(state.values, dict) else {})
    else:
        # As they are stored: pending writes are applied by the graph, after the note.
        values = found.checkpoint["channel_values"] if found is not None else {}
        told = by_message(known.graph, run, *about, {MESSAGES: [], **values})
    if not goes_on or told is None:
        return given if goes_on else told
    if given is None:
        return Command(update=told)
    added = [*given._update_as_tuples(), *Command(update=told)._update_as_tuples()]  # noqa: SLF001
    return replace(given, update=added)


def _config(case: _Case) -> RunnableConfig:
    kept: RunnableConfig = {**case.about.config}  # type: ignore[typeddict-item]
    return merge_configs(kept, case.known.config) if case.known.config else kept
