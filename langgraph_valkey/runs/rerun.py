"""What has to be executed so that a run which was begun comes to its end.

The thread's head tells how much of the run is left:

===========================  =====================================================
the head is                  then
===========================  =====================================================
a checkpoint of this run     it goes on from there, without an input: LangGraph
                             takes the same ``metadata.run_id`` for a resume
the one the run began on     it begins anew, with its input
an older one                 so it does, if the runs between them have been executed
                             again. An edit of the state, say, nobody can make again:
                             a conflict
of a later run, or of        the thread has gone on without it: a conflict, which
nobody the registry knows    is told and left alone
===========================  =====================================================

An answer to an interrupt needs more care, since LangGraph keeps it apart from the task
that takes it: as long as the checkpoint is the head, whoever executes it finds the
answer again, and gives it to the *next* question of that task, too. "Yes" to the first
would be "yes" to the second. So what is left of an answer is wiped, and the answer is
given anew by the id of its question, if that is still open. After a rewind questions
are asked anew, under other ids; an answer is given only to a question that is the same
by its content.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import INTERRUPT, RESUME
from langgraph.types import Command

from langgraph_valkey.runs.inputs import (
    NULL_TASK,
    About,
    commands_stored,
    digest,
    finished_tasks,
    open_questions,
)

_QUESTION_ID = re.compile(r"[0-9a-f]{32}")

LATER_RUN = "its thread went on with a later run"
UNKNOWN_HEAD = "its thread went on, and not by a run that is known here"
GONE = "what it was to go on with is gone from its thread"
NOT_MADE_AGAIN = "what it was built upon is gone from its thread, and nobody can make it again"
OTHER_QUESTION = "the question that it answers was asked anew, and is another one now"
"""Why a run is not executed again."""


@dataclass(frozen=True, slots=True)
class Head:
    """A thread's head, as far as it matters here.

    Attributes:
        id: Its id.
        run_id: The run that made it; "" if it says nothing of one.
        number: Number of that run; None if the registry does not have it.
        asked: The interrupts that wait for an answer on it: id, and digest.
        stored: How many writes of commands stand on it.
        answered: Whether an answer stands on it that anybody would get who asks.
        writes: How many pending writes stand on it.
    """

    id: str
    run_id: str
    number: int | None
    asked: Mapping[str, str]
    stored: int
    answered: bool
    writes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about a run.

    Attributes:
        conflict: Why nothing is done; "" if something is.
        midway: Whether the thread already holds some of the run, beyond its input.
        input: What the graph is given.
        wipe: Whether to wipe an answer that is left on the head before.
    """

    conflict: str = ""
    midway: bool = False
    input: Any = None
    wipe: bool = False


def head_of(found: CheckpointTuple, serde: SerializerProtocol, number: int | None) -> Head:
    """What matters of a thread's head."""
    pending = found.pending_writes or []
    return Head(
        id=checkpoint_id_of(found),
        run_id=run_id_of(found),
        number=number,
        asked=open_questions(serde, pending),
        stored=commands_stored(pending),
        answered=any(
            task == NULL_TASK and channel == RESUME and value is not None
            for task, channel, value in pending
        ),
        writes=len(pending),
    )


def checkpoint_id_of(found: CheckpointTuple) -> str:
    """A checkpoint's id."""
    return str(found.config["configurable"]["checkpoint_id"])


def run_id_of(found: CheckpointTuple) -> str:
    """The run that made a checkpoint; "" if it names none."""
    made_by = found.metadata.get("run_id")
    return made_by if isinstance(made_by, str) else ""


def resumes(given: Any) -> bool:
    """Whether an input goes on with the turn that was begun before."""
    return given is None or (isinstance(given, Command) and given.resume is not None)


class Standing(NamedTuple):
    """Where a thread stands, as far as an answer to it goes by that.

    Attributes:
        head: Id of its head; "" if it is not there.
        asked: What waits for an answer: the task, the digest of what it asks, and how
            many answers it has had, since a node may ask several things, one by one.
    """

    head: str
    asked: frozenset[tuple[str, str, int]]

    def is_left_by(self, now: Standing) -> bool:
        """Whether the thread has gone on since, or something was answered."""
        return self.head != now.head or not self.asked <= now.asked


