"""The verdict, at the end, and what was fine after each fault."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph

from langgraph_valkey import ValkeySaver
from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.primary.records import Run
from tests.double_fault.agent import CLIENT, Kind, answer_to
from tests.double_fault.bank import Line
from tests.double_fault.books import Entry
from tests.double_fault.crew import Turn
from tests.double_fault.trace import GAVE_UP, Step


@dataclass(slots=True)
class Verdict:
    """What is wrong, in words, and what was counted.

    Attributes:
        duplicates: Intents and keys that were applied more than once.
        missing: Intents of accepted turns that were not applied; commits without a line.
        unfinished: Accepted turns whose thread holds no answer.
        broken: Threads that are not whole.
        wrongly_rerun: Runs that were executed again, or at once, without need.
        missing_money: What the accounts lack.
        accepted, conflicts, commits, rerun: How many turns were accepted, how many of
            those were only reported, how many commits were made, and how many runs were
            executed more than once.
    """

    duplicates: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    wrongly_rerun: list[str] = field(default_factory=list)
    missing_money: int = 0
    accepted: int = 0
    conflicts: int = 0
    commits: int = 0
    rerun: int = 0


# --- money ------------------------------------------------------------------------


def judge_money(
    verdict: Verdict, turns: Iterable[Turn], done: Sequence[Line], booked: Sequence[Entry]
) -> None:
    """Each intent of these turns once, and the ledger and the commits the same.

    Args:
        verdict: To be added to.
        turns: Accepted turns, those not counted that were only reported.
        done: The ledger.
        booked: What the primary store says was committed.
    """
    often = Counter(line.intent for line in done)
    keys = Counter(Entry(line.turn, line.key) for line in done)
    verdict.commits = len(booked)
    verdict.duplicates += [f"{intent}: {n} times" for intent, n in often.items() if n > 1]
    verdict.duplicates += [f"{key}: {n} lines" for key, n in keys.items() if n > 1]
    verdict.duplicates += [f"{key}: a line, no commit" for key in keys.keys() - set(booked)]
    verdict.missing += [f"{key}: a commit, no line" for key in set(booked) - keys.keys()]
    verdict.missing += [
        f"{intent.name} of {turn.thread_id}, {turn.kind}, {turn.face}"
        for turn in turns
        for intent in turn.intents
        if not often[intent.name]
    ]


# --- threads ----------------------------------------------------------------------


def judge_threads(
    verdict: Verdict,
    graphs: Mapping[Kind, CompiledStateGraph],
    turns: Iterable[Turn],
    excused: set[str],
) -> None:
    """Each thread is whole, and holds the answer of each accepted turn.

    Args:
        verdict: To be added to.
        graphs: The agents, on a saver that has seen none of it.
        turns: Accepted turns.
        excused: Run ids that were only reported.
    """
    by_thread: dict[str, list[Turn]] = defaultdict(list)
    for turn in turns:
        by_thread[turn.thread_id].append(turn)
    for thread_id, sent in by_thread.items():
        try:
            state = graphs[sent[0].kind].get_state({"configurable": {"thread_id": thread_id}})
        except LanggraphValkeyError as error:
            verdict.broken.append(f"{thread_id}: {type(error).__name__}: {error}")
            continue
        messages = state.values.get("messages", [])
        said = {each.text for each in messages if isinstance(each, AIMessage)}
        counted = [turn for turn in sent if turn.run_id not in excused]
        verdict.unfinished += [
            f"{turn.run_id} of {thread_id}, {turn.kind}, {turn.face}"
            for turn in counted
            if answer_to(turn.run_id) not in said
        ]
        if len(counted) < len(sent):
            continue  # It went on without a turn that was only reported, in the middle of it.
        wrong = whats_wrong(thread_id, state.values, [turn.run_id for turn in counted])
        wrong += [f"it would go on with {state.next}"] if state.next else []
        verdict.broken += [f"{thread_id}: {each}" for each in wrong if messages]


def whats_wrong(thread_id: str, values: Mapping[str, Any], sent: Sequence[str]) -> list[str]:
    """What is not as it would be had nothing ever happened.

    Args:
        thread_id: The thread.
        values: Its state.
        sent: Accepted turns, in the order in which they were sent.
    """
    return list(_wrong(thread_id, values, values.get("messages", []), sent))


def _wrong(
    thread_id: str, values: Mapping[str, Any], messages: Sequence[AnyMessage], sent: Sequence[str]
) -> Iterable[str]:
    if values.get("opened") != thread_id:
        yield f"opened is {values.get('opened')!r}"
    thoughts = [each for each in messages if isinstance(each, AIMessage)]
    if values.get("thoughts") != len(thoughts):
        yield f"{values.get('thoughts')} thoughts, {len(thoughts)} messages of the model"
    asked = [json.loads(each.text)["turn"] for each in messages if each.name == CLIENT]
    if [each for each in asked if each in sent] != [each for each in sent if each in asked]:
        yield f"asked in this order: {asked}"
    order = [
        each.text
        for each in messages
        if isinstance(each, AIMessage) and each.text.startswith(answer_to("")[:-1])
    ]
    if order != [answer_to(each) for each in asked]:
        yield f"asked {asked}, answered {order}"
    yield from _miscalled(messages)


def _miscalled(messages: Sequence[AnyMessage]) -> Iterable[str]:
    """Calls without exactly one answer behind them, before anything else is said."""
    waiting: set[str | None] = set()
    for each in messages:
        if isinstance(each, ToolMessage):
            if each.tool_call_id not in waiting:
                yield f"{each.tool_call_id} is answered, and was not asked"
            waiting.discard(each.tool_call_id)
        elif isinstance(each, AIMessage):
            if waiting:
                yield f"{waiting} not answered"
            waiting = {call["id"] for call in each.tool_calls}
        elif waiting:
            yield f"{each.id} is said before {waiting} are answered"
    if waiting:
        yield f"{waiting} not answered in the end"


# --- executions ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fine:
    """Runs that nobody need do again, at a time, until a primary dies the next time.

    Attributes:
        run_ids: Those that had ended, and whose head was there after a fault.
        from_s, until_s: For how long that was so, on the monotonic clock.
    """

    run_ids: frozenset[str]
    from_s: float
    until_s: float = math.inf

    def until(self, at_s: float) -> Fine:
        """It is over by then."""
        return replace(self, until_s=min(self.until_s, at_s))


def is_there(saver: ValkeySaver, run: Run) -> bool:
    """Whether a run that has ended left all it left in the cluster, on the thread's line."""
    if run.state != "ended" or not run.head:
        return False
    thread: RunnableConfig = {"configurable": {"thread_id": run.thread_id, "checkpoint_ns": ""}}
    found = saver.get_tuple(thread)
    if found is None:
        return False
    if _id(found.config) == run.head:
        return len(found.pending_writes or []) >= run.writes
    parents = {_id(each.config): _id(each.parent_config) for each in saver.list(thread)}
    at = _id(found.config)
    while at > run.head:
        at = parents.get(at, "")
    return at == run.head


