"""How long a replay takes: all that a process has journaled, onto a cluster.

On a cluster of three shards, as after a failover, but of all shards: once with all
entries still there, so that it is a matter of asking, and once with none.
"""

from __future__ import annotations

import gc
import time

from benchmarks import hasty
from benchmarks.contenders import OURS
from benchmarks.faces import FACES, Opened
from benchmarks.figures import Figure
from benchmarks.servers import NoStore
from benchmarks.session import Session
from benchmarks.storage import write_all
from benchmarks.workloads import KIB, build_steps, growing_list
from langgraph_valkey.local import LocalCluster
from langgraph_valkey.loss_window.report import RecoveryReport

SHARDS, THREADS, STEPS, AVERAGE_KIB = 3, 24, 50, 20
ENTRIES = THREADS * STEPS * 2
ROUNDS, ROUNDS_QUICK = 11, 3
LAG_BOUND_S = 300.0
"""Long enough that nothing becomes durable meanwhile."""


def measure(session: Session) -> Figure:
    """Both faces."""
    figure = Figure("journal-replay", f"Replay of {ENTRIES:,} entries of {THREADS} threads, ms")
    figure.notes.append(
        f"A put and a put_writes in turns, messages at an average of {AVERAGE_KIB} KiB, "
        f"onto a cluster of {SHARDS} shards with a replica each."
    )
    with LocalCluster(SHARDS) as cluster:
        for face in FACES:
            contender = hasty.ours(
                OURS, "ours", face, NoStore(), cluster.url, lag_bound_s=LAG_BOUND_S
            )
            with session.opened([contender], figure) as [who], hasty.quiet():
                _one_face(session, figure, who, cluster)
    return figure


def _one_face(session: Session, figure: Figure, who: Opened, cluster: LocalCluster) -> None:
    items = growing_list("messages", AVERAGE_KIB * KIB, STEPS, session.seed)
    for _ in range(THREADS):
        steps = build_steps(items, who.steps.get_next_version)
        who.run(write_all(who, steps, session.new_thread()))
    rounds = ROUNDS_QUICK if session.quick else ROUNDS
    face = who.contender.face
    for turn in range(rounds):
        session.progress(f"{figure.name}: {face}, round {turn + 1}/{rounds}")
        there_ms, report = _replayed(who)
        assert report.already_there == ENTRIES, report
        for shard in range(SHARDS):
            cluster.primary(shard).command("FLUSHDB", "SYNC")
        lost_ms, report = _replayed(who)
        assert report.replayed == ENTRIES, report
        figure.case(f"nothing was lost, {face}", "ms").add(OURS, there_ms)
        figure.case(f"all was lost, {face}", "ms").add(OURS, lost_ms)


def _replayed(who: Opened) -> tuple[float, RecoveryReport]:
    """Replay everything; in ms."""
    saver = who.saver
    gc.collect()
    started = time.perf_counter()
    found = who.run(saver.arecover()) if who.contender.face == "async" else saver.recover()
    return (time.perf_counter() - started) * 1e3, found
