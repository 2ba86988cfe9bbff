"""Finding the runs that nobody will bring to their end, and doing it.

Most are fine: they have ended, and their last checkpoint is in their thread. Those are
told by looking at many threads at once. The others are taken one by one, those of a
thread in their order, several threads side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from langgraph_valkey.attempts import Parts
from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.faces import Face
from langgraph_valkey.graphs import Known
from langgraph_valkey.heads import sights
from langgraph_valkey.primary.records import Run
from langgraph_valkey.redoing import BUSY, FINE, Verdict, redo
from langgraph_valkey.run_report import RunsReport, RunTrouble

PAGE = 500
"""Runs that are read from the registry at once, with their inputs."""

AT_ONCE = 8
"""Threads whose runs are executed again side by side."""

_BEHIND = Verdict("left", "an older run of its thread could not be executed again")


@dataclass(slots=True)
class _Found:
    """Verdicts so far."""

    of: list[tuple[str, str, Verdict]] = field(default_factory=list)

    def add(self, run: Run, verdict: Verdict) -> None:
        # Of the run no more than this: there may be many, with large inputs.
        self.of.append((run.run_id, run.thread_id, verdict))

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
        page = await face.primary.unsettled_runs(after=after, limit=PAGE)
        await _look_after(parts, face, given, page, found)
        if len(page) < PAGE:
            return found.report(face.link.now() - started_s)
        after = page[-1].started_s, page[-1].run_id


async def _look_after(
    parts: Parts, face: Face, given: Mapping[str, Known], page: Sequence[Run], found: _Found
) -> None:
    active = set(parts.owner.active)
    mine: list[Run] = []
    for run in page:
        is_others = run.owner_alive and run.owner != parts.owner.id
        if is_others or run.run_id in active:
            found.add(run, BUSY)
        else:
            mine.append(run)
    ended = [run for run in mine if run.state == "ended"]
    there = await sights(face.core, face.link, ended)
    threads: dict[str, list[Run]] = {}
    for run in mine:
        if run.run_id in there:
            parts.settling.add(run, run.head, run.writes, there[run.run_id])
            found.add(run, FINE)
        else:
            threads.setdefault(run.thread_id, []).append(run)
    jobs = [partial(_thread, parts, face, given, runs) for runs in threads.values()]
    for runs, verdicts in zip(
        threads.values(), await face.side_by_side(jobs, AT_ONCE), strict=True
    ):
        for run, verdict in zip(runs, verdicts, strict=True):
            found.add(run, verdict)


async def _thread(
    parts: Parts, face: Face, given: Mapping[str, Known], runs: Sequence[Run]
) -> list[Verdict]:
    """Bring the runs of one thread to their ends, in their order."""
    verdicts: list[Verdict] = []
    for run in sorted(runs, key=lambda each: each.number):
        if verdicts and verdicts[-1].kind in ("left", "unknown", "busy"):
            verdicts.append(_BEHIND if verdicts[-1].kind != "busy" else BUSY)
            continue
        try:
            known = parts.graphs.find(run.graph, given)
            verdicts.append(await redo(parts, face, run, known))
        except LanggraphValkeyError as error:
            verdicts.append(Verdict("left", f"it can't be judged now: {error}", error))
    return verdicts
