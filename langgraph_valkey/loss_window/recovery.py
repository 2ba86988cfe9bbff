"""A recovery: all replays that one change of primary asks for, added up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from langgraph_valkey.errors import ForkDetected
from langgraph_valkey.loss_window.replay import Outcome
from langgraph_valkey.loss_window.report import Fork, Hooks, RecoveryReport

_log = logging.getLogger("langgraph_valkey")


class Recovery:
    """What has been done so far since a primary was first heard of.

    Args:
        identity: The primary.
        started_s: When it was first heard of.
    """

    def __init__(self, identity: bytes, started_s: float) -> None:
        self.identity = identity
        self._started_s = started_s
        self._total = Outcome()
        self._forks: dict[tuple[str, str], Fork] = {}
        self._rewound: dict[str, None] = {}
        self._incomplete: dict[str, None] = {}

    def add(self, thread: str, outcome: Outcome) -> None:
        """A thread was replayed."""
        total = self._total
        total.replayed += outcome.replayed
        total.already_there += outcome.already_there
        total.deleted += outcome.deleted
        total.expired += outcome.expired
        total.uncovered += outcome.uncovered
        for namespace, fork in outcome.forks.items():
            self._forks[thread, namespace] = fork
        if outcome.replayed or outcome.lost:
            self._rewound[thread] = None
        if outcome.lost:
            self._incomplete[thread] = None

    def give_up(self, thread: str) -> None:
        """Something of a thread is lost that this process does not have."""
        self._rewound[thread] = self._incomplete[thread] = None

    def report(self, now_s: float) -> RecoveryReport:
        """What came of it."""
        return RecoveryReport(
            shard=self.identity.decode(),
            replayed=self._total.replayed,
            already_there=self._total.already_there,
            deleted=self._total.deleted,
            expired=self._total.expired,
            forks=tuple(self._forks.values()),
            rewound=tuple(self._rewound),
            incomplete=tuple(self._incomplete),
            uncovered=self._total.uncovered,
            duration_s=now_s - self._started_s,
        )


class Recoveries:
    """Those that are open, what came of the others, and who is told; its owner locks.

    Args:
        hooks: Who is told.
        raises_forks: Whether the next call on a thread that forked raises it.

    Attributes:
        count: How many have ended.
    """

    def __init__(self, hooks: Hooks, *, raises_forks: bool) -> None:
        self._hooks = hooks
        self._raises_forks = raises_forks
        self.count = 0
        self._open: dict[bytes, Recovery] = {}
        self._reports: dict[bytes, RecoveryReport] = {}
        self._forked: dict[str, Fork] = {}

    @property
    def is_open(self) -> bool:
        """Whether a primary was replaced, and not all is replayed yet."""
        return bool(self._open)

    def begin(self, identity: bytes, now_s: float) -> Recovery:
        """A primary has replaced another; the recovery that goes on, if one does."""
        return self._open.setdefault(identity, Recovery(identity, now_s))

    def add(self, identity: bytes, thread: str, outcome: Outcome, now_s: float) -> None:
        """A thread was replayed to this primary."""
        if outcome.replayed or outcome.lost:
            self.begin(identity, now_s)
        if identity in self._open:
            self._open[identity].add(thread, outcome)
        if self._raises_forks and outcome.forks:
            self._forked[thread] = next(reversed(outcome.forks.values()))

    def end(self, now_s: float) -> list[RecoveryReport]:
        """All that had to be replayed has been."""
        reports = [recovery.report(now_s) for recovery in self._open.values()]
        self._reports.update(zip(self._open, reports, strict=True))
        self.count += len(reports)
        self._open.clear()
        return reports

    def last(self, identity: bytes) -> RecoveryReport | None:
        """What came of it when this primary replaced another."""
        return self._reports.get(identity)

    def raise_fork(self, thread: str) -> None:
        """Raise once if the thread has forked, where that is wanted.

        Raises:
            ForkDetected: It has.
        """
        fork = self._forked.pop(thread, None) if self._forked else None
        if fork is not None:
            raise ForkDetected(
                f"thread {thread!r} has two branches since a failover, and both are kept: go on "
                "from one of them by its checkpoint_id, or call again to go on from the head",
                thread_id=thread,
                checkpoint_ids=(fork.head, fork.branch),
            )

    # --- telling; without the owner's lock -------------------------------------------

    def tell(self, reports: Iterable[RecoveryReport]) -> None:
        """Tell what came of recoveries."""
        for report in reports:
            lost = report.replayed or report.incomplete
            _log.log(
                logging.WARNING if lost else logging.INFO,
                "another primary answers (%s): %d entries had been lost and were replayed, %d were "
                "there, %d threads can't be restored from here, %d forks; %.1f s",
                report.shard, report.replayed, report.already_there, len(report.incomplete),
                len(report.forks), report.duration_s,
            )  # fmt: skip
            call_hook(self._hooks.on_rewind, report)

    def tell_forks(self, forks: Iterable[Fork]) -> None:
        """Tell of branches that came to stand beside a head."""
        for fork in forks:
            call_hook(self._hooks.on_fork, fork)

    def tell_uncovered(self, many: int) -> None:
        """Tell how many entries are not covered."""
        call_hook(self._hooks.on_uncovered, many)


def call_hook(hook: Callable[[Any], None] | None, what: Any) -> None:
    """Call a hook; what it raises is logged, and harms nothing else."""
    if hook is not None:
        try:
            hook(what)
        except Exception:  # noqa: BLE001 - it is the user's
            _log.exception("a hook of the loss window failed")
