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
from collections.abc import Callable
from dataclasses import dataclass

from langgraph_valkey import limits
from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.glide.link import BlockingLink
from langgraph_valkey.link import finish
from langgraph_valkey.loss_window.report import Durability
from langgraph_valkey.loss_window.tending import adopt, tend
from langgraph_valkey.loss_window.window import LossWindow
from langgraph_valkey.settings import Settings

_log = logging.getLogger("langgraph_valkey")


@dataclass(slots=True)
class _Watched:
    settings: Settings
    ask_durability: Callable[[], Durability] | None
    link: BlockingLink | None = None
    due_s: float = 0.0
    reread_s: float = 0.0
    failed: bool = False

    def connected(self) -> BlockingLink:
        if self.link is None:
            timeout_ms = min(self.settings.request_timeout_ms, limits.MONITOR_TIMEOUT_MS)
            name = f"{self.settings.client_name}-monitor" if self.settings.client_name else ""
            changed = {"request_timeout_ms": timeout_ms, "client_name": name}
            self.link = BlockingLink(self.settings.model_copy(update=changed))
        return self.link


class Monitor:
    """The thread, and what it looks after."""

    def __init__(self) -> None:
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
        self._begin()

    def watch(
        self,
        window: LossWindow,
        settings: Settings,
        ask_durability: Callable[[], Durability] | None = None,
    ) -> None:
        """Look after a window, at once.

        Args:
            window: The window; not kept alive by this.
            settings: Where its server is.
            ask_durability: Tells which durability is in force; may raise errors of
                this package.
        """
        with self._lock:
            watched = self._watched.get(window)
            if watched is None:
                watched = self._watched[window] = _Watched(settings, ask_durability)
            watched.due_s = 0.0
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="langgraph-valkey-monitor", daemon=True
                )
                self._thread.start()
        self._wanted.set()

    def leave(self, window: LossWindow) -> None:
        """Look after it no more."""
        with self._lock:
            watched = self._watched.pop(window, None)
        if watched is not None and watched.link is not None:
            watched.link.close()

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
            self._reread(window, about, started_s)
            adopt(window)
            finish(tend(window, about.connected()))
            about.failed = False
        except Exception:  # noqa: BLE001 - the thread must go on for the others
            window.in_trouble = True
            if not about.failed:
                _log.exception("the loss window could not be looked after; it is tried again")
            about.failed = True
        if window.in_trouble or window.is_recovering:
            pause_s = limits.PROBE_IN_TROUBLE_S
        else:
            pause_s = min(limits.PROBE_S, window.rule.beat_s)
        about.due_s = started_s + pause_s

    def _reread(self, window: LossWindow, about: _Watched, now_s: float) -> None:
        """Ask which durability is in force, in a thread: it may take seconds."""
        ask = about.ask_durability
        if ask is None or now_s < about.reread_s:
            return
        about.reread_s = now_s + limits.REREAD_S

        def reread() -> None:
            try:
                window.rule.told(ask(), "aws", now_s)
            except LanggraphValkeyError as error:
                _log.warning("which durability is in force could not be asked: %s", error)

        threading.Thread(target=reread, name="langgraph-valkey-reread", daemon=True).start()


monitor = Monitor()
"""The one of this process."""
