"""Threads that are gone because they were meant to go: deleted for good, or expired.

Such a thread looks as if it had been lost. But executing its last turn again would bring
back what somebody wanted gone, or what nobody has asked for since it ended.
"""

from __future__ import annotations

import time

from langgraph.checkpoint.base import CheckpointTuple

from langgraph_valkey.primary.records import Run
from langgraph_valkey.runs.faces import Face
from langgraph_valkey.runs.rerun import checkpoint_id_of

RUNS_MOST = 1_000
"""Later runs of a thread that may have put its expiry off: those of a day, of a busy one."""


async def is_deleted(face: Face, run: Run) -> bool:
    """Whether a run's thread was deleted for good since the run was recorded."""
    grave = await face.primary.tombstone(run.thread_id)
    return grave is not None and grave.buried_s >= run.started_s


async def has_expired(face: Face, run: Run, found: CheckpointTuple | None) -> bool:
    """Whether a run has ended so long ago that its thread has expired, as was asked for.

    That goes by the clocks of this machine and of the primary store, so these must not be
    apart by anything like ``ttl_s``.

    Args:
        face: Over which.
        run: The run.
        found: The thread's head. If it is older than the run's, it came from the tier.
    """
    if face.ttl_s is None or run.ended_s is None:
        return False
    if found is not None and checkpoint_id_of(found) > run.head:
        return False
    now_s = time.time()
    until_s = run.ended_s + face.ttl_s
    if now_s < until_s:
        return False
    for later in await face.primary.unsettled_runs(thread_id=run.thread_id, limit=RUNS_MOST):
        if later.number > run.number and later.started_s < until_s:
            ended_s = now_s if later.ended_s is None else later.ended_s
            until_s = max(until_s, ended_s + face.ttl_s)
    return now_s >= until_s
