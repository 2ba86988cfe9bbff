"""Ending runs that nobody wants any more."""

from __future__ import annotations

from langgraph_valkey.errors import RunInProgress
from langgraph_valkey.primary.records import Run, RunEnd
from langgraph_valkey.runs.attempts import Parts
from langgraph_valkey.runs.faces import Face

MOST = 1_000
"""Runs of a thread that are cancelled by one call."""


async def cancel(parts: Parts, face: Face, run_id: str) -> bool:
    """End a run; see `Runs.cancel`."""
    run = await face.primary.run(run_id)
    if run is None or run.state == "settled":
        return False
    return await _cancel(parts, face, run)


async def forget_thread(parts: Parts, face: Face, thread_id: str) -> int:
    """End all unsettled runs of a thread; see `Runs.forget_thread`."""
    runs = await face.primary.unsettled_runs(thread_id=thread_id, limit=MOST)
    return sum([await _cancel(parts, face, run) for run in runs])


async def _cancel(parts: Parts, face: Face, run: Run) -> bool:
    if run.state == "running":
        await parts.owner.live(face.primary)
        # A new attempt, so that one which is under way can commit nothing more.
        taken = await face.primary.claim_run(run.fence, parts.owner.id)
        if taken is None:
            raise RunInProgress(
                f"run {run.run_id!r} is executed by another process: cancel it there, or wait "
                "until it has ended",
                thread_id=run.thread_id,
                run_id=run.run_id,
            )
        run = taken
    return await face.primary.end_run(run.fence, RunEnd("cancelled", run.head, run.writes))
