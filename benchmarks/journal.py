"""The journal: what it costs a put, what it holds in memory, how fast it is replayed.

A put takes some hundred microseconds and never the same, so two microseconds of it
show only in many pairs: savers with and without a journal put the same steps in
turns, one put at a time, in every order, and medians of the pairs' differences are
taken. Beside them stands what the journal takes by itself: timed in its place within
those puts, where caches are cold after a round trip, and warm, the very calls of a
real run fed to a loss window alone (`tapes`).
"""

from __future__ import annotations

import gc
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import hasty, journal_memory, journal_replay, tapes
from benchmarks.contenders import OURS
from benchmarks.faces import FACES, Contender, FaceName, Opened
from benchmarks.figures import Figure, Goal
from benchmarks.session import Session
from benchmarks.steps import SIZES_KIB
from benchmarks.tapes import Tape
from benchmarks.workloads import KIB, Step, build_steps, growing_list, thread
from langgraph_valkey import limits
from langgraph_valkey.loss_window.spool import Spool

WITHOUT, WITH_SPOOL = "without a journal", "with a spool, too"
IN_MEMORY, ON_DISK = Goal(2, "nothing"), Goal(40, "nothing")
GOALS = {
    "put": IN_MEMORY,
    "put, spooled, mean": ON_DISK,
    "put, spooled, median": ON_DISK,
}
STEPS, WARM_UP_STEPS = 100, 10
ROUNDS, ROUNDS_QUICK = 11, 2
TAPE_THREADS = 3
"""Few, so that what is played stays in the processor's caches: warm is what is meant."""
REPEATS, REPEATS_QUICK = 21, 5


def measure(session: Session) -> list[Figure]:
    """Puts in turns, and the journal alone; its memory; replays."""
    return [
        _puts(session),
        _alone(session),
        journal_memory.measure(session),
        journal_replay.measure(session),
    ]


@contextmanager
def _no_gc() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _spool_folder(session: Session) -> Path:
    """A new one: what one process leaves in a spool the next would take over."""
    return Path(tempfile.mkdtemp(prefix="spool-", dir=session.servers.folder))


# --- in turns with a saver that keeps none -------------------------------------------


def _puts(session: Session) -> Figure:
    figure = Figure("journal-puts", "A put with the journal and without, us")
    figure.notes += [
        f"With async durability, so that all is kept. '{WITHOUT}' (replay=False) stands as the "
        "floor. A difference is the median of those between two puts of the same step.",
        "'within the put' is the difference of what the loss window took, timed there: more than "
        "puts differ by where the client's threads have work to do meanwhile.",
    ]
    for face in FACES:
        with session.opened(_line_up(session, face), figure) as opened:
            for size_kib in SIZES_KIB:
                _one_size(session, figure, opened, face, size_kib)
    return figure


def _line_up(session: Session, face: FaceName) -> list[Contender]:
    store = session.servers.valkey(cluster=True)
    spool_dir = _spool_folder(session)
    return [
        hasty.ours(OURS, "ours", face, store, store.url),
        hasty.ours(WITHOUT, "floor", face, store, store.url, replay=False),
        hasty.ours(WITH_SPOOL, "reference", face, store, store.url, spool_dir=spool_dir),
    ]


def _one_size(
    session: Session, figure: Figure, opened: Sequence[Opened], face: FaceName, size_kib: int
) -> None:
    items = growing_list("messages", size_kib * KIB, STEPS, session.seed)
    rounds = ROUNDS_QUICK if session.quick else ROUNDS
    name = f"{size_kib} KiB, {face}"
    puts = figure.case(f"put, {name}", "us")
    for turn in range(rounds):
        session.progress(f"{figure.name}: {name}, round {turn + 1}/{rounds}")
        steps = [build_steps(items, who.steps.get_next_version) for who in opened]
        names = [session.new_thread() for _ in opened]
        opened[0].contender.store.clear()
        with _no_gc():
            spent_us, within_us = opened[0].run(_in_turns(opened, steps, names))
        for who, each in zip(opened, spent_us, strict=True):
            puts.add(who.contender.name, statistics.median(each))
        ours, without, with_spool = zip(spent_us, within_us, strict=True)
        for where, kept, goal in (("in memory", ours, IN_MEMORY), ("spooled", with_spool, ON_DISK)):
            difference = figure.case(f"difference, {name}, {where}", "us", goal)
            difference.add(OURS, _difference(kept[0], without[0]))
            within = figure.case(f"within the put, {name}, {where}", "us")
            within.add(OURS, _difference(kept[1], without[1]))


