"""When to look for runs that were lost: after a failover, and while something is left.

After a failover it is looked twice. At once, for what died before; and again when a
process that died together with the primary counts as dead, which it does not before its
last sign of life has run out.

So does any recovery that had to leave something: a run whose owner was still believed
to live (this program before it was started anew, say), one that raised, or all of them
since the registry was away. It is done again, after pauses that grow. And so does a run
that is cut off here by an outage.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.runs.report import RunsReport

_log = logging.getLogger("langgraph_valkey")

AGAIN = 1.2
"""When it is looked again, in times for which a process is believed to live."""

PAUSE_MOST_S = 600.0
"""Longest pause between two looks while something is left. Each one reads all runs that
are not settled, so it should be rare where what is left is never done."""


class Rewinds:
    """The recoveries that are due in one process; one at a time.

    Args:
        alive_s: For how long a process is believed to live after it said so.
    """

    def __init__(self, alive_s: float) -> None:
        self._alive_s = alive_s
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew: the parent looks for what it noticed."""
        self._lock = threading.Lock()
        self._due_s: list[float] = []
        self._again_s = float("inf")
        self._pause_s = AGAIN * self._alive_s
        self._under_way = threading.Lock()

    def failed_over(self) -> None:
        """A failover was noticed."""
        now_s = time.monotonic()
        with self._lock:
            self._due_s += [now_s, now_s + AGAIN * self._alive_s]

    def lost(self) -> None:
        """A run of this process was found to be lost: it is looked at once."""
        with self._lock:
            self._due_s.append(time.monotonic())

    def looked(self, *, is_left: bool) -> None:
        """It was looked; whether something is left that may be done later."""
        with self._lock:
            self._again_s = time.monotonic() + self._pause_s if is_left else float("inf")
            longer_s = min(2 * self._pause_s, PAUSE_MOST_S)
            self._pause_s = longer_s if is_left else AGAIN * self._alive_s

    def left(self) -> None:
        """A run was cut off here by an outage."""
        with self._lock:
            self._again_s = min(self._again_s, time.monotonic() + self._pause_s)

    def begin(self) -> bool:
        """Whether a recovery is due; then it is to be launched."""
        now_s = time.monotonic()
        with self._lock:
            if all(due_s > now_s for due_s in (self._again_s, *self._due_s)):
                return False
            if not self._under_way.acquire(blocking=False):
                return False  # Once more, when that one has ended.
            self._due_s = [due_s for due_s in self._due_s if due_s > now_s]
            return True

    def launch(self, recover: Callable[[], RunsReport]) -> None:
        """Do the recovery that has begun; in a thread of its own, since it executes graphs.

        Raises:
            RuntimeError: The system has no thread for it now. It is due again.
        """

        def work() -> None:
            try:
                _recover_quietly(recover)
            finally:
                self._under_way.release()

        try:
            threading.Thread(target=work, name="langgraph-valkey-recovery", daemon=True).start()
        except BaseException:
            self._under_way.release()
            self.lost()
            raise


def _recover_quietly(recover: Callable[[], RunsReport]) -> None:
    """Recover where nobody is told but by the log."""
    try:
        report = recover()
    except LanggraphValkeyError as error:
        _log.warning("runs could not be recovered, and it is tried again: %s", error)
    except Exception:  # noqa: BLE001 - the keeper must be able to try again
        _log.exception("runs could not be recovered; it is tried again")
    else:
        if report.rerun or report.conflicts or report.failed:
            _log.warning(
                "turns were lost: %d runs were executed again, %d failed or were left, and %d are "
                "in conflict with what came later", len(report.rerun), len(report.failed),
                len(report.conflicts),
            )  # fmt: skip
