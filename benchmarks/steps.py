"""Time of a step: put, put_writes of three writes, get_tuple of the latest.

The clock runs around the whole loop of steps, with nothing in it but the calls;
the inputs are built before. Each loop has a fresh thread on an emptied store.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence

from benchmarks.contenders import line_up
from benchmarks.faces import FACES, FaceName, Opened, Steps
from benchmarks.figures import Column, Figure, Goal, take_turns
from benchmarks.floor import ANCHORS_US, SERDE, BlockingFloor, Floor, fields_of
from benchmarks.session import Session
from benchmarks.workloads import KIB, KINDS, Kind, Step, build_steps, growing_list, thread

SIZES_KIB = (2, 20, 200)
GOALS = {
    "async": {2: 1.25, 20: 1.25, 200: 1.3},
    "sync": {2: 1.3, 20: 1.3, 200: 1.4},
}
BARE = "floor's round trips alone"
STEPS, STEPS_QUICK = 100, 30
ROUNDS, ROUNDS_QUICK = 11, 2
WARM_UP_STEPS = 5


async def timed_loop(calls: Steps, steps: Sequence[Step], thread_id: str) -> float:
    """Seconds for all steps on a fresh thread."""
    latest = thread(thread_id)
    config = latest
    started = time.perf_counter()
    for step in steps:
        config = await calls.put(config, step.checkpoint, step.metadata, step.new_versions)
        await calls.put_writes(config, step.writes, step.task_id)
        await calls.get_tuple(latest)
    return time.perf_counter() - started


async def bare_loop(floor: Floor | BlockingFloor, steps: Sequence[Step], thread_id: str) -> float:
    """Seconds for the floor's round trips alone, on bytes made beforehand."""
    ready = [(SERDE.dumps_typed(step.checkpoint)[1], fields_of(step.writes)) for step in steps]
    started = time.perf_counter()
    for state, fields in ready:
        await floor.bare(thread_id, state, fields)
    return time.perf_counter() - started


def case_name(kind: str, size_kib: int, face: str) -> str:
    """As it stands in the table."""
    return f"{kind}, {size_kib} KiB, {face}"


def measure(session: Session) -> list[Figure]:
    """Both faces, both kinds of data, all sizes."""
    figure = Figure("steps", "Time of a step: put + put_writes(3) + get_tuple, us")
    figure.notes += [
        "The floor's round trips alone stand beside their anchor, the same bytes measured on "
        "another day: a check of the machine.",
        "InMemorySaver is a reference, not a peer: it stores nothing.",
    ]
    figure.columns.append(Column(BARE, "reference", speaks_valkey=True))
    for face in FACES:
        with session.opened(line_up(session.servers, face, with_floor=True), figure) as opened:
            for kind in KINDS:
                for size_kib in SIZES_KIB:
                    _one_case(session, figure, opened, face, kind, size_kib)
    return [figure]


def _one_case(
    session: Session,
    figure: Figure,
    opened: Sequence[Opened],
    face: FaceName,
    kind: Kind,
    size_kib: int,
) -> None:
    goal = Goal(GOALS[face][size_kib], "floor")
    anchor = ANCHORS_US[face][size_kib]
    case = figure.case(case_name(kind, size_kib, face), "us", goal, anchor)
    count = STEPS_QUICK if session.quick else STEPS
    rounds = ROUNDS_QUICK if session.quick else ROUNDS
    items = growing_list(kind, size_kib * KIB, count, session.seed)

    def loop(who: Opened, taken: int) -> float:
        who.contender.store.clear()
        thread_id = session.new_thread()
        steps = build_steps(items[:taken], who.steps.get_next_version)
        gc.collect()
        gc.disable()
        try:
            spent_s = who.run(timed_loop(who.steps, steps, thread_id))
            if who.contender.role == "floor" and taken == count:
                bare_s = who.run(bare_loop(who.saver, steps, thread_id))
                case.add(BARE, bare_s / count * 1e6)
        finally:
            gc.enable()
        if who.contender.role == "reference":
            who.run(who.calls.delete_thread(thread_id))
        return spent_s

    def one(who: Opened, turn: int) -> None:
        session.progress(f"steps: {case.name}, round {turn + 1}/{rounds}, {who.contender.name}")
        case.add(who.contender.name, loop(who, count) / count * 1e6)

    for who in opened:
        loop(who, WARM_UP_STEPS)
    take_turns(opened, rounds, one)
