"""The monitor: one daemon thread a process that looks after all loss windows.

It does what can't wait for the next call: finds out that a shard was failed over
while nobody wrote to it, replays what was lost, writes to idle shards so that
watermarks move on, and trims journals. Each window has a connection of its own
here, so that nothing of it stands in the way of calls.

The thread starts with the first write that has to be kept, ends when the last saver
is gone, and is made anew in a forked child.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from langgraph_valkey import limits
from langgraph_valkey.aws import ElastiCache, NodeLag
from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.glide.link import BlockingLink
from langgraph_valkey.link import finish
from langgraph_valkey.loss_window.tending import adopt, tend
from langgraph_valkey.loss_window.window import LossWindow
from langgraph_valkey.settings import Settings

_log = logging.getLogger("langgraph_valkey")


@dataclass(slots=True)
class _Question:
    """What is asked again and again."""

    every_s: float
    due_s: float = 0.0
    complaint: str = ""

    def ask(self, put: Callable[[], None]) -> None:
        """Put it; that it was not answered is said once for each reason."""
        try:
            put()
        except LanggraphValkeyError as error:
            if str(error) != self.complaint:
                _log.warning("AWS did not tell how durable the cluster is: %s", error)
            self.complaint = str(error)
        else:
            self.complaint = ""


@dataclass(slots=True)
class _Watched:
    settings: Settings
    aws: ElastiCache | None
    link: BlockingLink | None = None
    due_s: float = 0.0
    durability: _Question = field(default_factory=lambda: _Question(limits.REREAD_S))
    lag: _Question = field(default_factory=lambda: _Question(limits.REREAD_LAG_S))
    failed: bool = False
    left: bool = False

    def connected(self) -> BlockingLink:
        if self.link is None:
            timeout_ms = min(self.settings.request_timeout_ms, limits.MONITOR_TIMEOUT_MS)
            name = f"{self.settings.client_name}-monitor" if self.settings.client_name else ""
            changed = {"request_timeout_ms": timeout_ms, "client_name": name}
            self.link = BlockingLink(self.settings.model_copy(update=changed))
        return self.link

    def disconnect_if_left(self) -> None:
        """Close the link if nobody will need it again."""
        if self.left and self.link is not None:
            self.link.close()


class Monitor:
    """The thread, and what it looks after."""

    def __init__(self) -> None:
        self._left: weakref.WeakSet[LossWindow] = weakref.WeakSet()
        self._of_parents: list[_Watched] = []
        self._begin()
        renew_after_fork(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._watched: weakref.WeakKeyDictionary[LossWindow, _Watched]
        self._watched = weakref.WeakKeyDictionary()
        self._thread: threading.Thread | None = None

    def after_fork(self) -> None:
        """Begin anew: the thread, and its connections, are the parent's."""
        # Kept, since a client that is collected closes itself, and never ends doing so
        # where its threads are not.
        self._of_parents.extend(self._watched.values())
        self._begin()

    def watch(
        self,
        window: LossWindow,
        settings: Settings,
        aws: ElastiCache | None = None,
    ) -> None:
        """Look after a window, at once; not if it was left.

        Args:
            window: The window; not kept alive by this.
            settings: Where its server is.
            aws: Tells which durability is in force, and how far logs lag.
        """
        with self._lock:
            if window in self._left:
                return
            watched = self._watched.get(window)
            if watched is None:
                watched = self._watched[window] = _Watched(settings, aws)
            watched.due_s = 0.0
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="langgraph-valkey-monitor", daemon=True
                )
                self._thread.start()
        self._wanted.set()

    def leave(self, window: LossWindow) -> None:
        """Look after it no more, whatever calls still say of it."""
        with self._lock:
            self._left.add(window)
            watched = self._watched.pop(window, None)
        if watched is not None:
            watched.left = True
            watched.disconnect_if_left()

    def _run(self) -> None:
        while True:
            self._wanted.clear()
            with self._lock:
                watched = list(self._watched.items())
                if not watched:
                    self._thread = None
                    return
            for window, about in watched:
                if time.monotonic() >= about.due_s:
                    self._look_after(window, about)
            due_s = min(about.due_s for _, about in watched)
            # No window is kept alive while there is nothing to do.
            del watched, window, about
            self._wanted.wait(max(0.0, due_s - time.monotonic()))

    def _look_after(self, window: LossWindow, about: _Watched) -> None:
        started_s = time.monotonic()
        try:
            _ask_aws(window, about, started_s)
            adopt(window)
            finish(tend(window, about.connected()))
            about.failed = False
        except Exception:  # noqa: BLE001 - the thread must go on for the others
            window.in_trouble = True
            if not about.failed:
                _log.exception("the loss window could not be looked after; it is tried again")
            about.failed = True
        about.disconnect_if_left()  # It may have been left while it was looked after.
        if window.in_trouble or window.is_recovering:
            pause_s = limits.PROBE_IN_TROUBLE_S
        else:
            pause_s = min(limits.PROBE_S, window.rule.beat_s)
        about.due_s = started_s + pause_s


def _ask_aws(window: LossWindow, about: _Watched, now_s: float) -> None:
    """Ask what is due, in a thread: an answer may take seconds."""
    aws = about.aws
    questions = [each for each in (about.durability, about.lag) if now_s >= each.due_s]
    if aws is None or not questions:
        return
    for question in questions:
        question.due_s = now_s + question.every_s

    def durability() -> None:
        window.vitals.told(aws.durability(), now_s)

    def lag() -> None:
        nodes: Sequence[NodeLag] = ()
        try:
            nodes = aws.lag()
        finally:
            window.vitals.told_lags(lambda slot: _lag_s(nodes, slot))

    def ask() -> None:
        if about.durability in questions:
            about.durability.ask(durability)
        if about.lag in questions:
            about.lag.ask(lag)

    threading.Thread(target=ask, name="langgraph-valkey-aws", daemon=True).start()


def _lag_s(nodes: Sequence[NodeLag], slot: int) -> float | None:
    """The most that a log of the shard of this slot lags; that of replicas is often not known."""
    known = [node.lag_s for node in nodes if node.lag_s is not None and node.holds(slot)]
    return max(known, default=None)


monitor = Monitor()
"""The one of this process."""
