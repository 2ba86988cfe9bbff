"""Runs that have ended, until their last checkpoint can't be lost any more.

A run is settled when the watermark of its thread's shard has passed the moment at which
its last checkpoint was seen there, and the same primary still answers: whatever that
had by then is durable. If another one answers, it is looked at again. A server that
can't be told apart from another one, and one that nobody watches, have no watermark:
there a run is settled once its checkpoint is still there a minute after it was first
seen.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.keys import ThreadKeys, thread_keys
from langgraph_valkey.loss_window.window import LossWindow
from langgraph_valkey.operations import ANYONE
from langgraph_valkey.primary.records import Fence, Run
from langgraph_valkey.runs.faces import Face
from langgraph_valkey.runs.heads import Sight, sights

AGE_S = 60.0
"""How old, where there is no watermark: several times the bound by which a log lags."""

WANT_S = 3.0
"""For how long the watermark is asked for at a time; more than a keeper's round."""

SETTLE_PAGE = 200
"""Runs that are settled by one call."""

WAITING_MOST = 100_000
"""Runs that are waited for; of more, a later recovery will find that they are fine."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run that has ended.

    Attributes:
        fence, thread_id, number, head, writes: As of `Run`.
        keys: Its thread's keys.
        sight: When its last checkpoint was seen, and where.
        since_s: When that was for the first time.
    """

    fence: Fence
    thread_id: str
    number: int
    head: str
    writes: int
    keys: ThreadKeys
    sight: Sight
    since_s: float

    @property
    def run_id(self) -> str:
        """Its id."""
        return self.fence.run_id


class Settling:
    """The runs that one process waits for; safe to use from many threads.

    Args:
        window: The saver's loss window.
        prefix: What the saver's keys begin with.
        is_watched: Whether there is a monitor, so that there may be a watermark.
    """

    def __init__(self, window: LossWindow, prefix: str, *, is_watched: bool) -> None:
        self._window = window
        self._prefix = prefix
        self._is_watched = is_watched
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew: the parent settles its own."""
        self._lock = threading.Lock()
        self._waiting: dict[str, Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, run: Run, head: str, writes: int, sight: Sight) -> None:
        """A run's last checkpoint was seen in its thread."""
        keys = thread_keys(self._prefix, run.thread_id)
        what = run.fence, run.thread_id, run.number, head, writes
        seen = Waiting(*what, keys, sight, sight.seen_s)
        with self._lock:
            there = self._waiting.get(run.run_id)
            if there is not None and there.fence == seen.fence:
                return
            if len(self._waiting) < WAITING_MOST:
                self._waiting[run.run_id] = seen

    async def settle(self, face: Face) -> int:
        """Settle what can be; how many runs turned out to be lost.

        Raises:
            Unreachable, OutcomeUnknown: The registry, or a shard, can't be asked.
        """
        now_s = face.link.now()
        with self._lock:
            waiting = list(self._waiting.values())
        safe, unclear = self._sorted(waiting, now_s)
        await self._settle(face, safe)
        there = await sights(face.core, face.link, unclear)
        lost = [each for each in unclear if each.run_id not in there]
        with self._lock:
            for each in unclear:
                if self._waiting.get(each.run_id) is each:
                    del self._waiting[each.run_id]
                    if each.run_id in there:
                        again = replace(each, sight=there[each.run_id])
                        self._waiting[each.run_id] = again
        # Those that are old enough, where that is all there is to go by.
        old = [each for each in unclear if each.run_id in there and self._is_old(each, now_s)]
        await self._settle(face, old)
        return len(lost)

    def _sorted(self, waiting: list[Waiting], now_s: float) -> tuple[list[Waiting], list[Waiting]]:
        """Those that can be settled, and those that have to be looked at again."""
        safe, unclear = [], []
        vitals = self._window.vitals
        for each in waiting:
            identity = each.sight.identity
            if not each.head or vitals.has_passed(each.keys, identity, each.sight.seen_s, now_s):
                safe.append(each)
            elif self._is_old(each, now_s) or self._window.primary_of(each.keys) != identity:
                unclear.append(each)
            elif self._has_watermark(each):
                vitals.want(identity, now_s + WANT_S)
                self._be_watched()
        return safe, unclear

    def _has_watermark(self, each: Waiting) -> bool:
        return self._is_watched and each.sight.identity != ANYONE

    def _is_old(self, each: Waiting, now_s: float) -> bool:
        return not self._has_watermark(each) and now_s - each.since_s >= AGE_S

    def _be_watched(self) -> None:
        if not self._window.is_watched:
            self._window.is_watched = True
            self._window.wake()

    async def _settle(self, face: Face, safe: list[Waiting]) -> None:
        for at in range(0, len(safe), SETTLE_PAGE):
            some = safe[at : at + SETTLE_PAGE]
            await face.primary.settle_runs([each.fence for each in some])
            with self._lock:
                for each in some:
                    there = self._waiting.get(each.run_id)
                    if there is not None and there.fence == each.fence:
                        del self._waiting[each.run_id]

    @property
    def is_hopeless(self) -> bool:
        """Whether there is no point in waiting: nothing will tell, or never."""
        return not self._is_watched or self._window.is_blind or self._window.is_hopeless()
