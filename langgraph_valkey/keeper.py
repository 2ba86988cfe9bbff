"""Keepers: daemon threads that do again and again, for an object, what no call of it does.

A keeper starts when its object first needs it, and ends when that is closed or gone, which
it does not keep alive. What a step raises is logged once a row of failures, and tried again.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.fork import renew_after_fork

_log = logging.getLogger("langgraph_valkey")

ROUND_S = 1.0
"""How often it looks."""


class Keeper:
    """A thread that takes a step again and again; safe to use from many threads.

    Args:
        kept: What it looks after.
        step: What it does with that.
        round_s: How often, in seconds; at least once in `ROUND_S`.
        what: What it looks after, for the log.
    """

    def __init__(self, kept: Any, step: Callable[[Any], None], round_s: float, what: str) -> None:
        self._kept = weakref.ref(kept)
        self._step = step
        self._round_s = round_s
        self._what = what
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
        """See to it that it runs.

        Raises:
            RuntimeError: The system has no thread for it now; it is tried again next time.
        """
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is not None or self._ended.is_set():
                return
            round_s = min(ROUND_S, self._round_s)
            thread = threading.Thread(
                target=_keep,
                args=(self._kept, self._step, self._wanted, self._ended, round_s, self._what),
                name="langgraph-valkey-keeper",
                daemon=True,
            )
            thread.start()
            self._thread = thread

    def wake(self) -> None:
        """Look now."""
        self._wanted.set()

    def stop(self) -> None:
        """End it, after its round."""
        self._ended.set()
        self.wake()
        with self._lock:  # One that is being started is waited for, too.
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()


def _keep(
    kept: weakref.ref[Any],
    step: Callable[[Any], None],
    wanted: threading.Event,
    ended: threading.Event,
    round_s: float,
    what: str,
) -> None:
    complaint = ""
    while not ended.is_set():
        itself = kept()
        if itself is None:
            return
        try:
            step(itself)
            complaint = ""
        except LanggraphValkeyError as error:
            if str(error) != complaint:
                _log.warning("%s can't be looked after now, and it is tried again: %s", what, error)
            complaint = str(error)
        except Exception:  # noqa: BLE001 - the thread must go on
            if not complaint:
                _log.exception("%s could not be looked after; it is tried again", what)
            complaint = "unexpected"
        del itself
        wanted.wait(round_s)
        wanted.clear()
