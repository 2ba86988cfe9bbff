"""What a saver has open: its links, its loss window, and how both are left.

Leaving is part of the promise. Until what this process wrote is durable, only this
process can bring it back after a failover; one that just went away would lose it
like one that crashed. So closing waits for the watermark, or leaves the journal in
the spool, and says what it could not wait for.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence

import anyio
import anyio.to_thread

from langgraph_valkey import limits
from langgraph_valkey.aws import ElastiCache
from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.glide.link import BlockingLink, LoopLink
from langgraph_valkey.keys import slot_of
from langgraph_valkey.link import Call, Link, finish
from langgraph_valkey.loss_window.durability import Rule
from langgraph_valkey.loss_window.replay import Replay, ThreadReplay
from langgraph_valkey.loss_window.report import Hooks
from langgraph_valkey.loss_window.spool import Spool
from langgraph_valkey.loss_window.tending import adopt, drain
from langgraph_valkey.loss_window.window import LossWindow
from langgraph_valkey.monitor import monitor
from langgraph_valkey.retry import Retrying
from langgraph_valkey.settings import Settings

_log = logging.getLogger("langgraph_valkey")


class Session:
    """The links of both faces, and the loss window they share.

    Args:
        settings: Where the server is, and what is kept for replay.
        hooks: Who is told of failovers.
        link: A link that never suspends, for both faces, instead of real ones.
        name: What keeps its keys, and its spool, apart from a saver's; '' for a saver.
        replays: How what is journaled is replayed.

    Attributes:
        prefix: What all keys begin with.
        blocking: The link of the blocking face.
        loops: The link of the async face.
        window: The loss window.
        calls: Counts the calls under way.
    """

    def __init__(
        self,
        settings: Settings,
        hooks: Hooks | None,
        link: Link | None,
        *,
        name: str = "",
        replays: type[Replay] = ThreadReplay,
    ) -> None:
        self.settings = settings
        self.prefix = f"{settings.key_prefix}:{name}" if name else settings.key_prefix
        self.window = _window_of(settings, hooks, self.prefix, name, replays)
        self.calls = CallsUnderWay()
        self._raw: BlockingLink | None = None
        self._links: tuple[BlockingLink | LoopLink, ...] = ()
        if link is not None:
            self.blocking = self.loops = link
            return
        self._raw = BlockingLink(settings)
        loops = LoopLink(settings, self._raw)
        self._links = (loops, self._raw)
        note = _note_failures(self.window)
        self.blocking = Retrying(self._raw, settings, note=note)
        self.loops = Retrying(loops, settings, note=note)
        self.window.wake = _wake(self.window, settings, _aws_of(settings))
        adopt(self.window)  # Before the first read, which may be of such a thread.
        if not self.window.is_durable():
            self.window.wake()

    def close(self, drain_s: float | None) -> None:
        """Close it all; see `ValkeySaver.close`."""
        until_s = self._until_s(drain_s)
        while self.calls.count and time.monotonic() < until_s:
            time.sleep(limits.DRAIN_POLL_S)
        self._leave(until_s)

    async def aclose(self, drain_s: float | None) -> None:
        """Close it all, while other tasks run; see `ValkeySaver.aclose`."""
        until_s = self._until_s(drain_s)
        while self.calls.count and time.monotonic() < until_s:
            await anyio.sleep(limits.DRAIN_POLL_S)
        await anyio.to_thread.run_sync(self._leave, until_s)

    def _until_s(self, drain_s: float | None) -> float:
        if drain_s is None:
            drain_s = limits.CLOSE_DRAIN_BOUNDS * self.settings.lag_bound_s
        return time.monotonic() + drain_s

    def _leave(self, until_s: float) -> None:
        if self._raw is None or self._raw.is_closed:
            return
        try:
            drained = finish(drain(self.window, self._raw, until_s, limits.CLOSE_UNREACHABLE_S))
            if not drained:
                self._say_what_is_left()
        finally:
            monitor.leave(self.window)
            if self.window.spool is not None:
                self.window.spool.close()
            for link in self._links:
                link.close()

    def _say_what_is_left(self) -> None:
        left = self.window.vitals.health(time.monotonic()).journal_entries
        if self.window.spool is not None:
            _log.info("%d writes were not durable yet at the end; the spool keeps them", left)
            return
        if self.window.is_blind:
            _log.warning(
                "whether the last %d writes are durable is not known, since the server hides both "
                "INFO and its node id from this user: allow one of them, or set spool_dir", left
            )  # fmt: skip
        else:
            _log.warning(
                "%d writes were not durable yet at the end, and nobody can replay them if the "
                "server fails over now: give close() more time, or set spool_dir", left
            )  # fmt: skip
        self.window.recoveries.tell_uncovered(left)


def _window_of(
    settings: Settings, hooks: Hooks | None, prefix: str, name: str, replays: type[Replay]
) -> LossWindow:
    spool = None
    rule = Rule(settings.durability, settings.lag_bound_s, keeps=settings.replay)
    if settings.spool_dir is not None and settings.replay:
        spool = Spool(settings.spool_dir / name, bytes_max=settings.spool_bytes_max)
    return LossWindow(
        prefix,
        rule,
        bytes_max=settings.journal_bytes_max,
        grace_s=settings.replay_grace_s if settings.replay else 0.0,
        raises_forks=settings.on_fork == "raise",
        hooks=hooks,
        spool=spool,
        replays=replays,
    )


def _note_failures(window: LossWindow) -> Callable[[Sequence[Call], Exception], None]:
    def note(calls: Sequence[Call], failure: Exception) -> None:
        for slot in {slot_of(call.keys[0]) for call in calls}:
            window.failed(slot, failure, time.monotonic())

    return note


def _wake(window: LossWindow, settings: Settings, aws: ElastiCache | None) -> Callable[[], None]:
    """How a window calls the monitor; without a cycle, so that it can be collected."""
    itself = weakref.ref(window)

    def wake() -> None:
        window = itself()
        if window is not None and settings.replay:
            monitor.watch(window, settings, aws)

    return wake


def _aws_of(settings: Settings) -> ElastiCache | None:
    """Who tells how durable the cluster is, made at once: a call is no time for set-up errors."""
    if settings.aws_replication_group is None or not settings.replay:
        return None
    return ElastiCache(settings.aws_replication_group, region=settings.aws_region)


class CallsUnderWay:
    """Counts the calls that have begun and not ended."""

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew: calls of the parent's threads don't end here."""
        self.count = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.count -= 1
