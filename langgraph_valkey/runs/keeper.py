"""The keeper: a daemon thread that says that this process lives, and settles its runs.

It starts with the first run and ends when its `Runs` is closed or gone, which it does
not keep alive. It also begins a recovery after a failover was noticed; that has a
thread of its own, since it executes graphs.
"""

from __future__ import annotations

import logging
import threading
import weakref
from typing import Protocol

from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.fork import renew_after_fork

_log = logging.getLogger("langgraph_valkey")

ROUND_S = 1.0
"""How often it looks."""


class Kept(Protocol):
    """What a keeper looks after."""

    def tend(self) -> None:
        """One round."""
        ...


class Keeper:
    """One thread; safe to use from many threads.

    Args:
        kept: What it looks after.
        round_s: How often, in seconds.
    """

    def __init__(self, kept: Kept, round_s: float) -> None:
        self._kept = weakref.ref(kept)
        self._round_s = min(ROUND_S, round_s)
        self._begin()
        renew_after_fork(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wanted = threading.Event()
        self._ended = threading.Event()

    def after_fork(self) -> None:
        """Begin anew: the thread is the parent's."""
        ended = self._ended.is_set()
        self._begin()
        if ended:
            self._ended.set()

    def start(self) -> None:
        """See to it that it runs."""
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._ended.is_set():
                    self._thread = threading.Thread(
                        target=_keep,
                        args=(self._kept, self._wanted, self._ended, self._round_s),
                        name="langgraph-valkey-keeper",
                        daemon=True,
                    )
                    self._thread.start()

    def wake(self) -> None:
        """Look now."""
        self._wanted.set()

    def stop(self) -> None:
        """End it, after its round."""
        self._ended.set()
        self._wanted.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()


def _keep(
    kept: weakref.ref[Kept], wanted: threading.Event, ended: threading.Event, round_s: float
) -> None:
    complaint = ""
    while not ended.is_set():
        itself = kept()
        if itself is None:
            return
        try:
            itself.tend()
            complaint = ""
        except LanggraphValkeyError as error:
            if str(error) != complaint:
                _log.warning("runs can't be looked after now, and it is tried again: %s", error)
            complaint = str(error)
        except Exception:  # noqa: BLE001 - the thread must go on
            if not complaint:
                _log.exception("runs could not be looked after; it is tried again")
            complaint = "unexpected"
        del itself
        wanted.wait(round_s)
        wanted.clear()