async def _in_turns(
    opened: Sequence[Opened], steps: Sequence[Sequence[Step]], names: Sequence[str]
) -> tuple[list[list[float]], list[list[float]]]:
    """For each contender the time of its puts, and of the journal within them, in us.

    Without those of the warm-up.
    """
    puts = [who.calls.put for who in opened]
    configs = [thread(name) for name in names]
    spent_us: list[list[float]] = [[] for _ in opened]
    within_us: list[list[float]] = [[] for _ in opened]
    orders = itertools.cycle(itertools.permutations(range(len(opened))))
    with tapes.timed() as clock:
        for number, order in zip(range(len(steps[0])), orders, strict=False):
            for at in order:
                put, config, step = puts[at], configs[at], steps[at][number]
                started = time.perf_counter()
                configs[at] = await put(config, step.checkpoint, step.metadata, step.new_versions)
                spent_us[at].append((time.perf_counter() - started) * 1e6)
                within_us[at].append(clock.last_s * 1e6)
    return [each[WARM_UP_STEPS:] for each in spent_us], [each[WARM_UP_STEPS:] for each in within_us]


def _difference(one: Sequence[float], other: Sequence[float]) -> float:
    return statistics.median(a - b for a, b in zip(one, other, strict=True))


# --- the journal alone ----------------------------------------------------------------


def _alone(session: Session) -> Figure:
    figure = Figure("journal-warm", "What the journal takes by itself, warm, us a call")
    figure.notes.append(
        "The calls of a real run, fed to a loss window that keeps a journal, less the same fed "
        "to one that keeps none. The mean includes what the disk takes now and then. What is "
        "durable is dropped by the monitor, beside the calls."
    )
    repeats = REPEATS_QUICK if session.quick else REPEATS
    store = session.servers.valkey(cluster=True)
    own = hasty.ours(OURS, "ours", "sync", store, store.url)
    other = hasty.ours(OURS, "ours", "sync", store, store.url)
    with session.opened([own, other], figure) as (writer, reader):
        for size_kib in SIZES_KIB:
            session.progress(f"{figure.name}: {size_kib} KiB")
            written, read = _recorded(session, writer, reader, size_kib)
            for repeat in range(repeats + 1):
                with _no_gc():
                    found = _played(session, written, read)
                for what, value_us in found.items():
                    case = figure.case(f"{what}, {size_kib} KiB", "us", GOALS.get(what))
                    if repeat:  # The first warms up.
                        case.add(OURS, value_us)
    return figure


def _recorded(session: Session, writer: Opened, reader: Opened, size_kib: int) -> tuple[Tape, Tape]:
    """A process that puts and reads back; another that reads the same checkpoints."""
    items = growing_list("messages", size_kib * KIB, STEPS, session.seed)
    configs = []
    with tapes.record() as written:
        for _ in range(TAPE_THREADS):
            config = thread(session.new_thread())
            for step in build_steps(items, writer.steps.get_next_version):
                config = writer.saver.put(config, step.checkpoint, step.metadata, step.new_versions)
                writer.saver.get_tuple(config)
                configs.append(config)
    with tapes.record() as read:
        for config in configs:
            reader.saver.get_tuple(config)
    return written, read


def _played(session: Session, written: Tape, read: Tape) -> dict[str, float]:
    """What the journal takes for each call, in us."""
    puts, reads = len(written.sent), len(read.noted)
    none, kept, foreign = (tapes.window(written, keeps=keeps) for keeps in (False, True, True))
    spool = Spool(_spool_folder(session), bytes_max=limits.SPOOL_BYTES_MAX)
    spooled = tapes.window(written, spool=spool)
    without_s = tapes.play(written, none)
    without_reads_s = tapes.play_reads(read, none)
    on_disk_s = tapes.play_each(written, spooled)
    found_s = {
        "put": (tapes.play(written, kept) - without_s) / puts,
        "put, spooled, mean": statistics.mean(on_disk_s) - without_s / puts,
        "put, spooled, median": statistics.median(on_disk_s) - without_s / puts,
        "reading its own": (tapes.play_reads(written, kept) - without_reads_s) / reads,
        "reading another's": (tapes.play_reads(read, foreign) - without_reads_s) / reads,
        "dropping a put": tapes.play_trim(kept) / puts,
    }
    tapes.play_trim(spooled)
    spool.close()
    return {what: value_s * 1e6 for what, value_s in found_s.items()}