def standing_of(found: CheckpointTuple | None, serde: SerializerProtocol) -> Standing:
    """Where a thread stands whose head this is."""
    if found is None:
        return Standing("", frozenset())
    pending = found.pending_writes or []
    answers = {
        task: len(value) if isinstance(value, list) else 1
        for task, channel, value in pending
        if channel == RESUME and value is not None
    }
    finished = finished_tasks(pending)
    given = answers.get(NULL_TASK, 0)
    asked = frozenset(
        (task, digest(serde, [each.value for each in questions]), answers.get(task, 0) + given)
        for task, channel, value in pending
        if channel == INTERRUPT and task not in finished
        for questions in [value if isinstance(value, list | tuple) else [value]]
    )
    return Standing(checkpoint_id_of(found), asked)


def plan(
    run_id: str, number: int, about: About, given: Any, head: Head | None, built_on: int | None
) -> Plan:
    """What to execute.

    Args:
        run_id: The run.
        number: Its number in the thread.
        about: What was recorded of its beginning.
        given: Its input.
        head: The thread's head; None if the thread is not there.
        built_on: Number of the run that made the checkpoint on which this one began; None
            if that was nobody the registry knows, 0 if it need not be there.
    """
    if head is not None:
        if head.run_id == run_id:
            return Plan(midway=True)
        if head.number is not None and head.number > number:
            return Plan(conflict=LATER_RUN)
        if head.number is None and head.id > about.base:
            return Plan(conflict=UNKNOWN_HEAD)
    has_base = not about.base or (head is not None and head.id == about.base)
    if not has_base and (built_on is None or ((head and head.number) or 0) < built_on):
        return Plan(conflict=NOT_MADE_AGAIN)
    if isinstance(given, Command):
        return _command(about, given, head)
    if given is None and head is None:
        return Plan(conflict=GONE)
    return Plan(input=given)


def _command(about: About, given: Command[Any], head: Head | None) -> Plan:
    is_base = head is not None and head.id == about.base
    # What a command changes was put on the checkpoint in one go, and applies from there.
    taken = head is not None and is_base and head.stored > about.stored
    update, goto = (None, ()) if taken else (given.update, given.goto)
    resume = given.resume
    if resume is not None:
        resume = _answers(about, resume, head, is_base=is_base)
        if resume is None:
            return Plan(conflict=OTHER_QUESTION if head is not None else GONE)
        if resume == {}:
            resume = None  # All of it was given.
    wipe = head is not None and given.resume is not None and head.answered
    if not update and not goto and resume is None:
        return Plan(midway=True, wipe=wipe)
    return Plan(input=Command(update=update, goto=goto, resume=resume), midway=taken, wipe=wipe)


def _answers(
    about: About, resume: Any, head: Head | None, *, is_base: bool
) -> dict[str, Any] | Any | None:
    """What is left to be answered, by the ids of questions; None if that can't be told."""
    by_id = _by_id(resume, about.asked)
    if by_id is None:
        # Nothing was asked when it came: it is for whoever asks first.
        return resume if is_base else None
    if head is None:
        return None
    if is_base:
        return {question: answer for question, answer in by_id.items() if question in head.asked}
    open_now = {asked: question for question, asked in head.asked.items()}
    if len(open_now) < len(head.asked):
        return None  # Two that are alike.
    anew = [open_now.get(about.asked.get(question, "")) for question in by_id]
    if None in anew:
        return None
    return dict(zip(anew, by_id.values(), strict=True))


def _by_id(resume: Any, asked: Mapping[str, str]) -> dict[str, Any] | None:
    if isinstance(resume, dict) and resume and all(_is_id(key) for key in resume):
        return dict(resume)
    return {next(iter(asked)): resume} if len(asked) == 1 else None


def _is_id(key: object) -> bool:
    return isinstance(key, str) and _QUESTION_ID.fullmatch(key) is not None
