"""Looking at many threads at once: which checkpoints are there, and nothing else of them.

That a checkpoint is there by its id does not say that its thread stands on it: after a
failover it may be on a side line, beside a head that went back behind it. Runs of a
thread begin only on what is whole, so it does if the head is of a later run.

The answers are held to what reads are held to (see `recovering.not_yet`): after a
failover a thread is replayed before it is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from langgraph_valkey import listing, operations
from langgraph_valkey.checkpoints import Checkpoints
from langgraph_valkey.errors import (
    LanggraphValkeyError,
    OutcomeUnknown,
    Unreachable,
    WriteRejected,
)
from langgraph_valkey.keys import to_text
from langgraph_valkey.link import Call, Link
from langgraph_valkey.loss_window.recovering import not_yet
from langgraph_valkey.operations import ANYONE, Answer, Status
from langgraph_valkey.place import Place, place_of_thread
from langgraph_valkey.stored import writes
from langgraph_valkey.stored.codec import Damaged

TOGETHER = 250
"""Threads that are asked for at once: GLIDE takes 1,000 requests in flight."""

_OUTAGES = (Unreachable, WriteRejected, OutcomeUnknown)


class Ended(Protocol):
    """A run that has ended: its attributes are as of `Run`."""

    @property
    def run_id(self) -> str:
        """Its id."""
        ...

    @property
    def thread_id(self) -> str:
        """Its thread."""
        ...

    @property
    def number(self) -> int:
        """Its number in the thread."""
        ...

    @property
    def head(self) -> str:
        """The thread's last checkpoint when it had ended."""
        ...

    @property
    def writes(self) -> int:
        """How many pending writes stood on that."""
        ...


class Sight(NamedTuple):
    """That a run's last checkpoint was seen in its thread.

    Attributes:
        identity: The primary that has it; `ANYONE` if the server hides that.
        seen_s: When it was seen, by the link's clock.
    """

    identity: bytes
    seen_s: float


async def sights(core: Checkpoints, link: Link, runs: Sequence[Ended]) -> dict[str, Sight]:
    """Look for the last checkpoints of runs that have ended.

    Args:
        core: The saver's.
        link: Over which.
        runs: The runs.

    Returns:
        Those that are there for sure, by run id: with at least as many pending writes
        as there were, or with another one of `runs` built upon it. The others may be
        there all the same (in a tier, say, or below one that is not among `runs`).

    Raises:
        Unreachable: A shard can't be asked.
    """
    found: dict[str, Sight] = {}
    numbers = {(run.thread_id, run.head): run.number for run in runs}
    for at in range(0, len(runs), TOGETHER):
        some = runs[at : at + TOGETHER]
        heads = await _ask(core, link, [(run, _head(core, run)) for run in some])
        others = []
        for run, answer, seen_s in heads:
            head, pending = _read(core, answer)
            if head == run.head and pending >= run.writes:
                found[run.run_id] = Sight(answer.identity or ANYONE, seen_s)
            elif head != run.head and numbers.get((run.thread_id, head), 0) > run.number:
                others.append((run, _only(core, run)))
        for run, answer, seen_s in await _ask(core, link, others):
            if answer.status is Status.OK and answer.rest[4]:
                found[run.run_id] = Sight(answer.identity or ANYONE, seen_s)
    return found


def _head(core: Checkpoints, run: Ended) -> tuple[Place, Call]:
    place = place_of_thread(core.prefix, run.thread_id, "")
    return place, operations.history(place.keys, "", "", limit=1)


def _only(core: Checkpoints, run: Ended) -> tuple[Place, Call]:
    place = place_of_thread(core.prefix, run.thread_id, "", run.head)
    return place, operations.page(place.keys, "ids", namespace="", only=run.head, limit=1)


def _read(core: Checkpoints, answer: Answer) -> tuple[str, int]:
    """Id of the head, and how many pending writes stand on it; "" if it can't be told."""
    if answer.status is not Status.OK or not answer.rest[1]:
        return "", 0
    _, items, stored, _ = answer.rest
    raw_id, _, entries = listing.grouped(items, 3)[0]
    try:
        return to_text(raw_id), len(writes.merge(core.codec, entries, stored))
    except Damaged:
        return "", 0  # Whoever reads the thread will say so.


async def _ask(
    core: Checkpoints, link: Link, asked: Sequence[tuple[Ended, tuple[Place, Call]]]
) -> list[tuple[Ended, Answer, float]]:
    """The answers that can be had."""
    if not asked:
        return []
    known = [core.known.standing(place.thread) for _, (place, _) in asked]
    sent_s = link.now()
    try:
        replies = await link.send([call for _, (_, call) in asked])
    except _OUTAGES:
        raise
    except LanggraphValkeyError:  # One of them is no thread; the others are asked alone.
        replies = [None] * len(asked)
    found = []
    for (run, (place, call)), reply, standing in zip(asked, replies, known, strict=True):
        try:
            answer = operations.read(reply) if reply is not None else None
            where = core.window, link, place.thread, place.keys
            if answer is None or await not_yet(*where, answer, standing, 0, sent_s):
                answer = await core.read(link, place, call)
        except _OUTAGES:
            raise
        except LanggraphValkeyError:
            continue
        found.append((run, answer, link.now()))
    return found