def _id(config: RunnableConfig | None) -> str:
    return str(config["configurable"]["checkpoint_id"]) if config else ""


def judge_executions(
    verdict: Verdict, steps: Sequence[Step], ended_s: Mapping[int, float], fine: Iterable[Fine]
) -> None:
    """No run by two living processes, nor again when it was fine.

    Args:
        verdict: To be added to.
        steps: The trace.
        ended_s: When processes ended, on the monotonic clock.
        fine: What was fine.
    """
    by_run: dict[str, list[Step]] = defaultdict(list)
    for step in steps:
        by_run[step.run_id].append(step)
    for run_id, mine in by_run.items():
        starts = _starts(mine)
        verdict.rerun += len(starts) > 1
        for (first, _), (second, begun_s) in pairwise(starts.items()):
            if first[1] == second[1]:
                continue
            if _lives_on(first[1], begun_s, mine, ended_s):
                verdict.wrongly_rerun.append(
                    f"{run_id}: attempt {second[0]} by {second[1]} while {first[1]} lives, "
                    f"which did attempt {first[0]}"
                )
    for each in fine:
        for run_id in each.run_ids:
            late = [s for s in by_run[run_id] if each.from_s < s.at_s < each.until_s]
            if any(step.node != GAVE_UP for step in late):
                verdict.wrongly_rerun.append(f"{run_id}: it was fine, and done again")


def _lives_on(
    process: int, at_s: float, steps: Sequence[Step], ended_s: Mapping[int, float]
) -> bool:
    """Whether a process lived then, and had not given these steps' run up."""
    gave_up = any(
        step.node == GAVE_UP and step.process == process and step.at_s <= at_s for step in steps
    )
    return ended_s.get(process, math.inf) > at_s and not gave_up


def _starts(steps: Sequence[Step]) -> dict[tuple[int, int], float]:
    """Attempt and process of each execution, and when it began, in order."""
    starts: dict[tuple[int, int], float] = {}
    for step in steps:
        if step.node != GAVE_UP:
            starts.setdefault((step.attempt, step.process), step.at_s)
    return starts
