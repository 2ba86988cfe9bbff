"""Letting a run begin: what is older on its thread comes first, and its input is recorded.

A turn that begins on a thread which has lost its last turn would be built upon a past
that never was. So the thread's older runs are made sure of before a new one is
recorded, and one whose owner lives is waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.runnables.config import merge_configs
from langgraph.checkpoint.base import CheckpointTuple

from langgraph_valkey.commits.turns import TURN_ID
from langgraph_valkey.errors import ConfigurationError, ReplayIncomplete, RunInProgress
from langgraph_valkey.primary.records import Fence, NewRun, Run, RunEnd, Started
from langgraph_valkey.runs.attempts import Attempt, Parts, let_go, look, taken_over
from langgraph_valkey.runs.faces import Face
from langgraph_valkey.runs.heads import Sight
from langgraph_valkey.runs.inputs import (
    About,
    about_of,
    commands_stored,
    context_of,
    digest,
    dump,
    kept,
    open_questions,
)
from langgraph_valkey.runs.orders import Order
from langgraph_valkey.runs.redoing import BUSY, OLDER_MOST, Verdict, prepare, redo, stands
from langgraph_valkey.runs.rerun import Standing, checkpoint_id_of, resumes, run_id_of, standing_of

POLL_S = 0.1
"""How often it is asked whether a run that is under way has ended."""

EDITS_MOST = 100
"""Edits of a state, one on the other, behind which the turn is looked for that is resumed."""


@dataclass(frozen=True, slots=True)
class Over:
    """The run was executed before.

    Attributes:
        run: As it ended.
    """

    run: Run


@dataclass(frozen=True, slots=True)
class _Blocked:
    """Something else is under way on the thread.

    Attributes:
        run_id: What.
        is_recorded: Whether the run that was to begin is recorded.
    """

    run_id: str
    is_recorded: bool = False


@dataclass(slots=True)
class _Call:
    """A run that is to begin.

    Attributes:
        order: What was asked for.
        stood: Where the thread stood when it was looked at first; None before.
    """

    order: Order
    stood: Standing | None = None

    def stands_on(self, found: CheckpointTuple | None) -> bool:
        """Whether what is to go on from an answer finds what that was given to."""
        if not resumes(self.order.given):
            return True
        now = standing_of(found, self.order.known.serde)
        self.stood = self.stood or now
        return not self.stood.is_left_by(now)


async def admit(parts: Parts, face: Face, order: Order) -> Attempt | Over:
    """Let a run begin, or find that it has been executed before.

    Raises:
        RunInProgress: A run of the thread is under way; it says whether this one is
            recorded.
        ReplayIncomplete: The thread is not what the caller takes it for.
        ConfigurationError: An older run has to be executed again, of an unknown graph; or
            this process leaves.
        ValueError: The run's id was used for something else.
    """
    until_s = face.link.now() + order.wait_s
    call = _Call(order)
    while True:
        blocked = _Blocked(order.run_id)
        if parts.owner.begin(order.run_id):
            came: Attempt | Over | _Blocked | None = None
            try:
                came = await _try(parts, face, call)
            finally:
                if not isinstance(came, Attempt):
                    parts.owner.end(order.run_id)
            if came is None:
                continue
            if not isinstance(came, _Blocked):
                return came
            blocked = came
        left_s = until_s - face.link.now()
        if left_s <= 0:
            raise _in_progress(order, blocked)
        await face.link.sleep(min(POLL_S, left_s))


def _in_progress(order: Order, blocked: _Blocked) -> RunInProgress:
    run_id, under_way = order.run_id, f"run {blocked.run_id!r} of thread {order.thread_id!r} is"
    if blocked.run_id == run_id:
        told = f"{under_way} under way already: call again when it has ended, or give wait_s"
    elif blocked.is_recorded:
        told = (
            f"{under_way} under way, and run {run_id!r} comes after it. That is recorded, and "
            "recover() will bring it to its end; so does the same call with this run_id"
        )
    else:
        told = (
            f"{under_way} under way, so run {run_id!r} was not recorded: call again when that has "
            "ended, or give wait_s"
        )
    return RunInProgress(told, thread_id=order.thread_id, run_id=blocked.run_id)


async def _try(parts: Parts, face: Face, call: _Call) -> Attempt | Over | _Blocked | None:
    """Try to let a run begin; None if the thread has to be looked at again."""
    order = call.order
    await parts.owner.live(face.primary)
    older = await face.primary.unsettled_runs(thread_id=order.thread_id, limit=OLDER_MOST)
    ids = [run.run_id for run in older]
    is_recorded = order.run_id in ids
    if is_recorded:
        older = older[: ids.index(order.run_id)]
    seen = await look(face, order.thread_id)
    is_answer = call.stands_on(seen[0])
    blocked, lost = await _make_sure(parts, face, older, seen)
    if blocked is not None:
        return replace(blocked, is_recorded=is_recorded)
    if lost and resumes(order.given) and not is_recorded:
        raise ReplayIncomplete(
            f"thread {order.thread_id!r} had lost its last turn, which was executed again now, so "
            "what this call answers may have been asked anew: look at the thread, and answer that",
            thread_ids=[order.thread_id],
        )
    if not is_answer and not is_recorded and await face.primary.run(order.run_id) is None:
        raise _answered(order)
    if lost:
        seen = await look(face, order.thread_id)
    new = _recorded(parts, face, order, seen[0], await _turn_of(face, order, seen[0]))
    started = await _start(parts, face, new)
    run = started.run
    if run is None:
        return _Blocked(next(r.run_id for r in started.before if r.state == "running"))
    if not started.is_new:
        return await _again(parts, face, order, run, new)
    is_news = not {each.run_id for each in started.before} <= {each.run_id for each in older}
    if resumes(order.given):
        # Of what began in between and has failed, or was settled, nothing else is known.
        now, _sight = await look(face, order.thread_id)
        if is_news or not call.stands_on(now):
            await let_go(parts, face, run.fence, RunEnd("cancelled", "", 0))
            raise _answered(order)
    if is_news:
        # It stays recorded, and is executed behind what came in between.
        await let_go(parts, face, run.fence)
        return None
    return _attempt(order, run, order.given, checkpoint_id_of(seen[0]) if seen[0] else "")


def _answered(order: Order) -> ReplayIncomplete:
    return ReplayIncomplete(
        f"thread {order.thread_id!r} went on while this call waited to begin, so what it answers "
        "was answered by another one: look at the thread, and answer what it asks now, with "
        "another run_id",
        thread_ids=[order.thread_id],
    )


async def _start(parts: Parts, face: Face, new: NewRun) -> Started:
    fence = Fence(new.run_id, 1)
    try:
        started = await face.primary.start_run(new)
    except BaseException:
        parts.owner.tell_later(fence, None)  # It may be recorded all the same.
        raise
    if started.is_new:
        parts.owner.told(fence)  # Of a call before, which was not recorded after all.
    return started


def _attempt(order: Order, run: Run, given: Any, base: str) -> Attempt:
    return Attempt(run, order.known, given, order.config, order.options, base, is_called=True)


async def _make_sure(
    parts: Parts, face: Face, older: Sequence[Run], seen: tuple[CheckpointTuple | None, Sight]
) -> tuple[_Blocked | None, bool]:
    """See to it that a thread has all of its older runs; whether one was executed again.

    Raises:
        ConfigurationError, ReplayIncomplete: One can't be executed again here.
    """
    lost = False
    at = len(older)
    while at:
        run = older[at - 1]
        if run.state == "ended" and await stands(parts, face, run, seen):
            break  # Where the newest one is whole, those before it are.
        at -= 1
    for run in older[at:]:
        if run.state == "running" and run.owner_alive and run.owner != parts.owner.id:
            return _Blocked(run.run_id), lost
        verdict = await redo(parts, face, run, parts.graphs.find(run.graph, {}))
        if verdict == BUSY:
            return _Blocked(run.run_id), lost
        lost = lost or verdict.kind in ("rerun", "failed")
        if verdict.kind == "conflict" and run.state == "running" and run.owner:
            # Nobody executes it, and it must not keep the thread from going on.
            await face.primary.release_run(run.fence)
        _raise_if_stuck(run, verdict)
    return None, lost


def _raise_if_stuck(run: Run, verdict: Verdict) -> None:
    what = f"run {run.run_id!r} of thread {run.thread_id!r} has to be executed again first, and"
    if verdict.kind == "unknown":
        raise ConfigurationError(
            f"{what} its graph {run.graph!r} is not known here: register it, or cancel the run"
        )
    if verdict.kind == "left":
        raise ReplayIncomplete(
            f"{what} can't be now ({verdict.why}): call again, or cancel it",
            thread_ids=[run.thread_id],
        ) from verdict.error


async def _turn_of(face: Face, order: Order, found: CheckpointTuple | None) -> str:
    """The turn of a run: the one that is given, that it resumes, or its own."""
    given = order.turn_id or (order.config.get("configurable") or {}).get(TURN_ID)
    if given is None and resumes(order.given):
        for _ in range(EDITS_MOST):
            given = found.metadata.get(TURN_ID) if found is not None else None
            if given is not None or found is None or found.parent_config is None:
                break
            # Somebody has edited the state since; that belongs to no turn.
            parent_id = found.parent_config["configurable"]["checkpoint_id"]
            found, _sight = await look(face, order.thread_id, parent_id)
    return str(given or order.run_id)


def _recorded(
    parts: Parts, face: Face, order: Order, found: CheckpointTuple | None, turn_id: str
) -> NewRun:
    """What is recorded of a run.

    Raises:
        ValueError: The input is too large.
        TypeError: It can't be serialized.
    """
    serde = order.known.serde
    config, options, left_out = kept(serde, order.config, order.options)
    about = About(
        base=checkpoint_id_of(found) if found is not None else "",
        base_run=run_id_of(found) if found is not None else "",
        asked=open_questions(serde, found.pending_writes) if found is not None else {},
        stored=commands_stored(found.pending_writes) if found is not None else 0,
        input_sha256=digest(serde, order.given),
        config=config,
        options=options,
        left_out=left_out,
    )
    given = dump(serde, order.given)
    if len(given) > face.primary.room.input_bytes_max:
        raise ValueError(
            f"the input of run {order.run_id!r} takes {len(given)} bytes, and the primary store "
            f"takes at most {face.primary.room.input_bytes_max}: store it elsewhere, and give "
            "its name"
        )
    return NewRun(
        run_id=order.run_id,
        thread_id=order.thread_id,
        turn_id=turn_id,
        graph=order.known.name,
        face=face.kind,
        input=given,
        context=context_of(serde, about),
        owner=parts.owner.id,
    )


async def _again(
    parts: Parts, face: Face, order: Order, run: Run, new: NewRun
) -> Attempt | Over | _Blocked:
    """Go on with a run that was recorded before."""
    _check_same(order, run, new)
    if run.state == "running" and run.owner_alive and run.owner != parts.owner.id:
        return _Blocked(run.run_id, is_recorded=True)
    if run.outcome in ("failed", "cancelled"):
        raise ValueError(
            f"run {run.run_id!r} has ended: it {run.outcome}. Give another run_id to try again, "
            "and the same turn_id for what it has committed not to be done twice"
        )
    if run.state == "settled":
        return Over(run)
    # What could not be recorded is given again now.
    config = merge_configs(order.known.config, order.config)
    options = {**order.known.options, **order.options}
    known = replace(order.known, config=config, options=options)
    came = await prepare(parts, face, run, known)
    if isinstance(came, Attempt):
        return _attempt(order, came.run, came.given, came.base)
    if came == BUSY:
        return _Blocked(run.run_id, is_recorded=True)
    if came.kind == "fine":
        ended = await face.primary.run(run.run_id)
        if ended is None:
            raise taken_over(run)
        return Over(ended)
    raise ReplayIncomplete(
        f"run {run.run_id!r} can't be brought to its end: {came.why or came.kind}",
        thread_ids=[run.thread_id],
    ) from came.error


def _check_same(order: Order, run: Run, new: NewRun) -> None:
    """Raise if the run's id was used for something else."""
    serde = order.known.serde
    same = run.thread_id == order.thread_id and run.input_sha256 == new.input_sha256
    if not same and run.thread_id == order.thread_id:
        # Encryption makes another text of it each time.
        try:
            recorded = about_of(serde, run.context).input_sha256
        except ValueError:
            recorded = ""
        same = recorded == digest(serde, order.given)
    if not same:
        raise ValueError(
            f"run {run.run_id!r} was recorded before, on thread {run.thread_id!r} or with another "
            "input: give each run an id of its own"
        )
