"""Leaving the registry of runs in order.

Who says that it leaves has its runs taken over at once. So what is executed is waited
for; and where that takes too long, nothing is said, and the last sign of life runs out.
"""

from __future__ import annotations

import logging
import time

from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.keeper import Keeper
from langgraph_valkey.link import finish
from langgraph_valkey.runs.attempts import Parts
from langgraph_valkey.runs.faces import Face

_log = logging.getLogger("langgraph_valkey")

DRAIN_PAUSE_S = 0.1
"""Pause between two looks while runs are waited for, in seconds."""


def leave(parts: Parts, face: Face, keeper: Keeper, heart: Keeper, until_s: float) -> None:
    """Wait until no run is executed here and all are settled; then say that this leaves.

    From now on no run is begun here, by a recovery that is under way neither: that ends.

    Args:
        parts: Those of this process.
        face: The blocking one.
        keeper: What settles runs, and begins recoveries; this does the first itself.
        heart: What says that this process lives, until it need not any more.
        until_s: For how long to wait, by `time.monotonic`.
    """
    owner = parts.owner
    owner.turn_away()
    keeper.stop()
    try:
        _drain(parts, face, until_s)
    finally:
        # Before it is said that this leaves: a last beat would take that back.
        heart.stop()
        owner.has_left = True
    if owner.active:
        _log.warning(
            "%d runs are executed still, and others may take them over in %.0f s: let them end "
            "before close(), or give it drain_s", len(owner.active), owner.alive_s,
        )  # fmt: skip
    try:
        finish(owner.tell(face.primary))
        if not owner.is_busy:
            finish(owner.leave(face.primary))
    except LanggraphValkeyError as error:
        _log.warning("this process could not leave the registry of runs in order: %s", error)


def _drain(parts: Parts, face: Face, until_s: float) -> None:
    trouble: LanggraphValkeyError | None = None
    while time.monotonic() < until_s and _waits(parts):
        try:
            finish(parts.settling.settle(face))
            trouble = None
        except LanggraphValkeyError as error:
            # A shard is away, say: what has ended is left, what is executed waited for.
            trouble = error
            if not parts.owner.is_busy:
                break
        if _waits(parts):
            time.sleep(DRAIN_PAUSE_S)
    if trouble is not None:
        _log.warning("not all runs could be settled, and that is left to others: %s", trouble)


def _waits(parts: Parts) -> bool:
    settling = parts.settling
    return parts.owner.is_busy or (len(settling) > 0 and not settling.is_hopeless)
