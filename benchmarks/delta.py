"""The history of a delta channel: what 99 ancestors wrote to it.

A delta channel's value is in no checkpoint; it is made again from the writes of
the whole chain. So each checkpoint names the channel's version but holds no
value, and has one write to it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig

from benchmarks.contenders import line_up
from benchmarks.faces import FACES, Opened
from benchmarks.figures import Case, Figure, Goal, take_turns
from benchmarks.session import Session
from benchmarks.workloads import KIB, KINDS, Kind, Step, build_steps, growing_list, thread

CHECKPOINTS = 100
CHANNEL = "messages"
AVERAGE_KIB = 20
ROUNDS, ROUNDS_QUICK = 15, 2
REPEATS = 3
GOAL = Goal(1.5, "nothing")


async def write_chain(who: Opened, steps: list[Step], thread_id: str) -> RunnableConfig:
    """Store checkpoints without the channel, and a write to it on each."""
    config = thread(thread_id)
    for step in steps:
        values = dict(step.checkpoint["channel_values"])
        message = values.pop(CHANNEL)[-1]
        bare = {**step.checkpoint, "channel_values": values}
        config = await who.calls.put(config, bare, step.metadata, step.new_versions)
        await who.calls.put_writes(config, [(CHANNEL, [message])], step.task_id)
    return config


async def timed_history(who: Opened, target: RunnableConfig) -> tuple[float, Any]:
    """Milliseconds for one call, and what it found."""
    started = time.perf_counter()
    for _ in range(REPEATS):
        found = await who.calls.delta_history(config=target, channels=[CHANNEL])
    return (time.perf_counter() - started) / REPEATS * 1e3, found


def measure(session: Session) -> list[Figure]:
    """Both faces; messages and plain dicts."""
    figure = Figure("delta", f"Delta history over {CHECKPOINTS - 1} ancestors, ms")
    for face in FACES:
        with session.opened(line_up(session.servers, face), figure) as opened:
            for kind in KINDS:
                case = figure.case(f"{kind}, {face}", "ms", GOAL)
                _one_case(session, opened, kind, case)
    return [figure]


def _one_case(session: Session, opened: Sequence[Opened], kind: Kind, case: Case) -> None:
    rounds = ROUNDS_QUICK if session.quick else ROUNDS
    items = growing_list(kind, AVERAGE_KIB * KIB, CHECKPOINTS, session.seed)
    targets: dict[str, RunnableConfig] = {}
    for who in opened:
        steps = build_steps(items, who.steps.get_next_version)
        chain = write_chain(who, steps, session.new_thread())
        targets[who.contender.name] = who.run(chain)

    def one(who: Opened, turn: int) -> None:
        name = who.contender.name
        session.progress(f"delta: {case.name}, round {turn + 1}/{rounds}, {name}")
        gc.collect()
        spent_ms, found = who.run(timed_history(who, targets[name]))
        if len(found[CHANNEL]["writes"]) != CHECKPOINTS - 1:
            raise AssertionError(f"{name} lost part of the chain")
        case.add(name, spent_ms)

    take_turns(opened, rounds, one)
