"""A recovery: all replays that one change of primary asks for, added up."""

from __future__ import annotations

from langgraph_valkey.loss_window.replay import Outcome
from langgraph_valkey.loss_window.report import Fork, RecoveryReport


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
