"""Bytes stored and bytes sent after 100 steps, and ours after 1,000.

Measured from outside: at a Valkey as the sum of MEMORY USAGE over all keys, and
as the growth of ``used_memory``; in PostgreSQL as tables, indexes and
out-of-line values; in SQLite as pages in use. Sizes do not vary from run to
run, so there is one round, on the async face.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.contenders import FLOOR, line_up
from benchmarks.faces import Opened
from benchmarks.figures import Case, Column, Figure, Goal
from benchmarks.peers import MEMORY, PEERS
from benchmarks.servers import ValkeyStore
from benchmarks.session import Session
from benchmarks.steps import SIZES_KIB
from benchmarks.workloads import (
    KIB,
    KINDS,
    Kind,
    Step,
    build_steps,
    growing_list,
    state_bytes,
    thread,
)

GOALS = {2: 0.8, 20: 0.15, 200: 0.05}
STEPS, STEPS_LONG, STEPS_LONG_QUICK = 100, 1_000, 300
SIZES_LONG_KIB = (2, 20)
WHOLE = "whole states, bare"


async def write_all(who: Opened, steps: Sequence[Step], thread_id: str) -> None:
    """Store a thread; nothing is read."""
    config = thread(thread_id)
    for step in steps:
        config = await who.calls.put(config, step.checkpoint, step.metadata, step.new_versions)
        await who.calls.put_writes(config, step.writes, step.task_id)


def measure(session: Session) -> list[Figure]:
    """All peers after 100 steps; ours alone after 1,000."""
    stored = Figure("stored", "Bytes stored, KiB")
    sent = Figure("sent", "Bytes sent to the server by put + put_writes, KiB")
    rivals = [name for name in PEERS if name != MEMORY]
    lined_up = line_up(session.servers, "async", rivals=rivals)
    with session.opened(lined_up, stored) as opened:
        sent.columns = [column for column in stored.columns if column.speaks_valkey]
        for kind in KINDS:
            for size_kib in SIZES_KIB:
                name = f"{kind}, {size_kib} KiB, {STEPS} steps"
                goal = Goal(GOALS[size_kib], "best Valkey peer")
                in_keys = stored.case(name, "KiB", goal)
                in_memory = stored.case(f"{name}, growth of used_memory", "KiB")
                on_wire = sent.case(name, "KiB")
                for who in opened:
                    session.progress(f"stored: {name}, {who.contender.name}")
                    _one(session, who, kind, size_kib, STEPS, (in_keys, in_memory, on_wire))
        _long_threads(session, stored, sent, opened)
    stored.notes += [
        f"'{FLOOR}' keeps only the latest state and is left out here.",
        f"{STEPS_LONG_QUICK if session.quick else STEPS_LONG:,} steps grow by as much a step as "
        f"{STEPS} do, so the state itself ends that many times larger. '{WHOLE}' is the sum of "
        "the serialized states alone: the least that a saver of whole states would send.",
    ]
    return [stored, sent]


def _long_threads(session: Session, stored: Figure, sent: Figure, opened: Sequence[Opened]) -> None:
    count = STEPS_LONG_QUICK if session.quick else STEPS_LONG
    stored.columns.append(Column(WHOLE, "reference", speaks_valkey=False))
    for who in (who for who in opened if who.contender.role == "ours"):
        for size_kib in SIZES_LONG_KIB:
            name = f"messages, growing as {size_kib} KiB does, {count:,} steps"
            session.progress(f"stored: {name}")
            cases = (
                stored.case(name, "KiB"),
                stored.case(f"{name}, growth of used_memory", "KiB"),
                sent.case(name, "KiB"),
            )
            steps = _one(session, who, "messages", size_kib, count, cases)
            stored.case(name, "KiB").add(WHOLE, state_bytes(steps) / KIB)


def _one(
    session: Session,
    who: Opened,
    kind: Kind,
    size_kib: int,
    count: int,
    cases: tuple[Case, Case, Case],
) -> list[Step]:
    in_keys, in_memory, on_wire = cases
    store, name = who.contender.store, who.contender.name
    items = growing_list(kind, size_kib * KIB, STEPS, session.seed, total_steps=count)
    steps = build_steps(items, who.steps.get_next_version)
    who.run(write_all(who, steps[:1], session.new_thread()))
    store.clear()
    memory = sent = 0
    if isinstance(store, ValkeyStore):
        memory = store.info("memory", "used_memory")
        sent = store.info("stats", "total_net_input_bytes")
    who.run(write_all(who, steps, session.new_thread()))
    if isinstance(store, ValkeyStore):
        on_wire.add(name, (store.info("stats", "total_net_input_bytes") - sent) / KIB)
        in_memory.add(name, (store.info("memory", "used_memory") - memory) / KIB)
    stored_bytes = store.stored_bytes()
    if stored_bytes is not None:
        in_keys.add(name, stored_bytes / KIB)
    store.clear()
    return steps
