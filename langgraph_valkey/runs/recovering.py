"""Finding the runs that nobody will bring to their end, and doing it.

Most are fine: they have ended, and their last checkpoint is in their thread. Those are
told by looking at many threads at once. The others are taken one by one, those of a
thread in their order, several threads side by side.

Where a run of a thread has to be left, so have those after it: executed on a thread
without it, they would keep it from ever being executed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial

from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.primary.records import Run
from langgraph_valkey.runs.attempts import Parts
from langgraph_valkey.runs.faces import Face
from langgraph_valkey.runs.graphs import Known
from langgraph_valkey.runs.heads import sights
from langgraph_valkey.runs.redoing import BUSY, FINE, Verdict, redo
from langgraph_valkey.runs.report import RunsReport, RunTrouble

PAGE = 500
"""Runs that are read from the registry at once, with their inputs."""

AT_ONCE = 8
"""Threads whose runs are executed again side by side."""

_BEHIND = Verdict("left", "an older run of its thread could not be executed again")


@dataclass(slots=True)
class _Found:
    """Verdicts so far."""

    of: list[tuple[str, str, Verdict]] = field(default_factory=list)
    stuck: dict[str, Verdict] = field(default_factory=dict)

    def add(self, run: Run, verdict: Verdict, following: Verdict | None = None) -> None:
        # Of the run no more than this: there may be many, with large inputs.
        self.of.append((run.run_id, run.thread_id, verdict))
        if following is not None:
            self.stuck.setdefault(run.thread_id, following)

    def report(self, duration_s: float) -> RunsReport:
        def ids(*kinds: str) -> tuple[str, ...]:
            return tuple(run_id for run_id, _, verdict in self.of if verdict.kind in kinds)

        def troubles(*kinds: str) -> tuple[RunTrouble, ...]:
            return tuple(
                RunTrouble(run_id, thread_id, verdict.why, verdict.error)
                for run_id, thread_id, verdict in self.of
                if verdict.kind in kinds
            )

        return RunsReport(
            fine=ids("fine"),
            rerun=ids("rerun"),
            conflicts=troubles("conflict"),
            failed=troubles("failed", "left"),
            busy=ids("busy"),
            unknown_graphs=troubles("unknown"),
            deleted=ids("deleted"),
            duration_s=duration_s,
        )


async def recover_runs(parts: Parts, face: Face, given: Mapping[str, Known]) -> RunsReport:
    """Look after all runs that are not settled; see `Runs.recover`.

    Args:
        parts: Those of this process.
        face: Over which.
        given: Graphs, beside those that are registered.

    Raises:
        Unreachable, OutcomeUnknown: The registry, or a shard, can't be asked now.
    """
    started_s = face.link.now()
    found = _Found()
    after: tuple[float, str] | None = None
    while True:
        # Asked for before the page: what ends in between is looked at in vain, no more.
        active = parts.owner.active
        page = await face.primary.unsettled_runs(after=after, limit=PAGE)
        busy = {
            run.run_id
            for run in page
            if run.run_id in active or (run.owner_alive and run.owner != parts.owner.id)
        }
        await _look_after(parts, face, given, page, busy, found)
        if len(page) < PAGE or parts.owner.is_leaving:
            return found.report(face.link.now() - started_s)
        after = page[-1].started_s, page[-1].run_id


async def _look_after(
    parts: Parts,
    face: Face,
    given: Mapping[str, Known],
    page: Sequence[Run],
    busy: Set[str],
    found: _Found,
) -> None:
    there = await sights(face.core, face.link, [run for run in page if run.state == "ended"])
    threads: dict[str, list[Run]] = {}
    for run in page:
        if run.run_id not in there:
            threads.setdefault(run.thread_id, []).append(run)
        elif run.run_id in busy:
            found.add(run, BUSY)
        else:
            parts.settling.add(run, run.head, run.writes, there[run.run_id])
            found.add(run, FINE)
    jobs = [
        partial(_thread, parts, face, given, runs, busy, found.stuck.get(thread_id))
        for thread_id, runs in threads.items()
    ]
    for verdicts in await face.side_by_side(jobs, AT_ONCE):
        for run, verdict in verdicts:
            found.add(run, verdict, _following(verdict))


async def _thread(
    parts: Parts,
    face: Face,
    given: Mapping[str, Known],
    runs: Sequence[Run],
    busy: Set[str],
    stuck: Verdict | None,
) -> list[tuple[Run, Verdict]]:
    """Bring the runs of one thread to their ends, in their order.

    Args:
        parts: Those of this process.
        face: Over which.
        given: Graphs, beside those that are registered.
        runs: Those that have to be looked at.
        busy: Which of them are somebody else's.
        stuck: What all that follow are, after one that had to be left before.
    """
    verdicts: list[tuple[Run, Verdict]] = []
    for run in sorted(runs, key=lambda each: each.number):
        if stuck is None or run.run_id in busy:
            verdict = BUSY if run.run_id in busy else await _run(parts, face, given, run)
        else:
            verdict = stuck
        verdicts.append((run, verdict))
        stuck = stuck or _following(verdict)
    return verdicts


async def _run(parts: Parts, face: Face, given: Mapping[str, Known], run: Run) -> Verdict:
    try:
        return await redo(parts, face, run, parts.graphs.find(run.graph, given))
    except LanggraphValkeyError as error:
        return Verdict("left", f"it can't be judged now: {error}", error)


def _following(verdict: Verdict) -> Verdict | None:
    """What runs are that follow one with this verdict; None if they can be executed."""
    if verdict.kind == "busy":
        return BUSY
    return _BEHIND if verdict.kind in ("left", "unknown") else None
