"""The keeper: daemon threads that do for a `Runs`, again and again, what no call does.

One says that this process lives; one settles runs, and begins a recovery after a
failover was noticed. They are two, since looking at a shard that is being failed over
takes seconds: meanwhile the process must not pass for dead.

They start with the first run and end when their `Runs` is closed or gone, which they do
not keep alive.
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
    """A thread for each step; safe to use from many threads.

    Args:
        kept: What it looks after.
        steps: What it does with that, each again and again, and how often in seconds.
    """

    def __init__(self, kept: Any, *steps: tuple[Callable[[Any], None], float]) -> None:
        self._kept = weakref.ref(kept)
        self._steps = steps
        self._begin()
        renew_after_fork(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._wanted = [threading.Event() for _ in self._steps]
        self._ended = threading.Event()

    def after_fork(self) -> None:
        """Begin anew: the threads are the parent's."""
        ended = self._ended.is_set()
        self._begin()
        if ended:
            self._ended.set()

    def start(self) -> None:
        """See to it that it runs."""
        if self._threads:
            return
        with self._lock:
            if self._threads or self._ended.is_set():
                return
            for (step, round_s), wanted in zip(self._steps, self._wanted, strict=True):
                thread = threading.Thread(
                    target=_keep,
                    args=(self._kept, step, wanted, self._ended, min(ROUND_S, round_s)),
                    name="langgraph-valkey-keeper",
                    daemon=True,
                )
                thread.start()
                self._threads.append(thread)

    def wake(self) -> None:
        """Look now."""
        for wanted in self._wanted:
            wanted.set()

    def stop(self) -> None:
        """End it, after its rounds."""
        self._ended.set()
        self.wake()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()


def _keep(
    kept: weakref.ref[Any],
    step: Callable[[Any], None],
    wanted: threading.Event,
    ended: threading.Event,
    round_s: float,
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
                _log.warning("runs can't be looked after now, and it is tried again: %s", error)
            complaint = str(error)
        except Exception:  # noqa: BLE001 - the thread must go on
            if not complaint:
                _log.exception("runs could not be looked after; it is tried again")
            complaint = "unexpected"
        del itself
        wanted.wait(round_s)
        wanted.clear()
