"""What the journal holds in memory: 21 s of writing, of a state that grows.

An entry is kept for two lag bounds and a bit, so what matters is how much a process
writes in 21 s: 200 puts a second here. They are put as fast as they go, and none is
trimmed meanwhile. Python's own count of its allocations, with a journal less that
without, stands beside the journal's.
"""

from __future__ import annotations

import gc
import itertools
import random
import tracemalloc
from collections.abc import Iterator, Sequence

from benchmarks import hasty
from benchmarks.contenders import OURS
from benchmarks.faces import Opened
from benchmarks.figures import Figure, Goal
from benchmarks.session import Session
from benchmarks.workloads import KIB, Step, build_steps, item, text, thread, vocabulary

PUTS = 200 * 21
THREADS = (200, 20)
FIRST_KIB = 20
LAG_BOUND_S = 300.0
"""Long enough that nothing becomes durable meanwhile."""
MB = 1e6
GOAL = Goal(20, "nothing")


def measure(session: Session) -> Figure:
    """Over many threads, and over few."""
    figure = Figure("journal-memory", f"Memory of the journal after {PUTS:,} puts, MB")
    figure.notes.append(
        f"Messages, {FIRST_KIB} KiB at first and 1 KiB more with each step of a thread: what "
        "200 puts a second come to in the 21 s after which the first is known to be durable."
    )
    for threads in THREADS:
        kept, traced_kept = _one(session, figure, threads, replay=True)
        _, traced_none = _one(session, figure, threads, replay=False)
        name = f"{threads} threads"
        figure.case(f"as it counts, {name}", "MB", GOAL).add(OURS, kept)
        figure.case(f"as Python counts, {name}", "MB", GOAL).add(OURS, traced_kept - traced_none)
    return figure


def _one(session: Session, figure: Figure, threads: int, *, replay: bool) -> tuple[float, float]:
    """MB in the journal, and MB that Python has allocated more at the end."""
    session.progress(f"{figure.name}: {threads} threads, {replay=}")
    store = session.servers.valkey(cluster=True)
    contender = hasty.ours(
        OURS, "ours", "sync", store, store.url, lag_bound_s=LAG_BOUND_S, replay=replay
    )
    with session.opened([contender], figure) as [who]:
        who.saver.setup()
        steps = [_steps(session, who, seed, PUTS // threads) for seed in range(threads)]
        gc.collect()
        tracemalloc.start()
        try:
            _put_all(session, who, steps)
            gc.collect()
            traced, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        return who.saver.health().journal_bytes / MB, traced / MB


def _steps(session: Session, who: Opened, seed: int, count: int) -> Sequence[Step]:
    rng = random.Random(f"{session.seed}/{seed}")
    words = vocabulary(rng)
    items = [
        item("messages", rng, number, text(rng, words, KIB))
        for number in range(FIRST_KIB - 1 + count)
    ]
    return build_steps(items, who.steps.get_next_version)[FIRST_KIB - 1 :]


def _put_all(session: Session, who: Opened, steps: Sequence[Sequence[Step]]) -> None:
    """All threads, each a step further in turns."""
    configs = [thread(session.new_thread()) for _ in steps]
    together: Iterator[tuple[Step, ...]] = zip(*steps, strict=True)
    for at, step in itertools.chain.from_iterable(map(enumerate, together)):
        configs[at] = who.saver.put(configs[at], step.checkpoint, step.metadata, step.new_versions)
